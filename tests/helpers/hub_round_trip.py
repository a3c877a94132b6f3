"""Round trips of saved folders in processes without our packages, and their code files."""

import ast
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import tiny_processor

OLDEST = os.environ.get("MPT_OLDEST_TRANSFORMERS")
needs_oldest = pytest.mark.skipif(not OLDEST, reason="MPT_OLDEST_TRANSFORMERS names no folder with that version")

# Opens each folder with each Auto class, records the results, and saves it again.
ROUND_TRIP = (
    tiny_processor.BLOCK
    + """
from pathlib import Path

import torch
from PIL import Image
from transformers import (
    AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor, __version__, pipeline
)

source, target = Path(sys.argv[1]), Path(sys.argv[2])
batches = torch.load(source.parent / "batches.pt")
for folder in sorted(source.iterdir()):
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    features = AutoModel.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    pipe = pipeline("multimodal-sentiment", model=str(folder), trust_remote_code=True, device="cpu")
    str(pipe.model.config)  # the classes that transformers adds can be printed
    picture = Image.new("RGB", (40, 30), "red")
    posts = [{"text": "what a good day", "image": picture}, {"rationales": {processor.perspectives[-1]: "rain"}}]
    with torch.no_grad():
        output = model(**batches[folder.name])
        results = {
            "version": __version__,
            "classes": [type(each).__name__ for each in (config, features, model, processor, pipe)],
            "modules": sorted({type(each).__module__.split(".")[0] for each in (config, features, model, processor)}),
            "frozen": [name for name, p in model.named_parameters() if not p.requires_grad],
            "weights": model.state_dict(),
            "logits": output.logits,
            "fused": output.fused_embeds,
            "features": features(**batches[folder.name]).fused_embeds,
            "inputs": dict(processor(text=["nothing but rain and a train", None], images=[None, picture])),
            "answers": pipe(posts, batch_size=2),
        }
    pipe.save_pretrained(target / folder.name)
    torch.save(results, target.parent / f"{target.name}-{folder.name}.pt")
"""
)


def round_trip(
    source: Path, target: Path, environment: dict[str, str] | None = None, code: str = ROUND_TRIP
) -> dict[str, dict[str, Any]]:
    """Open folders in a process without our packages, save them, and return the outputs.

    They are saved in `target`. Without a server in `environment`, the process has no network.
    """
    work = target.parent / f"work-{target.name}"
    work.mkdir()
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("HF_")}
    isolated = {"HF_HOME": str(work / "home"), "HF_MODULES_CACHE": str(work / "modules")}
    if "HF_ENDPOINT" not in (environment or {}):
        isolated["HF_HUB_OFFLINE"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(target)],
        cwd=work,
        env=kept | isolated | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, "\n".join(done.stderr.splitlines()[-30:])
    names = [folder.name for folder in source.iterdir()]
    return {name: torch.load(target.parent / f"{target.name}-{name}.pt", weights_only=False) for name in names}


def closure(classes: Iterable[type]) -> set[Path]:
    """Return the files that the files of these classes import."""
    reached: set[Path] = set()
    pending = [Path(inspect.getfile(each)) for each in classes]
    while pending:
        path = pending.pop()
        if path not in reached:
            reached.add(path)
            pending += [path.parent / f"{node.module}.py" for node in imports(path) if relative(node) and node.module]
    return reached


def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))]


def relative(node: ast.Import | ast.ImportFrom) -> bool:
    return isinstance(node, ast.ImportFrom) and node.level > 0


def absolute(path: Path) -> set[str]:
    """Return the top-level packages that a file imports by absolute name."""
    names = set()
    for node in imports(path):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif not relative(node):
            names.add(node.module.split(".")[0])
    return names


def without_dtypes_of_encoders(file: Path) -> dict[str, Any]:
    """Read a configuration without the dtypes that loading adds to its encoders."""
    fields = json.loads(file.read_text())
    for part in ("text_config", "vision_config", "cnn_config"):
        (fields.get(part) or {}).pop("dtype", None)
    return fields
