"""Section on posts whose label may be wrong."""

from mpt_sentiment.evaluation.label_noise import label_suspects, scores_without
from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.section import Omitted, Section, Table, number, share

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
    titles = context.present(rows(context.plan))
    notes = context.missing(rows(context.plan))
    try:
        tables.append(table_without(context, [suspect["id"] for suspect in suspects], titles))
        prose.append(
            "Without the suspects, the scores of `mpt` rise by construction, because it is wrong on all of them. The "
            "scores of the other rows say more."
        )
    except ValueError as error:
        notes.append(str(error))
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


def table_without(context: Context, ids: list[str], titles: list[str]) -> Table:
    """Tabulate the scores on all posts and without the suspects.

    Raises:
        ValueError: all posts are suspects.
    """
    import pyarrow.compute

    chosen = context.table.filter(pyarrow.compute.is_in(context.table["row"], pyarrow.array(titles)))
    scores = scores_without(chosen, ids)
    records = [{"row": row, **values} for row, values in scores.items()]
    if not records:
        raise Omitted("No row has predictions of all posts.")
    kept = records[0]["posts_without"]
    columns = {"Row": lambda record: f"`{record['row']}`"}
    for score, name in (("accuracy", "Accuracy"), ("f1_weighted", "Weighted F1")):
        columns[f"{name} on all, %"] = lambda record, score=score: share(record["all"][score])
        columns[f"{name} without, %"] = lambda record, score=score: share(record["without"][score])
        columns[f"{name}: change, points"] = lambda record, score=score: (
            f"{100 * (record['without'][score] - record['all'][score]):+.1f}".replace("-", "−")
        )
    caption = (
        f"Scores on all {len(context.labels):,} posts, and on {kept:,} posts without the suspects; means over seeds."
    )
    return Table("noise_scores", caption, records, columns)
