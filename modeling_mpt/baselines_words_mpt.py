"""Word embeddings in the place of a text encoder, and recurrent networks that never see padding."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

_WIDTH = 0.25


class NewWords(nn.Embedding):
    """Words drawn as Kim draws those that word2vec lacks, uniformly."""

    def init_weights(self) -> None:
        init.uniform_(self.weight, -_WIDTH, _WIDTH)
        if self.padding_idx is not None and not getattr(self.weight, "_is_hf_initialized", False):
            init.zeros_(self.weight[self.padding_idx])


class WordEmbeddings(nn.Module):
    """Word embeddings in the place of a text encoder, as wide as those that Kim draws: of variance 0.25² / 3. Those of
    a Transformer are narrower, which suits the normalisation behind them and leaves a CNN or an LSTM slow to learn.

    Args:
        config ([`PreTrainedConfig`]): of the text encoder whose vocabulary they have.
        encoder ([`PreTrainedModel`], *optional*): whose embeddings to start from, all scaled alike.
    """

    def __init__(self, config: PreTrainedConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.config = config
        self.size = getattr(config, "embedding_size", config.hidden_size)
        self.embeddings = NewWords(config.vocab_size, self.size, padding_idx=config.pad_token_id)
        if encoder is not None:
            self.embeddings.load_state_dict(encoder.get_input_embeddings().state_dict())
            with torch.no_grad():
                self.embeddings.weight *= _WIDTH / 3**0.5 / self.embeddings.weight.std()
            self.embeddings.weight._is_hf_initialized = True  # or the initialisation of new layers would undo it

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings = value

    def forward(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.embeddings(input_ids))


def run_rnn(rnn: nn.RNNBase, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Outputs of an LSTM or GRU with `batch_first=True` that never sees padding.

    Args:
        states (`torch.Tensor` of shape `(batch, seq_len, dim)`): real tokens first.
        mask (`torch.BoolTensor` of shape `(batch, seq_len)`)

    Returns:
        `torch.Tensor` of shape `(batch, seq_len, directions · hidden)`, zero at the padding.
    """
    lengths = mask.sum(dim=1).clamp(min=1).cpu()  # an empty row reads one token of zeros; its output is masked
    packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
    outputs, _ = pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=states.shape[1])
    return outputs * mask.unsqueeze(-1)


def last_states(outputs: torch.Tensor, mask: torch.Tensor, bidirectional: bool) -> torch.Tensor:
    """What an RNN ends with: `run_rnn`'s outputs at the last real token and, of the way back, at the first.

    Returns:
        `torch.Tensor` of shape `(batch, directions · hidden)`, zero for an empty row.
    """
    last = (mask.sum(dim=1) - 1).clamp(min=0)
    final = outputs[torch.arange(outputs.shape[0], device=outputs.device), last]
    if not bidirectional:
        return final
    half = outputs.shape[-1] // 2
    return torch.cat([final[:, :half], outputs[:, 0, half:]], dim=-1)
