"""Which images show the same picture, and which show nothing: hashes, blank and broken ones."""

import concurrent.futures
import dataclasses
import hashlib
import io
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.ImageStat
from scipy.fft import dctn

# A pair is looked at from a hash distance of MAX_DISTANCE (of 63 bits) down, and counts once the pictures, laid over
# one another, correlate by MIN_ALIKE. Measured on 1,580 images of MVSA-Single, 1.2 million pairs: 22 are the same
# picture and correlate by 0.9997 or more; of the 267 others as near by hash, the most alike correlates by 0.83. Of
# 300 copies each, all are found that were halved, squared, brightened or saved at JPEG quality 20, 99 % of those at a
# quarter of the size or with 5 % of width and height cut off around, 97 % with 5 % off at one corner, 91 % with 10 %
# off around, 81 % of those made grey; few with 10 % off at one corner, and none that was mirrored.
MAX_DISTANCE = 16
MIN_ALIKE = 0.9
# Standard deviation of the most varied colour channel (0 to 255) below which an image counts as blank: noise of JPEG
# on one colour stays below 1; the plainest photograph of MVSA-Single has 4.8.
BLANK_DEVIATION = 2.0

_SIDE = 32
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_DRAFT = 128  # a JPEG need not be decoded larger than this, which is several times faster
_ROWS_AT_ONCE = 1024
DECODING_FAULTS = (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError)


@dataclasses.dataclass
class ImagePrint:
    """What remains of an image once it was looked at: three kilobytes.

    Attributes:
        digest: SHA-256 of the file as stored; None without image.
        fault: `"absent"`, `"broken"` (missing, truncated or no image) or `"blank"`, else None.
        reason: of a broken one, the decoder's words.
        thumbnail: (3, 32, 32) uint8; None with a fault. Blank ones have none either, as everything resembles them.
    """

    digest: bytes | None
    fault: str | None = None
    reason: str | None = None
    thumbnail: np.ndarray | None = None


def image_prints(images: Iterable[dict[str, Any] | None], num_proc: int) -> Iterator[ImagePrint]:
    """Looks at undecoded images (`Image(decode=False)`) in their order, `num_proc` threads at work.

    Pillow's decoders leave Python's lock. A few images at a time are in memory.
    """
    with concurrent.futures.ThreadPoolExecutor(num_proc, thread_name_prefix="audit") as pool:
        ahead: deque[concurrent.futures.Future[ImagePrint]] = deque()
        for image in images:
            ahead.append(pool.submit(image_print, image))
            if len(ahead) >= 4 * num_proc:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def image_print(image: dict[str, Any] | None) -> ImagePrint:
    """The print of one undecoded image: `{"bytes": …, "path": …}` or None."""
    if image is None:
        return ImagePrint(None, fault="absent")
    try:
        content = image_bytes(image)
    except OSError as error:
        return ImagePrint(None, fault="broken", reason=f"{type(error).__name__}: {error.strerror}")
    digest = hashlib.sha256(content).digest()
    try:
        picture = open_flat(io.BytesIO(content), _DRAFT)
    except DECODING_FAULTS as error:
        return ImagePrint(digest, fault="broken", reason=f"{type(error).__name__}: {error}")
    if max(PIL.ImageStat.Stat(picture).stddev) < BLANK_DEVIATION:
        return ImagePrint(digest, fault="blank")
    small = picture.resize((_SIDE, _SIDE), PIL.Image.Resampling.LANCZOS)
    return ImagePrint(digest, thumbnail=np.asarray(small).transpose(2, 0, 1).copy())


def image_bytes(image: dict[str, Any]) -> bytes:
    """The file of an undecoded image, as stored."""
    return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


def open_flat(file: io.BytesIO, side: int) -> PIL.Image.Image:
    """The first frame, upright, RGB, on white where it is transparent; a JPEG at about `side` pixels at least."""
    with PIL.Image.open(file) as opened:
        opened.draft("RGB", (side, side))
        picture = PIL.ImageOps.exif_transpose(opened)
        if picture.mode.startswith("I;16"):  # convert() would cut 16 bits off at 255
            return PIL.Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
        if picture.has_transparency_data:
            layer = picture.convert("RGBA")
            picture = PIL.Image.new("RGBA", layer.size, "white")
            picture.alpha_composite(layer)
        return picture.convert("RGB")


def perceptual_hash(thumbnails: np.ndarray) -> np.ndarray:
    """pHash: signs of the 63 lowest frequencies of the grey picture but the mean, against their median.

    (N, 3, 32, 32) -> (N, 63) bool.
    """
    grey = np.einsum("nchw,c->nhw", thumbnails.astype(np.float32), _LUMA)
    frequencies = dctn(grey, axes=(1, 2), norm="ortho")[:, :8, :8]
    frequencies = frequencies.reshape(len(thumbnails), -1)[:, 1:]
    return frequencies > np.median(frequencies, axis=1, keepdims=True)


def near_pairs(thumbnails: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs (first < second) of (N, 3, 32, 32) thumbnails that show the same picture, and their correlation.

    All distances are computed, exactly, as one matrix product in blocks: memory grows with N alone. 20,000 photographs
    take about half a minute on one core, most of it for the pairs that are near by hash.
    """
    if len(thumbnails) < 2:
        return []
    blocks = range(0, len(thumbnails), _ROWS_AT_ONCE)
    hashes = np.concatenate([perceptual_hash(thumbnails[start : start + _ROWS_AT_ONCE]) for start in blocks])
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    agreement = signs.shape[1] - 2 * MAX_DISTANCE
    pairs = []
    for start in blocks:
        first, second = np.nonzero(signs[start : start + _ROWS_AT_ONCE] @ signs[start:].T >= agreement)
        later = second > first
        for batch in range(0, int(later.sum()), _ROWS_AT_ONCE):
            one = first[later][batch : batch + _ROWS_AT_ONCE] + start
            other = second[later][batch : batch + _ROWS_AT_ONCE] + start
            alike = alikeness(thumbnails[one], thumbnails[other])
            found = np.nonzero(alike >= MIN_ALIKE)[0]
            pairs += [(int(one[place]), int(other[place]), float(alike[place])) for place in found]
    return pairs


def alikeness(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation of the pairs of (N, 3, 32, 32) thumbnails, the best over whole pictures and cut edges. (N,)

    Over all channels, each against its own mean: the colours must fit, the light need not.

    Either picture may be the cut one: it is compared with windows of 95 % and 90 % of the other's width and height,
    in the corners, at the edges and in the middle.
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    best = np.full(len(first), -1, dtype=np.float32)
    for whole, cut in ((first, _standard(second)), (second, _standard(first))):
        for columns, all_rows in _WINDOWS:
            strip = whole @ columns.T
            for rows in all_rows:
                best = np.maximum(best, (_standard(rows @ strip) * cut).sum(axis=(1, 2, 3)))
    return best


def _standard(pictures: np.ndarray) -> np.ndarray:
    centred = pictures - pictures.mean(axis=(2, 3), keepdims=True)
    return centred / np.maximum(np.sqrt((centred**2).sum(axis=(1, 2, 3), keepdims=True)), 1e-6)


def _window(share: float, place: float) -> np.ndarray:
    """(32, 32) matrix that stretches a window of `share` of a line, at `place` (0: start, 1: end), to the line."""
    at = (1 - share) * _SIDE * place + (np.arange(_SIDE) + 0.5) * share - 0.5
    at = np.clip(at, 0, _SIDE - 1)
    low = np.floor(at).astype(int)
    matrix = np.zeros((_SIDE, _SIDE), dtype=np.float32)
    matrix[np.arange(_SIDE), low] += 1 - (at - low)
    matrix[np.arange(_SIDE), np.minimum(low + 1, _SIDE - 1)] += at - low
    return matrix


_PLACES = (0.0, 0.5, 1.0)
# By the columns of a window, all rows that go with them.
_WINDOWS = [(_window(1, 0), [_window(1, 0)])] + [
    (_window(share, left), [_window(share, top) for top in _PLACES]) for share in (0.95, 0.9) for left in _PLACES
]
