"""Section on MPT and the large multimodal model alone (paper, Fig. 4 and 5)."""

import numpy as np

from mpt_sentiment.evaluation.comparison import Entry, compare
from mpt_sentiment.evaluation.plots import plot_confusion_matrices
from mpt_sentiment.evaluation.scored_posts import scored_posts
from mpt_sentiment.evaluation.scores import confusion_matrix
from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.score_tables import score_table
from mpt_sentiment.reporting.section import Omitted, Section

TITLE = "MPT and the large multimodal model alone (Fig. 4, 5)"
LMM = "LMM alone"


def rows(plan: Plan) -> list[str]:
    """Return MPT."""
    return [MPT]


def section(context: Context) -> Section:
    """Compare MPT with the zero-shot predictions of the large multimodal model."""
    places, probabilities = lmm_probabilities(context)
    runs = context.probabilities(MPT)[:, places]
    labels, names = context.labels[places], context.label_names
    groups = np.unique(context.groups[places], return_inverse=True)[1]
    lmm = probabilities.argmax(axis=1)
    entries = [Entry(MPT, labels, runs.argmax(axis=2)), Entry(LMM, labels, lmm[None])]
    compared = compare(entries, len(names), reference=MPT, groups=groups)
    about = context.describe([MPT], len(places))
    caption = f"The same posts for both. {about} The LMM is asked once."
    shown = {
        "MPT": confusion_matrix(labels, runs.mean(axis=0).argmax(axis=1), len(names)),
        LMM: confusion_matrix(labels, lmm, len(names)),
    }
    prose = [
        "The large multimodal model (LMM) classifies the posts without training (`mpt-sentiment zero-shot`), with a "
        "temperature that was fitted on validation. MPT reads rationales and is trained.",
        f"{len(places):,} of {len(context.labels):,} tested posts have a prediction of the LMM; both are scored on "
        "these.",
    ]
    figure = context.figure(
        "lmm_confusion",
        f"Confusion matrices of MPT (mean over seeds) and the LMM on {len(places):,} posts.",
        plot_confusion_matrices,
        shown,
        names,
    )
    return Section(TITLE, prose, [score_table("lmm", caption, compared)], [figure])


def lmm_probabilities(context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of tested posts with a prediction of the LMM, and its probabilities.

    Raises:
        Omitted: no predictions were given, or of other posts or classes.
    """
    if context.zero_shot is None:
        raise Omitted(
            "No predictions of the LMM were given: write them with `mpt-sentiment zero-shot` and name the file with "
            "`--zero_shot FILE`."
        )
    scored = scored_posts(context.zero_shot)
    if scored.label_names != context.label_names:
        raise Omitted(f"The LMM was asked for the labels {', '.join(scored.label_names)}, which are not those here.")
    place = {post_id: number for number, post_id in enumerate(scored.ids)}
    common = [number for number, post_id in enumerate(context.ids) if post_id in place]
    if not common:
        raise Omitted("The LMM's predictions are of other posts: none has the id of a tested post.")
    return np.array(common), scored.probabilities[[place[context.ids[number]] for number in common]]
