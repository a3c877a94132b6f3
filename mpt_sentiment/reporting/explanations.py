"""Section on what predictions rest on (paper, Fig. 8), with the faithfulness test."""

from typing import Any

import numpy as np
from datasets import Dataset

from mpt_sentiment.explaining import explain
from mpt_sentiment.explaining.page import TITLES, page_values, points, verdict
from mpt_sentiment.predicting import load_pipeline
from mpt_sentiment.reporting.context import MPT, Context, Plan
from mpt_sentiment.reporting.section import Section, Table

TITLE = "What predictions rest on (Fig. 8)"
SEED = 0
NUM_PAGE = 3  # posts of the report; all are in the pages
# Page of all explained posts → its method.
PAGES = {"explanations.html": "leave_one_out", "attention.html": "attention"}


def rows(plan: Plan) -> list[str]:
    """Return no row: a network is trained for the explanations."""
    return []


def section(context: Context) -> Section:
    """Explain test posts of one fold, and test the attributions and the attention."""
    pipe = load_pipeline(context.train(MPT))
    posts: Dataset = next(iter(context.plan.parts.values())).posts["test"]
    options = {"limit": context.num_explained, "seed": SEED, "on_error": "skip", "progress": False}
    results = {
        page: explain(pipe, posts, context.output_dir / page, method=method, **options)
        for page, method in PAGES.items()
    }
    tests = [
        {
            "method": result.method,
            "kind": TITLES[test.kind],
            "verdict": verdict(test),
            "difference": test.difference,
            "interval": test.interval,
            "area": test.area,
            "random_area": test.random_area,
            "posts": test.num_posts,
        }
        for result in results.values()
        for test in result.faithfulness
    ]
    num_posts = len(next(iter(results.values())).posts)
    table = Table(
        "faithfulness",
        "Fall of the probability of the predicted class, in points, when the parts with the highest values are "
        f"deleted, and when random ones are. A sample of {num_posts} test posts of one fold (seed {SEED}); one "
        "network; 95 % bootstrap intervals over posts.",
        tests,
        {
            "Method": lambda test: test["method"].replace("_", "-"),
            "Parts": lambda test: test["kind"],
            "Verdict": lambda test: test["verdict"],
            "Highest deleted": lambda test: points(test["area"]),
            "Random deleted": lambda test: points(test["random_area"]),
            "Difference (95 % interval)": lambda test: (
                points(test["difference"])
                + ("" if test["interval"] is None else f" ({' to '.join(map(points, test['interval']))})")
            ),
            "Posts": lambda test: str(test["posts"]),
        },
    )
    prose = [
        "The value of a part is what it adds to the log-odds of the predicted class: each word, image region, "
        "rationale and modality is left out in turn (leave-one-out). The paper shows the attention of the last layer "
        "in their place. It is reproduced below them; it is no attribution.",
        "**The faithfulness test** compares deleting the parts with the highest values to deleting random ones.",
        *(distrust(result.method, tests) for result in results.values()),
    ]
    shown, headings = {}, ("Attributions", "Attention, as the paper shows it")
    for heading, (page, result) in zip(headings, results.items(), strict=True):
        if any(post.attributions for post in result.posts):
            chosen = np.argsort([post.id or "" for post in result.posts])[:NUM_PAGE]
            values = page_values(result)
            values["posts"] = [values["posts"][index] for index in chosen]
            shown[f"{heading}: the first {len(chosen)} posts by id (all {num_posts} in {page})"] = values
    notes = dict.fromkeys(note for result in results.values() for note in result.notes)
    return Section(TITLE, [text for text in prose if text], [table], explanations=shown, notes=[*notes])


def distrust(method: str, tests: list[dict[str, Any]]) -> str:
    """Say which values of a method the test does not support; an empty text for none."""
    kinds = [test["kind"] for test in tests if test["method"] == method and test["verdict"] == "not to be trusted"]
    if not kinds:
        return ""
    name = "attention" if method == "attention" else "attributions"
    return (
        f"**The {name} of {', '.join(kinds)} cannot be trusted**: deleting the parts with the highest values lowers "
        "the probability no more than deleting random ones (the interval includes zero)."
    )
