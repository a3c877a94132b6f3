"""Arguments of commands: JSON values, arguments of posts and splits, and the parser."""

import argparse
import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from transformers import HfArgumentParser

from dataset_scripts.reading.report import did_you_mean
from dataset_scripts.registry import DATASETS
from dataset_scripts.schema import rationale_column
from dataset_scripts.splits import DEFAULT_PROTOCOL, PROTOCOLS, check_split_options


class JSON:
    """Annotation of a field that is JSON on the command line and an object in Python.

    Example: a field `text_config: JSON | None` accepts `--text_config '{"model_type": "bert"}'`.

    Raises:
        argparse.ArgumentTypeError: a string that is not JSON.
    """

    def __new__(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except json.JSONDecodeError as error:
            raise argparse.ArgumentTypeError(f"{value!r} is not JSON ({error}); write e.g. '{{\"key\": 1}}'") from None


class JSONOrWord(JSON):
    """Annotation of a field that is JSON or a bare word such as `balanced`."""

    def __new__(cls, value: Any) -> Any:
        return value if isinstance(value, str) and re.fullmatch(r"[a-z_]+", value) else JSON(value)


def argument(text: str, default: Any = None, **options: Any) -> Any:
    """Define a dataclass field with its help text.

    Args:
        text (`str`): help of the argument.
        default: its default; `dataclasses.MISSING` for a required argument.
        options: further keywords of `argparse.ArgumentParser.add_argument`, e.g. `action="extend"`.
    """
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata={"help": text, **options})
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: default.copy(), metadata={"help": text, **options})
    return dataclasses.field(default=default, metadata={"help": text, **options})


def options_object(name: str, value: Any) -> dict[str, Any]:
    """Return options as a dictionary.

    Raises:
        ValueError: JSON that is not an object.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f'`{name}` must be a JSON object such as {{"key": 1}}, got {value!r}.')
    return value


@dataclasses.dataclass
class PostArguments:
    """Posts."""

    dataset: str = argument(
        f"Name of a dataset ({', '.join(DATASETS)}), where folder is a table of your own; or a published dataset: its "
        "folder or Hub id.",
        "sample",
    )
    data_dir: str | None = argument("Folder or archive of the original download, or of your table and images.")
    dataset_options: JSON | None = argument(
        'Options of the dataset\'s loader (JSON), e.g. \'{"text_column": "caption"}\'.', {}
    )
    on_error: str = argument("raise: stop at the first faulty post; skip: leave it out, counted.", "raise")

    def __post_init__(self) -> None:
        self.dataset_options = options_object("dataset_options", self.dataset_options)


@dataclasses.dataclass
class DataArguments(PostArguments):
    """Posts, rationales and split."""

    rationales: str | None = argument("Rationales, joined by id: a TSV, CSV, JSONL or Parquet file, or a store.")
    split: str | None = argument(
        f"Protocol of the split: {', '.join(PROTOCOLS)}; by default {DEFAULT_PROTOCOL}, for posts without splits of "
        "their own."
    )
    split_seed: int = argument("Seed of the split.", 42)
    split_options: JSON | None = argument(
        'Options of the protocol (JSON), e.g. \'{"fold": 3}\' or \'{"group_column": "author"}\'.', {}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.split_options = options_object("split_options", self.split_options)
        check_split_options(self.split or DEFAULT_PROTOCOL, self.split_options)


# Positional arguments of the commands that have some. All others are listed below the usage, up to 150 of them.
USAGES = {
    "train": "train [RECIPE]",
    "compare": "compare [RECIPE]",
    "search": "search [RECIPE]",
    "report": "report [RECIPE]",
    "distill": "distill TEACHER [RECIPE]",
    "serve": "serve FOLDER",
    "demo": "demo FOLDER",
    "predict": "predict FOLDER [SOURCE …]",
    "explain": "explain FOLDER [TABLE]",
    "build-dataset": "build-dataset NAME",
}


def make_parser(
    classes: Sequence[type], command: str, description: str | None = None, *, add_help: bool = True
) -> HfArgumentParser:
    """Create the parser of a command. Its errors are ValueErrors of one line.

    Args:
        classes (sequence of dataclasses): arguments of the command.
        command (`str`): name after `mpt-sentiment`, for usage and messages.
        description (`str`, *optional*): text above the list of arguments.
        add_help (`bool`, defaults to `True`): whether the parser has `--help`.
    """
    parser = HfArgumentParser(
        tuple(classes),
        prog=f"mpt-sentiment {command}",
        usage=f"mpt-sentiment {USAGES.get(command, command)} [--name value …]",
        description=description,
        allow_abbrev=False,
        add_help=add_help,
    )

    def refuse(message: str) -> NoReturn:
        # argparse would print the usage of up to 150 arguments before the one line that matters
        choice = re.fullmatch(r"(.*invalid choice: '?(.*?)'?) \(choose from (.*)\)", message)
        if choice:
            close = did_you_mean(choice[2], re.findall(r"[\w.-]+", choice[3]))
            message = f"{choice[1]}.{close}" if close else message
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        options = [option for action in parser._actions for option in action.option_strings if "-" not in option[2:]]
        hint = did_you_mean(unknown[1].partition("=")[0], options) if unknown else ""
        end = "" if message.endswith("?") else "."
        raise ValueError(f"{message}{end}{hint} `mpt-sentiment {command} --help` lists every argument.")

    parser.error = refuse
    return parser


def parse_with_rationales(parser: HfArgumentParser, argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Parse options and those named `--rationale_PERSPECTIVE`, of any perspective.

    The model has the perspectives, and is not loaded yet.

    Returns:
        The values of the other options by name, and the given rationales by perspective.
    """
    prefix = f"--{rationale_column('')}"
    given = {word.partition("=")[0] for word in argv if word.startswith(prefix)}
    for option in sorted(given) or [f"{prefix}PERSPECTIVE"]:
        parser.add_argument(option, metavar="TEXT", help="Rationale of one perspective.")
    values = vars(parser.parse_intermixed_args(list(argv)))
    rationales = {name: values.pop(name) for name in [*values] if name.startswith(prefix[2:])}
    return values, {name.removeprefix(prefix[2:]): text for name, text in rationales.items() if text is not None}


def parse(classes: Sequence[type], argv: Sequence[str], *, command: str, description: str | None = None) -> tuple:
    """Parse a command line into one instance of each dataclass.

    Raises:
        ValueError: unknown argument (with the closest known one), missing or unusable value.
    """
    parser = make_parser(classes, command, description)
    return parser.parse_dict(vars(parser.parse_args(list(argv))))
