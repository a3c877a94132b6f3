"""Documentation: the reference is up to date, links resolve, every page is reachable."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def test_the_committed_reference_is_up_to_date():
    pages = runpy.run_path(str(DOCS / "build_reference.py"))["build"]()
    committed = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md")}
    assert committed.keys() == pages.keys()
    outdated = [name for name in pages if committed[name] != pages[name]]
    assert not outdated, f"run `python docs/build_reference.py`: {outdated}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_and_titles_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        target = "".join(target)
        if re.match(r"https?:", target):
            continue
        file, _, title = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), f"{page.name}: {target}"
        if title:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert title in {re.sub(r"[^\w\- ]", "", text).lower().replace(" ", "-") for text in titles}, target


def test_every_page_is_reachable_from_the_index():
    reached, queue = set(), [DOCS / "index.md"]
    while queue:
        page = queue.pop().resolve()
        if page in reached or page.suffix != ".md" or not page.is_relative_to(DOCS):
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        queue += [page.parent / link for link in links if not re.match(r"https?:", link)]
    assert {path.resolve() for path in DOCS.rglob("*.md")} == reached
