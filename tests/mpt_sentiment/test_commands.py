"""The console script: exit codes, one line per fault, signals and streams."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from dataset_scripts.output import atomic_path
from mpt_sentiment import commands
from mpt_sentiment.commands import faults

SCRIPT = [sys.executable, "-c", "import sys; from mpt_sentiment.commands import main; sys.exit(main())"]


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes the command `predict` raise an exception."""

    def fail_with(error: BaseException) -> None:
        def fail(argv):
            raise error

        monkeypatch.setattr("mpt_sentiment.commands.predict.main", fail)

    return fail_with


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("two\nlines"), 1, "error: two lines"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 1, "error: /x/y: Permission denied."),
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes the run"),
        (faults.Terminated(), 143, "terminated; the same command resumes the run"),
        (ImportError("install a package", name="deepspeed"), 1, "error: install a package"),
    ],
)
def test_an_exception_is_one_line_and_an_exit_code(failing, capsys, error, code, line):
    failing(error)
    assert commands.main(["predict", "folder"]) == code
    assert capsys.readouterr().err.splitlines() == [line]


def test_an_unexpected_exception_asks_for_a_report_and_debug_shows_its_traceback(failing, capsys):
    failing(AttributeError("no such attribute"))
    assert commands.main(["predict", "folder"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: AttributeError: no such attribute") and "--debug" in line
    assert commands.main(["predict", "--debug", "folder"]) == 70
    assert "Traceback" in capsys.readouterr().err
    failing(ModuleNotFoundError("our own", name="mpt_sentiment.missing"))
    assert commands.main(["predict", "folder"]) == 70


def test_the_trainers_own_debug_argument_reaches_it(monkeypatch):
    seen = []
    monkeypatch.setattr("mpt_sentiment.commands.train.main", seen.append)
    commands.main(["train", "--debug", "underflow_overflow", "--seed", "1", "--debug"])
    assert seen == [["--debug", "underflow_overflow", "--seed", "1"]]


def test_a_fault_of_a_worker_process_shows_its_words_alone():
    message = (
        'Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File "a"\n'
    )
    assert faults.fault(ValueError(f"{message}ValueError: post 3 has no image\n"))[1] == "post 3 has no image"


def test_a_full_disk_is_found_in_the_cause_and_a_long_message_is_cut():
    error = RuntimeError("saving failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "run/optimizer.pt")
    code, line = faults.fault(error, "train")
    assert code == 1 and "run/optimizer.pt" in line and "same command" in line
    assert len(faults.fault(ValueError("word " * 1000))[1]) <= faults.MAX_MESSAGE


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),  # torch.save
        SafetensorError("I/O error: No space left on device (os error 28)"),
        sqlite3.OperationalError("database or disk is full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_recognized_in_the_words_of_every_library(error, tmp_path):
    with pytest.raises(OSError) as raised, atomic_path(tmp_path / "file"):
        raise error
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_memory_advice_names_the_argument_of_the_command():
    error = RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1 GiB")
    assert "--per_device_train_batch_size" in faults.fault(error, "train")[1]
    assert "--batch_size" in faults.fault(error, "predict")[1]


def test_an_unwritable_cache_names_its_variable(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    line = faults.fault(OSError(errno.EROFS, "Read-only file system", str(tmp_path / "cache" / "x")))[1]
    assert "Read-only file system" in line and "HF_DATASETS_CACHE" in line


def test_sigterm_ends_a_command_like_an_interrupt(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("mpt_sentiment.commands.train.main", lambda argv: os.kill(os.getpid(), signal.SIGTERM))
    assert commands.main(["train"]) == 143
    assert capsys.readouterr().err == "terminated; the same command resumes the run\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_line_of_a_launched_process_names_it(failing, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    failing(ValueError("no such file"))
    commands.main(["predict"])
    assert capsys.readouterr().err == "process 3: error: no such file\n"


@pytest.mark.parametrize(("redirection", "codes", "lines"), [("| true", (0, 141), 0), ("> /dev/full", (1,), 1)])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_that_cannot_be_written_gives_no_traceback(redirection, codes, lines):
    script = ["bash", "-c", f'"$@" {redirection}; echo "${{PIPESTATUS[0]}}" >&2', "bash", *SCRIPT]
    *errors, code = subprocess.run(script, stderr=subprocess.PIPE, text=True).stderr.splitlines()
    assert int(code) in codes and len(errors) == lines


def test_a_terminal_without_utf_8_shows_the_codes_of_characters():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(SCRIPT, capture_output=True, env=environment)
    assert result.returncode == 0 and result.stdout.startswith(b"usage: mpt-sentiment COMMAND \\u2026")
