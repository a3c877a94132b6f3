"""The report counts what the gate finds, and the probe finds labels that rationales give away."""

import json
import random

import pytest
from datasets import Dataset

from dataset_scripts.loaders.authors import load_authors
from dataset_scripts.loaders.mvsa import load_mvsa_single
from dataset_scripts.rationales.join import join_rationales
from dataset_scripts.rationales.quality.gate import HARD, check
from dataset_scripts.rationales.quality.leak_probe import leak_probe
from dataset_scripts.rationales.quality.summary import summarize_gate, judge, summary_table
from dataset_scripts.schema import LABELS, features

GOOD = "The wide smiles and the bright balloons show that the author enjoys the party with {}."
BALKS = "The wide smiles and the bright balloons are lovely, and nothing about {} is negative."


def dataset(rows: list[dict]) -> Dataset:
    """Posts with the columns of the schema; what a row leaves out is null."""
    schema = features()
    rows = [{"id": str(number), "language": "en", "source": "made up"} | row for number, row in enumerate(rows)]
    return Dataset.from_list([{name: row.get(name) for name in schema} for row in rows], features=schema)


@pytest.fixture
def posts() -> Dataset:
    return dataset(
        [
            {"text": "a", "label": 0, "rationale_positive": GOOD.format("Ann"), "rationale_negative": "So sad."},
            {
                "text": "b",
                "label": 0,
                "rationale_positive": GOOD.format("Bob"),
                "rationale_negative": BALKS.format("it"),
            },
            {"text": "c", "label": 2, "rationale_positive": " ", "rationale_negative": GOOD.format("Cy") + "\n"},
            {"text": "d", "label": None},
            {"text": "e", "label": 1, "language": "de", "rationale_positive": "Die Gäste lachen."},
        ]
    )


def test_judge_gives_the_codes_of_check_for_each_rationale(posts):
    judged = judge(posts)
    assert judged.column_names == [
        "flags_positive",
        "flags_negative",
        "characters_positive",
        "characters_negative",
    ]
    assert judged["flags_positive"][:] == [[], [], None, None, None]
    assert judged["flags_negative"][:] == [["short"], ["wrong_side"], ["outer"], None, None]
    assert judged["characters_negative"][:] == [7, len(BALKS.format("it")), len(GOOD.format("Cy")), None, None]
    row = posts.remove_columns("image")[1]
    verdict = check(row["rationale_negative"], perspective="negative", language="en", post_text="b")
    assert judged["flags_negative"][1] == [*verdict.hard, *verdict.soft]


def test_labels_do_not_change_the_verdicts(posts):
    permuted = posts.remove_columns("label").add_column("label", [2, 1, 0, 0, 2], feature=posts.features["label"])
    assert judge(permuted).to_dict() == judge(posts).to_dict()
    assert judge(posts.remove_columns(["label", "image"])).to_dict() == judge(posts).to_dict()


def test_the_report_counts_posts_rationales_codes_and_classes(posts):
    report = summarize_gate(posts)
    assert report["posts"] == 5
    assert report["coverage"] == {"all": 2, "some": 2, "none": 1}
    assert report["not_judged"] == {"de": 1}
    assert report["posts_hard"] == 2
    negative = report["perspectives"]["negative"]
    assert (negative["rationales"], negative["missing"], negative["hard"]) == (3, 2, 2)
    assert {code: count for code, count in negative["codes"].items() if count} == {
        "short": 1,
        "wrong_side": 1,
        "outer": 1,
    }
    assert negative["by_label"] == {
        "positive": {"rationales": 2, "hard": 2},
        "neutral": {"rationales": 0, "hard": 0},
        "negative": {"rationales": 1, "hard": 0},
    }
    assert negative["characters"]["max"] == max(len(GOOD.format("Cy")), len(BALKS.format("it")))
    assert [band["rationales"] for band in negative["by_length"]] == [1, 1, 1]
    assert negative["by_length"][0] == {"characters": [7, 7], "rationales": 1, "hard": 1}
    assert json.loads(json.dumps(report)) == report


def test_a_given_language_replaces_that_of_the_posts(posts):
    report = summarize_gate(posts, language="zh")
    assert report["not_judged"] == {}
    assert report["perspectives"]["positive"]["codes"]["language"] == 3
    assert summarize_gate(posts, language="fr")["not_judged"] == {"fr": 4}


def test_posts_need_neither_labels_nor_images_but_rationales(posts):
    report = summarize_gate(posts.select_columns(["id", "text", "rationale_negative"]), language="en")
    assert report["perspectives"]["negative"]["by_label"] == {}
    with pytest.raises(ValueError, match=r"No post has a rationale.*join"):
        summarize_gate(posts.select([3]))


def test_the_table_shows_what_was_found(posts):
    report = summarize_gate(posts)
    table = summary_table(report)
    assert "posts with a hard flag 2 (40.0%)" in table
    assert "not judged, language 'de': 1 posts" in table
    assert "| **any hard flag** | 0 (0.0%) | 2 (66.7%) |" in table
    assert "| hard: wrong_side | 0 (0.0%) | 1 (33.3%) |" in table
    assert "| class positive | 0 (0.0%) | 2 (100.0%) |" in table
    assert "truncated" not in table  # no rationale has it
    widths = {line.count("|") for line in table.splitlines() if line.startswith("|")}
    assert widths == {4}
    leak = {"folds": 3, "posts": 4, "groups": 4, "inputs": {"text": {"accuracy": 0.5, "f1_macro": 0.25}}}
    assert "| text | 50.0% | 25.0% |" in summary_table(report | {"leak": leak})


def words(generator: random.Random) -> str:
    return " ".join("".join(generator.choices("abcdefghijklmnop", k=6)) for _ in range(8))


def probe_posts(leak: float, count: int = 60) -> Dataset:
    """Texts and rationales of chance; a share of the positive rationales says the label."""
    generator = random.Random(0)
    rows = []
    for number in range(count):
        label = number % 2 * 2
        told = LABELS[label] if generator.random() < leak else ""
        row = {"text": words(generator), "label": label, "rationale_positive": f"{told} {words(generator)}."}
        rows.append(row | {"rationale_negative": words(generator) + "."})
    return dataset(rows)


def test_the_probe_finds_a_label_that_rationales_tell():
    told = leak_probe(probe_posts(leak=1.0), folds=3)["inputs"]
    assert told["positive rationale"]["accuracy"] > 0.95
    assert told["all rationales"]["accuracy"] > 0.9
    for name in ("text", "negative rationale", "majority", "gate flags"):
        assert told[name]["accuracy"] < 0.75, name
    assert leak_probe(probe_posts(leak=0.0), folds=3)["inputs"]["all rationales"]["accuracy"] < 0.75


def test_the_probe_finds_a_label_that_failing_the_gate_tells():
    rows = [
        {"text": f"post {number}", "label": number % 2 * 2, "rationale_negative": sentence.format(f"number {number}")}
        for number, sentence in enumerate([BALKS, GOOD] * 20)
    ]
    assert leak_probe(dataset(rows), folds=3)["inputs"]["gate flags"]["accuracy"] == 1.0


def test_duplicates_are_in_one_fold_and_the_result_repeats():
    """Texts that all occur twice, with labels by chance: only a probe that has seen the twin could know the label."""
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


def test_the_probe_leaves_out_what_it_cannot_use_and_samples():
    rows = probe_posts(leak=0.0).remove_columns("image").to_list()
    rows += [{"text": "no label", "rationale_positive": "x"}, {"text": "no rationale", "label": 0}]
    rows = [row | {"id": str(number)} for number, row in enumerate(rows)]
    assert leak_probe(dataset(rows), folds=2)["left_out"] == 2
    assert leak_probe(dataset(rows), folds=2, max_posts=30)["posts"] == 30


def test_the_probe_says_what_it_needs():
    with pytest.raises(ValueError, match=r"two classes.*\[60\]"):
        posts = probe_posts(leak=0.0)
        one = posts.remove_columns("label").add_column("label", [0] * len(posts), feature=posts.features["label"])
        leak_probe(one)
    with pytest.raises(ValueError, match=r"at least 40 .* Lower folds"):
        leak_probe(probe_posts(leak=0.0), folds=40)


@pytest.fixture(scope="module")
def ch_mits(real_data) -> Dataset:
    return load_authors(real_data, file="chmits_llm_result.tsv", images=False)[0]


@pytest.fixture(scope="module")
def mvsa(real_data) -> Dataset:
    folder = real_data / "mvsa_single"
    return join_rationales(load_mvsa_single(folder)[0], folder / "rationales.jsonl")


def test_the_released_ch_mits_rationales_fail_mostly_against_the_truth(ch_mits):
    """By eye, 38 of 40 flagged negative rationales of positive posts argue for the wrong side, and 2 of 40 others."""
    report = summarize_gate(ch_mits)
    assert report["coverage"] == {"all": 2023, "some": 0, "none": 0}
    assert 0.12 < report["posts_hard"] / 2023 < 0.18
    positive, negative = (report["perspectives"][name] for name in ("positive", "negative"))
    rates = {
        (perspective, label): part["by_label"][label]["hard"] / part["by_label"][label]["rationales"]
        for perspective, part in report["perspectives"].items()
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


def test_text_and_rationales_of_ch_mits_tell_about_as_much(ch_mits):
    scores = {name: one["accuracy"] for name, one in leak_probe(ch_mits, folds=2)["inputs"].items()}
    expected = {
        "majority": 0.506,
        "text": 0.93,
        "positive rationale": 0.895,
        "negative rationale": 0.86,
        "all rationales": 0.915,
        "text + rationales": 0.95,
        "gate flags": 0.595,
    }
    assert scores == pytest.approx(expected, abs=0.02)


def test_mvsa_rationales_pass_and_know_more_than_the_text(mvsa):
    report = summarize_gate(mvsa)
    assert report["coverage"] == {"all": 1243, "some": 0, "none": 257}
    for part in report["perspectives"].values():
        assert part["hard"] / part["rationales"] < 0.01
        assert part["codes"]["label_named"] / part["rationales"] < 0.02
        assert not any(part["codes"][code] for code in HARD if code != "wrong_side")
    scores = {name: one["accuracy"] for name, one in leak_probe(mvsa, folds=2)["inputs"].items()}
    assert scores["majority"] == pytest.approx(0.610, abs=0.005)
    assert scores["text"] < scores["majority"] + 0.05
    assert scores["all rationales"] > scores["text"] + 0.05
    assert abs(scores["gate flags"] - scores["majority"]) < 0.01
