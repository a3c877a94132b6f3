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
    if not any(path.is_dir() for path in folder.glob("*")):  # DeepSpeed and FSDP save folders of shards
        patterns = (OPTIMIZER_NAME, SCHEDULER_NAME, "rng_state*.pth")
        missing += [pattern for pattern in patterns if not any(folder.glob(pattern))]
        if not any(folder.glob("*model*.safetensors")) and not any(folder.glob("*model*.bin")):
            missing.append("the weights")
    return missing


def last_complete_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """Return the newest complete `checkpoint-STEP` in a folder, or `None`; log the ones skipped."""
    paths = {path.name.removeprefix("checkpoint-"): path for path in Path(output_dir).glob("checkpoint-*")}
    for step in sorted(filter(str.isdecimal, paths), key=int, reverse=True):
        missing = missing_from_checkpoint(paths[step])
        if not missing:
            return str(paths[step])
        logger.warning("Skipping the incomplete checkpoint %s: it lacks %s.", paths[step], missing)
    return None
