"""Rationales of a large multimodal model: prompts, engines, gate, store and run."""

from dataset_scripts.rationales.spec import RationaleSpec, item_key

__all__ = ["RationaleSpec", "item_key"]
