"""The page of explanations: each word once, no outside references, escaped texts, verdicts."""

import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image
from transformers import CLIPImageProcessor

from helpers import tiny_processor
from mpt_sentiment.explaining import Explanations, Faithfulness, explain
from mpt_sentiment.explaining.page import page_html
from mpt_sentiment.explaining.post import REGIONS, WORDS, visible_box

TEXT = "Good <script>alert('sea')</script> & rain http://t.co/x 天气"
POST = {"text": TEXT, "image": tiny_processor.image(), "rationales": {"negative": "a missed train"}}


class Page(HTMLParser):
    """Parsed page: coloured words, tags, and attributes that can load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        if self.tags and self.tags[-1] in ("b", "s"):
            self.words.append(data)
        if self.tags and data:
            self.tags.append("")


@pytest.fixture(scope="module")
def pipe():
    return tiny_processor.pipeline()


@pytest.fixture(scope="module")
def written(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return explain(pipe, POST, folder / "page.html", grid=3), folder


def test_the_page_has_each_word_once_in_order(written):
    result, folder = written
    page = Page((folder / "page.html").read_text(encoding="utf-8"))
    (post,) = result.posts
    expected = [row["word"] for row in [*post.words(None), *post.words("negative")]]
    assert "http://t.co/x" in expected and expected[-3:] == ["a", "missed", "train"]
    assert page.words == expected


def test_the_page_loads_nothing_and_escapes_texts(written):
    text = (written[1] / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.addresses and all(address.startswith(("data:image/jpeg", "#")) for address in page.addresses)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "url(" not in text and "@import" not in text
    assert "&lt;/</b>" in text
    assert text.count("<rect") == 9


def test_the_json_has_the_numbers_of_the_result(written):
    result, folder = written
    numbers = json.loads((folder / "page.json").read_text(encoding="utf-8"))
    assert numbers == json.loads(json.dumps(result.to_dict()))
    (post,) = numbers["posts"]
    assert len(post[REGIONS]) == 3 and post["words"][0]["word"] == "Good"
    assert [TEXT[row["start"] : row["end"]] for row in post["words"]] == [row["word"] for row in post["words"]]
    assert set(post["modalities"]) == {"text", "image", "rationales"}


def test_words_after_the_limit_are_struck_through_and_counted(pipe):
    pipe = type(pipe)(model=pipe.model, processor=tiny_processor.processor(max_length=5), device="cpu")
    result = explain(pipe, {"text": "what a good day at the sea"})
    page = page_html(result)
    assert re.findall(r"<s [^>]*>(\w+)</s>", page) == ["day", "at", "the", "sea"]
    assert "struck through" in result.notes[0]


def test_attributions_that_fail_the_test_are_not_to_be_trusted(written):
    (post,) = written[0].posts
    tests = [
        Faithfulness(WORDS, 12, 0.02, 0.01, 0.01, (-0.001, 0.021)),
        Faithfulness(REGIONS, 12, 0.05, 0.01, 0.04, (0.02, 0.06)),
        Faithfulness("perspectives", 12, 3e-5, 1e-5, 2e-5, (1e-5, 3e-5)),
        Faithfulness("modalities", 4, 0.05, 0.01, 0.04, None),
    ]
    text = " ".join(page_html(Explanations([post], tests, "leave_one_out", "mine", [], {})).split())
    assert "The attributions of words of the text are not to be trusted" in text
    assert "The attributions of regions of the image are not to be trusted" not in text
    assert text.count("Not to be trusted, by the faithfulness test.") == 1
    assert "trusted, but without effect" in text
    assert "fewer than 10 posts" in text and "−0.10 to 2.10" in text


def test_the_box_of_a_center_crop_is_the_part_that_the_network_reads():
    crop = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    assert visible_box(crop, (64, 32)) == (0.25, 0.0, 0.75, 1.0)
    ramp = Image.linear_gradient("L").rotate(90).resize((64, 32)).convert("RGB")  # dark at the left
    seen = crop(ramp, do_normalize=False, return_tensors="pt")["pixel_values"][0, 0, 0]
    assert sorted([seen[0].item(), seen[-1].item()]) == pytest.approx([0.25, 0.75], abs=0.03)
    assert visible_box(tiny_processor.image_processor(), (64, 32)) == (0.0, 0.0, 1.0, 1.0)
