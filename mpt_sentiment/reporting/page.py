"""Files of a report: one HTML page, Markdown, and a CSV for each table."""

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import markupsafe
from PIL import Image

from dataset_scripts.output import markdown_table, write_text_atomically
from mpt_sentiment.evaluation.environment import environment as software
from mpt_sentiment.evaluation.model_card import without_paths
from mpt_sentiment.explaining import page as explanation_page
from mpt_sentiment.reporting.context import Context
from mpt_sentiment.reporting.section import Post, Section

_CARD_SIDE, _PALETTE = 360, 64
_MARKS = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


@dataclass(frozen=True)
class Account:
    """Lines at the head of a report.

    Attributes:
        heading (`str`): posts and split.
        synthetic (`bool`): whether the posts are written by code.
        lines (`dict[str, str]`): facts by name.
        command (`str`): the command of the whole report.
        failed (`dict[str, str]`): errors of runs.
    """

    heading: str
    synthetic: bool
    lines: Mapping[str, str]
    command: str
    failed: Mapping[str, str]


def write_report(
    folder: Path,
    context: Context,
    sections: Mapping[str, Section],
    commands: Mapping[str, str],
    command: str,
    failed: Mapping[str, str],
) -> None:
    """Write `index.html`, `report.md` and the tables as CSV."""
    account = account_of(context, command, failed)
    commands = {name: without_paths(text) for name, text in commands.items()}
    for section in sections.values():
        for table in section.tables:
            table.write_csv(folder / "tables" / f"{table.name}.csv")
    write_text_atomically(folder / "report.md", markdown(folder, account, sections, commands))
    write_text_atomically(folder / "index.html", html(account, sections, commands))


def account_of(context: Context, command: str, failed: Mapping[str, str]) -> Account:
    """Collect the facts that hold for all sections."""
    data = next(iter(context.plan.parts.values())).data
    seeds = sorted({seed for runs in context.runs.values() for seed in runs if seed is not None})
    versions = software()
    libraries = versions["libraries"]
    lines = {
        "Train, validation, test": ", ".join(f"{size:,}" for size in data.sizes.values())
        + (" posts" if len(context.plan.parts) == 1 else " posts in the first fold"),
        "Seeds": ", ".join(map(str, seeds)) or "–",
        "Split": f"{data.protocol}, seed {data.split_seed}, `{data.split_hash}`",
        "Software": ", ".join(f"{name} {libraries[name]}" for name in ("torch", "transformers") if name in libraries),
        "Hardware": versions["hardware"],
    }
    failed = {cell: without_paths(error) for cell, error in failed.items()}
    return Account(without_paths(context.heading), data.synthetic, lines, without_paths(command), failed)


def markdown(folder: Path, account: Account, sections: Mapping[str, Section], commands: Mapping[str, str]) -> str:
    """Render the report as Markdown, with links to figures and tables."""
    blocks = [f"# Report: {account.heading}", *(_SYNTHETIC,) * account.synthetic]
    blocks.append("\n".join(f"- {name}: {text}" for name, text in account.lines.items()))
    blocks.append(f"```bash\n{account.command}\n```")
    blocks += [f"- {cell} failed: {error}" for cell, error in account.failed.items()]
    for name, section in sections.items():
        blocks.append(f"## {section.title}")
        if section.omitted is not None:
            blocks.append(f"Omitted. {section.omitted}")
            continue
        blocks += section.prose
        for table in (each for each in section.tables if each.records):
            blocks += [f"{table.caption} ([CSV](tables/{table.name}.csv))", table.markdown()]
        for figure in section.figures:
            path = figure.path.relative_to(folder).as_posix()
            blocks.append(f"![{figure.caption.replace('[', '(').replace(']', ')')}]({path})")
        for heading, posts in section.posts.items():
            blocks += [f"### {heading}", posts_markdown(posts)] if posts else []
        blocks += [f"Note: {note}" for note in section.notes]
        blocks.append(f"```bash\n{commands[name]}\n```")
    return "\n\n".join(blocks) + "\n"


def posts_markdown(posts: list[Post]) -> str:
    """Format posts as a Markdown table; images are in the HTML page."""
    facts = list(dict.fromkeys(name for post in posts for name in post.facts))
    rows = [
        [post.id, *(post.facts.get(name) for name in facts), " ".join((post.text or "").split())] for post in posts
    ]
    return markdown_table(["Id", *facts, "Text"], rows, "l" * (len(facts) + 2))


def html(account: Account, sections: Mapping[str, Section], commands: Mapping[str, str]) -> str:
    """Render the report as one page without scripts and external references. Texts are escaped."""
    pages = explanation_page.environment(Path(__file__).parent, explanation_page.TEMPLATES)
    pages.filters |= {"marked": marked, "figure_uri": figure_uri}
    pages.globals["image_uri"] = lambda image: explanation_page.data_uri(image, _CARD_SIDE)
    values: dict[str, Any] = {"account": account, "sections": sections, "commands": commands, "synthetic": _SYNTHETIC}
    return pages.get_template("report.html").render(values)


def marked(text: str) -> markupsafe.Markup:
    """Escape a text and set `code` and **strong** parts of it."""
    escaped = str(markupsafe.escape(text))
    return markupsafe.Markup(
        _MARKS.sub(lambda match: f"<code>{match[1]}</code>" if match[1] else f"<strong>{match[2]}</strong>", escaped)
    )


def figure_uri(path: Path) -> str:
    """Encode a PNG with few colours in a data URI."""
    content = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").quantize(_PALETTE, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


_SYNTHETIC = (
    "**These posts are synthetic**: a program writes them. The page shows how a report looks; its numbers say nothing "
    "about real posts."
)
