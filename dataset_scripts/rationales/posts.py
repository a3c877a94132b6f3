"""Preparation of a post for requests: text without control tokens, and one JPEG."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import io
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageOps

from dataset_scripts.rationales.errors import PreparationError
from dataset_scripts.rationales.quality.text import HAN_LETTER
from dataset_scripts.reading.images import decoding_error, open_image, stored_bytes, to_rgb

LANGUAGES = ("en", "zh")
# Qwen-VL encodes squares of 28 pixels as one token, and rejects narrower images.
PATCH = 28
# Qwen-VL rejects ratios above 200; half of it leaves room for rounding both sides to whole patches.
MAX_ASPECT_RATIO = 100
# Pillow warns of a decompression bomb above this size, which is 256 MiB decoded.
MAX_SOURCE_PIXELS = 89_478_485
JPEG_QUALITY = 90

_ZERO_WIDTH_SPACE = "\u200b"
# Control tokens of common model families (<|im_end|>, <｜User｜>, <start_of_turn>, </s>, [INST]) and the delimiters of
# our prompts. A zero-width space after the first character is invisible to a reader.
_CONTROL = re.compile(
    r"<(?=[|｜])"
    r"|(?<=[|｜])(?=>)"
    r"|<(?=/?[A-Za-z_][\w|｜ /-]{0,40}>)"
    r"|\[(?=/?[A-Z][A-Z_]{2,}\])"
    r"|<(?=<)(?:(?=<<)|(?<=<<))"
    r"|>(?=>)(?:(?=>>)|(?<=>>))"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclasses.dataclass(frozen=True)
class PreparedPost:
    """Post in the form in which it is sent, without its label, other columns and image path.

    Attributes:
        post_id: id for messages and for the store; never sent.
        text: text in NFC with escaped control tokens; `None` if there is none.
        image: JPEG, identical for all perspectives; `None` if there is none.
        image_sha256: hash of the original image file, or of the pixels if the row has a decoded image.
        text_sha256: hash of `text` in UTF-8.
        image_tokens: tokens of the image in Qwen2.5-VL, an estimate for other models; 0 without image.
        language: language of the rationale, `"en"` or `"zh"`.
    """

    post_id: str
    text: str | None
    image: bytes | None
    image_sha256: str | None
    text_sha256: str | None
    image_tokens: int
    language: str

    @functools.cached_property
    def image_url(self) -> str | None:
        """Image as a `data:` URL, cached for all requests."""
        if self.image is None:
            return None
        return "data:image/jpeg;base64," + base64.b64encode(self.image).decode("ascii")


def prepare_post(row: Mapping[str, Any], max_pixels: int, language: str = "auto") -> PreparedPost:
    """Prepare a row of a dataset for requests.

    Args:
        row: `id`, `text` (string or null) and `image`: null, a `PIL.Image`, bytes, a path, or `{"bytes", "path"}`
            from `datasets.Image(decode=False)`. The last form is the fastest. The optional `language` is used for
            posts without letters.
        max_pixels: larger images are scaled down to this size; at least 784, one patch.
        language: `"en"` or `"zh"` for all posts, or `"auto"`: by the script of the text.

    Raises:
        PreparationError: the image cannot be decoded or is too large, or the post has neither text nor image. The
            message names the post.
        ValueError: `max_pixels` is below 784, or `language` is unknown.
    """
    if max_pixels < PATCH * PATCH:
        raise ValueError(f"`max_pixels` must be at least {PATCH * PATCH} ({PATCH} x {PATCH}), got {max_pixels}.")
    if language not in (*LANGUAGES, "auto"):
        raise ValueError(f"`language` must be one of {', '.join(LANGUAGES)}, auto, got {language!r}.")
    post_id = str(row["id"])
    text = clean_text(row.get("text") or "")
    image = digest = None
    tokens = 0
    if row.get("image") is not None:
        try:
            content, digest = _content_and_hash(row["image"])
            opened = open_image(content) if isinstance(content, bytes) else content
            image, (width, height) = _encode_jpeg(opened, max_pixels)
        except (OSError, ValueError) as error:
            raise _preparation_error(row, error) from None
        tokens = max(round(width / PATCH), 2) * max(round(height / PATCH), 2)
    if not text and image is None:
        raise PreparationError(f"post {post_id!r} has neither text nor image.")
    return PreparedPost(
        post_id=post_id,
        text=text or None,
        image=image,
        image_sha256=digest,
        text_sha256=_text_hash(text),
        image_tokens=tokens,
        language=detect_language(text, row.get("language")) if language == "auto" else language,
    )


def content_hashes(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return `image_sha256` and `text_sha256` of the prepared post without decoding its image.

    Raises:
        PreparationError: the image file cannot be read.
    """
    digest = None
    if row.get("image") is not None:
        try:
            _, digest = _content_and_hash(row["image"])
        except (OSError, ValueError) as error:
            raise _preparation_error(row, error) from None
    return digest, _text_hash(clean_text(row.get("text") or ""))


def clean_text(text: str) -> str:
    """Normalize to NFC, strip, and escape control tokens.

    A zero-width space breaks control tokens and runs of three angle brackets, the delimiters of our prompts.
    Unprintable characters are removed, lone surrogates become U+FFFD.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = _UNPRINTABLE.sub("", unicodedata.normalize("NFC", text)).strip()
    return _CONTROL.sub(lambda match: match.group() + _ZERO_WIDTH_SPACE, text)


def detect_language(text: str, column: Any = None) -> str:
    """Return `"en"` or `"zh"` by the script of the text.

    Without letters in the text, the tag in `column` decides.

    Han characters count twice: a Chinese word has about two characters, a word of an alphabet about five.
    """
    letters = sum(map(str.isalpha, text))
    if not letters:
        return "zh" if str(column or "").lower().startswith("zh") else "en"
    han = len(HAN_LETTER.findall(text))
    return "zh" if 2 * han >= letters - han else "en"


def _content_and_hash(image: Any) -> tuple[bytes | PIL.Image.Image, str]:
    """Return the file content, or the decoded image of the row, with its SHA-256."""
    if isinstance(image, PIL.Image.Image):
        header = f"{image.mode} {image.size}".encode()
        try:
            return image, hashlib.sha256(header + image.tobytes()).hexdigest()
        except Exception as error:  # Pillow's decoders raise errors of any type for damaged files
            raise decoding_error(error) from None
    if isinstance(image, Mapping):
        content = stored_bytes(image)
    else:
        content = bytes(image) if isinstance(image, bytes | bytearray | memoryview) else Path(image).read_bytes()
    if not content:
        raise ValueError("the file is empty")
    return content, hashlib.sha256(content).hexdigest()


def _text_hash(text: str) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest() if text else None


def _encode_jpeg(image: PIL.Image.Image, max_pixels: int) -> tuple[bytes, tuple[int, int]]:
    """Encode the first frame in RGB, without metadata, within the limits of size and ratio."""
    width, height = image.size
    if width * height > MAX_SOURCE_PIXELS:
        raise ValueError(f"{width} x {height} pixels exceed the limit of {MAX_SOURCE_PIXELS:,}")
    scale = min(1.0, (max_pixels / (width * height)) ** 0.5)
    # The JPEG decoder can reduce the size while decoding, which saves time and memory for large photos.
    image.draft(None, (max(1, round(width * scale)), max(1, round(height * scale))))
    resized = _fit(to_rgb(image), max_pixels)
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), resized.size


def _fit(image: PIL.Image.Image, max_pixels: int) -> PIL.Image.Image:
    """Scale to at least one patch and at most `max_pixels`; pad extreme ratios with white."""
    width, height = image.size
    # At this ratio, an image of `max_pixels` is one patch wide.
    ratio = min(MAX_ASPECT_RATIO, max_pixels / PATCH**2)
    padded = max(width, int(height / ratio)), max(height, int(width / ratio))
    if padded != image.size:
        image = PIL.ImageOps.pad(image, padded, color="white")
        width, height = padded
    grow = max(1.0, PATCH / min(width, height))
    scale = min(grow, (max_pixels / (width * height)) ** 0.5)
    if scale == 1.0:
        return image
    size = max(PATCH, int(width * scale)), max(PATCH, int(height * scale))
    return image.resize(size, PIL.Image.Resampling.BICUBIC)


def _preparation_error(row: Mapping[str, Any], error: BaseException) -> PreparationError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return PreparationError(f"post {str(row['id'])!r}: the image cannot be used ({reason}).")
