"""README's list of files is the repository's."""

import pathlib

from docs.list_files import ROOT, tracked_files, updated


def test_readme_lists_every_file_with_what_it_says_of_itself():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert updated(readme) == readme, "run `python docs/list_files.py`"


def test_the_list_is_that_of_the_disk():
    listed = set(tracked_files())
    sources = {path.relative_to(ROOT).as_posix() for path in pathlib.Path(ROOT, "modeling_mpt").glob("*.py")}
    assert sources and sources <= listed
