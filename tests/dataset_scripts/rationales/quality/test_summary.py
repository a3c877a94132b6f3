"""Gate summary and leak probe of a whole dataset."""

import json
import random
from collections import Counter

import pytest
from datasets import Dataset

from dataset_scripts.loaders.authors import load_authors
from dataset_scripts.loaders.mvsa import load_mvsa_single
from dataset_scripts.rationales.join import join_rationales
from dataset_scripts.rationales.quality.gate import HARD
from dataset_scripts.rationales.quality.leak_probe import leak_probe
from dataset_scripts.rationales.quality.summary import apply_gate, summarize_gate, summary_table
from dataset_scripts.schema import LABELS, features

GOOD = "The wide smiles and the bright balloons show that the author enjoys the party with {}."
DENIAL = "The wide smiles and the bright balloons are lovely, and nothing about {} is negative."


def dataset(rows: list[dict]) -> Dataset:
    """Build posts with the columns of the schema; missing values become null."""
    schema = features()
    rows = [{"id": str(number), "language": "en", "source": "made up"} | row for number, row in enumerate(rows)]
    return Dataset.from_list([{name: row.get(name) for name in schema} for row in rows], features=schema)


@pytest.fixture
def posts() -> Dataset:
    good, denial = GOOD.format("Ann"), DENIAL.format("it")
    rows = [
        {"text": "a", "label": 0, "rationale_positive": good, "rationale_negative": "So sad."},
        {"text": "b", "label": 0, "rationale_positive": GOOD.format("Bob"), "rationale_negative": denial},
        {"text": "c", "label": 2, "rationale_positive": " ", "rationale_negative": GOOD.format("Cy") + "\n"},
        {"text": "d", "label": None},
        {"text": "e", "label": 1, "language": "de", "rationale_positive": "Die Gäste lachen."},
    ]
    return dataset(rows)


def test_apply_gate_gives_the_codes_of_each_rationale(posts):
    flags = apply_gate(posts)
    assert flags.column_names == ["flags_positive", "flags_negative", "characters_positive", "characters_negative"]
    assert flags["flags_positive"][:] == [[], [], None, None, None]
    assert flags["flags_negative"][:] == [["short"], ["wrong_side"], ["outer"], None, None]
    assert flags["characters_negative"][:] == [7, len(DENIAL.format("it")), len(GOOD.format("Cy")), None, None]
    assert apply_gate(posts.remove_columns(["label", "image"])).to_dict() == flags.to_dict()


def test_the_summary_counts_posts_rationales_codes_and_classes(posts):
    summary = summarize_gate(posts)
    assert summary["posts"] == 5
    assert summary["coverage"] == {"all": 2, "some": 2, "none": 1}
    assert summary["not_judged"] == {"de": 1}
    assert summary["posts_hard"] == 2
    negative = summary["perspectives"]["negative"]
    assert (negative["rationales"], negative["missing"], negative["hard"]) == (3, 2, 2)
    assert +Counter(negative["codes"]) == {"short": 1, "wrong_side": 1, "outer": 1}
    assert negative["by_label"] == {
        "positive": {"rationales": 2, "hard": 2},
        "neutral": {"rationales": 0, "hard": 0},
        "negative": {"rationales": 1, "hard": 0},
    }
    assert negative["characters"]["max"] == max(len(GOOD.format("Cy")), len(DENIAL.format("it")))
    assert [band["rationales"] for band in negative["by_length"]] == [1, 1, 1]
    assert negative["by_length"][0] == {"characters": [7, 7], "rationales": 1, "hard": 1}
    assert json.loads(json.dumps(summary)) == summary


def test_language_and_labels_of_the_posts_are_optional(posts):
    summary = summarize_gate(posts, language="zh")
    assert summary["not_judged"] == {}
    assert summary["perspectives"]["positive"]["codes"]["language"] == 3
    assert summarize_gate(posts, language="fr")["not_judged"] == {"fr": 4}
    summary = summarize_gate(posts.select_columns(["id", "text", "rationale_negative"]), language="en")
    assert summary["perspectives"]["negative"]["by_label"] == {}
    with pytest.raises(ValueError, match=r"No post has a rationale.*join"):
        summarize_gate(posts.select([3]))


def test_the_table_shows_counts_and_shares(posts):
    leak = {"folds": 3, "posts": 4, "groups": 4, "inputs": {"text": {"accuracy": 0.5, "f1_macro": 0.25}}}
    table = summary_table(summarize_gate(posts) | {"leak": leak})
    for cells in ("**any hard flag** | 0 (0.0%) | 2 (66.7%)", "hard: wrong_side | 0 (0.0%) | 1 (33.3%)",
                  "class positive | 0 (0.0%) | 2 (100.0%)", "text | 50.0% | 25.0%"):  # fmt: skip
        assert f"| {cells} |" in table
    assert "language 'de': 1 posts" in table
    assert "truncated" not in table  # no rationale has this code


def words(generator: random.Random) -> str:
    return " ".join("".join(generator.choices("abcdefghijklmnop", k=6)) for _ in range(8))


def probe_posts(leak: float, count: int = 60) -> Dataset:
    """Build random texts and rationales; a share of the positive rationales contains the label."""
    generator = random.Random(0)
    rows = []
    for number in range(count):
        label = number % 2 * 2
        leaked = LABELS[label] if generator.random() < leak else ""
        row = {"text": words(generator), "label": label, "rationale_positive": f"{leaked} {words(generator)}."}
        rows.append(row | {"rationale_negative": words(generator) + "."})
    return dataset(rows)


def test_the_probe_detects_a_label_in_rationales():
    scores = leak_probe(probe_posts(leak=1.0), folds=3)["inputs"]
    assert scores["positive rationale"]["accuracy"] > 0.95
    assert scores["all rationales"]["accuracy"] > 0.9
    for name in ("text", "negative rationale", "majority", "gate flags"):
        assert scores[name]["accuracy"] < 0.75, name
    assert leak_probe(probe_posts(leak=0.0), folds=3)["inputs"]["all rationales"]["accuracy"] < 0.75


def test_the_probe_detects_flags_that_depend_on_the_label():
    rows = [
        {"text": f"post {number}", "label": number % 2 * 2, "rationale_negative": sentence.format(f"number {number}")}
        for number, sentence in enumerate([DENIAL, GOOD] * 20)
    ]
    assert leak_probe(dataset(rows), folds=3)["inputs"]["gate flags"]["accuracy"] == 1.0


def test_duplicates_are_in_one_fold_and_results_are_reproducible():
    """Each text occurs twice with a random label, so only a leak between folds predicts it."""
    generator = random.Random(1)
    rows = []
    for number in range(40):
        row = {"text": words(generator), "label": number % 2 * 2, "rationale_positive": words(generator)}
        rows += [row, row]
    posts = dataset(rows)
    first = leak_probe(posts, folds=4, seed=3)
    assert (first["posts"], first["groups"], first["folds"], first["seed"]) == (80, 40, 4, 3)
    assert first["inputs"]["text"]["accuracy"] < 0.75
    assert leak_probe(posts, folds=4, seed=3) == first
    assert json.loads(json.dumps(first)) == first


def test_the_probe_omits_posts_without_label_or_rationale_and_samples():
    rows = probe_posts(leak=0.0).remove_columns("image").to_list()
    rows += [{"text": "no label", "rationale_positive": "x"}, {"text": "no rationale", "label": 0}]
    rows = [row | {"id": str(number)} for number, row in enumerate(rows)]
    assert leak_probe(dataset(rows), folds=2)["left_out"] == 2
    assert leak_probe(dataset(rows), folds=2, max_posts=30)["posts"] == 30


def test_the_probe_needs_enough_posts_of_two_classes():
    with pytest.raises(ValueError, match=r"two classes.*\[60\]"):
        posts = probe_posts(leak=0.0)
        one = posts.remove_columns("label").add_column("label", [0] * len(posts), feature=posts.features["label"])
        leak_probe(one)
    with pytest.raises(ValueError, match=r"40 labelled posts.*Lower `folds`"):
        leak_probe(probe_posts(leak=0.0), folds=40)


def test_released_ch_mits_rationales_mostly_fail_when_they_argue_against_the_label(real_data):
    """Inspection: 38 of 40 flagged negative rationales of positive posts have the wrong side."""
    summary = summarize_gate(load_authors(real_data, file="chmits_llm_result.tsv", images=False)[0])
    assert summary["coverage"] == {"all": 2023, "some": 0, "none": 0}
    assert 0.12 < summary["posts_hard"] / 2023 < 0.18
    positive, negative = (summary["perspectives"][name] for name in ("positive", "negative"))
    rates = {
        (perspective, label): part["by_label"][label]["hard"] / part["by_label"][label]["rationales"]
        for perspective, part in summary["perspectives"].items()
        for label in ("positive", "negative")
    }
    assert 0.20 < rates["negative", "positive"] < 0.27
    assert all(rate < 0.06 for key, rate in rates.items() if key != ("negative", "positive"))
    assert 180 < negative["codes"]["wrong_side"] < 240
    assert 5 < positive["codes"]["wrong_side"] < 25
    assert list(positive["characters"].values()) == pytest.approx([43, 67, 128, 209, 264, 587], abs=2)
    assert list(negative["characters"].values()) == pytest.approx([26, 53, 133, 250, 345, 1221], abs=2)
    assert positive["codes"]["short"] == 4 and negative["codes"]["short"] == pytest.approx(15, abs=1)
    assert not any(part["codes"][code] for part in (positive, negative) for code in ("loop", "copy", "sibling_same"))


def test_mvsa_rationales_pass_and_predict_the_label_better_than_the_text(real_data):
    folder = real_data / "mvsa_single"
    mvsa = join_rationales(load_mvsa_single(folder)[0], folder / "rationales.jsonl")
    summary = summarize_gate(mvsa)
    assert summary["coverage"] == {"all": 3997, "some": 0, "none": 0}
    for counts in summary["perspectives"].values():
        assert counts["hard"] / counts["rationales"] < 0.01
        assert counts["codes"]["label_named"] / counts["rationales"] < 0.02
        assert not any(counts["codes"][code] for code in HARD if code not in ("wrong_side", "meta"))
    inputs = leak_probe(mvsa, folds=2, max_posts=1_500)["inputs"]
    scores = {name: score["accuracy"] for name, score in inputs.items()}
    assert scores["majority"] == pytest.approx(0.599, abs=0.01)
    assert scores["majority"] < scores["text"] < scores["majority"] + 0.05
    assert scores["all rationales"] > scores["text"] + 0.05
    assert abs(scores["gate flags"] - scores["majority"]) < 0.01
