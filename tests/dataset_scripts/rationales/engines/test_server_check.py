"""The doctor finds what would spoil a run: blind models, mixed-up caches, live control tokens, wrong names."""

import asyncio
import dataclasses

import pytest

from dataset_scripts.rationales.engines.base import Answer, FakeEngine
from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.engines.local import TransformersEngine
from dataset_scripts.rationales.engines.server_check import check_server, checks_table
from dataset_scripts.rationales.errors import MisconfiguredError
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.spec import RationaleSpec
from helpers import tiny_lmm

PROMPT = load_prompt("default", "en")
SPEC = RationaleSpec(model="m", prompt_hash=PROMPT.hash, language="en", max_tokens=12, max_pixels=28 * 28 * 64)


class Scripted(FakeEngine):
    """FakeEngine whose answers a function changes; it knows the post, the perspective and how often it was asked."""

    def __init__(self, change=lambda answer, post, count: answer, alive=True):
        self.change, self.alive, self.count = change, alive, 0

    async def healthy(self):
        return self.alive

    async def generate(self, post, perspective, attempt):
        self.count += 1
        return self.change(await super().generate(post, perspective, attempt), post, self.count)


def findings(engine, spec=SPEC):
    return {check.name: check for check in asyncio.run(check_server(engine, spec))}


def test_a_sound_engine_passes():
    checks = findings(
        Scripted(lambda answer, *_: dataclasses.replace(answer, cached_tokens=answer.prompt_tokens * 2 // 3))
    )
    assert [check.passed for check in checks.values()] == [True, True, True, True, True, None]


def test_a_server_that_is_down_is_all_that_is_said():
    checks = findings(Scripted(alive=False))
    assert list(checks) == ["health"] and checks["health"].passed is False


def test_a_first_answer_that_fails_ends_the_examination():
    def refuse(*_):
        raise MisconfiguredError("the model is unknown")

    checks = findings(Scripted(refuse))
    assert list(checks) == ["health", "answer"]
    assert "MisconfiguredError: the model is unknown" in checks["answer"].detail
    assert findings(Scripted(lambda *_: Answer(" ", "length")))["answer"].passed is False


def test_a_model_that_does_not_see_images_is_found():
    checks = findings(Scripted(lambda answer, *_: dataclasses.replace(answer, text="An image.")))
    assert checks["image canary"].passed is False and "does not see the images" in checks["image canary"].detail


def test_answers_that_change_by_themselves_prove_nothing():
    checks = findings(Scripted(lambda answer, _, count: dataclasses.replace(answer, text=f"answer {count}")))
    assert checks["image canary"].passed is None


def test_live_control_tokens_are_found_by_their_count():
    def as_structure(answer, post, _):
        return dataclasses.replace(answer, prompt_tokens=100 + post.text.count("im_end"))

    assert findings(Scripted(as_structure))["control tokens"].passed is False
    unknown = findings(Scripted(lambda answer, *_: dataclasses.replace(answer, prompt_tokens=None)))
    assert unknown["control tokens"].passed is None and unknown["shared beginning"].passed is None


def test_a_cache_that_shares_little_is_a_remark():
    assert findings(FakeEngine())["shared beginning"].passed is None


def test_the_table_has_a_line_for_each_finding():
    lines = checks_table(asyncio.run(check_server(Scripted(alive=False), SPEC))).splitlines()
    assert len(lines) == 1 and lines[0].startswith("FAILED  health")


METRICS = """# HELP vllm:prefix_cache_queries_total Prefix cache queries
vllm:prefix_cache_queries_total{{engine="0",model_name="m"}} {queries}
vllm:prefix_cache_hits_total{{engine="0",model_name="m"}} {hits}
vllm:prefix_cache_hits_created{{engine="0"}} 1.7e+09
"""


def test_the_hit_rate_is_that_of_the_servers_own_counters(monkeypatch):
    engine = EndpointEngine("http://127.0.0.1:9", SPEC, PROMPT)
    pages = {"/health": "", "/v1/models": '{"data": [{"id": "m"}]}'}
    metrics = iter([METRICS.format(queries=1e6, hits=4e5), METRICS.format(queries=1e6 + 900, hits=4e5 + 540)])

    async def get(path):
        return next(metrics) if path == "/metrics" else pages[path]

    monkeypatch.setattr(engine.endpoint, "get", get)
    monkeypatch.setattr(engine, "generate", FakeEngine().generate)
    checks = findings(engine)
    assert checks["shared beginning"].passed and checks["shared beginning"].detail.startswith("60% of the prompt")
    assert checks["model"].passed


def test_another_model_than_the_one_wanted_is_named(monkeypatch):
    engine = EndpointEngine("http://127.0.0.1:9", SPEC, PROMPT)

    async def get(path):
        return '{"data": [{"id": "qwen"}]}' if path == "/v1/models" else ""

    monkeypatch.setattr(engine.endpoint, "get", get)
    monkeypatch.setattr(engine, "generate", FakeEngine().generate)
    assert findings(engine)["model"].passed is False
    assert "the server has qwen, not 'm'" in findings(engine)["model"].detail


def test_a_real_model_in_this_process_passes(tmp_path):
    spec = dataclasses.replace(SPEC, model=str(tiny_lmm.build(tmp_path)))
    checks = findings(TransformersEngine.from_pretrained(spec, PROMPT, device="cpu"), spec)
    assert {name for name, check in checks.items() if check.passed} >= {
        "image canary",
        "control tokens",
        "equal answers",
    }
    assert "of the prompt tokens of 3 siblings" in checks["shared beginning"].detail


def test_a_real_server_passes(tmp_path):
    if reason := tiny_lmm.missing_for_serve():
        pytest.skip(reason)
    folder = tiny_lmm.build(tmp_path / "lmm")
    spec = dataclasses.replace(SPEC, model=str(folder))
    with tiny_lmm.serve(folder, tmp_path / "home") as url:
        checks = findings(EndpointEngine(url, spec, PROMPT, profile="transformers"), spec)
    assert not [check for check in checks.values() if check.passed is False]
    assert {name for name, check in checks.items() if check.passed} >= {
        "health",
        "answer",
        "image canary",
        "control tokens",
    }
