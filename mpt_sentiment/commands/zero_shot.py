"""Command `zero-shot`."""

from mpt_sentiment.zero_shot import main

__all__ = ["main"]
