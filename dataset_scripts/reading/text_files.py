"""Text files in UTF-8, UTF-16, the Chinese code pages, or an encoding that the user names."""

import codecs
import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from dataset_scripts.reading.option_names import option

_BYTE_ORDER_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# First bytes, in lower case, of files that are often named as text tables.
_SIGNATURES = {
    b"version https://git-lfs": "a Git LFS pointer; fetch the file with `git lfs pull`",
    b"<!doctype html": "an HTML page, as a failed download leaves it; download it again",
    b"<html": "an HTML page, as a failed download leaves it; download it again",
    b"pk\x03\x04": "an XLSX file or a ZIP archive; rename it",
    b"\xd0\xcf\x11\xe0": "an XLS file; save it as .xlsx or CSV",
    b"par1": "a Parquet file; rename it",
    b"\x1f\x8b": "a gzip file; rename it",
    b"%pdf": "a PDF document",
}
_HEAD = 64 * 1024  # bytes from which the encoding and the line ends are recognized
LOST_CHARACTER = "\ufffd"


def decode_text(raw: bytes) -> tuple[str, str]:
    """Decode bytes as UTF-8 if they are valid, else as GB18030.

    Returns the text and the encoding. A quarter of MVSA's files are GB18030 (curly quotes, ellipses). Bytes that are
    valid in neither, and null bytes, become U+FFFD (`"damaged"`). UTF-16 is recognized by its byte order mark or by
    its null bytes.
    """
    marked = _marked_encoding(raw) or _utf16_without_mark(raw)
    for encoding in (marked,) if marked else ("utf-8-sig", "gb18030"):
        try:
            text = raw.decode(encoding).strip()
        except UnicodeDecodeError:
            continue
        return (text.replace("\0", LOST_CHARACTER), "damaged") if "\0" in text else (text, encoding)
    return raw.decode("gb18030", errors="replace").strip().replace("\0", LOST_CHARACTER), "damaged"


def encoding_notes(encoding: str) -> tuple[str, ...]:
    """Return the notes for the build report on an encoding of `decode_text`."""
    if encoding == "damaged":
        return ("text with bytes of no encoding, replaced by U+FFFD",)
    return () if encoding == "utf-8-sig" else (f"text read as {encoding.upper()}",)


def encoding_of(file: Path) -> str:
    """Return the encoding of a text: that of its byte order mark, UTF-8 if valid, or GB18030.

    Raises:
        ValueError: the file is neither; the message names the first line that is not GB18030.
    """
    with _open(file) as raw:
        content = raw.read()
    if (marked := _marked_encoding(content)) is not None:
        return marked
    for encoding in ("utf-8-sig", "gb18030"):  # in this order, since nearly all bytes are valid GB18030
        try:
            content.decode(encoding)
            return encoding
        except UnicodeDecodeError as error:
            line, byte = _line_of(content, error, encoding)
    raise ValueError(f"{file}, line {line}: the byte 0x{byte:02x} is neither UTF-8 nor GB18030; save it as UTF-8.")


def text_lines(
    file: Path, encoding: str | None = None, errors: str = "strict", *, has_option: bool = False
) -> Iterator[str]:
    r"""Yield the lines of a text file with their ends, unpacked if the file is gzip.

    A line ends with `\n` or `\r\n`; with `\r` only in a file that has no `\n`. Other characters that Unicode takes
    for line ends belong to the text.

    Args:
        encoding (`str`, *optional*): by default UTF-16 or UTF-32 if the file has their mark, else UTF-8.
        has_option (`bool`, defaults to `False`): whether the user can name the encoding, for messages.

    Raises:
        ValueError: the file is no text, or has another encoding; then the message names the line of the first bad byte
            and guesses the encoding.
    """
    with _open(file) as raw:
        head = raw.read(_HEAD)
    other = next((kind for mark, kind in _SIGNATURES.items() if head[:32].lower().startswith(mark)), None)
    if other is not None:
        raise ValueError(f"{file} is {other}.")
    newline = "\r" if b"\r" in head and b"\n" not in head else "\n"
    if encoding is None:
        encoding = _marked_encoding(head) or "utf-8"
        guess = _utf16_without_mark(head) if encoding == "utf-8" else None
        if guess:
            fault = "null bytes, as in UTF-16 without a byte order mark"
            raise ValueError(f"{file}, line 1: {fault}; {_advice(guess, has_option)}")
    else:
        _check_encoding(encoding)
    try:
        with _open(file) as raw, io.TextIOWrapper(raw, encoding, errors=errors, newline=newline) as lines:
            for number, line in enumerate(lines):
                yield line if number else line.removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise ValueError(_wrong_encoding(file, encoding, has_option)) from None


@contextlib.contextmanager
def _open(file: Path) -> Iterator[io.BufferedIOBase]:
    try:
        with gzip.open(file) if file.suffix.lower() == ".gz" else open(file, "rb") as raw:
            yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{file} is not a complete gzip file ({error}).") from None


def _marked_encoding(raw: bytes) -> str | None:
    return next((encoding for mark, encoding in _BYTE_ORDER_MARKS.items() if raw.startswith(mark)), None)


def _utf16_without_mark(raw: bytes) -> str | None:
    """Return the UTF-16 encoding of a text of which every second byte is mostly null, else None."""
    for encoding, high, low in (("utf-16-le", raw[1::2], raw[::2]), ("utf-16-be", raw[::2], raw[1::2])):
        if high.count(0) > 0.4 * len(high) and low.count(0) < 0.05 * len(low):
            return encoding
    return None


def _check_encoding(encoding: str) -> None:
    try:
        known = codecs.lookup(encoding)._is_text_encoding
    except (LookupError, TypeError, ValueError):  # ValueError: a null byte
        known = False
    if not known:
        raise ValueError(
            f"encoding={encoding!r} is no text encoding of Python; write e.g. {option('encoding', 'cp1252')}."
        )


def _wrong_encoding(file: Path, encoding: str, has_option: bool) -> str:
    with _open(file) as raw:
        content = raw.read()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        line, byte = _line_of(content, error, encoding)
    else:  # a file that changes while it is read
        return f"{file} is not {encoding.upper()}."
    name = encoding.upper().removesuffix("-SIG")
    return (
        f"{file}, line {line}: the byte 0x{byte:02x} is not {name}; {_advice(_guess(content, encoding), has_option)}"
    )


def _line_of(content: bytes, error: UnicodeDecodeError, encoding: str) -> tuple[int, int]:
    """Return the number of the line and the value of the first bad byte."""
    before = content[: error.start].decode(encoding, errors="replace")
    return (before.count("\n") or before.count("\r")) + 1, content[error.start]


def _advice(guess: str | None, has_option: bool) -> str:
    if has_option:
        return f"name its encoding with {option('encoding', guess or ...)}, or save it as UTF-8."
    return f"it may be {guess}; save it as UTF-8." if guess else "save it as UTF-8."


def _guess(content: bytes, tried: str) -> str | None:
    """Return an encoding that fits; GB18030 only if it gives mostly Chinese characters."""
    for encoding in ("utf-8", "gb18030", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        foreign = re.findall(r"[^\x00-\x7f]", text)
        chinese = sum("\u3000" <= char <= "\u9fff" or "\uff00" <= char <= "\uffef" for char in foreign)
        if encoding != tried and (encoding != "gb18030" or 2 * chinese > len(foreign)):
            return encoding
    return None
