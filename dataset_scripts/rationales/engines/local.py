"""Engine for a model in this process, which computes the shared prefix of a post once."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
from accelerate import PartialState
from transformers import AutoModelForImageTextToText, AutoProcessor, DynamicCache, GenerationConfig

from dataset_scripts.rationales.engines.base import Answer, generation_config, temperature_and_seed
from dataset_scripts.rationales.errors import MisconfiguredError, PermanentError, RetryableError
from dataset_scripts.rationales.prompts import check_prompt

if TYPE_CHECKING:
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.prompts import Message, Prompt
    from dataset_scripts.rationales.spec import RationaleSpec

# Rejected answers are requested again after those of a few other posts.
_CACHED_PREFIXES = 4


@dataclasses.dataclass
class _Prefix:
    """Part of the prompts that all perspectives of a post share, after a forward pass."""

    inputs: dict[str, dict[str, torch.Tensor]]  # whole prompt by perspective, without the pixels
    cache: DynamicCache
    length: int
    rope_deltas: list[tuple[torch.nn.Module, Any]]  # of Qwen-VL: position offset of this post's image


class TransformersEngine:
    """Engine that generates rationales with a model in this process.

    System prompt, image and text of a post pass through the model once. Each perspective continues from a copy of
    their key-value cache, and gets the same tokens as from a separate call of `generate`. Answers are generated one
    after the other; `EndpointEngine` with a server has a higher throughput.

    Args:
        model: image-text-to-text model.
        processor: processor of the model, with a chat template.
        spec: specification with the decoding parameters.
        prompt: prompt of `spec`.
    """

    def __init__(self, model: Any, processor: Any, spec: RationaleSpec, prompt: Prompt) -> None:
        check_prompt(spec, prompt)
        self.name = f"{spec.model} in this process"
        self.model = model.eval()
        self.processor = processor
        self.spec = spec
        self.prompt = prompt
        self._prefixes: dict[tuple[str | None, str | None, str], _Prefix] = {}
        self._rope_modules = [module for module in model.modules() if hasattr(module, "rope_deltas")]
        # transformers >= 5.23 encodes all control tokens in a post as plain text; `prepare_post` escapes known ones.
        parameters = inspect.signature(processor.apply_chat_template).parameters
        self._sanitize = {"sanitize_control_tokens": True} if "sanitize_control_tokens" in parameters else {}
        # `generate` is not thread-safe.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transformers-engine")

    @classmethod
    def from_pretrained(
        cls, spec: RationaleSpec, prompt: Prompt, *, device: str | torch.device | None = None, dtype: str = "auto"
    ) -> TransformersEngine:
        """Load `spec.model` at `spec.revision`.

        Args:
            spec, prompt: see `TransformersEngine`.
            device: by default the device that accelerate assigns to this process.
            dtype: see `transformers.PreTrainedModel.from_pretrained`.

        Raises:
            MisconfiguredError: the model cannot be loaded or has no chat template, or `spec` has fields for a server.
        """
        if spec.extra_body:
            raise MisconfiguredError("--extra_body has fields for a server. Remove it, or use --endpoint.")
        try:
            processor = AutoProcessor.from_pretrained(spec.model, revision=spec.revision)
            model = AutoModelForImageTextToText.from_pretrained(spec.model, revision=spec.revision, dtype=dtype)
        except (OSError, ValueError, ImportError) as error:
            raise MisconfiguredError(
                f"{spec.model} cannot be loaded as an image-text-to-text model: {error}"
            ) from error
        if getattr(processor, "chat_template", None) is None:
            raise MisconfiguredError(f"{spec.model} has no chat template; choose an instruction-tuned model.")
        return cls(model.to(device or PartialState().device), processor, spec, prompt)

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """Generate one rationale.

        Raises:
            PermanentError: the processor or the model raised an error for this post.
            RetryableError: the device is out of memory.
            MisconfiguredError: the device failed and needs a new process.
        """
        return await self._in_thread(self._with_shared_prefix, post, perspective, attempt)

    async def generate_separately(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """Generate one rationale without the shared prefix, as a reference for `generate`."""
        return await self._in_thread(self._without_shared_prefix, post, perspective, attempt)

    async def check_health(self) -> None:
        return None

    async def close(self) -> None:
        self._thread.shutdown()
        self._prefixes.clear()

    async def _in_thread(self, call: Any, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._call, call, post, perspective, attempt)

    def _call(self, call: Any, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """Call without gradients, and convert exceptions into `EngineError`."""
        try:
            with torch.inference_mode():
                return call(post, perspective, attempt)
        except torch.OutOfMemoryError as error:
            self._prefixes.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            raise RetryableError(f"post {post.post_id!r}: out of memory on {self.model.device}", None, True) from error
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            message = f"post {post.post_id!r}: {type(error).__name__}: {str(error)[:300]}"
            # After an asynchronous device error, every later call of the process fails.
            if "CUDA error" in str(error) or "HIP error" in str(error):
                raise MisconfiguredError(message) from error
            raise PermanentError(message) from error

    def _with_shared_prefix(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        key = (post.image_sha256, post.text_sha256, post.language)
        cached = key in self._prefixes
        # The last of the dictionary is the most recently used.
        prefix = self._prefixes[key] = self._prefixes.pop(key) if cached else self._compute_prefix(post)
        if len(self._prefixes) > _CACHED_PREFIXES:
            del self._prefixes[next(iter(self._prefixes))]
        for module, value in prefix.rope_deltas:
            module.rope_deltas = value
        answer = self._generate(attempt, **prefix.inputs[perspective], past_key_values=copy.deepcopy(prefix.cache))
        return dataclasses.replace(answer, cached_tokens=prefix.length if cached else 0)

    def _without_shared_prefix(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        self._reset_positions()
        return self._generate(attempt, **self._inputs(post, perspective))

    def _generate(self, attempt: int, **inputs: Any) -> Answer:
        temperature, seed = temperature_and_seed(self.spec, attempt)
        config = GenerationConfig(**generation_config(self.spec, attempt))
        length = inputs["input_ids"].shape[1]
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices, enabled=temperature > 0):
            if temperature > 0:
                torch.manual_seed(seed)
            tokens = self.model.generate(**inputs, generation_config=config)[0, length:]
        text = self.processor.decode(tokens, skip_special_tokens=True)
        end = self.model.generation_config.eos_token_id
        end_tokens = end if isinstance(end, list) else [end]
        ended = len(tokens) < self.spec.max_tokens or int(tokens[-1]) in end_tokens
        return Answer(text, "stop" if ended else "length", length, 0, len(tokens))

    def _inputs(self, post: PreparedPost, perspective: str) -> dict[str, torch.Tensor]:
        image = None if post.image is None else PIL.Image.open(io.BytesIO(post.image))
        messages = [_with_image(message, image) for message in self.prompt.messages(post, perspective)]
        inputs = self.processor.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **self._sanitize,
        )
        inputs = {name: value.to(self.model.device) for name, value in inputs.items() if torch.is_tensor(value)}
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        return inputs

    def _compute_prefix(self, post: PreparedPost) -> _Prefix:
        """Run the model on the longest prefix of tokens that all perspectives share."""
        inputs = {perspective: self._inputs(post, perspective) for perspective in self.spec.perspectives}
        rows = [tensors["input_ids"][0] for tensors in inputs.values()]
        # `generate` needs at least one token after the prefix.
        shortest = min(len(row) for row in rows) - 1
        same = torch.stack([row[:shortest] == rows[0][:shortest] for row in rows]).all(dim=0)
        length = int(same.long().cumprod(dim=0).sum())

        first = next(iter(inputs.values()))
        tokens = first["input_ids"].shape
        # Tensors with one entry per token are cut; those of the image stay, since the image is in the prefix.
        shared = {name: value[:, :length] if value.shape == tokens else value for name, value in first.items()}
        self._reset_positions()
        cache = DynamicCache(config=self.model.config.get_text_config())
        cache = self.model(**shared, past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
        token_inputs = {
            perspective: {name: tensors[name] for name in ("input_ids", "attention_mask")}
            for perspective, tensors in inputs.items()
        }
        return _Prefix(token_inputs, cache, length, [(module, module.rope_deltas) for module in self._rope_modules])

    def _reset_positions(self) -> None:
        """Reset the offset of the last image, which Qwen-VL would apply to a post without image."""
        for module in self._rope_modules:
            module.rope_deltas = None


def process_shards(num_shards: int) -> range:
    """Return the consecutive shards of this process of `accelerate launch`.

    With fewer shards than processes, some ranges are empty.
    """
    index, count = PartialState().process_index, PartialState().num_processes
    return range(num_shards * index // count, num_shards * (index + 1) // count)


def _with_image(message: Message, image: PIL.Image.Image | None) -> Message:
    """Convert an OpenAI message for transformers: the decoded image replaces its URL."""
    if isinstance(message["content"], str):
        return message | {"content": [{"type": "text", "text": message["content"]}]}
    parts = [{"type": "image", "image": image} if part["type"] == "image_url" else part for part in message["content"]]
    return message | {"content": parts}
