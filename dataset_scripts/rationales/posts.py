"""A post made ready to be sent: text without live control tokens, and one JPEG that all of its requests share."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import io
import logging
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageOps

from dataset_scripts.rationales.errors import PreparationError

logger = logging.getLogger(__name__)

LANGUAGES = ("en", "zh")
# An edge of one token of the Qwen-VL family: an image is fed in squares of 28 pixels, so none may be narrower.
PATCH = 28
# Qwen-VL refuses more than 200:1. Half of that leaves room for the rounding of both sides to whole patches.
MAX_ASPECT_RATIO = 100
# Where Pillow begins to warn of a decompression bomb: 256 MiB decoded. No phone reaches it.
MAX_SOURCE_PIXELS = 89_478_485
JPEG_QUALITY = 90

_DECODING_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,
)
_BREAK = "\u200b"
# What any of the served model families reads as structure: <|im_end|>, <｜User｜>, <start_of_turn>, </s>, [INST], and
# the fences of our own prompts. A zero-width space after the first character leaves the text as it was to a reader.
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
    """What a model is told about a post. The label, the other columns and the image's path are not in it.

    Attributes:
        post_id: for messages and for the store; never sent.
        text: NFC, control tokens broken; `None` if there is none.
        image: the JPEG that is sent, the same bytes for all perspectives; `None` if there is none.
        image_sha256: of the original image file (of the pixels, if the row holds an image that is already decoded).
        text_sha256: of `text` in UTF-8.
        image_tokens: what the image costs a Qwen2.5-VL; an estimate for others. 0 without image.
        language: `"en"` or `"zh"`, what the rationale is written in.
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
        """The image as a `data:` URL, encoded once for all requests."""
        if self.image is None:
            return None
        return "data:image/jpeg;base64," + base64.b64encode(self.image).decode("ascii")


def prepare_post(row: Mapping[str, Any], max_pixels: int, language: str = "auto") -> PreparedPost:
    """Make a row of a dataset ready to be sent.

    Args:
        row: `id`, `text` (string or null) and `image`: null, a `PIL.Image`, bytes, a path, or what
            `datasets.Image(decode=False)` gives, `{"bytes", "path"}`. The last is the best: its hash is that of the
            file, and nothing is decoded twice. `language`, if there, decides for a post without letters.
        max_pixels: larger images are scaled down to it; at least 784, one patch.
        language: `"en"` or `"zh"` for all posts, or `"auto"`: by the script of the text.

    Raises:
        PreparationError: the image cannot be decoded or is too large to be decoded safely, or the post has neither
            text nor image. The message names the post.
        ValueError: `max_pixels` is below 784, or `language` is unknown.
    """
    if max_pixels < PATCH * PATCH:
        raise ValueError(
            f"max_pixels={max_pixels}; at least {PATCH * PATCH} ({PATCH} x {PATCH}, one patch) is needed."
        )
    if language not in (*LANGUAGES, "auto"):
        raise ValueError(f"language={language!r}; write one of 'en', 'zh', 'auto'.")
    post_id = str(row["id"])
    text = harmless(row.get("text") or "")
    image = digest = None
    tokens = 0
    if row.get("image") is not None:
        try:
            content, digest = _content(row["image"])
            opened = PIL.Image.open(io.BytesIO(content)) if isinstance(content, bytes) else content
            image, (width, height) = _jpeg(opened, max_pixels)
        except _DECODING_FAULTS as error:
            raise _unusable(row, error) from None
        tokens = max(round(width / PATCH), 2) * max(round(height / PATCH), 2)
    if not text and image is None:
        raise PreparationError(f"post {post_id!r} has neither text nor image; there is nothing to explain.")
    return PreparedPost(
        post_id=post_id,
        text=text or None,
        image=image,
        image_sha256=digest,
        text_sha256=_sha256(text),
        image_tokens=tokens,
        language=language_of(text, row.get("language")) if language == "auto" else language,
    )


def content_hashes(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """`image_sha256` and `text_sha256` of the prepared post, without decoding or encoding an image.

    Raises:
        PreparationError: the image file cannot be read.
    """
    text = harmless(row.get("text") or "")
    digest = None
    if row.get("image") is not None:
        try:
            _, digest = _content(row["image"])
        except _DECODING_FAULTS as error:
            raise _unusable(row, error) from None
    return digest, _sha256(text)


def harmless(text: str) -> str:
    """`text` in NFC, stripped, with nothing in it that a chat template or a tokenizer takes for structure.

    Control tokens and runs of three angle brackets, the fences of our prompts, are broken by a zero-width space: a
    reader sees no difference, a tokenizer no token. Unprintable characters go, lone surrogates become U+FFFD.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = _UNPRINTABLE.sub("", unicodedata.normalize("NFC", text)).strip()
    return _CONTROL.sub(lambda match: match.group() + _BREAK, text)


def language_of(text: str, column: Any = None) -> str:
    """`"en"` or `"zh"`, by the script of the text; of a text without letters, as `column` says.

    A Chinese word is about two characters, a word of an alphabet about five: so Han counts double here.
    """
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return "zh" if str(column or "").lower().startswith("zh") else "en"
    han = sum("\u3400" <= character <= "\u9fff" or "\U00020000" <= character <= "\U000323af" for character in letters)
    return "zh" if 2 * han >= len(letters) - han else "en"


def _content(image: Any) -> tuple[bytes | PIL.Image.Image, str]:
    """The file's bytes, or the decoded image that the row holds instead, and their SHA-256."""
    if isinstance(image, PIL.Image.Image):
        facts = f"{image.mode} {image.size}".encode()
        return image, hashlib.sha256(facts + image.tobytes()).hexdigest()
    if isinstance(image, Mapping):
        image = image["path"] if image.get("bytes") is None else image["bytes"]
    content = bytes(image) if isinstance(image, (bytes, bytearray, memoryview)) else Path(image).read_bytes()
    if not content:
        raise ValueError("the file is empty")
    return content, hashlib.sha256(content).hexdigest()


def _sha256(text: str) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest() if text else None


def _jpeg(image: PIL.Image.Image, max_pixels: int) -> tuple[bytes, tuple[int, int]]:
    """The first frame, upright, RGB on white, no narrower than a patch, at most `max_pixels`; without metadata."""
    width, height = image.size
    if width * height > MAX_SOURCE_PIXELS:
        raise ValueError(f"{width} x {height} pixels; at most {MAX_SOURCE_PIXELS:,} are decoded")
    scale = min(1.0, (max_pixels / (width * height)) ** 0.5)
    # A JPEG decoder halves while it decodes: a fraction of the time and memory for a photo of 12 megapixels.
    image.draft(None, (max(1, round(width * scale)), max(1, round(height * scale))))
    try:
        upright = PIL.ImageOps.exif_transpose(image)
    except Exception as error:  # a sound picture with broken metadata; Pillow's parser raises whatever it meets
        logger.debug("EXIF data ignored: %s", error)
        upright = image
    picture = _fit(_on_white(upright), max_pixels)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue(), picture.size


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    """Any mode as RGB. Pillow's own conversion clips 16-bit greys to white and lays transparency on black."""
    if image.mode.startswith("I;16") or image.mode == "I":
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    elif image.mode == "F":
        low, high = image.getextrema()
        scale = 255 / ((high - low) or 1)
        image = image.point(lambda value: value * scale - low * scale).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return image.convert("RGB")


def _fit(image: PIL.Image.Image, max_pixels: int) -> PIL.Image.Image:
    width, height = image.size
    # At the largest ratio an image of max_pixels is still one patch wide.
    ratio = min(MAX_ASPECT_RATIO, max_pixels / PATCH**2)
    padded = max(width, int(height / ratio) or 1), max(height, int(width / ratio) or 1)
    if padded != image.size:
        image = PIL.ImageOps.pad(image, padded, color="white") if min(padded) else image
        width, height = image.size
    grow = max(1.0, PATCH / min(width, height))
    scale = min(grow, (max_pixels / (width * height)) ** 0.5)
    if scale == 1.0:
        return image
    size = max(PATCH, int(width * scale)), max(PATCH, int(height * scale))
    return image.resize(size, PIL.Image.Resampling.BICUBIC)


def _unusable(row: Mapping[str, Any], error: BaseException) -> PreparationError:
    # Pillow's own message ends in the address of a buffer, which differs from run to run.
    unknown = isinstance(error, PIL.UnidentifiedImageError)
    reason = "not an image, or of a format that Pillow does not know" if unknown else " ".join(str(error).split())
    return PreparationError(f"post {str(row['id'])!r}: its image cannot be used ({reason or type(error).__name__}).")
