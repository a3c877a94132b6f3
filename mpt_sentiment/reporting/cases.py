"""Section on posts that MPT alone gets right, or wrong (paper, Table 7)."""

import numpy as np

from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.lmm import LMM, lmm_probabilities
from mpt_sentiment.reporting.section import Omitted, Section, Table, number

TITLE = "Cases (Table 7)"
HEADINGS = ("MPT is right, the others are wrong", "MPT is wrong, the others are right")


def rows(plan: Plan) -> list[str]:
    """Return MPT and the networks of one modality."""
    return [MPT, *plan.unimodal()]


def section(context: Context) -> Section:
    """Choose posts by rule, not by hand."""
    mpt = context.mean_probabilities(MPT)
    others = {row: context.mean_probabilities(row) for row in context.present(context.plan.unimodal())}
    notes = context.missing(rows(context.plan))
    places = np.arange(len(context.labels))
    try:
        places, lmm = lmm_probabilities(context)
        others = {row: values[places] for row, values in others.items()} | {LMM: lmm}
    except Omitted as reason:
        notes.append(f"Without the LMM. {reason}")
    if not others:
        raise Omitted("No other system has predictions of these posts.")
    mpt, labels = mpt[places], context.labels[places]
    ids = [context.ids[place] for place in places]
    chosen = choose_cases(ids, labels, mpt, list(others.values()))
    names, posts, records = context.label_names, {}, []
    for heading, cases in zip(HEADINGS, chosen, strict=True):
        posts[f"{heading}: {len(cases):,} posts"] = shown = []
        for case in cases[: context.num_shown]:
            scores = {MPT: mpt[case]} | {row: values[case] for row, values in others.items()}
            facts = {"label": names[labels[case]]}
            facts |= {row: f"{names[score.argmax()]} {100 * score.max():.0f} %" for row, score in scores.items()}
            shown.append(context.post(ids[case], facts))
        records += [
            {
                "kind": heading,
                "id": ids[case],
                "label": names[labels[case]],
                "margin": float(margins(mpt, labels)[case]),
                **{row: names[score[case].argmax()] for row, score in ({MPT: mpt} | others).items()},
            }
            for case in cases[: context.num_shown]
        ]
    listed = ", ".join(f"`{row}`" for row in others)
    prose = [
        f"Rule: all of {listed} are wrong and MPT is right, or the reverse. Of these posts, those with the largest "
        "margin between MPT's probability of its most probable class and of the other one that matters (the label, "
        "or the best wrong class) are shown, ties in the order of ids. Probabilities are means over seeds.",
        f"Among {len(ids):,} posts, MPT alone is right on {len(chosen[0]):,}, and alone wrong on {len(chosen[1]):,}.",
    ]
    columns = {"Id": lambda record: record["id"], "Label": lambda record: record["label"]}
    columns |= {row: lambda record, row=row: record[row] for row in (MPT, *others)}
    columns["Margin"] = lambda record: number(abs(record["margin"]))
    about = context.describe([MPT, *others.keys() & context.runs.keys()], len(ids)).split("; 95 %")[0]
    table = Table("cases", f"Predictions for the chosen posts. {about}.", records, columns)
    return Section(TITLE, prose, [table], posts=posts, notes=notes)


def margins(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the probability of the label minus that of the best other class, `(num_posts,)`."""
    rest = probabilities.copy()
    rest[np.arange(len(labels)), labels] = -1
    return probabilities[np.arange(len(labels)), labels] - rest.max(axis=1)


def choose_cases(
    ids: list[str], labels: np.ndarray, mpt: np.ndarray, others: list[np.ndarray]
) -> tuple[list[int], list[int]]:
    """List the posts that MPT alone gets right, and those that it alone gets wrong.

    Args:
        ids (`list[str]`): ids of the posts.
        labels (`np.ndarray` of shape `(num_posts,)`): true class indices.
        mpt (`np.ndarray` of shape `(num_posts, num_classes)`): its probabilities.
        others (list of such arrays): those of the other systems.

    Returns:
        Places of the posts, the largest margin first, ties by id.
    """
    right = mpt.argmax(axis=1) == labels
    correct = np.array([values.argmax(axis=1) == labels for values in others])
    size = np.abs(margins(mpt, labels))
    order = sorted(range(len(ids)), key=lambda place: (-round(float(size[place]), 12), ids[place]))
    wins, losses = right & ~correct.any(axis=0), ~right & correct.all(axis=0)
    return [place for place in order if wins[place]], [place for place in order if losses[place]]
