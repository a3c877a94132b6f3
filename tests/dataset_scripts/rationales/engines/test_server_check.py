"""Server check: ignored images, unescaped control tokens, wrong models, low cache use."""

import asyncio
import dataclasses

import pytest

from dataset_scripts.rationales.engines.base import Answer, FakeEngine
from dataset_scripts.rationales.engines.endpoint import EndpointEngine
from dataset_scripts.rationales.engines.local import TransformersEngine
from dataset_scripts.rationales.engines.server_check import check_server, checks_table
from dataset_scripts.rationales.errors import MisconfiguredError, OutageError
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.spec import RationaleSpec
from helpers.faulty_server import FaultyServer

PROMPT = load_prompt("default", "en")
SPEC = RationaleSpec(model="m", prompt_hash=PROMPT.hash, language="en", max_tokens=12, max_pixels=28 * 28 * 64)


class ScriptedEngine(FakeEngine):
    """Fake engine with answers changed by `change(answer, post, number of requests)`."""

    def __init__(self, change=lambda answer, post, count: answer, is_healthy=True):
        self.change, self.is_healthy, self.count = change, is_healthy, 0

    async def check_health(self):
        if not self.is_healthy:
            raise OutageError("down")

    async def generate(self, post, perspective, attempt):
        self.count += 1
        return self.change(await super().generate(post, perspective, attempt), post, self.count)


def checks_by_name(engine, spec=SPEC):
    return {check.name: check for check in asyncio.run(check_server(engine, spec))}


def test_a_suitable_engine_passes():
    checks = checks_by_name(
        ScriptedEngine(lambda answer, *_: dataclasses.replace(answer, cached_tokens=answer.prompt_tokens * 2 // 3))
    )
    assert [check.passed for check in checks.values()] == [True, True, True, True, True, None]


def test_a_failed_health_check_or_first_answer_ends_the_check():
    checks = checks_by_name(ScriptedEngine(is_healthy=False))
    assert list(checks) == ["health"] and checks["health"].passed is False
    assert checks_table(list(checks.values())).startswith("FAILED  health")

    def refuse(*_):
        raise MisconfiguredError("the model is unknown")

    checks = checks_by_name(ScriptedEngine(refuse))
    assert list(checks) == ["health", "answer"]
    assert "the model is unknown" in checks["answer"].detail
    assert checks_by_name(ScriptedEngine(lambda *_: Answer(" ", "length")))["answer"].passed is False


def test_a_model_that_ignores_images_fails():
    equal = checks_by_name(ScriptedEngine(lambda answer, *_: dataclasses.replace(answer, text="An image.")))
    assert equal["image canary"].passed is False
    random = checks_by_name(
        ScriptedEngine(lambda answer, _, count: dataclasses.replace(answer, text=f"answer {count}"))
    )
    assert random["image canary"].passed is None


def test_unescaped_control_tokens_are_detected_by_token_counts():
    def parse_control_tokens(answer, post, _):
        return dataclasses.replace(answer, prompt_tokens=100 + post.text.count("im_end"))

    assert checks_by_name(ScriptedEngine(parse_control_tokens))["control tokens"].passed is False
    unknown = checks_by_name(ScriptedEngine(lambda answer, *_: dataclasses.replace(answer, prompt_tokens=None)))
    assert unknown["control tokens"].passed is None and unknown["shared prefix"].passed is None
    assert checks_by_name(FakeEngine())["shared prefix"].passed is None  # nothing is cached


METRICS = """# HELP vllm:prefix_cache_queries_total Prefix cache queries
vllm:prefix_cache_queries_total{{engine="0",model_name="m"}} {queries}
vllm:prefix_cache_hits_total{{engine="0",model_name="m"}} {hits}
vllm:prefix_cache_hits_created{{engine="0"}} 1.7e+09
"""


@pytest.mark.parametrize("model", ["m", "qwen"])
def test_a_server_is_asked_for_its_models_and_its_cache_hits(monkeypatch, model):
    with FaultyServer(pages={"/v1/models": (200, {}, {"data": [{"id": model}]})}) as server:
        engine = EndpointEngine(server.url, SPEC, PROMPT)

        async def generate(*arguments):
            counts = {"queries": 1e6 + 900 * len(asked), "hits": 4e5 + 540 * len(asked)}
            server.pages["/metrics"] = 200, {}, METRICS.format(**counts)
            asked.append(arguments)
            return await FakeEngine().generate(*arguments)

        asked = []
        server.pages["/metrics"] = 200, {}, METRICS.format(queries=1e6, hits=4e5)
        monkeypatch.setattr(engine, "generate", generate)
        checks = checks_by_name(engine)
    assert checks["shared prefix"].passed and "60%" in checks["shared prefix"].detail
    assert checks["model"].passed == (model == "m")
    assert model == "m" or "qwen, not 'm'. Use model=\"qwen\"" in checks["model"].detail


def test_a_local_model_passes(lmm_folder):
    spec = dataclasses.replace(SPEC, model=str(lmm_folder))
    checks = checks_by_name(TransformersEngine.from_pretrained(spec, PROMPT, device="cpu"), spec)
    assert all(checks[name].passed for name in ("image canary", "control tokens", "equal answers"))
    assert "3 perspectives" in checks["shared prefix"].detail


def test_transformers_serve_passes(lmm_folder, lmm_server):
    spec = dataclasses.replace(SPEC, model=str(lmm_folder))
    checks = checks_by_name(EndpointEngine(lmm_server, spec, PROMPT, profile="transformers"), spec)
    assert not [check for check in checks.values() if check.passed is False]
    assert all(checks[name].passed for name in ("health", "answer", "image canary", "control tokens"))
