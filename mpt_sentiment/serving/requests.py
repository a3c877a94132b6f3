"""Bodies of requests: read within a limit, and parsed into posts."""

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mpt_sentiment.serving.errors import RequestError

RATIONALE = "rationale_"
MEBIBYTE = 2**20


async def read_posts(request: Request, max_bytes: int) -> tuple[list[Any], bool]:
    """Read the posts of a request.

    Returns:
        Posts, unchecked, and whether they were sent as a list.

    Raises:
        RequestError: 413 for a larger body, 415 for another type of content, 422 for a malformed one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data"):
        raise RequestError(415, "content-type", "Send application/json or multipart/form-data.")
    body = await read_body(request, max_bytes)
    if kind == "multipart/form-data":
        return await _posts_of_form(request, body)
    try:
        posts = await run_in_threadpool(json.loads, body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(422, "body", f"The body is not JSON in UTF-8 ({reason}).") from None
    return (posts, True) if isinstance(posts, list) else ([posts], False)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read a body.

    Raises:
        RequestError: 413 for more than `max_bytes`.
    """
    announced = request.headers.get("content-length", "")
    size, chunks = int(announced) if announced.isdecimal() else 0, []
    if size <= max_bytes:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                break
            chunks.append(chunk)
    if size > max_bytes:
        limit = f"{max_bytes / MEBIBYTE:g} MiB"
        raise RequestError(413, "body", f"The body is larger than {limit}. Send smaller images or fewer posts.")
    return b"".join(chunks)


async def _posts_of_form(request: Request, body: bytes) -> tuple[list[dict[str, Any]], bool]:
    """Read the posts of a form. The n-th value of each field belongs to the n-th post.

    Raises:
        RequestError: 422 for an unknown field, or fields with different numbers of values.
    """

    async def stream() -> AsyncIterator[bytes]:
        yield body
        yield b""

    parser = MultiPartParser(request.headers, stream(), max_part_size=len(body))
    parser.spool_max_size = len(body) + 1  # no file is written
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, KeyError) as error:
        reason = getattr(error, "message", str(error))
        raise RequestError(422, "body", f"The body is not multipart/form-data ({reason}).") from None
    columns: dict[str, list[Any]] = {}
    for name, value in form.multi_items():
        if name not in ("text", "image") and not name.startswith(RATIONALE):
            raise RequestError(
                422, name[:80], f"Unknown field of a form; known are text, image and {RATIONALE}PERSPECTIVE."
            )
        if isinstance(value, UploadFile):
            value = await value.read()
            if name != "image":
                value = value.decode("utf-8", "replace")
        columns.setdefault(name, []).append(value)
    counts = {name: len(values) for name, values in columns.items()}
    if not counts:
        raise RequestError(422, "body", "The form has no fields; send text, image or a rationale.")
    number = max(counts.values())
    for name, count in counts.items():
        if count != number:
            raise RequestError(
                422, name[:80], f"The form has {number} posts, but {count} values of this field. Send a blank value."
            )
    posts = []
    for row in range(number):
        values = {name: given[row] for name, given in columns.items() if given[row] != b""}
        rationales = {
            name.removeprefix(RATIONALE): text for name, text in values.items() if name.startswith(RATIONALE)
        }
        post = {name: value for name, value in values.items() if not name.startswith(RATIONALE)}
        posts.append(post | ({"rationales": rationales} if rationales else {}))
    return posts, number > 1
