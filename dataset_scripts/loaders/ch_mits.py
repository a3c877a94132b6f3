"""CH-Mits (Ma et al. 2024): notes of Xiaohongshu with an image, positive or negative.

These parts of the download are known: the whole `cv_address.csv` (2,023 rows `labels,sentences`: label 1 or 0, and
the path of one image on the authors' disk, such as `D:\\ei\\…-master\\p/p0/cover.jpg`); its readme (six ZIP files
such as `p0-330.zip`; a note is a folder with images and a text of title, description and upload time); and programs
for it, which read `p/p0/detail.txt` as UTF-8, else GBK.

The format of the text is reconstructed, since no note was available. The crawler that uses these file names writes
`笔记标题: …`, `笔记描述: …`, `笔记上传时间: …`, one field a line; a description may have several lines.
The reader accepts both colons, names with and without 笔记, further fields between them, and a text without fields.
The folders of notes may be anywhere in the ZIP files: they are found by their names, `p` or `n` and a number.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from dataset_scripts.loaders.facts import DatasetFacts
from dataset_scripts.reading.archives import ArchiveLimits, is_archive, unpack
from dataset_scripts.reading.build import build_dataset
from dataset_scripts.reading.files import NAME_DIFFERS_NOTE, ImageNames, files_in, inputs_digest
from dataset_scripts.reading.image_checks import UncheckedRow
from dataset_scripts.reading.report import BuildReport, PublishedCounts, shown
from dataset_scripts.reading.row_checks import RowChecks
from dataset_scripts.reading.tables import Row, headerless_rows
from dataset_scripts.reading.text_files import decode_text, encoding_notes, encoding_of
from dataset_scripts.schema import features, post_row

CH_MITS = DatasetFacts(
    title="CH-Mits",
    about="Notes of the Chinese platform Xiaohongshu, each text and image, labelled positive or negative.",
    citations=(
        """\
@inproceedings{ma2024chmits,
  title = {{CH-Mits}: A Cross-Modal Dataset for User Sentiment Analysis on {Chinese} Social Media},
  author = {Ma, Juhao and Xu, Shuai and Liu, Yilin and Fu, Xiaoming},
  booktitle = {Proceedings of the 33rd ACM International Conference on Information and Knowledge Management},
  pages = {5390--5394},
  year = {2024}
}""",
    ),
    table_1=(1620, 202, 202),
    table_1_note="Table 1 adds up to 2,024, which counts a header line: the dataset has 2,023 posts.",
)
PUBLISHED = PublishedCounts(2023, {"positive": 1023, "negative": 1000})
POLARITIES = ("positive", "negative")
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
    """Load the posts of CH-Mits. A text is the note's title and description, not segmented.

    `cv_address.csv` lists the notes and one image of each. Without that file every note folder is a post, with its
    only image (or its only JPEG).

    Args:
        data_dir (`str` or `Path`):
            Folder with the note folders (`p/p0`, `n/n0`, …) or their ZIP files, and with `cv_address.csv`.
        on_error, num_proc: See [`load_posts`].
        archive_limits (`ArchiveLimits`, *optional*): limits for each of the ZIP files.

    Returns:
        The dataset (2,023 posts; classes positive and negative) and the `BuildReport`.

    Raises:
        ValueError: no note folder, or (unless skipped) a malformed row, unknown label, missing note, missing or
            empty text, missing or unreadable image; an archive that `archives.unpack` refuses.
    """
    data_dir = Path(data_dir).resolve()
    notes, addresses = _find_notes(data_dir, archive_limits)
    files = (file for _, folder in sorted(notes.items()) for file in files_in(Path(folder)))
    return build_dataset(
        "ch_mits",
        _rows,
        features(POLARITIES),
        inputs=inputs_digest([*([addresses] if addresses else []), *files]),
        options={"notes": notes, "addresses": addresses and str(addresses)},
        on_error=on_error,
        num_proc=num_proc,
        published=PUBLISHED,
    )


def _find_notes(data_dir: Path, limits: ArchiveLimits | None) -> tuple[dict[str, str], Path | None]:
    """Find the note folders by id and the address file, in a folder and its archives.

    Unpacked notes have priority over those of an archive, and an archive over the next one.
    """
    notes: dict[str, str] = {}
    addresses: list[Path] = []
    archives: list[Path] = []
    _walk(data_dir, notes, addresses, archives)
    while archives:
        notes_inside: dict[str, str] = {}
        _walk(unpack(archives.pop(0), limits), notes_inside, addresses, archives)
        notes = notes_inside | notes
    if not notes:
        raise ValueError(
            f"{data_dir} has no note folder (p0, p1, … n0, n1, …) and no archive with one; give the folder of the "
            "original download: p/ and n/, or its ZIP files, and cv_address.csv."
        )
    return notes, addresses[0] if addresses else None


def _walk(root: Path, notes: dict[str, str], addresses: list[Path], archives: list[Path]) -> None:
    """Add the note folders, address files and archives under a folder to the arguments."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name != "__MACOSX")
        name = os.path.basename(folder)
        if not (_NOTE_FOLDER.fullmatch(name) and files):
            addresses += [Path(folder, file) for file in files if file == ADDRESS_FILE]
            archives += [path for path in sorted(Path(folder, file) for file in files) if is_archive(path)]
        elif name in notes:
            raise ValueError(f"The note {name!r} occurs twice: {notes[name]} and {folder}; remove one.")
        else:
            notes[name] = folder


def parse_note(text: str) -> tuple[str, str] | None:
    """Return title and description of a note's text file, or None if it names neither.

    The description ends at the next field. If fields have the prefix 笔记, a line of the description that resembles a
    field without it (`标签: …`) is text.
    """
    prefixed = re.search(r"^笔记(标题|描述)\s*[:：]", text, re.MULTILINE) is not None
    values: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        match = _FIELD.fullmatch(line.strip())
        name = match[2].strip() if match else ""
        if match and name not in values and _is_field(match, name, prefixed):
            current = values[name] = [match[3]]
        else:
            current.append(line)
    if "标题" not in values and "描述" not in values:
        return None
    title, description = ("\n".join(values.get(name, ())).strip() for name in ("标题", "描述"))
    return title, description


def _is_field(match: re.Match[str], name: str, prefixed: bool) -> bool:
    if name == "上传时间":  # written without the prefix in the readme, next to fields with it
        return match[3][:1].isdigit()
    return (match[1] is not None) == prefixed and (name in ("标题", "描述") or name in _OTHER_FIELDS)


def note_text(title: str, description: str) -> str:
    """Join title and description, without a title that the description begins with."""
    if title in ("", _UNTITLED) or description.startswith(title):
        return description
    return f"{title}\n{description}".strip()


def address_rows(report: BuildReport, file: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield the well-formed rows of `cv_address.csv` as (location, id, label, image name)."""
    checks = RowChecks(report)
    rows = headerless_rows(file, ("label", "path"), ",", encoding_of(file))
    for number, (location, row) in enumerate(rows):
        if number == 0 and isinstance(row, Row) and row["label"].strip().lower() == "labels":
            continue
        report.read += 1
        if not checks.has_all_fields(row, location, "A row reads label,path/note/image."):
            continue
        parts = [part for part in re.split(r"[\\/]", row["path"].strip()) if part]
        if len(parts) < 2:
            report.fail("malformed row", f"{location}: the path must end with note/image, got {shown(row['path'])}.")
            continue
        post_id, image = parts[-2:]
        label = _LABEL_CODES.get(row["label"].strip())
        if label is None or label != _LABEL_FOLDERS.get(post_id[0], label):
            report.fail(
                "unknown label",
                f"{location}: the label of note {post_id!r} must be 1 for positive (notes p…) or 0 for negative (n…), "
                f"got {shown(row['label'], 40)}. Correct the row.",
            )
            continue
        if checks.is_new_id(post_id, location):
            yield location, post_id, label, image


def _folder_rows(report: BuildReport, notes: dict[str, str]) -> Iterator[tuple[str, str, str, str | None]]:
    """Yield a row for every note folder, as `address_rows`; the image name is None."""
    for post_id in sorted(notes, key=lambda name: (name[0] != "p", int(name[1:]))):
        report.read += 1
        yield f"note {post_id}", post_id, _LABEL_FOLDERS[post_id[0]], None


def _rows(report: BuildReport, notes: dict[str, str], addresses: str | None) -> Iterator[UncheckedRow]:
    listed = address_rows(report, Path(addresses)) if addresses else _folder_rows(report, notes)
    unlisted = set(notes)
    for location, post_id, label, image in listed:
        unlisted.discard(post_id)
        if post_id not in notes:
            report.fail(
                "missing note",
                f"{location}: the folder {post_id!r} does not exist; unpack all parts of the download or remove the "
                "row.",
            )
            continue
        folder = Path(notes[post_id])
        text, row_notes = _read_text(report, folder, location)
        file_name = _image_name(report, folder, image, location) if text else None
        if not text or not file_name:
            continue
        if image is not None and file_name != image:
            row_notes += (NAME_DIFFERS_NOTE,)
        path = str(folder / file_name)
        row = post_row(post_id, text=text, image=path, label=label, language="zh", source="ch_mits")
        yield UncheckedRow(row, location, row_notes)
    for _ in unlisted:
        report.drop(f"note folder that {ADDRESS_FILE} does not list")


def _read_text(report: BuildReport, folder: Path, location: str) -> tuple[str, tuple[str, ...]]:
    """Return the text of a note and notes for the report; empty and reported if it has none."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".txt")
    files = [path for path in files if path.name.lower() == TEXT_FILE] or files
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        report.fail("missing text", f"{location}: {folder} must have one text file, {TEXT_FILE}, got {names}.")
        return "", ()
    content, encoding = decode_text(files[0].read_bytes())
    fields = parse_note(content)
    text = note_text(*fields) if fields else content
    if not text:
        report.fail("empty text", f"{location}: {files[0]} has no title and no description; write one or remove it.")
        return "", ()
    notes = encoding_notes(encoding)
    return text, notes if fields else (*notes, "text without 笔记标题 and 笔记描述, taken whole")


def _image_name(report: BuildReport, folder: Path, listed: str | None, location: str) -> str | None:
    """Return the file that `listed` names; if None, the only image or the only JPEG."""
    images = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
    if listed is not None:
        return ImageNames(images).find(listed) or listed
    jpegs = [name for name in images if name.lower().endswith((".jpg", ".jpeg"))]
    for candidates in (images, jpegs):
        if len(candidates) == 1:
            return candidates[0]
    report.fail(
        "ambiguous image" if images else "missing image",
        f"{location}: {folder} has {len(images)} images; add {ADDRESS_FILE}, which lists one image of each note.",
    )
    return None
