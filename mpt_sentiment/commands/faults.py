"""Faults that a user can correct, as an exit code and one line."""

import os
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# INCOMPLETE: finished, but some results are missing or unusable, as the command documents.
REFUSED, INCOMPLETE, BUG, OUTAGE, INTERRUPTED, BROKEN_PIPE, TERMINATED = 1, 3, 70, 75, 130, 141, 143
MAX_MESSAGE = 400
OUR_PACKAGES = ("mpt_sentiment", "dataset_scripts", "modeling_mpt", "processing_mpt")

_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
_KILLED_WORKER = re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)", re.DOTALL)
# torch repeats the error of a worker process with its traceback.
_FROM_WORKER = re.compile(
    r"Caught \w+ in .*Original Traceback.*\n(?:[\w.]+(?:Error|Exception)): (?P<text>.*)", re.DOTALL
)
_RESUMED = (
    "train",
    "distill",
    "compare",
    "search",
    "report",
    "predict",
    "build-dataset",
    "generate-rationales",
    "zero-shot",
)
_LESS_MEMORY = {
    "predict": "Lower --batch_size.",
    "serve": "Lower --max_batch_size.",
    "explain": "Lower --batch_size.",
    "linear": "Lower --max_length.",
    **dict.fromkeys(
        ("train", "distill", "compare", "search", "report"),
        "Halve --per_device_train_batch_size and double --gradient_accumulation_steps: the result stays the same. If "
        "it happened in an evaluation, lower --per_device_eval_batch_size.",
    ),
}


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""


def fault(error: BaseException, command: str = "") -> tuple[int, str]:
    """Return the exit code and the line of an exception.

    Args:
        error: the exception.
        command (`str`): the command that runs, for its advice.

    Returns:
        1 for a fault that the user can correct, 75 for an unreachable server, 130 and 143 for an interrupted run, 70
        for an unexpected exception, which is a fault of this package; and one line of at most `MAX_MESSAGE`
        characters.
    """
    from dataset_scripts.output import is_disk_full
    from dataset_scripts.rationales.errors import EngineError, OutageError, StoreError

    if isinstance(error, KeyboardInterrupt):
        word = "terminated" if isinstance(error, Terminated) else "interrupted"
        resumed = "; the same command resumes the run" if command in _RESUMED else ""
        return (TERMINATED if word == "terminated" else INTERRUPTED), word + resumed
    if isinstance(error, OutageError):
        return OUTAGE, one_line(str(error))
    for cause in causes(error):
        if is_disk_full(cause):
            place = getattr(cause, "filename", None) or one_line(str(cause), 150)
            return REFUSED, (
                f"The disk is full ({place}). Everything saved before is kept: free some space and repeat the same "
                "command, which resumes."
            )
        if _is_out_of_memory(cause):
            advice = _LESS_MEMORY.get(command, "Use smaller batches, a smaller model or another device.")
            return REFUSED, f"Out of memory: {one_line(str(cause) or type(cause).__name__, 120)} {advice}"
    if _KILLED_WORKER.search(str(error)):
        return REFUSED, (
            "A process that reads posts was killed, usually because the memory or /dev/shm is full. Lower "
            "--dataloader_num_workers; 0 reads posts in the main process."
        )
    if isinstance(error, OSError):
        return REFUSED, one_line(_os_error(error))
    if isinstance(error, ValueError | StoreError | EngineError) or _is_of_the_environment(error):
        return REFUSED, one_line(str(error))
    return BUG, (
        f"{one_line(f'{type(error).__name__}: {error}', 220)} This is a fault of mpt-sentiment {_version()}. Please "
        "report it with the output of the same command and --debug."
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """Iterate over an exception and the ones that caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def one_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Join the lines of a message and cut it."""
    worker = _FROM_WORKER.search(text)
    words = " ".join((worker["text"] if worker else text).split())
    return words if len(words) <= limit else f"{words[: limit - 2].rstrip()} …"


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


def _is_of_the_environment(error: BaseException) -> bool:
    """Return whether an optional package is missing, or a file of weights is damaged."""
    if isinstance(error, ImportError):
        return (error.name or "").partition(".")[0] not in OUR_PACKAGES
    return type(error).__name__ == "SafetensorError"


def _os_error(error: OSError) -> str:
    """Write an error of the system with its path first, and the variable that moves a cache."""
    if error.errno is None or not error.filename or not error.strerror:
        return str(error)
    path = Path(os.fsdecode(error.filename))
    line = f"{path}: {error.strerror}."
    for variable, folder in _caches().items():
        if path == folder or folder in path.parents or path in folder.parents:
            return f"{line} It belongs to a cache: set {variable} to a folder that can be written."
    return line


def _caches() -> dict[str, Path]:
    """Return the folders of caches by the environment variables that move them."""
    from datasets import config
    from huggingface_hub import constants
    from transformers.utils import HF_MODULES_CACHE

    home = Path(constants.HF_HOME)
    caches = {"HF_DATASETS_CACHE": Path(config.HF_DATASETS_CACHE), "HF_HUB_CACHE": Path(constants.HF_HUB_CACHE)}
    caches["HF_MODULES_CACHE"] = Path(HF_MODULES_CACHE)
    return {name: path for name, path in caches.items() if home not in path.parents} | {"HF_HOME": home}


def _version() -> str:
    try:
        return version("mpt-sentiment")
    except PackageNotFoundError:  # run from a checkout
        return "(checkout)"
