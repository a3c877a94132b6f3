"""Training of a student: its own loss, and the distance to the targets of teachers."""

import copy
import dataclasses
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Value
from torch import nn
from torch.nn import functional as F
from transformers.trainer_utils import TrainOutput

from modeling_mpt.features.contents import with_undecoded_images
from modeling_mpt.trainer_mpt import MPTTrainer
from mpt_sentiment.distilling.targets import EMBEDDING, Targets

NO_LABEL = -1
PROJECTED = "projected_embeds"
# Attributes of the network that the trainer and the feature store read.
_OF_THE_NETWORK = (
    "config dtype device main_input_name frozen_encoders live_inputs observe gradient_checkpointing_enable"
).split()


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of a student's loss.

    Attributes:
        labels: of the loss of the student's own system, on labelled posts.
        soft_labels: of the divergence from the teacher's probabilities.
        embeddings: of the distance to the teacher's embeddings; 0 for none.
        temperature: by which the logits of both are divided in that divergence.
    """

    labels: float
    soft_labels: float
    embeddings: float
    temperature: float


class StudentWithTargets(nn.Module):
    """Network of a student in training, with a projection onto the embeddings of each teacher.

    In training, the `labels` of a batch are rows of the targets, so that they are gathered over processes and
    accumulation steps like labels. In evaluation, this is the network alone.

    Args:
        network ([`SentimentPreTrainedModel`]): the student.
        targets ([`Targets`]): of the train posts, in their order.
        labels (`np.ndarray` of shape `(posts,)`): class indices, `NO_LABEL` for none.
        weights ([`LossWeights`])
        embedding_size (`int`): size of the student's fused vector.
    """

    def __init__(
        self, network: nn.Module, targets: Targets, labels: np.ndarray, weights: LossWeights, embedding_size: int
    ) -> None:
        super().__init__()
        self.network, self.weights = network, weights
        self.num_teachers = int(targets.teachers.max()) + 1
        self.projection = None
        if weights.embeddings:
            self.projection = nn.Linear(embedding_size, self.num_teachers * targets.embeds.shape[1])
        # No buffers: they are too many to be copied in every step.
        columns = {"labels": labels, "logits": targets.logits, "embeds": targets.embeds, "teachers": targets.teachers}
        self.targets = {name: torch.from_numpy(column) for name, column in columns.items()}
        self.loss_inputs = tuple(dict.fromkeys([*network.loss_inputs, "logits", PROJECTED]))

    def __getattr__(self, name: str) -> Any:
        if name in _OF_THE_NETWORK:
            return getattr(super().__getattr__("network"), name)
        return super().__getattr__(name)

    def forward(self, **inputs: Any) -> Any:
        """Run the student; in training, add its embeddings in the axes of each teacher.

        Args:
            inputs: a batch, without labels.

        Returns:
            The student's output. In training a `dict` with `projected_embeds` `(batch, teachers, dim)` too.
        """
        outputs = self.network(**inputs)
        if not self.training:
            return outputs
        outputs = dict(outputs.items())
        if self.projection is not None:
            outputs[PROJECTED] = self.projection(outputs[EMBEDDING]).unflatten(-1, (self.num_teachers, -1))
        return outputs

    def compute_losses(self, labels: torch.LongTensor, **outputs: torch.Tensor | None) -> dict[str, torch.Tensor]:
        r"""Compute the loss of an optimizer step.

        $$\lambda_l \frac{n}{N} L + \lambda_s T^2\, KL(p_T \| q_T) + \lambda_e (1 - \cos(P_k f, e_k))$$

        L is the loss of the student's own system on the n labelled of N posts, p and q are the probabilities of
        teacher and student at temperature T, and P_k maps the student's fused vector f to the axes of teacher k, who
        read the post (Hinton et al., *Distilling the Knowledge in a Neural Network*).

        Args:
            labels (`torch.LongTensor` of shape `(batch,)`): rows of the targets; in evaluation class indices.
            outputs: the fields that `loss_inputs` names.

        Returns:
            `loss`, the terms of L, `loss_soft_labels` and `loss_embeddings`.
        """
        projected = outputs.pop(PROJECTED)
        own = {name: outputs[name] for name in self.network.loss_inputs}
        if not self.training:
            return self.network.compute_losses(labels, **own)
        weights, logits = self.weights, outputs["logits"].float()
        targets = {name: column[labels.cpu()].to(logits.device) for name, column in self.targets.items()}
        losses, loss = {}, 0.0
        known = targets["labels"] != NO_LABEL
        if weights.labels and known.any():
            own = {name: None if rows is None else rows[known] for name, rows in own.items()}
            losses = self.network.compute_losses(targets["labels"][known], **own)
            loss = weights.labels * known.float().mean() * losses.pop("loss")
        losses["loss_soft_labels"] = weights.temperature**2 * F.kl_div(
            F.log_softmax(logits / weights.temperature, dim=-1),
            F.log_softmax(targets["logits"] / weights.temperature, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        loss = loss + weights.soft_labels * losses["loss_soft_labels"]
        if projected is not None:
            mine = projected[torch.arange(len(labels), device=logits.device), targets["teachers"]].float()
            losses["loss_embeddings"] = 1 - F.cosine_similarity(mine, targets["embeds"], dim=-1).mean()
            loss = loss + weights.embeddings * losses["loss_embeddings"]
        return {"loss": loss, **losses}


class DistillingTrainer(MPTTrainer):
    """Trainer of a student. After training its model is the student alone.

    Args:
        model, train_dataset, kwargs: see [`MPTTrainer`]; train posts may lack labels.
        targets ([`Targets`]): of the train posts, in any order.
        weights ([`LossWeights`])
    """

    def __init__(
        self,
        model: nn.Module,
        args: Any,
        train_dataset: Dataset,
        processing_class: Any,
        *,
        targets: Targets,
        weights: LossWeights,
        **kwargs: Any,
    ) -> None:
        args = copy.copy(args)
        args.label_names = ["labels"]  # the Trainer would look for it in the signature of `forward`
        labels = np.array([NO_LABEL if label is None else label for label in train_dataset["label"][:]])
        student = StudentWithTargets(
            model,
            targets.of_posts(train_dataset["id"][:]),
            labels,
            weights,
            embedding_size(model, processing_class, train_dataset),
        )
        super().__init__(
            model=student,
            args=args,
            train_dataset=with_row_numbers(train_dataset),
            processing_class=processing_class,
            **kwargs,
        )
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise ValueError("A student is trained with its weights in one piece: leave out DeepSpeed and FSDP.")

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train the student, and drop the projections."""
        result = super().train(*args, **kwargs)
        self.model = self.model_wrapped = self._network().network
        self.accelerator.free_memory()  # it keeps the model that was trained
        return result


def with_row_numbers(posts: Dataset) -> Dataset:
    """Return posts whose column `label` has the number of the row."""
    return posts.remove_columns("label").add_column("label", list(range(len(posts))), feature=Value("int64"))


@torch.no_grad()
def embedding_size(network: nn.Module, processor: Any, posts: Dataset) -> int:
    """Return the size of the fused vector of a network, from its output for one post."""
    collate = processor.data_collator(network.config.modalities)
    batch = collate([with_undecoded_images(posts).remove_columns("label")[0]])
    training = network.training
    output = network.eval()(**{name: rows.to(network.device) for name, rows in batch.items()})
    network.train(training)
    return output[EMBEDDING].shape[-1]
