"""Command `build-dataset`."""

from mpt_sentiment.building import main

__all__ = ["main"]
