"""The worst of what an audit found, to look at: one HTML file with its images inside."""

import base64
import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator, Sequence

import jinja2
import numpy as np

from dataset_scripts.audit.images import DECODING_FAULTS, image_bytes, open_flat
from dataset_scripts.audit.rows import AuditRows

_IMAGE_SIDE = 180
_OPPOSITE = {"positive", "negative"}


@dataclasses.dataclass
class SheetPost:
    """A post as the sheet shows it; `image` is a data URI or None, `rationales` those worth showing."""

    name: str
    label: str
    text: str
    image: str | None
    rationales: dict[str, str]


@dataclasses.dataclass
class SheetSection:
    """A heading, how many there are in all, and the worst of them: a caption and one or two posts each."""

    title: str
    total: int
    entries: list[tuple[str, list[SheetPost]]]


@dataclasses.dataclass
class Candidate:
    """What may go on the sheet: a caption, the rows of one or two posts, and perspectives whose rationales to show."""

    caption: str
    rows: tuple[int, ...]
    perspectives: tuple[str, ...] = ()


def draw_section(rows: AuditRows, title: str, candidates: Sequence[Candidate], limit: int) -> SheetSection:
    """The first `limit` of the candidates, their images made small."""
    entries = [
        (candidate.caption, [_post(rows, row, candidate.perspectives) for row in candidate.rows])
        for candidate in candidates[:limit]
    ]
    return SheetSection(title, len(candidates), entries)


def conflicting_pairs(rows: AuditRows, levels: dict[str, np.ndarray]) -> list[Candidate]:
    """One pair of each group with several labels; strongest level first, in it opposite polarities first."""

    def weight(first: int, second: int) -> int:
        names = {rows.label_name(first), rows.label_name(second)}
        if "no label" in names or len(names) < 2:
            return 0
        return 2 if names == _OPPOSITE else 1

    return _pairs(rows, levels, weight)


def crossing_pairs(rows: AuditRows, levels: dict[str, np.ndarray]) -> list[Candidate]:
    """One pair of each group in several of the given splits; in each level those of other labels first."""

    def weight(first: int, second: int) -> int:
        if rows.split_of[first] == rows.split_of[second]:
            return 0
        return 2 if rows.labels[first] != rows.labels[second] else 1

    return _pairs(rows, levels, weight)


def _pairs(rows: AuditRows, levels: dict[str, np.ndarray], weight: Callable[[int, int], int]) -> list[Candidate]:
    shown: set[tuple[int, int]] = set()
    candidates = []
    for level, groups in levels.items():
        found = []
        for members in _groups(groups):
            # One post of each label and split stands for all of them: a retweet may be there five hundred times.
            kinds = {(rows.labels[row], rows.split_of[row]): row for row in reversed(members)}.values()
            chosen = sorted(kinds)
            pairs = [(one, other) for place, one in enumerate(chosen) for other in chosen[place + 1 :]]
            best = max(pairs, key=lambda pair: weight(*pair), default=None)
            if best is not None and weight(*best) and best not in shown:
                shown.add(best)
                found.append((weight(*best), best, len(members)))
        found.sort(key=lambda one: (-one[0], one[1]))
        candidates += [Candidate(f"{level}; {size} posts in the group", pair) for _, pair, size in found]
    return candidates


def _groups(groups: np.ndarray) -> Iterator[list[int]]:
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups.tolist()):
        if group >= 0:
            members.setdefault(group, []).append(row)
    return (posts for posts in members.values() if len(posts) > 1)


def _post(rows: AuditRows, row: int, perspectives: Iterable[str]) -> SheetPost:
    post = rows.post(row)
    rationales = rows.rationales(post)
    return SheetPost(
        name=rows.names[row],
        label=rows.label_name(row),
        text=post["text"] or "",
        image=_data_uri(post["image"]),
        rationales={perspective: rationales[perspective] or "" for perspective in perspectives},
    )


def _data_uri(image: dict | None) -> str | None:
    if image is None:
        return None
    try:
        picture = open_flat(io.BytesIO(image_bytes(image)), _IMAGE_SIDE)
    except DECODING_FAULTS:
        return None
    picture.thumbnail((_IMAGE_SIDE, _IMAGE_SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def sheet_html(sections: Sequence[SheetSection], table: str) -> str:
    """One page without scripts or outside references; all texts are escaped."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE).render(sections=sections, table=table)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit of posts</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 2em auto; max-width: 76em;
  padding: 0 1em; }
pre { overflow-x: auto; background: #f5f5f5; padding: 1em; font-size: 13px; }
h2 { margin-top: 2em; }
h2 small { font-weight: normal; color: #555; }
.entries { display: grid; grid-template-columns: repeat(auto-fill, minmax(34em, 1fr)); gap: 1em; }
figure { margin: 0; border: 1px solid #ccc; padding: .7em; }
figcaption { color: #555; margin-bottom: .5em; }
.posts { display: flex; gap: 1em; }
.post { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.post img { max-width: 100%; display: block; margin-bottom: .4em; }
.none { color: #777; border: 1px dashed #bbb; padding: 1em; text-align: center; margin-bottom: .4em; }
.label { display: inline-block; padding: 0 .5em; background: #e6e6e6; border-radius: 3px; font-weight: 600; }
.label.positive { background: #cfe3f7; } .label.negative { background: #f9d9b8; }
.name { color: #555; }
p { margin: .4em 0; white-space: pre-line; }
@media (max-width: 40em) { .entries { grid-template-columns: 1fr; } }
</style>
</head>
<body>
<h1>Audit of posts</h1>
<pre>{{ table }}</pre>
{% for section in sections %}
<section>
<h2>{{ section.title }}
  <small>{{ section.entries | length }} of {{ "{:,}".format(section.total) }} shown</small></h2>
{% if not section.entries %}
<p>None.</p>
{% endif %}
<div class="entries">
{% for caption, posts in section.entries %}
<figure>
<figcaption>{{ caption }}</figcaption>
<div class="posts">
{% for post in posts %}
<div class="post">
{% if post.image %}
<img src="{{ post.image }}" alt="image of post {{ post.name }}">
{% else %}
<div class="none">no image to show</div>
{% endif %}
<span class="label {{ post.label }}">{{ post.label }}</span> <span class="name">{{ post.name }}</span>
<p dir="auto">{{ post.text }}</p>
{% for perspective, rationale in post.rationales.items() %}
<p dir="auto"><b>{{ perspective }}:</b> {{ rationale }}</p>
{% endfor %}
</div>
{% endfor %}
</div>
</figure>
{% endfor %}
</div>
</section>
{% endfor %}
</body>
</html>
"""
