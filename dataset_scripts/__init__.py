"""Datasets of posts with text, image, rationales and label, all with the same columns."""

import importlib
from typing import Any

_MODULE_OF = {
    "LABELS": "schema",
    "PERSPECTIVES": "schema",
    "features": "schema",
    "rationale_column": "schema",
    "ArchiveLimits": "reading.archives",
    "BuildReport": "reading.report",
    "content_hash": "content",
    "group_ids": "duplicates",
    "split_hash": "splits",
    "split_posts": "splits",
    "DATASETS": "registry",
    "join_rationales": "rationales.join",
    "join_content": "loading",
    "load_posts": "loading",
    "load_posts_with_report": "loading",
}
__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import dataset_scripts` alone is fast."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
