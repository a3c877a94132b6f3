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

from helpers import tiny, tiny_processor
from helpers.hub_round_trip import (
    absolute,
    closure,
    imports,
    needs_oldest,
    relative,
    round_trip,
    run,
    without_dtypes_of_encoders,
)
from helpers.hub_server import HubServer, Repository
from modeling_mpt import SYSTEMS, MPTConfig, MPTForSentimentClassification, MPTModel
from processing_mpt import MPTProcessor

ROOT = Path(__file__).parents[2]
PACKAGES = ("dataset_scripts", "modeling_mpt", "processing_mpt")
REGISTERED = (MPTConfig, MPTModel, MPTForSentimentClassification, MPTProcessor)
# transformers depends on numpy and tokenizers.
ALLOWED = {"torch", "transformers", "PIL", "numpy", "tokenizers"}
GUARDED = {"timm"}
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
        tiny_processor.processor(perspectives=perspectives).save_pretrained(root / name)
    torch.save(batches, root.parent / "batches.pt")
    return root


def build(name: str) -> MPTForSentimentClassification:
    """Build a model whose weights are far from their initialization."""
    model = tiny.model(freeze_text_layers=1, **MODELS[name])
    torch.manual_seed(5)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def reopened(saved) -> dict[str, dict[str, Any]]:
    return round_trip(saved, saved.parent / "again")


def assert_same_model(name: str, results: dict[str, Any], saved: Path) -> None:
    batch = torch.load(saved.parent / "batches.pt")[name]
    with torch.no_grad():
        expected = build(name)(**batch)
    torch.testing.assert_close(results["logits"], expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results["fused"], expected.fused_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results["features"], expected.fused_embeds, atol=1e-5, rtol=1e-5)
    assert results["classes"] == [each.__name__ for each in REGISTERED] + ["MPTPipeline"]
    assert results["modules"] == ["transformers_modules"]
    assert set(results["answer"]["scores"]) == set(build(name).config.label2id)


def assert_same_weights(weights: dict[str, torch.Tensor], name: str) -> None:
    expected = build(name).state_dict()
    assert weights.keys() == expected.keys()
    assert all(value.equal(expected[key]) for key, value in weights.items())


# --- source files ----------------------------------------------------------------------------------------------------


def test_saved_code_files_are_flat_and_have_unique_names():
    assert {path.name for path in SAVED_FILES} >= {"configuration_mpt.py", "modeling_mpt.py", "processing_mpt.py"}
    for path in SAVED_FILES:
        assert path.name.endswith("_mpt.py") and path.parent in (ROOT / "modeling_mpt", ROOT / "processing_mpt"), path
    for package in ("modeling_mpt", "processing_mpt"):
        other = {path.name for name in PACKAGES if name != package for path in (ROOT / name).rglob("*.py")}
        assert not {path.name for path in (ROOT / package).glob("*_mpt.py")} & other


def test_saved_code_files_import_only_dependencies_of_transformers():
    for path in SAVED_FILES:
        assert absolute(path) <= set(sys.stdlib_module_names) | ALLOWED | GUARDED, path
        tree = ast.parse(path.read_text())
        guarded = {id(n) for block in ast.walk(tree) if isinstance(block, (ast.Try, ast.If)) for n in ast.walk(block)}
        for node in imports(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if any(name.split(".")[0] in GUARDED for name in names):
                assert id(node) in guarded, f"{path} imports {names} without a guard"
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
    assert_same_weights(reopened[name]["weights"], name)
    assert reopened[name]["frozen"] == [n for n, p in build(name).named_parameters() if not p.requires_grad]
    processor = MPTProcessor.from_pretrained(saved / name)
    assert reopened[name]["input_ids"].equal(processor(text=["what a good day"])["input_ids"])


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_saved_again_is_complete(name, saved, reopened):
    first, second = saved / name, saved.parent / "again" / name
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
    for path in first.glob("*.py"):
        assert path.read_text() == (second / path.name).read_text()
    for file in ("config.json", "processor_config.json"):
        assert without_dtypes_of_encoders(second / file) == without_dtypes_of_encoders(first / file)


@pytest.fixture(scope="module")
def reopened_twice(saved, reopened) -> dict[str, dict[str, Any]]:
    return round_trip(saved.parent / "again", saved.parent / "third")


@pytest.mark.parametrize("name", MODELS)
def test_a_third_process_opens_the_folder_saved_again(name, saved, reopened_twice):
    assert_same_model(name, reopened_twice[name], saved)
    assert_same_weights(reopened_twice[name]["weights"], name)


def test_a_folder_saved_after_loading_from_the_hub_names_its_own_files(saved, tmp_path):
    # Loading adds the repository's name to each entry of `auto_map`.
    files = {path.name: path.read_bytes() for path in (saved / "bert_vit_timm").iterdir()}
    code = (
        tiny_processor.BLOCK
        + """
from transformers import AutoModelForSequenceClassification, AutoProcessor

for kind in (AutoModelForSequenceClassification, AutoProcessor):
    kind.from_pretrained("me/posts", trust_remote_code=True).save_pretrained(sys.argv[1])
"""
    )
    with HubServer() as server:
        server.repositories["model", "me/posts"] = Repository(files=files, commits=1)
        environment = server.environment(tmp_path / "home")
        run(code, tmp_path / "again", folder=tmp_path, environment=environment)
    assert {path.name for path in (tmp_path / "again").iterdir()} == set(files)
    for file in ("config.json", "processor_config.json"):
        saved_map = json.loads((tmp_path / "again" / file).read_text())["auto_map"]
        assert saved_map == json.loads(files[file])["auto_map"]


# --- the oldest transformers -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_the_oldest(saved) -> dict[str, dict[str, Any]]:
    results = round_trip(saved, saved.parent / "oldest", oldest=True)
    assert {each["version"] for each in results.values()} != {__import__("transformers").__version__}
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
    assert_same_weights(back_on_the_newest[name]["weights"], name)
