"""Engine that answers a `LabelQuestion` with a model in this process."""

from __future__ import annotations

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
    from dataset_scripts.rationales.engines.label_question import LabelQuestion
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.spec import RationaleSpec


class TransformersZeroShot(TransformersEngine):
    """Engine that answers a `LabelQuestion` with transformers' decision pipeline.

    Each order of the options takes one forward pass.
    """

    def __init__(self, model: Any, processor: Any, spec: RationaleSpec, question: LabelQuestion) -> None:
        super().__init__(model, processor, spec, question)
        self.pipe = pipeline(
            "decision", model=model, tokenizer=processor.tokenizer, processor=processor, device=model.device
        )

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> TransformersZeroShot:
        """Load a model as `TransformersEngine.from_pretrained`.

        Raises:
            MisconfiguredError: see there; also if the installed transformers has no decision pipeline.
        """
        if "decision" not in PIPELINE_REGISTRY.get_supported_tasks():
            raise MisconfiguredError(
                "A model in this process needs pipeline('decision'), which transformers "
                f"{transformers.__version__} does not have; install transformers >= 5.23, or use a server."
            )
        return super().from_pretrained(*args, **options)

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """Generate one answer, for `LabelQuestion.read`; raises as `TransformersEngine.generate`."""
        return await self._in_thread(self._decide, post, perspective, attempt)

    def _decide(self, post: PreparedPost, order: str, attempt: int) -> Answer:
        image = None if post.image is None else PIL.Image.open(io.BytesIO(post.image))
        decision = self.pipe(self.prompt.decision_request(post, order, image))
        return Answer(self.prompt.decision_answer(decision, order), "stop")
