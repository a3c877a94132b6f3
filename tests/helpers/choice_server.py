"""Loopback server that answers `LabelQuestion`s with log-probabilities or words."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from helpers.faulty_server import FaultyServer

FAULTS = (429, 500, "reset", "cut")


class ChoiceServer(FaultyServer):
    """Context manager of a server that, like vLLM, returns log-probabilities of letters.

    They depend on the post, with a preference for the letter A.

    Args:
        reply: words of an answer, from the options of the question; by default log-probabilities.
        preference: log-odds added to the letter A.
        faults: failures of the first requests: a status, `reset` or `cut`.
    """

    def __init__(
        self,
        reply: Callable[[list[str]], str] | None = None,
        preference: float = 3.0,
        faults: Sequence[int | str] = (),
    ) -> None:
        self._reply, self._preference, self._faults = reply, preference, list(faults)
        super().__init__(self._answer)

    def _answer(self, number: int, body: dict[str, Any]) -> str | tuple[int, dict[str, str], Any]:
        fault = self._faults[number] if number < len(self._faults) else None
        if fault == "reset":
            return "reset"
        completion = json.dumps(self._completion(body))
        if fault == "cut":
            return 200, {}, completion[:-20]
        return fault or 200, {}, completion

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        *image, words = body["messages"][-1]["content"]
        post = "".join(part["image_url"]["url"] for part in image) + words["text"].rpartition("\n\n")[0]
        options = re.findall(r"^[A-Z]\. (\w+)", words["text"], re.MULTILINE)
        scores = [score(post, option) + self._preference * (index == 0) for index, option in enumerate(options)]
        total = math.log(sum(map(math.exp, scores)))
        entries = [
            {"token": "ABCDEFGH"[index], "logprob": value - total, "bytes": None, "top_logprobs": []}
            for index, value in enumerate(scores)
        ]
        # vLLM also lists tokens that the grammar excludes.
        entries.append({"token": "The", "logprob": -9999.0, "bytes": None, "top_logprobs": []})
        best = max(entries, key=lambda entry: entry["logprob"])
        logprobs = {"content": [best | {"top_logprobs": entries}]}
        content = best["token"]
        if self._reply is not None:
            content, logprobs = self._reply(options), None
        message = {"role": "assistant", "content": content}
        return {
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}],
            "usage": {"prompt_tokens": 300, "completion_tokens": 1, "total_tokens": 301},
        }


def score(post: str, option: str) -> float:
    """Return the log-odds of an option, from 0 to 2, from the post as it is sent."""
    return hashlib.sha256(f"{post}|{option}".encode()).digest()[0] / 128
