"""Loss of a whole optimizer step, over data-parallel ranks and accumulation steps.

Its inputs are gathered over ranks, and over accumulation steps by gradient caching (Gao et al., *Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup*). The result is exact: however a batch is split, loss and
gradients are those of the whole batch in one process.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn


class _GatherRows(torch.autograd.Function):
    """Rows of all ranks, in rank order.

    Every rank computes the same loss from all rows, and data-parallel training averages the ranks' gradients. A rank
    therefore returns the gradient of its own rows times the number of ranks, without communication.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
        ctx.ranks = accelerator.num_processes
        ctx.own = slice(accelerator.process_index * len(rows), (accelerator.process_index + 1) * len(rows))
        return accelerator.gather(rows.contiguous())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient[ctx.own] * ctx.ranks, None


def gathered_losses(
    network: nn.Module, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor | None], accelerator: Accelerator
) -> dict[str, torch.Tensor]:
    """Compute the losses of the posts of all ranks.

    Args:
        network: the model, unwrapped. Its `compute_losses` must reach trainable weights through `inputs` alone.
        labels (`torch.LongTensor` of shape `(batch,)`): labels of this rank; accelerate's data loaders give all ranks
            equally many.
        inputs: fields of the model's output named in `network.loss_inputs`: `None`, or a tensor of shape `(batch, …)`.

    Returns:
        The result of `network.compute_losses`, the same on every rank.
    """
    if accelerator.num_processes > 1:
        labels = accelerator.gather(labels)
        inputs = {
            name: None if rows is None else _GatherRows.apply(rows, accelerator) for name, rows in inputs.items()
        }
    return network.compute_losses(labels, **inputs)


class AccumulatedStep:
    """Micro-batches of one optimizer step, with one loss over all their posts.

    The first pass embeds all of them without a graph and computes the gradient of the loss with respect to the
    embeddings. The second pass, one micro-batch at a time, repeats the forward from the same random state and
    propagates that gradient to the weights. It costs one forward more than plain accumulation, and the memory of one
    micro-batch.

    Args:
        batches: micro-batches from the data loader.
    """

    def __init__(self, batches: Sequence[Mapping[str, torch.Tensor]]) -> None:
        self.batches = batches
        self.losses: dict[str, torch.Tensor] | None = None
        self._random_states: list[tuple] = []
        self._gradients: dict[str, tuple[torch.Tensor, ...]] = {}
        self._position = 0

    def embed(
        self,
        model: nn.Module,
        network: nn.Module,
        accelerator: Accelerator,
        prepare_inputs: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]],
    ) -> None:
        """Run the first pass and set `losses`, the detached losses of the whole step.

        `network` is the model without its wrapper for data parallelism.
        """
        labels, embedded = [], []
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        with torch.no_grad():
            for batch in self.batches:
                inputs = dict(prepare_inputs(batch))
                labels.append(inputs.pop("labels"))
                self._random_states.append(_random_state(model, accelerator.device))
                outputs = model(**inputs)
                embedded.append({name: outputs.get(name) for name in network.loss_inputs})
            for buffer, before in buffers:  # running statistics are updated in the second pass alone
                buffer.copy_(before)
        inputs = {
            name: None if rows is None else torch.cat([outputs[name] for outputs in embedded])
            for name, rows in embedded[0].items()
        }
        leaves = {
            name: rows.requires_grad_()
            for name, rows in inputs.items()
            if rows is not None and rows.is_floating_point()
        }
        losses = gathered_losses(network, torch.cat(labels), inputs, accelerator)
        gradients = torch.autograd.grad(losses["loss"], list(leaves.values()), allow_unused=True)
        sizes = [len(rows) for rows in labels]
        self._gradients = {
            name: gradient.split(sizes)
            for name, gradient in zip(leaves, gradients, strict=True)
            if gradient is not None
        }
        self.losses = {name: value.detach() for name, value in losses.items()}

    def backpropagate(self, model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, Any]:
        """Run the second pass over the next micro-batch.

        Args:
            inputs: arguments of its forward, without labels.

        Returns:
            A scalar whose value is the loss of the whole step and whose gradient is this micro-batch's share of that
            loss's gradient, times the number of micro-batches (by which the Trainer divides); and the model's output.
        """
        _set_random_state(self._random_states[self._position], self.losses["loss"].device)
        outputs = model(**inputs)
        share = sum((outputs[name] * parts[self._position]).sum() for name, parts in self._gradients.items())
        self._position += 1
        return (share - share.detach()) * len(self.batches) + self.losses["loss"], outputs


def _random_state(model: nn.Module, device: torch.device) -> tuple[torch.Tensor, Any]:
    """Return the states of the random generators used by a forward of `model` on `device`."""
    if device.type == "cpu":
        return torch.get_rng_state(), None
    module = torch.get_device_module(device)
    replicated = isinstance(model, nn.DataParallel)  # each replica draws from its own device
    return torch.get_rng_state(), module.get_rng_state_all() if replicated else module.get_rng_state()


def _set_random_state(state: tuple[torch.Tensor, Any], device: torch.device) -> None:
    cpu, of_device = state
    torch.set_rng_state(cpu)
    if isinstance(of_device, list):
        torch.get_device_module(device).set_rng_state_all(of_device)
    elif of_device is not None:
        torch.get_device_module(device).set_rng_state(of_device)
