"""What the gate knows of each language: how it refuses, talks about the task, denies and concludes.

Chinese was tuned on the 4,046 rationales that the paper's authors released for CH-Mits; English on made-up answers
and on rationales of MVSA posts, which hardly ever name a side. NEUTRAL IS NOT VALIDATED in either language: the
authors' Chinese file has no neutral rationales.
"""

import dataclasses
import re
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Side:
    """Words of one perspective.

    Attributes:
        named: words that name the side itself ("negative", 负面); what conclusions and denials are made of.
        felt: feelings that speak for the side. Weaker: only a last sentence full of them, with no word of the
            rationale's own side, counts as a conclusion.
    """

    named: re.Pattern[str]
    felt: re.Pattern[str]


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """What the rules of one language are made of.

    Attributes:
        chinese: written in Han characters; else in Latin letters.
        min_length: fewest units (Chinese characters, English words) of an answer.
        copy_size, loop_size, sibling_size: units in an n-gram of the rules `copy`, `loop` and `sibling_same`.
        refusal: the model will not or cannot answer.
        meta: the answer talks about the instruction.
        negation: what turns a following word into its opposite.
        no_negation: what looks like a negation and is none.
        turn: what ends the reach of a negation, besides the end of a clause.
        reach: characters that a negation reaches.
        clause_end: characters at which the reach of a negation ends.
        sentence_end: between two sentences.
        sides: by perspective; of other perspectives no rule about sides is applied.
    """

    chinese: bool
    min_length: int
    copy_size: int
    loop_size: int
    sibling_size: int
    refusal: re.Pattern[str]
    meta: re.Pattern[str]
    negation: re.Pattern[str]
    no_negation: re.Pattern[str]
    turn: re.Pattern[str]
    reach: int
    clause_end: str
    sentence_end: re.Pattern[str]
    sides: Mapping[str, Side]


def _words(*alternatives: str, whole: bool = False) -> re.Pattern[str]:
    joined = "|".join(alternatives)
    return re.compile(rf"\b(?:{joined})\b" if whole else joined, re.IGNORECASE)


_ZH = Lexicon(
    chinese=True,
    min_length=20,
    copy_size=4,
    loop_size=8,
    sibling_size=3,
    refusal=_words(
        r"抱歉[，,]?(?:但|不过)?[^。！？]{0,6}(?:无法|不能|没有|没办法)",
        r"我(?:确实|也|们)?(?:无法|不能|没办法|难以|不会|拒绝)[^，。！？]{0,8}"
        r"(?:理解|判断|回答|提供|确定|给出|协助|得出|认为|找到|解释|看到|查看|识别|分析|评论)",
        r"(?:无法|不能|难以)(?:直接|简单|单独|准确|明确)?(?:地)?(?:从[^，。！？]{1,16})?"
        r"(?:判断|断定|推断|确定|得出)[^。！？]{0,16}(?:积极|正面|消极|负面|中性|情绪|情感|结论)",
        r"(?:作为|身为)(?:一个|一名|一款)?\s*(?:AI|人工智能|大?语言模型|助手)",
        r"拒绝回答",
        r"(?:没有|缺乏|缺少)(?:足够|充分)的?(?:信息|证据|理由|上下文)",
    ),
    meta=_words(
        r"题目|题意|题设|依题",
        r"(?:根据|按照|依照|遵循|遵照|基于|依据)(?:上述|给定|给出|你|您|所给|这一|这个|该)?的?(?:规则|指令|指示|要求|提示)",
        r"规则(?:要求|规定|是|中)|(?:标注|接受|解释)规则",
        r"指令|提示词|任务要求",
        r"(?:您|你|用户|问题)(?:所)?(?:要求|提出|给出|提供)",
        r"(?:要求|让)(?:我们?|将其|把它)[^，。！？]{0,8}(?:认为|视为|解释|给出|说明|判定)",
        r"要求(?:我们)?认为",
        r"(?:符合|满足|契合)[^，。！？]{0,10}(?:积极|正面|消极|负面|中性|贬义)[^，。！？]{0,6}(?:要求|规则)",
        r"翻译(?:成|为)(?:中文|汉语|英文)",
        r"给我[^，。！？]{0,16}(?:理由|理据|原因)",
        r"请(?:提供|给出|补充)[^。！？]{0,12}(?:信息|图片|文本|细节|上下文|内容)",
    ),
    negation=_words(
        r"没有|没|并无|毫无|全无|无(?=任?何?明?显?[^法论]{0,4})|并不|不是|不算|不符|不属|不能|不可|不应|不该|不会|不存在|不含|不包含",
        r"不具|不带|不构成|不涉及|不表|不传|不显|不直接|不明显|不太|不一定|不太可能|无法|难以|很难|未|缺乏|缺少|谈不上|看不出|算不上",
        r"非(?=[^常])|避免|误解|否认",
    ),
    no_negation=_words(
        r"不仅|不但|不只|不单|无不|不失|不乏|不断|无疑|毫无疑问|无论|无意识|没想到|没人能|不由|不禁|不得不|从未|未来|未必不",
        r"非但|非常|除非|是非|绝无仅有|无比|无限|无穷|无忧|无尽|忍不住|无奈",
    ),
    turn=_words(r"而是|反而|但|却|然而|而且"),
    reach=16,
    clause_end="，。；！？：,;!?:\n",
    sentence_end=re.compile(r"[。！？!?；;\n]+"),
    sides={
        "positive": Side(
            named=_words(r"积极|正面|正向|正能量|褒义|乐观"),
            felt=_words(
                r"喜悦|愉快|愉悦|开心|快乐|欢乐|美好|赞美|赞赏|赞扬|赞叹|喜爱|喜欢|幸福|温馨|满足|满意|享受|感激|感谢|憧憬|"
                r"向往|希望|温暖|欣赏|热爱|自豪|祝福|期待"
            ),
        ),
        "neutral": Side(named=_words(r"中性|中立"), felt=_words(r"客观|平淡|平静地?陈述|只是(?:告知|陈述|记录|询问)")),
        "negative": Side(
            named=_words(r"消极|负面|负向|贬义|悲观"),
            felt=_words(
                r"失望|不满|无奈|疲惫|疲劳|疲倦|焦虑|悲伤|伤感|痛苦|愤怒|担忧|担心|厌恶|孤独|孤单|沮丧|困惑|压力|讽刺|抱怨|"
                r"烦|遗憾|恐惧|害怕|绝望|低落|不安|不适|不快|不悦|不好|不良|不健康|不舒|缺乏|批评|失落|压抑|难过|问题|"
                r"困难|困境|麻烦|嘲|反感|郁|忧|哀|愁|累|糟|差|坏|危险|浪费|虚荣|炫耀|尴尬|冷漠|质疑|怀疑|矛盾|冲突|"
                r"不良|不当|不够|不足|过度|过于|失|伤|痛|苦|恶|怒|惧"
            ),
        ),
    },
)

_EN = Lexicon(
    chinese=False,
    min_length=8,
    copy_size=4,
    loop_size=4,
    sibling_size=2,
    refusal=_words(
        r"(?:I'm|I am) (?:really |very |so )?sorry,? (?:but|I)",
        r"I (?:cannot|can't|can not|could not|couldn't|am unable to|am not able to|won't|will not|refuse to|"
        r"must decline to) (?:help|assist|determine|provide|identify|comply|answer|judge|explain|view|"
        r"analy[sz]e|conclude|say whether|support|find|see (?:any|the image|an image)|argue|give|generate|create|describe)",
        r"as an? (?:AI|artificial intelligence|(?:large )?language model|assistant)",
        r"(?:there is )?(?:not enough|insufficient) (?:information|context|evidence) to",
        r"(?:it is|it's) (?:impossible|not possible) to (?:determine|say|judge|conclude|tell)",
        r"(?:cannot|can't|can not|could not) be (?:determined|judged|concluded|classified)",
        whole=True,
    ),
    meta=_words(
        r"the (?:above )?prompt",
        r"(?:the|these|your|my|given) (?:instructions?|rules?) (?:says?|states?|asks?|requires?|tells?|given|above|"
        r"provided|to (?:argue|find|give|explain|think))",
        r"(?:according to|following|per|given|under) (?:the|these|your) (?:instructions?|rules?|request)",
        r"(?:I was|I am|I'm|we are|we were) (?:asked|told|instructed|required|supposed) to",
        r"you (?:asked|must think|want me|told me|requested)",
        r"the (?:task|question|user|request) (?:asks?|requires?|wants?|demands?|says|assumes)",
        r"the (?:requested|assigned|required|given|desired) (?:reading|perspective|sentiment|label|polarity|stance)",
        r"here (?:is|are) (?:the|a|my) (?:explanation|rationale|reason(?:ing|s)?|answer)",
        r"translat(?:e|ed|ion) (?:the result )?(?:in)?to (?:Chinese|English)",
        whole=True,
    ),
    negation=_words(
        r"not|no|never|hardly|barely|scarcely|neither|nor|nothing|none|lacks?|lacking|without|cannot|can't|isn't|aren't|"
        r"wasn't|doesn't|don't|didn't|won't|couldn't|wouldn't|fails? to|unlikely|far from|rather than|instead of|"
        r"little (?:that is|to|evidence|sign)|devoid of|absence of|hard to (?:see|find|read)|difficult to",
        whole=True,
    ),
    no_negation=_words(
        r"not only|not just|not merely|not simply|no doubt|without (?:a )?doubt|no less|nothing but", whole=True
    ),
    turn=_words(r"but|yet|however|although|though|while|instead|rather(?! than)|and so", whole=True),
    reach=48,
    clause_end=".;:!?\n",
    sentence_end=re.compile(r"(?<=[.!?])[\"'”’)]*\s+|\n+"),
    sides={
        "positive": Side(
            named=_words(r"positiv(?:e|ely|ity)|approv(?:al|ing)|favou?rabl[ey]|optimis(?:m|tic)", whole=True),
            felt=_words(
                r"joy(?:ful|ous)?|happ(?:y|iness|ily)|delight(?:ed|ful)?|pleas(?:ed|ure)|enthusias(?:m|tic)|gratitude|proud(?:ly)?|"
                r"pride|celebrat(?:es?|ion|ing|ory)|admir(?:es?|ation|ing)|affection(?:ate)?|hopeful|excite(?:d|ment)|cheerful",
                whole=True,
            ),
        ),
        "neutral": Side(
            named=_words(r"neutral(?:ity|ly)?|impartial(?:ity|ly)?|even-handed", whole=True),
            felt=_words(
                r"informative|informational|factual(?:ly)?|matter-of-fact|descriptive|inform(?:s|ing)?|announce(?:s|ment)?|"
                r"report(?:s|ing)?|documents?|undecided|balanced|ordinary|routine|plain(?:ly)?|unclear|ambiguous|open|mixed",
                whole=True,
            ),
        ),
        "negative": Side(
            named=_words(r"negativ(?:e|ely|ity)|disapprov(?:al|ing)|unfavou?rabl[ey]|pessimis(?:m|tic)", whole=True),
            felt=_words(
                r"sad(?:ness|ly)?|ang(?:er|ry)|disappoint\w*|frustrat\w*|complain\w*|critici[sz]\w*|mock\w*|fear\w*|worr\w*|"
                r"contempt\w*|pain\w*|grief|los[ts]|lonel\w*|bitter\w*|anxi\w*|resent\w*|regret\w*|sarcas\w*|cold|hollow|"
                r"tired|exhaust\w*|threat\w*|gloom\w*|uneas\w*|unpleasant\w*|annoy\w*|weary|weariness|distress\w*|harsh\w*",
                whole=True,
            ),
        ),
    },
)

LEXICONS: Mapping[str, Lexicon] = {"en": _EN, "zh": _ZH}
