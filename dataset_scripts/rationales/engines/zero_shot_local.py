"""The zero-shot question put to a model in this process, through transformers' decision pipeline."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import PIL.Image
import transformers
from transformers import pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from dataset_scripts.rationales.engines.base import Answer
from dataset_scripts.rationales.engines.local import TransformersEngine
from dataset_scripts.rationales.errors import MisconfiguredError

if TYPE_CHECKING:
    from dataset_scripts.rationales.engines.zero_shot import Question
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.spec import RationaleSpec


class TransformersZeroShot(TransformersEngine):
    """Answers from a model in this process: the probabilities of the letters, after one forward pass for each order.

    Its `prompt` is a `Question`.
    """

    def __init__(self, model: Any, processor: Any, spec: RationaleSpec, question: Question) -> None:
        super().__init__(model, processor, spec, question)
        self.pipe = pipeline(
            "decision", model=model, tokenizer=processor.tokenizer, processor=processor, device=model.device
        )

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> TransformersZeroShot:
        """As `TransformersEngine.from_pretrained`.

        Raises:
            MisconfiguredError: also where this version of transformers has no decision pipeline.
        """
        if "decision" not in PIPELINE_REGISTRY.get_supported_tasks():
            raise MisconfiguredError(
                "A model in this process answers through pipeline('decision'), which transformers "
                f"{transformers.__version__} does not have; install transformers >= 5.23, or ask a server."
            )
        return super().from_pretrained(*args, **options)

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """One answer, for `Question.read`; raises as `TransformersEngine.generate`."""
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._guarded, self._decided, post, perspective, attempt
        )

    def _decided(self, post: PreparedPost, order: str, attempt: int) -> Answer:
        image = None if post.image is None else PIL.Image.open(io.BytesIO(post.image))
        found = self.pipe(self.prompt.request(post, order, image))
        return Answer(self.prompt.answer(found, order), "stop")
