"""Pixels without torch are those of transformers' image processors."""

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor, DetrImageProcessor, SiglipImageProcessor, ViTImageProcessor

from mpt_sentiment.exporting.pixels import PixelSteps, resized, rgb_pixels

SIZES = [(48, 64), (300, 200), (61, 47), (224, 224), (9, 500), (1, 1)]
PROCESSORS = {
    "bilinear": ViTImageProcessor(size={"height": 32, "width": 48}),
    "bicubic, crop of the centre": CLIPImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 31, "width": 32}
    ),
    "lanczos": ViTImageProcessor(size={"height": 24, "width": 24}, resample=1),
    "siglip": SiglipImageProcessor(size={"height": 56, "width": 56}),
    "detector": DetrImageProcessor(size={"height": 64, "width": 64}, do_pad=False),
    "not normalized": ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False),
    "not rescaled": ViTImageProcessor(size={"height": 32, "width": 32}, do_rescale=False),
}


def noise(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(height * width)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_are_those_of_the_image_processor(processor, size):
    image = noise(*size)
    expected = processor(image, return_tensors="pt")["pixel_values"][0].numpy()
    np.testing.assert_allclose(PixelSteps(processor.to_dict())(np.asarray(image)), expected, atol=1e-6, rtol=1e-6)


def test_a_smaller_side_is_enlarged_by_the_same_filter():
    assert (resized(np.full((3, 5, 3), 77, np.uint8), 8, 9, 3) == 77).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_resize": True, "size": {"longest_edge": 9}}, "longest_edge"),
        ({"do_resize": True, "size": {"height": 9, "width": 9}, "resample": 0}, "filter 0"),
    ],
)
def test_other_steps_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PixelSteps(settings)


def test_an_image_is_read_from_any_form(tmp_path):
    image = noise(6, 7)
    image.save(tmp_path / "a.png")
    array = np.asarray(image)
    content = (tmp_path / "a.png").read_bytes()
    forms = [image, tmp_path / "a.png", str(tmp_path / "a.png"), content, {"bytes": content, "path": None}]
    for form in [*forms, {"bytes": None, "path": str(tmp_path / "a.png")}, array, array.transpose(2, 0, 1)]:
        assert (rgb_pixels(form, "The image") == array).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"<html>", "The image cannot be decoded .*HTML page"),
        ("https://example.org/a.png", "cannot be decoded"),
        ("missing.png", "No such file"),
        (5, "it is a int"),
        (np.zeros((4, 4), np.uint8), "its shape is"),
    ],
)
def test_an_unreadable_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        rgb_pixels(image, "The image")
