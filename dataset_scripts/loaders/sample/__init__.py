"""Embedded sample: synthetic posts with a label that needs both the text and the picture."""

from dataset_scripts.loaders.sample.posts import SAMPLE, load_sample

__all__ = ["SAMPLE", "load_sample"]
