"""Teachers: a finished run, and the same run repeated on the other folds of its train posts."""

import copy
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict
from sklearn.model_selection import StratifiedGroupKFold
from transformers.trainer_utils import IntervalStrategy

from dataset_scripts.duplicates import group_ids
from dataset_scripts.splits import groups_in, split_hash
from modeling_mpt import SYSTEMS
from modeling_mpt.trainer_mpt import MPTTrainer, MPTTrainingArguments
from mpt_sentiment.adapters import is_adapter, load_adapter
from mpt_sentiment.cell_training import trained
from mpt_sentiment.distilling.targets import Targets, read_by
from mpt_sentiment.evaluation import TrainingData, write_metrics
from mpt_sentiment.recipe import TrainingSetup, training_setup
from mpt_sentiment.results import calibrate
from mpt_sentiment.run_identity import METRICS_FILE, SETTINGS_FILE, finished_metrics, run_settings
from processing_mpt import MPTProcessor

logger = logging.getLogger(__name__)

TARGETS_FILE = "targets.npz"
# Teacher 0 is the finished run; teacher k + 1 has not seen fold k.
OF_THE_RUN = 0
# Arguments that do not change a result.
_OF_THE_MACHINE = (
    *("feature_store", "disable_tqdm", "report_to", "use_cpu"),
    *("per_device_eval_batch_size", "dataloader_num_workers"),
)


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A finished run of `train`.

    Attributes:
        folder (`Path`): its folder.
        settings (`dict`): content of its `settings.json`.
    """

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def read(cls, folder: str | Path) -> "Teacher":
        """Read the settings of a finished run.

        Raises:
            ValueError: the folder holds no finished run.
        """
        folder = Path(folder)
        for name in (METRICS_FILE, SETTINGS_FILE, "config.json"):
            if not (folder / name).is_file():
                raise ValueError(
                    f"{folder} has no {name}. A teacher is the output_dir of a finished `train`, whose settings train "
                    "the teachers of the folds."
                )
        settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        return cls(folder, settings)

    @property
    def seed(self) -> int:
        """Return the seed of the run."""
        return self.settings["seed"]

    def fields(self) -> dict[str, Any]:
        """Return the arguments of the run, without those of posts and folders."""
        return self.settings["model"] | self.settings["lora"] | self.settings["training"]

    def setup(self, output_dir: Path, machine: MPTTrainingArguments) -> TrainingSetup:
        """Return the arguments that repeat the run in another folder, on this machine."""
        own = {name: getattr(machine, name) for name in _OF_THE_MACHINE}
        return training_setup([self.fields() | own | {"seed": self.seed, "output_dir": str(output_dir)}], {})

    def check_posts(self, digests: dict[str, str], label_names: list[str]) -> None:
        """Check that posts and split are those of the run.

        Raises:
            ValueError: they are not.
        """
        own = self.settings["data"]
        if own["split_hash"] != digests["split_hash"]:
            raise ValueError(
                f"The posts or their split ({digests['split_hash']}) are not those of the teacher "
                f"({own['split_hash']}), which may have been trained on these test posts. Give the same arguments of "
                "posts and split as in its training."
            )
        if own["content_hash"] != digests["content_hash"]:
            raise ValueError(
                "Texts, images, labels or rationales of the posts are not those that the teacher was trained on. Give "
                "the same posts and `rationales`, or train the teacher again."
            )
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        if list(config["id2label"].values()) != label_names:
            raise ValueError(f"The labels of {self.folder} are not {', '.join(label_names)}.")

    def trainer(self, output_dir: Path, machine: MPTTrainingArguments) -> MPTTrainer:
        """Load the model of the run, in a trainer that predicts."""
        args = self.setup(output_dir, machine).training
        args.eval_strategy, args.load_best_model_at_end = IntervalStrategy.NO, False
        if is_adapter(self.folder):
            model = load_adapter(self.folder)
        else:
            model = SYSTEMS[self.settings["model"]["model"]][1].from_pretrained(self.folder)
        return MPTTrainer(model=model, args=args, processing_class=MPTProcessor.from_pretrained(self.folder))


def fold_of_posts(posts: DatasetDict, folds: int, seed: int) -> np.ndarray:
    """Assign train posts to folds: stratified by label, groups of duplicates in one fold.

    Returns:
        `np.ndarray` of shape `(posts,)`.

    Raises:
        ValueError: a class has fewer posts than folds.
    """
    train = posts["train"]
    labels = np.array(train["label"][:])
    smallest = np.bincount(labels)[np.unique(labels)].min()
    if not 2 <= folds <= smallest:
        raise ValueError(f"`folds` must be 2 to {smallest}, the posts of the smallest class in train, got {folds}.")
    groups = group_ids(train, groups_in(train, None))
    fold_of_row = np.empty(len(train), dtype=np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
        fold_of_row[held_out] = fold
    return fold_of_row


def cross_fitted_targets(
    teacher: Teacher,
    posts: DatasetDict,
    data: TrainingData,
    folder: Path,
    folds: int,
    *,
    content_hash: str,
    machine: MPTTrainingArguments,
    overwrite: bool,
) -> Targets:
    """Let teachers read train posts that they have not seen.

    The run of the teacher is repeated once per fold, on the posts of the other folds. Validation posts choose the
    epoch and the temperature, as in the run.

    Args:
        teacher ([`Teacher`])
        posts (`DatasetDict`): train and validation of the run.
        data ([`TrainingData`]): account of the posts.
        folder (`Path`): a subfolder per fold receives its targets; a fold that has finished there is read.
        folds (`int`): number of folds.
        content_hash (`str`): of the posts.
        machine ([`MPTTrainingArguments`]): whose feature store and batch size of evaluation are used.
        overwrite (`bool`): whether to train finished folds again.

    Raises:
        ValueError: too few posts of a class, or a subfolder that holds another run.
    """
    fold_of_row, parts = fold_of_posts(posts, folds, teacher.seed), []
    for fold in range(folds):
        own = folder / f"fold-{fold}"
        held_out = posts["train"].select(np.flatnonzero(fold_of_row == fold))
        others = posts["train"].select(np.flatnonzero(fold_of_row != fold))
        part = DatasetDict({"train": others, "validation": posts["validation"], "test": held_out})
        setup = teacher.setup(own, machine)
        setup.training.disable_tqdm = True
        digests = {"split_hash": split_hash(part), "content_hash": content_hash}
        settings = run_settings(setup, part, digests) | {"seed": teacher.seed}
        save = setup.training.should_save
        if finished_metrics(own, settings, overwrite=overwrite, save=save) is None:
            logger.info("Teacher of fold %d of %d: training on %d posts.", fold + 1, folds, len(others))
            account = dataclasses.replace(data, protocol=f"fold {fold} of the teacher's train posts")
            trainer, _ = trained(copy.deepcopy(setup), part, account)
            config = trainer.accelerator.unwrap_model(trainer.model).config
            note = calibrate(config, trainer.predict(part["validation"], ignore_keys=ignored_but_logits(config)))
            targets = read_by(trainer, held_out, fold + 1)
            if save:
                targets.save(own / TARGETS_FILE)
                facts = {"temperature": config.calibration_temperature, "temperature_note": note}
                write_metrics(own / METRICS_FILE, facts)  # last: the file marks the fold as finished
            trainer.accelerator.wait_for_everyone()
        parts.append(Targets.load(own / TARGETS_FILE))
    return Targets.join(parts)


def ignored_but_logits(config: Any) -> list[str]:
    """List the outputs of a network that a prediction of probabilities leaves out."""
    return [name for name in config.keys_to_ignore_at_inference if name != "logits"]
