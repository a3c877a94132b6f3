"""Losses: MLCL (paper, Algorithms 1 and 2), other contrastive losses, and cross-entropy."""

import math

import torch
from torch.nn import functional as F
from transformers.utils import is_tracing


def label_mask(labels: torch.Tensor) -> torch.Tensor:
    """Return the pairs `(batch, batch)` of posts with the same label (paper, Algorithm 1)."""
    return labels.unsqueeze(0) == labels.unsqueeze(1)


def cross_modal_contrastive_loss(
    text_embeds: torch.Tensor,
    image_embeds: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 1.0,
    epsilon: float = 1e-8,
    reduction: str = "mean",
) -> torch.Tensor:
    r"""Compute MLCL between text and image vectors (paper, Algorithm 2).

    $$\frac{1}{N}\sum_i \frac{-1}{|C(i)|} \sum_{t \in C(i)}
      \log\frac{\exp(s_{t,i}/\tau)}{\sum_{j\neq i} \exp(s_{t,j}/\tau) + \epsilon}$$

    with cosines s and C(i) the posts with the label of i, including i. The sum over t runs over C(i), because s₊
    exists for positive pairs alone. Two additions: the mean over i, as a sum would let the batch size change the
    weight λ2 (`reduction="sum"` is the paper's), and the temperature τ (1 in the paper).

    Vectors are `(batch, hidden)`, labels `(batch,)`. The loss of an empty batch is 0.
    """
    similarity = _cosines(text_embeds, image_embeds) / temperature  # (texts t, images i)
    # Sum over j ≠ i in log space: columns before i, and columns after i. Subtracting exp(s[t, i]) from the full sum
    # would lose all digits if that term dominates.
    left = F.pad(similarity.logcumsumexp(dim=1)[:, :-1], (1, 0), value=-math.inf)
    right = F.pad(similarity.flip(1).logcumsumexp(dim=1)[:, :-1], (1, 0), value=-math.inf).flip(1)
    log_epsilon = similarity.new_tensor(math.log(epsilon))
    log_denominator = torch.logaddexp(torch.logaddexp(left, log_epsilon), right)
    return _mean_over_positives(similarity - log_denominator, label_mask(labels), reduction)


def supervised_contrastive_loss(
    embeds: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0, reduction: str = "mean"
) -> torch.Tensor:
    """Compute the supervised contrastive loss, averaged or summed over the batch.

    L_out of Khosla et al., *Supervised Contrastive Learning*, of vectors `(batch, hidden)`, with the `reduction`
    `"mean"` or `"sum"`. A post without another one of its label adds 0. The loss of an empty batch is 0.
    """
    similarity = _cosines(embeds, embeds) / temperature
    own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    others = similarity.masked_fill(own, torch.finfo(similarity.dtype).min)
    # Similarities are symmetric: columns are the anchors, as in `cross_modal_contrastive_loss`.
    log_probability = similarity - others.logsumexp(dim=0, keepdim=True)
    return _mean_over_positives(log_probability, label_mask(labels) & ~own, reduction)


def instance_contrastive_loss(queries: torch.Tensor, keys: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    r"""Compute InfoNCE: each query against the keys of all posts, its own as the positive.

    van den Oord et al., *Representation Learning with Contrastive Predictive Coding*:

    $$\frac{1}{N}\sum_i -\log\frac{\exp(s_{i,i}/\tau)}{\sum_j \exp(s_{i,j}/\tau)}$$

    with cosines s between query i and key j, both `(batch, hidden)`. The loss of an empty batch is 0.
    """
    return matching_loss(_cosines(queries, keys) / temperature)


def matching_loss(scores: torch.Tensor) -> torch.Tensor:
    """Compute InfoNCE of scores `(batch, batch)`, whose diagonal has the positives; 0 for none."""
    own = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, own, reduction="sum") / max(len(scores), 1)


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: list[float] | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Compute the cross-entropy of logits `(batch, num_labels)` in fp32.

    Raises:
        ValueError: For labels that are no indices of the logits.
    """
    if labels.shape != logits.shape[:1] or labels.is_floating_point():
        raise ValueError(f"`labels` must be one integer per post, got {labels.dtype} of {tuple(labels.shape)}.")
    if not is_tracing() and labels.numel():
        low, high = torch.stack(torch.aminmax(labels)).tolist()
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(
                f"`labels` has {low if low < 0 else high}, but this model has {logits.shape[1]} labels, 0 to "
                f"{logits.shape[1] - 1}. Number them as in `config.id2label`."
            )
    weight = None if class_weights is None else torch.tensor(class_weights, device=logits.device)
    return F.cross_entropy(logits.float(), labels, weight=weight, label_smoothing=label_smoothing)


def _cosines(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Compute the cosines `(n, m)` of vectors `(n, hidden)` and `(m, hidden)`.

    In fp32 also under autocast, because the temperature magnifies rounding errors.
    """
    with torch.autocast(rows.device.type, enabled=False):
        return F.normalize(rows.float(), dim=-1) @ F.normalize(columns.float(), dim=-1).T


def _mean_over_positives(log_probability: torch.Tensor, positives: torch.Tensor, reduction: str) -> torch.Tensor:
    """Average over the positives of each column (0 without any) and reduce, negated."""
    per_column = torch.where(positives, log_probability, 0.0).sum(dim=0) / positives.sum(dim=0).clamp(min=1)
    return -per_column.sum() / (1 if reduction == "sum" else max(positives.shape[1], 1))
