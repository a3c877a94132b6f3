"""Section on the parts of the posts on which MPT is wrong."""

from mpt_sentiment.evaluation.errors import error_table
from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.section import Section, Table, share, shares

TITLE = "Errors by part"
MIN_POSTS = 20  # of a part that the text names


def rows(plan: Plan) -> list[str]:
    """Return MPT."""
    return [MPT]


def section(context: Context) -> Section:
    """Tabulate accuracy by class, length, missing modality, language and agreement of labels."""
    context.probabilities(MPT)
    records = error_table(context.table, context.tested, MPT)
    about = context.describe([MPT]).split("; 95 %")[0]
    table = Table(
        "errors",
        f"Accuracy of `mpt` (mean probabilities over seeds) on parts of {about}. Wilson 95 % intervals.",
        records,
        {
            "By": lambda record: record["aspect"],
            "Part": lambda record: record["part"],
            "Posts": lambda record: f"{record['posts']:,}",
            "Errors": lambda record: f"{record['errors']:,}",
            "Accuracy, % (95 % interval)": lambda record: (
                f"{share(record['accuracy'])} ({shares(record['interval'])})"
            ),
            "Mean confidence, %": lambda record: share(record["confidence"]),
        },
    )
    prose = [
        "Texts are in quarters by their number of characters. Where the mean confidence is above the upper end of the "
        "interval, MPT is too sure of itself there."
    ]
    if large := [record for record in records if MIN_POSTS <= record["posts"] < len(context.labels)]:
        worst = min(large, key=lambda record: record["accuracy"])
        prose.append(
            f"The lowest accuracy among the parts with {MIN_POSTS} posts or more: {worst['aspect']} "
            f"“{worst['part']}”, {share(worst['accuracy'])} % of {worst['posts']:,} posts."
        )
    return Section(TITLE, prose, [table])
