"""Texts and rationales of the embedded sample: a small grammar whose sentence frames are the same in every tone.

Only the filled-in words carry the tone, so a reader who knows the words knows the tone, and nothing in a text tells
what its picture shows.
"""

from dataclasses import dataclass

from dataset_scripts.loaders.sample.choices import Dice

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
class Writing:
    """A text, and the words of it that carry its tone (literal quotes)."""

    text: str
    toned: tuple[str, ...]


def write_text(dice: Dice, tone: str, topic: Topic) -> Writing:
    """Write a post about `topic` in `tone`; it never knows what the picture shows."""
    frame = dice.pick(FRAMES)
    slots = {
        "adjective": dice.pick(ADJECTIVES[tone]),
        "verb": dice.pick(VERBS[tone]),
        "remark": dice.pick(REMARKS[tone]),
    }
    words = frame.format(
        **slots,
        thing=dice.pick(topic.things),
        place=topic.place,
        when=_when(dice),
        name=dice.pick(NAMES),
        degree=dice.pick(DEGREES),
    )
    sentence = words[0].upper() + words[1:] + dice.pick([".", "!", "", "..."])
    if dice.chance(0.3):
        sentence = f"@{dice.pick(NAMES).lower()}{dice.integer(1, 99)} {sentence}"
    if dice.chance(0.45):
        sentence += f" #{dice.pick([topic.place, *DAYS, *PARTS]).lower()}"
    if dice.chance(0.15):
        sentence += f" https://example.com/{dice.integer(1000, 9999)}"
    toned = tuple(
        # A remark that opens the sentence was given a capital letter: quote what stands there.
        word if word in sentence else word[0].upper() + word[1:]
        for slot, word in slots.items()
        if "{" + slot + "}" in frame
    )
    return Writing(sentence, toned)


def _when(dice: Dice) -> str:
    clock = f"{dice.integer(6, 22)}:{dice.pick(['00', '05', '10', '15', '20', '30', '40', '45', '50'])}"
    return dice.pick(
        [
            f"on {dice.pick(DAYS)} {dice.pick(PARTS)}",
            f"at {clock}",
            f"on {dice.integer(1, 28)} {dice.pick(MONTHS)}",
            f"on {dice.pick(DAYS)} at {clock}",
        ]
    )


# {word} is a quote, {reading} the perspective argued for, {sight} what the picture shows.
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
    dice: Dice, perspective: str, tone: str, toned: tuple[str, ...], mood: str, shows: str, subject: str
) -> str:
    """Argue for reading a post as `perspective` says, from its words and its picture.

    The same evidence is weighed for every perspective, and called weak where it is weak. The label is not known here.
    As a language model would, it does not always look closely: one picture in four is described without its mood.
    """
    said = dice.pick(FITTING_TEXT if tone == perspective else UNFITTING_TEXT)
    seen = dice.pick(FITTING_SIGHT if mood == perspective else UNFITTING_SIGHT)
    sight = subject if dice.chance(0.25) else shows
    said = said.format(word=dice.pick(toned), reading=READINGS[perspective])
    return f"{said}; {seen.format(sight=sight)}."
