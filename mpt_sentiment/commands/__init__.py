"""Console script `mpt-sentiment`. Each module parses the arguments of one command."""

import importlib
import sys
from collections.abc import Sequence

# Command: its module in this package, and one line for the overview.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("train", "train a system on posts, test it once, save model, card and metrics"),
    "predict": ("predict", "label one post, or a table of posts, with a trained model"),
    "compare": ("compare", "train several systems on the same posts and tabulate them"),
    "linear": ("linear", "score the linear baselines and the majority label"),
    "build-dataset": ("build_dataset", "convert a raw download to Parquet with a dataset card"),
    "generate-rationales": ("generate_rationales", "write rationales with a large multimodal model"),
    "zero-shot": ("zero_shot", "classify posts with the large multimodal model alone"),
    "push": ("push", "publish a dataset folder or a trained model on the Hub"),
}
REFUSED, OUTAGE, INTERRUPTED = 1, 75, 130


def overview() -> str:
    """List the commands, one line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: mpt-sentiment COMMAND …", "", *lines, "", "`mpt-sentiment COMMAND --help` lists its arguments."]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    A fault that the user can correct becomes one line on stderr.

    Args:
        argv (sequence of `str`, *optional*): command and arguments, by default those of the process.

    Returns:
        0 for success, 1 for refused input, 75 for an unreachable server (the same command resumes the run), 130 for
        an interrupted run, or a code that the command documents.
    """
    name, *arguments = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name not in COMMANDS:
        from dataset_scripts.reading.report import did_you_mean

        hint = did_you_mean(name, COMMANDS)
        print(f"error: unknown command {name!r}, must be one of {', '.join(COMMANDS)}.{hint}", file=sys.stderr)
        return REFUSED
    from dataset_scripts.reading.option_names import written_for

    try:
        with written_for(name):
            return importlib.import_module(f"mpt_sentiment.commands.{COMMANDS[name][0]}").main(arguments) or 0
    except (Exception, KeyboardInterrupt) as error:
        code, message = fault(error)
        print(message if code == INTERRUPTED else f"error: {message}", file=sys.stderr)
        return code


def fault(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the line of a fault that a user can correct.

    Raises:
        BaseException: `error` itself, if it is a fault of this package.
    """
    from dataset_scripts.rationales.errors import EngineError, OutageError, StoreError

    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, OutageError):
        return OUTAGE, str(error)
    if isinstance(error, ValueError | OSError | StoreError | EngineError):
        return REFUSED, str(error)
    raise error
