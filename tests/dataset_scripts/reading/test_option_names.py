"""Options in messages: a keyword in Python, an argument or JSON on the command line."""

import pytest

from dataset_scripts import load_posts
from dataset_scripts.reading.option_names import column_options, load_call, option, option_name, written_for
from mpt_sentiment import commands


@pytest.mark.parametrize(
    ("name", "value", "python", "train", "predict"),
    [
        (
            "text_column",
            "caption",
            'text_column="caption"',
            """--dataset_options '{"text_column": "caption"}'""",
            "--text_column caption",
        ),
        ("labels", ["a"], "labels=['a']", """--dataset_options '{"labels": ["a"]}'""", None),
        ("id_column", "it's", 'id_column="it\'s"', None, "--id_column 'it'\"'\"'s'"),
        ("fold", 3, "fold=3", """--split_options '{"fold": 3}'""", None),
        ("protocol", "paper", 'protocol="paper"', "--split paper", None),
        ("on_error", "skip", 'on_error="skip"', "--on_error skip", "--on_error skip"),
        ("file", ..., "file=…", """--dataset_options '{"file": "…"}'""", None),
    ],
)
def test_an_option_is_written_as_the_user_writes_it(name, value, python, train, predict):
    assert option(name, value) == python and option_name(name) == f"`{name}`"
    for command, expected in (("train", train), ("predict", predict)):
        with written_for(command):
            assert expected is None or option(name, value) == expected
    assert option(name, value) == python


def test_columns_are_written_in_one_argument_which_the_command_line_reads_once():
    assert column_options("text_column", "image_column") == "text_column=…, image_column=…"
    with written_for("train"):
        expected = """--dataset_options '{"text_column": "…", "image_column": "…"}'"""
        assert column_options("text_column", "image_column") == expected
    with written_for("predict"):
        assert column_options("text_column", "image_column") == "--text_column … --image_column …"


def test_the_call_that_loads_posts_is_written_in_the_same_way():
    assert load_call("folder", "my posts") == 'load_posts("folder", "my posts")'
    with written_for("train"):
        assert load_call("folder", "my posts") == "--dataset folder --data_dir 'my posts'"
        assert option_name("fold") == "`fold` in --split_options"


def test_a_command_leaves_messages_in_python_as_they_are(tmp_path, capsys):
    (tmp_path / "posts.csv").write_text("caption,label\na,b\n", encoding="utf-8")
    arguments = ["--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    assert commands.main(["build-dataset", "folder", *arguments]) == 1
    assert '--dataset_options \'{"text_column"' in capsys.readouterr().err
    with pytest.raises(ValueError, match="with text_column=…"):
        load_posts("folder", tmp_path)
