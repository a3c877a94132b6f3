"""Distillation: targets of teachers, students, and their comparison on the test posts."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, DatasetDict, concatenate_datasets

from dataset_scripts.content import content_hash
from dataset_scripts.output import full_disk_named
from modeling_mpt import SYSTEMS
from mpt_sentiment.distilling.arguments import DistillArguments, student_setup
from mpt_sentiment.distilling.cost import operations_per_post, tokens_per_post
from mpt_sentiment.distilling.rows import (
    ALONE,
    STUDENT,
    TEACHER,
    WITHHELD,
    rows_text,
    score_rows,
    without_rationales,
    write_teacher_predictions,
)
from mpt_sentiment.distilling.student import DistillingTrainer
from mpt_sentiment.distilling.targets import Targets, read_by
from mpt_sentiment.distilling.teacher import OF_THE_RUN, Teacher, cross_fitted_targets
from mpt_sentiment.distilling.unlabelled import unlabelled_posts
from mpt_sentiment.evaluation import TrainingData, aggregate_runs, write_metrics
from mpt_sentiment.recipe import TrainingSetup
from mpt_sentiment.results import PREDICTIONS_FILES, write_card
from mpt_sentiment.run_identity import METRICS_FILE, digests_of, run_settings
from mpt_sentiment.training import TrainingResult, checked, run_seed
from mpt_sentiment.training_checks import check_setup
from mpt_sentiment.training_data import split_parts
from processing_mpt import MPTProcessor

# Subfolder of everything but the students.
FOLDER = "distillation"


def distill(
    teacher: str | Path,
    posts: Dataset | DatasetDict,
    output_dir: str | Path,
    recipe: str | Path | None = None,
    *,
    seeds: Sequence[int] | None = None,
    overwrite: bool = False,
    **fields: Any,
) -> TrainingResult:
    """Train a student that reads no rationales on the probabilities and embeddings of a teacher.

    The teacher's targets for its train posts come from `folds` teachers, each trained like it on the other folds.
    The student is compared on the test posts with the teacher, with its own network trained without a teacher, and
    with the teacher without rationales. Called again, an interrupted distillation goes on.

    Args:
        teacher (`str` or `Path`): output folder of `train`, of one seed or several.
        posts (`Dataset` or `DatasetDict`): the posts of its training, with the same split.
        output_dir (`str` or `Path`): folder of the student with its card, metrics and predictions. `distillation` in
            it has the targets, and the networks trained without a teacher.
        recipe (`str` or `Path`, *optional*): recipe of the student; by default the arguments of the teacher.
        seeds (sequence of `int`, *optional*): seeds of students, in `output_dir/seed-N`; by default those of the
            teacher. Of a teacher with several seeds, student and teacher of one seed belong together.
        overwrite (`bool`, defaults to `False`): start again in a folder that holds another distillation.
        fields: those of [`DistillArguments`] (`unlabelled`, `folds`, `soft_temperature` …) and of
            [`~mpt_sentiment.train`], e.g. `modalities=["text"]`, by default text and image.

    Returns:
        [`TrainingResult`] of the student; `metrics["distillation"]` has the rows, cost and tokens.

    Raises:
        ValueError: no finished teacher, other posts than the teacher's, an unusable field, or posts that cannot be
            trained on.
    """
    given = fields | {"output_dir": str(output_dir), "overwrite": overwrite}
    if seeds is not None:
        given["seeds"] = list(seeds)
    plan = Plan.of(teacher, recipe, given)
    parts = split_parts(posts, plan.setup.data)
    if len(parts) > 1:
        raise ValueError("A distillation is of one split: name one fold with split_options={'fold': 3}.")
    return run_distillation(plan, *next(iter(parts.values())))


@dataclasses.dataclass(frozen=True)
class Plan:
    """Arguments of a distillation.

    Attributes:
        teachers (`dict`): teacher of each seed of a student.
        setup ([`TrainingSetup`]): arguments of the student.
        args ([`DistillArguments`]): what it learns from.
    """

    teachers: Mapping[int, Teacher]
    setup: TrainingSetup
    args: DistillArguments

    @classmethod
    def of(cls, folder: str | Path, recipe: str | Path | None, fields: Mapping[str, Any]) -> "Plan":
        """Read the teachers, and combine the arguments.

        Raises:
            ValueError: no finished teacher, or an unusable argument.
        """
        own = {field.name for field in dataclasses.fields(DistillArguments)}
        args = DistillArguments(**{name: value for name, value in fields.items() if name in own})
        fields = {name: value for name, value in fields.items() if name not in own}
        runs = sorted(path.parent for path in Path(folder).glob("seed-*/config.json"))
        several = bool(runs) and not (Path(folder) / "config.json").is_file()
        found = [Teacher.read(run) for run in (runs if several else [folder])]
        if several:
            fields = {"seeds": [teacher.seed for teacher in found]} | fields
        setup = student_setup(found[0], recipe, fields)
        seeds = setup.run.seeds or [setup.training.seed]
        of_seed = {teacher.seed: teacher for teacher in found} if several else dict.fromkeys(seeds, found[0])
        missing = [seed for seed in seeds if seed not in of_seed]
        if missing:
            raise ValueError(
                f"{folder} has no teacher of the seed {missing[0]}, but of {', '.join(map(str, of_seed))}."
            )
        return cls({seed: of_seed[seed] for seed in seeds}, setup, args)

    @property
    def output_dir(self) -> Path:
        """Return the folder of the results."""
        return Path(self.setup.training.output_dir)

    def folder(self, seed: int, *names: str) -> Path:
        """Return a folder of the run of a seed, below the output folder and `names`."""
        return self.output_dir.joinpath(*names, *([] if self.setup.run.seeds is None else [f"seed-{seed}"]))

    def teacher_folder(self, seed: int) -> Path:
        """Return the folder of the targets of a seed's teacher."""
        return self.output_dir / FOLDER / "teachers" / f"seed-{self.teachers[seed].seed}"


def run_distillation(plan: Plan, posts: DatasetDict, data: TrainingData) -> TrainingResult:
    """Train the students of a plan and compare them; what has finished is read.

    Args:
        plan ([`Plan`])
        posts (`DatasetDict`): train, validation and test.
        data ([`TrainingData`]): account of the posts.

    Raises:
        ValueError: other posts than the teacher's, or posts that cannot be trained on.
    """
    check_setup(plan.setup)
    digests = digests_of(posts)
    for teacher in plan.teachers.values():
        teacher.check_posts(digests, posts["train"].features["label"].names)
    extra, facts = None, {"unlabelled": 0}
    if plan.args.unlabelled is not None:
        extra, dropped = unlabelled_posts(plan.args.unlabelled, plan.args.unlabelled_options, posts)
        facts = {"unlabelled": len(extra), "left_out": dropped}
    setup = checked(plan.setup, posts)
    settings = run_settings(setup, posts, digests)
    students, alone = {}, {}
    with full_disk_named(plan.output_dir):
        for seed in plan.teachers:
            targets = targets_of_teacher(plan, seed, posts, extra, data, digests["content_hash"])
            students[seed] = train_student(plan, setup, seed, posts, extra, data, digests, targets)
            folder = plan.folder(seed, FOLDER, "without_teacher")
            alone[seed] = TrainingResult(folder, run_seed(setup, posts, data, settings, seed, folder))
        return compared(plan, setup, posts["test"], students, alone, facts)


def targets_of_teacher(
    plan: Plan, seed: int, posts: DatasetDict, extra: Dataset | None, data: TrainingData, digest: str
) -> Targets:
    """Let teachers read the train posts, cross-fitted, and the unlabelled ones."""
    teacher, folder, machine = plan.teachers[seed], plan.teacher_folder(seed), plan.setup.training
    targets = cross_fitted_targets(
        teacher,
        posts,
        data,
        folder,
        plan.args.folds,
        content_hash=digest,
        machine=machine,
        overwrite=plan.setup.run.overwrite,
    )
    if extra is None:
        return targets
    path = folder / f"unlabelled-{content_hash(DatasetDict(unlabelled=extra))}.npz"
    if not path.is_file():
        read = read_by(teacher.trainer(folder, machine), extra, OF_THE_RUN)
        if machine.should_save:
            read.save(path)
        PartialState().wait_for_everyone()
    return Targets.join([targets, Targets.load(path)])


def train_student(
    plan: Plan,
    setup: TrainingSetup,
    seed: int,
    posts: DatasetDict,
    extra: Dataset | None,
    data: TrainingData,
    digests: dict[str, str],
    targets: Targets,
) -> TrainingResult:
    """Train the student of a seed, or return its finished run."""
    if extra is not None:
        posts = DatasetDict(posts | {"train": concatenate_datasets([posts["train"], extra])})
        note = f"Posts without label in train, read by the teacher: {len(extra):,}"
        sizes = {name: len(split) for name, split in posts.items()}
        data = dataclasses.replace(data, sizes=sizes, notes=[*data.notes, note])
        digests = digests_of(posts)
        checked(setup, posts)
    settings = run_settings(setup, posts, digests)
    settings["training"] |= plan.args.recorded() | {"targets": targets_digest(targets)}
    trainer_class = functools.partial(DistillingTrainer, targets=targets, weights=plan.args.weights)
    folder = plan.folder(seed)
    return TrainingResult(folder, run_seed(setup, posts, data, settings, seed, folder, trainer_class))


def targets_digest(targets: Targets) -> str:
    """Hash targets to 16 hex digits."""
    digest = hashlib.sha256()
    for column in targets.columns().values():
        digest.update(column.tobytes())
    return digest.hexdigest()[:16]


def compared(
    plan: Plan,
    setup: TrainingSetup,
    test: Dataset,
    students: Mapping[int, TrainingResult],
    alone: Mapping[int, TrainingResult],
    facts: Mapping[str, Any],
) -> TrainingResult:
    """Score the four rows, and write them to the metrics and cards of the students."""
    several, folder = setup.run.seeds is not None, plan.output_dir
    first = next(iter(students.values()))
    if any("distillation" not in run.metrics for run in students.values()):
        report = report_of(plan, test, students, alone, facts)
        summary = aggregate_runs([run.test for run in students.values()], list(students)) if several else None
        for run in students.values():
            run.metrics["distillation"] = report
            if setup.training.should_save:
                write_card(run.output_dir, run.metrics, aggregate=summary)
                write_metrics(run.output_dir / METRICS_FILE, run.metrics)
    report = first.metrics["distillation"]
    if setup.training.should_log:
        ratio = report["cost"]["ratio"]
        print(f"\n{rows_text(report['rows'])}\nOperations of the teacher per post, student = 1: {ratio:.2f}")
    if not several:
        return first
    runs = list(students.values())
    metrics = {
        "test": aggregate_runs([run.test for run in runs], list(students)),
        "settings": {name: value for name, value in first.metrics["settings"].items() if name != "seed"},
        "distillation": report,
    }
    if setup.training.should_save:
        write_metrics(folder / METRICS_FILE, metrics)
    return TrainingResult(folder, metrics, tuple(runs))


def report_of(
    plan: Plan,
    test: Dataset,
    students: Mapping[int, TrainingResult],
    alone: Mapping[int, TrainingResult],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Score the rows, and count the cost per post of teacher and student.

    Returns:
        `rows`, `cost`, `rationale_tokens` (`None` if the teacher reads no rationales), and the options of the
        distillation.
    """
    file, paths = PREDICTIONS_FILES["test"], {}
    for seed, teacher in plan.teachers.items():
        own = plan.teacher_folder(seed)
        if own in paths:
            continue
        trainer = teacher.trainer(own, plan.setup.training)
        config = trainer.model.config
        reads = {TEACHER: test}
        if "rationales" in config.modalities and config.modalities != ["rationales"]:
            reads[WITHHELD] = without_rationales(test)
        paths[own] = {title: own / file.replace("predictions", title.replace(" ", "_")) for title in reads}
        for title, read in reads.items():
            write_teacher_predictions(trainer, read, paths[own][title])
    PartialState().wait_for_everyone()
    first = next(iter(students.values())).output_dir
    config, tokens = trainer.model.config, None
    if "rationales" in config.modalities:
        tokens = tokens_per_post(plan.setup.data.rationales, test, trainer.processing_class)
    student = SYSTEMS[plan.setup.model.model][1].from_pretrained(first)
    cost = {
        "teacher": operations_per_post(trainer.model, trainer.processing_class, test),
        "student": operations_per_post(student, MPTProcessor.from_pretrained(first), test),
        "unit": "floating-point operations of matrix products and convolutions, per forward of one test post",
    }
    dropout = getattr(config, "rationale_dropout", 0.0)
    remarks = {
        TEACHER: f"reads {', '.join(config.modalities)}",
        STUDENT: f"reads {', '.join(student.config.modalities)}",
        ALONE: "same network, recipe, seeds and labels",
        WITHHELD: f"trained with rationale_dropout {dropout:g}" if dropout else "trained with rationales in all posts",
    }
    predictions = {
        TEACHER: [own[TEACHER] for own in paths.values()],
        STUDENT: [run.output_dir / file for run in students.values()],
        ALONE: [run.output_dir / file for run in alone.values()],
        WITHHELD: [own[WITHHELD] for own in paths.values() if WITHHELD in own],
    }
    return {
        "rows": score_rows({title: runs for title, runs in predictions.items() if runs}, test, remarks),
        "cost": cost | {"ratio": cost["teacher"] / cost["student"]},
        "rationale_tokens": tokens,
        **plan.args.recorded(),
        **facts,
    }
