"""Software versions and hardware class of a run; nothing identifies the machine."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "mpt-sentiment",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "evaluate",
    "accelerate",
    "peft",
    "timm",
    "huggingface-hub",
    "numpy",
    "scikit-learn",
    "pillow",
)


def environment() -> dict[str, Any]:
    """Describe software and hardware for `metrics.json` and the model card.

    Returns:
        `python`, `system`, `hardware` (such as `"cpu, 2 cores, bf16 AMX: no"` or `"1 × NVIDIA H100 80GB HBM3"`) and
        `libraries` (name → version of those that are installed).
    """
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "hardware": hardware(),
        "libraries": {name: version for name in PACKAGES if (version := _version(name))},
    }


def hardware() -> str:
    """Describe the hardware that torch computes on, in one line."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}"
    if torch.backends.mps.is_available():
        return f"{platform.machine()}, Apple GPU (mps)"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"cpu, {cores} cores, bf16 AMX: {'yes' if cpu_has_amx() else 'no'}"


def cpu_has_amx() -> bool:
    """Check Linux for the CPU flag `amx_bf16` (bf16 matrix products in hardware)."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and "amx_bf16" in flags.read_text(encoding="utf-8", errors="replace")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
