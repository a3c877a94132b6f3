"""Text files in UTF-8, UTF-16 or the Chinese code pages."""

import codecs

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode_text(raw: bytes) -> tuple[str, str]:
    """Decode bytes as UTF-8 if they are valid, else as GB18030.

    Returns the text and the encoding. A quarter of MVSA's files are GB18030 (curly quotes, ellipses). Bytes that are
    valid in neither become U+FFFD (`"damaged"`). UTF-16 is recognized by its byte order mark.
    """
    encodings = ("utf-16",) if raw.startswith(_UTF16_MARKS) else ("utf-8-sig", "gb18030")
    for encoding in encodings:
        try:
            return raw.decode(encoding).strip(), encoding
        except UnicodeDecodeError:
            continue
    return raw.decode("gb18030", errors="replace").strip(), "damaged"


def encoding_notes(encoding: str) -> tuple[str, ...]:
    """Return the notes for the build report on an encoding of `decode_text`."""
    if encoding == "damaged":
        return ("text with bytes of no encoding, replaced by U+FFFD",)
    return () if encoding == "utf-8-sig" else (f"text read as {encoding.upper()}",)
