"""transformers' common tests of models, on MPT and two baselines.

MVAN has recurrent layers and memories, MGNNS graphs and buffers.

Two mixins are left out. `TrainingTesterMixin` trains on labels of tokens. `PipelineTesterMixin` downloads models from
the Hub, and its pipelines have other inputs than `multimodal-sentiment`.
"""

import contextlib
import tempfile
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from unittest.mock import patch

import torch
from transformers import PreTrainedConfig, PreTrainedModel, set_seed
from transformers.models.auto import modeling_auto

from helpers import tiny, tiny_baselines
from modeling_mpt import SYSTEMS, MPTForSentimentClassification, MPTModel
from modeling_mpt.baselines_configuration_mpt import BaselineOutput
from transformers_common.source import common_tests, skip_not_applicable

common = common_tests("test_modeling_common")
configurations = common_tests("test_configuration_common")

NOT_APPLICABLE = {
    "test_problem_types": "A post has one label: a configuration refuses several labels and numbers.",
    "test_eager_matches_sdpa_inference_24_fp32_pad_left_output_attentions": (
        "SDPA computes no attentions to return: a network refuses where transformers warns and returns `None`."
    ),
}
NOT_APPLICABLE_TO_BASELINES = {
    "test_can_load_ignoring_mismatched_shapes": (
        "The test looks for the classifier among the linear layers at the top, which a baseline has many of."
    ),
}
# Number of positions that each encoder reads.
POSITIONS = {"text": 12, "vision": 17, "rationale": 20}


@dataclass
class OneEncoderOutput(BaselineOutput):
    """Output with the layers of one encoder under the names of a network with a single encoder."""

    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def with_layers_of(encoder: str, model_class: type) -> type:
    """Return a subclass whose output is an [`OneEncoderOutput`].

    It has no boolean tensors, because a test subtracts outputs.
    """

    class OneEncoder(model_class):
        def forward(self, return_dict: bool | None = None, **inputs: torch.Tensor) -> OneEncoderOutput | tuple:
            output = super().forward(return_dict=True, **inputs)
            layers = {kind: output.get(f"{encoder}_{kind}") for kind in ("hidden_states", "attentions")}
            values = {name: value for name, value in output.items() if not name.startswith(f"{encoder}_")} | layers
            values["modality_mask"] = output.modality_mask.float()
            output = OneEncoderOutput(**{field.name: values.get(field.name) for field in fields(OneEncoderOutput)})
            return output.to_tuple() if return_dict is False else output

    OneEncoder.__name__ = model_class.__name__
    return OneEncoder


class ModelTester:
    """Inputs and sizes of a tiny network, under the names of transformers' testers."""

    is_training = True
    batch_size = 7
    seq_length = POSITIONS["text"]
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    num_hidden_states_types = len(POSITIONS)

    def __init__(self, get_config: Callable[[], PreTrainedConfig]) -> None:
        self.get_config = get_config

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
        batch = tiny.rows(tiny.batch(), 0, 1, 2, 3, 4, 0, 1)
        batch["rationale_input_ids"].clamp_(max=tiny.VOCABULARY - 16)  # a test removes 15 embeddings
        return self.get_config(), batch


class SentimentModelTest(common.ModelTesterMixin):
    _is_composite = True
    test_can_init_all_missing_weights_before_2023 = True
    additional_model_inputs = ["pixel_values", "image_mask", "rationale_input_ids", "rationale_attention_mask"]

    def setUp(self) -> None:
        # The tests look up by its name what a class computes.
        for names, kind in (
            (modeling_auto.MODEL_MAPPING_NAMES, "Model"),
            (modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, "Classification"),
        ):
            ours = [each for each in self.all_model_classes if each.__name__.endswith(kind)]
            added = patch.dict(names, {each.config_class.model_type: each.__name__ for each in ours})
            added.start()
            self.addCleanup(added.stop)

    def subTest(self, msg: str | None = None, **params: object) -> contextlib.AbstractContextManager:
        """Make no test of its own for each weight, which takes most of the time."""
        return contextlib.nullcontext() if "." in str(msg) else super().subTest(msg, **params)

    def _set_subconfig_attributes(self, config: PreTrainedConfig, attribute_name: str, value: bool) -> None:
        for encoder in (config.text_config, config.vision_config):  # a timm model has no such attributes
            setattr(encoder, attribute_name, value)

    @contextlib.contextmanager
    def eager(self) -> Iterator[None]:
        """Use the attention that returns its weights."""
        get_config = self.model_tester.get_config

        def get_eager_config() -> PreTrainedConfig:
            config = get_config()
            config._attn_implementation = "eager"
            return config

        with patch.object(self.model_tester, "get_config", get_eager_config):
            yield

    def for_each_encoder(self, test: Callable[[], None]) -> None:
        """Pass a test of layers with those of each encoder."""
        for encoder, positions in POSITIONS.items():
            classes = tuple(with_layers_of(encoder, each) for each in self.all_model_classes)
            with (
                self.subTest(encoder),
                self.eager(),
                patch.object(type(self), "all_model_classes", classes),
                patch.object(self.model_tester, "seq_length", positions),
            ):
                test()

    def test_config(self):
        config_class = self.all_model_classes[0].config_class
        configurations.ConfigTester(self, config_class, has_text_modality=False, hidden_size=64).run_common_tests()

    def test_attention_outputs(self):
        self.for_each_encoder(super().test_attention_outputs)

    def test_can_capture_specific_layers_hidden_states(self):
        self.for_each_encoder(super().test_can_capture_specific_layers_hidden_states)

    def test_hidden_states_output(self):
        self.for_each_encoder(super().test_hidden_states_output)

    def test_model_outputs_equivalence(self):
        self.for_each_encoder(super().test_model_outputs_equivalence)

    def test_retain_grad_hidden_states_attentions(self):
        self.for_each_encoder(super().test_retain_grad_hidden_states_attentions)

    def test_can_load_ignoring_mismatched_shapes(self):
        # The test sets fields with "_std" in their names, as `pixel_std`, to 0.
        with patch.object(common, "_config_zero_init", lambda config: config):
            super().test_can_load_ignoring_mismatched_shapes()

    def test_capture_outputs_decorator(self):
        with self.eager():
            super().test_capture_outputs_decorator()

    def test_sdpa_can_dispatch_composite_models(self):
        # That of transformers knows other names of encoders, and is to be written anew for others.
        for model_class in self.all_model_classes:
            with tempfile.TemporaryDirectory() as folder:
                model_class(self.model_tester.get_config()).save_pretrained(folder)
                for given, expected in (({}, "sdpa"), ({"attn_implementation": "eager"}, "eager")):
                    model = model_class.from_pretrained(folder, **given)
                    encoders = [m for m in model.modules() if isinstance(m, PreTrainedModel) and m._supports_sdpa]
                    assert len(encoders) > 2
                    assert {each.config._attn_implementation for each in encoders} == {expected}


@skip_not_applicable(NOT_APPLICABLE)
class MPTTest(SentimentModelTest, unittest.TestCase):
    all_model_classes = (MPTModel, MPTForSentimentClassification)

    def setUp(self):
        super().setUp()
        self.model_tester = ModelTester(lambda: tiny.config(cnn_config=tiny.timm_config()))


class BaselineTest(SentimentModelTest):
    name: str

    def setUp(self):
        super().setUp()
        changes = {"text_provider": "encoder", "use_rationales": True, "share_text_encoder": False}
        self.model_tester = ModelTester(lambda: tiny_baselines.config(self.name, **changes))


@skip_not_applicable(NOT_APPLICABLE | NOT_APPLICABLE_TO_BASELINES)
class MVANTest(BaselineTest, unittest.TestCase):
    name = "mvan"
    all_model_classes = (SYSTEMS[name][1],)

    def test_can_init_all_missing_weights(self):
        # A GRU keeps the weights that its constructor drew. The test sets the seed for all others.
        def seeded(self: torch.nn.RNNCellBase, reset: Callable = torch.nn.GRUCell.reset_parameters) -> None:
            set_seed(42)
            reset(self)

        with patch.object(torch.nn.GRUCell, "reset_parameters", seeded):
            super().test_can_init_all_missing_weights()


@skip_not_applicable(NOT_APPLICABLE | NOT_APPLICABLE_TO_BASELINES)
class MGNNSTest(BaselineTest, unittest.TestCase):
    name = "mgnns"
    all_model_classes = (SYSTEMS[name][1],)
