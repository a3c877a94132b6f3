"""Images of posts: stored bytes, decoding errors, and conversion to RGB."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageOps

logger = logging.getLogger(__name__)

# Everything that Pillow raises for a damaged, truncated or oversized image.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError)


def stored_bytes(image: Mapping[str, Any]) -> bytes:
    """Return the file content of an undecoded image, `{"bytes": …, "path": …}`.

    Raises:
        OSError: the image is stored by its path, and the file cannot be read.
    """
    return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


def image_digest(image: Mapping[str, Any], post_id: str) -> bytes:
    """Hash the file content of an undecoded image with SHA-256.

    Raises:
        ValueError: the image file cannot be read; the message names the post.
    """
    try:
        return hashlib.sha256(stored_bytes(image)).digest()
    except OSError as error:
        raise ValueError(
            f"post {post_id!r}: its image {image['path']} cannot be read ({error}); load the posts again."
        ) from None


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Convert the first frame to RGB: upright by its EXIF orientation, transparency on white.

    Values of 16 bits are scaled by 1/257 to 8 bits. The pixels equal those of `processing_mpt.images_mpt.to_rgb`.
    Broken EXIF data are ignored.

    Raises:
        one of `DECODING_ERRORS`: the image cannot be decoded.
    """
    image.load()
    try:
        image = PIL.ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow's parser raises errors of any type for broken metadata
        logger.debug("EXIF data ignored: %s", error)
    if image.mode.startswith("I") and (image.mode != "I" or image.getextrema()[1] > 255):
        # Pillow opens some 16-bit images as mode "I"; its own conversion clips all values above 255.
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.has_transparency_data:
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")
