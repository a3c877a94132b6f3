"""Tests of the code in saved folders, which opens them without our packages.

With MPT_OLDEST_TRANSFORMERS, a folder of the oldest transformers that setup.cfg allows, the round trip runs on it too:

    pip install --target FOLDER --no-deps transformers==5.11.0 'huggingface_hub<2' 'tokenizers<0.23' typer typer-slim \
        httpx httpcore h11 anyio sniffio

Older versions copy only the direct imports of a local folder's code; those before 5.6 also have other names for the
weights of CLIP's and SigLIP's vision encoders.
"""

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from helpers import tiny, tiny_processor
from helpers.hub_round_trip import (
    OLDEST,
    ROUND_TRIP,
    absolute,
    closure,
    imports,
    needs_oldest,
    relative,
    round_trip,
    without_dtypes_of_encoders,
)
from helpers.hub_server import HubServer, Repository
from modeling_mpt import SYSTEMS, MPTConfig, MPTForSentimentClassification, MPTModel
from processing_mpt import MPTPipeline, MPTProcessor

ROOT = Path(__file__).parents[2]
PACKAGES = ("dataset_scripts", "modeling_mpt", "processing_mpt")
REGISTERED = (MPTConfig, MPTModel, MPTForSentimentClassification, MPTProcessor)
# transformers depends on numpy and tokenizers.
ALLOWED = {"safetensors", "torch", "transformers", "PIL", "numpy", "tokenizers", "huggingface_hub"}
GUARDED = {"timm", "pillow_heif"}
SAVED_FILES = closure((*REGISTERED, *(each for system in SYSTEMS.values() for each in system)))

MODELS = {
    "bert_vit_timm": {"cnn_config": tiny.timm_config()},
    "xlm_roberta_dinov2": {"text": "xlm_roberta", "vision": "dinov2", "share_text_encoder": False},
    "distilbert_clip": {"text": "distilbert", "vision": "clip", "perspectives": ["for", "against"], "num_labels": 2},
    "modernbert_siglip": {"text": "modernbert", "vision": "siglip"},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Save models and processors, each pair in a folder."""
    root = tmp_path_factory.mktemp("hub") / "saved"
    batches = {}
    for name, changes in MODELS.items():
        perspectives = changes.get("perspectives", ["positive", "neutral", "negative"])
        batches[name] = tiny.batch(perspectives=len(perspectives))
        build(name).save_pretrained(root / name)
        processor = tiny_processor.processor(perspectives=perspectives, max_length=5)
        processor(text=["nothing but rain and a train"])  # the count of truncated texts is not saved
        processor.save_pretrained(root / name)
    torch.save(batches, root.parent / "batches.pt")
    return root


def build(name: str) -> MPTForSentimentClassification:
    """Build a model whose weights are far from their initialization."""
    model = tiny.model(freeze_text_layers=1, **MODELS[name])
    torch.manual_seed(5)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


# Loading from the Hub adds the repository's name to each entry of `auto_map`.
FROM_HUB = """
for kind in (AutoModelForSequenceClassification, AutoProcessor):
    kind.from_pretrained("me/posts", trust_remote_code=True).save_pretrained(target.parent / "from_hub")
"""


@pytest.fixture(scope="module")
def reopened(saved) -> dict[str, dict[str, Any]]:
    files = {path.name: path.read_bytes() for path in (saved / "bert_vit_timm").iterdir()}
    with HubServer() as server:
        server.repositories["model", "me/posts"] = Repository(files=files, commits=1)
        environment = server.environment(saved.parent / "home")
        return round_trip(saved, saved.parent / "again", environment, code=ROUND_TRIP + FROM_HUB)


def assert_same_model(name: str, results: dict[str, Any], saved: Path) -> None:
    batch = torch.load(saved.parent / "batches.pt")[name]
    with torch.no_grad():
        expected = build(name)(**batch)
    torch.testing.assert_close(results["logits"], expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results["fused"], expected.fused_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results["features"], expected.fused_embeds, atol=1e-5, rtol=1e-5)
    assert results["classes"] == [each.__name__ for each in REGISTERED] + ["MPTPipeline"]
    assert results["modules"] == ["transformers_modules"]
    weights = build(name).state_dict()
    if results["version"] != transformers.__version__:  # older versions name some weights differently
        return
    assert results["weights"].keys() == weights.keys()
    assert all(value.equal(weights[key]) for key, value in results["weights"].items())


# --- source files ----------------------------------------------------------------------------------------------------


def test_saved_code_files_are_flat_and_have_unique_names():
    assert {path.name for path in SAVED_FILES} >= {"configuration_mpt.py", "modeling_mpt.py", "processing_mpt.py"}
    for path in SAVED_FILES:
        named = path.name.endswith("_mpt.py") or path.name == "handler.py"  # the name for Inference Endpoints
        assert named and path.parent in (ROOT / "modeling_mpt", ROOT / "processing_mpt"), path
    for package in ("modeling_mpt", "processing_mpt"):
        other = {path.name for name in PACKAGES if name != package for path in (ROOT / name).rglob("*.py")}
        assert not {path.name for path in (ROOT / package).glob("*_mpt.py")} & other


def test_saved_code_files_import_only_dependencies_of_transformers():
    for path in SAVED_FILES:
        assert absolute(path) <= set(sys.stdlib_module_names) | ALLOWED | GUARDED, path
        tree = ast.parse(path.read_text())
        blocks = [block for block in ast.walk(tree) if isinstance(block, (ast.Try, ast.If))]
        guarded = {line for block in blocks for line in range(block.lineno, block.end_lineno + 1)}
        for node in imports(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if any(name.split(".")[0] in GUARDED for name in names):
                assert node.lineno in guarded, f"{path} imports {names} without a guard"
            if relative(node):
                assert node.level == 1 and node.module and "." not in node.module, (
                    f"{path}: from .sibling_mpt import …"
                )


def test_transformers_finds_the_imports_that_python_finds():
    # transformers uses a regular expression, also on docstrings.
    for path in SAVED_FILES:
        seen = set(re.findall(r"^\s*from\s+\.(\S+)\s+import", path.read_text(), re.MULTILINE))
        assert seen == {node.module for node in imports(path) if relative(node)}, path
        assert not re.findall(r"^\s*import\s+\.", path.read_text(), re.MULTILINE), path


def test_the_three_packages_do_not_import_each_other():
    for package in PACKAGES:
        others = {*PACKAGES, "mpt_sentiment", "examples"} - {package}
        for path in (ROOT / package).rglob("*.py"):
            assert not absolute(path) & others, path


def test_code_for_training_is_not_saved(saved):
    shipped = {path.name for path in (saved / "bert_vit_timm").glob("*.py")}
    assert shipped == {path.name for path in closure(REGISTERED)}
    assert not shipped & {"trainer_mpt.py", "grad_cache.py", "metrics.py"}


# --- the round trip --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_process_without_our_packages_opens_a_saved_folder(name, saved, reopened):
    assert_same_model(name, reopened[name], saved)
    assert reopened[name]["frozen"] == [n for n, p in build(name).named_parameters() if not p.requires_grad]
    processor, picture = MPTProcessor.from_pretrained(saved / name), tiny_processor.image()
    assert processor.max_length == 5 and processor.truncated == {"text": 0, "rationale": 0}
    inputs = processor(text=["nothing but rain and a train", None], images=[None, picture])
    assert inputs.keys() == reopened[name]["inputs"].keys()
    assert all(value.equal(reopened[name]["inputs"][key]) for key, value in inputs.items())
    pipe = MPTPipeline(model=build(name), processor=processor, device="cpu")
    posts = [{"text": "what a good day", "image": picture}, {"rationales": {processor.perspectives[-1]: "rain"}}]
    for answer, expected in zip(reopened[name]["answers"], pipe(posts), strict=True):
        assert answer["label"] == expected["label"]
        for part in ("scores", "modality_weights", "perspective_weights"):
            assert answer[part] == pytest.approx(expected[part], abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_saved_again_is_complete(name, saved, reopened):
    first, second = saved / name, saved.parent / "again" / name
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
    for path in first.glob("*.py"):
        assert path.read_text() == (second / path.name).read_text()
    for file in ("config.json", "processor_config.json"):
        assert without_dtypes_of_encoders(second / file) == without_dtypes_of_encoders(first / file)
    weights, again = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert weights.keys() == again.keys() and all(value.equal(again[key]) for key, value in weights.items())


def test_a_folder_saved_after_loading_from_the_hub_names_its_own_files(saved, reopened):
    first, second = saved / "bert_vit_timm", saved.parent / "from_hub"
    assert {path.name for path in second.iterdir()} == {path.name for path in first.iterdir()}
    for file in ("config.json", "processor_config.json"):
        maps = [json.loads((folder / file).read_text())["auto_map"] for folder in (first, second)]
        assert maps[0] == maps[1]


# --- the oldest transformers -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_the_oldest(saved) -> dict[str, dict[str, Any]]:
    results = round_trip(saved, saved.parent / "oldest", {"PYTHONPATH": OLDEST})
    assert transformers.__version__ not in {each["version"] for each in results.values()}
    return results


@needs_oldest
@pytest.mark.parametrize("name", MODELS)
def test_the_oldest_transformers_opens_folders_of_the_newest(name, saved, on_the_oldest):
    assert_same_model(name, on_the_oldest[name], saved)


@pytest.fixture(scope="module")
def back_on_the_newest(saved, on_the_oldest) -> dict[str, dict[str, Any]]:
    return round_trip(saved.parent / "oldest", saved.parent / "back")


@needs_oldest
@pytest.mark.parametrize("name", MODELS)
def test_the_newest_transformers_opens_folders_of_the_oldest(name, saved, back_on_the_newest):
    assert_same_model(name, back_on_the_newest[name], saved)
