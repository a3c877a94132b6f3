"""Command `generate-rationales`."""

from mpt_sentiment.generating import main

__all__ = ["main"]
