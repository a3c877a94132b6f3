"""Application of the server: its addresses, and the way of a request to its answer."""

import asyncio
import contextlib
import hmac
import logging
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from transformers import Pipeline

from mpt_sentiment.serving.batching import Batcher, Slots
from mpt_sentiment.serving.errors import RequestError
from mpt_sentiment.serving.inference import Predictor
from mpt_sentiment.serving.metrics import Metrics
from mpt_sentiment.serving.requests import MEBIBYTE, read_posts
from mpt_sentiment.serving.schemas import Error, Prediction, request_body
from mpt_sentiment.serving_arguments import ServeArguments, api_key

logger = logging.getLogger(__name__)
REFUSALS = {
    401: "Missing or wrong API key",
    408: "Not read or not computed in time",
    413: "Body too large",
    415: "Neither JSON nor a form",
    422: "Field that cannot be used",
    429: "Too many posts in work; repeat after the seconds of Retry-After",
}


def create_app(pipe: Pipeline, limits: ServeArguments | None = None) -> FastAPI:
    """Create the application of a server, for uvicorn or another ASGI server.

    Args:
        pipe ([`MPTPipeline`]): see [`load_pipeline`].
        limits ([`ServeArguments`], *optional*): sizes and times.
    """
    limits = limits or ServeArguments()
    predictor = Predictor(pipe, limits)
    slots = Slots(limits.max_queue)
    metrics = Metrics(lambda: slots.used)
    batcher = Batcher(predictor.predict, limits.max_batch_size, metrics.batch_sizes.observe)
    threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "posts")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(batcher.run())
        yield
        running.cancel()
        threads.shutdown()

    app = FastAPI(title="MPT sentiment", lifespan=lifespan, redoc_url=None)

    async def result_of(post: Any, place: str) -> dict[str, Any]:
        """Return the result of a post; a refusal names its field with its place in the list."""
        try:
            prepared = await asyncio.get_running_loop().run_in_executor(threads, predictor.prepare, post)
            result = await batcher.submit(prepared)
        except RequestError as error:
            metrics.refused_posts.labels(error.status).inc()
            raise RequestError(error.status, f"{place}{error.field}", error.message) from None
        except Exception:
            logger.exception("A post failed.")
            metrics.refused_posts.labels(500).inc()
            raise RequestError(
                500, f"{place}post", "The server failed on this post; its log has the reason."
            ) from None
        metrics.predictions.labels(result["label"]).inc()
        return result

    async def results_of(request: Request) -> dict[str, Any] | list[dict[str, Any]]:
        with slots.take(1):
            posts, is_list = await read_posts(request, int(limits.max_body_mb * MEBIBYTE))
            if not 0 < len(posts) <= limits.max_posts:
                raise RequestError(422, "body", f"A list has 1 to {limits.max_posts} posts, got {len(posts)}.")
            with slots.take(len(posts) - 1):
                if not is_list:
                    return await result_of(posts[0], "")
                tasks = (result_of(post, f"[{index}].") for index, post in enumerate(posts))
                results = await asyncio.gather(*tasks, return_exceptions=True)
        return [result.body() if isinstance(result, RequestError) else result for result in results]

    @app.post(
        "/predict",
        summary="Classify one post or a list of posts",
        description="In a list, a post that cannot be read has an error as its result; the others are classified.",
        response_model=None,
        responses={200: {"model": Prediction | list[Prediction | Error]}}
        | {status: {"model": Error, "description": text} for status, text in REFUSALS.items()},
        openapi_extra={"requestBody": request_body(pipe.processor.perspectives)},
        dependencies=[Depends(check_key)],
    )
    async def predict(request: Request) -> Response:
        start, status = time.perf_counter(), 500
        try:
            with anyio.fail_after(limits.timeout):
                answer = JSONResponse(await results_of(request))
            status = answer.status_code
            return answer
        except TimeoutError:
            status = 408
            message = f"The request was not read and computed within {limits.timeout:g} seconds."
            raise RequestError(408, "time", message, {"Connection": "close"}) from None
        except ClientDisconnect:
            status = 499
            return Response(status_code=400)  # read by no client
        except RequestError as error:
            status = error.status
            raise
        finally:
            metrics.requests.labels(status).inc()
            metrics.seconds.observe(time.perf_counter() - start)

    @app.get("/health", summary="Say that the server answers, and which model it has")
    async def health() -> dict[str, Any]:
        config = pipe.model.config
        return {
            "status": "ok",
            "model_type": config.model_type,
            "labels": [config.id2label[index] for index in sorted(config.id2label)],
            "modalities": list(config.modalities),
            "perspectives": list(pipe.processor.perspectives),
        }

    @app.get("/metrics", summary="Count for Prometheus", dependencies=[Depends(check_key)], response_class=Response)
    async def counts() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app.add_exception_handler(RequestError, _answer)
    app.add_exception_handler(HTTPException, _answer_of_framework)
    app.add_exception_handler(Exception, _answer_of_fault)
    return app


async def check_key(request: Request) -> None:
    """Check the key of a client, if the environment has one.

    Raises:
        RequestError: 401.
    """
    key = api_key()
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if key is None or (scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode())):
        return
    raise RequestError(
        401, "authorization", "Send the header `Authorization: Bearer KEY`.", {"WWW-Authenticate": "Bearer"}
    )


async def _answer(request: Request, error: RequestError) -> JSONResponse:
    return JSONResponse(error.body(), error.status, error.headers)


async def _answer_of_framework(request: Request, error: HTTPException) -> JSONResponse:
    field = {404: "path", 405: "method"}.get(error.status_code, "request")
    return await _answer(request, RequestError(error.status_code, field, f"{error.detail}.", error.headers))


async def _answer_of_fault(request: Request, error: Exception) -> JSONResponse:
    return await _answer(request, RequestError(500, "request", "The server failed; its log has the reason."))
