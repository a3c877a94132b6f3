"""Rationale gate: faults are detected in both languages, valid rationales pass."""

import pytest

from dataset_scripts.rationales.quality.gate import HARD, SOFT, Verdict, check, check_post
from dataset_scripts.rationales.quality.lexicon import LEXICONS

EN = {
    "positive": "The wide smiles and the bright balloons show that the author enjoys the party with her friends.",
    "neutral": "The post names a place and an hour, and the photo shows the door of the hall, with no comment.",
    "negative": "The empty chairs and the word finally suggest that the author is tired of waiting for the guests.",
}
ZH = {
    "positive": "照片里的人笑得很开心，桌上摆着蛋糕和气球，文字里的感叹号也透露出作者对这次聚会的喜爱和满足。",
    "neutral": "这条帖子只是写出了活动的地点和时间，照片拍的是会场的大门，没有任何评论，读者只能得到一条通知。",
    "negative": "图中的椅子都空着，灯光昏暗，文字里反复提到等待，让人感到作者对迟到的客人十分失望，心情低落。",
}
VALID = {"en": EN, "zh": ZH}


def hard(answer, perspective="negative", language="zh", **options):
    return check(answer, perspective=perspective, language=language, **options).hard


def soft(answer, **options):
    return check(answer, perspective="negative", language="zh", **options).soft


def test_check_post_uses_text_and_siblings_and_skips_what_it_cannot_check():
    rationales = {"positive": EN["negative"], "neutral": " ", "negative": EN["negative"]}
    verdicts = check_post(rationales, language="en_GB", text="RT " + EN["positive"])
    assert verdicts["neutral"] is None
    assert verdicts["positive"].codes == verdicts["negative"].codes == ["sibling_same"]
    assert check_post({"positive": EN["positive"]}, language="en", text=EN["positive"])["positive"].hard == ("copy",)
    for language in ("fr", None):
        assert check_post(rationales, language=language, text=None) == dict.fromkeys(rationales)


@pytest.mark.parametrize("language", VALID)
def test_a_valid_rationale_passes_unchanged(language):
    for perspective, answer in VALID[language].items():
        verdict = check(
            answer, perspective=perspective, language=language, finish_reason="stop", siblings=VALID[language]
        )
        assert verdict == Verdict(answer)


@pytest.mark.parametrize(
    ("language", "answer", "code"),
    [
        *((language, text, "empty") for language in VALID for text in ("", " \n“…” 12 \U0001f600", "\x00", "``````")),
        ("zh", "这条微博让人难过。", "short"),
        ("en", "It is a sad picture.", "short"),
        ("zh", ZH["negative"].rstrip("。"), "truncated"),
        ("en", EN["negative"][:-9] + ",", "truncated"),
        ("zh", EN["negative"], "language"),
        ("en", ZH["negative"], "language"),
        ("zh", "图中的ゴミ箱旁边堆满了垃圾，灯光昏暗，让人感到作者对这里的环境十分失望，心情低落。", "script"),
        ("en", "The street is full of мусор, the sky is grey, and the author seems to be tired of it.", "script"),
        ("zh", "抱歉，我无法回答这个问题，因为图片里没有任何可以用来说明这种解读的细节和文字。", "refusal"),
        ("zh", "作为一个AI语言模型，我没有情绪，所以很难说明作者在写这段文字时的真实感受是什么。", "refusal"),
        ("en", "I'm sorry, but I can't say why the author of this post would dislike the party.", "refusal"),
        ("en", "As an AI language model, I have no feelings about this picture and its balloons at all.", "refusal"),
        ("zh", "图中的椅子都空着，灯光昏暗。根据题目要求，我们需要找到失望的理由，例如客人一直没有来。", "meta"),
        ("zh", "根据你给出的规则，图中的空椅子可以解释为等待，文字里的叹息也让人感到作者的失望。", "meta"),
        ("en", "According to the instructions, the empty chairs can be read as a sign of a long wait.", "meta"),
        ("en", "Here is the explanation: the empty chairs suggest that the author is tired of waiting.", "meta"),
        ("zh", "气球破了，" * 20 + "作者很失望。", "loop"),
        ("en", "The balloon is broken and sad. " * 12, "loop"),
        ("zh", ZH["negative"] + "<|im_end|>", "control"),
        ("en", "<think>Let me see.", "empty"),
        ("en", "The sign 加油 and the empty chairs suggest that the author is tired of waiting.", "script"),
        ("zh", ZH["negative"] + "addCriterion。", "control"),
    ],
)
def test_each_fault_gets_its_code(language, answer, code):
    verdict = check(answer, perspective="negative", language=language)
    assert code in verdict.hard and (verdict.text is None) == (code == "empty")


def test_truncation_is_detected_by_finish_reason_and_by_the_last_character():
    for reason in ("length", "content_filter", "abort", "unknown"):
        assert hard(ZH["negative"], finish_reason=reason) == ("truncated",)
    assert not hard(ZH["negative"], finish_reason="eos_token")
    for end in ("。”", "！", "…", "？）", "。\U0001f622", '."'):
        assert "truncated" not in hard(ZH["negative"].rstrip("。") + end)


@pytest.mark.parametrize(
    "thinking",
    [
        "<think>I cannot say; the rules ask for it.</think>\n\n",
        "Hm, the rules.</think>",  # the chat template began the thinking
        "<think>one</think> <think>two</think>",
        "<thinking>\nWell.\n</thinking>",
        "[THINK]Well.[/THINK]",
        "◁think▷Well.◁/think▷",
        "<|channel|>analysis<|message|>Well.<|end|><|start|>assistant<|channel|>final<|message|>",
    ],
)
def test_thinking_is_removed_before_an_answer_is_judged(thinking):
    verdict = check(thinking + EN["negative"], perspective="negative", language="en", finish_reason="stop")
    assert (verdict.text, verdict.hard) == (EN["negative"], ())


def test_thinking_without_an_end_is_no_answer():
    assert check(EN["negative"] + " <think>Or", perspective="negative", language="en").text == EN["negative"]


def test_quotations_from_the_post_are_no_faults():
    assert "script" not in hard("The sign 加油 and the empty chairs are sad.", language="en", post_text="加油!")
    foreign = "图中的ゴミ箱旁边堆满了垃圾，灯光昏暗，让人感到作者对这里的环境十分失望，心情低落。"
    assert "script" not in hard(foreign, post_text="看看这个ゴミ箱")
    quoting = "The words I cannot find my keys and the dark hall suggest that the author is upset and tired."
    assert "refusal" in hard(quoting, language="en")
    assert "refusal" not in hard(quoting, language="en", post_text="I cannot find my keys!!")
    assert "foreign_word" in soft(ZH["negative"] + "Sunday。")
    assert "foreign_word" not in soft(ZH["negative"] + "Sunday。", post_text="sunday 的聚会")


@pytest.mark.parametrize("language", VALID)
def test_copies_of_the_post_or_of_a_sibling_are_detected(language):
    answers = VALID[language]
    assert hard(answers["negative"], language=language, post_text="RT " + answers["negative"]) == ("copy",)
    siblings = {"positive": answers["negative"], "negative": answers["negative"]}
    assert hard(answers["negative"], language=language, siblings=siblings) == ("sibling_same",)
    assert hard(answers["negative"], language=language, siblings={"negative": answers["negative"]}) == ()


@pytest.mark.parametrize(
    ("language", "perspective", "answer"),
    [
        # denies its own perspective
        ("zh", "negative", "照片里的人笑得很开心，桌上摆着蛋糕，这条微博并没有任何明显的负面情绪。"),
        ("zh", "negative", "照片里的人笑得很开心，桌上摆着蛋糕，因此我们很难把它看作一条负面的微博。"),
        ("zh", "negative", "照片里的人笑得很开心，桌上摆着蛋糕，所以这条微博是积极的，而不是消极的。"),
        ("zh", "negative", "照片里的人笑得很开心，桌上摆着蛋糕，把这条微博归为负面是不合适的。"),
        ("zh", "negative", "这条微博可能被误解为负面的。但是照片里的人笑得很开心，桌上摆着蛋糕。"),
        ("zh", "neutral", "照片里的人笑得很开心，桌上摆着蛋糕，作者的态度显然不是中性的，而是喜悦。"),
        ("en", "negative", "Everyone smiles at the cake, and nothing in the picture or in the words is negative."),
        ("en", "negative", "Everyone smiles at the cake and claps, so a negative mood is hard to see in this post."),
        ("en", "positive", "The chairs are empty and the hall is dark, so the post can hardly be called positive."),
        ("en", "neutral", "The author claps and cheers for the winners, which is anything but sober, not neutral."),
        # concludes for another perspective
        ("zh", "negative", "照片里的人笑得很开心，桌上摆着蛋糕和气球。因此，这条微博传达了积极的情绪。"),
        ("zh", "positive", "照片拍的是会场的大门，文字是时间和地点。所以这条微博的态度是中立的。"),
        ("en", "negative", "Everyone smiles at the cake and the balloons. Overall, the post is clearly positive."),
        ("en", "negative", "The post names a place and an hour. In short, it is a neutral notice of an event."),
    ],
)
def test_an_argument_for_another_perspective_is_detected(language, perspective, answer):
    assert hard(answer, perspective, language) == ("wrong_side",)


@pytest.mark.parametrize(
    ("language", "perspective", "answer"),
    [
        # a concession before the argument
        ("zh", "negative", "虽然照片本身没有直接的负面内容，但文字里反复提到等待，让人感到作者的失望。"),
        ("zh", "negative", "图片没有传达负面情绪。然而文字里反复提到等待，因此这条微博是负面的。"),
        ("zh", "positive", "尽管文字里有一些负面的词语，但照片里的人笑得很开心，整体气氛温馨。"),
        ("en", "positive", "Although the first word is negative, the smiles and the cake show how pleased she is."),
        ("en", "negative", "The cake is not negative by itself. Overall the empty chairs leave a negative mood."),
        # the other class is overcome
        ("zh", "positive", "照片里的人笑得很开心，这种轻松的气氛化解了负面情绪，因此让人感到温暖和希望。"),
        ("zh", "positive", "照片里的人终于登上了山顶，整体来看，克服困难的正能量让人感到鼓舞和喜悦。"),
        # no denial despite a negation
        ("zh", "negative", "这张照片不仅灯光昏暗，而且传达了一种负面情绪，让人感到作者的失望和疲惫。"),
        ("zh", "negative", "照片里的笑容无法掩盖文字中的负面情绪，反复提到的等待让人感到作者的失望。"),
        ("zh", "negative", "“无语”和“失望”等词语进一步强调了这种负面情绪，让人感到作者十分疲惫。"),
        ("zh", "negative", "文字中提到的“没有人来”是一种消极的表达，让人感到作者的失望和疲惫。"),
        ("zh", "negative", "作者在文字里很难过地表达了自己的负面情绪，灯光昏暗，让人感到他的疲惫。"),
        ("en", "negative", "The dark hall is not only empty but negative in tone, with a sigh in every single word."),
        ("en", "negative", "The smiles cannot hide the negative tone of the words about waiting for the guests."),
        ("en", "positive", "There is no caption, and the positive tags with the cake show how pleased she is."),
        # names the other class without concluding
        ("zh", "positive", "照片里的人笑得很开心，这是积极的一面。不过文字里也带有一些负面的词语。"),
        ("zh", "negative", "标题看起来很积极。图中的椅子都空着，文字里反复提到等待，让人感到失望。"),
        # `wrong_side` does not apply to custom perspectives
        ("zh", "sarcastic", "照片里的人笑得很开心，桌上摆着蛋糕，因此这条微博并没有任何负面情绪。"),
    ],
)
def test_an_argument_for_its_own_perspective_passes(language, perspective, answer):
    assert hard(answer, perspective, language) == ()


@pytest.mark.parametrize(
    ("answer", "text", "codes"),
    [
        ("  It rains. \n", "It rains.", ("outer",)),
        ('"It rains."', "It rains.", ("outer",)),
        ("“It rains.”", "It rains.", ("outer",)),
        ("It rains.'", "It rains.", ("outer",)),
        ("“Rain” and “snow”.", "“Rain” and “snow”.", ()),
        ("It's 'wet'.", "It's 'wet'.", ()),
        ("It rains.\n\nIt  pours.", "It rains. It pours.", ("newline",)),
        ("**Rain**: it `pours`.", "Rain: it `pours`.", ("markup",)),
        ("- It rains.\n- It pours.", "It rains. It pours.", ("newline", "markup")),
        ("1. It rains.\n2. It pours.", "It rains. It pours.", ("newline", "markup")),
        ("### Rain\nIt pours.", "Rain It pours.", ("newline", "markup")),
        ("Rationale: it rains.", "it rains.", ("markup",)),
        ("<p>It rains.</p>", "It rains.", ("markup",)),
        ("What a f**k of #rain, 3 < 4.", "What a f**k of #rain, 3 < 4.", ()),
        ("Cafe\u0301 \u200bin the rain.", "Caf\u00e9 in the rain.", ("unicode",)),
        ("<think>Hm.\nWell.</think>\nIt rains.", "It rains.", ("outer",)),
        ("It rains.<|im_end|>", "It rains.", ("outer",)),
        ("<｜end▁of▁sentence｜>It rains.</s>", "It rains.", ("outer",)),
    ],
)
def test_formatting_is_removed_and_counted(answer, text, codes):
    verdict = check(answer, perspective="negative", language="en")
    assert verdict.text == text == check(text, perspective="negative", language="en").text
    assert tuple(code for code in verdict.soft if code in ("outer", "newline", "markup", "unicode")) == codes


def test_a_class_name_in_the_last_sentence_and_great_length_are_soft():
    named = "图中的椅子都空着，文字里反复提到等待，因此这条微博是负面的。"
    assert (hard(named), soft(named)) == ((), ("label_named",))
    long = "".join(f"第{number}把椅子空着，颜色是{chr(0x4E00 + 37 * number)}。" for number in range(40))
    assert "long" in soft(long)


@pytest.mark.parametrize(
    "piece",
    ["\ud800 half a pair", "\u202eright to left", "שלום עולם", "a", "\r\n\x0b\x85x", "\"'“", "<|<", "**`", "\n- 1. "]
    + ["不能认为负面", "not negative but positive ", "我无法从", "the instructions the prompt ", " ", ".\"') ", "a'"]
    + ["没有不是并未无法", "负面积极", "（抱歉，", "根据规则", "although ", "I am sorry, ", "不很太完全", "<a ", "# "],
)
@pytest.mark.parametrize("language", LEXICONS)
def test_any_string_gets_a_verdict_in_linear_time(language, piece):
    """Quadratic time on 100,000 characters would exceed the time limit of a test."""
    answer = (piece * 100_000)[:100_000] + " x"
    verdict = check(answer, perspective="neutral", language=language, post_text=answer, siblings={"positive": answer})
    assert set(verdict.hard) <= set(HARD) and set(verdict.soft) <= set(SOFT)


def test_a_language_tag_may_have_a_region_and_needs_a_lexicon():
    assert hard(ZH["negative"], language="zh-CN") == hard(EN["negative"], language="en_GB") == ()
    with pytest.raises(ValueError, match=r"en, zh, got 'de'"):
        check("Es regnet.", perspective="negative", language="de")
