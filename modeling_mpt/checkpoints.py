"""Checkpoints of a Trainer: completeness, and the last complete one of a run."""

import json
import logging
import os
from pathlib import Path

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

logger = logging.getLogger(__name__)


def missing_from_checkpoint(folder: str | os.PathLike) -> list[str]:
    """List the missing files of a checkpoint. An unreadable state of the run counts as missing."""
    folder = Path(folder)
    missing = []
    try:
        json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        missing.append(TRAINER_STATE_NAME)
    sharded = any(path.is_dir() for path in folder.glob("*"))  # the layout of DeepSpeed and FSDP
    if not sharded:
        patterns = (OPTIMIZER_NAME, SCHEDULER_NAME, "rng_state*.pth")
        missing += [pattern for pattern in patterns if not any(folder.glob(pattern))]
        if not any(folder.glob("*model*.safetensors")) and not any(folder.glob("*model*.bin")):
            missing.append("the weights")
    return missing


def last_complete_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """Return the newest complete `checkpoint-STEP` in a folder, or `None`; log the ones skipped."""
    steps = {}
    for path in Path(output_dir).glob("checkpoint-*"):
        step = path.name.removeprefix("checkpoint-")
        if step.isdecimal() and path.is_dir():
            steps[int(step)] = path
    for step in sorted(steps, reverse=True):
        missing = missing_from_checkpoint(steps[step])
        if not missing:
            return str(steps[step])
        logger.warning("Skipping the incomplete checkpoint %s: it lacks %s.", steps[step], missing)
    return None
