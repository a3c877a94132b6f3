"""Text files as downloads have them: UTF-8 where they are valid UTF-8, else the Chinese code pages."""

import codecs

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode_text(raw: bytes) -> tuple[str, str]:
    """The text and the encoding it was read with.

    A quarter of MVSA's files are GB18030 (curly quotes, ellipses), the rest UTF-8. Bytes valid in neither become
    U+FFFD (`"damaged"`). A `??` is an emoji that was lost before publication; it stays as it is. UTF-16, which no
    bytes of the two others start like, is what Windows writes as "Unicode".
    """
    encodings = ("utf-16",) if raw.startswith(_UTF16_MARKS) else ("utf-8-sig", "gb18030")
    for encoding in encodings:
        try:
            return raw.decode(encoding).strip(), encoding
        except UnicodeDecodeError:
            continue
    return raw.decode("gb18030", errors="replace").strip(), "damaged"


def encoding_notes(encoding: str) -> tuple[str, ...]:
    """Remarks for the build report on the encoding that `decode_text` found."""
    if encoding == "damaged":
        return ("text with bytes of no encoding, replaced by U+FFFD",)
    return () if encoding == "utf-8-sig" else (f"text read as {encoding.upper()}",)
