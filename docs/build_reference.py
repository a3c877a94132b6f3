"""Write docs/reference/ from docstrings: a page per public module, the commands and the arguments.

    python docs/build_reference.py

A test compares the committed pages with the pages that this script builds.
"""

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "reference"
# An object that several modules export is described on the page of the first.
MODULES = ("modeling_mpt", "processing_mpt", "dataset_scripts", "mpt_sentiment.evaluation", "mpt_sentiment")
PACKAGES = {name.partition(".")[0] for name in MODULES}
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Note|Example):")


def build() -> dict[str, str]:
    """Build all pages: file name → Markdown."""
    pages: dict[str, str] = {}
    page_of: dict[Any, str] = {}
    for name in MODULES:
        module, file = importlib.import_module(name), f"{name}.md"
        parts, links = [f"# {name}", markdown(module.__doc__)], []
        for export in sorted(module.__all__, key=str.lower):
            value = getattr(module, export)
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                parts.append(f"## {export}\n\nConstant of type `{type(value).__name__}`.")
                continue
            if page_of.get(value, file) != file:
                links.append(f"[{export}]({page_of[value]}#{export.lower()})")
            # Bases of this package document the inherited fields and methods.
            for part in inspect.getmro(value) if inspect.isclass(value) else [value]:
                if part not in page_of and part.__module__.partition(".")[0] in PACKAGES:
                    page_of[part] = file
                    parts += describe(part)
        parts.insert(2, f"Exported from other pages: {', '.join(links)}." if links else "")
        pages[file] = "\n\n".join(filter(None, parts)) + "\n"
    return pages | {"commands.md": commands_page(), "arguments.md": arguments_page()}


def describe(value: Any) -> Iterator[str]:
    """Describe a function, or a class with its public methods."""
    source = Path(inspect.getsourcefile(value)).read_text(encoding="utf-8")
    node: Any = next(node for node in ast.parse(source).body if getattr(node, "name", None) == value.__name__)
    yield f"## {value.__name__}"
    if isinstance(node, ast.ClassDef):
        methods = {method.name: method for method in node.body if isinstance(method, ast.FunctionDef)}
        if "__init__" in methods:
            yield signature(methods["__init__"], source).replace("def __init__", f"class {value.__name__}")
        yield markdown(ast.get_docstring(node))
        for name, method in methods.items():
            if not name.startswith("_") and ast.get_docstring(method):
                yield f"### {value.__name__}.{name}"
                yield signature(method, source)
                yield markdown(ast.get_docstring(method))
    else:
        yield signature(node, source)
        yield markdown(ast.get_docstring(node))


def signature(node: Any, source: str) -> str:
    """Quote the lines of a signature with its decorators, as they are in the file."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = "\n".join(source.splitlines()[first - 1 : node.body[0].lineno - 1])
    return f"```python\n{inspect.cleandoc(chr(10) + lines).rstrip().removesuffix(':')}\n```"


def markdown(docstring: str | None) -> str:
    """Convert a docstring: titles of sections become bold, entries become lists, references become code."""
    lines, section = [], ""
    for line in inspect.cleandoc(docstring or "").splitlines():
        if match := SECTION.fullmatch(line):
            section = match[1]
            lines += ["", f"**{section}**", ""]
        elif section in ("Args", "Attributes", "Raises") and re.match(r" {4}\S", line):
            lines.append(re.sub(r"^([*\w]+(?:, [*\w]+)*)", r"- `\1`", line.strip()))
        elif section and line.startswith("    "):
            lines.append(("  " if section in ("Args", "Attributes", "Raises") else "") + line.strip())
        else:
            section = section if not line else ""
            lines.append(line)
    text = re.sub(r"\[`~?([\w.]+)`\]", lambda match: f"`{match[1].rpartition('.')[2]}`", "\n".join(lines))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def commands_page() -> str:
    """Describe the commands by the docstrings of their modules."""
    parts = ["# Commands", "`mpt-sentiment COMMAND --help` lists the [arguments](arguments.md) of a command."]
    for name, (module, _) in importlib.import_module("mpt_sentiment.commands").COMMANDS.items():
        parts += [f"## {name}", markdown(importlib.import_module(f"mpt_sentiment.commands.{module}").__doc__)]
    return "\n\n".join(parts) + "\n"


def arguments_page() -> str:
    """List the fields of all dataclasses of arguments."""
    parts = [
        "# Arguments",
        "On the command line `--name value`, in a recipe `name: value`, in Python `name=value`. Training also accepts "
        "every field of `MPTTrainingArguments`, which extends the `TrainingArguments` of transformers.",
    ]
    commands = importlib.import_module("mpt_sentiment.commands").COMMANDS
    names = [
        f"mpt_sentiment.{path.stem}" for path in sorted((FOLDER.parents[1] / "mpt_sentiment").glob("*arguments.py"))
    ]
    names += [f"mpt_sentiment.commands.{module}" for module, _ in commands.values()]
    for module in map(importlib.import_module, names):
        for cls in filter(dataclasses.is_dataclass, vars(module).values()):
            fields = [field for field in dataclasses.fields(cls) if field.name in cls.__annotations__]
            if cls.__module__ == module.__name__ and fields:
                rows = [f"| `{field.name}` | {cell(field.metadata.get('help', ''))} |" for field in fields]
                table = "\n".join(["| Name | Meaning |", "|---|---|", *rows])
                parts += [f"## {cls.__name__}", markdown(cls.__doc__), table]
    return "\n\n".join(parts) + "\n"


def cell(text: str) -> str:
    """Escape the text of a table cell."""
    return text.replace("|", "\\|").replace("%%", "%")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for page, text in build().items():
        (FOLDER / page).write_text(text, encoding="utf-8")
