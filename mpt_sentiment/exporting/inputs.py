"""Posts to the inputs of an exported graph, with numpy, PIL and tokenizers alone."""

import difflib
import html
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mpt_sentiment.exporting.pixels import PixelSteps, rgb_pixels

logger = logging.getLogger(__name__)

RATIONALE_PREFIX = "rationale_"
# Columns of a dataset that are no part of a post, as for MPTPipeline.
IGNORED_COLUMNS = ("id", "label", "text_label", "image_label", "language", "source")


def prepared_text(text: Any, name: str, preprocessing: str = "none") -> str | None:
    """Return a text as the tokenizer reads it; `None` if it is blank.

    The same as `processing_mpt.texts_mpt.checked_text`, which needs torch: a test compares both.

    Raises:
        ValueError: For another type.
    """
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{name} must be a string or None, got a {type(text).__name__}.")
    text = text or ""
    if preprocessing == "tweet":
        text = re.sub(r"(?<!\S)http\S*", "http", re.sub(r"(?<!\S)@\S+", "@user", html.unescape(text)))
    if not text.strip():
        return None
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class PostInputs:
    """Arrays that an exported graph reads, from the files of its processor.

    Args:
        folder (`Path`): folder with `processor_config.json`, `tokenizer.json` and `tokenizer_config.json`.
        modalities (`list[str]`): those that the network reads.

    Raises:
        ValueError: For images that are processed in a way that needs transformers.
    """

    def __init__(self, folder: Path, modalities: Sequence[str]) -> None:
        settings = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
        words = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.modalities = list(modalities)
        self.perspectives: list[str] = settings["perspectives"]
        self.preprocessing: str = settings["text_preprocessing"]
        self.pixels = PixelSteps(settings["image_processor"]) if "image" in modalities else None
        limits = {kind: settings[name] for kind, name in LIMITS.items()}
        self.tokenizers: dict[str, Tokenizer] = {}
        for kind, limit in limits.items():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.no_padding()
            limit = min(limit, words.get("model_max_length") or limit)
            tokenizer.enable_truncation(limit, direction=words.get("truncation_side", "right"))
            self.tokenizers[kind] = tokenizer
        pad = words.get("pad_token") or ""
        self.pad = tokenizer.token_to_id(pad["content"] if isinstance(pad, Mapping) else pad) or 0
        self.truncated = dict.fromkeys(LIMITS, 0)

    def __call__(self, posts: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Return the inputs of all modalities; those of an absent part are zero.

        Raises:
            ValueError: For a post with an unknown key, nothing to read, or an image that cannot be decoded.
        """
        parts = [self._parts(post, f"Post {post.get('id', index)!r}") for index, post in enumerate(posts)]
        inputs = {}
        if "text" in self.modalities:
            ids, mask = self._tokens([text for text, _, _ in parts], "text")
            inputs |= {"input_ids": ids, "attention_mask": mask}
        if "image" in self.modalities:
            present = np.array([image is not None for _, image, _ in parts])
            given = [self.pixels(image) for _, image, _ in parts if image is not None]
            shape = given[0].shape if given else self.pixels(np.zeros((64, 64, 3), np.uint8)).shape
            pixels = np.zeros((len(parts), *shape), np.float32)
            if given:
                pixels[present] = given
            inputs |= {"pixel_values": pixels, "image_mask": present}
        if "rationales" in self.modalities:
            arrays = self._tokens([text for *_, texts in parts for text in texts], "rationale")
            ids, mask = (array.reshape(len(parts), len(self.perspectives), -1) for array in arrays)
            inputs |= {"rationale_input_ids": ids, "rationale_attention_mask": mask}
        return inputs

    def _parts(self, post: Mapping[str, Any], name: str) -> tuple[str | None, np.ndarray | None, list[str | None]]:
        """Check a post, and return its text, image and rationales."""
        columns = [RATIONALE_PREFIX + perspective for perspective in self.perspectives]
        known = ["text", "image", "rationales", *columns]
        for key in post:
            if key not in (*known, *IGNORED_COLUMNS):
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"{name} has the unknown key {key!r}. Known keys are {known}.{hint}")
        rationales = dict(zip(self.perspectives, map(post.get, columns), strict=True))
        if post.get("rationales") is not None:
            if any(value is not None for value in rationales.values()):
                raise ValueError(f"{name} must have 'rationales' or {RATIONALE_PREFIX}… columns, got both.")
            rationales = post["rationales"]
            unknown = sorted(set(rationales) - set(self.perspectives))
            if unknown:
                raise ValueError(f"{name} has rationales for {unknown}; the perspectives are {self.perspectives}.")
        reads, text, image, texts = self.modalities, None, None, []
        if "text" in reads:
            text = prepared_text(post.get("text"), f"{name}: the text", self.preprocessing)
        if "image" in reads and post.get("image") is not None:
            image = rgb_pixels(post["image"], f"{name}: the image")
        if "rationales" in reads:
            texts = [
                prepared_text(rationales.get(each), f"{name}: the {each} rationale") for each in self.perspectives
            ]
        if text is None and image is None and not any(texts):
            raise ValueError(f"{name} must have at least one of {reads}, which this model reads, but has none.")
        return text, image, texts

    def _tokens(self, texts: Sequence[str | None], kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and mask `(len(texts), longest)` of texts; rows of `None` are empty."""
        encodings = iter(self.tokenizers[kind].encode_batch([text for text in texts if text is not None]))
        rows: list[list[int]] = []
        for text in texts:
            encoding = None if text is None else next(encodings)
            rows.append([] if encoding is None else encoding.ids)
            if encoding is not None and encoding.overflowing:
                if not self.truncated[kind]:
                    logger.warning("A %s was truncated to %d tokens.", kind, len(encoding.ids))
                self.truncated[kind] += 1
        ids = np.full((len(rows), max(MIN_WIDTH, *map(len, rows))), self.pad, np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)], mask[index, : len(row)] = row, 1
        return ids, mask


# Kind of a text: the field of the processor with its limit of tokens.
LIMITS = {"text": "max_length", "rationale": "rationale_max_length"}
# A graph has no sequences of fewer tokens; padding changes no result.
MIN_WIDTH = 2
