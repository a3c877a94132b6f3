"""Datasets of a trainer with stored features, and the reasons for training without them."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import torch

from .dataset import FeatureDataset
from .errors import FeatureStoreError
from .identity import weights_digest
from .store import store_at

logger = logging.getLogger(__name__)


class FeatureWrapper:
    """Feature datasets of a trainer, built on first use and kept.

    Args:
        where (`str`): `"auto"`, `"none"`, or the folder of the store.
        dtype (`str`): of the stored numbers.
        autocast (`torch.dtype`, *optional*): in which the trainer computes.
        progress (`bool`): whether to show a progress bar.

    Attributes:
        announce (`Callable`): called with one line before outputs are computed; by default it is logged.
        reason (`str`): why no features are stored, empty if they are.
    """

    def __init__(self, where: str, dtype: str, autocast: torch.dtype | None, progress: bool) -> None:
        self.where, self.autocast, self.progress = where, autocast, progress
        self.announce: Callable[[str], None] = logger.info
        self.store = None if where == "none" else store_at(where, dtype)
        self.reason = "it is switched off" if where == "none" else ""
        self._built: dict[int, tuple[Any, FeatureDataset]] = {}
        self._state: tuple = ()

    def wrap(self, network: Any, processor: Any, posts: Sequence[Any]) -> list[Any]:
        """Return datasets with stored features, or the posts as they are if that is not possible.

        Raises:
            FeatureStoreError: For posts that change, or a store in a named folder that cannot be written.
        """
        if self.reason:
            return list(posts)
        encoders = network.frozen_encoders() if hasattr(network, "frozen_encoders") else []
        if not encoders:
            self.reason = "no encoder is frozen"
            return list(posts)
        state = tuple(weights_digest(module) for encoder in encoders for module in encoder.modules)
        if state != self._state:  # other weights were loaded
            self._built, self._state = {}, state
        new = [each for each in posts if id(each) not in self._built]
        try:
            for each in new:
                check_fixed(each)
            built = new and self.store.build(
                network,
                processor,
                *new,
                autocast=self.autocast,
                progress=self.progress,
                announce=self.announce,
            )
        except FeatureStoreError as error:
            if self.where != "auto":
                raise
            logger.warning("Training without the feature store: %s", error)
            self.reason = str(error)
            return list(posts)
        for each, features in zip(new, built if isinstance(built, list) else [built], strict=True):
            self._built[id(each)] = (each, features)  # the posts are kept, or their id could be used again
        return [self._built[id(each)][1] for each in posts]

    def describe(self) -> str:
        """Describe in one line what is stored and where, or why nothing is."""
        if self.reason:
            return f"Feature store: not used ({self.reason})"
        features = next(iter(self._built.values()))[1]
        size = sum(stored.shards.size for stored in features.stored) / 2**20
        names = ", ".join(stored.name for stored in features.stored)
        return f"Feature store: {names} ({size:,.0f} MB) in {self.store.folder}"


def check_fixed(posts: Any) -> None:
    """Check that posts are the same in every epoch.

    Raises:
        FeatureStoreError: For posts with a transform, or of a class that may compute them anew.
    """
    if isinstance(posts, datasets.Dataset) and posts.format["type"] == "custom":
        raise FeatureStoreError("the posts have a transform, which may change them in every epoch.")
    if not isinstance(posts, datasets.Dataset | list | tuple):
        raise FeatureStoreError(
            f"posts of a {type(posts).__name__} may change in every epoch. Pass a Dataset or list."
        )
