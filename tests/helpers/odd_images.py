"""Image files with malformed metadata, and files that are no image."""

import io
import struct

from PIL import Image

TURN = (0x0112, 3, 1, struct.pack("<HH", 6, 0))  # the orientation tag: stored on its side
MALFORMED = (0x011A, 1, 1, b"H\0\0\0")  # a resolution that is no fraction
HEIC = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(40)


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Write tags, each `(tag, type, count, four bytes of the value)`, as a block of EXIF."""
    body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_malformed_exif(size: tuple[int, int] = (30, 20)) -> bytes:
    """Return a JPEG on its side that `datasets` does not decode."""
    return encoded(Image.new("RGB", size, "red"), "JPEG", exif=exif(TURN, MALFORMED))
