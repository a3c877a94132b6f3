"""Built wheel in an environment without a checkout: Python interface and console script."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_BUILT = shutil.ignore_patterns(".*", "build", "dist", "outputs", "tests", "__pycache__", "*.egg-info")
PROGRAM = """
import sys
import mpt_sentiment as mpt

assert "torch" not in sys.modules
posts = mpt.split_posts(mpt.load_posts("sample", num_posts=60))
result = mpt.train(posts, "outputs/mine", modalities=["text", "image"], num_train_epochs=1, disable_tqdm=True)
print(result.test["f1_weighted"], result.test["intervals"]["f1_weighted"])
print(result.pipeline({"text": "what a day", "image": posts["test"][0]["image"]}))
answers = mpt.generate_rationales(posts["test"], "rationales", engine="fake")
mpt.predict("outputs/mine", posts["test"], "predictions.parquet")
table = mpt.compare(
    posts, ["majority", "bert"], seeds=[1], output_dir="outputs/comparison", num_train_epochs=1
)
print(table)
"""


pytestmark = pytest.mark.timeout(900)  # the processes that these tests start import torch several times


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Folder of a virtual environment with the wheel, and with the dependencies of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_BUILT)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")}))
    python = ["--python", str(folder / "venv" / "bin" / "python")]
    subprocess.run([*pip, *python, "install", "--no-deps", str(wheel)], check=True)
    # A folder on the path brings its packages; the .pth file in it that points to the checkout is not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv"


def run(command: list[str], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_the_python_interface_trains_predicts_and_compares(installed, tmp_path):
    output = run([str(installed / "bin" / "python"), "-c", PROGRAM], tmp_path)
    assert "| bert | 1 |" in output and "'scores'" in output
    assert (tmp_path / "predictions.parquet").is_file()
    imported = run(
        [str(installed / "bin" / "python"), "-c", "import mpt_sentiment; print(mpt_sentiment.__file__)"], tmp_path
    )
    assert imported.startswith(str(installed))


def test_the_console_script_trains_predicts_and_compares(installed, tmp_path):
    script = str(installed / "bin" / "mpt-sentiment")
    assert "generate-rationales" in run([script], tmp_path)
    small = ["--dataset_options", '{"num_posts": 60}', "--num_train_epochs", "1", "--disable_tqdm", "true"]
    run([script, "train", *small, "--output_dir", "mine"], tmp_path)
    assert json.loads((tmp_path / "mine" / "metrics.json").read_text())["test"]["num_posts"] > 0
    assert "probabilities" in run([script, "predict", "mine", "--text", "what a day", "--device", "cpu"], tmp_path)
    run([script, "compare", *small, "--rows", "majority", "tfidf", "--output_dir", "compared"], tmp_path)
    assert (tmp_path / "compared" / "comparison.md").is_file()
