"""Explanation of one post, a table and a dataset, in Python and by the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

import mpt_sentiment as mpt
from helpers import tiny_processor
from mpt_sentiment import commands

WORDS = ["good", "day", "sea", "rain", "train", "bus", "ten"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_processor.image("red").save("red.png")
    return tmp_path


def table(count: int, name: str = "posts.jsonl", **changes) -> str:
    rows = [
        {
            "id": f"p{index}",
            "text": " ".join(np.random.default_rng(index).permutation(WORDS)[:4]),
            "image": "red.png",
            "label": "positive",
            "rationale_negative": "nothing but rain" if index % 2 else None,
        }
        | changes
        for index in range(count)
    ]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def test_one_post_by_the_command(model, capsys):
    words = ["--text", "a good day", "--image", "red.png", "--rationales", '{"negative": "rain"}']
    given = [*words, "--rationale_positive", "the sea", "--output", "one.html", "--grid", "2", "--device", "cpu"]
    assert commands.main(["explain", str(model), *given]) == 0
    (post,) = json.loads(Path("one.json").read_text(encoding="utf-8"))["posts"]
    assert [row["word"] for row in post["words"]] == ["a", "good", "day"]
    assert {name: [row["word"] for row in words] for name, words in post["rationale_words"].items()} == {
        "positive": ["the", "sea"],
        "negative": ["rain"],
    }
    assert np.shape(post["regions"]) == (2, 2)
    printed = capsys.readouterr().out
    assert printed.startswith(post["prediction"]) and printed.endswith("The page is one.html\n")
    page = Path("one.html").read_text(encoding="utf-8")
    assert "One post cannot show" in page and str(model) not in page and "trained" in page


def test_a_table_is_sampled_tested_and_counted(model, capsys):
    source = table(14, image=None)
    options = ["--limit", "11", "--num_draws", "2", "--device", "cpu"]
    assert commands.main(["explain", str(model), source, *options]) == 0
    numbers = json.loads(Path("explanation.json").read_text(encoding="utf-8"))
    ids = [post["id"] for post in numbers["posts"]]
    assert len(ids) == 11 and ids == sorted(ids, key=lambda name: int(name[1:]))
    assert numbers["posts"][0]["label"] == "positive"
    assert numbers["notes"] == ["11 of 14 posts are explained: a random sample with the seed 0."]
    tests = {test["kind"]: test for test in numbers["faithfulness"]}
    assert tests["words"]["num_posts"] == 11 and len(tests["words"]["interval"]) == 2
    assert tests["rationale_words"]["interval"] is None and "regions" not in tests
    printed = capsys.readouterr().out
    assert "faithfulness test" in printed and "fewer than 10 posts" in printed
    first = Path("explanation.json").read_bytes()
    assert commands.main(["explain", str(model), source, *options]) == 0
    assert Path("explanation.json").read_bytes() == first


def test_python_explains_a_dataset_and_counts_unreadable_posts(pipe):
    names = ["positive", "neutral", "negative"]
    features = Features(
        {
            "text": Value("string"),
            "image": Image(decode=False),
            "label": ClassLabel(names=names),
            "id": Value("string"),
        }
    )
    broken = {"bytes": b"no image", "path": None}
    rows = {"text": ["rain", "sea"], "image": [broken, None], "label": [2, 0], "id": ["x", "y"]}
    posts = Dataset.from_dict(rows, features=features)
    result = mpt.explain(pipe, posts, on_error="skip", num_draws=1, progress=False)
    (post,) = result.posts
    assert post.id == "y" and post.label == "positive"
    assert any(note.startswith("1 left out: cannot be read") for note in result.notes)
    with pytest.raises(ValueError, match="'x'"):
        mpt.explain(pipe, posts, progress=False)


def test_a_list_of_posts_and_unusable_arguments_in_python(pipe):
    posts = [{"text": "rain", "label": "x"}, {"text": "sea", "id": 7}]
    result = mpt.explain(pipe, posts, "list.html", num_draws=1, progress=False)
    page = Path("list.html").read_text(encoding="utf-8")
    assert (
        ">post 1</a>" in page
        and ">7</a>" in page
        and "Model <code>" not in page
        and "One post cannot show" not in page
    )
    assert [(post.id, post.label) for post in result.posts] == [(None, "x"), (7, None)]
    assert {test.num_posts for test in result.faithfulness} == set()  # one part each: nothing to compare
    for posts, options, message in (
        ([{"text": "rain"}], {"metod": "x"}, "`metod` is an option of a table"),
        (3, {}, "got a int"),
        ("posts.txt", {}, "does not exist"),
    ):
        with pytest.raises(ValueError, match=message):
            mpt.explain(pipe, posts, **options)


def test_the_test_posts_of_a_training_run_by_its_arguments(model):
    words = ["--dataset", "sample", "--dataset_options", '{"num_posts": 60}', "--limit", "2", "--num_draws", "1"]
    assert commands.main(["explain", str(model), *words, "--grid", "2", "--device", "cpu"]) == 0
    numbers = json.loads(Path("explanation.json").read_text(encoding="utf-8"))
    assert len(numbers["posts"]) == 2 and numbers["posts"][0]["regions"] is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Nothing to explain"),
        (["--text", "a", "--limit", "3"], "--limit needs a TABLE"),
        (["--text", "a", "posts.csv"], "Give one of these"),
        (["posts.csv", "--split_seed", "3"], "--split_seed needs --dataset"),
        (["--text", "a", "--rationales", "file.csv"], "must be JSON such as"),
        (["missing.csv"], "table 'missing.csv' does not exist"),
        (["--text", "a", "--method", "leave_one"], "Did you mean 'leave_one_out'?"),
        (["--text", "a", "--output", "page.png"], "must end in .html"),
        (["--text", "a", "--grid", "99"], "`grid` may be at most 32"),
        (["--text", "a", "--rationale_negtive", "b"], "Did you mean 'negative'?"),
        (["--image", "nothere.jpg"], "does not exist"),
        (["--text", " "], "at least one of"),
        (["--dataset", "sample", "--subset", "all"], "--subset must be one of"),
    ],
)
def test_unusable_arguments_are_one_line(model, capsys, words, message):
    assert commands.main(["explain", str(model), *words]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line and len(line) <= 407
