"""A model in this process, through transformers: what the perspectives of a post share is computed once."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import io
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
from accelerate import PartialState
from transformers import AutoModelForImageTextToText, AutoProcessor, DynamicCache, GenerationConfig

from dataset_scripts.rationales.engines.base import Answer, check_prompt, decoding, generation_config
from dataset_scripts.rationales.errors import MisconfiguredError, PermanentError, RetryableError

if TYPE_CHECKING:
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.prompts import Message, Prompt
    from dataset_scripts.rationales.spec import RationaleSpec

# Posts whose computed beginning is kept: the runner asks the siblings of one post together, but re-asks come later.
_KEPT_POSTS = 4


@dataclasses.dataclass
class _Opening:
    """A post as the model has read it, up to where its perspectives part.

    Attributes:
        inputs: per perspective, the whole prompt as the processor made it, without the pixels.
        cache: keys and values of the common beginning.
        length: tokens of the common beginning.
        rope_deltas: of the modules that number the positions of this post's image (Qwen-VL), with their value.
    """

    inputs: dict[str, dict[str, torch.Tensor]]
    cache: DynamicCache
    length: int
    rope_deltas: list[tuple[torch.nn.Module, Any]]


class TransformersEngine:
    """Rationales from a model in this process.

    System prompt, image and text of a post go through the model once, and each perspective goes on from a copy of
    what was computed: one pass of the vision tower instead of one per perspective, with the tokens that separate
    calls of `generate` give. One answer is generated at a time; for throughput, put a server behind `EndpointEngine`.

    Args:
        model: an image-text-to-text model with `generate`.
        processor: of that model, with a chat template.
        spec: what is asked, and how it is decoded.
        prompt: as loaded for `spec`.
    """

    def __init__(self, model: Any, processor: Any, spec: RationaleSpec, prompt: Prompt) -> None:
        check_prompt(spec, prompt)
        self.name = f"{spec.model} in this process"
        self.model = model.eval()
        self.processor = processor
        self.spec = spec
        self.prompt = prompt
        self._openings: OrderedDict[tuple[str | None, str | None, str], _Opening] = OrderedDict()
        self._numbering = [module for module in model.modules() if hasattr(module, "rope_deltas")]
        # transformers >= 5.23 encodes control tokens in what the user wrote as plain text. `prepare_post` has broken
        # the known ones already; this also covers those of a model that it does not know.
        parameters = inspect.signature(processor.apply_chat_template).parameters
        self._sanitize = {"sanitize_control_tokens": True} if "sanitize_control_tokens" in parameters else {}
        # One thread: a model is no place for two calls at a time, and the event loop stays free for the runner.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="transformers-engine")

    @classmethod
    def from_pretrained(
        cls, spec: RationaleSpec, prompt: Prompt, *, device: str | torch.device | None = None, dtype: str = "auto"
    ) -> TransformersEngine:
        """Load `spec.model` at `spec.revision`, on the device that accelerate gives this process unless one is named.

        Raises:
            MisconfiguredError: the model cannot be loaded, or has no chat template.
        """
        try:
            processor = AutoProcessor.from_pretrained(spec.model, revision=spec.revision)
            model = AutoModelForImageTextToText.from_pretrained(spec.model, revision=spec.revision, dtype=dtype)
        except (OSError, ValueError, ImportError) as error:
            raise MisconfiguredError(
                f"{spec.model} cannot be loaded as an image-text-to-text model: {error}"
            ) from error
        if getattr(processor, "chat_template", None) is None:
            raise MisconfiguredError(f"{spec.model} has no chat template; an instruction-tuned model is needed.")
        return cls(model.to(device or PartialState().device), processor, spec, prompt)

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """One rationale.

        Raises:
            PermanentError: the processor or the model refuses this post.
            RetryableError: the device had no memory left.
            MisconfiguredError: the device is unusable from now on.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._guarded, self._continued, post, perspective, attempt
        )

    async def generate_separately(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """The same by a plain call of `generate`, nothing shared; `doctor` and the tests hold `generate` to it."""
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._guarded, self._whole, post, perspective, attempt
        )

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        self._thread.shutdown()
        self._openings.clear()

    def _guarded(self, call: Any, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        try:
            with torch.inference_mode():
                return call(post, perspective, attempt)
        except torch.OutOfMemoryError as error:
            self._openings.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            raise RetryableError(f"post {post.post_id!r}: out of memory on {self.model.device}", None, True) from error
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            said = f"post {post.post_id!r}: {type(error).__name__}: {str(error)[:300]}"
            # After an asynchronous fault of the device every later call fails, whatever the post.
            if "CUDA error" in str(error) or "HIP error" in str(error):
                raise MisconfiguredError(said) from error
            raise PermanentError(said) from error

    def _continued(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        key = (post.image_sha256, post.text_sha256, post.language)
        opening = self._openings.get(key)
        computed = opening is None
        if opening is None:
            opening = self._openings[key] = self._read(post)
            while len(self._openings) > _KEPT_POSTS:
                self._openings.popitem(last=False)
        self._openings.move_to_end(key)
        for module, value in opening.rope_deltas:
            module.rope_deltas = value
        inputs = opening.inputs[perspective]
        answer = self._generate(
            attempt,
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            past_key_values=copy.deepcopy(opening.cache),
        )
        return dataclasses.replace(answer, cached_tokens=0 if computed else opening.length)

    def _whole(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        self._forget_positions()
        return self._generate(attempt, **self._inputs(post, perspective))

    def _generate(self, attempt: int, **inputs: Any) -> Answer:
        temperature, seed = decoding(self.spec, attempt)
        config = GenerationConfig(**generation_config(self.spec, attempt))
        length = inputs["input_ids"].shape[1]
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices, enabled=temperature > 0):
            if temperature > 0:
                torch.manual_seed(seed)
            tokens = self.model.generate(**inputs, generation_config=config)[0, length:]
        text = self.processor.decode(tokens, skip_special_tokens=True)
        ended = len(tokens) < self.spec.max_tokens or int(tokens[-1]) in self._end_tokens()
        return Answer(text, "stop" if ended else "length", length, 0, len(tokens), None)

    def _end_tokens(self) -> set[int]:
        end = self.model.generation_config.eos_token_id
        return set(end) if isinstance(end, list) else {end}

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

    def _read(self, post: PreparedPost) -> _Opening:
        """Run the model over what the perspectives have in common, by their tokens."""
        inputs = {perspective: self._inputs(post, perspective) for perspective in self.spec.perspectives}
        rows = [tensors["input_ids"][0] for tensors in inputs.values()]
        # One token less than the shortest: every perspective needs one of its own to go on from.
        shortest = min(len(row) for row in rows) - 1
        same = torch.stack([row[:shortest] == rows[0][:shortest] for row in rows]).all(dim=0)
        length = int(same.long().cumprod(dim=0).sum())

        first = next(iter(inputs.values()))
        tokens = first["input_ids"].shape
        # What has one entry per token is cut, what describes the image is whole: all of it is in the beginning.
        beginning = {name: value[:, :length] if value.shape == tokens else value for name, value in first.items()}
        self._forget_positions()
        cache = DynamicCache(config=self.model.config.get_text_config())
        cache = self.model(**beginning, past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
        kept = {
            perspective: {name: tensors[name] for name in ("input_ids", "attention_mask")}
            for perspective, tensors in inputs.items()
        }
        return _Opening(kept, cache, length, [(module, module.rope_deltas) for module in self._numbering])

    def _forget_positions(self) -> None:
        """Qwen-VL keeps the numbering of the last image it saw, and would number a post without image by it."""
        for module in self._numbering:
            module.rope_deltas = None


def process_shards(num_shards: int) -> range:
    """The shards of this process among those that `accelerate launch` started: consecutive, and each in one range.

    With fewer shards than processes, some get an empty range.
    """
    state = PartialState()
    return range(
        num_shards * state.process_index // state.num_processes,
        num_shards * (state.process_index + 1) // state.num_processes,
    )


def _with_image(message: Message, image: PIL.Image.Image | None) -> Message:
    """A message of the OpenAI form in that of transformers: the decoded image for its URL."""
    if isinstance(message["content"], str):
        return message | {"content": [{"type": "text", "text": message["content"]}]}
    parts = [{"type": "image", "image": image} if part["type"] == "image_url" else part for part in message["content"]]
    return message | {"content": parts}
