"""Command `train`."""

from mpt_sentiment.training import main

__all__ = ["main"]
