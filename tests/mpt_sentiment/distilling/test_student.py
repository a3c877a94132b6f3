"""Loss of a student: alignment of targets, weights of its terms, and whole optimizer steps."""

import copy
import dataclasses

import datasets
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import mpt_sentiment as mpt
from helpers.train_command import SAMPLE_OPTIONS, TINY_FIELDS
from helpers.training_runs import Gradients
from modeling_mpt import MPTTrainer
from modeling_mpt.features import FeatureDataset
from mpt_sentiment.backbones import build
from mpt_sentiment.distilling.student import NO_LABEL, DistillingTrainer, LossWeights, StudentWithTargets
from mpt_sentiment.distilling.targets import Targets, read_by
from mpt_sentiment.recipe import training_setup

FIELDS = TINY_FIELDS | {"modalities": ["text", "image"], "dropout": 0.0, "max_steps": 1, "num_train_epochs": 1}
FIELDS |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "max_grad_norm": 1e9}
FIELDS |= {"logging_strategy": "steps", "logging_steps": 1, "learning_rate": 1e-3, "report_to": ["none"]}
SOFT_ALONE = LossWeights(labels=0.0, soft_labels=1.0, embeddings=0.0, temperature=2.0)


@pytest.fixture(scope="module")
def posts() -> datasets.Dataset:
    return mpt.split_posts(mpt.load_posts("sample", **SAMPLE_OPTIONS))["train"].select(range(12))


class Run:
    """A tiny student of one optimizer step, without dropout in any layer."""

    def __init__(self, posts, folder, **fields):
        text = TINY_FIELDS["text_config"] | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        setup = training_setup(["sample"], FIELDS | {"text_config": text, "output_dir": str(folder)} | fields)
        torch.manual_seed(0)
        self.args, self.posts = setup.training, posts
        self.processor, self.network = build(setup.model, posts)
        with torch.no_grad():
            self.network.classifier[-1].weight *= 300  # probabilities that differ between posts

    def own_outputs(self) -> Targets:
        """Read the posts with the student itself: with these targets, the divergence is 0."""
        trainer = MPTTrainer(model=self.network, args=self.args, processing_class=self.processor)
        return read_by(trainer, self.posts, 0)

    def trainer(self, targets, weights=SOFT_ALONE, **changes) -> DistillingTrainer:
        args = copy.copy(self.args)
        for name, value in changes.items():
            setattr(args, name, value)
        network = copy.deepcopy(self.network)
        return DistillingTrainer(
            network, args, self.posts, processing_class=self.processor, targets=targets, weights=weights
        )

    def logged(self, targets, weights=SOFT_ALONE, **changes) -> dict[str, float]:
        """Return the losses of the first step."""
        trainer = self.trainer(targets, weights, **changes)
        trainer.train()
        return trainer.state.log_history[0]


def shuffled(targets: Targets, *names: str) -> Targets:
    """Reverse the order of some columns."""
    return dataclasses.replace(targets, **{name: targets.columns()[name][::-1].copy() for name in names})


@pytest.mark.parametrize("fields", [{}, {"freeze_text_layers": -1, "freeze_vision_layers": -1, "freeze_cnn": True}])
def test_each_post_meets_its_own_target_with_and_without_stored_features(posts, tmp_path, fields):
    run = Run(posts, tmp_path, **fields)
    own = run.own_outputs()
    in_another_order = shuffled(own, *own.columns())
    of_other_posts = shuffled(own, "ids")
    assert isinstance(run.trainer(own).with_features(posts)[0], FeatureDataset) == bool(fields)
    assert run.logged(in_another_order)["loss_soft_labels"] == pytest.approx(0, abs=0.01)
    assert run.logged(of_other_posts)["loss_soft_labels"] > 0.1


def test_posts_without_a_target_and_repeated_ids_are_refused(posts, tmp_path):
    targets = Targets(np.array(["a", "b"]), np.zeros((2, 3)), np.zeros((2, 4)), np.zeros(2, int))
    assert targets.of_posts(["b"]).ids.tolist() == ["b"]
    with pytest.raises(ValueError, match="1 of 2 posts have no target .*'c'"):
        targets.of_posts(["b", "c"])
    with pytest.raises(ValueError, match="id of another post"):
        Targets.join([targets, targets]).of_posts(["a"])


def test_targets_survive_their_file(tmp_path):
    targets = Targets(np.array(["1", "zwei"]), np.eye(2, dtype=np.float32), np.ones((2, 4)), np.array([0, 3]))
    targets.save(tmp_path / "targets.npz")
    loaded = Targets.load(tmp_path / "targets.npz").columns()
    for name, column in targets.columns().items():
        assert (loaded[name] == column).all()


def test_an_accumulated_step_has_the_gradients_of_the_whole_batch(posts, tmp_path):
    run = Run(posts.select(range(8)), tmp_path)
    own = run.own_outputs()
    targets = dataclasses.replace(shuffled(own, "logits", "embeds"), teachers=np.arange(8) % 3)
    weights = LossWeights(labels=0.5, soft_labels=0.7, embeddings=0.3, temperature=2.0)
    found = []
    for size, steps in ((8, 1), (2, 4)):
        trainer = run.trainer(
            targets,
            weights,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            train_sampling_strategy="sequential",
        )
        gradients = Gradients()
        with torch.no_grad():
            trainer.model.projection.weight.copy_(
                torch.linspace(-1, 1, trainer.model.projection.weight.numel()).view_as(trainer.model.projection.weight)
            )
        trainer.add_callback(gradients)
        trainer.train()
        found.append((gradients.steps[0], trainer.state.log_history[0]))
    (whole, log), (split, other_log) = found
    assert whole["projection.weight"].abs().sum() > 0
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
    for term in ("loss", "loss_ce", "loss_soft_labels", "loss_embeddings"):
        assert log[term] == pytest.approx(other_log[term], rel=1e-4), term


def test_the_loss_is_the_weighted_sum_of_its_terms_and_labels_count_by_their_share(posts, tmp_path):
    run = Run(posts.select(range(4)), tmp_path, loss_weight_mlcl=0.0)
    targets = Targets(
        np.array(posts["id"][:4]), np.array([[4.0, 0, 0], [0, 2, 1], [1, 1, 1], [0, 0, 3]], np.float32),
        np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32), np.array([0, 1, 1, 0]),
    )  # fmt: skip
    labels = np.array([2, NO_LABEL, NO_LABEL, 1])
    weights = LossWeights(labels=0.5, soft_labels=0.7, embeddings=0.3, temperature=2.0)
    student = StudentWithTargets(run.network, targets, labels, weights, 16).train()
    logits, projected = torch.randn(3, 3), torch.randn(3, 2, 5)
    outputs = dict.fromkeys(run.network.loss_inputs) | {"logits": logits, "projected_embeds": projected}
    losses = student.compute_losses(torch.tensor([3, 1, 0]), **outputs)
    teacher = torch.tensor(targets.logits)[[3, 1, 0]]
    soft = 4 * F.kl_div((logits / 2).log_softmax(-1), (teacher / 2).softmax(-1), reduction="batchmean")
    axes = torch.stack([projected[0, 0], projected[1, 1], projected[2, 0]])
    distance = 1 - F.cosine_similarity(axes, torch.tensor(targets.embeds)[[3, 1, 0]]).mean()
    hard = F.cross_entropy(logits[[0, 2]], torch.tensor([1, 2]))
    assert losses["loss"] == pytest.approx(float(0.5 * 2 / 3 * hard + 0.7 * soft + 0.3 * distance), rel=1e-5)
    none = student.compute_losses(torch.tensor([1, 2]), **{k: v if v is None else v[:2] for k, v in outputs.items()})
    assert torch.isfinite(none["loss"]) and "loss_ce" not in none


def test_after_training_the_model_is_the_student_alone(posts, tmp_path):
    run = Run(posts, tmp_path)
    trainer = run.trainer(run.own_outputs(), dataclasses.replace(SOFT_ALONE, embeddings=0.5))
    trainer.train()
    assert type(trainer.model) is type(run.network)
    assert {*trainer.model.state_dict()} == {*run.network.state_dict()}
    assert trainer.predict(posts).predictions is not None
