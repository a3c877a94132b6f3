"""Section on posts whose label may be wrong."""

import numpy as np

from mpt_sentiment.evaluation.label_noise import label_suspects
from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.score_tables import with_interval
from mpt_sentiment.reporting.section import Section, Table, number, share

TITLE = "Label noise"
NUM_SUSPECTS = 10


def rows(plan: Plan) -> list[str]:
    """Return MPT, which finds the suspects, and rows that did not find them."""
    return [MPT, *(["mpt -rationales"] if {"rationales", "text"} <= {*plan.modalities} else []), *plan.unimodal()]


def section(context: Context) -> Section:
    """List posts whose label the out-of-fold predictions contradict with confidence."""
    context.probabilities(MPT)
    suspects = label_suspects(context.table, MPT)
    prose = [
        "Confident learning (Northcutt et al., 2021) lists posts for which `mpt`, trained without them, predicts "
        "another class with at least the confidence that it has in posts labelled with that class. Whether the "
        "label or the prediction is wrong is for a person to decide.",
        f"{len(suspects):,} of {len(context.labels):,} tested posts are listed "
        f"({share(len(suspects) / len(context.labels))} %).",
    ]
    if not suspects:
        return Section(TITLE, prose)
    first = suspects[:NUM_SUSPECTS]
    about = context.describe([MPT]).split("; 95 %")[0]
    tables = [
        Table(
            "noise_suspects",
            f"The {len(first)} most suspicious posts of {about}.",
            first,
            {
                "Id": lambda record: record["id"],
                "Label": lambda record: record["label"],
                "Predicted": lambda record: record["predicted"],
                "Its probability": lambda record: number(record["confidence"]),
                "Probability of the label": lambda record: number(record["label_probability"]),
            },
        )
    ]
    kept = np.isin(context.ids, [suspect["id"] for suspect in suspects], invert=True)
    notes = context.missing(rows(context.plan))
    if len(np.unique(context.labels[kept])) > 1:
        tables.append(table_without(context, kept))
        prose.append(
            "Without the suspects, the scores of `mpt` rise by construction, because it is wrong on all of them. The "
            "scores of the other rows say more."
        )
    posts = {
        f"The {len(first)} most suspicious posts": [
            context.post(
                each["id"],
                {"label": each["label"], "predicted": f"{each['predicted']} {100 * each['confidence']:.0f} %"},
            )
            for each in first
        ]
    }
    return Section(TITLE, prose, tables, posts=posts, notes=notes)


def table_without(context: Context, kept: np.ndarray) -> Table:
    """Tabulate the scores on all posts and on the kept ones `(num_posts,)`."""
    titles = context.present(rows(context.plan))
    everything, without = (context.compared(titles, chosen) for chosen in (None, kept))
    scores = {"accuracy": "Accuracy", "f1_weighted": "Weighted F1"}
    records = [
        {"row": row["title"]} | {score: {"all": row[score], "without": other[score]} for score in scores}
        for row, other in zip(everything, without, strict=True)
    ]
    columns = {"Row": lambda record: f"`{record['row']}`"}
    for score, name in scores.items():
        columns[f"{name} on all, % (95 % interval)"] = lambda record, score=score: with_interval(record[score]["all"])
        columns[f"{name} without, % (95 % interval)"] = lambda record, score=score: with_interval(
            record[score]["without"]
        )
    caption = f"Scores on all posts, and on the {int(kept.sum()):,} without the suspects. {context.describe(titles)}"
    return Table("noise_scores", caption, records, columns)
