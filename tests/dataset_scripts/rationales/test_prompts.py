"""The three questions about a post differ in their last words only, and hold nothing that gives the answer away."""

import itertools
import json
import os
import re

import PIL.Image
import pytest
from transformers import AutoProcessor

from dataset_scripts.rationales.posts import prepare_post
from dataset_scripts.rationales.prompts import load_prompt
from helpers import tiny_lmm

PROMPTS = list(itertools.product(("default", "paper"), ("en", "zh")))


def post(text="A <|im_end|> day {reading} >>> 好", image=True, **columns):
    picture = PIL.Image.new("RGB", (90, 60), "red") if image else None
    return prepare_post({"id": "p/p0/7", "text": text, "image": picture} | columns, 28 * 28 * 64)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return AutoProcessor.from_pretrained(tiny_lmm.build(tmp_path_factory.mktemp("lmm")))


@pytest.mark.parametrize(("name", "language"), PROMPTS)
@pytest.mark.parametrize(("text", "image"), [("some words", True), ("some words", False), (None, True)])
def test_all_but_the_last_part_is_byte_identical_for_the_siblings(name, language, text, image):
    prompt = load_prompt(name, language)
    chats = [prompt.messages(post(text, image), perspective) for perspective in prompt.perspectives]
    beginnings = {json.dumps([chat[0], chat[1]["content"][:-1]], ensure_ascii=False) for chat in chats}
    endings = {chat[1]["content"][-1]["text"] for chat in chats}
    assert len(beginnings) == 1 and len(endings) == len(prompt.perspectives) == 3
    kinds = [part["type"] for part in chats[0][1]["content"]]
    assert kinds == ["image_url"] * image + ["text"] * (text is not None) + ["text"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_default_prompt_ends_with_what_tells_the_siblings_apart(language):
    prompt = load_prompt("default", language)
    chats = [prompt.messages(post(), perspective) for perspective in prompt.perspectives]
    tasks = [chat[1]["content"][-1]["text"] for chat in chats]
    readings = prompt.to_dict()[language]["readings"]
    longest = max(map(len, readings.values())) + 2  # a mark after it
    assert all(len(task) - len(os.path.commonprefix(tasks)) <= longest for task in tasks)


@pytest.mark.parametrize(("name", "language"), PROMPTS)
def test_the_siblings_share_all_tokens_of_system_image_and_text(name, language, processor):
    prompt = load_prompt(name, language)
    rows = []
    for perspective in prompt.perspectives:
        messages = prompt.messages(post(), perspective)
        content = [{"type": "image", "image": PIL.Image.new("RGB", (90, 60))}, *messages[1]["content"][1:]]
        messages = [messages[0], {"role": "user", "content": content}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        rows.append(processor(text=[text], images=[content[0]["image"]])["input_ids"][0])
    shared = sum(1 for _ in itertools.takewhile(lambda ids: len(set(ids)) == 1, zip(*rows, strict=False)))
    fence = processor.tokenizer(">>>\n\n")["input_ids"]
    end_of_post = next(at for at in range(len(rows[0])) if rows[0][at : at + len(fence)] == fence) + len(fence)
    assert shared >= end_of_post


@pytest.mark.parametrize(("name", "language"), PROMPTS)
def test_a_post_without_text_has_no_text_block(name, language):
    prompt = load_prompt(name, language)
    assert "<<<" in json.dumps(prompt.messages(post(), "positive"))
    assert "<<<" not in json.dumps(prompt.messages(post(text=" "), "positive"))


def test_what_is_asked_for_fits_what_the_post_has():
    prompt = load_prompt("default", "en")
    task = {
        (text, image): prompt.messages(post(text, image), "neutral")[1]["content"][-1]["text"]
        for text, image in [("words", True), ("words", False), (None, True)]
    }
    assert "relation between image and text" in task["words", True]
    assert "visible" not in task["words", False] and "words" not in task[None, True]


@pytest.mark.parametrize("perspective", ["positive", "neutral", "negative"])
def test_neither_label_nor_id_nor_path_reaches_a_prompt(perspective):
    row = dict(label=2, text_label="SECRET", image_label="SECRET", source="SECRET", rationale_positive="SECRET")
    plain, labelled = post(), post(**row)
    for name, language in PROMPTS:
        prompt = load_prompt(name, language)
        request = json.dumps(prompt.messages(labelled, perspective), ensure_ascii=False)
        assert "SECRET" not in request and "p0" not in request
        assert request == json.dumps(prompt.messages(plain, perspective), ensure_ascii=False)


def test_the_default_prompt_names_no_class_and_commands_none():
    for language, names in (("en", "positive|neutral|negative|must"), ("zh", "积极|消极|中性|正面|负面|必须")):
        prompt = load_prompt("default", language)
        for perspective in prompt.perspectives:
            request = json.dumps(prompt.messages(post(), perspective), ensure_ascii=False)
            assert not re.search(names, request)
    assert "weak" in json.dumps(load_prompt("default", "en").to_dict())
    assert (
        "You must think it is negative."
        in load_prompt("paper", "en").messages(post(), "negative")[1]["content"][-1]["text"]
    )


def test_a_chinese_post_is_asked_in_chinese_and_an_english_one_in_english():
    prompt = load_prompt("default", "auto")
    for text, language in (("天气真好啊", "zh"), ("what a day", "en")):
        assert prompt.messages(post(text), "positive") == load_prompt("default", language).messages(
            post(text), "positive"
        )
    assert load_prompt("default", "en").messages(post("天气真好啊"), "positive")[0]["content"].isascii()


def test_a_post_is_inserted_once_and_as_it_is():
    text = "{reading} {support} {text} {0} 100%"
    block = load_prompt("default", "en").messages(post(text), "positive")[1]["content"][1]["text"]
    assert f"<<<{text}>>>" in block


def own(tmp_path, change=lambda text: text):
    from dataset_scripts.rationales import prompts

    path = tmp_path / "own.yaml"
    path.write_text(change((prompts._FOLDER / "default.yaml").read_text(encoding="utf-8")), encoding="utf-8")
    load_prompt.cache_clear()
    return load_prompt(str(path), "en")


def test_the_hash_is_that_of_the_words_in_the_languages_asked_for(tmp_path):
    hashes = {
        load_prompt(name, language).hash for name, language in [*PROMPTS, ("default", "auto"), ("paper", "auto")]
    }
    assert len(hashes) == 6
    same = own(tmp_path).hash
    assert same == load_prompt("default", "en").hash
    assert own(tmp_path, lambda text: text.replace("at most 80 words", "at most 81 words")).hash != same
    assert own(tmp_path, lambda text: text.replace("approving, pleased", "approving,  pleased")).hash != same
    assert own(tmp_path, lambda text: text.replace("# One possible", "# A possible")).hash == same


def test_a_file_of_ones_own_may_name_other_perspectives(tmp_path):
    prompt = own(tmp_path, lambda text: text.replace("    neutral: informing", "    ironic: informing"))
    assert prompt.perspectives == ("positive", "ironic", "negative")
    with pytest.raises(ValueError, match="no reading for the perspective 'neutral', only for positive, ironic"):
        prompt.messages(post(), "neutral")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("{reading}", "sad"), "`task` does not contain {reading}"),
        (lambda text: text.replace("  system:", "  sytem:"), "exactly the fields"),
        (lambda text: "fr: {}", "one block per language"),
    ],
)
def test_a_faulty_file_is_refused_with_the_reason(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        own(tmp_path, change)


def test_unknown_prompts_and_languages_are_named_with_what_there_is():
    with pytest.raises(ValueError, match="no prompt 'papper'; there are default, paper"):
        load_prompt("papper")
    with pytest.raises(ValueError, match="not written in 'fr' but in en, zh"):
        load_prompt("default", "fr")
