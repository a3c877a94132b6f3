"""Rationales of a large multimodal model, one per perspective: prompts, engines, gate, store and runner."""

from dataset_scripts.rationales.spec import RationaleSpec, item_key

__all__ = ["RationaleSpec", "item_key"]
