"""Distillation: a student without rationales learns from a teacher that reads them."""

from mpt_sentiment.distilling.run import distill

__all__ = ["distill"]
