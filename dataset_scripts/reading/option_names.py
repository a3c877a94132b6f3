"""Options in messages, as the user writes them: in Python, or on the command line."""

import contextlib
import contextvars
import json
import shlex
from collections.abc import Iterator
from typing import Any

_SPLIT_OPTIONS = ("fold", "id_lists", "on_missing")
# Arguments of the command line itself, by their names in Python.
_ARGUMENTS = {
    **{name: name for name in ("data_dir", "on_error", "rationales", "dataset", "split_options")},
    "protocol": "split",
    "seed": "split_seed",
}
# Arguments of `predict`, which reads tables.
_OF_PREDICT = (
    *("text_column", "image_column", "id_column", "keep_columns", "delimiter", "encoding", "sheet"),
    *("abstain_below", "target_precision"),
)
# The command that runs; None in Python.
_command: contextvars.ContextVar[str | None] = contextvars.ContextVar("command", default=None)


@contextlib.contextmanager
def written_for(command: str) -> Iterator[None]:
    """Write the options in messages as the command line takes them."""
    token = _command.set(command)
    try:
        yield
    finally:
        _command.reset(token)


def option(name: str, value: Any = ...) -> str:
    """Write an option of `load_posts` or `split_posts` and its value for a message.

    Args:
        name (`str`): its name in Python.
        value: by default `…`, for the user to fill in.

    Returns:
        `text_column="caption"` in Python; on the command line `--dataset_options '{"text_column": "caption"}'`, or
        `--text_column caption` for a command with this argument.
    """
    command = _command.get()
    if command is None:
        return f"{name}={_python(value)}"
    if command == "predict" and name in _OF_PREDICT:
        return f"--{name} {_word(value)}"
    if name in _ARGUMENTS:
        return f"--{_ARGUMENTS[name]} {_word(value)}"
    return _object("split_options" if name in _SPLIT_OPTIONS else "dataset_options", {name: value})


def column_options(*names: str) -> str:
    """Write options that name columns, for the user to fill in; see `option`."""
    if _command.get() is None:
        return ", ".join(map(option, names))
    if _command.get() == "predict":
        return " ".join(map(option, names))
    return _object("dataset_options", dict.fromkeys(names, ...))


def field(name: str, value: Any = ...) -> str:
    """Write a field of training for a message: `lora=True`, or `--lora true`."""
    if _command.get() is None:
        return f"{name}={_python(value)}"
    if isinstance(value, dict):
        return f"--{name} {shlex.quote(json.dumps(value, ensure_ascii=False))}"
    if isinstance(value, list):
        return f"--{name} {' '.join(map(_word, value))}"
    return f"--{name} {str(value).lower() if isinstance(value, bool) else _word(value)}"


def load_call(name: str, data_dir: str | None = None) -> str:
    """Write how posts are loaded: `load_posts("folder", "posts")`, or `--dataset …`."""
    words = [name] if data_dir is None else [name, data_dir]
    if _command.get() is None:
        return f"load_posts({', '.join(map(_python, words))})"
    if _command.get() == "predict" and data_dir is not None:
        return _word(f"{data_dir}/…")
    return " ".join(f"--{word} {_word(value)}" for word, value in zip(("dataset", "data_dir"), words, strict=False))


def option_name(name: str) -> str:
    """Write the name of an option for a message: `` `protocol` ``, or `--split`."""
    if _command.get() is None:
        return f"`{name}`"
    argument = option(name).split(" ")[0]
    return f"`{name}` in {argument}" if argument.endswith("_options") and name != argument[2:] else argument


def _object(argument: str, values: dict[str, Any]) -> str:
    """Write an argument whose value is a JSON object."""
    filled = {name: "…" if value is ... else value for name, value in values.items()}
    return f"--{argument} {shlex.quote(json.dumps(filled, ensure_ascii=False))}"


def _python(value: Any) -> str:
    if value is ...:
        return "…"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _word(value: Any) -> str:
    return "…" if value is ... else shlex.quote(str(value))
