"""Image processors of encoders, and conversion of images of any mode to RGB."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import AutoConfig, AutoImageProcessor, PreTrainedConfig, ViTImageProcessor

# Side of the images for a detector, whose own image processor keeps the aspect ratio.
DETECTOR_SIDE = 512


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


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB, upright as its EXIF says, transparency on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") and (image.mode != "I" or image.getextrema()[1] > 255):
        # 16 bits a pixel (Pillow opens some as mode I): its own conversion would turn all above 255 white.
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def checked_image(image: Any, index: int) -> Image.Image | np.ndarray | torch.Tensor:
    """Return the image of post `index` as an image processor reads it.

    Raises:
        ValueError: For an image that cannot be decoded, another type, or an array of another shape.
    """
    if isinstance(image, Image.Image):
        try:
            return to_rgb(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"The image of post {index} ({getattr(image, 'filename', '') or image}) cannot be decoded ({error}). "
                "Replace it, or pass None."
            ) from error
    if not isinstance(image, np.ndarray | torch.Tensor):
        raise ValueError(
            f"The image of post {index} must be a PIL image (e.g. PIL.Image.open(path)), an array, a tensor or None, "
            f"got a {type(image).__name__}: {str(image)[:80]!r}."
        )
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[-1]):
        raise ValueError(
            f"The image of post {index} must have the shape (height, width, 3) or (3, height, width), got "
            f"{tuple(image.shape)}. PIL.Image.fromarray converts other arrays."
        )
    return image
