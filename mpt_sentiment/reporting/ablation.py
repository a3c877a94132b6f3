"""Section on parts of MPT that are left out (paper, Table 6, and beyond it)."""

from typing import Any

from mpt_sentiment.evaluation.comparison import plot_comparison
from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.score_tables import score_table
from mpt_sentiment.reporting.section import Section
from mpt_sentiment.rows import parse_row

TITLE = "Ablation (Table 6)"
FROZEN = -1  # of `freeze_text_layers`: the whole encoder
BASELINE = "mpt -rationales -mlcl"
PAPER = {BASELINE: "baseline", "mpt -mlcl": "rationales only", "mpt -rationales": "MLCL only", MPT: "full model"}
# Words of a row → what it is.
MEANINGS = {
    "-rationales": "no rationales",
    "-text": "no text",
    "-image": "no image",
    "-mlcl": "no contrastive loss",
    "-sknet": "no SKNet",
    "-lstm": "no LSTM",
    "-mean": "no mean of the states",
    "+sknet": "with SKNet",
    "+lstm": "with an LSTM",
    "-cnn": "no CNN",
    "-vit": "no ViT",
    "shuffled": "rationales of other posts",
    "fusion=concat": "concatenation for LAFF",
    "fusion=laff": "LAFF for concatenation",
    "share_text_encoder=false": "a rationale encoder of its own",
    "share_text_encoder=true": "one encoder for text and rationales",
}


def rows(plan: Plan) -> list[str]:
    """Return the list `ablations`, the paper's branches, other fusion and encoder, and Table 6."""
    extra = [f"mpt +{branch}" for branch in absent_branches(plan)]
    extra.append("mpt fusion=laff" if plan.field("fusion") == "concat" else "mpt fusion=concat")
    if {"text", "rationales"} <= {*plan.modalities} and plan.field("freeze_text_layers") != FROZEN:
        extra.append(f"mpt share_text_encoder={'false' if plan.field('share_text_encoder') else 'true'}")
    return [*plan.ablations, *extra, *([BASELINE] if {*PAPER} - {BASELINE} <= {*plan.ablations} else [])]


def absent_branches(plan: Plan) -> list[str]:
    """List the paper's text branches that this MPT lacks."""
    if "text" not in plan.modalities:
        return []
    return [
        branch for branch in plan.base.model.config_class().text_branches if branch not in plan.field("text_branches")
    ]


def section(context: Context) -> Section:
    """Compare MPT with its rows that lack a part."""
    context.probabilities(MPT)
    titles = [title for title in context.present(rows(context.plan)) if title != parse_row(BASELINE).title]
    compared = context.compared(titles)
    caption = f"Rows without a part of MPT. {context.describe(titles)} p-values are corrected for this table."
    meanings = {title: meaning(title) for title in titles}
    tables = [score_table("ablation", caption, compared, meanings)]
    prose = [
        "Each row is MPT with one change, trained like the full model. A negative difference means that the part "
        "helps. `mpt shuffled` is the control: it has the same network and reads as many rationales, but those of "
        "other posts. Where it scores like `mpt`, the content of the rationales does not help.",
        *single_branches(context.plan),
        *verdict(compared),
    ]
    if len(paper := context.present(list(PAPER))) == len(PAPER):
        caption = f"The four rows of the paper's Table 6. {context.describe(paper)}"
        names = {parse_row(row).title: name for row, name in PAPER.items()}
        tables.insert(0, score_table("table_6", caption, context.compared(paper), names))
    figure = context.figure("ablation", "Weighted F1 of the rows, best at the top.", plot_comparison, compared, TITLE)
    return Section(TITLE, prose, tables, [figure], notes=context.missing(rows(context.plan)))


def single_branches(plan: Plan) -> list[str]:
    """Say why some rows of the paper have no counterpart here."""
    sentences = []
    for modality in ("text", "image"):
        branches = plan.field(f"{modality}_branches")
        if modality in plan.modalities and len(branches) == 1:
            sentences.append(
                f"The {modality} has the branch `{branches[0]}` alone: the row without it is `mpt -{modality}`."
            )
    if {"text", "rationales"} <= {*plan.modalities} and plan.field("freeze_text_layers") == FROZEN:
        sentences.append(
            "The text encoder is frozen: one of the rationales' own would have the same outputs, and has no row."
        )
    return [" ".join(sentences)] if sentences else []


def meaning(title: str) -> str:
    """Write a row in words."""
    words = []
    for word in parse_row(title).words:
        name, _, value = word.partition("=")
        words.append(f"{value} rationale alone" if name == "perspectives" else MEANINGS.get(word, word))
    return ", ".join(words) or "full model"


def verdict(compared: list[dict[str, Any]]) -> list[str]:
    """Say for which rows the difference is not due to chance, at the level of 5 %."""
    differences = {row["title"]: row["difference_f1_weighted"] for row in compared if row["difference_f1_weighted"]}
    significant = [
        title for title, each in differences.items() if each["p_holm"] is not None and each["p_holm"] < 0.05
    ]
    if not differences:
        return []
    if not significant:
        return [
            "On these posts, no difference in weighted F1 is significant at 5 %: all of them may be due to chance."
        ]
    listed = ", ".join(f"`{title}`" for title in significant)
    return [
        f"Significant at 5 % after correction, in weighted F1: {listed} ({len(significant)} of {len(differences)} "
        "rows). The other differences may be due to chance."
    ]
