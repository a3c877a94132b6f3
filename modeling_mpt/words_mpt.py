"""Bags of words: embeddings of tokens that are learned from the posts alone."""

import torch
from torch import nn
from transformers import initialization as init


class WordBags(nn.Module):
    r"""Bags of words of the texts of a post, not in the paper.

    Each text has its own word embeddings. Its bag is the sum of those of its n tokens, divided by $\sqrt n$. A frozen
    encoder's mean of states says what a text is about; which words it has, for example words of praise, is partly
    lost in it.

    Embeddings start at zero, so that words that no train post has add nothing.
    """

    def __init__(self, num_texts: int, vocab_size: int, size: int) -> None:
        super().__init__()
        self.num_texts, self.vocab_size = num_texts, vocab_size
        self.weight = nn.Parameter(torch.zeros(num_texts * vocab_size, size))

    def init_weights(self) -> None:
        init.zeros_(self.weight)

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Embed ids `(batch, num_texts, len)` to bags `(batch, num_texts, size)`.

        A text without tokens in `mask` has a bag of zeros.
        """
        first = torch.arange(self.num_texts, device=input_ids.device).view(1, -1, 1) * self.vocab_size
        embeddings = nn.functional.embedding(input_ids + first, self.weight)
        mask = mask.to(embeddings.dtype)
        total = (mask.unsqueeze(-1) * embeddings).sum(dim=2)
        return total / mask.sum(dim=2, keepdim=True).clamp(min=1).sqrt()

    def of_inputs(
        self, name: str, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Embed the input `name`, of one text `(batch, len)` or several `(batch, num_texts, len)`.

        Returns:
            Bags `(batch, size)` or `(batch, num_texts, size)`.

        Raises:
            ValueError: For no ids.
        """
        if input_ids is None:
            raise ValueError(
                f"`{name}` is required with `encoder_outputs`: the network has word embeddings of its own."
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if input_ids.dim() == 2:
            return self(input_ids.unsqueeze(1), mask.unsqueeze(1)).squeeze(1)
        return self(input_ids, mask)
