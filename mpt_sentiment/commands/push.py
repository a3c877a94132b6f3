"""Command `push`."""

from mpt_sentiment.pushing import main

__all__ = ["main"]
