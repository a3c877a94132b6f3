"""Published lists of the post ids of each split."""

import glob
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

from dataset_scripts.reading.option_names import option, option_name
from dataset_scripts.reading.post_ids import DAMAGED_ID, read_id
from dataset_scripts.reading.report import shown
from dataset_scripts.reading.text_files import text_lines

logger = logging.getLogger(__name__)

_WORDS_IN_FILE_NAMES = {"train": {"train"}, "validation": {"validation", "valid", "val", "dev"}, "test": {"test"}}
SPLITS = tuple(_WORDS_IN_FILE_NAMES)


def split_of_name(name: str) -> str | None:
    """Return the split that a word of a name means: `"validation"` for `posts_val`, `dev`."""
    words = set(re.split(r"[-_. ]", name.lower()))
    named = [split for split, known in _WORDS_IN_FILE_NAMES.items() if known & words]
    return named[0] if len(named) == 1 else None


def read_id_list(file: str | Path) -> list[str]:
    """Read a JSON list of objects with `id` (CLMLF's format), or text with one id per line.

    Raises:
        ValueError: the file does not exist or has another format, or an id is blank or a rounded number.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"The id list {file} does not exist.")
    lines = list(text_lines(file))
    if file.suffix.lower() == ".json":
        try:
            entries = [entry["id"] for entry in json.loads("".join(lines))]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file}: expected a JSON list of objects with 'id' ({type(error).__name__}: {str(error)[:80]})."
            ) from None
        located = [(f"entry {number}", entry) for number, entry in enumerate(entries, start=1)]
    else:
        located = [(f"line {number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    ids = []
    for position, value in located:
        post_id, doubt = read_id(value)
        if post_id is None or doubt == DAMAGED_ID:
            fault = "the id is blank; write it." if post_id is None else f"the id {post_id[:40]} {DAMAGED_ID}."
            raise ValueError(f"{file}, {position}: {fault}")
        ids.append(post_id)
    return ids


def id_list_files(id_lists: str | Path | Mapping[str, str | Path] | None) -> list[Path]:
    """Return the files of the train, validation and test ids; see `id_lists` of `split_posts`.

    Raises:
        ValueError: not exactly one file for each split.
    """
    if id_lists is None:
        raise ValueError(
            f"{option('protocol', 'clmlf')} needs {option_name('id_lists')}, the folder with the CLMLF project's "
            f"files: {option('id_lists', 'FOLDER')}."
        )
    if isinstance(id_lists, Mapping):
        missing = [split for split in SPLITS if split not in id_lists]
        if missing:
            raise ValueError(
                f"{option_name('id_lists')} must name {', '.join(SPLITS)}, got {shown(list(id_lists))} "
                f"(missing: {', '.join(missing)})."
            )
        return [Path(id_lists[split]) for split in SPLITS]
    base = Path(id_lists)
    folder, prefix = (base, "") if base.is_dir() else (base.parent, base.name)
    candidates = [path for path in sorted(folder.glob(f"{glob.escape(prefix)}*")) if not path.name.startswith(".")]
    candidates = [path for path in candidates if path.suffix.lower() in (".json", ".txt")]
    files = []
    for split in SPLITS:
        matches = [path for path in candidates if split_of_name(path.stem) == split]
        if len(matches) != 1:
            names = ", ".join(file.name for file in matches) or "none"
            raise ValueError(
                f"{base}: {len(matches)} files name the {split} list ({names}); exactly one is needed. Give "
                f"folder/prefix, or {option('id_lists', dict.fromkeys(SPLITS, '…'))}."
            )
        files += matches
    return files


def listed_splits(
    ids: list[str], id_lists: str | Path | Mapping[str, str | Path] | None, on_missing: str
) -> list[int]:
    """Return the index into `SPLITS` of each post, -1 for a post in no list.

    Args:
        ids (`list[str]`): ids of the posts.
        id_lists, on_missing: see `split_posts`.

    Raises:
        ValueError: an id is listed twice, or lists and posts differ, unless skipped.
    """
    if on_missing not in ("raise", "skip"):
        raise ValueError(f"{option_name('on_missing')} must be 'raise' or 'skip', got {on_missing!r}.")
    split_of_id: dict[str, int] = {}
    for split, file in enumerate(id_list_files(id_lists)):
        for post_id in read_id_list(file):
            if post_id in split_of_id:
                raise ValueError(
                    f"{file}: id {post_id!r} is listed twice (also in {SPLITS[split_of_id[post_id]]}); remove one."
                )
            split_of_id[post_id] = split
    present = set(ids)
    without_post = [post_id for post_id in split_of_id if post_id not in present]
    if len(without_post) == len(split_of_id):
        raise ValueError("clmlf: no listed id has a post; are these the lists of another dataset?")
    unlisted = [post_id for post_id in ids if post_id not in split_of_id]
    for problem, post_ids in (("listed ids have no post", without_post), ("posts are in no list", unlisted)):
        if not post_ids:
            continue
        message = f"clmlf: {len(post_ids):,} {problem} (first: {', '.join(post_ids[:3])})"
        if on_missing == "raise":
            raise ValueError(
                f"{message}. Load the whole download and its lists, or leave them out with "
                f"{option('on_missing', 'skip')}."
            )
        logger.warning("%s; left out", message)
    return [split_of_id.get(post_id, -1) for post_id in ids]
