"""Opening of image files, and conversion of images to RGB."""

import inspect
import io

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from dataset_scripts.reading import images
from dataset_scripts.reading.images import kind_of_file, open_image, read_rgb, to_rgb, to_uint8
from helpers.odd_images import HEIC, encoded
from processing_mpt import images_mpt

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F")
VALUES = np.arange(256, dtype=np.uint8).reshape(16, 16)


def image_of_mode(mode: str) -> PIL.Image.Image:
    if mode in ("I", "I;16"):
        image = PIL.Image.fromarray(VALUES.astype(np.uint16) * 257)
        return image if mode == "I;16" else image.convert("I")
    if mode == "F":
        return PIL.Image.fromarray(VALUES.astype(np.float32))
    rgba = PIL.Image.fromarray(np.stack([VALUES, VALUES.T, 255 - VALUES, VALUES], axis=-1))
    if mode == "LAB":
        profiles = PIL.ImageCms.createProfile("sRGB"), PIL.ImageCms.createProfile("LAB")
        return PIL.ImageCms.profileToProfile(rgba.convert("RGB"), *profiles, outputMode="LAB")
    step = {"PA": "P", "HSV": "RGB", "YCbCr": "RGB"}.get(mode, "RGBA")
    return rgba.convert(step).convert(mode)


def test_datasets_and_processor_have_the_same_functions():
    for name in ("kind_of_file", "open_image", "upright", "to_uint8", "to_rgb", "decoding_error"):
        assert inspect.getsource(getattr(images, name)) == inspect.getsource(getattr(images_mpt, name)), name
    for name in ("_ORIENTATION_TAG", "_TRANSPOSITIONS", "_SIGNATURES", "_HEIC_BRANDS", "pillow_heif"):
        assert getattr(images, name) == getattr(images_mpt, name), name


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode):
    assert to_rgb(image_of_mode(mode)).mode == "RGB"


@pytest.mark.parametrize("mode", ["I", "I;16"])
def test_16_bits_are_scaled_to_8(mode):
    assert (np.asarray(to_rgb(image_of_mode(mode)))[..., 0] == VALUES).all()


def test_transparency_becomes_white_and_exif_orientation_is_applied():
    assert to_rgb(PIL.Image.new("RGBA", (2, 2), (10, 20, 30, 0))).getpixel((0, 0)) == (255, 255, 255)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the orientation tag: rotated by 90 degrees
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=exif)
    assert to_rgb(PIL.Image.open(buffer)).size == (20, 40)
    assert to_rgb(to_rgb(PIL.Image.open(buffer))).size == (20, 40)  # as a reader and then the processor do


def stored(content: bytes) -> dict:
    return {"bytes": content, "path": None}


def test_a_tiff_of_floats_from_0_to_1_is_as_bright_as_its_bytes():
    floats = read_rgb(stored(encoded(PIL.Image.fromarray(VALUES.astype(np.float32) / 255), "TIFF")))
    assert (np.asarray(floats)[..., 0] == VALUES).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_in_every_format(kind):
    image = PIL.Image.fromarray(VALUES.astype(np.uint16) * 257)
    assert (np.asarray(read_rgb(stored(encoded(image, kind))))[..., 0] == VALUES).all()


def test_the_transparent_grey_of_16_bits_is_white():
    image = PIL.Image.fromarray(np.array([[1000, 65535], [0, 1000]], np.uint16))
    image.info["transparency"] = 1000
    assert np.asarray(to_rgb(image))[..., 0].tolist() == [[255, 255], [0, 255]]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "float16", "float32", "float64"])
def test_values_from_0_to_255_are_kept_in_every_type(dtype):
    assert (to_uint8(VALUES.astype(dtype)) == VALUES).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_from_0_to_1_are_scaled(dtype):
    assert (to_uint8(VALUES.astype(dtype) / 255) == VALUES).all()
    assert (to_uint8(np.array([0, 1.0005, -0.0005], dtype)) == [0, 255, 0]).all()


def test_masks_and_16_bits_are_scaled():
    assert to_uint8(np.array([True, False])).tolist() == [255, 0]
    for dtype in ("uint16", "int32"):
        assert (to_uint8(VALUES.astype(dtype) * 257) == VALUES).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([np.nan, 1.0]), "NaN"),
        (np.array([np.inf, 1.0]), "infinite"),
        (np.array([-2.1, 2.6]), r"float64\) go from -2.1 to 2.6; .*0 to 255 .*0 to 1"),  # normalized pixels
        (np.array([0.0, 1.5]), "to 1.5"),
        (np.array([0.0, 65535.0]), "to 65535"),
        (np.array([0, 70000]), "to 70000"),
        (np.array([-1, 255]), "from -1"),
        (np.array([0, 200], np.uint16), "16 bits in full"),
        (np.array([]), "no pixels"),
        (np.array(["a"]), "not numbers"),
        (np.array([1j]), "not numbers"),
    ],
    ids=str,
)
def test_values_without_a_certain_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        to_uint8(values)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"", "an empty file"),
        (bytes(300), "zero bytes"),
        (HEIC, "a HEIC image" if images.pillow_heif is None else "a damaged HEIC image"),
        (b"\0\0\0\x1cftypmp42\0\0\0\0mp42isom", "a video"),
        (b"RIFF\x24\0\0\0AVI LIST", "a video"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "a damaged WebP"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "a sound"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "an HTML page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "an XML file"),
        (b'{"error": "not found"}', "a JSON file"),
        (b"%PDF-1.7", "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a damaged JPEG"),
        (b"\x89PNG\r\n\x1a\n", "a damaged PNG"),
        (b"\x00\x05\x16\x07\0\2\0\0Mac OS X", "macOS"),
        (b"just some words", "no image"),
    ],
)
def test_a_file_that_is_no_image_is_named_by_its_first_bytes(start, kind, tmp_path):
    assert kind in kind_of_file(start)
    (tmp_path / "a.jpg").write_bytes(start)
    for source in (start, str(tmp_path / "a.jpg"), tmp_path / "a.jpg"):
        with pytest.raises(ValueError, match="^it is |^OSError: ") as raised:
            open_image(source)
        assert kind in str(raised.value) or start.startswith((b"RIFF", b"\xff\xd8"))


def test_heic_opens_with_pillow_heif():
    pytest.importorskip("pillow_heif")
    image = read_rgb(stored(encoded(PIL.Image.new("RGB", (64, 48), "red"), "HEIF")))
    assert image.size == (64, 48) and image.getpixel((9, 9))[0] > 240


def test_an_avif_opens_where_pillow_reads_it_and_is_named_elsewhere():
    start = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1"
    assert "an AVIF image" in kind_of_file(start)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match="no pixels"):
        to_rgb(PIL.Image.new("RGB", (0, 5)))
