"""Section on the parts of the posts on which MPT is wrong."""

from mpt_sentiment.evaluation.errors import error_table
from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.section import Section, Table, share, shares

TITLE = "Errors by part"


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
    parts = [record for record in records if record["posts"] < len(context.labels)]
    large = [record for record in parts if record["posts"] >= 20] or parts
    worst = min(large, key=lambda record: record["accuracy"])
    prose = [
        "Texts are in quarters by their number of characters. Where the mean confidence is above the upper end of the "
        "interval, MPT is too sure of itself there.",
        f"Lowest among the parts with 20 posts or more: {worst['aspect']} “{worst['part']}”, "
        f"{share(worst['accuracy'])} % of "
        f"{worst['posts']:,} posts.",
    ]
    return Section(TITLE, prose, [table])
