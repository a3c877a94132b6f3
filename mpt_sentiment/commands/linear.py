"""Command `linear`."""

from mpt_sentiment.linear import main

__all__ = ["main"]
