"""All requests for one post: re-asks of rejected answers and the choice of the best one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset_scripts.rationales.engines.base import Answer
from dataset_scripts.rationales.errors import EngineError, ServerCrashError
from dataset_scripts.rationales.quality.gate import Verdict
from dataset_scripts.rationales.run.server import Stopped
from dataset_scripts.rationales.run.stops import Failure
from dataset_scripts.rationales.store.rows import TOKEN_COUNTS

if TYPE_CHECKING:
    from dataset_scripts.rationales.posts import PreparedPost
    from dataset_scripts.rationales.run.server import Server
    from dataset_scripts.rationales.store.shard import ShardWriter

Gate = Callable[..., Verdict]
Record = dict[str, Any]


async def ask_post(
    post: PreparedPost,
    keys: Mapping[str, str],
    perspectives: Sequence[str],
    *,
    server: Server,
    writer: ShardWriter,
    gate: Gate,
    max_re_asks: int,
    on_result: Callable[[Record, Failure | None], None],
) -> int:
    """Request the rationales of a post until each perspective has a final result.

    The perspectives with the fewest answers are asked next, at the same time, and judged in a fixed order. So the
    results depend on the answers and the stored records alone, and a run that was killed continues to the same end.

    Args:
        post: the prepared post.
        keys: keys of all its perspectives, in their order.
        perspectives: perspectives to be asked.
        server, gate, max_re_asks: see `runner.run`.
        writer: records rejected answers, so that a restart continues from them.
        on_result: called with each final record, and with the reason unless the rationale is ok.

    Returns:
        The number of answers that were requested again.

    Raises:
        Stopped, OutageError, MisconfiguredError: from `Server.ask`, after the results of all other requests in flight
            were recorded.
    """
    answers = {perspective: writer.rejected_answers(keys[perspective]) for perspective in perspectives}
    texts = {}
    for perspective in keys:
        if perspective not in answers and (record := writer.answer(keys[perspective])) and record.get("text"):
            texts[perspective] = record["text"]
    re_asked = 0
    while answers:
        attempt = min(map(len, answers.values()))
        group = [perspective for perspective, earlier in answers.items() if len(earlier) == attempt]
        outcomes = await asyncio.gather(
            *(server.ask(post, perspective, attempt) for perspective in group), return_exceptions=True
        )
        for perspective, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                continue
            result, requests = outcome
            name = {"key": keys[perspective], "perspective": perspective}
            error = result if isinstance(result, EngineError) else None
            if error is None:
                verdict = gate(
                    result.text,
                    perspective=perspective,
                    language=post.language,
                    finish_reason=result.finish_reason,
                    post_text=post.text,
                    siblings=texts,
                )
                answers[perspective].append(_judged(result, verdict, requests))
                if verdict.hard and attempt < max_re_asks:
                    writer.add({"kind": "try", **name, **answers[perspective][-1]})
                    re_asked += 1
                    continue
            record, failure = _final(post, answers.pop(perspective), error, requests)
            if record["text"] is not None:
                texts[perspective] = record["text"]
            on_result({"kind": "answer", **name, **record}, failure)
        exceptions = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if exceptions:  # any other one says more than `Stopped`
            raise next((error for error in exceptions if not isinstance(error, Stopped)), exceptions[0])
    return re_asked


def _judged(answer: Answer, verdict: Verdict, requests: int) -> Record:
    return {
        "text": verdict.text,
        "raw": answer.text,
        "hard": list(verdict.hard),
        "soft": list(verdict.soft),
        "attempts": requests,
        "system_fingerprint": answer.system_fingerprint,
        **{count: getattr(answer, count) for count in TOKEN_COUNTS},
    }


def _final(
    post: PreparedPost, answers: Sequence[Record], error: EngineError | None, requests: int
) -> tuple[Record, Failure | None]:
    """Choose the first answer with the fewest hard flags.

    Its counts are those of all answers. The reason is stated unless it has no hard flag.
    """
    parts = [*answers, {"attempts": requests}] if error is not None else answers
    totals = {count: _sum(part.get(count) for part in parts) for count in ("attempts", *TOKEN_COUNTS)}
    usable = [answer for answer in answers if answer["text"] is not None]
    best = min(usable, key=lambda answer: len(answer["hard"]), default=answers[-1] if answers else {})
    message = None
    if usable:
        status, error = "flagged" if best["hard"] else "ok", None
    elif error is not None:
        status, message = "crashed" if isinstance(error, ServerCrashError) else "failed", f"{error.kind}: {error}"
    else:
        status, message = "failed", f"gate: none of {len(answers)} answers is usable"
    record = {
        "status": status,
        "text": best.get("text"),
        "raw": best.get("raw"),
        "flags": best.get("hard", []) + best.get("soft", []),
        "error": message,
        "system_fingerprint": best.get("system_fingerprint"),
        **totals,
    }
    if status == "ok":
        return record, None
    words, codes = (best.get("raw") or "", tuple(best["hard"])) if error is None else (str(error), ())
    return record, Failure(post.post_id, error, codes, words, len(post.image or b""), post.image is not None)


def _sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
