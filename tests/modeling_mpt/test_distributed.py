"""Tests of training with two processes: same losses, gradients and weights as one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.training_runs import RESUMES_ON_CPUS, VIEWS, arguments, collate, posts, steps_of_one_epoch, tiny_model
from modeling_mpt import MPTTrainer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> dict:
    target = tmp_path_factory.mktemp("two_processes") / "results.pt"
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        + [str(ROOT / "tests" / "helpers" / "training_runs.py"), str(target)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=target.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-5000:]
    results = torch.load(target, weights_only=False)
    assert results["num_processes"] == 2
    return results


def assert_same_steps(steps: dict, expected: dict) -> None:
    for name in ("loss", "loss_ce", "loss_mlcl", "grad_norm"):
        assert steps[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    assert len(steps["gradients"]) == len(expected["gradients"])
    for actual, reference in zip(steps["gradients"], expected["gradients"], strict=True):
        for name, gradient in reference.items():
            torch.testing.assert_close(
                actual[name], gradient, rtol=1e-3, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
            )


@pytest.mark.parametrize("view", VIEWS)
def test_two_processes_with_8_posts_give_loss_and_gradients_of_one_with_16(two_processes, view):
    expected = steps_of_one_epoch(tiny_model(contrastive_view=view), posts(16), batch=16, accumulation=1)
    assert_same_steps(two_processes[view], expected)


def test_batches_without_rationales_train_on_two_processes(two_processes):
    expected = steps_of_one_epoch(tiny_model(), posts(8, rationales=False), batch=8, accumulation=1)
    assert_same_steps(two_processes["no rationales"], expected)


def test_one_rationale_in_an_accumulated_batch_of_one_process_trains_its_layers(two_processes):
    rows = posts(16, rationales=False)
    rows[3] = posts(16)[3]
    expected = steps_of_one_epoch(tiny_model(), rows, batch=16, accumulation=1)
    assert_same_steps(two_processes["one rationale"], expected)
    gradient = two_processes["one rationale"]["gradients"][0]["mpt.perspective_attention.values.0.weight"]
    assert gradient.abs().sum() > 0


def test_parts_of_the_evaluation_loss_are_means_over_the_posts_of_all_processes(two_processes, tmp_path):
    trainer = MPTTrainer(
        tiny_model(), arguments(tmp_path, per_device_eval_batch_size=8), data_collator=collate, eval_dataset=posts(16)
    )
    expected = trainer.evaluate()
    for name in ("eval_loss", "eval_loss_ce", "eval_loss_mlcl"):
        assert two_processes["evaluation"][name] == pytest.approx(expected[name], rel=1e-4)


@pytest.mark.skipif(not RESUMES_ON_CPUS, reason="transformers before 5.18 cannot resume several processes on CPUs")
def test_two_processes_resume_to_the_weights_of_the_uninterrupted_run_bit_for_bit(two_processes):
    expected, resumed = two_processes["uninterrupted"], two_processes["resumed"]
    assert [name for name in expected if not torch.equal(expected[name], resumed[name])] == []
