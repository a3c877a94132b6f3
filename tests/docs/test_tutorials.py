"""Tutorials: their code runs as it is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def script_of(page: str) -> str:
    """Join the blocks of a page in one program; bash blocks become subprocesses."""
    parts = ["import subprocess"]
    for not_run, language, block in BLOCK.findall(page):
        if language == "bash" and not not_run:
            parts.append(f"subprocess.run(['bash', '-euo', 'pipefail', '-c', {block!r}], check=True)")
        elif not not_run:
            parts.append(block)
    return "\n".join(parts)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_the_code_of_a_tutorial_runs_as_it_is_written(path, tmp_path):
    script = script_of(path.read_text(encoding="utf-8"))
    assert "import mpt_sentiment" in script
    search_path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {
        "PATH": os.pathsep.join(search_path),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "cache"),
    }
    (tmp_path / "tutorial.py").write_text(script, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "tutorial.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, f"{run.stdout[-3000:]}\n{run.stderr[-5000:]}"
