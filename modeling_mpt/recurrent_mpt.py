"""Last states of an LSTM over real tokens alone, for training on a CPU."""

from itertools import accumulate

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence


def last_states(lstm: nn.LSTM, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the LSTM's outputs at the last real tokens, `(batch, hidden)`.

    The numbers are those of `lstm(states)` to rounding. Padding takes no time, and the gradient of each weight is one
    product of matrices, where torch's own LSTM over a packed sequence has one for every token position.

    Args:
        lstm (`nn.LSTM`): with one layer and direction.
        states (`torch.Tensor` of shape `(batch, seq_len, input_size)`): real tokens first, zero at the padding.
        mask (`torch.BoolTensor` of shape `(batch, seq_len)`): an empty row reads its first token.
    """
    lengths = mask.sum(dim=1).clamp(min=1)
    packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
    gates = nn.functional.linear(packed.data, lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
    last = _Recurrence.apply(gates, lstm.weight_hh_l0, packed.batch_sizes.tolist())
    return last[packed.unsorted_indices]


class _Recurrence(torch.autograd.Function):
    """Recurrence of an LSTM over packed sequences, from the longest to the shortest.

    `counts` has the number of sequences that reach each position. Rows of `gates` `(tokens, 4 · hidden)` are the
    inputs' parts of the input, forget, cell and output gates, by position.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, gates: torch.Tensor, weight: torch.Tensor, counts: list[int]) -> torch.Tensor:
        size = weight.shape[1]
        gates = gates.clone()
        hidden, cells = gates.new_empty(2, len(gates), size)
        last = gates.new_empty(counts[0], size)
        starts = [0, *accumulate(counts)]
        for position, count in enumerate(counts):
            now, before = _rows(starts, position, count), _rows(starts, position - 1, count)
            gate = gates[now]
            if position:
                gate.addmm_(hidden[before], weight.t())
            gate[:, : 2 * size].sigmoid_()
            gate[:, 2 * size : 3 * size].tanh_()
            gate[:, 3 * size :].sigmoid_()
            take, keep, new, give = gate.chunk(4, dim=1)
            torch.mul(take, new, out=cells[now])
            if position:
                cells[now].addcmul_(keep, cells[before])
            torch.mul(give, cells[now].tanh(), out=hidden[now])
            last[:count] = hidden[now]  # those of sequences that end here remain
        ctx.save_for_backward(gates, hidden, cells, weight)
        ctx.counts, ctx.starts = counts, starts
        return last

    @staticmethod
    @torch.autograd.function.once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        gates, hidden, cells, weight = ctx.saved_tensors
        counts, starts = ctx.counts, ctx.starts
        take, keep, new, give = gates.chunk(4, dim=1)
        # Derivatives of all tokens at once: of each gate before its sigmoid or tanh, and of a cell through its output.
        squashed = cells.tanh()
        slopes = torch.cat([new * take * (1 - take), keep * (1 - keep), take * (1 - new * new)], dim=1)
        give_slope, cell_slope = squashed * give * (1 - give), give * (1 - squashed * squashed)
        grads, previous = torch.zeros_like(gates), torch.zeros_like(hidden)
        of_hidden, of_cell = last.new_zeros(0, last.shape[1]), last.new_zeros(0, last.shape[1])
        for position in range(len(counts) - 1, -1, -1):
            count = counts[position]
            now, before = _rows(starts, position, count), _rows(starts, position - 1, count)
            of_hidden = torch.cat([of_hidden, last[len(of_hidden) : count]])  # sequences that end here
            of_cell = torch.cat([of_cell, last.new_zeros(count - len(of_cell), last.shape[1])])
            of_cell = of_cell + of_hidden * cell_slope[now]
            by_take, by_keep, by_new, by_give = grads[now].chunk(4, dim=1)
            slope_take, slope_keep, slope_new = slopes[now].chunk(3, dim=1)
            torch.mul(of_cell, slope_take, out=by_take)
            torch.mul(of_cell, slope_new, out=by_new)
            torch.mul(of_hidden, give_slope[now], out=by_give)
            if position:
                torch.mul(of_cell * slope_keep, cells[before], out=by_keep)
                previous[now] = hidden[before]
                of_hidden, of_cell = grads[now] @ weight, of_cell * keep[now]
        return grads, grads.t() @ previous, None


def _rows(starts: list[int], position: int, count: int) -> slice:
    """Return where the first `count` sequences have their token at a position."""
    return slice(starts[position], starts[position] + count)
