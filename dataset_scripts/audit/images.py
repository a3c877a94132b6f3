"""Fingerprints of images: blank and unreadable ones, and pairs of the same picture."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageStat
from scipy.fft import dctn

from dataset_scripts.reading.images import read_rgb, stored_bytes

# Near-duplicates: hashes differ in at most MAX_DISTANCE of 63 bits, thumbnails correlate by at least MIN_CORRELATION.
# Measured on 1,580 images of MVSA-Single (1.2 million pairs): 22 pairs show the same picture and correlate by at least
# 0.9997; the other 267 pairs within that distance correlate by at most 0.83.
# Recall on 300 copies each: 100 % of halved, squared and brightened copies and of JPEG quality 20; 99 % at a quarter
# of the size or with 5 % of width and height cropped on all sides; 97 % with 5 % cropped at one corner; 91 % with 10 %
# cropped on all sides; 81 % of the latter in grey. Few with 10 % cropped at one corner; no mirrored copy.
MAX_DISTANCE = 16
MIN_CORRELATION = 0.9
# Blank: the largest standard deviation of a channel (0 to 255) is lower. JPEG noise on one color stays below 1; the
# most uniform photograph among the 1,580 has 4.8.
BLANK_DEVIATION = 2.0

_THUMBNAIL_SIDE = 32
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_DRAFT_SIDE = 128  # JPEG images decode several times faster at a reduced size
_BATCH_ROWS = 1024


@dataclasses.dataclass
class Fingerprint:
    """Digest, fault and thumbnail of one image, 3 KiB."""

    digest: bytes | None  # SHA-256 of the stored file; None without image
    fault: str | None = None  # "absent", "broken" (missing file, truncated, or no image) or "blank"
    reason: str | None = None  # error of the decoder, for a broken image
    # (3, 32, 32) uint8; None for an image with a fault: blank images would match each other.
    thumbnail: np.ndarray | None = None


def fingerprint(image: dict[str, Any] | None) -> Fingerprint:
    """Compute the fingerprint of one undecoded image, `{"bytes": …, "path": …}` or None."""
    if image is None:
        return Fingerprint(None, fault="absent")
    try:
        content = stored_bytes(image)
    except OSError as error:
        return Fingerprint(None, fault="broken", reason=f"{type(error).__name__}: {error.strerror}")
    digest = hashlib.sha256(content).digest()
    try:
        picture = read_rgb({"bytes": content, "path": None}, _DRAFT_SIDE)
    except ValueError as error:
        return Fingerprint(digest, fault="broken", reason=str(error))
    if max(PIL.ImageStat.Stat(picture).stddev) < BLANK_DEVIATION:
        return Fingerprint(digest, fault="blank")
    thumbnail = picture.resize((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), PIL.Image.Resampling.LANCZOS)
    return Fingerprint(digest, thumbnail=np.asarray(thumbnail).transpose(2, 0, 1).copy())


def perceptual_hash(thumbnails: np.ndarray) -> np.ndarray:
    """Compute pHash, (N, 63): signs of the lowest grey frequencies relative to the median."""
    grey = np.einsum("nchw,c->nhw", thumbnails.astype(np.float32), _LUMA)
    frequencies = dctn(grey, axes=(1, 2), norm="ortho")[:, :8, :8]
    frequencies = frequencies.reshape(len(thumbnails), -1)[:, 1:]
    return frequencies > np.median(frequencies, axis=1, keepdims=True)


def near_duplicates(thumbnails: np.ndarray) -> list[tuple[int, int, float]]:
    """Find all pairs of thumbnails that show the same picture.

    All hash distances are computed exactly, as blocks of a matrix product: memory is linear in N. 20,000 photographs
    take about half a minute on one core, most of it for the correlations.

    Args:
        thumbnails: (N, 3, 32, 32) uint8.

    Returns:
        Tuples of first row, second row (first < second) and correlation.
    """
    if len(thumbnails) < 2:
        return []
    starts = range(0, len(thumbnails), _BATCH_ROWS)
    hashes = np.concatenate([perceptual_hash(thumbnails[start : start + _BATCH_ROWS]) for start in starts])
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    min_agreement = signs.shape[1] - 2 * MAX_DISTANCE
    pairs = []
    for start in starts:
        first, second = np.nonzero(signs[start : start + _BATCH_ROWS] @ signs[start:].T >= min_agreement)
        candidates = np.stack([first, second])[:, second > first] + start
        for batch in range(0, candidates.shape[1], _BATCH_ROWS):
            first, second = candidates[:, batch : batch + _BATCH_ROWS]
            values = correlation(thumbnails[first], thumbnails[second])
            near = values >= MIN_CORRELATION
            pairs += zip(first[near].tolist(), second[near].tolist(), values[near].tolist(), strict=True)
    return pairs


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlate pairs of thumbnails: the maximum over whole images and cropped windows.

    Each channel is centered separately, so that brightness does not matter and color does. Either image may be the
    cropped one: it is compared with windows of 95 % and 90 % of the other's width and height, at all corners, edges
    and the center.
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    maximum = np.full(len(first), -1, dtype=np.float32)
    for whole, cropped in ((first, _normalize(second)), (second, _normalize(first))):
        for columns, windows in _WINDOWS:
            strip = whole @ columns.T
            for rows in windows:
                maximum = np.maximum(maximum, (_normalize(rows @ strip) * cropped).sum(axis=(1, 2, 3)))
    return maximum


def _normalize(pictures: np.ndarray) -> np.ndarray:
    """Center each channel and scale each picture to unit norm."""
    centered = pictures - pictures.mean(axis=(2, 3), keepdims=True)
    return centered / np.maximum(np.sqrt((centered**2).sum(axis=(1, 2, 3), keepdims=True)), 1e-6)


def _window(share: float, position: float) -> np.ndarray:
    """Build the matrix that stretches a `share` of a line at `position` (0 to 1) to all of it."""
    source = (1 - share) * _THUMBNAIL_SIDE * position + (np.arange(_THUMBNAIL_SIDE) + 0.5) * share - 0.5
    source = np.clip(source, 0, _THUMBNAIL_SIDE - 1)
    low = np.floor(source).astype(int)
    matrix = np.zeros((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), dtype=np.float32)
    matrix[np.arange(_THUMBNAIL_SIDE), low] += 1 - (source - low)
    matrix[np.arange(_THUMBNAIL_SIDE), np.minimum(low + 1, _THUMBNAIL_SIDE - 1)] += source - low
    return matrix


_POSITIONS = (0.0, 0.5, 1.0)
# Column matrix of a window, and the row matrices combined with it.
_WINDOWS = [(_window(1, 0), [_window(1, 0)])] + [
    (_window(share, left), [_window(share, top) for top in _POSITIONS]) for share in (0.95, 0.9) for left in _POSITIONS
]
