"""Prompts: perspectives share a prefix, no label is revealed, own prompt files work."""

import itertools
import json
import os
import re

import PIL.Image
import pytest

from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.prompts import load_prompt
from dataset_scripts.rationales.spec import RationaleSpec
from dataset_scripts.rationales.store.store import RationaleStore

PROMPTS = list(itertools.product(("default", "paper"), ("en", "zh")))


def post(text="A <|im_end|> day {reading} >>> 好", image=True, **columns):
    picture = PIL.Image.new("RGB", (90, 60), "red") if image else None
    return prepare_post({"id": "p/p0/7", "text": text, "image": picture} | columns, 28 * 28 * 64)


def task(prompt, post, perspective):
    """Return the last part of a prompt."""
    return prompt.messages(post, perspective)[1]["content"][-1]["text"]


@pytest.mark.parametrize(("name", "language"), PROMPTS)
@pytest.mark.parametrize(("text", "image"), [("some words", True), ("some words", False), (None, True)])
def test_perspectives_differ_in_the_last_part_only(name, language, text, image):
    prompt = load_prompt(name, language)
    chats = [prompt.messages(post(text, image), perspective) for perspective in prompt.perspectives]
    prefixes = {json.dumps([chat[0], chat[1]["content"][:-1]], ensure_ascii=False) for chat in chats}
    tasks = {chat[1]["content"][-1]["text"] for chat in chats}
    assert len(prefixes) == 1 and len(tasks) == len(prompt.perspectives) == 3
    types = [part["type"] for part in chats[0][1]["content"]]
    assert types == ["image_url"] * image + ["text"] * (text is not None) + ["text"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_reading_is_at_the_end_of_the_default_prompt(language):
    prompt = load_prompt("default", language)
    tasks = [task(prompt, post(), perspective) for perspective in prompt.perspectives]
    longest = max(map(len, prompt.to_dict()[language]["readings"].values())) + 2  # with a punctuation mark
    assert all(len(text) - len(os.path.commonprefix(tasks)) <= longest for text in tasks)


def test_the_task_names_only_what_the_post_has():
    prompt = load_prompt("default", "en")
    assert "relation between image and text" in task(prompt, post("words", True), "neutral")
    assert "visible" not in task(prompt, post("words", False), "neutral")
    assert "words" not in task(prompt, post(None, True), "neutral")
    assert "<<<" not in json.dumps(prompt.messages(post(text=" "), "positive"))


@pytest.mark.parametrize(("name", "language"), PROMPTS)
def test_neither_label_nor_id_nor_path_is_in_a_prompt(name, language):
    row = dict(label=2, text_label="SECRET", image_label="SECRET", source="SECRET", rationale_positive="SECRET")
    prompt = load_prompt(name, language)
    for perspective in prompt.perspectives:
        request = json.dumps(prompt.messages(post(**row), perspective), ensure_ascii=False)
        assert "SECRET" not in request and "p0" not in request
        assert request == json.dumps(prompt.messages(post(), perspective), ensure_ascii=False)


@pytest.mark.parametrize(
    ("language", "class_names"), [("en", "positive|neutral|negative|must"), ("zh", "积极|消极|中性|正面|负面|必须")]
)
def test_the_default_prompt_names_no_class_and_the_paper_prompt_commands_one(language, class_names):
    prompt = load_prompt("default", language)
    for perspective in prompt.perspectives:
        assert not re.search(class_names, json.dumps(prompt.messages(post(), perspective), ensure_ascii=False))
    assert "You must think it is negative." in task(load_prompt("paper", language), post(), "negative")


def test_each_post_is_asked_in_its_own_language():
    prompt = load_prompt("default", "auto")
    for text, language in (("天气真好啊", "zh"), ("what a day", "en")):
        expected = load_prompt("default", language).messages(post(text), "positive")
        assert prompt.messages(post(text), "positive") == expected
    assert load_prompt("default", "en").messages(post("天气真好啊"), "positive")[0]["content"].isascii()


def test_placeholders_in_a_post_are_not_replaced():
    text = "{reading} {support} {text} {0} 100%"
    block = load_prompt("default", "en").messages(post(text), "positive")[1]["content"][1]["text"]
    assert f"<<<{text}>>>" in block


def load_own(tmp_path, change=lambda text: text, language="en"):
    """Load a changed copy of the default prompt file."""
    from dataset_scripts.rationales import prompts

    path = tmp_path / "own.yaml"
    path.write_text(change((prompts._FOLDER / "default.yaml").read_text(encoding="utf-8")), encoding="utf-8")
    load_prompt.cache_clear()
    return load_prompt(str(path), language)


def test_the_hash_depends_on_the_wording_in_the_requested_languages(tmp_path):
    languages = [*PROMPTS, ("default", "auto"), ("paper", "auto")]
    assert len({load_prompt(name, language).hash for name, language in languages}) == 6
    same = load_own(tmp_path).hash
    assert same == load_prompt("default", "en").hash

    assert load_own(tmp_path, lambda text: text.replace("at most 80 words", "at most 81 words")).hash != same
    assert load_own(tmp_path, lambda text: f"# comment\n{text}".replace("120字", "121字")).hash == same


def test_the_perspectives_are_those_of_the_prompt_file(tmp_path):
    prompt = load_own(tmp_path, lambda text: re.sub("(?m)^    neutral: .*\n", "", text), "auto")
    assert prompt.perspectives == ("positive", "negative")
    with pytest.raises(ValueError, match="neutral, only for positive, negative.*`readings`"):
        prompt.messages(post(), "neutral")
    spec = RationaleSpec(model="fake", prompt=prompt.name, prompt_hash=prompt.hash)
    with pytest.raises(ValueError, match="neutral, only for positive, negative.*`perspectives`"):
        RationaleStore.create(tmp_path / "refused", spec, prompt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("{reading}", "sad"), "`task` must contain {reading}"),
        (lambda text: text.replace("  system:", "  sytem:"), "exactly the fields readings, support, system"),
        (lambda text: "fr: {}", "one block per language, under en or zh"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_own(tmp_path, change)


def test_unknown_prompts_and_languages_are_refused():
    with pytest.raises(ValueError, match="'papper' not found. .*default, paper.*Did you mean 'paper'"):
        load_prompt("papper")
    with pytest.raises(ValueError, match="en, zh, got language='fr'"):
        load_prompt("default", "fr")
