"""Demo on this machine: the page, and rationales from a server."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported

import gradio as gr
from fastapi import FastAPI

from dataset_scripts.rationales.errors import EngineError, PreparationError
from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.quality.gate import check
from mpt_sentiment.demo.app import MAX_FILE_SIZE, THEME, create_page
from mpt_sentiment.explaining import explain
from mpt_sentiment.explaining.page import page_html
from mpt_sentiment.generating import open_engines, specification
from mpt_sentiment.generation_arguments import EngineArguments, SpecArguments
from mpt_sentiment.predicting import load_pipeline
from mpt_sentiment.serving.sockets import address, listening_socket, run_until_stopped
from mpt_sentiment.serving_arguments import DemoArguments

Writer = Callable[[str | None, bytes | None], Awaitable[dict[str, str]]]


def demo(folder: str | Path, args: DemoArguments | None = None) -> None:
    """Show the page of a model until SIGTERM or Ctrl-C.

    Args:
        folder (`str` or `Path`): output folder of `train`, whose code is run.
        args ([`DemoArguments`], *optional*): address, and the server of rationales.

    Raises:
        ValueError: a folder without a model, an unusable device, address or server of rationales.
    """
    args = args or DemoArguments()
    with listening_socket(args.host, args.port) as sock:
        pipe = load_pipeline(folder, args.device)
        write = None if args.endpoint is None else rationale_writer(args, pipe.processor.perspectives)
        app = create_app(pipe, write)
        print(f"Demo of {folder} at {address(sock)}", flush=True)
        run_until_stopped(app, sock, seconds=10)
    print("Stopped.", flush=True)


def create_app(pipe: Any, write: Writer | None = None) -> FastAPI:
    """Create the application of the page, for uvicorn.

    Args:
        pipe ([`MPTPipeline`]): model and processor.
        write (*optional*): see `create_page`.
    """
    page = create_page(pipe, write, lambda post: page_html(explain(pipe, post)))
    page.queue(max_size=64, default_concurrency_limit=1)
    page.has_launched = True  # else gradio opens any path that a client sends: it checks paths after `launch` alone
    return gr.mount_gradio_app(
        FastAPI(), page, path="/", theme=THEME, max_file_size=MAX_FILE_SIZE, show_error=False, ssr_mode=False
    )


def rationale_writer(args: DemoArguments, perspectives: list[str]) -> Writer:
    """Return a function that requests the rationales of one post from a server.

    Raises:
        ValueError: unusable address or key, or perspectives that the prompt does not have.
    """
    engine_args = EngineArguments(endpoint=[args.endpoint], api_key_env=args.api_key_env)
    spec, prompt = specification(SpecArguments(model=args.rationale_model, perspectives=perspectives))
    engine_args.server_options()

    async def write(text: str | None, image: bytes | None) -> dict[str, str]:
        try:
            post = prepare_post({"id": "demo", "text": text, "image": image}, spec.max_pixels, spec.language)
            (engine,) = open_engines(engine_args, spec, prompt)
            try:
                answers = await asyncio.gather(*(engine.generate(post, name, 0) for name in perspectives))
            finally:
                await engine.close()
        except (EngineError, PreparationError) as error:
            raise ValueError(str(error)) from None
        written = {}
        for name, answer in zip(perspectives, answers, strict=True):
            verdict = check(
                answer.text,
                perspective=name,
                language=post.language,
                finish_reason=answer.finish_reason,
                post_text=post.text,
                siblings=written,
            )
            if verdict.hard:
                raise ValueError(f"The answer for {name} was rejected ({', '.join(verdict.hard)}). Write it yourself.")
            written[name] = verdict.text
        return written

    return write
