"""Plan of a run: requests, tokens and cost."""

import dataclasses
import json

import PIL.Image
import pytest
from datasets import Dataset

from dataset_scripts import features
from dataset_scripts.rationales.plan import Prices, num_shards_for, plan_run, plan_table
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.spec import RationaleSpec

PROMPT = load_prompt()
SPEC = RationaleSpec(model="m", prompt_hash=PROMPT.hash, max_pixels=28 * 28 * 64, max_tokens=200)


def posts(tmp_path, rows) -> Dataset:
    """Build posts from (text, side of a square image or None)."""
    table = []
    for number, (text, side) in enumerate(rows):
        path = None
        if side is not None:
            path = str(tmp_path / f"{side}.png")
            PIL.Image.new("RGB", (side, side), "teal").save(path)
        table.append(dict.fromkeys(features()) | {"id": str(number), "text": text, "image": path})
    return Dataset.from_list(table, features=features())


def test_duplicates_are_counted_once_and_images_at_the_size_they_are_sent(tmp_path):
    plan = plan_run(posts(tmp_path, [("a day", 56), ("a day", 56), ("a day", 84), ("好天气", 56)]), SPEC, PROMPT)
    assert (plan.posts, plan.examined, plan.distinct, plan.answers) == (4, 4, 3, 9)
    assert plan.languages == {"en": 3, "zh": 1}
    assert plan.image_tokens == [4, 4, 4, 9]  # a token covers 28 x 28 pixels
    assert plan.histogram() == {"up to 64": 4}
    assert plan_run(posts(tmp_path, [("large", 900)]), SPEC, PROMPT).image_tokens == [64]


@pytest.mark.parametrize(
    "text", ["sunset over the harbour after a long and rainy week", "今天和家人一起去海边看日落，心情非常好"]
)
@pytest.mark.parametrize("name", ["default", "paper"])
def test_the_shared_prefix_saves_more_than_half_of_the_prompt_tokens(tmp_path, name, text):
    prompt = load_prompt(name)
    spec = RationaleSpec(model="m", prompt=name, prompt_hash=prompt.hash)
    plan = plan_run(posts(tmp_path, [(text, 448)]), spec, prompt)
    assert plan.longest_prompt < plan.computed_tokens <= 0.45 * plan.prompt_tokens
    spec = dataclasses.replace(spec, perspectives=("neutral",))
    single = plan_run(posts(tmp_path, [(text, 448)]), spec, prompt)
    assert single.prompt_tokens == single.computed_tokens


def test_unusable_posts_are_counted_and_named(tmp_path):
    plan = plan_run(posts(tmp_path, [("fine", None), ("", None)]), SPEC, PROMPT)
    assert (plan.unusable, plan.distinct, plan.answers) == (1, 1, 3)
    assert "post '1' has neither text nor image" in plan_table(plan)


def test_counts_are_extrapolated_from_a_sample(tmp_path):
    rows = posts(tmp_path, [(f"post number {number:04}", None) for number in range(40)])
    whole, part = plan_run(rows, SPEC, PROMPT, sample=0), plan_run(rows, SPEC, PROMPT, sample=10)
    assert (part.posts, part.examined, part.answers) == (40, 10, 120)
    assert (part.prompt_tokens, part.answer_tokens) == (whole.prompt_tokens, whole.answer_tokens)
    assert "10 of them examined" in plan_table(part)
    with pytest.raises(ValueError, match="`sample` .* got -1"):
        plan_run(rows, SPEC, PROMPT, sample=-1)


def test_the_cost_follows_from_tokens_or_hours(tmp_path):
    plan = plan_run(posts(tmp_path, [("a day", 56)] * 2), SPEC, PROMPT)
    shared = plan.prompt_tokens - plan.computed_tokens
    by_tokens = (plan.computed_tokens * 4 + shared * 1 + plan.answer_tokens * 8) / 1e6
    assert plan.cost(Prices(prompt=4, cached=1, completion=8)) == pytest.approx(by_tokens)
    assert plan.cost(Prices(hour=3, posts_per_second=0.5)) == pytest.approx(2 / 0.5 / 3600 * 3)
    assert plan.cost(Prices(hour=3)) is None and plan.cost(Prices()) is None
    # without a price of cached tokens, they cost as much as others
    assert plan.cost(Prices(prompt=4)) == pytest.approx(plan.prompt_tokens * 4 / 1e6)
    written = json.loads(json.dumps(plan.to_dict(Prices(prompt=4))))
    assert written["image_tokens"] == {"up to 64": 2} and written["cost"] == plan.cost(Prices(prompt=4))


def test_an_empty_dataset_costs_nothing(tmp_path):
    plan = plan_run(posts(tmp_path, [("x", None)]).select([]), SPEC, PROMPT)
    assert (plan.answers, plan.cost(Prices(prompt=1, completion=1))) == (0, 0)
    assert "0 distinct" in plan_table(plan)
    with pytest.raises(ValueError, match="sarcasm, only for positive"):
        plan_run(posts(tmp_path, [("x", None)]), dataclasses.replace(SPEC, perspectives=("sarcasm",)), PROMPT)


def test_shards_have_at_most_20000_posts():
    assert [num_shards_for(count) for count in (0, 1, 20_000, 20_001, 50_000_000)] == [1, 1, 1, 2, 2_500]
