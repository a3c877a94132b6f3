"""Lexicons of the gate: refusal, meta talk, denial, concession and conclusion by language.

Chinese was tuned on the 4,046 rationales that the authors of the paper released for CH-Mits. English was tuned on
constructed answers and on 3,729 rationales of MVSA posts, which rarely name a class. NEUTRAL IS NOT VALIDATED: the
Chinese file has no neutral rationales, and the English ones do not name the class.

Only words that name a class are matched. A rule for words of emotion ("a joyful last sentence contradicts negative")
was rejected: 0 of 16 matched answers had the wrong side, since a rationale cites opposite emotions to refute them.
"""

import dataclasses
import re
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """Patterns and sizes of one language.

    Repeats in patterns are bounded, so matching takes linear time.

    Attributes:
        chinese: written in Han characters; otherwise in Latin letters.
        min_length: minimum units (Chinese characters, English words) of an answer.
        copy_size, loop_size, sibling_size: units in an n-gram of the rules `copy`, `loop` and `sibling_same`.
        refusal: the model refuses or is unable to answer.
        meta: the answer comments on the instruction.
        class_words: words that name a class, by perspective. Other perspectives have no rule `wrong_side`.
        negation: inverts a word after it, or expresses that it is overcome.
        no_negation: exceptions to `negation`.
        denial_after: negates the word before it.
        scope_end: ends the scope of a negation or concession within a clause.
        concession: begins a clause that the answer then argues against.
        conclusion: begins a conclusion.
        scope: maximum characters in the scope of a negation.
        clause_end: characters that end a clause.
        sentence_end: separator of sentences.
    """

    chinese: bool
    min_length: int
    copy_size: int
    loop_size: int
    sibling_size: int
    refusal: re.Pattern[str]
    meta: re.Pattern[str]
    class_words: Mapping[str, re.Pattern[str]]
    negation: re.Pattern[str]
    no_negation: re.Pattern[str]
    denial_after: re.Pattern[str]
    scope_end: re.Pattern[str]
    concession: re.Pattern[str]
    conclusion: re.Pattern[str]
    scope: int
    clause_end: str
    sentence_end: re.Pattern[str]


def _zh(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives))


def _en(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b", re.IGNORECASE)


_CLASS_WORDS_ZH = "积极|正面|正向|消极|负面|负向|中性|贬义|褒义"

_ZH = Lexicon(
    chinese=True,
    min_length=20,
    copy_size=4,
    loop_size=8,
    sibling_size=3,
    refusal=_zh(
        r"抱歉[，,]?(?:但|不过)?[^。！？]{0,6}(?:无法|不能|没有|没办法)",
        r"我们?(?:确实|也)?(?:无法|不能|没办法|难以|不会|拒绝)[^，。！？]{0,8}"
        r"(?:理解|判断|回答|提供|确定|给出|协助|得出|认为|找到|解释|看到|查看|识别|分析|评论|断定|推测)",
        r"(?:作为|身为)(?:一个|一名|一款)?\s?(?:AI|人工智能|大?语言模型|助手)",
        r"^我?[很非]?常?抱歉|我需要更多|拒绝回答|不符合我的",
        r"(?:没有|缺乏|缺少)(?:足够|充分)的?(?:信息|证据|理由|上下文)",
    ),
    meta=_zh(
        r"题目(?:中|里)?(?:的|所)?(?:具体|似乎|也|已)?(?:要求|指示|规定|设定|假设|有误导|指令)|题意|题设|本题",
        r"(?:根据|按照|依照|基于|依据)(?:上述|给定|给出|你|您|所给|这一|这个|该)?的?(?:规则|指令|指示|要求|提示)",
        r"规则(?:要求|规定|是|中)|(?:标注|接受|解释)规则",
        r"(?:由于|因为|尽管|虽然|此|该|给定的?)指令|指令(?:要求|提示|中)|任务要求",
        r"(?:您|你)(?:所)?(?:要求|提出|给出|提供|的(?:问题|要求|指令|描述))|问题的?要求",
        r"(?:要求|让)(?:我们?|将其|把它)[^，。！？]{0,8}(?:认为|视为|解释|给出|说明|判定)",
        r"要求(?:我们)?认为|(?:由于|下面的)要求|为了?(?:符合|遵循|满足)(?:要求|请求|规则|指令)|(?:无法|不能)遵循",
        r"(?:建议|让|如果|请|告诉)[您你](?:详细|提供|认为|判断|评判)|请告诉我|建议您",
        rf"(?:符合|满足|契合)[^，。！？]{{0,10}}(?:{_CLASS_WORDS_ZH})[^，。！？]{{0,6}}(?:要求|规则)",
        r"结果翻译|翻译[成为](?:中文|汉语|英文)如下",
        r"给我[^，。！？]{0,16}(?:理由|理据|原因)",
        r"请(?:提供|给出|补充)[^。！？]{0,12}(?:信息|图片|文本|细节|上下文|内容)",
    ),
    class_words={
        "positive": _zh(r"积极|正面|正向|正能量|褒义|乐观"),
        "neutral": _zh(r"中性|中立"),
        "negative": _zh(r"消极|负面|负向|贬义|悲观"),
    },
    negation=_zh(
        r"没有|没(?!想到|错)|[并毫全均绝]无|无(?:任何|明显|直接|显著|需|关)|未",
        r"缺[乏少](?:明[显确]|任何|直接|具体|强烈)?的?[^的]{0,6}$",
        r"不(?:是|算|符合|属|应|该|会|可能|存在|含|包[含括]|具|带|构成|涉及|表|传|显|一定|够|再|如|认为|直接|明确|明显|"
        r"同意|利|等于|意味|至于|代表|必然|见得|被(?:认|视|归|看|解))",
        r"(?:不|非|(?:并不|不(?:太|很|怎么|那么|完全|全))[^的]{0,4})$",
        r"(?:无法|难以|[很较]难(?![过受堪忘])|不能|不足以|不可以?)[^，。！？]{0,16}"
        r"(?:判|认|视|归|断|看[出作成]|读出|确|[当算]作|算|称|理解[为成]|解[读释]|评价|推[断出测理]|得出|给出|提供|体现|"
        r"表[现达明]|传[达递]|构成|定[义性]|找[到出]|回答|感受到|成为|说)",
        r"谈不上|看不出|[算称说]不上|没那么|[而并绝]非|否认|反对|误(?:解|判|认|读|导)[为成]|错误地",
        r"(?:远离|[缓化]解|淡化|减[轻少弱]|摆脱|打破|克服|消除|驱散|抵消|告别|预防|避免|对抗|抵抗)[^的后]{0,6}$",
    ),
    no_negation=_zh(
        r"(?:没有|没能?|并?未能?|无法|不能|不会|并不|不足以|不|难以|很难)(?:完全|真正|直接|彻底|能够?)?"
        r"(?:排除|改变|抵消|覆盖|掩[盖饰]|影响|减[少轻弱]|淡化|[缓化]解|消除|否认|忽[视略]|转移|摆脱|避免|扭转|隐藏|遮掩)",
        r"不(?:仅|但|只|单|失|乏|断|由|禁|得不|可避免|可否认|言而喻|难|同于|如意)|无不|未来|未必不|毫无疑问",
        r"(?:并非|不是)(?:没有|毫无|不)|没有不|不无|无非",
    ),
    denial_after=re.compile(
        r"[^，。；！？在]{0,8}(?:不(?:太|大|够|是很|尽)?(?:恰当|合适|合理|准确|成立|妥|符合?|可靠|公平|正确)|"
        r"(?:受到了?|是种?)误[导解会判]|难以成立|站不住脚)"
    ),
    scope_end=_zh(r"而是|反而|反倒|但|却|然而|而且|[从进]而|以[致及]"),
    concession=_zh(r"虽|尽管|即[使便]|哪怕|固然|纵然|表面|字面|看似|乍看"),
    conclusion=_zh(
        r"因此|所以|总之|总的|总体|综上|综合|整体|整个|由此|可见|看来|应该|最终|归根|我认为|可以认为|基调|说明"
    ),
    scope=28,
    clause_end="，。；！？：,;!?:”』」\n",
    sentence_end=re.compile(r"[。！？!?；;]"),
)

_EN = Lexicon(
    chinese=False,
    min_length=8,
    copy_size=4,
    loop_size=4,
    sibling_size=2,
    refusal=_en(
        r"(?:I'm|I am) (?:really |very |so )?sorry,? (?:but|I)",
        r"I (?:cannot|can't|can not|could not|couldn't|am unable to|am not able to|won't|will not|refuse to|"
        r"must decline to) (?:help|assist|determine|provide|identify|comply|answer|judge|explain|view|analy[sz]e|"
        r"conclude|say whether|support|find|see (?:any|the image|an image)|argue|give|generate|create|describe)",
        r"as an? (?:AI|artificial intelligence)(?: (?:language )?(?:model|assistant))?(?=,| I\b)",
        r"as an? (?:large )?language model",
        r"(?:not enough|insufficient) (?:information|context|evidence) to",
        r"(?:it is|it's) (?:impossible|not possible) to (?:determine|say|judge|conclude|tell)",
    ),
    meta=_en(
        r"the (?:above )?prompt",
        r"(?:the|these|your|my|given) (?:instructions?|rules?) (?:says?|states?|asks?|requires?|tells?|given|above|"
        r"provided|to (?:argue|find|give|explain|think))",
        r"(?:according to|following|per|given|under) (?:the|these|your) (?:instructions?|rules?|request)",
        r"(?:I was|I am|I'm|we are|we were) (?:asked|told|instructed|required|supposed) to",
        r"you (?:asked|must think|want me|told me|requested)",
        r"the (?:task|instruction) (?:is|asks?|requires?|wants?|demands?|says|assumes)",
        r"the (?:requested|assigned|required|given|desired) (?:reading|perspective|sentiment|label|polarity|stance)",
        r"here (?:is|are) (?:the|a|my) (?:explanation|rationale|reason(?:ing|s)?|answer)",
        r"translat(?:e|ed|ion) (?:the result )?(?:in)?to (?:Chinese|English)",
    ),
    class_words={
        "positive": _en(r"positive(?:ly)?|positivity"),
        "neutral": _en(r"neutral(?:ly|ity)?"),
        "negative": _en(r"negative(?:ly)?|negativity"),
    },
    negation=_en(
        r"not|no|never|hardly|barely|scarcely|neither|nor|nothing|none|lacks?|lacking|without|cannot|\w{2,6}n't",
        r"fails? to|unlikely|far from|rather than|instead of|less(?= $)|little (?:that is|to|evidence|sign)|devoid of",
        r"absence of|(?:hard|difficult|impossible) to (?:see|find|read|call|argue|defend|consider|view)|mistaken for",
        r"overcom(?:e|es|ing)|contradicts?|counters?|offsets?|softens?|dispels?|defus(?:e|es|ing)",
    ),
    no_negation=_en(
        r"not (?:only|just|merely|simply)|no doubt|without (?:a )?doubt|no less|nothing but",
        r"without (?:the|his|her|its|their)",
        r"(?:not|hardly|cannot|\w{2,6}n't) (?:\w{1,12} )?"
        r"(?:hide|change|rule out|deny|remove|offset|overcome|soften|mask|dispel)",
    ),
    denial_after=re.compile(
        r"(?: \w{1,14}){0,2} (?:(?:is|are|was|seems?|looks?|does|can|could|would(?: be)?)(?: very| quite)?"
        r"(?:n't| not| hardly| barely| scarcely| never| nearly impossible| impossible| absent| hard to| difficult to|"
        r" unjustified| unwarranted)|hardly|barely|scarcely)\b",
        re.IGNORECASE,
    ),
    scope_end=_en(r"but|yet|however|instead|rather(?! than)|so|making|leaving|giving"),
    concession=_en(r"although|though|even if|while|despite|whereas|admittedly|granted|on the surface|at first glance"),
    conclusion=_en(r"therefore|thus|hence|overall|in (?:summary|conclusion|short|all|sum)|so|consequently|ultimately"),
    scope=48,
    clause_end=",.;:!?\n",
    sentence_end=re.compile(r"(?<=[.!?])[\"'”’)]{0,3}\s"),
)

LEXICONS: Mapping[str, Lexicon] = {"en": _EN, "zh": _ZH}
