"""transformers' common tests of processors, on MPTProcessor."""

import unittest

from datasets import Dataset
from transformers import PreTrainedTokenizerFast, ViTImageProcessor

from helpers import tiny, tiny_processor
from processing_mpt import MPTProcessor
from processing_mpt.vocabulary_mpt import train_tokenizer
from transformers_common.source import common_tests, skip_not_applicable

common = common_tests("test_processing_common")

NOT_APPLICABLE = {
    "test_model_input_names": "The test passes no rationales, so the tensors of rationales are absent.",
    "test_init_arguments_not_in_processor_kwargs": "`max_length` is saved with the processor, as its default.",
}


@skip_not_applicable(NOT_APPLICABLE)
class MPTProcessorTest(common.ProcessorTesterMixin, unittest.TestCase):
    processor_class = MPTProcessor

    @classmethod
    def _setup_tokenizer(cls) -> PreTrainedTokenizerFast:
        texts = Dataset.from_dict({"text": [*tiny_processor.SENTENCES, "lower newer upper older longer string"]})
        return train_tokenizer(texts, [], tiny.text_config(vocab_size=200, max_position_embeddings=512))

    @classmethod
    def _setup_image_processor(cls) -> ViTImageProcessor:
        return tiny_processor.image_processor()
