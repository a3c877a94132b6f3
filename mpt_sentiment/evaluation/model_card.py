"""The model card that a run fills in: what the model is, how it was trained, what it scores and where it fails."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mpt_sentiment.evaluation.files import MODALITIES, atomic_path
from mpt_sentiment.evaluation.scores import SCORES

TEMPLATE = Path(__file__).with_name("model_card_template.md")
FIGURES: Mapping[str, str] = {"confusion_matrix.png": "Confusion matrix", "training_curve.png": "Training curve"}
FEW_POSTS = 30  # below this many test posts, a class's scores are named as unreliable

# An absolute path inside a text: of Unix (two components or more, so that "and/or" and URLs stay), or of Windows.
_PATH = re.compile(r"(?<![\w.:/~])~?(?:/[\w.\-+@]+){2,}/?|\b[A-Za-z]:\\[^\s\"']+")


@dataclass(frozen=True)
class TrainingData:
    """The posts of a run, as the card tells them.

    Args:
        name: What the dataset is called, e.g. `"MVSA-Single"`.
        sizes: Posts per split, e.g. `{"train": 960, "validation": 120, "test": 120}`.
        protocol: Name of the split protocol, e.g. `"grouped"`.
        split_seed: Seed of the split.
        split_hash: Hash of the split's ids, by which others can check that theirs is the same.
        dropped: Posts that were left out, by reason; `{}` says that none was, `None` says nothing.
        hub_id: The dataset's id on the Hub, if it is there.
        synthetic: The posts were drawn by a program: the card then says that the model is a demonstration.
        notes: Sentences to add, e.g. where the rationales come from.
    """

    name: str
    sizes: Mapping[str, int]
    protocol: str | None = None
    split_seed: int | None = None
    split_hash: str | None = None
    dropped: Mapping[str, int] | None = None
    hub_id: str | None = None
    synthetic: bool = False
    notes: Sequence[str] = ()


def write_model_card(
    output_dir: str | os.PathLike[str],
    *,
    config: Any,
    metrics: Mapping[str, Any],
    data: TrainingData,
    hyperparameters: Mapping[str, Any],
    num_parameters: int,
    num_trainable_parameters: int,
    environment: Mapping[str, Any],
    aggregate: Mapping[str, Any] | None = None,
    best_epoch: float | None = None,
    model_name: str | None = None,
    base_model: Sequence[str] | None = None,
    language: str | Sequence[str] = "en",
    license: str = "apache-2.0",
) -> Path:
    """Write `README.md`, the model card, into `output_dir`. No path of this machine gets into it.

    Args:
        output_dir: The folder with the saved model; figures named in `FIGURES` that lie in it are shown.
        config (`MPTConfig` or that of a baseline): The model's configuration.
        metrics (`Mapping`): [`~mpt_sentiment.evaluation.evaluate_predictions`] on the test split.
        data (`TrainingData`): The posts and their split.
        hyperparameters (`Mapping[str, Any]`): What to list of the training arguments; `None` values are left out.
        num_parameters (`int`): Number of parameters.
        num_trainable_parameters (`int`): Number of those that were trained.
        environment (`Mapping`): [`~mpt_sentiment.evaluation.environment`].
        aggregate (`Mapping`, *optional*): [`~mpt_sentiment.evaluation.aggregate_runs`] over all seeds.
        best_epoch (`float`, *optional*): The epoch kept, if it was chosen by weighted F1 on validation.
        model_name (`str`, *optional*): Title; the folder's name by default.
        base_model (`Sequence[str]`, *optional*): Hub ids of the encoders; by default those the config records.
        language (`str` or list of `str`, defaults to `"en"`): Language codes of the posts.
        license (`str`, defaults to `"apache-2.0"`): Licence id of the weights.

    Returns:
        The path of the card.
    """
    folder = Path(output_dir)
    name = model_name or folder.resolve().name
    card_data = ModelCardData(
        model_name=name,
        language=list(language) if not isinstance(language, str) else language,
        license=license,
        library_name="transformers",
        # The Hub has no task "image+text classification"; the text is what is classified.
        pipeline_tag="text-classification",
        tags=["sentiment-analysis", "multimodal", "image-text", config.model_type, "custom_code"],
        base_model=list(base_model if base_model is not None else encoder_ids(config)) or None,
        datasets=[data.hub_id] if data.hub_id else None,
        metrics=["accuracy", "f1"],
        eval_results=_eval_results(metrics, data),
    )
    bootstrap, majority = metrics["bootstrap"], metrics["majority"]
    card = ModelCard.from_template(
        card_data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        model_name=name,
        demonstration=_DEMONSTRATION if data.synthetic else "",
        labels=", ".join(f"`{label}`" for label in metrics["label_names"]),
        reads=_reads(config),
        system=_system(config),
        snippet=_snippet(name, config),
        results=_results(metrics),
        confidence=f"{bootstrap['confidence']:.0%}",
        num_posts=f"{metrics['num_posts']:,}",
        num_resamples=f"{bootstrap['num_resamples']:,}",
        majority_label=majority["label"],
        calibration=f"{metrics['expected_calibration_error']:.3f}",
        seeds=_seeds(aggregate),
        per_class=_per_class(metrics),
        figures="\n\n".join(f"![{text}]({file})" for file, text in FIGURES.items() if (folder / file).is_file()),
        data=_data(data),
        dropped=_dropped(data),
        training=_training(best_epoch),
        num_parameters=f"{num_parameters:,}",
        num_trainable_parameters=f"{num_trainable_parameters:,}",
        hyperparameters=_table(
            ("Hyper-parameter", "Value"), [(k, f"`{v}`") for k, v in hyperparameters.items() if v is not None]
        ),
        environment=_environment(environment),
        limitations=_limitations(metrics, data),
    )
    # What was left out leaves blank lines behind.
    card.content = re.sub(r"\n{3,}", "\n\n", card.content)
    with atomic_path(folder / "README.md") as temporary:
        card.save(temporary)
    return folder / "README.md"


def encoder_ids(config: Any) -> list[str]:
    """The Hub ids that the encoders were loaded from, by the names their configs keep; folders are no ids."""
    names = [
        getattr(getattr(config, part, None), "_name_or_path", "")
        for part in ("text_config", "vision_config", "cnn_config", "scene_config")
    ]
    ids = [name for name in names if re.fullmatch(r"[\w\-]+/[\w.\-]+", name or "") and not os.path.exists(name)]
    return list(dict.fromkeys(ids))


def without_paths(value: Any) -> str:
    """The value as text in which every absolute path is cut to its last component."""

    def last_component(match: re.Match[str]) -> str:
        path = match[0]
        return PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name

    return _PATH.sub(last_component, str(value))


_DEMONSTRATION = (
    "> **This model is a demonstration.** It was trained on synthetic posts: a program drew the images and put the "
    "texts and rationales together. Its scores show that the parts work together, and say nothing about real posts."
)


def _reads(config: Any) -> str:
    names = {
        "text": "a post's text",
        "image": "its image",
        "rationales": f"short rationales from several perspectives ({', '.join(config.perspectives)})",
    }
    used = [names[modality] for modality in MODALITIES if modality in config.modalities]
    return " and ".join(filter(None, [", ".join(used[:-1]), used[-1]]))


_PAPER = "[Ma et al., CIKM 2025](https://doi.org/10.1145/3746252.3761328)"


def _system(config: Any) -> str:
    if config.model_type == "mpt_sentiment":
        return f"It is an MPT model (multi-perspective thinking, {_PAPER}):\n{_architecture(config)}"
    sentences = [f"It is the baseline {config.title} ({config.source}), written anew and trained as MPT is."]
    providers = ", ".join(f"{part} `{provider}`" for part, provider in config.providers.items())
    sentences.append(f"What it reads, and the provider of each: {providers}.")
    if config.use_rationales:
        sentences.append(f"Rationales are joined to its own vector by a lightweight attention, as in MPT ({_PAPER}).")
    return "\n".join(sentences)


def _architecture(config: Any) -> str:
    branches = {
        "sknet": "a selective-kernel network",
        "lstm": "an LSTM",
        "cnn": "a CNN",
        "vit": "a vision Transformer",
    }
    text = " and ".join(branches[branch] for branch in config.text_branches)
    image = " and ".join(branches[branch] for branch in config.image_branches)
    parts = {
        "text": f"the text goes through a Transformer with {text}",
        "image": f"the image goes through {image}",
        "rationales": "the rationales go through a text encoder and an attention over perspectives",
    }
    used = "; ".join(parts[modality] for modality in MODALITIES if modality in config.modalities)
    fusion = "a lightweight attention weighs what is present, and " if len(config.modalities) > 1 else ""
    return f"{used}; {fusion}a small network answers."


def _snippet(name: str, config: Any) -> str:
    rationales = "".join(f'        "{perspective}": "…",\n' for perspective in config.perspectives)
    arguments = {
        "text": '    text=["What a day. Thank you all!"],\n',
        "image": '    images=[Image.new("RGB", (224, 224), "gold")],  # yours: Image.open("post.jpg")\n',
        "rationales": f"    rationales=[{{\n{rationales}    }}],  # or [None]\n",
    }
    call = "".join(arguments[modality] for modality in MODALITIES if modality in config.modalities)
    weights = ""
    if "modality_weights" in config.weights_returned:
        weights = '\nprint("text, image, rationales:", output.modality_weights[0].tolist())'
    image_import = "from PIL import Image\n" if "image" in config.modalities else ""
    return f"""import torch
{image_import}from transformers import AutoModelForSequenceClassification, AutoProcessor

name = "{name}"  # the path of this folder, or its id on the Hub
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
model = AutoModelForSequenceClassification.from_pretrained(name, trust_remote_code=True).eval()

inputs = processor(
{call}    return_tensors="pt",
)
with torch.no_grad():
    output = model(**inputs)

for index, probability in enumerate(output.logits.softmax(-1)[0].tolist()):
    print(model.config.id2label[index], round(probability, 3)){weights}"""


def _results(metrics: Mapping[str, Any]) -> str:
    rows = []
    for score, heading in SCORES.items():
        low, high = metrics["intervals"][score]
        interval = f"{_percent(low)} – {_percent(high)}"
        rows.append((heading, f"**{_percent(metrics[score])}**", interval, _percent(metrics["majority"][score])))
    return _table(("Test score, %", "This model", "95 % interval", "Floor: majority label"), rows)


def _seeds(aggregate: Mapping[str, Any] | None) -> str:
    if aggregate is None:
        return ""
    rows = []
    for score, heading in SCORES.items():
        summary = aggregate[score]
        spread = "–" if summary["std"] is None else _percent(summary["std"])
        floor = _percent(aggregate["majority"][score]["mean"])
        rows.append(
            (heading, _percent(summary["mean"]), spread, _percent(summary["min"]), _percent(summary["max"]), floor)
        )
    seeds = f" ({', '.join(map(str, aggregate['seeds']))})" if aggregate["seeds"] else ""
    heading = f"Test score over {aggregate['num_runs']} training seeds{seeds}, %"
    return _table((heading, "Mean", "Sample s.d.", "Min", "Max", "Floor: majority label"), rows)


def _per_class(metrics: Mapping[str, Any]) -> str:
    rows = [
        (label, *(_percent(scores[key]) for key in ("precision", "recall", "f1")), f"{scores['support']:,}")
        for label, scores in metrics["per_class"].items()
    ]
    return _table(("Class", "Precision, %", "Recall, %", "F1, %", "Test posts"), rows)


def _data(data: TrainingData) -> str:
    name = data.name if data.hub_id is None else f"[{data.name}](https://huggingface.co/datasets/{data.hub_id})"
    rows = [(f"Posts, {split}", f"{size:,}") for split, size in data.sizes.items()]
    if data.protocol is not None:
        rows.append(("Split protocol", f"`{data.protocol}`"))
    if data.split_seed is not None:
        rows.append(("Split seed", f"`{data.split_seed}`"))
    if data.split_hash is not None:
        rows.append(("Split hash", f"`{data.split_hash}`"))
    return "\n\n".join([_table(("Dataset", name), rows), *map(without_paths, data.notes)])


def _dropped(data: TrainingData) -> str:
    if data.dropped is None:
        return ""
    if not data.dropped:
        return "No post was left out."
    rows = [(reason, f"{count:,}") for reason, count in data.dropped.items()]
    return "Posts left out:\n\n" + _table(("Reason", "Posts"), rows)


def _training(best_epoch: float | None) -> str:
    if best_epoch is None:
        return ""
    kept = f"Epoch {best_epoch:g} was kept, chosen by weighted F1 on the validation split"
    return f"{kept}; the test split was scored once, afterwards."


def _environment(environment: Mapping[str, Any]) -> str:
    rows = [("System", environment["system"]), ("Python", environment["python"]), *environment["libraries"].items()]
    return _table(("Hardware", environment["hardware"]), rows)


def _limitations(metrics: Mapping[str, Any], data: TrainingData) -> str:
    points = []
    if data.synthetic:
        points.append("Trained and tested on synthetic posts: a demonstration, not a model to judge real posts with.")
    else:
        points.append(
            "Sentiment labels are opinions of a few annotators; rationales by a language model may err, and carry its "
            "biases into the answer."
        )
    if metrics["intervals"]["accuracy"][0] <= metrics["majority"]["accuracy"]:
        points.append(
            "The interval of its accuracy reaches down to the majority-label floor: these scores do not show that it "
            "learnt anything."
        )
    rare = [f"{label} ({s['support']})" for label, s in metrics["per_class"].items() if s["support"] < FEW_POSTS]
    if rare:
        points.append(f"Few test posts of some classes, whose scores are therefore unsure: {', '.join(rare)}.")
    points += [
        "The interval covers the draw of test posts only, not training seeds and not posts of another time, topic, "
        "platform or language.",
        "The weights over modalities and perspectives show what the network mixed, not why the answer is right.",
        "Not made to judge persons, nor for decisions that affect them.",
    ]
    return "\n".join(f"- {point}" for point in points)


def _eval_results(metrics: Mapping[str, Any], data: TrainingData) -> list[EvalResult]:
    name = without_paths(data.name)
    kinds = {
        "accuracy": ("accuracy", None),
        "f1_weighted": ("f1", {"average": "weighted"}),
        "f1_macro": ("f1", {"average": "macro"}),
    }
    return [
        EvalResult(
            task_type="text-classification",
            task_name="Image+text sentiment classification",
            dataset_type=data.hub_id or re.sub(r"[^\w.\-]+", "-", name).strip("-").lower(),
            dataset_name=name,
            dataset_split="test",
            metric_type=kinds[score][0],
            metric_name=heading,
            metric_args=kinds[score][1],
            metric_value=round(metrics[score], 4),
        )
        for score, heading in SCORES.items()
    ]


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, first column to the left, the others to the right; nothing where there are no rows."""
    if not rows:
        return ""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(
        "| " + " | ".join(without_paths(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
