"""Engine that answers a `LabelQuestion` with a server."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_scripts.rationales.engines.base import Answer
from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.engines.label_question import TOP_LOGPROBS
from dataset_scripts.rationales.engines.profiles import request_body
from dataset_scripts.rationales.engines.replies import read_answer
from dataset_scripts.rationales.errors import MisconfiguredError, RetryableError

if TYPE_CHECKING:
    from dataset_scripts.rationales.posts import PreparedPost


class EndpointZeroShot(EndpointEngine):
    """Engine that requests the log-probabilities of the letters of a `LabelQuestion`.

    vLLM and SGLang are restricted to the letters, so that all of them are listed. `transformers serve` returns
    probabilities at `/v1/systemone`. Other servers answer freely: a letter that is not listed gets the probability of
    the last listed token and is flagged. Without log-probabilities, the words of the answer are parsed.
    """

    async def generate(self, post: PreparedPost, perspective: str, attempt: int) -> Answer:
        """Request one answer, for `LabelQuestion.read`; raises as `EndpointEngine.generate`."""
        profile, letters = self.endpoint.profile, self.prompt.letters
        if profile.systemone:
            return await self._request_decision(post, perspective)
        fields: dict[str, Any] = {}
        if profile.choice:
            restriction = {"choice": list(letters)} if profile.choice == "structured_outputs" else f"[{letters}]"
            fields |= {profile.token_limit: 1, profile.choice: restriction}
        if profile.logprobs:
            fields |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        body = request_body(self.spec, profile, self.prompt.messages(post, perspective), attempt, **fields)
        completion = await self.endpoint.chat(body)
        with self.endpoint.named():
            answer = read_answer(completion, body)
        logprobs = completion["choices"][0].get("logprobs")
        return dataclasses.replace(answer, text=_letters_json(logprobs, letters) or answer.text)

    async def _request_decision(self, post: PreparedPost, order: str) -> Answer:
        image = None if post.image is None else base64.b64encode(post.image).decode("ascii")
        asset = {"type": "image", "format": "jpeg", "data_base64": image}
        body = {"model": self.spec.model, **self.prompt.decision_request(post, order, asset)}
        try:
            response = await self.endpoint.post_json(self.endpoint.address.url("/systemone"), body)
        except MisconfiguredError as error:
            message = f"{error} (/v1/systemone requires transformers >= 5.23)"
            raise MisconfiguredError(message, status=error.status, reason=error.reason) from None
        try:
            text = self.prompt.decision_answer(response["answers"], order)
            tokens = response["usage"]["input_tokens"]
        except (KeyError, TypeError, ValueError) as error:
            raise RetryableError(f"{self.name}: unreadable answer ({type(error).__name__}).") from None
        return Answer(text, "stop", prompt_tokens=tokens, completion_tokens=0)


def _letters_json(logprobs: Any, letters: str) -> str | None:
    """Convert the log-probabilities of the first token to JSON; `None` if no letter is listed."""
    try:
        entries = logprobs["content"][0]["top_logprobs"]
        listed = [(entry["token"].strip(), float(entry["logprob"])) for entry in entries]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # the server reports none
        return None
    by_letter: dict[str, float] = {}
    for token, value in listed:
        if len(token) == 1 and token in letters:  # "A" and " A" are two tokens of the same answer
            by_letter[token] = float(np.logaddexp(by_letter[token], value)) if token in by_letter else value
    if not by_letter:
        return None
    return json.dumps(by_letter | {"other": min(value for _, value in listed)})
