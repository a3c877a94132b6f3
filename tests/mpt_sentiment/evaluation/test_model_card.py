"""Model card: valid metadata, the facts of the run, no path of the machine."""

import ast
import re
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import ModelCard

from mpt_sentiment.evaluation import TrainingData, aggregate_runs, environment, evaluate_predictions, write_model_card

NAMES = ["positive", "neutral", "negative"]


def config(**changed):
    values = {
        "model_type": "mpt_sentiment",
        "weights_returned": ["modality_weights", "perspective_weights"],
        "perspectives": NAMES,
        "modalities": ["text", "image", "rationales"],
        "text_branches": ["sknet", "lstm"],
        "image_branches": ["cnn", "vit"],
        "text_config": SimpleNamespace(_name_or_path="google-bert/bert-base-uncased"),
        "vision_config": SimpleNamespace(_name_or_path="/home/someone/models/vit"),
        "cnn_config": None,
    }
    return SimpleNamespace(**values | changed)


def report(signal=2.0):
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 120, p=[0.6, 0.1, 0.3])
    logits = rng.normal(size=(120, 3))
    logits[np.arange(120), labels] += signal
    return evaluate_predictions(logits, labels, NAMES)


def write(folder, **changed):
    arguments = {
        "config": config(),
        "metrics": report(),
        "data": TrainingData(
            name="/home/someone/data/My posts",
            sizes={"train": 960, "validation": 120, "test": 120},
            protocol="grouped",
            split_seed=42,
            split_hash="0a1b2c",
            dropped={"opposite polarities": 358},
            notes=["Rationales from /home/someone/rationales.tsv."],
        ),
        "hyperparameters": {"learning_rate": 1e-5, "output_dir": "/home/someone/runs/first", "warmup_steps": None},
        "num_parameters": 1_234_567,
        "num_trainable_parameters": 890_123,
        "environment": environment(),
    } | changed
    return write_model_card(folder, **arguments)


def test_the_header_is_valid_and_carries_the_scores(tmp_path):
    metrics = report()
    header = ModelCard.load(write(tmp_path / "my-model", metrics=metrics)).data
    assert header.license == "apache-2.0" and header.library_name == "transformers"
    assert header.base_model == ["google-bert/bert-base-uncased"]
    assert "mpt_sentiment" in header.tags
    scores = {result.metric_name: result.metric_value for result in header.eval_results}
    assert scores["Accuracy"] == pytest.approx(metrics["accuracy"], abs=1e-4)
    assert scores["Weighted F1"] == pytest.approx(metrics["f1_weighted"], abs=1e-4)
    assert {result.dataset_split for result in header.eval_results} == {"test"}
    assert header.model_name == "my-model"


def test_the_card_has_every_section_and_the_run_in_it(tmp_path):
    metrics = report()
    runs = aggregate_runs([metrics, report(1.0)], seeds=[1, 2])
    text = write(tmp_path, metrics=metrics, aggregate=runs, best_epoch=3.0).read_text()
    sections = ["How to use", "Results", "Training data", "Training", "Limitations", "Citation"]
    assert re.findall(r"^## (.+)$", text, re.M) == sections
    low, high = metrics["intervals"]["accuracy"]
    accuracy = f"| Accuracy | **{100 * metrics['accuracy']:.1f}** | {100 * low:.1f} – {100 * high:.1f} |"
    assert f"{accuracy} {100 * metrics['majority']['accuracy']:.1f} |" in text
    for expected in (
        "2 training seeds",
        "| Seed 1 | Seed 2 |",
        "`grouped`",
        "`0a1b2c`",
        "opposite polarities | 358",
        "1,234,567",
    ):
        assert expected in text
    score = runs["f1_macro"]
    shares = (score["mean"], score["std"], *score["values"], runs["majority"]["f1_macro"]["mean"])
    assert "| Macro F1 | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |" in text
    for expected in ("890,123", "`1e-05`", "Epoch 3 was kept", "10.1145/3746252.3761328", "| neutral |"):
        assert expected in text
    assert "warmup_steps" not in text and "{{" not in text


def test_the_card_holds_no_path_of_the_machine(tmp_path):
    text = write(tmp_path).read_text()
    assert "someone" not in text and str(tmp_path) not in text
    assert "My posts" in text


def test_the_example_is_python_and_follows_the_modalities(tmp_path):
    def example(**changed):
        code = re.search(r"```python\n(.*?)```", write(tmp_path, **changed).read_text(), re.S)[1]
        ast.parse(code)
        return code

    assert "images=" in example() and '"negative": ' in example()
    text_only = example(config=config(modalities=["text"]))
    assert "images=" not in text_only and "rationales=" not in text_only


def test_the_card_has_a_part_only_if_the_run_gives_reason_for_it(tmp_path):
    data = TrainingData("MPT sample", {"train": 10, "validation": 2, "test": 2}, synthetic=True)
    plain = write(tmp_path).read_text()
    parts = {
        "**This model is a demonstration.**": {"data": data},
        "do not show that it learnt": {"metrics": report(signal=0.0)},
    }
    for part, changed in parts.items():
        assert part in write(tmp_path, **changed).read_text() and part not in plain
    assert "![" not in plain
    (tmp_path / "confusion_matrix.png").write_bytes(b"")
    assert "![Confusion matrix](confusion_matrix.png)" in write(tmp_path).read_text()


def test_a_run_of_an_earlier_version_has_no_part_on_calibration(tmp_path):
    names = ("calibrated_error", "nll", "brier", "reliability", "risk_coverage")
    earlier = {name: value for name, value in report().items() if name not in names}
    runs = aggregate_runs([earlier, report()], seeds=[1, 2])
    assert "nll" not in runs and "expected_calibration_error" in runs
    assert "Calibration" not in write(tmp_path, metrics=earlier, aggregate=runs).read_text()
    text = write(tmp_path).read_text()  # no temperature was fitted, as in a linear baseline
    assert "### Calibration" in text and "| Brier score | " in text and "Before" not in text


def test_a_baseline_is_described_with_its_providers_and_remark(tmp_path):
    changes = {"model_type": "mpt_clmlf", "title": "CLMLF", "source": "Li et al., NAACL 2022", "use_rationales": True}
    changes |= {"remark": "a reconstruction", "providers": {"text": "encoder", "image": "cnn_grid"}}
    text = write(tmp_path, config=config(**changes)).read_text()
    assert "baseline CLMLF (Li et al., NAACL 2022)" in text and "Remark: a reconstruction." in text
    assert "text `encoder`, image `cnn_grid`" in text and "as in MPT" in text


def test_the_card_says_that_no_encoder_of_images_was_pretrained(tmp_path):
    assert "- Untrained images: all its encoders" in write(tmp_path, config=config(untrained_images=True)).read_text()
    assert "Untrained" not in write(tmp_path, config=config(untrained_images=False)).read_text()


def test_the_card_lists_the_adapters_of_a_lora_training(tmp_path):
    lora = {"r": 8, "alpha": 16, "dropout": 0.1, "target_modules": r".*\.(query|value)", "merged": True}
    text = write(tmp_path, lora=lora).read_text()
    assert "merged into the weights" in text and "| rank r | 8 |" in text and r"| `.*\.(query\|value)` |" in text
    assert "LoRA" not in write(tmp_path).read_text()


def test_a_dataset_on_the_hub_is_linked(tmp_path):
    data = TrainingData("MVSA-Single", {"train": 10}, hub_id="someone/mvsa-single")
    path = write(tmp_path, data=data)
    assert ModelCard.load(path).data.datasets == ["someone/mvsa-single"]
    assert "(https://huggingface.co/datasets/someone/mvsa-single)" in path.read_text()


def test_the_card_says_that_no_post_was_dropped_only_if_that_is_known(tmp_path):
    assert "No post was left out" in write(tmp_path, data=TrainingData("A", {"test": 9}, dropped={})).read_text()
    assert "left out" not in write(tmp_path, data=TrainingData("A", {"test": 9})).read_text()
