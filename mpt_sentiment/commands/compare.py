"""Command `compare`."""

from mpt_sentiment.comparing import main

__all__ = ["main"]
