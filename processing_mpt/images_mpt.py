"""Image processors of encoders, and conversion of images of any mode to RGB."""

import io
import logging
import re
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, PreTrainedConfig, ViTImageProcessor

try:  # opens HEIC images
    import pillow_heif
except ImportError:
    pillow_heif = None
else:
    pillow_heif.register_heif_opener()

logger = logging.getLogger(__name__)

# Tables and functions from `kind_of_file` to `to_rgb` are those of dataset_scripts/reading/images.py: a test holds
# both equal. Neither package imports the other, and the processor's file travels to the Hub without them.
_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# First bytes, in lower case, of files that are often taken for images.
_SIGNATURES = {
    b"version https://git-lfs": "a Git LFS pointer; fetch the file with `git lfs pull`",
    b"<!doctype html": "an HTML page, as a failed download leaves it",
    b"<html": "an HTML page, as a failed download leaves it",
    b"<svg": "an SVG drawing; convert it to PNG",
    b"<?xml": "an XML file, such as an SVG drawing or the error of a server",
    b"{": "a JSON file, such as the error of a server",
    b"%pdf": "a PDF document; convert it to PNG or JPEG",
    b"pk\x03\x04": "a ZIP archive or an office document",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"\x1a\x45\xdf\xa3": "a video (WebM or Matroska)",
    b"\x00\x05\x16\x07": "a file of macOS (`._NAME`) that holds no image; delete it",
    b"\xff\x0a": "a JPEG XL image; convert it to JPEG",
    b"\x00\x00\x00\x0cjxl ": "a JPEG XL image; convert it to JPEG",
    b"\xff\xd8\xff": "a damaged JPEG file",
    b"\x89png": "a damaged PNG file",
    b"gif8": "a damaged GIF file",
    b"ii*\x00": "a damaged TIFF file, or a raw photograph",
    b"mm\x00*": "a damaged TIFF file, or a raw photograph",
}
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif")

# Side of the images for a detector, whose own image processor keeps the aspect ratio.
DETECTOR_SIDE = 512
_URL = re.compile(r"(https?|file|data):", re.IGNORECASE)
_TIMEOUT = 30  # seconds, for an image given by its URL


def image_processor_for(vision: str | PreTrainedConfig | None, cnn: str | PreTrainedConfig | None) -> Any:
    """Return the image processor of a vision encoder or, without one, of a CNN.

    Args:
        vision (`str` or [`PreTrainedConfig`], *optional*): Hub id or folder with an image processor; of a
            configuration, the size that it reads.
        cnn (`str` or [`PreTrainedConfig`], *optional*): read without `vision`: a timm model, whose `pretrained_cfg`
            holds size and statistics.
    """
    if isinstance(vision, str):
        image_processor = AutoImageProcessor.from_pretrained(vision)
        if "longest_edge" in (image_processor.size or {}):
            # One size for all images: those padded to the largest of a batch would depend on their batch.
            size = {"height": DETECTOR_SIDE, "width": DETECTOR_SIDE}
            image_processor = AutoImageProcessor.from_pretrained(vision, size=size, do_pad=False)
        return image_processor
    if vision is not None:
        side = getattr(getattr(vision, "vision_config", vision), "image_size", None) or 224
        height, width = side if isinstance(side, list | tuple) else (side, side)
        return ViTImageProcessor(size={"height": height, "width": width})
    if cnn is None:
        return ViTImageProcessor()
    config = AutoConfig.from_pretrained(cnn) if isinstance(cnn, str) else cnn
    trained = getattr(config, "pretrained_cfg", None) or {}
    _, height, width = trained.get("input_size") or (3, 224, 224)
    statistics = {f"image_{name}": list(trained[name]) for name in ("mean", "std") if trained.get(name)}
    return ViTImageProcessor(size={"height": height, "width": width}, **statistics)


def kind_of_file(start: bytes) -> str:
    """Name the kind of a file that Pillow does not open, by its first 64 bytes or more."""
    if not start.strip(b"\0"):
        return "a file of zero bytes, as an interrupted download leaves it" if start else "an empty file"
    if start[4:8] == b"ftyp":  # the container of ISO: its brands say what it holds
        brands = [start[position : position + 4] for position in range(8, 64, 4)]
        if b"avif" in brands or b"avis" in brands:
            return "an AVIF image, which this Pillow does not open; convert it to JPEG or upgrade Pillow"
        if any(brand in _HEIC_BRANDS for brand in brands):
            if pillow_heif is not None:
                return "a damaged HEIC image"
            return "a HEIC image, which is not supported; convert it to JPEG or `pip install pillow-heif`"
        return "a video (MP4 or MOV)"
    if start.startswith(b"RIFF"):
        return {b"WEBP": "a damaged WebP file", b"AVI ": "a video (AVI)", b"WAVE": "a sound (WAV)"}.get(
            start[8:12], "a RIFF file without an image"
        )
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for signature, kind in _SIGNATURES.items():
        if start.lower().startswith(signature) or text.startswith(signature):
            return kind
    return "no image, or in a format that Pillow does not open"


def open_image(source: bytes | str | Path) -> Image.Image:
    """Open an image file by its content or path, without decoding its pixels.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no image; the message says "it is a …".
    """
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Image.UnidentifiedImageError:
        if isinstance(source, bytes):
            start = source[:256]
        else:
            with open(source, "rb") as file:
                start = file.read(256)
        raise ValueError(f"it is {kind_of_file(start)}") from None
    except Exception as error:  # Pillow's parsers raise errors of any type for damaged files
        raise decoding_error(error) from None


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as the orientation in its EXIF or XMP says. Other metadata are not read."""
    try:
        method = _TRANSPOSITIONS.get(image.getexif().get(_ORIENTATION_TAG))
    except Exception as error:  # Pillow's parser raises errors of any type for malformed metadata
        logger.debug("Metadata of an image ignored: %s", error)
        return image
    return image if method is None else image.transpose(method)


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Scale the values of an image of any shape to whole numbers from 0 to 255.

    Floats from 0 to 1 are multiplied by 255, numbers of 16 bits divided by 257.

    Raises:
        ValueError: For NaN, or a range whose scale is not certain.
    """
    if values.size == 0:
        raise ValueError("it has no pixels")
    if values.dtype.kind not in "buif":
        raise ValueError(f"its values are of type {values.dtype}, not numbers")
    if values.dtype == np.uint8:
        return values
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("it holds NaN or infinite values")
        # Rounding leaves the range by little. A maximum between 1 and 2 belongs to neither range.
        scale = 255 if low >= -1e-3 and high <= 1 + 1e-3 else 1 if low >= 0 and 2 <= high < 255.5 else None
    elif values.dtype == bool:
        scale = 255
    elif low < 0 or high > 65535 or (values.dtype == np.uint16 and 0 < high <= 255):
        scale = None
    else:
        scale = 1 / 257 if high > 255 else 1
    if scale is None:
        raise ValueError(
            f"its values ({values.dtype}) go from {low:.6g} to {high:.6g}; give whole numbers from 0 to 255 (uint8), "
            "floats from 0 to 1, or 16 bits in full"
        )
    return np.rint(np.clip(values.astype(np.float32) * scale, 0, 255)).astype(np.uint8)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert the first frame to RGB: upright as its metadata say, transparency on white.

    Numbers of 16 bits and floats are scaled to 8 bits as in `to_uint8`. Malformed metadata are ignored. The result has
    no metadata: converted again, it is not turned again.

    Raises:
        OSError: The file cannot be read.
        ValueError: The image cannot be decoded, or its values have no certain range.
    """
    try:
        image.load()
        image = upright(image)
        if image.mode.startswith(("I", "F")):
            values, transparent = np.asarray(image), image.info.get("transparency")
            # A file of 16 bits says so in its mode, also where all its pixels are dark.
            pixels = np.rint(values / 257).astype(np.uint8) if image.mode.startswith("I;16") else to_uint8(values)
            if isinstance(transparent, int):
                pixels = np.where(values == transparent, np.uint8(255), pixels)
            image = Image.fromarray(pixels)
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        if 0 in image.size:
            raise ValueError("it has no pixels")
        rgb = image.convert("RGB")
        rgb.info = {}
        return rgb
    except Exception as error:  # Pillow's decoders raise errors of any type for damaged files
        raise decoding_error(error) from None


def decoding_error(error: Exception) -> Exception:
    """Return an error of the file system as it is, any other as a ValueError with one line."""
    if isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno is not None):
        return error
    return ValueError(f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": "))


def checked_image(image: Any, name: str) -> Image.Image | np.ndarray:
    """Return an image in RGB, or its array as uint8, for an image processor.

    Args:
        image: PIL image; array or tensor `(height, width, 3)` or `(3, height, width)`, see `to_uint8`; path, URL or
            content of an image file; or `{"bytes", "path"}`, as `datasets` stores an image.
        name (`str`): of the image, for messages.

    Raises:
        ValueError: For an image that cannot be read or decoded, another type, or an array of another shape.
    """
    if isinstance(image, np.ndarray | torch.Tensor):
        if image.ndim != 3 or 3 not in (image.shape[0], image.shape[-1]):
            raise ValueError(
                f"{name} must have the shape (height, width, 3) or (3, height, width), got {tuple(image.shape)}. "
                "PIL.Image.fromarray converts other arrays."
            )
        if isinstance(image, torch.Tensor):
            image = (image.float() if image.is_floating_point() else image).numpy(force=True)
        try:
            return to_uint8(image)
        except ValueError as error:
            raise ValueError(f"{name} cannot be used: {error}.") from None
    path = getattr(image, "filename", "") or (image if isinstance(image, str | Path) else "")
    shown = f" ({str(path)[:100]})" if path and not str(path).startswith("data:") else ""
    try:
        return to_rgb(_opened(image))
    except TypeError:
        raise ValueError(
            f"{name} must be a PIL image, a path (`str` or `Path`), an array, a tensor or None, got a "
            f"{type(image).__name__}: {str(image)[:80]!r}."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{name}{shown} cannot be decoded ({reason}). Replace it, or pass None.") from error


def bands(image: Image.Image | np.ndarray) -> Image.Image | np.ndarray:
    """Convert an image in RGB to an array `(3, height, width)`.

    An image processor takes more time for it. An array is left as it is, and an image so narrow that its width could
    be the number of channels.
    """
    if isinstance(image, np.ndarray) or image.width <= 4:
        return image
    return np.stack([np.asarray(band) for band in image.split()])


def _opened(image: Any) -> Image.Image:
    """Open an image given by path, URL, content, or as `datasets` stores it."""
    if isinstance(image, Mapping) and (image.get("bytes") or image.get("path")):
        image = image.get("bytes") or image["path"]
    if isinstance(image, str) and _URL.match(image):
        with urllib.request.urlopen(image, timeout=_TIMEOUT) as response:
            image = response.read()
    if isinstance(image, bytes | str | Path):
        return open_image(image)
    if not isinstance(image, Image.Image):
        raise TypeError
    return image
