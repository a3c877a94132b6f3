"""Tests of the losses against loops written from the text of their papers."""

import math

import pytest
import torch
from torch.nn import functional as F

from helpers import tiny
from modeling_mpt.loss_mpt import (
    classification_loss,
    cross_modal_contrastive_loss,
    supervised_contrastive_loss,
)

LABELS = [0, 1, 0, 2, 2, 2, 0]  # 1 is seen once


def vectors(count: int = len(LABELS), seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def cosine(a: list[float], b: list[float]) -> float:
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms


def algorithm_1(labels: list[int]) -> list[list[int]]:
    return [[int(one == other) for other in labels] for one in labels]


def algorithm_2(texts, images, labels: list[int], temperature: float, epsilon: float) -> float:
    """Compute Algorithm 2 line by line, averaged over N."""
    return algorithm_2_as_written(texts, images, labels, temperature, epsilon) / len(labels)


def algorithm_2_as_written(texts, images, labels: list[int], temperature: float = 1.0, epsilon: float = 1e-8) -> float:
    """Compute Algorithm 2 line by line."""
    n = len(labels)
    mask = algorithm_1(labels)
    s = [[cosine(texts[t], images[i]) / temperature for i in range(n)] for t in range(n)]
    total = 0.0
    for i in range(n):
        positives = [t for t in range(n) if mask[t][i]]  # C(i)
        inner = 0.0
        for t in positives:
            s_plus = s[t][i] * mask[t][i]
            denominator = epsilon
            for j in range(n):
                if j != i:
                    denominator += math.exp(s[t][j])
            inner += math.log(math.exp(s_plus) / denominator)
        total += inner / len(positives)
    return -total


def supervised_contrastive(vectors, labels: list[int], temperature: float) -> float:
    """Compute L_out, Eq. 2 of Supervised Contrastive Learning."""
    n = len(labels)
    total = 0.0
    for i in range(n):
        others = [a for a in range(n) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        denominator = sum(math.exp(cosine(vectors[i], vectors[a]) / temperature) for a in others)
        for p in positives:
            score = math.exp(cosine(vectors[i], vectors[p]) / temperature)
            total += -math.log(score / denominator) / len(positives)
    return total / n


def both_losses(a, b, labels, temperature=0.1) -> list[torch.Tensor]:
    return [
        cross_modal_contrastive_loss(a, b, labels, temperature),
        supervised_contrastive_loss(a, labels, temperature),
    ]


@pytest.mark.parametrize(("temperature", "epsilon"), [(1.0, 1e-8), (0.03, 1e-8), (0.1, 0.5)])
@pytest.mark.parametrize("labels", [LABELS, [0] * 7, list(range(7)), [1, 0]], ids=str)
def test_cross_modal_loss_is_algorithm_2(temperature, epsilon, labels):
    texts, images = vectors(len(labels), 1), vectors(len(labels), 2)
    loss = cross_modal_contrastive_loss(texts, images, torch.tensor(labels), temperature, epsilon)
    assert loss.item() == pytest.approx(
        algorithm_2(texts.tolist(), images.tolist(), labels, temperature, epsilon), rel=1e-5
    )


@pytest.mark.parametrize("labels", [LABELS, [0] * 7, [1, 0]], ids=str)
def test_the_sum_at_temperature_1_is_algorithm_2_as_written(labels):
    texts, images = vectors(len(labels), 1), vectors(len(labels), 2)
    loss = cross_modal_contrastive_loss(texts, images, torch.tensor(labels), reduction="sum")
    assert loss.item() == pytest.approx(algorithm_2_as_written(texts.tolist(), images.tolist(), labels), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.03])
@pytest.mark.parametrize("labels", [LABELS, [0] * 7, list(range(4))], ids=str)
def test_fused_loss_is_the_supervised_contrastive_loss(temperature, labels):
    fused = vectors(len(labels), 3)
    loss = supervised_contrastive_loss(fused, torch.tensor(labels), temperature)
    assert loss.item() == pytest.approx(
        supervised_contrastive(fused.tolist(), labels, temperature), rel=1e-5, abs=1e-5
    )


CASES = {
    "batch of one": (vectors(1), vectors(1, 9), [0]),
    "batch of two": (vectors(2), vectors(2, 9), [0, 1]),
    "one class only": (vectors(), vectors(7, 9), [1] * 7),
    "a class seen once": (vectors(), vectors(7, 9), LABELS),
    "identical vectors": (torch.ones(7, 5), torch.ones(7, 5), LABELS),
    "opposite vectors": (torch.ones(7, 5), -torch.ones(7, 5), LABELS),
    "zero vectors": (torch.zeros(7, 5), torch.zeros(7, 5), LABELS),
    "huge and tiny vectors": (vectors() * 1e15, vectors(7, 9) * 1e-15, LABELS),
    "no post at all": (torch.zeros(0, 5), torch.zeros(0, 5), []),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_loss_and_gradient_are_finite(case, temperature):
    *pair, labels = CASES[case]
    for index in range(2):
        a, b = (vector.clone().requires_grad_() for vector in pair)
        loss = both_losses(a, b, torch.tensor(labels, dtype=torch.long), temperature)[index]
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(a.grad).all() and (b.grad is None or torch.isfinite(b.grad).all())


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_gradient_is_the_derivative_of_the_loop(temperature):
    """Central differences of the loops, which share no code with the losses."""
    texts, images, labels = vectors(seed=1), vectors(seed=2), torch.tensor(LABELS)
    step = 1e-5
    loops = [
        lambda v: algorithm_2(v, images.tolist(), LABELS, temperature, 1e-8),
        lambda v: supervised_contrastive(v, LABELS, temperature),
    ]
    for index, loop in enumerate(loops):
        variable = texts.clone().requires_grad_()
        both_losses(variable, images, labels, temperature)[index].backward()
        for row, column in ((0, 0), (1, 2), (5, 4)):
            up, down = texts.double().tolist(), texts.double().tolist()
            up[row][column] += step
            down[row][column] -= step
            slope = (loop(up) - loop(down)) / (2 * step)
            assert variable.grad[row, column].item() == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_a_dominant_term_leaves_the_denominator_exact():
    # exp(1 / 0.01) = 2.7e43: subtracting it from a sum would lose all digits of the rest.
    texts = torch.eye(5)[:3]
    images = torch.eye(5)[:3]
    loss = cross_modal_contrastive_loss(texts, images, torch.arange(3), temperature=0.01)
    assert loss.item() == pytest.approx(-100 + math.log(2 + 1e-8), rel=1e-6)


def test_neither_the_order_of_the_posts_nor_the_scale_of_the_vectors_matters():
    a, b, labels = vectors(seed=1), vectors(seed=2), torch.tensor(LABELS)
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4])
    expected = both_losses(a, b, labels)
    for changed in (both_losses(a[order], b[order], labels[order]), both_losses(7 * a, b / 3, labels)):
        torch.testing.assert_close(changed, expected)


def test_similarities_are_computed_in_float32_under_autocast():
    a, b, labels = vectors(seed=1), vectors(seed=2), torch.tensor(LABELS)
    expected = both_losses(a, b, labels, 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for one, other in zip(both_losses(a, b, labels, 0.05), expected, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other)
    for loss in both_losses(a.bfloat16(), b.bfloat16(), labels):
        assert loss.dtype == torch.float32 and torch.isfinite(loss)


def test_cross_entropy_weighs_and_smooths():
    logits, labels = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 2])
    log_probability = logits.log_softmax(1)
    assert classification_loss(logits, labels).item() == pytest.approx(
        -(log_probability[0, 0] + log_probability[1, 2]).item() / 2
    )
    weighted = -(3 * log_probability[0, 0] + 1 * log_probability[1, 2]).item() / 4
    assert classification_loss(logits, labels, [3.0, 2.0, 1.0]).item() == pytest.approx(weighted)
    smoothed = F.cross_entropy(logits, labels, label_smoothing=0.2)
    assert classification_loss(logits, labels, label_smoothing=0.2).item() == pytest.approx(smoothed.item())


@pytest.mark.parametrize("view", ["cross_modal", "fused"])
def test_the_joint_loss_is_the_weighted_sum_of_its_parts(view):
    model = tiny.model(contrastive_view=view, loss_weight_ce=0.9, loss_weight_mlcl=0.05)
    output = model(**tiny.batch(labels=True))
    torch.testing.assert_close(output.loss, 0.9 * output.loss_ce + 0.05 * output.loss_mlcl)


def test_mlcl_compares_the_posts_with_both_text_and_image():
    model = tiny.model(contrastive_temperature=0.5, contrastive_epsilon=1e-3)
    batch = tiny.batch(labels=True)
    output = model(**batch)
    both = [0, 1, 4]  # 2 has no image, 3 no text
    expected = algorithm_2(
        output.text_embeds[both].tolist(),
        output.image_embeds[both].tolist(),
        batch["labels"][both].tolist(),
        0.5,
        1e-3,
    )
    assert output.loss_mlcl.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("view", "posts"), [("cross_modal", 3), ("fused", 5)])
def test_the_sum_of_mlcl_is_its_mean_times_the_number_of_posts_compared(view, posts):
    mean, total = (
        tiny.model(contrastive_view=view, contrastive_reduction=reduction)(**tiny.batch(labels=True))
        for reduction in ("mean", "sum")
    )
    torch.testing.assert_close(total.loss_mlcl, posts * mean.loss_mlcl)
    torch.testing.assert_close(total.loss, total.loss_ce + 0.1 * total.loss_mlcl)


def test_without_any_pair_mlcl_is_zero_and_gradients_are_finite():
    model = tiny.model().train()
    batch = {name: value for name, value in tiny.batch(labels=True).items() if "pixel" not in name}
    output = model(**batch)
    output.loss.backward()
    assert output.loss_mlcl.item() == 0.0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_weight_of_zero_switches_mlcl_off():
    output = tiny.model(loss_weight_mlcl=0)(**tiny.batch(labels=True))
    assert output.loss_mlcl is None
    torch.testing.assert_close(output.loss, output.loss_ce)
