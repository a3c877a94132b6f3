"""Conventions of the source: docstrings, vocabulary, file sizes, direction of imports."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_mpt", "processing_mpt", "dataset_scripts", "mpt_sentiment", "examples", "benchmarks", "tests")
SOURCES = sorted(path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
PATTERNS = ("*.md", "docs/**/*.md", "mpt_sentiment/**/*.yaml", "dataset_scripts/**/*.yaml", "mpt_sentiment/**/*.md")
PAGES = sorted(path.relative_to(ROOT) for pattern in PATTERNS for path in ROOT.glob(pattern))
QUESTION_WORDS = ("What", "Which", "Of", "As", "How", "Whether", "Where", "That", "By")
FIGURES_OF_SPEECH = re.compile(
    r"\b(mend(s|ed|ing)?|lies|lying|lain|stands?|stood|behind|beside|tongues?|guilt|guilty|deaths?|nobody|in vain"
    r"|by heart|poison(ed|s)?|ledgers?|doctors?|dice)\b",
    re.IGNORECASE,
)
# Natural sentences that are data: the sample's grammar, the gate's lexicon, and this list of words.
SENTENCES = (
    "dataset_scripts/loaders/sample/",
    "dataset_scripts/rationales/quality/lexicon.py",
    "tests/test_conv",
    "dataset_scripts/rationales/store/old_names.py",
)
# Rooms of dataset_scripts from the lowest up: a room imports from itself and from earlier ones.
ROOMS = (("schema", "output"), ("reading", "duplicates"), ("loaders", "splits", "content"), ("registry", "rationales"),
         ("writing", "audit"), ("loading",), ("__init__",))  # fmt: skip
ARROWS = {
    "modeling_mpt": (),
    "processing_mpt": (),
    "dataset_scripts": (),
    "mpt_sentiment": ("modeling_mpt", "processing_mpt", "dataset_scripts"),
    "examples": ("mpt_sentiment",),
}


def imported_modules(path: Path) -> set[str]:
    """Dotted names that a file imports from this repository, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            package = ".".join(path.parts[:-1][: len(path.parts) - node.level]) if node.level else ""
            module = ".".join(filter(None, (package, node.module)))
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] in ARROWS}


def room_level(module: str) -> int:
    parts = module.split(".")
    room = parts[1] if len(parts) > 1 else "__init__"
    return next((level for level, rooms in enumerate(ROOMS) if room in rooms), len(ROOMS))


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_docstring_begins_with_one_plain_sentence(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    faults = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if docstring is None:
            continue
        first = docstring.splitlines()[0]
        if first in ("", "Args:"):  # transformers completes the docstring of a ModelOutput
            continue
        if first.split()[0].rstrip(",") in QUESTION_WORDS or len(first) > 90 or not first.endswith("."):
            faults.append(f"line {getattr(node, 'lineno', 1)}: {first}")
    assert not faults, f"{path}: a first line is one sentence of at most 90 characters:\n" + "\n".join(faults)


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=str)
def test_prose_has_no_figures_of_speech(path):
    if str(path).startswith(SENTENCES):
        pytest.skip("natural sentences that are data")
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    faults = [
        f"line {number}: {line.strip()}" for number, line in enumerate(lines, 1) if FIGURES_OF_SPEECH.search(line)
    ]
    assert not faults, f"{path}: write the field's word instead:\n" + "\n".join(faults)


def test_a_file_has_at_most_400_lines():
    sizes = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: size for path, size in sizes.items() if size > 400} == {}


@pytest.mark.parametrize("package", ARROWS)
def test_packages_import_in_one_direction(package):
    allowed = {package, *ARROWS[package]}
    faults = {
        str(path): sorted(foreign)
        for path in SOURCES
        if path.parts[0] == package
        and (foreign := {name for name in imported_modules(path) if name.split(".")[0] not in allowed})
    }
    assert faults == {}


def test_rooms_of_dataset_scripts_import_downwards():
    faults = {}
    for path in (path for path in SOURCES if path.parts[0] == "dataset_scripts"):
        own = room_level(".".join(path.with_suffix("").parts))
        assert own < len(ROOMS), f"{path} is in no room"
        upward = {name for name in imported_modules(path) if own < room_level(name) < len(ROOMS)}
        if upward and path.parts[1] != "__init__.py":
            faults[str(path)] = sorted(upward)
    assert faults == {}


def test_modules_do_not_import_in_a_circle():
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES}
    graph = {name: (imported_modules(path) & modules.keys()) - {name} for name, path in modules.items()}
    finished: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join([*trail[trail.index(name) :], name])
        if name not in finished:
            for imported in sorted(graph[name]):
                visit(imported, (*trail, name))
            finished.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("package", ["mpt_sentiment", "dataset_scripts"])
def test_no_public_name_is_that_of_a_module(package):
    """An imported module would replace the name of the package."""
    names = set(importlib.import_module(package).__all__)
    assert names & {path.stem for path in (ROOT / package).glob("*")} == set()
