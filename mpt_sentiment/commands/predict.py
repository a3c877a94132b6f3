"""Command `predict`."""

from mpt_sentiment.predicting import main

__all__ = ["main"]
