"""MPTPipeline: sentiment of posts, with the weights of modalities and rationales."""

import difflib
import os
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, Subset
from transformers import Pipeline

from .collator_mpt import MODALITIES
from .images_mpt import checked_image

# Columns of a dataset that the pipeline ignores. Any other unknown key raises an error.
IGNORED_COLUMNS = ("id", "label", "text_label", "image_label", "language", "source")
RATIONALE_PREFIX = "rationale_"
# Package of a table: the call that gives its rows as posts.
ROWS_OF_TABLES = {"pandas": '.to_dict("records")', "polars": ".to_dicts()", "pyarrow": ".to_pylist()"}


class MPTPipeline(Pipeline):
    """
    Pipeline for the sentiment of posts, with the weights of modalities and rationales.

    A post is a mapping with any of

    - `text` (`str` or `None`),
    - `image` (PIL image, path, bytes, data URI, array, or `None`),
    - `rationales` (mapping from perspective to text, or `None`), or the columns `rationale_PERSPECTIVE` of a dataset.

    No URL is fetched, so that a post of a stranger cannot make a server visit an address. Paths are opened: a service
    that takes posts from others replaces theirs by the images' bytes.

    Its result is a dictionary with

    - `label` (`str`) and `score` (`float`): the most probable label and its calibrated probability;
    - `scores` (`dict[str, float]`): the probability of each label;
    - `modality_weights` (`dict[str, float]`): of text, image and rationales in the fused post; 0 where absent; `None`
      for a model that does not weigh them;
    - `perspective_weights` (`dict[str, float]`): of each rationale among the rationales, 0 where absent; `None` for a
      post without any.

    Args:
        model ([`MPTForSentimentClassification`] or a baseline)
        processor ([`MPTProcessor`])
        kwargs: what any [`Pipeline`] takes, e.g. `device`, `batch_size`; and `calibrated`, see `__call__`.

    Raises:
        ValueError: For a model or processor of another package, or with other perspectives than the other.

    Example:

    ```python
    >>> from transformers import pipeline

    >>> pipe = pipeline("multimodal-sentiment", model=FOLDER_OR_HUB_ID, trust_remote_code=True)
    >>> pipe({"text": "What a day", "image": "beach.jpg"})["label"]
    >>> for result in pipe(dataset, batch_size=16):
    ...     print(result["label"], result["score"])
    ```
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Saved code is loaded file by file, and a class may exist twice: attributes are checked instead of types.
        if not hasattr(self.processor, "perspectives") or not hasattr(self.model.config, "perspectives"):
            raise ValueError(
                "MPTPipeline needs a model of this package and the MPTProcessor from the same folder, got a "
                f"{type(self.model).__name__} and a {type(self.processor).__name__}."
            )
        if self.processor.perspectives != self.model.config.perspectives:
            raise ValueError(
                f"The perspectives of processor and model must be equal, got {self.processor.perspectives} and "
                f"{self.model.config.perspectives}. Load both from the same folder."
            )
        self.model.eval()

    def _sanitize_parameters(self, calibrated: bool | None = None, **kwargs: Any) -> tuple[dict, dict, dict]:
        if kwargs:
            known = "only `batch_size`, `num_workers` and `calibrated`"
            raise ValueError(f"MPTPipeline has no options {sorted(kwargs)}, {known}.")
        return {}, {}, {} if calibrated is None else {"calibrated": calibrated}

    def __call__(self, posts: Any, **kwargs: Any) -> dict[str, Any] | list[dict[str, Any]] | Iterator[dict[str, Any]]:
        """
        Classify posts.

        Args:
            posts: one post, a list or tuple of them, or a dataset (of `datasets` or of PyTorch) or another iterable.
            batch_size (`int`, defaults to 1): posts per forward pass; it changes no result beyond rounding.
            num_workers (`int`, defaults to 0): processes that open images.
            calibrated (`bool`, defaults to `True`): divide the logits by `calibration_temperature` of the model's
                configuration, which was fitted on validation posts. It changes the probabilities and no label.

        Returns:
            One result, a list, or for datasets and iterables an iterator that reads posts as results are taken.

        Raises:
            ValueError: For a table of another package, a post with an unknown key, an image that cannot be opened, or
                nothing the model reads.
        """
        _check_container(posts)
        feature = (getattr(posts, "features", None) or {}).get("image")
        if getattr(feature, "decode", False) and hasattr(posts, "cast_column"):
            # `datasets` fails on malformed metadata of an image; the processor does not.
            posts = posts.cast_column("image", type(feature)(decode=False))
        if isinstance(posts, list | tuple):
            return super().__call__(list(posts), **kwargs) if posts else []
        if not isinstance(posts, Mapping | Dataset | IterableDataset | str | bytes):
            if hasattr(posts, "__getitem__") and hasattr(posts, "__len__"):
                posts = Subset(posts, range(len(posts)))
            elif hasattr(posts, "__iter__"):
                posts = (post for post in posts)
        return super().__call__(posts, **kwargs)

    def preprocess(self, post: Mapping[str, Any]) -> dict[str, Any]:
        """Check a post and open its image.

        The processor is applied in `_forward`, because padding depends on the batch.
        """
        if not isinstance(post, Mapping):
            raise ValueError(
                "A post must be a dictionary, e.g. {'text': 'What a day', 'image': 'beach.jpg'}, got "
                f"{reprlib.repr(post)} of type {type(post).__name__}."
            )
        name = f"Post {post['id']!r}" if post.get("id") is not None else "The post"
        columns = {f"{RATIONALE_PREFIX}{perspective}": perspective for perspective in self.processor.perspectives}
        known = [*MODALITIES, *columns]
        for key in post:
            if key not in (*known, *IGNORED_COLUMNS):
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"{name} has the unknown key {key!r}. Known keys are {known}.{hint}")
        lists = [key for key in known if isinstance(post.get(key), list | tuple)]
        if lists:
            raise ValueError(
                f"{name} has a list as {lists[0]!r}, but a dictionary is one post. Pass a list of dictionaries, e.g. "
                "Dataset.from_dict(posts).to_list()."
            )
        rationales = {columns[key]: value for key, value in post.items() if key in columns}
        if post.get("rationales") is not None:
            if any(value is not None for value in rationales.values()):
                raise ValueError(f"{name} must have 'rationales' or {RATIONALE_PREFIX}… columns, got both.")
            rationales = post["rationales"]
        parts = {"text": post.get("text"), "image": post.get("image"), "rationales": rationales or None}
        reads = self.model.config.modalities
        parts = {key: value if key in reads else None for key, value in parts.items()}
        if not any(_has_content(value) for value in parts.values()):
            raise ValueError(f"{name} must have at least one of {reads}, which this model reads, but has none.")
        if parts["image"] is not None:
            parts["image"] = _open_image(parts["image"], name)
        return {"post": parts}

    def _forward(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor | None]:
        """Return logits `(batch, num_labels)` and weights of one post or a list of posts."""
        posts = inputs["post"] if isinstance(inputs["post"], Sequence) else [inputs["post"]]
        batch = self.processor(
            images=[post["image"] for post in posts],
            text=[post["text"] for post in posts],
            rationales=[post["rationales"] for post in posts],
        )
        output = self.model(**batch.to(self.device))
        names = ("logits", "modality_weights", "modality_mask", "perspective_weights")
        return {name: output.get(name) for name in names}

    def postprocess(self, outputs: dict[str, torch.Tensor | None], calibrated: bool = True) -> dict[str, Any]:
        """Convert the outputs of one post to its result."""
        id2label = self.model.config.id2label
        # Folders saved before the field existed bring a configuration without it.
        temperature = getattr(self.model.config, "calibration_temperature", 1.0) if calibrated else 1.0
        # In double precision no temperature makes two probabilities equal.
        logits = outputs["logits"][0].double()
        scores = (logits / temperature).softmax(dim=-1).tolist()
        best = int(logits.argmax())
        perspective_weights = modality_weights = None
        if outputs["perspective_weights"] is not None and outputs["modality_mask"][0, MODALITIES.index("rationales")]:
            weights = outputs["perspective_weights"][0].tolist()
            perspective_weights = dict(zip(self.processor.perspectives, weights, strict=True))
        if outputs["modality_weights"] is not None:
            modality_weights = dict(zip(MODALITIES, outputs["modality_weights"][0].tolist(), strict=True))
        return {
            "label": id2label[best],
            "score": scores[best],
            "scores": {id2label[index]: score for index, score in enumerate(scores)},
            "modality_weights": modality_weights,
            "perspective_weights": perspective_weights,
        }

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save model and processor with all their code, this file included."""
        # Pipeline would not save the processor.
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def _has_content(part: Any) -> bool:
    """Return whether a part of a post is neither missing nor blank."""
    if isinstance(part, str):
        return bool(part.strip())
    if isinstance(part, Mapping):
        return any(_has_content(value) for value in part.values())
    return part is not None


def _check_container(posts: Any) -> None:
    """Check that posts are not in a container that has another meaning.

    Raises:
        ValueError: For a table, a column, splits, bytes or an array.
    """
    package = type(posts).__module__.split(".")[0]
    if package in ROWS_OF_TABLES:
        call = ROWS_OF_TABLES[package] if hasattr(posts, "columns") else ".tolist(), a list of dictionaries"
        raise ValueError(f"Posts are dictionaries, got a {package} {type(posts).__name__}. Pass posts{call}.")
    if isinstance(posts, Mapping) and posts and all(hasattr(value, "column_names") for value in posts.values()):
        first = next(iter(posts))
        raise ValueError(f"Posts of one split are needed, got the splits {list(posts)}. Pass posts[{first!r}].")


def _open_image(image: Any, name: str) -> Any:
    """Open and decode an image; no URL is fetched."""
    address = image.get("bytes") or image.get("path") if isinstance(image, Mapping) else image
    if isinstance(address, str | Path) and str(address)[:5].lower() != "data:":
        shown = repr(str(address)) if len(str(address)) <= 200 else f"{str(address)[:30]!r}… (too long for a path)"
        if re.match(r"[a-z][a-z0-9+.-]+://", str(address), re.IGNORECASE):
            raise ValueError(f"The image of a post must be a file, got the URL {shown} ({name}). Download it.")
        if not os.path.exists(address):
            raise ValueError(f"{name} has the image {shown}, but this file does not exist.")
    return checked_image(image, f"{name}: the image")
