"""Word embeddings and recurrent networks of the baselines."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import is_tracing

# Kim (EMNLP 2014) draws words that word2vec lacks from the uniform distribution over [-0.25, 0.25].
UNIFORM_BOUND = 0.25


class UniformEmbedding(nn.Embedding):
    """Embedding that is initialized uniformly, with a zero vector for padding."""

    def init_weights(self) -> None:
        init.uniform_(self.weight, -UNIFORM_BOUND, UNIFORM_BOUND)
        if self.padding_idx is not None and not getattr(self.weight, "_is_hf_initialized", False):
            init.zeros_(self.weight[self.padding_idx])


class NormalEmbedding(nn.Embedding):
    """Embedding that is initialized from a normal distribution."""

    def __init__(self, count: int, size: int, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__(count, size)
        self.mean, self.std = mean, std

    def init_weights(self) -> None:
        init.normal_(self.weight, mean=self.mean, std=self.std)


class WordEmbeddings(nn.Module):
    """Static word embeddings with the interface of a text encoder.

    Their variance is that of Kim's uniform distribution, 0.25² / 3. A Transformer normalizes its embeddings, which are
    narrower: a CNN or LSTM learns slowly from them.

    Args:
        config ([`PreTrainedConfig`]): configuration of the text encoder that has the same vocabulary.
        encoder ([`PreTrainedModel`], *optional*): text encoder whose embeddings, rescaled, are the initial values.
    """

    def __init__(self, config: PreTrainedConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.config = config
        self.size = getattr(config, "embedding_size", config.hidden_size)
        self.embeddings = UniformEmbedding(config.vocab_size, self.size, padding_idx=config.pad_token_id)
        if encoder is not None:
            self.embeddings.load_state_dict(encoder.get_input_embeddings().state_dict())
            with torch.no_grad():
                self.embeddings.weight *= UNIFORM_BOUND / 3**0.5 / self.embeddings.weight.std()
            self.embeddings.weight._is_hf_initialized = True  # keeps `post_init` from initializing it again

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings = value

    def forward(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None, **request: bool
    ) -> BaseModelOutput:
        """Look up `(batch, seq_len)` token ids. The embeddings are the only hidden states."""
        states = self.embeddings(input_ids)
        return BaseModelOutput(last_hidden_state=states, hidden_states=(states,))


def run_rnn(rnn: nn.RNNBase, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Run an LSTM or GRU with `batch_first=True` over the real tokens of each row.

    These come first. States are `(batch, seq_len, dim)`, outputs `(batch, seq_len, directions · hidden)`, zero at the
    padding.
    """
    if is_tracing():  # lengths are unknown
        return _run_rnn_on_padding(rnn, states, mask) * mask.unsqueeze(-1)
    lengths = mask.sum(dim=1).clamp(min=1).cpu()  # packing needs one token in an empty row; its output is masked
    packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
    outputs, _ = pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=states.shape[1])
    return outputs * mask.unsqueeze(-1)


def _run_rnn_on_padding(rnn: nn.RNNBase, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Run an LSTM or GRU over padded rows without letting padding reach a real token.

    The padding follows the real tokens, and a backward direction reads each row from its own last token. Outputs at
    the padding are arbitrary.
    """
    lengths = mask.sum(dim=1, keepdim=True)
    positions = torch.arange(mask.shape[1], device=mask.device)
    backward = torch.where(positions < lengths, lengths - 1 - positions, positions)
    rows = torch.arange(states.shape[0], device=mask.device).unsqueeze(1)
    layer_of = torch.lstm if isinstance(rnn, nn.LSTM) else torch.gru
    zeros = states.new_zeros(1, states.shape[0], rnn.hidden_size)
    initial = (zeros, zeros) if isinstance(rnn, nn.LSTM) else zeros
    directions = 2 if rnn.bidirectional else 1
    for layer in range(rnn.num_layers):
        if layer > 0:
            states = nn.functional.dropout(states, rnn.dropout, rnn.training)
        outputs = []
        for direction in range(directions):
            inputs = states[rows, backward] if direction else states
            weights = rnn.all_weights[layer * directions + direction]
            output = layer_of(inputs, initial, weights, rnn.bias, 1, 0.0, False, False, True)[0]
            outputs.append(output[rows, backward] if direction else output)
        states = torch.cat(outputs, dim=-1)
    return states


def final_states(outputs: torch.Tensor, mask: torch.Tensor, bidirectional: bool) -> torch.Tensor:
    """Select the final hidden state of each direction from the outputs of [`run_rnn`].

    The result is `(batch, directions · hidden)`, zero for an empty row.
    """
    last = (mask.sum(dim=1) - 1).clamp(min=0)
    forward = outputs[torch.arange(outputs.shape[0], device=outputs.device), last]
    if not bidirectional:
        return forward
    half = outputs.shape[-1] // 2
    return torch.cat([forward[:, :half], outputs[:, 0, half:]], dim=-1)
