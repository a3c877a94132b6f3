"""Handler of Inference Endpoints, saved as `handler.py` in the folder of a model."""

import base64
import binascii
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import pipeline

# Formats that Pillow decodes by itself; for others, such as EPS, it starts a program.
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 50_000_000
BATCH_SIZE = 16


class EndpointHandler:
    """
    Classifier of the posts of a request.

    Args:
        path (`str`): folder of a saved model, whose code is run.

    Raises:
        ValueError: For a folder of LoRA adapters.
    """

    def __init__(self, path: str = "") -> None:
        if (Path(path) / "adapter_config.json").is_file():
            raise ValueError(f"{path} holds LoRA adapters without their encoders. Train with `--lora_merge true`.")
        self.pipe = pipeline("multimodal-sentiment", model=str(path or "."), trust_remote_code=True)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any] | list[dict[str, Any]]:
        """
        Classify the posts of a request.

        Args:
            data: `{"inputs": post}` or `{"inputs": [post, …]}`. A post is a mapping with any of `text`, `image`
                (base64, data URI, bytes or PIL image) and `rationales`; or a text; or a PIL image.

        Returns:
            The result of [`MPTPipeline`], or a list. In a list, a post that cannot be read has `{"error": message}`.

        Raises:
            ValueError: For a single post that cannot be read.
        """
        inputs = data["inputs"] if "inputs" in data else data
        if isinstance(inputs, list):
            return self._results(inputs)
        return self.pipe(read_post(inputs))

    def _results(self, posts: list[Any]) -> list[dict[str, Any]]:
        try:
            return self.pipe([read_post(post) for post in posts], batch_size=BATCH_SIZE)
        except ValueError as error:
            if len(posts) == 1:
                return [{"error": str(error)}]
        return [result for post in posts for result in self._results([post])]


def read_post(post: Any) -> dict[str, Any]:
    """Return a post of a request for the pipeline, with the content of its image.

    Raises:
        ValueError: For another type, or an unusable image.
    """
    if isinstance(post, str):
        return {"text": post}
    if isinstance(post, Image.Image):
        return {"image": post}
    if not isinstance(post, Mapping):
        raise ValueError(
            f'A post must be an object such as {{"text": "What a day", "image": BASE64}}, got a {type(post).__name__}.'
        )
    image = post.get("image")
    return {**post, "image": image if image is None or isinstance(image, Image.Image) else image_content(image)}


def image_content(image: str | bytes, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return the content of an image file. No path or URL is opened.

    Args:
        image (`str` or `bytes`): base64, data URI, or content.
        max_pixels (`int`): maximum of width times height, compared before pixels are decoded.

    Raises:
        ValueError: For a text that is no base64, another format, or too many pixels.
    """
    if isinstance(image, str):
        encoded = image.partition(",")[2] if image[:5].lower() == "data:" else image
        try:
            image = base64.b64decode("".join(encoded.split()), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(
                "The image must be base64 of an image file, or a data URI with base64; no path or URL is opened."
            ) from None
    if not isinstance(image, bytes):
        raise ValueError(f"The image must be base64 of an image file, got a {type(image).__name__}.")
    try:
        with Image.open(io.BytesIO(image)) as opened:
            (width, height), form = opened.size, opened.format
    except Image.DecompressionBombError:
        raise ValueError(f"The image has more than {max_pixels:,} pixels.") from None
    except Exception:  # damaged: the pipeline opens it again, and says what it is
        return image
    if width * height > max_pixels:
        raise ValueError(f"The image has {width} x {height} pixels; {max_pixels:,} are allowed.")
    if form not in FORMATS:
        raise ValueError(f"The image has the format {form}; send one of {', '.join(FORMATS)}.")
    return image
