"""Outputs of frozen encoders, computed once for each content and read from disk in training."""

from .dataset import FeatureDataset
from .errors import FeatureStoreError
from .store import FeatureStore

__all__ = ["FeatureDataset", "FeatureStore", "FeatureStoreError"]
