"""Datasets of a folder or of the Hub, opened by `datasets`."""

import logging
import re
from pathlib import Path
from typing import Any

import pandas
from datasets import Dataset, DatasetDict, IterableDataset, config, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError
from datasets.naming import camelcase_to_snakecase
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError, HTTPError, RepositoryNotFoundError

from dataset_scripts.loaders.published import OPTIONS
from dataset_scripts.reading.option_names import load_call, option
from dataset_scripts.reading.report import did_you_mean
from dataset_scripts.reading.tables import TableFormat, table_names, table_rows

logger = logging.getLogger(__name__)

_TIMEOUT = 10  # seconds to wait for the Hub; `datasets` repeats an unanswered request for half a minute


def open_dataset(name: str, config_name: str | None = None, **options: Any) -> DatasetDict:
    """Open a dataset with `datasets`; one without splits is the split `posts`.

    Raises:
        ValueError: there is none, `datasets` cannot read it or would join rows, or it is streamed.
    """
    posts = _opened(name, config_name, options)
    if not isinstance(posts, Dataset | DatasetDict):
        raise ValueError(f"{name!r} is opened as {type(posts).__name__}; load the posts without streaming.")
    posts = posts if isinstance(posts, DatasetDict) else DatasetDict({"posts": posts})
    if not Path(name).is_dir() and any(part.info.builder_name == "csv" for part in posts.values()):
        logger.warning(
            "%s is read by pandas from CSV, which joins the lines between two quotes; compare its %d rows with the "
            "dataset's card, or download its files and use %s.",
            name, sum(map(len, posts.values())), load_call("folder", "FOLDER"),
        )  # fmt: skip
    return posts


def open_stream(name: str) -> dict[str, Dataset | IterableDataset]:
    """Open the splits of a dataset with `datasets`, to be read as they are iterated.

    Those of a dataset saved to disk are of the type `Dataset`.

    Raises:
        ValueError: there is none, or `datasets` cannot read it or would join rows.
    """
    posts = _opened(name, None, {"streaming": True})
    return dict(posts) if isinstance(posts, dict) else {"posts": posts}


def _opened(name: str, config_name: str | None, options: dict[str, Any]) -> Any:
    folder = Path(name)
    if not folder.is_dir():
        _check_hub(name, options.get("token"))
    for table in table_names(folder, (".csv", ".tsv")) if folder.is_dir() else ():
        _check_quotes(folder / table, options)
    hint = f" A table and its images are read by {load_call('folder', name)}." if folder.is_dir() else ""
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            return load_from_disk(name, **{key: value for key, value in options.items() if key != "streaming"})
        return load_dataset(name, config_name, **options)
    except (FileNotFoundError, ConnectionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name!r} is no folder with a dataset here, and is not loaded from the Hub: {reason}"
        ) from None
    except ValueError as error:  # by a builder of `datasets`
        unknown = re.search(r"doesn't have a '(\w+)' key", str(error))
        if unknown is None:
            raise
        raise ValueError(
            f"{name!r} is opened by `datasets`, which has no option {unknown[1]!r} for its files; leave it out.{hint}"
            + did_you_mean(unknown[1], OPTIONS)
        ) from None
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, OSError):  # such as a full disk
            raise
        reason = " ".join(str(error.__cause__ or error).split())[:120]
        raise ValueError(f"{name!r} cannot be read by `datasets` ({reason}).{hint}") from None


def _check_hub(name: str, token: str | bool | None) -> None:
    """Check that the Hub has a dataset, or that it is in the cache of `datasets`."""
    try:
        HfApi().dataset_info(name, token=token, timeout=_TIMEOUT)
    except HFValidationError:  # such as a path; `datasets` says that it does not exist
        return
    except RepositoryNotFoundError:
        raise ValueError(
            f"{name!r} is no folder here, and no dataset of the Hub, or a private one that needs `hf auth login`."
        ) from None
    except (HTTPError, OSError) as error:
        owner, _, title = name.rpartition("/")
        cached = Path(config.HF_DATASETS_CACHE, f"{owner}___{camelcase_to_snakecase(title)}")
        if not any(cached.glob("*/*/*/")):
            is_set = "HF_HUB_OFFLINE is set, unset it"
            reason = is_set if constants.HF_HUB_OFFLINE else " ".join(str(error).split())[:150]
            raise ValueError(
                f"{name!r} is no folder here and not in the cache of `datasets`, and {constants.ENDPOINT} cannot be "
                f"reached ({reason})."
            ) from None
        if not constants.HF_HUB_OFFLINE:
            logger.warning(
                "%s cannot be reached: %s is loaded from the cache. HF_HUB_OFFLINE=1 avoids the wait.",
                constants.ENDPOINT, name,
            )  # fmt: skip


def _check_quotes(table: Path, options: dict[str, Any]) -> None:
    """Check that pandas, which `datasets` uses, does not join the lines between two quotes."""
    call = load_call("folder", str(table.parent))
    delimiter, encoding = options.get("sep") or options.get("delimiter"), options.get("encoding")
    num_rows = 0
    for location, row in table_rows(table, TableFormat(delimiter, encoding) if delimiter or encoding else None):
        num_rows += 1
        if isinstance(row, str):
            raise ValueError(f"{location}: {row} Such rows are left out by {call} with {option('on_error', 'skip')}.")
    try:
        usual = "," if table.suffix.lower() == ".csv" else "\t"
        num_read = len(pandas.read_csv(table, sep=delimiter or usual, encoding=encoding, usecols=[0]))
    except (ValueError, OSError):  # the message of `datasets` follows
        return
    if num_read != num_rows:
        raise ValueError(f"{table} has {num_rows:,} rows, `datasets` reads {num_read:,}. They are read by {call}.")
