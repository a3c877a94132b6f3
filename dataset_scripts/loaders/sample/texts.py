"""Texts and rationales of the embedded sample, generated from a small grammar.

Every tone has the same sentence frames. Only the words in the slots carry the tone, and no word of a text depends on
its picture.
"""

from dataclasses import dataclass

from dataset_scripts.loaders.sample.choices import SeededChoices
from dataset_scripts.loaders.sample.images import Picture

# Every text has an adjective and a verb or a remark of its tone; no adjective, verb or remark belongs to two tones.
ADJECTIVES: dict[str, tuple[str, ...]] = {
    "positive": ("great", "lovely", "wonderful", "amazing", "perfect", "brilliant", "delightful", "fantastic"),
    "neutral": ("usual", "regular", "weekly", "scheduled", "ordinary", "monthly", "standard", "routine"),
    "negative": ("awful", "terrible", "horrible", "dreadful", "miserable", "disappointing", "annoying", "boring"),
}
VERBS: dict[str, tuple[str, ...]] = {
    "positive": ("love", "enjoy", "adore", "treasure", "celebrate"),
    "neutral": ("attend", "note", "join", "record", "check"),
    "negative": ("hate", "regret", "dread", "despise", "resent"),
}
REMARKS: dict[str, tuple[str, ...]] = {
    "positive": ("so happy", "best day ever", "feeling grateful", "pure joy", "smiling all along", "such a treat"),
    "neutral": (
        "details online",
        "doors open early",
        "same time again",
        "notes attached",
        "as listed",
        "an update",
    ),
    "negative": ("so sad", "worst day ever", "feeling fed up", "pure misery", "crying all along", "such a waste"),
}


@dataclass(frozen=True)
class Topic:
    """Place of a post, the things that happen there, and the scenery of its picture."""

    place: str
    things: tuple[str, ...]
    scenery: str


TOPICS: tuple[Topic, ...] = (
    Topic("beach", ("swim", "walk", "picnic"), "sea"),
    Topic("harbour", ("ferry", "market", "tour"), "sea"),
    Topic("office", ("meeting", "lunch", "call"), "room"),
    Topic("school", ("exam", "lesson", "play"), "room"),
    Topic("gym", ("class", "training", "run"), "room"),
    Topic("station", ("train", "coffee", "trip"), "town"),
    Topic("stadium", ("match", "concert", "final"), "town"),
    Topic("airport", ("flight", "queue", "journey"), "town"),
    Topic("cinema", ("film", "premiere", "evening"), "town"),
    Topic("garden", ("party", "barbecue", "visit"), "trees"),
    Topic("park", ("festival", "race", "game"), "trees"),
    Topic("lake", ("camping", "fishing", "weekend"), "hills"),
    Topic("village", ("wedding", "dinner", "fair"), "hills"),
)

NAMES = (
    *("Ada", "Ben", "Carla", "Dev", "Elif", "Femi", "Greta", "Hugo", "Ines", "Jun", "Kofi", "Lena", "Mina", "Noah"),
    *("Olga", "Pablo", "Quinn", "Rosa", "Sami", "Tara", "Umar", "Vera", "Wanda", "Yuki", "Zoe"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PARTS = ("morning", "noon", "afternoon", "evening", "night")
MONTHS = ("January", "March", "May", "July", "September", "November")
DEGREES = ("really", "very", "quite", "truly", "rather")

FRAMES = (
    "What a {adjective} {thing} at the {place} {when}, {remark}",
    "{name} and I {verb} this {adjective} {thing} {when}",
    "{thing} at the {place} {when} with {name}: {adjective}, {remark}",
    "Just left the {place} {when}. {remark}, {degree} {adjective} {thing}",
    "We {verb} every {thing} at the {place}, {remark}. See you {when}, {name}",
    "Our {thing} {when} was {degree} {adjective}, {name} says: {remark}",
    "To all who {verb} the {place}: {thing} {when}, {degree} {adjective}",
    "{remark}! {name} at the {place} {when}, the {thing} is {adjective}",
)

READINGS = {"positive": "cheerful", "neutral": "matter-of-fact", "negative": "gloomy"}


@dataclass(frozen=True)
class Text:
    """Text of a post; `toned_words` are the words in it that carry its tone, as literal quotes."""

    content: str
    toned_words: tuple[str, ...]


def write_text(choices: SeededChoices, tone: str, topic: Topic) -> Text:
    """Write a post about `topic` in `tone`, independent of the picture."""
    frame = choices.pick(FRAMES)
    slots = {
        "adjective": choices.pick(ADJECTIVES[tone]),
        "verb": choices.pick(VERBS[tone]),
        "remark": choices.pick(REMARKS[tone]),
    }
    words = frame.format(
        **slots,
        thing=choices.pick(topic.things),
        place=topic.place,
        when=_when(choices),
        name=choices.pick(NAMES),
        degree=choices.pick(DEGREES),
    )
    sentence = words[0].upper() + words[1:] + choices.pick([".", "!", "", "..."])
    if choices.chance(0.3):
        sentence = f"@{choices.pick(NAMES).lower()}{choices.integer(1, 99)} {sentence}"
    if choices.chance(0.45):
        sentence += f" #{choices.pick([topic.place, *DAYS, *PARTS]).lower()}"
    if choices.chance(0.15):
        sentence += f" https://example.com/{choices.integer(1000, 9999)}"
    toned_words = tuple(
        word if word in sentence else word[0].upper() + word[1:]  # capitalized at the start of the sentence
        for slot, word in slots.items()
        if "{" + slot + "}" in frame
    )
    return Text(sentence, toned_words)


def _when(choices: SeededChoices) -> str:
    clock = f"{choices.integer(6, 22)}:{choices.pick(['00', '05', '10', '15', '20', '30', '40', '45', '50'])}"
    return choices.pick(
        [
            f"on {choices.pick(DAYS)} {choices.pick(PARTS)}",
            f"at {clock}",
            f"on {choices.integer(1, 28)} {choices.pick(MONTHS)}",
            f"on {choices.pick(DAYS)} at {clock}",
        ]
    )


# {word} is a quote, {reading} the perspective, {sight} a description of the picture.
FITTING_TEXT = (
    'The wording "{word}" leads straight to a {reading} reading',
    'With "{word}" the writer gives the text a {reading} sense',
    'Taken at its word, "{word}" makes for a {reading} post',
)
UNFITTING_TEXT = (
    'The wording "{word}" could be meant otherwise in a {reading} reading',
    'Only if "{word}" is not taken at its word is the text {reading}',
    'A {reading} sense is hard to find in "{word}" by itself',
)
FITTING_SIGHT = (
    "the picture shows {sight}, which agrees with it",
    "in the picture there is {sight}, and that bears it out",
    "it is borne out by the picture of {sight}",
)
UNFITTING_SIGHT = (
    "the picture shows {sight}, which does not help",
    "in the picture there is {sight}, and that is weak support",
    "it is hard to square with the picture of {sight}",
)


def write_rationale(
    choices: SeededChoices, perspective: str, tone: str, text: Text, mood: str, picture: Picture
) -> str:
    """Argue for reading a post as `perspective`, from its words and its picture.

    Every perspective uses the same evidence and calls it weak where it does not fit. The label has no influence. One
    picture in four is described without its mood, as by a careless language model.
    """
    about_text = choices.pick(FITTING_TEXT if tone == perspective else UNFITTING_TEXT)
    about_picture = choices.pick(FITTING_SIGHT if mood == perspective else UNFITTING_SIGHT)
    sight = picture.subject if choices.chance(0.25) else picture.shows
    about_text = about_text.format(word=choices.pick(text.toned_words), reading=READINGS[perspective])
    return f"{about_text}; {about_picture.format(sight=sight)}."
