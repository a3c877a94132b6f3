"""Published lists of the post ids of each split."""

import glob
import json
import re
from collections.abc import Mapping
from pathlib import Path

_WORDS_IN_FILE_NAMES = {"train": {"train"}, "validation": {"validation", "valid", "val", "dev"}, "test": {"test"}}
SPLITS = tuple(_WORDS_IN_FILE_NAMES)


def split_of_name(name: str) -> str | None:
    """Return the split that a word of a name names, such as `"validation"` for `dev` or `posts_val`."""
    words = set(re.split(r"[-_. ]", name.lower()))
    named = [split for split, known in _WORDS_IN_FILE_NAMES.items() if known & words]
    return named[0] if len(named) == 1 else None


def read_id_list(file: str | Path) -> list[str]:
    """Read a JSON list of objects with `id` (CLMLF's format), or text with one id per line.

    Raises:
        ValueError: the file does not exist or has another format.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"The id list {file} does not exist.")
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        return [str(entry["id"]) for entry in json.loads(text)]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: expected a JSON list of objects with 'id' ({type(error).__name__}: {error})."
        ) from None


def id_list_files(id_lists: str | Path | Mapping[str, str | Path] | None) -> list[Path]:
    """Return the files of the train, validation and test ids; see `id_lists` of `split_posts`.

    Raises:
        ValueError: not exactly one file for each split.
    """
    if id_lists is None:
        raise ValueError(
            "protocol='clmlf' needs `id_lists`: the folder with the CLMLF project's files, or {split: file}."
        )
    if isinstance(id_lists, Mapping):
        missing = [split for split in SPLITS if split not in id_lists]
        if missing:
            raise ValueError(
                f"`id_lists` must name {', '.join(SPLITS)}, got {list(id_lists)} (missing: {', '.join(missing)})."
            )
        return [Path(id_lists[split]) for split in SPLITS]
    base = Path(id_lists)
    folder, prefix = (base, "") if base.is_dir() else (base.parent, base.name)
    candidates = sorted(file for file in folder.glob(f"{glob.escape(prefix)}*") if file.suffix in (".json", ".txt"))
    files = []
    for split, words in _WORDS_IN_FILE_NAMES.items():
        matches = [file for file in candidates if words & set(re.split("[-_]", file.stem.lower()))]
        if len(matches) != 1:
            names = ", ".join(file.name for file in matches) or "none"
            raise ValueError(
                f"{base}: {len(matches)} files name the {split} list ({names}); exactly one is needed. Give "
                "folder/prefix, or id_lists={'train': …, 'validation': …, 'test': …}."
            )
        files += matches
    return files
