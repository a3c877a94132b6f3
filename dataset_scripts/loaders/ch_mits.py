"""CH-Mits (Ma et al. 2024): Chinese notes of Xiaohongshu with an image, positive or negative.

Seen of the download: `cv_address.csv` whole (2,023 rows `labels,sentences`, label 1 or 0 and the image's path on the
authors' disk, `D:\\ei\\…-master\\p/p0/cover.jpg`, one image a note: `cover.jpg`, `image_12.jpg`, `th (3).jpg`…); its
readme (six ZIP files such as `p0-330.zip`; a note is a folder with images and a text of title, description and
upload time); programs for it, which read `p/p0/detail.txt` as UTF-8, else GBK.

Reconstructed, since no note could be had: how the text is written. `笔记标题: …`, `笔记描述: …`, `笔记上传时间: …`, a
line each and the description going on over several, is what the crawler that names its files so writes. The reader
takes either colon, the names with and without 笔记, further fields between them, and a text without any of them. Where
the folders lie inside the ZIP files is open as well: they are found by their names, `p` or `n` and a number.
"""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from dataset_scripts.reading.archives import ArchiveLimits, is_archive, unpack
from dataset_scripts.reading.build import build_dataset, inputs_digest
from dataset_scripts.reading.image_checks import Unchecked
from dataset_scripts.reading.report import BuildReport, Published
from dataset_scripts.reading.text_files import decode_text, encoding_notes
from dataset_scripts.schema import features

POLARITIES = ("positive", "negative")
# The paper's 2,024 counts the header line of the table.
CH_MITS = Published(2023, {"positive": 1023, "negative": 1000})
ADDRESS_FILE = "cv_address.csv"
TEXT_FILE = "detail.txt"

_NOTE_FOLDER = re.compile(r"[pn]\d+")
_LABEL_CODES = {"1": "positive", "0": "negative"}
_LABEL_FOLDERS = {"p": "positive", "n": "negative"}
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_FIELD = re.compile(r"(笔记)?(标题|描述|上传时间|[\w ]{1,12}?)\s*[:：]\s*(.*)")
_OTHER_FIELDS = frozenset(
    "id url 类型 点赞数量 收藏数量 评论数量 分享数量 标签 ip归属地 用户id 用户主页url 昵称 头像url".split()
    + "视频封面url 视频地址url 图片地址url列表".split()
)
_UNTITLED = "无标题"  # the crawler's word for no title


def load_ch_mits(
    data_dir: str | Path,
    on_error: str = "raise",
    *,
    num_proc: int | None = None,
    archive_limits: ArchiveLimits | None = None,
) -> tuple[Dataset, BuildReport]:
    """The posts of CH-Mits. Text: the note's title and its description, not segmented, as written.

    `cv_address.csv` says which notes there are and which of its images stands for each. Without that file every note
    folder is a post, with its only image (or its only JPEG).

    Args:
        data_dir (`str` or `Path`):
            Holds the note folders (`p/p0`, `n/n0`, …) or the ZIP files with them, and `cv_address.csv`.
        on_error (`str`, defaults to `"raise"`): or `"skip"`, for notes without text or image, or with other faults.
        num_proc (`int`, *optional*): how many images are decoded at a time; 1 by default.
        archive_limits (`ArchiveLimits`, *optional*): what each of the ZIP files may unpack to.

    Returns:
        The dataset (2,023 posts; classes positive and negative) and the `BuildReport`.

    Raises:
        ValueError: no note folder, or (unless skipped) a malformed row, unknown label, missing note, missing or
            empty text, missing or unreadable image; an archive that `archives.unpack` refuses.
    """
    data_dir = Path(data_dir).resolve()
    notes, addresses = _scan(data_dir, archive_limits)
    return build_dataset(
        "ch_mits",
        _rows,
        features(POLARITIES),
        inputs=inputs_digest([*([addresses] if addresses else []), *_files(notes)]),
        options={"notes": notes, "addresses": addresses and str(addresses)},
        on_error=on_error,
        num_proc=num_proc,
        published=CH_MITS,
    )


def _scan(data_dir: Path, limits: ArchiveLimits | None) -> tuple[dict[str, str], Path | None]:
    """Note folders by id, and the address file, in `data_dir` and in the archives below it.

    What lies there unpacked goes before what an archive holds, and the first archive before the next.
    """
    notes: dict[str, str] = {}
    addresses: list[Path] = []
    archives: list[Path] = []
    _walk(data_dir, notes, addresses, archives)
    while archives:
        inside: dict[str, str] = {}
        _walk(unpack(archives.pop(0), limits), inside, addresses, archives)
        notes = inside | notes
    if not notes:
        raise ValueError(
            f"{data_dir} holds no note folder (p0, p1, … n0, n1, …) and no archive with one; give the folder of the "
            "original download: p/ and n/, or its ZIP files, with cv_address.csv beside them."
        )
    return notes, addresses[0] if addresses else None


def _walk(root: Path, notes: dict[str, str], addresses: list[Path], archives: list[Path]) -> None:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name != "__MACOSX")
        name = os.path.basename(folder)
        if not (_NOTE_FOLDER.fullmatch(name) and files):
            addresses += [Path(folder, file) for file in files if file == ADDRESS_FILE]
            archives += [path for path in sorted(Path(folder, file) for file in files) if is_archive(path)]
        elif name in notes:
            raise ValueError(f"the note {name!r} is there twice: {notes[name]} and {folder}; remove one.")
        else:
            notes[name] = folder


def _files(notes: dict[str, str]) -> Iterator[str]:
    for _, folder in sorted(notes.items()):
        yield from (os.path.join(folder, name) for name in sorted(os.listdir(folder)))


def parse_note(text: str) -> tuple[str, str] | None:
    """Title and description of a note's text file, or None if it names neither.

    The description goes on to the next field. Where fields have the prefix 笔记, a line of the description that only
    looks like a field (`标签: …`) is text.
    """
    prefixed = re.search(r"^笔记(标题|描述)\s*[:：]", text, re.MULTILINE) is not None
    values: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        field = _FIELD.fullmatch(line.strip())
        name = field[2].strip() if field else ""
        if field and name not in values and _is_field(field, name, prefixed):
            current = values[name] = [field[3]]
        else:
            current.append(line)
    if "标题" not in values and "描述" not in values:
        return None
    title, description = ("\n".join(values.get(name, ())).strip() for name in ("标题", "描述"))
    return title, description


def _is_field(field: re.Match[str], name: str, prefixed: bool) -> bool:
    if name == "上传时间":  # the readme names it without the prefix, beside two that have it
        return field[3][:1].isdigit()
    return (field[1] is not None) == prefixed and (name in ("标题", "描述") or name in _OTHER_FIELDS)


def note_text(title: str, description: str) -> str:
    """One text of the two. A title that the platform made of the first words of the description is not repeated."""
    if title in ("", _UNTITLED) or description.startswith(title):
        return description
    return f"{title}\n{description}".strip()


def address_rows(report: BuildReport, file: Path) -> Iterator[tuple[str, str, str, str]]:
    """The well-formed rows of `cv_address.csv`: place, id of the note, label, name of its image."""
    seen: dict[str, int] = {}
    lines = decode_text(file.read_bytes())[0].splitlines()
    for number, record in enumerate(csv.reader(lines), start=1):
        if not record or (number == 1 and record[0].strip().lower() == "labels"):
            continue
        report.read += 1
        where = f"{file}, line {number}"
        parts = [part for part in re.split(r"[\\/]", record[-1].strip()) if part]
        if len(record) != 2 or len(parts) < 2:
            report.fail("malformed row", f"{where}: {','.join(record)!r}; a row must read label,path/note/image.")
            continue
        post, image = parts[-2:]
        label = _LABEL_CODES.get(record[0].strip())
        if label is None or label != _LABEL_FOLDERS.get(post[0], label):
            expected = "1 is positive (notes p…), 0 negative (n…)"
            report.fail("unknown label", f"{where}: label {record[0]!r} for note {post!r}; {expected}. Mend the row.")
            continue
        if post in seen:
            report.fail("duplicate id", f"{where}: note {post!r} is also on line {seen[post]}; remove one.")
            continue
        seen[post] = number
        yield where, post, label, image


def _folder_rows(report: BuildReport, notes: dict[str, str]) -> Iterator[tuple[str, str, str, str | None]]:
    for post in sorted(notes, key=lambda post: (post[0] != "p", int(post[1:]))):
        report.read += 1
        yield f"note {post}", post, _LABEL_FOLDERS[post[0]], None


def _rows(report: BuildReport, notes: dict[str, str], addresses: str | None) -> Iterator[Unchecked]:
    listed = address_rows(report, Path(addresses)) if addresses else _folder_rows(report, notes)
    unlisted = set(notes)
    for where, post, label, image in listed:
        unlisted.discard(post)
        if post not in notes:
            report.fail(
                "missing note",
                f"{where}: there is no folder {post!r}; unpack all parts of the download or remove the row.",
            )
            continue
        folder = Path(notes[post])
        text, remarks = _read_text(report, folder, where)
        image_name = _image_name(report, folder, image, where) if text else None
        if not text or not image_name:
            continue
        if image is not None and image_name != image:
            remarks += ("image found under another case or ending",)
        row: dict[str, Any] = {
            "id": post,
            "image": str(folder / image_name),
            "text": text,
            "rationale_positive": None,
            "rationale_neutral": None,
            "rationale_negative": None,
            "label": label,
            "text_label": None,
            "image_label": None,
            "language": "zh",
            "source": "ch_mits",
        }
        yield Unchecked(row, where, remarks)
    for _ in unlisted:
        report.drop(f"note folder that {ADDRESS_FILE} does not list")


def _read_text(report: BuildReport, folder: Path, where: str) -> tuple[str, tuple[str, ...]]:
    """The text and remarks on it; an empty text if there is none, which is reported."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".txt")
    files = [path for path in files if path.name.lower() == TEXT_FILE] or files
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        report.fail("missing text", f"{where}: {folder} must hold one text file, {TEXT_FILE}; it holds {found}.")
        return "", ()
    content, encoding = decode_text(files[0].read_bytes())
    note = parse_note(content)
    text = note_text(*note) if note else content
    if not text:
        report.fail("empty text", f"{where}: {files[0]} has neither title nor description; write one or remove it.")
        return "", ()
    remarks = encoding_notes(encoding)
    return text, remarks if note else (*remarks, "text without 笔记标题 and 笔记描述, taken whole")


def _image_name(report: BuildReport, folder: Path, wanted: str | None, where: str) -> str | None:
    """The file that `wanted` names, if need be in another case or with another ending; the only image if None."""
    images = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
    if wanted is None:
        jpegs = [name for name in images if name.lower().endswith((".jpg", ".jpeg"))]
        for candidates in (images, jpegs):
            if len(candidates) == 1:
                return candidates[0]
        report.fail(
            "ambiguous image" if images else "missing image",
            f"{where}: {folder} holds {len(images)} images; add {ADDRESS_FILE}, which says which one stands for it.",
        )
        return None
    if wanted in images:
        return wanted
    for like in (lambda name: name.lower(), lambda name: os.path.splitext(name.lower())[0]):
        found = [name for name in images if like(name) == like(wanted)]
        if len(found) == 1:
            return found[0]
    return wanted  # the check says that it is missing
