"""Distillation of a tiny teacher: rows, card, resumption, unlabelled posts, refusals."""

import csv
import json
import shutil
import types
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor

import mpt_sentiment as mpt
from dataset_scripts.writing.hub import plan_push
from helpers import tiny_processor
from helpers.train_command import SAMPLE_OPTIONS, TINY_FIELDS
from mpt_sentiment import commands
from mpt_sentiment.backbones import build
from mpt_sentiment.distilling import cost
from mpt_sentiment.distilling import teacher as teachers
from mpt_sentiment.distilling.arguments import student_setup
from mpt_sentiment.distilling.cost import operations_per_post
from mpt_sentiment.distilling.run import Plan
from mpt_sentiment.distilling.teacher import Teacher, fold_of_posts
from mpt_sentiment.recipe import training_setup
from mpt_sentiment.run_identity import run_settings

ONE_EPOCH = {"num_train_epochs": 1, "rationale_dropout": 0.2, "lr_scheduler_kwargs": {"num_cycles": 0.4}}
DATA = ["--dataset_options", json.dumps(SAMPLE_OPTIONS)]
TITLES = ["teacher", "student", "student's network trained without a teacher", "teacher with rationales withheld"]


@pytest.fixture(scope="module")
def posts():
    return mpt.split_posts(mpt.load_posts("sample", **SAMPLE_OPTIONS))


@pytest.fixture(scope="module")
def teacher(posts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    mpt.train(posts, folder, **TINY_FIELDS | ONE_EPOCH)
    return folder


@pytest.fixture(scope="module")
def student(teacher, tmp_path_factory) -> Path:
    """Folder of a student that the command trained."""
    folder = tmp_path_factory.mktemp("student") / "run"
    assert commands.main(["distill", str(teacher), "--output_dir", str(folder), "--folds", "2", *DATA]) == 0
    return folder


def test_metrics_and_card_have_the_four_rows_with_paired_differences(student, posts):
    report = json.loads((student / "metrics.json").read_text())["distillation"]
    assert [row["title"] for row in report["rows"]] == TITLES
    for row in report["rows"]:
        low, high = row["f1_weighted"]["interval"]
        assert low <= row["f1_weighted"]["mean"] <= high
        assert (row["difference_f1_weighted"] is None) == (row["title"] == "student")
    assert report["rows"][3]["remark"] == "trained with rationale_dropout 0.2"
    assert report["cost"]["ratio"] == report["cost"]["teacher"] / report["cost"]["student"] > 1
    assert report["rationale_tokens"]["written"] > 10 and report["rationale_tokens"]["read"] is None
    card = (student / "README.md").read_text()
    assert "### Learnt from a teacher" in card and all(title in card for title in TITLES)
    assert str(student.parent) not in card


def test_the_student_is_a_plain_folder_that_reads_text_and_image(student, posts):
    model = AutoModelForSequenceClassification.from_pretrained(student, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(student, trust_remote_code=True)
    assert model.config.modalities == ["text", "image"]
    assert not [name for name in model.state_dict() if "projection" in name and not name.startswith("mpt.")]
    assert "config.json" in (sent := plan_push(student, "me/student").files)
    assert not [name for name in sent if name.startswith("distillation")]
    post = posts["test"][0]
    assert model(**processor(images=post["image"], text=post["text"])).logits.shape == (1, 3)
    assert set(mpt.predict(student, posts["test"])["id"]) == set(posts["test"]["id"])


def test_the_recorded_settings_of_a_run_repeat_it(teacher, posts, tmp_path):
    found = Teacher.read(teacher)
    setup = found.setup(tmp_path, training_setup([], {"output_dir": str(tmp_path), "bf16": False}).training)
    again = json.loads(json.dumps(run_settings(setup, posts) | {"seed": setup.training.seed}))
    assert again == found.settings


def test_the_same_command_again_trains_nothing_and_other_options_are_refused(teacher, student, monkeypatch, capsys):
    before = (student / "metrics.json").stat().st_mtime_ns
    words = ["distill", str(teacher), "--output_dir", str(student), "--folds", "2", *DATA]
    assert commands.main(words) == 0
    assert (student / "metrics.json").stat().st_mtime_ns == before
    assert "teacher with rationales withheld" in capsys.readouterr().out
    assert commands.main([*words, "--soft_temperature", "3"]) == 1
    assert "other settings (soft_temperature)" in capsys.readouterr().err


def test_a_run_that_was_killed_between_teachers_goes_on_to_the_same_student(
    teacher, student, posts, tmp_path, monkeypatch
):
    trained, calls = teachers.trained, []

    def killed_in_the_second(*given, **options):
        calls.append(given[0].training.output_dir)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trained(*given, **options)

    monkeypatch.setattr(teachers, "trained", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        mpt.distill(teacher, posts, tmp_path / "run", folds=2)
    result = mpt.distill(teacher, posts, tmp_path / "run", folds=2)
    assert [Path(folder).name for folder in calls] == ["fold-0", "fold-1", "fold-1"]
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (student / "model.safetensors").read_bytes()
    assert result.metrics["distillation"] == json.loads((student / "metrics.json").read_text())["distillation"]


def test_no_teacher_of_a_fold_sees_the_posts_that_it_reads(student, posts):
    fold_of_row = fold_of_posts(posts, 2, seed=42)
    for fold in (0, 1):
        folder = student / "distillation" / "teachers" / "seed-42" / f"fold-{fold}"
        read = set(teachers.Targets.load(folder / "targets.npz").ids.tolist())
        assert read == {post_id for post_id, own in zip(posts["train"]["id"], fold_of_row, strict=True) if own == fold}
    again = fold_of_posts(
        posts
        | {
            "train": posts["train"].add_column(
                "group", ["one"] * 20 + list("abcdefghij" * 10)[: len(posts["train"]) - 20]
            )
        },
        2,
        seed=1,
    )
    assert len(set(again[:20])) == 1  # a group stays together


def test_unlabelled_posts_are_read_by_the_teacher_and_held_out_posts_are_left_out(
    teacher, student, posts, tmp_path, caplog
):
    table = tmp_path / "more.csv"
    rows = [{"id": f"new{index}", "text": f"a fine day {index} at the harbour"} for index in range(20)]
    rows += [{"id": "copy", "text": posts["test"][0]["text"].upper()}]
    rows += [{"id": posts["train"][0]["id"], "text": "an id of train"}]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"])
        writer.writeheader()
        writer.writerows(rows)
    run, targets = tmp_path / "run", Path("distillation", "teachers")
    shutil.copytree(student / targets, run / targets)  # the targets of finished folds are used again
    fields = {"modalities": ["text"], "contrastive_view": "fused", "seeds": [1, 2]}
    result = mpt.distill(teacher, posts, run, folds=2, unlabelled=str(table), **fields)
    report = result.metrics["distillation"]
    assert report["unlabelled"] == 20 and sum(report["left_out"].values()) == 2
    assert {row["title"]: row["num_runs"] for row in report["rows"]} == dict(zip(TITLES, (1, 2, 2, 1), strict=True))
    assert result.test["seeds"] == [1, 2]
    assert result.runs[0].metrics["split"]["sizes"]["train"] == len(posts["train"]) + 20
    card = (run / "seed-1" / "README.md").read_text()
    assert "Posts without label in train, read by the teacher: 20" in card and "Over 2 training seeds" in card
    assert "1 unlabelled posts are left out: text or image of a validation or test post" in caplog.text
    alone = json.loads((run / "distillation" / "without_teacher" / "seed-1" / "metrics.json").read_text())
    assert alone["split"]["sizes"]["train"] == len(posts["train"])
    assert not list((run / targets).rglob("model.safetensors"))


def test_students_of_a_teacher_with_several_seeds_learn_from_that_of_their_seed(teacher, tmp_path):
    shutil.copytree(teacher, tmp_path / "seed-42")
    fields = {"output_dir": str(tmp_path / "run"), "bf16": False}
    plan = Plan.of(tmp_path, None, fields)
    assert plan.setup.run.seeds == [42] and plan.teachers[42].folder == tmp_path / "seed-42"
    assert plan.folder(42) == tmp_path / "run" / "seed-42"
    with pytest.raises(ValueError, match="no teacher of the seed 7, but of 42"):
        Plan.of(tmp_path, None, fields | {"seeds": [42, 7]})


def test_a_student_with_other_encoders_keeps_the_teachers_other_arguments(teacher, tmp_path):
    found = Teacher.read(teacher)
    small = TINY_FIELDS["text_config"] | {"hidden_size": 8}
    setup = student_setup(found, None, {"output_dir": str(tmp_path), "text_config": small})
    assert setup.model.text_config["hidden_size"] == 8 and setup.model.vision_config == TINY_FIELDS["vision_config"]
    assert setup.training.learning_rate == 1e-3 and setup.model.rationale_dropout is None
    assert setup.model.modalities == ["text", "image"]
    other = student_setup(found, "baselines/late_fusion", {"output_dir": str(tmp_path)})
    assert other.model.model == "late_fusion" and other.training.seed == 42


def test_operations_are_counted_in_every_kind_of_layer(posts):
    counted = {}
    for branches in (["mean"], ["mean", "lstm"]):
        setup = training_setup(["sample"], TINY_FIELDS | {"output_dir": "unused", "text_branches": branches})
        processor, network = build(setup.model, posts["train"])
        counted[len(branches)] = operations_per_post(network, processor, posts["test"])
        lstm = [module for module in network.modules() if isinstance(module, torch.nn.LSTM)]
    tokens = sum(map(len, processor.token_ids(posts["test"]["text"][:]))) / len(posts["test"])
    products = 2 * sum(
        weight.numel() for module in lstm for name, weight in module.named_parameters() if "weight" in name
    )
    assert counted[2] - counted[1] > 0.9 * tokens * products > 0  # the projection of the mean is smaller with it


def test_tokens_are_those_of_the_server_where_a_store_has_them(posts, tmp_path, monkeypatch):
    processor = tiny_processor.processor()
    ids = posts["test"]["id"][:]
    rows = [
        {"id": post_id, "prompt_tokens_positive": 90, "completion_tokens_positive": 30} for post_id in (*ids, "other")
    ]
    rows[-1]["completion_tokens_positive"] = 9999
    store = types.SimpleNamespace(open=lambda path: types.SimpleNamespace(rows=lambda: iter(rows)))
    monkeypatch.setattr(cost, "RationaleStore", store)
    monkeypatch.setattr(cost, "is_store", lambda path: path == "store")
    found = cost.tokens_per_post("store", posts["test"], processor)
    assert (found["read"], found["written"]) == (90, 30) and "counts of the server in store" in found["source"]
    found = cost.tokens_per_post("table.tsv", posts["test"], processor)
    assert found["read"] is None and "counted with the teacher's tokenizer" in found["source"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere has no metrics.json"),
        ([], "Name the teacher first"),
        (["TEACHER", "--folds", "1"], "`folds` must be 2 or more"),
        (["TEACHER", "--folds", "30"], "`folds` must be 2 to "),
        (["TEACHER", "--modalities", "text", "rationales"], "--modalities text image"),
        (["TEACHER", "--model", "vit", "--use_rationales", "true"], "--use_rationales false"),
        (["TEACHER", "--lora", "true"], "--lora false"),
        (["TEACHER", "--split_seed", "7"], "not those of the teacher"),
        (["TEACHER", "--soft_label_weight", "0", "--embedding_weight", "0"], "learn nothing"),
        (["TEACHER", "--unlabelled", "missing.csv"], "missing.csv"),
    ],
)  # fmt: skip
def test_what_cannot_be_distilled_is_refused_in_one_line(teacher, tmp_path, capsys, words, message):
    words = [str(teacher) if word == "TEACHER" else word for word in words]
    assert commands.main(["distill", *words, "--output_dir", str(tmp_path / "run"), *DATA]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ") and message in line and len(line) < 410


def test_the_folder_of_the_student_must_be_named(teacher, capsys):
    assert commands.main(["distill", str(teacher), *DATA]) == 1
    assert "--output_dir FOLDER" in capsys.readouterr().err
