"""Page of an exported model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpt_sentiment.evaluation.scores import SCORES

TEXT = """\
# {title}, {precision}

Classifies posts as {labels}. It reads {modalities}. Without torch, with `pip install 'mpt-sentiment[onnx]'`:

```python
import mpt_sentiment as mpt

classifier = mpt.OnnxClassifier("{folder}")
classifier({{"text": "What a day", "image": "beach.jpg"}})
```

Calibration temperature: {temperature:.4g}. Largest difference of logits between the graph in single precision and the
trained network: {difference:.1e}.

{table}
"""
ROW = {"torch": "Trained network", "onnx": "ONNX", "int8": "ONNX, int8"}


def write_page(folder: Path, metrics: Mapping[str, Any], config: Any) -> None:
    """Write the README of an exported model.

    Args:
        folder (`Path`): folder of the export.
        metrics (mapping): content of its `metrics.json`.
        config ([`SentimentConfig`]): configuration of the network.
    """
    scores, same = metrics.get("scores", {}), metrics.get("same_label_as_torch", {})
    header = ["", "Weights, MB", *(SCORES if scores else ()), *(["same label"] if scores else ())]
    rows = [header, ["---"] * len(header)]
    for kind, size in metrics["megabytes"].items():
        row = [ROW[kind], f"{size:.1f}"]
        if scores:
            row += [
                "{:.4f} [{:.4f}, {:.4f}]".format(scores[kind][name], *scores[kind]["intervals"][name])
                for name in SCORES
            ]
            row.append(f"{same[kind]:.1%}" if kind in same else "")
        rows.append(row)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    if scores:
        table += f"\n\nScores on {metrics['posts']:,} posts, with 95 % intervals of a bootstrap over posts."
    text = TEXT.format(
        title=config.title,
        precision="ONNX with weights of 8 bits" if metrics["quantize"] else "ONNX",
        labels=", ".join(config.id2label[index] for index in sorted(config.id2label)),
        modalities=", ".join(config.modalities),
        folder=folder.name,
        temperature=getattr(config, "calibration_temperature", 1.0),
        difference=metrics["max_logit_difference"],
        table=table,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
