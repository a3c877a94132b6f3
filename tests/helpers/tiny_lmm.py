"""Tiny Qwen2.5-VL with random weights, as a checkpoint and served by `transformers serve`."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    AddedToken,
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Shortened template of Qwen2.5-VL, with the same control tokens.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' or 'image_url' in part %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SERVER_PACKAGES = ("fastapi", "uvicorn", "openai", "pydantic")
_START_SECONDS = 300


def build(folder: Path) -> Path:
    """Write the checkpoint; a token is a byte, so that text of any language can be encoded."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {character: index for index, character in enumerate(bytes_to_unicode().values())}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in CONTROL_TOKENS}
    pixels = dict(min_pixels=28 * 28, max_pixels=448 * 448)
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=CHAT_TEMPLATE,
    )
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            eos_token_id=ids["<|im_end|>"],
            pad_token_id=ids["<|endoftext|>"],
            bos_token_id=None,
        ),
        vision_config=dict(
            depth=2, hidden_size=32, num_heads=2, intermediate_size=64, out_hidden_size=64, fullatt_block_indexes=[1]
        ),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(config).float().eval()
        for parameter in model.parameters():
            # With the usual 0.02, all prompts would get the same answer.
            if parameter.ndim > 1:
                parameter.data.normal_(0.0, 0.2)
    # Partial characters and control tokens would be lost in decoding.
    end = ids["<|im_end|>"]
    unprintable = [index for index in range(len(tokenizer)) if index != end and not _prints(tokenizer.decode([index]))]
    # Sampling parameters, like those of Qwen2.5-VL, which a specification must override.
    model.generation_config = GenerationConfig(
        suppress_tokens=unprintable,
        do_sample=True,
        temperature=1e-6,
        repetition_penalty=1.05,
        eos_token_id=end,
        pad_token_id=ids["<|endoftext|>"],
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _prints(text: str) -> bool:
    return len(text) == 1 and text.isascii() and text.isprintable()


def missing_for_serve() -> str | None:
    """Return the reason why `serve` cannot run, or None."""
    absent = [name for name in SERVER_PACKAGES if find_spec(name) is None]
    return f"transformers serve needs {', '.join(absent)} (the extra `test`)" if absent else None


@contextmanager
def serve(folder: Path, home: Path) -> Iterator[str]:
    """Run `transformers serve` with the checkpoint in `folder`, and yield its address.

    Args:
        folder: output of `build`; also the name of the model in requests.
        home: empty folder for the cache of the server.
    """
    (home / "hub").mkdir(parents=True, exist_ok=True)
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    script = shutil.which("transformers", path=str(Path(sys.executable).parent))
    command = [script] if script else [sys.executable, "-m", "transformers.cli.transformers"]
    log = open(home / "server.log", "wb")
    server = subprocess.Popen(
        [*command, "serve", str(folder), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)],
        env=os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(url, server, home / "server.log")
        yield url
    finally:
        server.kill()
        server.wait()
        log.close()


def _wait_until_up(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            if json.load(response)["status"] == "ok":
                return
        with suppress(subprocess.TimeoutExpired):
            server.wait(timeout=0.1)
    raise RuntimeError(f"transformers serve did not start:\n{log.read_text(errors='replace')}")
