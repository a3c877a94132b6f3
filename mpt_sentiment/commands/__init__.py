"""Console script `mpt-sentiment`. Each module parses the arguments of one command."""

import contextlib
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from mpt_sentiment.commands.faults import BROKEN_PIPE, INTERRUPTED, REFUSED, Terminated, fault

__all__ = ["COMMANDS", "INTERRUPTED", "REFUSED", "fault", "main"]

# Command: its module in this package, and one line for the overview.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("train", "train a system on posts, test it once, save model, card and metrics"),
    "predict": ("predict", "label one post, or any number of posts, with a trained model"),
    "explain": ("explain", "write a page that shows what predictions of a trained model rest on"),
    "serve": ("serve", "answer posts over HTTP with a trained model"),
    "demo": ("demo", "classify posts with a trained model in a browser, or make a Space of it"),
    "distill": ("distill", "train a student without rationales on a teacher that reads them"),
    "export": ("export", "write a trained model as ONNX, which runs without torch, in 8 bits if asked"),
    "search": ("search", "choose hyperparameters of systems on validation, for a comparison"),
    "compare": ("compare", "train several systems on the same posts and tabulate them"),
    "report": ("report", "write the paper's tables and figures, explanations and calibration as a page"),
    "linear": ("linear", "score the floors of a comparison on one split"),
    "build-dataset": ("build_dataset", "convert a raw download to Parquet with a dataset card"),
    "generate-rationales": ("generate_rationales", "write rationales with a large multimodal model"),
    "zero-shot": ("zero_shot", "classify posts with the large multimodal model alone"),
    "features": ("features", "list or delete the stored outputs of frozen encoders"),
    "push": ("push", "publish a dataset folder or a trained model on the Hub"),
}
# Values of an argument of the Trainer that is also called --debug.
_TRAINER_DEBUG = ("underflow_overflow", "tpu_metrics_debug")


def overview() -> str:
    """List the commands, one line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mpt-sentiment COMMAND …",
            "",
            *lines,
            "",
            "`mpt-sentiment COMMAND --help` lists its arguments.",
            "`--debug` after any command shows the traceback of an error.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    An exception becomes one line on stderr. With the argument `--debug`, its traceback is printed before.

    Args:
        argv (sequence of `str`, *optional*): command and arguments, by default those of the process.

    Returns:
        0 for success, 1 for refused input, 70 for an exception that is a fault of this package, 75 for an unreachable
        server (the same command resumes the run), 130 and 143 for a run that was interrupted or received SIGTERM, 141
        if the reader of the output closed it, or a code that the command documents.
    """
    arguments, debug = _without_debug(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without UTF-8 shows the codes of other characters
            stream.reconfigure(errors="backslashreplace")
    name = arguments[0] if arguments else ""
    try:
        with _sigterm_as_exception():
            code = _run(arguments)
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        code, message = fault(error, name)
        process = f"process {rank}: " if (rank := os.environ.get("RANK", "0")) != "0" else ""
        prefix = "" if isinstance(error, KeyboardInterrupt) else "error: "
        print(f"{process}{prefix}{message}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _discard_stdout()
        return code


def _run(arguments: Sequence[str]) -> int:
    name, *arguments = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    from dataset_scripts.reading.option_names import written_for

    if name not in COMMANDS:
        from dataset_scripts.reading.report import did_you_mean

        raise ValueError(
            f"unknown command {name!r}, must be one of {', '.join(COMMANDS)}.{did_you_mean(name, COMMANDS)}"
        )
    with written_for(name):
        try:
            return importlib.import_module(f"mpt_sentiment.commands.{COMMANDS[name][0]}").main(arguments) or 0
        except SystemExit as exit:  # of argparse, after --help
            return exit.code or 0


def _without_debug(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Take `--debug` out of the arguments, unless it is the Trainer's argument of this name."""
    words = [
        word
        for word, following in zip(argv, [*argv[1:], ""], strict=False)
        if word != "--debug" or following in _TRAINER_DEBUG
    ]
    return words, len(words) < len(argv)


@contextlib.contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Let SIGTERM raise [`Terminated`], so that temporary files are removed.

    Not in a process of a launcher, which sends the signal if another process failed and waits for the end of this one.
    """
    if "LOCAL_RANK" in os.environ or threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def handle(number: int, frame: Any) -> None:
        if os.getpid() != process:  # a worker, whose parent ends it
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Terminated

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _discard_stdout() -> None:
    """Send the rest of the output nowhere: Python would write it at exit, and fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
