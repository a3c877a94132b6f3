"""Rows of a comparison: a system, and the words that say what differs from it.

    mpt                          # all modalities that the posts have
    mpt -rationales              # without a modality: -text, -image, -rationales
    mvan +rationales             # baselines read rationales on request
    mpt shuffled                 # rationales of other posts of the same split
    mpt perspectives=positive    # rationales of the named perspectives alone
    mpt -sknet                   # without a branch: -sknet, -lstm, -cnn, -vit; +mean adds one
    mpt -mlcl                    # without a loss: its loss_weight_mlcl is 0
    mpt fusion=literal dropout=0.3   # any field of the configuration, and any argument of training
    mvan words                   # static word embeddings in the place of the text encoder's states
    mpt ensemble                 # mean of the probabilities of all seeds of the row `mpt`

Words are combined at will. `all`, `floors` and `ablations` are lists of rows.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from datasets import DatasetDict

from dataset_scripts.reading.report import did_you_mean
from modeling_mpt import SYSTEMS
from modeling_mpt.configuration_mpt import IMAGE_BRANCHES, MODALITIES, TEXT_BRANCHES
from modeling_mpt.trainer_mpt import MPTTrainingArguments
from mpt_sentiment.arguments import make_parser
from mpt_sentiment.evaluation.published import published
from mpt_sentiment.linear import BASELINES
from mpt_sentiment.recipe import COMMON_ENDINGS, TrainingSetup, check_values
from mpt_sentiment.training_arguments import LoraArguments, ModelArguments
from mpt_sentiment.training_data import modalities_of

KNOWN_SYSTEMS = (*BASELINES, *SYSTEMS)
LISTS = ("all", "floors", "ablations")
# Systems whose papers read static word vectors, and that can read the states of a text encoder instead.
STATIC_WORDS = ("co_mem", "mvan", "mgnns")
MARKS = ("shuffled", "words", "ensemble")
# Fields that words write, or that are the same for all rows.
_OWN_WORDS = {
    "model": "Begin the row with the name of the system.",
    "modalities": "Write -text, -image or -rationales.",
    "use_rationales": "Write +rationales.",
    "output_dir": "It is the same for all rows.",
    "seed": "Use --seeds.",
    "data_seed": "Use --seeds.",
    "feature_store": "It is the same for all rows.",
    "feature_store_dtype": "It is the same for all rows.",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a comparison.

    Attributes:
        system (`str`): name of the system.
        words (`tuple[str]`): what differs from it; words that change nothing are left out.
        values (`dict`): the values of `field=value`.
    """

    system: str
    words: tuple[str, ...] = ()
    values: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def title(self) -> str:
        return " ".join([self.system, *self.words])

    @property
    def folder(self) -> str:
        """Name of the folder of its runs."""
        name = re.sub(r"[^\w.+=,-]+", "_", self.title)
        plain = name == self.title.replace(" ", "_") and len(name) <= 100
        return name if plain else f"{name[:80]}-{hashlib.sha256(self.title.encode()).hexdigest()[:8]}"

    @property
    def trained(self) -> "Row":
        """Row whose runs this one reads: itself, without `ensemble`."""
        words = tuple(word for word in self.words if word != "ensemble")
        return self if words == self.words else Row(self.system, words, self.values)

    @property
    def reads_rationales(self) -> bool:
        """Return whether the system is given rationales if the posts have some."""
        if self.system == "mpt":
            return "-rationales" not in self.words
        return bool({"+rationales", "shuffled"} & {*self.words})

    @property
    def perspectives(self) -> list[str] | None:
        """Perspectives that the row names; `None` for all of the posts."""
        return self.values.get("perspectives")

    def published(self, dataset: str) -> tuple[float, float] | None:
        """Return the paper's accuracy and weighted F1 of this row, or `None`."""
        if {*self.words} - {"+rationales", "-rationales", "words"}:
            return None
        return published(self.system, dataset, self.reads_rationales)

    def modalities(self) -> list[str]:
        """List the modalities of a row of [`BASELINES`]."""
        reads = [
            name for name in BASELINES[self.system].reads if name != "rationales" and f"-{name}" not in self.words
        ]
        return [*reads, *["rationales"] * self.reads_rationales]

    def fields(self, base: TrainingSetup, present: Sequence[str]) -> dict[str, Any]:
        """Build the fields that make a run one of this row.

        Args:
            base ([`TrainingSetup`]): arguments of the system without changes.
            present (sequence of `str`): modalities that the posts have.

        Raises:
            ValueError: a word removes what the network has not, or all of it.
        """
        values = {name: value for name, value in self.values.items() if name != "perspectives"}
        if self.system in BASELINES:
            return {}
        removed = [word[1:] for word in self.words if word[0] == "-"]
        fields: dict[str, Any] = {f"loss_weight_{name}": 0.0 for name in removed if name in losses(self.system)}
        if self.system != "mpt":
            fields["use_rationales"] = self.reads_rationales
            if self.system in STATIC_WORDS:
                fields["text_provider"] = "embeddings" if "words" in self.words else "encoder"
            return fields | values
        if self.reads_rationales and "shuffled" in self.words and "rationales" not in present:
            raise ValueError("no post has a rationale to shuffle; join some with --rationales FILE")
        if {*removed} & {*MODALITIES}:
            fields["modalities"] = self._changed(base.model.modalities or present, MODALITIES)
            view = values.get("contrastive_view") or base.model.contrastive_view or "cross_modal"
            if view == "cross_modal" and not {"text", "image"} <= {*fields["modalities"]}:
                fields["contrastive_view"] = "fused"  # cross_modal compares text and image
        defaults = SYSTEMS["mpt"][0]()
        for name, known in (("text_branches", TEXT_BRANCHES), ("image_branches", IMAGE_BRANCHES)):
            if any(word[1:] in known for word in self.words):
                fields[name] = self._changed(
                    values.pop(name, None) or getattr(base.model, name) or getattr(defaults, name), known
                )
        return fields | values

    def _changed(self, names: Sequence[str], known: Sequence[str]) -> list[str]:
        """Return names without the removed ones, followed by the added ones."""
        removed = [word[1:] for word in self.words if word[0] == "-" and word[1:] in known]
        missing = [name for name in removed if name not in names]
        if missing:
            raise ValueError(f"-{missing[0]} changes nothing: there are {', '.join(names)}")
        added = [word[1:] for word in self.words if word[0] == "+" and word[1:] in known and word[1:] not in names]
        left = [*(name for name in names if name not in removed), *added]
        if not left:
            raise ValueError(f"nothing is left without {', '.join(removed)}")
        return left

    def posts(self, posts: DatasetDict) -> DatasetDict:
        """Return posts with the rationales of the row's perspectives alone.

        Raises:
            ValueError: posts without rationales of a perspective.
        """
        if self.perspectives is None:
            return posts
        known = perspectives_of(posts)
        unknown = [name for name in self.perspectives if name not in known]
        if unknown:
            raise ValueError(
                f"no post has a rationale {unknown[0]!r}; there are {', '.join(known) or 'none'}."
                + did_you_mean(unknown[0], known)
            )
        return posts.remove_columns([f"rationale_{name}" for name in known if name not in self.perspectives])


def parse_rows(texts: Sequence[str] | str) -> list[Row | str]:
    """Parse rows; the names of lists stay names.

    Raises:
        ValueError: an unknown system, list, word or field, or a row that is given twice.
    """
    rows: list[Row | str] = []
    for text in [texts] if isinstance(texts, str) else texts:
        row = text if text in LISTS else parse_row(text)
        if row in rows:
            title = row if isinstance(row, str) else row.title
            raise ValueError(f"The row {title!r} is given twice.")
        rows.append(row)
    if not rows:
        raise ValueError("`rows` must name at least one row, e.g. mpt.")
    return rows


def parse_row(text: str) -> Row:
    """Parse one row; see the head of this module for the grammar.

    Raises:
        ValueError: an unknown system, word or field, or words that contradict each other.
    """
    system, *words = text.split() or [""]
    if system not in KNOWN_SYSTEMS:
        raise ValueError(
            f"Unknown system {system!r}; use {', '.join(LISTS)}, or one of {', '.join(KNOWN_SYSTEMS)}."
            + did_you_mean(system, (*LISTS, *KNOWN_SYSTEMS))
        )
    values: dict[str, Any] = {}
    for word in words:
        name, is_value, value = word.partition("=")
        if is_value and word[0] not in "+-":
            if name in values:
                raise ValueError(f"{text!r}: `{name}` is given twice.")
            values[name] = parse_value(system, name, value, text)
        elif word not in (known := words_of(system)):
            listed = ", ".join([*known, "field=value"] if system in SYSTEMS else known) or "(none)"
            raise ValueError(f"{text!r}: unknown word {word!r}; {system} has {listed}.{did_you_mean(word, known)}")
    no_effect = ("+rationales",) if system == "mpt" or "shuffled" in words else ("-rationales",)
    if {"+rationales", "shuffled"} & {*words} and "-rationales" in words:
        raise ValueError(f"{text!r}: -rationales contradicts the rest of the row.")
    for word in words:
        if words.count(word) > 1 or (word[0] == "+" and f"-{word[1:]}" in words):
            raise ValueError(f"{text!r}: {word!r} is given twice or contradicts another word.")
    row = Row(system, tuple(word for word in words if word not in no_effect), values)
    if system in BASELINES and BASELINES[system].reads and not row.modalities():
        raise ValueError(f"{text!r}: no modality is left.")
    return row


@functools.cache
def words_of(system: str) -> list[str]:
    """List the words that a row of a system can have, except `field=value`."""
    if system == "mpt":
        modalities, marks = [f"-{name}" for name in MODALITIES] + ["+rationales"], ["shuffled", "ensemble"]
    elif system in BASELINES:
        reads = BASELINES[system].reads
        modalities = [f"-{name}" for name in reads] + ["+rationales"] * ("rationales" in reads)
        return modalities + ["shuffled"] * ("rationales" in reads)
    else:
        rationales = {"text", "image"} <= {*SYSTEMS[system][0].reads}
        modalities, marks = ["-rationales", "+rationales"] * rationales, ["shuffled"] * rationales
        marks += ["words"] * (system in STATIC_WORDS) + ["ensemble"]
    branches = [f"{sign}{name}" for name in (*TEXT_BRANCHES, *IMAGE_BRANCHES) for sign in "-+"]
    return [*modalities, *(branches if system == "mpt" else []), *(f"-{name}" for name in losses(system)), *marks]


@functools.cache
def losses(system: str) -> list[str]:
    """List the losses that a row can leave out."""
    prefix = "loss_weight_"
    names = [name.removeprefix(prefix) for name in SYSTEMS[system][0].numbers if name.startswith(prefix)]
    return [name for name in names if name != "ce"]


def parse_value(system: str, name: str, text: str, row: str) -> Any:
    """Parse the value of a field: JSON, words separated by commas, or one word.

    Raises:
        ValueError: an unknown field, or a value of another type.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = text.split(",") if "," in text else text
    if name == "perspectives" and {"-rationales", "+rationales"} & {*words_of(system)}:
        return value if isinstance(value, list) else [str(value)]
    if system in BASELINES:
        raise ValueError(f"{row!r}: {system} has no field {name!r}.")
    if name in _OWN_WORDS:
        raise ValueError(f"{row!r}: `{name}` cannot be a field of a row. {_OWN_WORDS[name]}")
    parser = _parser()
    actions = {action.dest: action for action in parser._actions}
    of_configurations = {
        field.name for field in dataclasses.fields(ModelArguments) if not field.name.endswith(COMMON_ENDINGS)
    }
    known = [*SYSTEMS[system][0].field_names(), *(field for field in actions if field not in of_configurations)]
    if name not in known:
        raise ValueError(f"{row!r}: unknown field {name!r}.{did_you_mean(name, known)}")
    if name in actions and actions[name].nargs in ("+", "*") and not isinstance(value, list):
        value = [value]
    check_values(parser, {name: value}, f"{row!r}: ")
    return value


@functools.cache
def _parser() -> Any:
    return make_parser([ModelArguments, LoraArguments, MPTTrainingArguments], "compare")


def expand_rows(rows: Sequence[Row | str], posts: DatasetDict, base: Callable[[str], TrainingSetup]) -> list[Row]:
    """Replace the names of lists by their rows, without those that are given already.

    Args:
        rows (sequence): result of [`parse_rows`].
        posts (`DatasetDict`): the posts; lists leave out what they have not.
        base (callable): gives the arguments of a system.

    Raises:
        ValueError: a row needs rationales, and no post has one.
    """
    rationales = "rationales" in modalities_of(posts)
    expanded: list[Row] = []
    for row in rows:
        if isinstance(row, Row):
            needs = {"+rationales", "shuffled"} & {*row.words} or row.perspectives
            if needs and not rationales:
                raise ValueError(
                    f"`rows` has {row.title!r}, but no post has a rationale; join some with --rationales."
                )
            expanded.append(row)
            continue
        for text in list_of_rows(row, posts, base):
            new = parse_row(text)
            if new not in (*expanded, *rows):
                expanded.append(new)
    return expanded


def list_of_rows(name: str, posts: DatasetDict, base: Callable[[str], TrainingSetup]) -> list[str]:
    """List the rows of `all`, `floors` or `ablations`."""
    present = modalities_of(posts)
    rationales = "rationales" in present
    if name == "ablations":
        return ablations(posts, base("mpt"))
    rows = []
    for system in KNOWN_SYSTEMS if name == "all" else BASELINES:
        if system in BASELINES:
            changes: Sequence[str] = [words for words in BASELINES[system].rows if _fits(system, words, present)]
        elif system == "mpt":
            changes = ("-rationales", "", "shuffled") if rationales else ("",)
        else:
            changes = ("", *(word for word in ("+rationales", "shuffled", "words") if word in words_of(system)))
        reading = ("+rationales", "shuffled")
        rows += [f"{system} {change}".strip() for change in changes if rationales or not change.endswith(reading)]
    return rows


def _fits(system: str, words: str, present: Sequence[str]) -> bool:
    """Return whether a row leaves out only what the posts have, and reads something of them."""
    row = parse_row(f"{system} {words}")
    removed = {word[1:] for word in row.words if word[0] == "-"}
    return removed <= {*present} and (not BASELINES[system].reads or bool({*row.modalities()} & {*present}))


def ablations(posts: DatasetDict, base: TrainingSetup) -> list[str]:
    """List MPT and its rows without a modality, loss or branch, and with one perspective."""
    defaults, present = SYSTEMS["mpt"][0](), base.model.modalities or modalities_of(posts)
    words = ["", *(f"-{name}" for name in present if len(present) > 1)]
    words += ["shuffled"] * ("rationales" in present)
    if (base.model.loss_weight_mlcl if base.model.loss_weight_mlcl is not None else defaults.loss_weight_mlcl) > 0:
        words.append("-mlcl")
    for name, modality in (("text_branches", "text"), ("image_branches", "image")):
        branches = getattr(base.model, name) or getattr(defaults, name)
        words += [f"-{branch}" for branch in branches if modality in present and len(branches) > 1]
    perspectives = perspectives_of(posts)
    if "rationales" in present and len(perspectives) > 1:
        words += [f"perspectives={name}" for name in perspectives]
    return [f"mpt {word}".strip() for word in words]


def perspectives_of(posts: DatasetDict) -> list[str]:
    """List the perspectives of the rationales of posts."""
    prefix = "rationale_"
    return [name.removeprefix(prefix) for name in posts["train"].column_names if name.startswith(prefix)]
