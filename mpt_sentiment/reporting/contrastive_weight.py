"""Section on the weight λ2 of the contrastive loss (paper, Fig. 7)."""

from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.figures import plot_scores_by_value
from mpt_sentiment.reporting.score_tables import score_table
from mpt_sentiment.reporting.section import Omitted, Section, share
from mpt_sentiment.rows import parse_row

TITLE = "Weight λ2 of the contrastive loss (Fig. 7)"
FIELD = "loss_weight_mlcl"
WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2)


def weights(plan: Plan) -> dict[str, float]:
    """Map the title of each row to its λ2.

    The rows `mpt` and `mpt -mlcl` are used where they have the value.
    """
    own = plan.field(FIELD)
    titles = {}
    for weight in sorted({*WEIGHTS, own}):
        row = MPT if weight == own else "mpt -mlcl" if weight == 0 else f"mpt {FIELD}={weight:g}"
        titles[parse_row(row).title] = weight
    return titles


def rows(plan: Plan) -> list[str]:
    """Return a row for each weight."""
    return list(weights(plan))


def section(context: Context) -> Section:
    """Score MPT for each weight of the contrastive loss."""
    by_title = weights(context.plan)
    titles = context.present(list(by_title))
    if len(titles) < 2:
        raise Omitted("Two values of λ2 or more are needed. " + " ".join(context.missing(list(by_title))))
    compared = [row | {"weight": by_title[row["title"]]} for row in context.compared(titles)]
    caption = f"Weighted F1 and accuracy by λ2. {context.describe(titles)}"
    names = {title: f"λ2\u00a0=\u00a0{weight:g}" for title, weight in by_title.items()}
    best = max(compared, key=lambda row: row["f1_weighted"]["mean"])
    means = [row["f1_weighted"]["mean"] for row in compared]
    widest = max(row["f1_weighted"]["interval"][1] - row["f1_weighted"]["interval"][0] for row in compared)
    prose = [
        "Only λ2 differs between these runs; λ2 = 0 leaves the contrastive loss out. The paper finds the best values "
        "between 0.05 and 0.10.",
        f"The best mean of weighted F1 is at λ2 = {best['weight']:g}. All values of λ2 are within "
        f"{share(max(means) - min(means))} points of one another; a 95 % interval over posts is up to "
        f"{share(widest)} points wide. The best of several values measured on the same posts is too optimistic: "
        "choose λ2 on validation.",
    ]
    runs = {
        title: [float(each.mean()) for each in (context.probabilities(title).argmax(axis=2) == context.labels)]
        for title in titles
    }
    panel = [row | {"runs": runs[row["title"]]} for row in compared]
    about = (
        "Points are the means over seeds, small points single seeds (accuracy), bands the 95 % intervals over posts."
    )
    figure = context.figure("lambda", f"{caption} {about}", plot_scores_by_value, {context.heading: panel}, "λ2")
    table = score_table("lambda", caption, compared, names)
    return Section(TITLE, prose, [table], [figure], notes=context.missing(list(by_title)))
