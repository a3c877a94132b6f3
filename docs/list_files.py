"""List the repository's files in README, a line each: `python docs/list_files.py` after adding or removing one.

What a line says is the first line of the file's docstring, or the comment at its head.
"""

import ast
import re
import subprocess
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- files: written by docs/list_files.py -->\n", "<!-- end of files -->"
# Files that have no place for a sentence about themselves.
DESCRIPTIONS = {
    ".ci/run": "CI: the README's test command in a fresh environment",
    ".gitignore": "what git leaves alone",
    "CHANGELOG.md": "what changed, by release",
    "CONTRIBUTING.md": "what a newcomer needs to change something",
    "LICENSE": "Apache-2.0",
    "README.md": "this page",
    "docs/architecture.svg": "the figure above",
    "docs/comparison.png": "the chart in comparison.md",
    "evaluation_mpt/metrics/mpt_sentiment/README.md": "the card of the `evaluate` module",
    "evaluation_mpt/metrics/mpt_sentiment/index.html": "the page of its Space on the Hub",
    "evaluation_mpt/metrics/mpt_sentiment/requirements.txt": "what it needs there",
    "evaluation_mpt/model_card_template.md": "the model card before a run fills it in",
    "pyproject.toml": "build system and tool settings",
    "setup.cfg": "name, dependencies, extras",
}


def tracked_files(root: Path = ROOT) -> list[str]:
    """Paths of the files of the repository, those about to be added included, sorted folder by folder."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
    paths = {path for path in listed if path and (root / path).is_file()}
    return sorted(paths, key=lambda path: (str(Path(path).parent), path))


def description(path: Path) -> str:
    """First line of what a file says of itself.

    Raises:
        ValueError: it says nothing.
    """
    name = path.relative_to(ROOT).as_posix()
    if name in DESCRIPTIONS:
        return DESCRIPTIONS[name]
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        content = ast.get_docstring(ast.parse(content)) or ""
    elif path.suffix != ".md":
        content = "\n".join(re.findall(r"^#(?!!)(.*)", content, re.MULTILINE))
    said = content.partition("\n")[0].lstrip("# ").rstrip(".")
    if not said:
        raise ValueError(f"{name} says nothing of itself: begin it with a docstring or a comment of one line.")
    return said


def file_list() -> str:
    lines = []
    for folder, paths in groupby(tracked_files(), key=lambda path: Path(path).parent.as_posix()):
        paths = list(paths)
        if folder != ".":
            lines.append(f"{folder}/")
        indent = "" if folder == "." else "    "
        width = max(len(Path(path).name) for path in paths) + 2
        lines += [f"{indent}{Path(path).name:<{width}}{description(ROOT / path)}" for path in paths]
    return "\n".join(lines)


def updated(readme: str) -> str:
    """README with its list of files as it should be."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}```text\n{file_list()}\n```\n{END}{after}"


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")
