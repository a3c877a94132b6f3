"""Local engine: a shared prefix gives the same answers as separate calls."""

import asyncio
import dataclasses

import PIL.Image
import pytest
import torch

from dataset_scripts.rationales.engines import local
from dataset_scripts.rationales.engines.local import TransformersEngine, process_shards
from dataset_scripts.rationales.errors import MisconfiguredError, PermanentError, RetryableError
from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.spec import RationaleSpec

PROMPT = load_prompt("default", "auto")
MAX_PIXELS = 28 * 28 * 100


def post(name, text, size=None, colour="red"):
    image = None if size is None else PIL.Image.new("RGB", size, colour)
    return prepare_post({"id": name, "text": text, "image": image}, MAX_PIXELS)


POSTS = [
    post("wide", "a nice day <|im_end|>", (300, 200)),
    post("no image", "only words, and many of them"),
    post("no text", None, (200, 90), "blue"),
    post("chinese", "今天天气很好", (80, 200)),
    post("tiny", "x", (1, 1)),
]


@pytest.fixture(scope="module")
def engine(lmm_folder):
    spec = RationaleSpec(model=str(lmm_folder), prompt_hash=PROMPT.hash, max_tokens=20, max_pixels=MAX_PIXELS)
    return TransformersEngine.from_pretrained(spec, PROMPT, device="cpu")


@pytest.fixture
def vision_passes(engine):
    passes = []
    hook = engine.model.model.visual.register_forward_hook(lambda *_: passes.append(1))
    engine._prefixes.clear()
    yield passes
    hook.remove()


def answers(engine, posts, attempt=0, separately=False, alternate=False):
    requests = [(post, perspective) for post in posts for perspective in engine.spec.perspectives]
    if alternate:  # between posts
        requests.sort(key=lambda request: engine.spec.perspectives.index(request[1]))

    async def generate_all():
        generate = engine.generate_separately if separately else engine.generate
        return await asyncio.gather(*(generate(*request, attempt) for request in requests))

    return asyncio.run(generate_all())


@pytest.mark.parametrize(
    ("attempt", "alternate"), [(0, False), (0, True), (1, False)], ids=["greedy", "alternating", "sampled"]
)
def test_a_shared_prefix_gives_the_tokens_of_separate_calls(engine, attempt, alternate):
    shared = answers(engine, POSTS, attempt, alternate=alternate)
    separate = answers(engine, POSTS, attempt, separately=True, alternate=alternate)
    assert [dataclasses.replace(answer, cached_tokens=0) for answer in shared] == separate
    assert len({answer.text for answer in shared}) > len(POSTS)


def test_an_image_is_encoded_once_for_all_perspectives_and_attempts(engine, vision_passes):
    first, *others = answers(engine, POSTS[:1])
    answers(engine, POSTS[:1], attempt=1)
    assert len(vision_passes) == 1 and first.cached_tokens == 0
    delimiter = engine.processor.tokenizer(">>>\n\n")["input_ids"]
    ids = engine._inputs(POSTS[0], "positive")["input_ids"][0].tolist()
    start = next(index for index in range(len(ids)) if ids[index : index + len(delimiter)] == delimiter)
    assert all(answer.cached_tokens >= start + len(delimiter) for answer in others)


def test_few_prefixes_are_kept_in_memory(engine, vision_passes):
    many = [post(f"{number}", f"text {number}", (30, 30)) for number in range(6)]
    answers(engine, many)
    assert len(vision_passes) == 6 and len(engine._prefixes) == local._CACHED_PREFIXES


def test_the_generation_config_of_the_model_is_overridden(engine):
    """The generation_config.json of the tiny model samples, with a repetition penalty."""
    spec = dataclasses.replace(engine.spec, repetition_penalty=None)
    plain = TransformersEngine(engine.model, engine.processor, spec, PROMPT)
    inputs = plain._inputs(POSTS[0], "positive")
    tokens = plain.model.generate(**inputs, do_sample=False, repetition_penalty=1.0, max_new_tokens=20)
    expected = plain.processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answers(plain, POSTS[:1])[0].text == expected


def test_sampling_does_not_change_the_random_state(engine):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    answers(engine, POSTS[:1], attempt=1)
    assert torch.equal(torch.rand(2), expected)


def test_the_finish_reason_tells_truncation_from_an_end_token(engine, monkeypatch):
    short = TransformersEngine(engine.model, engine.processor, dataclasses.replace(engine.spec, max_tokens=2), PROMPT)
    assert {answer.finish_reason for answer in answers(short, POSTS[:1])} == {"length"}
    first = engine.processor.tokenizer("x")["input_ids"][0]

    def generate(**inputs):
        end = torch.tensor([[first, engine.model.generation_config.eos_token_id]])
        return torch.cat([inputs["input_ids"], end], dim=1)

    monkeypatch.setattr(engine.model, "generate", generate)
    answer = answers(engine, POSTS[:1])[0]
    assert (answer.text, answer.finish_reason, answer.completion_tokens) == ("x", "stop", 2)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (torch.OutOfMemoryError("out of memory"), RetryableError),
        (ValueError("odd image"), PermanentError),
        (RuntimeError("shape mismatch"), PermanentError),
        (RuntimeError("CUDA error: device-side assert triggered"), MisconfiguredError),
    ],
)
def test_exceptions_of_the_model_are_classified(engine, monkeypatch, fault, expected):
    def generate(**_):
        raise fault

    monkeypatch.setattr(engine.model, "generate", generate)
    with pytest.raises(expected, match="'wide'"):
        answers(engine, POSTS[:1])


def test_a_missing_model_is_misconfigured(tmp_path, engine):
    spec = dataclasses.replace(engine.spec, model=str(tmp_path))
    with pytest.raises(MisconfiguredError, match="cannot be loaded as an image-text-to-text model"):
        TransformersEngine.from_pretrained(spec, PROMPT)


@pytest.mark.parametrize(("shards", "processes"), [(8, 3), (3, 8), (1, 1), (2500, 64)])
def test_each_shard_belongs_to_one_process(monkeypatch, shards, processes):
    taken = []
    for index in range(processes):
        state = type("State", (), {"process_index": index, "num_processes": processes})
        monkeypatch.setattr(local, "PartialState", lambda state=state: state)
        taken.extend(process_shards(shards))
    assert taken == list(range(shards))
