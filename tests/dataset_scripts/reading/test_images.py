"""Conversion of images to RGB."""

import io

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from dataset_scripts.reading.images import to_rgb
from processing_mpt.images_mpt import to_rgb as to_rgb_of_the_processor

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


@pytest.mark.parametrize("mode", MODES)
def test_the_dataset_and_the_processor_convert_every_mode_alike(mode):
    converted = to_rgb(image_of_mode(mode))
    assert converted.mode == "RGB"
    assert converted.tobytes() == to_rgb_of_the_processor(image_of_mode(mode)).tobytes()


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
