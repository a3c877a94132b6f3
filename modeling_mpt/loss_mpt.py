"""Losses of MPT: Algorithm 1 (label mask), Algorithm 2 (multi-label contrastive loss), Eq. 7 (joint loss)."""

import math

import torch
from torch.nn import functional as F


def label_mask(labels: torch.Tensor) -> torch.Tensor:
    """Algorithm 1: which pairs of posts carry the same label.

    Args:
        labels (`torch.LongTensor` of shape `(batch,)`)

    Returns:
        `torch.BoolTensor` of shape `(batch, batch)`.
    """
    return labels.unsqueeze(0) == labels.unsqueeze(1)


def cross_modal_contrastive_loss(
    text_embeds: torch.Tensor,
    image_embeds: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 1.0,
    epsilon: float = 1e-8,
) -> torch.Tensor:
    r"""Algorithm 2: texts and images of posts with the same label attract one another.

    $$\frac{1}{N}\sum_i \frac{-1}{|C(i)|} \sum_{t \in C(i)}
      \log\frac{\exp(s_{t,i}/\tau)}{\sum_{j\neq i} \exp(s_{t,j}/\tau) + \epsilon}$$

    with cosines s and C(i) the posts with the label of i, i among them. Read so from the algorithm: its s₊ exists for
    positive pairs only, so the sum over t runs over C(i). Two additions: the mean over i (the algorithm's sum would
    let the batch size change the weight λ2) and the temperature τ (1 in the paper).

    Args:
        text_embeds (`torch.Tensor` of shape `(batch, hidden)`)
        image_embeds (`torch.Tensor` of shape `(batch, hidden)`)
        labels (`torch.LongTensor` of shape `(batch,)`)

    Returns:
        A scalar; 0 for an empty batch.
    """
    similarity = _cosines(text_embeds, image_embeds) / temperature  # (texts t, images i)
    # Sum over j ≠ i in log space: what stands left of column i and what stands right of it. Subtracting exp(s[t, i])
    # from the full sum would lose all digits where that term dominates.
    left = F.pad(similarity.logcumsumexp(dim=1)[:, :-1], (1, 0), value=-math.inf)
    right = F.pad(similarity.flip(1).logcumsumexp(dim=1)[:, :-1], (1, 0), value=-math.inf).flip(1)
    log_epsilon = similarity.new_tensor(math.log(epsilon))
    log_denominator = torch.logaddexp(torch.logaddexp(left, log_epsilon), right)
    return _mean_over_positives(similarity - log_denominator, label_mask(labels))


def supervised_contrastive_loss(embeds: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """L_out of Khosla et al., *Supervised Contrastive Learning*, on one vector a post, averaged over the batch. A post
    that is the only one of its label has no positive and adds 0.

    Args:
        embeds (`torch.Tensor` of shape `(batch, hidden)`)
        labels (`torch.LongTensor` of shape `(batch,)`)

    Returns:
        A scalar; 0 for an empty batch.
    """
    similarity = _cosines(embeds, embeds) / temperature
    own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    others = similarity.masked_fill(own, torch.finfo(similarity.dtype).min)
    # Similarities are symmetric: columns are the anchors, as in `cross_modal_contrastive_loss`.
    return _mean_over_positives(similarity - others.logsumexp(dim=0, keepdim=True), label_mask(labels) & ~own)


def instance_contrastive_loss(queries: torch.Tensor, keys: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    r"""InfoNCE of van den Oord et al., *Representation Learning with Contrastive Predictive Coding*: of all keys, each
    query finds that of its own post.

    $$\frac{1}{N}\sum_i -\log\frac{\exp(s_{i,i}/\tau)}{\sum_j \exp(s_{i,j}/\tau)}$$

    with cosines s between query i and key j.

    Args:
        queries, keys (`torch.Tensor` of shape `(batch, hidden)`)

    Returns:
        A scalar; 0 for an empty batch.
    """
    similarity = _cosines(queries, keys) / temperature
    own = torch.arange(len(queries), device=queries.device)
    return F.cross_entropy(similarity, own, reduction="sum") / max(len(queries), 1)


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: list[float] | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy of the classifier, in fp32.

    Args:
        logits (`torch.Tensor` of shape `(batch, num_labels)`)
        labels (`torch.LongTensor` of shape `(batch,)`)
    """
    weight = None if class_weights is None else torch.tensor(class_weights, device=logits.device)
    return F.cross_entropy(logits.float(), labels, weight=weight, label_smoothing=label_smoothing)


def _cosines(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """`(n, hidden)`, `(m, hidden)` -> `(n, m)`, in fp32 also under autocast: the temperature magnifies rounding."""
    with torch.autocast(rows.device.type, enabled=False):
        return F.normalize(rows.float(), dim=-1) @ F.normalize(columns.float(), dim=-1).T


def _mean_over_positives(log_probability: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """-mean over columns of the mean over each column's positives; a column without positives counts as 0."""
    per_column = torch.where(positives, log_probability, 0.0).sum(dim=0) / positives.sum(dim=0).clamp(min=1)
    return -per_column.sum() / max(positives.shape[1], 1)
