"""Vectors of frozen pretrained encoders, for classifiers that train no encoder."""

import dataclasses
import functools
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from datasets import Dataset
from transformers import set_seed

from modeling_mpt.features import FeatureStore
from modeling_mpt.features.store import store_at
from mpt_sentiment.backbones import build, check_encoders
from mpt_sentiment.recipe import TrainingSetup
from mpt_sentiment.training_checks import check_modalities

# Fields of MPT's configuration with which all encoders are frozen, and no loss is checked.
_FROZEN = {
    "contrastive_view": "fused",
    "loss_weight_mlcl": 0.0,
    "class_weights": None,
    "freeze_text_layers": -1,
    "freeze_vision_layers": -1,
    "freeze_cnn": True,
}


@dataclasses.dataclass(frozen=True)
class FrozenFeatures:
    """Standardized vectors of posts.

    Attributes:
        vectors (`dict`): `(num_posts, dim)` in float32 by the name of the split: mean of the text's states, mean of
            each rationale, pooled image, side by side.
        untrained_images (`bool`): whether no encoder of images was pretrained.
    """

    vectors: dict[str, np.ndarray]
    untrained_images: bool


def frozen_features(posts: Mapping[str, Dataset], modalities: Sequence[str], setup: TrainingSetup) -> FrozenFeatures:
    """Read the vectors of posts from the feature store, which computes what it lacks.

    Args:
        posts (mapping of `Dataset`): train, validation and test.
        modalities (sequence of `str`): what is read: text, image, rationales.
        setup ([`TrainingSetup`]): arguments of MPT: encoders, lengths, preparation of texts, feature store.

    Raises:
        ValueError: posts without anything that is read, or an encoder cannot be loaded.
    """
    changes = {**_FROZEN, "model": "mpt", "modalities": list(modalities)}
    options = {name: value for name, value in (setup.model.model_options or {}).items() if name not in changes}
    model = dataclasses.replace(setup.model, **changes, model_options=options or None)
    check_modalities(dataclasses.replace(setup, model=model), posts, model.modalities)
    check_encoders(model)
    args = setup.training
    set_seed(args.seed)  # encoders without pretrained weights
    processor, network = build(model, posts["train"])
    datasets = _store(args.feature_store, args.feature_store_dtype).build(
        network.to(args.device),
        processor,
        *posts.values(),
        autocast=torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None,
        progress=not args.disable_tqdm,
        announce=print,
    )
    pooled = dict(zip(posts, (features.pooled() for features in datasets), strict=True))
    return FrozenFeatures(standardized(pooled), network.config.untrained_images)


def standardized(pooled: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Join the vectors of each post, with mean 0 and variance 1 over the train posts.

    Posts without a vector are left out of mean and variance.

    Args:
        pooled (mapping): by the name of the split, see `FeatureDataset.pooled`.

    Returns:
        `(num_posts, dim)` by the name of the split; zero where a post has no text, rationale or image.
    """
    parts: dict[str, list[np.ndarray]] = {split: [] for split in pooled}
    for name in [name for name in pooled["train"] if not name.endswith("_mask")]:
        mask = name if name in ("text", "rationales") else "image"
        present = {split: arrays[f"{mask}_mask"][..., None] for split, arrays in pooled.items()}
        train = pooled["train"][name]
        count = np.maximum(present["train"].sum(axis=0), 1)
        mean = (train * present["train"]).sum(axis=0, dtype=np.float64) / count
        deviation = np.sqrt((np.square(train - mean) * present["train"]).sum(axis=0) / count)
        scale = np.where(deviation > 1e-6, deviation, 1.0)
        for split, arrays in pooled.items():
            values = (arrays[name] - mean) / scale * present[split]
            parts[split].append(values.reshape(len(values), -1).astype(np.float32))
    return {split: np.concatenate(blocks, axis=1) for split, blocks in parts.items()}


def _store(where: str, dtype: str) -> FeatureStore:
    return store_at(_temporary_folder().name if where == "none" else where, dtype)


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory:
    """Create a folder that is deleted when the process ends."""
    return tempfile.TemporaryDirectory(prefix="mpt-features-")
