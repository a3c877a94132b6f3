"""Images to pixels with numpy and PIL, equal to those of transformers' image processors."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset_scripts.reading.images import open_image, to_rgb, to_uint8


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _bicubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, (((x - 5) * x + 8) * x - 4) * -0.5, 0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


# Filter of a resampling: its function, and the distance in pixels beyond which it is zero.
FILTERS: dict[int, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    Image.Resampling.BILINEAR: (_bilinear, 1),
    Image.Resampling.BICUBIC: (_bicubic, 2),
    Image.Resampling.LANCZOS: (_lanczos, 3),
}
# Weights of a filter are whole numbers of 16 bits, as in torch, so that each rounding is the same.
_LARGEST_WEIGHT, _MAX_PRECISION = 2**15, 22


class PixelSteps:
    """Steps of an image processor: resize, crop of the centre, rescaling, normalization.

    Args:
        settings (mapping): saved fields of the image processor.

    Raises:
        ValueError: For a size or a filter that these steps do not have.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.size = _filled(settings, "do_resize", "size")
        self.crop = _filled(settings, "do_center_crop", "crop_size")
        resample = settings.get("resample")
        self.resample = int(Image.Resampling.BILINEAR if resample is None else resample)
        if self.size and (set(self.size) not in ({"height", "width"}, {"shortest_edge"})):
            raise ValueError(f"images are resized to {self.size}, not to height and width or to a shortest edge")
        if self.size and self.resample not in FILTERS:
            raise ValueError(f"images are resized with the filter {self.resample}, not one of {sorted(FILTERS)}")
        scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale") else 1.0
        normalized = settings.get("do_normalize")
        mean, std = (settings["image_mean"], settings["image_std"]) if normalized else (0.0, 1.0)
        # As transformers: pixels are normalized in one step, in single precision.
        self.mean, self.std = (np.asarray(value, np.float32) * np.float32(1 / scale) for value in (mean, std))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the pixels `(3, height, width)` of an image `(height, width, 3)` of uint8."""
        if self.size:
            image = resized(image, *self._target(*image.shape[:2]), self.resample)
        if self.crop:
            height, width = self.crop["height"], self.crop["width"]
            top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
            if top < 0 or left < 0:
                raise ValueError(f"an image of {image.shape[:2]} is smaller than the crop {(height, width)}")
            image = image[top : top + height, left : left + width]
        return ((image.astype(np.float32) - self.mean) / self.std).transpose(2, 0, 1)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        edge = self.size.get("shortest_edge")
        if edge is None:
            return self.size["height"], self.size["width"]
        return (edge, int(edge * width / height)) if height <= width else (int(edge * height / width), edge)


def _filled(settings: Mapping[str, Any], step: str, name: str) -> dict[str, int] | None:
    """Return the sizes that a step of an image processor has, `None` without the step."""
    if not settings.get(step):
        return None
    return {key: value for key, value in (settings.get(name) or {}).items() if value is not None}


def resized(image: np.ndarray, height: int, width: int, resample: int) -> np.ndarray:
    """Resize an image `(height, width, 3)` of uint8 as torchvision does.

    PIL rounds in another way: 0.2 to 1 % of its values differ, by 1 or 2.
    """
    columns_first = _resampled(np.ascontiguousarray(image.transpose(1, 0, 2)), width, resample)
    return _resampled(np.ascontiguousarray(columns_first.transpose(1, 0, 2)), height, resample)


def _resampled(pixels: np.ndarray, size: int, resample: int) -> np.ndarray:
    """Resample the first dimension."""
    length = len(pixels)
    if length == size:
        return pixels
    windows, precision = _windows(length, size, resample)
    flat, sums = pixels.reshape(length, -1), np.empty((size, pixels[0].size))
    for row, (first, last, weights) in zip(sums, windows, strict=True):
        np.matmul(weights, flat[first:last].astype(np.float64), out=row)  # whole numbers: the sum is exact
    rounded = np.floor((sums + 2 ** (precision - 1)) / 2**precision)
    return np.clip(rounded, 0, 255).astype(np.uint8).reshape(size, *pixels.shape[1:])


@functools.lru_cache(maxsize=64)
def _windows(length: int, size: int, resample: int) -> tuple[list[tuple[int, int, np.ndarray]], int]:
    """Return the window and weights of each output, and the bits of the weights."""
    function, radius = FILTERS[resample]
    scale = length / size
    stretch = max(scale, 1.0)  # of the filter, against aliasing
    windows = []
    for index in range(size):
        center = scale * (index + 0.5)
        first = max(int(center - radius * stretch + 0.5), 0)
        last = min(int(center + radius * stretch + 0.5), length)
        weights = function((np.arange(first, last) - center + 0.5) / stretch)
        windows.append((first, last, weights / weights.sum()))
    largest, precision = max(weights.max() for *_, weights in windows), 0
    while precision < _MAX_PRECISION and int(0.5 + largest * 2 ** (precision + 1)) < _LARGEST_WEIGHT:
        precision += 1
    return [
        (first, last, np.trunc(weights * 2**precision + np.copysign(0.5, weights))) for first, last, weights in windows
    ], precision


def rgb_pixels(image: Any, name: str) -> np.ndarray:
    """Decode an image to RGB `(height, width, 3)` of uint8; no URL is fetched.

    Args:
        image: PIL image, path, content of a file, `{"bytes", "path"}`, or an array `(height, width, 3)` or
            `(3, height, width)`.
        name (`str`): of the image, for messages.

    Raises:
        ValueError: For an image that cannot be read or decoded, or another type.
    """
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    try:
        if isinstance(image, np.ndarray):
            if image.ndim != 3 or 3 not in (image.shape[0], image.shape[-1]):
                raise ValueError(f"its shape is {image.shape}, not (height, width, 3) or (3, height, width)")
            return to_uint8(image.transpose(1, 2, 0) if image.shape[0] == 3 else image)
        if isinstance(image, bytes | str | Path):
            image = open_image(image)
        if not isinstance(image, Image.Image):
            raise ValueError(f"it is a {type(image).__name__}, not a PIL image, a path, bytes or an array")
        return np.asarray(to_rgb(image))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{name} cannot be decoded ({reason[:200]}). Replace it, or pass None.") from error
