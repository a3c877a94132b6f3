"""Training: from posts to a tested model with its card, metrics, predictions and figures."""

import collections
import copy
import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from transformers import Pipeline, set_seed

from dataset_scripts.output import full_disk_named
from modeling_mpt.pretrained_mpt import SentimentPreTrainedModel
from modeling_mpt.trainer_mpt import MPTTrainer, MPTTrainingArguments, last_complete_checkpoint
from mpt_sentiment.adapters import add_adapters
from mpt_sentiment.backbones import build
from mpt_sentiment.evaluation import TrainingData, aggregate_runs, write_metrics
from mpt_sentiment.recipe import DEFAULT_RECIPE, TrainingSetup, system_recipe, training_setup
from mpt_sentiment.results import calibrate, count_parameters, scores_line, write_card, write_results
from mpt_sentiment.run_identity import METRICS_FILE, finished_metrics, run_settings
from mpt_sentiment.training_checks import check_posts, check_setup
from mpt_sentiment.training_data import dataset_name, modalities_of, split_parts
from processing_mpt import MPTProcessor

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """A finished training.

    Attributes:
        output_dir (`Path`): folder of the run; with several seeds, that of all runs.
        metrics (`dict`): content of its `metrics.json`.
        runs (`tuple` of [`TrainingResult`]): the runs of the single seeds; empty for one run.
    """

    output_dir: Path
    metrics: dict[str, Any]
    runs: tuple["TrainingResult", ...] = ()

    @property
    def test(self) -> dict[str, Any]:
        """Scores on test with `intervals`; over several seeds, mean, std and values of each."""
        return self.metrics["test"]

    @functools.cached_property
    def pipeline(self) -> Pipeline:
        """Pipeline of the trained model; with several seeds, of the first."""
        from mpt_sentiment.predicting import load_pipeline

        return load_pipeline(self.runs[0].output_dir if self.runs else self.output_dir)

    def push_to_hub(self, repo_id: str, private: bool = False) -> str:
        """Publish the model with its card on the Hub; with several seeds, the first run.

        Returns:
            The address of the repository.
        """
        from mpt_sentiment.pushing import push_to_hub

        return push_to_hub(self.runs[0].output_dir if self.runs else self.output_dir, repo_id, private=private)

    def __str__(self) -> str:
        return f"{self.output_dir}: {scores_line(self.test)}"


def train(
    posts: Dataset | DatasetDict,
    output_dir: str | Path,
    recipe: str | Path | None = None,
    *,
    model: str = "mpt",
    seeds: Sequence[int] | None = None,
    overwrite: bool = False,
    **fields: Any,
) -> TrainingResult:
    """Train a system on posts, choose the best epoch on validation, and test it once.

    Called again with the same posts and fields, a finished run is returned and an interrupted one is resumed.

    Args:
        posts (`Dataset` or `DatasetDict`): posts with the columns of `load_posts`, split into train, validation and
            test (`split_posts`); a `Dataset` is split by the default protocol, or by `split` and `split_options`.
        output_dir (`str` or `Path`): folder of model, card, metrics, predictions and figures.
        recipe (`str` or `Path`, *optional*): name or path of a recipe. By default that of the system and dataset.
        model (`str`, defaults to `"mpt"`): name of the system, see `mpt_sentiment.SYSTEMS`.
        seeds (sequence of `int`, *optional*): train once per seed, in `output_dir/seed-N`, and aggregate.
        overwrite (`bool`, defaults to `False`): start again in a folder that holds another run.
        fields: any field of the system's configuration, of the recipe, or of [`MPTTrainingArguments`], e.g.
            `modalities=["text", "image"], learning_rate=2e-5, lora=True`.

    Returns:
        [`TrainingResult`].

    Raises:
        ValueError: an unknown field, posts that cannot be trained on, or a folder that holds another run.
    """
    recipes = [recipe] if recipe is not None else default_recipes(model, dataset_name(posts))
    options = {"model": model, "output_dir": str(output_dir), "overwrite": overwrite}
    if seeds is not None:
        options["seeds"] = list(seeds)
    setup = training_setup(recipes, options | fields)
    parts = split_parts(posts, setup.data)
    if len(parts) > 1:
        raise ValueError(
            "`mpt.train` trains one fold: name it with split_options={'fold': 3}. Cross-validation is "
            f"mpt.compare(posts, [{model!r}], split='folds', …)."
        )
    return train_runs(setup, *next(iter(parts.values())))


def default_recipes(system: str, dataset: str) -> list[str]:
    """Name the recipes of a system on a dataset. The sample's recipe overrides its encoders."""
    return [system_recipe(system, dataset), *([DEFAULT_RECIPE] if dataset == DEFAULT_RECIPE else [])]


def train_runs(setup: TrainingSetup, posts: DatasetDict, data: TrainingData) -> TrainingResult:
    """Train once, or once per seed, and aggregate.

    Args:
        setup ([`TrainingSetup`]): all arguments.
        posts (`DatasetDict`): train, validation and test.
        data ([`TrainingData`]): account of the posts.
    """
    setup = checked(setup, posts)
    settings = run_settings(setup, posts)
    output_dir, seeds = Path(setup.training.output_dir), setup.run.seeds
    runs = []
    for seed in [setup.training.seed] if seeds is None else seeds:
        folder = output_dir if seeds is None else output_dir / f"seed-{seed}"
        with full_disk_named(folder):
            runs.append(TrainingResult(folder, run_seed(setup, posts, data, settings, seed, folder)))
    if seeds is None:
        return runs[0]
    summary = aggregate_runs([run.test for run in runs], seeds)
    metrics = {"test": summary, "settings": settings}
    if setup.training.should_save:
        for run in runs:
            write_card(run.output_dir, run.metrics, aggregate=summary)
        write_metrics(output_dir / METRICS_FILE, metrics)
        print(f"\nTest over seeds {seeds}, mean (sd): {scores_line(summary)}")
    return TrainingResult(output_dir, metrics, tuple(runs))


def checked(setup: TrainingSetup, posts: DatasetDict) -> TrainingSetup:
    """Check a run before its first batch, and choose the modalities that the posts have.

    Raises:
        ValueError: see [`~mpt_sentiment.training_checks.check_setup`] and `check_posts`.
    """
    check_setup(setup)
    setup = with_present_modalities(setup, posts)
    check_posts(setup, posts)
    return setup


def with_present_modalities(setup: TrainingSetup, posts: DatasetDict) -> TrainingSetup:
    """Choose the modalities that the posts have, unless the user named some."""
    if setup.model.model != "mpt" or setup.model.modalities is not None:
        return setup
    present = modalities_of(posts)
    missing = [name for name in ("text", "image", "rationales") if name not in present]
    if not missing:
        return setup
    changes: dict[str, Any] = {"modalities": present}
    view = ""
    if {"text", "image"} & {*missing} and setup.model.contrastive_view is None:
        changes["contrastive_view"] = "fused"
        view = ", and MLCL compares fused vectors"
    logger.warning("No post has %s: training on %s%s.", " or ".join(missing), ", ".join(present), view)
    return dataclasses.replace(setup, model=dataclasses.replace(setup.model, **changes))


def run_seed(
    setup: TrainingSetup,
    posts: DatasetDict,
    data: TrainingData,
    settings: dict[str, Any],
    seed: int,
    output_dir: Path,
    trainer_class: Callable[..., MPTTrainer] = MPTTrainer,
) -> dict[str, Any]:
    """Train with one seed, or return the metrics of the finished run in `output_dir`."""
    args = copy.copy(setup.training)
    args.seed = args.data_seed = seed
    args.output_dir = str(output_dir)
    settings = settings | {"seed": seed}
    finished = finished_metrics(output_dir, settings, overwrite=setup.run.overwrite, save=args.should_save)
    if finished is not None:
        print(f"{output_dir} holds this finished run: {scores_line(finished['test'])}. --overwrite starts it again.")
        return finished
    trainer = build_trainer(setup, posts, data, args, trainer_class)
    training = trainer.train(resume_from_checkpoint=last_complete_checkpoint(output_dir))
    config = trainer.accelerator.unwrap_model(trainer.model).config
    ignored = [name for name in config.keys_to_ignore_at_inference if name not in config.weights_returned]
    outputs = {"validation": trainer.predict(posts["validation"], ignore_keys=ignored)}
    note = calibrate(config, outputs["validation"])
    if not setup.lora.lora or not setup.lora.lora_merge:
        trainer.save_model()
    outputs["test"] = trainer.predict(posts["test"], ignore_keys=ignored)
    metrics = {}
    if trainer.is_world_process_zero():
        speed = training.metrics["train_samples_per_second"]
        metrics = write_results(output_dir, trainer, outputs, posts, data, setup, settings, speed, note)
        if setup.lora.lora:
            save_adapted(trainer, output_dir, merge=setup.lora.lora_merge)
        write_metrics(output_dir / METRICS_FILE, metrics)  # last: the file marks the run as finished
        print(f"Test: {scores_line(metrics['test'])} (majority label {metrics['test']['majority']['accuracy']:.4f})")
        print(f"Model, card, predictions and figures are in {output_dir}")
    args.distributed_state.wait_for_everyone()
    if args.push_to_hub:
        trainer.push_to_hub()
    return metrics or json.loads((output_dir / METRICS_FILE).read_text(encoding="utf-8"))


def build_trainer(
    setup: TrainingSetup,
    posts: DatasetDict,
    data: TrainingData,
    args: MPTTrainingArguments,
    trainer_class: Callable[..., MPTTrainer] = MPTTrainer,
) -> MPTTrainer:
    """Build network, stored features and trainer of a run, and print what will be trained.

    Args:
        setup ([`TrainingSetup`]): arguments of the run.
        posts (`DatasetDict`): train and validation; other splits are counted.
        data ([`TrainingData`]): account of the posts.
        args ([`MPTTrainingArguments`]): those of the setup, with the seed and folder of the run.
        trainer_class (callable): makes the trainer.

    Raises:
        ValueError: an encoder cannot be loaded.
    """
    set_seed(args.seed)
    processor, model = build(setup.model, posts["train"])
    network = add_adapters(model, setup.lora) if setup.lora.lora else model
    if args.should_log:
        print(describe(data, posts, processor, model))
    trainer = trainer_class(
        model=network,
        args=args,
        train_dataset=posts["train"],
        eval_dataset=posts["validation"],
        processing_class=processor,
    )
    store_features(trainer, posts)
    return trainer


def store_features(trainer: MPTTrainer, posts: DatasetDict) -> None:
    """Store the outputs of frozen encoders for all splits, and print what is stored.

    All splits are encoded together, so that the folds of a cross-validation share one set of files.
    """
    if trainer.args.should_log:
        trainer.features.announce = print
    trainer.with_features(*(posts | {"train": trainer.train_dataset}).values())
    if trainer.args.should_log:
        print(trainer.features.describe())


def describe(data: TrainingData, posts: DatasetDict, processor: MPTProcessor, model: SentimentPreTrainedModel) -> str:
    """Describe posts, model and loss of a run in a few lines."""
    names = posts["train"].features["label"].names
    lines = [f"Data: {data.name}, split {data.protocol} ({data.split_hash})"]
    for split, rows in posts.items():
        counts = collections.Counter(rows["label"][:])  # a column is iterated row by row
        labels = ", ".join(f"{name} {counts[index]:,}" for index, name in enumerate(names))
        lines.append(f"  {split:<10} {len(rows):>6,} posts: {labels}")
    if "rationales" in model.config.modalities:
        for perspective in processor.perspectives:
            missing = sum(text is None for rows in posts.values() for text in rows[f"rationale_{perspective}"][:])
            if missing:
                lines.append(f"  {missing:,} posts have no {perspective} rationale; they are trained with it masked")
    config = model.config
    parts = (getattr(config, f"{part}_config", None) for part in ("text", "vision", "cnn", "scene"))
    encoders = ", ".join(part.model_type for part in parts if part is not None) or "none from transformers"
    lines.append(
        f"Model: {config.title} on {', '.join(config.modalities)}; encoders {encoders}; H = {config.hidden_size}"
    )
    parameters, trainable = count_parameters(model)
    lines.append(f"  {parameters:,} parameters, {trainable:,} trainable")
    terms = [name for name in config.numbers if name.startswith("loss_weight_")]
    weights = {"CE": 1.0} | {name.removeprefix("loss_weight_").upper(): getattr(config, name) for name in terms}
    lines.append("Loss: " + " + ".join(f"{weight} · {name}" for name, weight in weights.items()))
    return "\n".join(lines)


def save_adapted(trainer: MPTTrainer, output_dir: Path, *, merge: bool) -> None:
    """Save an adapted model: merged and complete, or the configuration for its adapters."""
    adapted = trainer.accelerator.unwrap_model(trainer.model)
    if merge:
        adapted.merge_and_unload().save_pretrained(output_dir)
        trainer.processing_class.save_pretrained(output_dir)
    else:
        adapted.get_base_model().config.save_pretrained(output_dir)
