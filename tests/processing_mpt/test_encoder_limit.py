"""The limit of tokens is the one that the encoder really has."""

import pytest
import torch
import transformers
from datasets import Dataset
from transformers import AutoModel, PreTrainedConfig

from helpers import tiny, tiny_processor
from modeling_mpt import MPTForSentimentClassification
from processing_mpt import MPTProcessor
from processing_mpt.vocabulary_mpt import encoder_limit

POSITIONS = 20
SIZES = dict(vocab_size=99, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=POSITIONS)
WIDTHS = dict(hidden_size=32, intermediate_size=37)
RELATIVE = dict(relative_attention=True, pos_att_type=["p2c", "c2p"], position_biased_input=False)
# By the name of the configuration: limit, and fields of its own. The position after padding is RoBERTa's first.
AFTER_PADDING = ("Roberta", "XLMRoberta", "Camembert", "RobertaPreLayerNorm", "Data2VecText", "MPNet", "Longformer")
FROM_ZERO = ("Bert", "Electra", "Albert", "ConvBert", "Ernie", "Nystromformer", "DistilBert", "Deberta", "GPT2")
UNBOUNDED = ("ModernBert", "DebertaV2")  # rotary and relative positions: trained to the limit, and computed beyond it


def config(name: str) -> PreTrainedConfig:
    changes = {"Longformer": {"attention_window": 4}, "DebertaV2": RELATIVE, "ModernBert": tiny.SPECIAL_TOKENS}
    if name == "GPT2":
        return transformers.GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=2, n_positions=POSITIONS)
    if name == "DistilBert":
        return transformers.DistilBertConfig(**SIZES, dim=32, hidden_dim=37)
    return getattr(transformers, f"{name}Config")(**SIZES, **WIDTHS, **changes.get(name, {}))


@torch.no_grad()
def reads(encoder: torch.nn.Module, length: int) -> bool:
    ids = torch.full((1, length), 5)
    try:
        return bool(encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.isfinite().all())
    except (IndexError, RuntimeError):
        return False


@pytest.mark.parametrize("name", [*AFTER_PADDING, *FROM_ZERO, *UNBOUNDED])
def test_the_encoder_reads_as_many_tokens_as_the_limit_and_no_more(name):
    limit = encoder_limit(config(name))
    assert limit == POSITIONS - 2 * (name in AFTER_PADDING)
    encoder = AutoModel.from_config(config(name)).eval()
    assert reads(encoder, limit) and reads(encoder, limit + 1) == (name in UNBOUNDED)


def test_an_encoder_without_positions_has_no_limit():
    assert encoder_limit(transformers.XLNetConfig(vocab_size=99, d_model=32, n_layer=1, n_head=2, d_inner=37)) is None
    assert encoder_limit(transformers.T5Config(vocab_size=99, d_model=32, num_layers=1, num_heads=2)) is None


def test_the_padding_token_of_a_new_encoder_is_that_of_its_tokenizer():
    tokenizer = tiny_processor.tokenizer()
    tokenizer.pad_token = "[MASK]"
    limit = MPTProcessor.from_backbones(
        tiny.text_config("xlm_roberta"), tokenizer=tokenizer
    ).tokenizer.model_max_length
    assert limit == tiny.TEXT["max_position_embeddings"] - tokenizer.pad_token_id - 1


def test_a_text_as_long_as_the_limit_reaches_the_logits():
    text = tiny.text_config("xlm_roberta", max_position_embeddings=POSITIONS)
    processor = MPTProcessor.from_backbones(text, posts=Dataset.from_dict({"text": ["rain"]}))
    inputs = processor(text=["rain " * 50], return_tensors="pt")
    assert inputs["input_ids"].shape == (1, processor.tokenizer.model_max_length)
    fields = {"loss_weight_mlcl": 0, "hidden_size": 16}
    model = MPTForSentimentClassification.from_backbones(text, processor=processor, **fields)
    assert model(**inputs).logits.isfinite().all()
