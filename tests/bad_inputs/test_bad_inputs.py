"""Every bad input gets one line that helps, and loses nothing."""

import hashlib
import logging
import warnings
from pathlib import Path

import pytest

from bad_inputs import (
    arguments,
    generation,
    images,
    models,
    posts,
    processor,
    publishing,
    servers,
    tables,
    training,
)
from bad_inputs.case import FOLDER, MODEL, BadInput, Call
from helpers import tiny_processor
from mpt_sentiment import commands

MAX_MESSAGE = 400
MODULES = (arguments, tables, posts, images, training, models, processor, servers, generation, publishing)
ROWS: list[BadInput] = [row for module in MODULES for row in module.ROWS]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad_inputs") / "model"
    tiny_processor.pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def process_state(monkeypatch):
    """Restore the state of the process that a command sets."""
    logger = logging.getLogger("dataset_scripts")
    monkeypatch.setattr(logger, "level", logger.level)
    with warnings.catch_warnings():
        yield


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def execute(run: list[str] | Call, folder: Path, model: Path) -> tuple[int, str]:
    """Run a command or a call; return its exit code and the message of what it raised."""
    if not callable(run):
        words = [word.replace(FOLDER, str(folder)).replace(MODEL, str(model)) for word in run]
        return commands.main(words), ""
    try:
        run(folder)
    except Exception as error:
        # the types that the command line turns into one line
        code, message = commands.fault(error)
        return code, message
    return 0, ""


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_bad_input(case, tmp_path, model, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    case.write(tmp_path)
    before = contents(tmp_path)
    code, message = execute(case.run, tmp_path, model)
    captured = capsys.readouterr()
    output = captured.out + captured.err + caplog.text
    assert code == case.exit_code, output + message
    assert "Traceback" not in output
    if case.exit_code:
        message = message or captured.err.rstrip().split("error: ", 1)[-1]
        assert len(message) <= MAX_MESSAGE, message
    for word in case.words:
        assert word in (message if case.exit_code else output), message or output
    after = contents(tmp_path)
    assert {path: after.get(path) for path in before} == before, "an input was changed"
    assert set(case.kept) <= set(after)
    if case.advice is not None:
        code, message = execute(case.advice, tmp_path, model)
        assert code == 0, capsys.readouterr().err + message


def test_the_table_has_no_name_twice():
    names = [case.name for case in ROWS]
    assert sorted(set(names)) == sorted(names)
