"""Section on what predictions rest on (paper, Fig. 8), with the faithfulness test."""

import logging

import numpy as np
from datasets import Dataset

from mpt_sentiment.explaining import explain
from mpt_sentiment.explaining.page import TITLES, page_values, points, verdict
from mpt_sentiment.predicting import load_pipeline
from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.section import Section, Table

TITLE = "What predictions rest on (Fig. 8)"
SEED = 0
NUM_PAGE = 3  # posts of the report; all are in a page of their own

logger = logging.getLogger(__name__)


def rows(plan: Plan) -> list[str]:
    """Return no row: a network is trained for the explanations."""
    return []


def section(context: Context) -> Section:
    """Explain test posts of one fold, and test the attributions."""
    pipe = load_pipeline(context.train(MPT))
    posts: Dataset = next(iter(context.plan.parts.values())).posts["test"]
    page = context.output_dir / "explanations.html"
    options = {"limit": context.num_explained, "seed": SEED}
    result = explain(pipe, posts, page, progress=False, on_error="skip", **options)
    tests = [
        {
            "kind": TITLES[test.kind],
            "verdict": verdict(test),
            "difference": test.difference,
            "interval": test.interval,
            "area": test.area,
            "random_area": test.random_area,
            "posts": test.num_posts,
        }
        for test in result.faithfulness
    ]
    table = Table(
        "faithfulness",
        "Fall of the probability of the predicted class, in points, when the parts with the highest attributions "
        f"are deleted, and when random ones are. A sample of {len(result.posts)} test posts of one fold (seed "
        f"{SEED}); one network; 95 % bootstrap intervals over posts.",
        tests,
        {
            "Attributions of": lambda test: test["kind"],
            "Verdict": lambda test: test["verdict"],
            "By attribution": lambda test: points(test["area"]),
            "Random": lambda test: points(test["random_area"]),
            "Difference": lambda test: points(test["difference"]),
            "95 % interval": lambda test: (
                "–" if test["interval"] is None else " to ".join(map(points, test["interval"]))
            ),
            "Posts": lambda test: str(test["posts"]),
        },
    )
    untrusted = [test["kind"] for test in tests if test["verdict"] == "not to be trusted"]
    prose = [
        "The value of a part is what it adds to the log-odds of the predicted class: each word, image region, "
        "rationale and modality is left out in turn. The paper shows attention weights in their place, which are no "
        "evidence of what a prediction rests on.",
        "**The faithfulness test** compares deleting the parts with the highest attributions to deleting random ones.",
    ]
    if untrusted:
        prose.append(
            f"**The attributions of {', '.join(untrusted)} are not to be trusted**: deleting the highest ones lowers "
            "the probability no more than deleting random ones (the interval includes zero)."
        )
    values = page_values(result)
    shown = np.argsort([each.id or "" for each in result.posts])[:NUM_PAGE]
    values["posts"] = [values["posts"][index] for index in shown]
    values["tests"] = []
    prose.append(
        f"The first {len(shown)} of them by id are shown here, all {len(result.posts)} in `explanations.html`."
    )
    return Section(TITLE, prose, [table], explanations=values, notes=result.notes)
