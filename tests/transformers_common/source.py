"""transformers' own common tests, imported from its source distribution.

`tests/run.sh` downloads the distribution of the installed version, and sets MPT_TRANSFORMERS_TESTS to its folder
`tests`. Where that variable is unset, the tests here are skipped.

To add a tester, write `test_NAME.py` in this folder:

```python
from transformers_common.source import common_tests, skip_not_applicable

common = common_tests("test_modeling_common")

NOT_APPLICABLE = {"test_name": "The reason why it cannot apply."}


@skip_not_applicable(NOT_APPLICABLE)
class MPTModelTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (MPTModel,)
```

A parameterized test is named with its case, e.g. `test_unstructured_kwargs_1_videos`, or without it for all its cases.
"""

import importlib
import os
import re
import sys
import types
import unittest
import warnings
from collections.abc import Callable, Mapping
from unittest.mock import patch

import pytest

PACKAGE = "transformers_tests"
FOLDER = os.environ.get("MPT_TRANSFORMERS_TESTS")
# Modules that the common tests import and that the source distribution lacks, with the names that they take from them.
ABSENT = {
    "fetch_hub_objects_for_ci": {"url_to_local_path": lambda url: url},
    f"{PACKAGE}.exporters": {},
    f"{PACKAGE}.exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    f"{PACKAGE}.utils": {},
    f"{PACKAGE}.utils.test_configuration_utils": {"config_common_kwargs": {}},
    f"{PACKAGE}.generation": {},
    f"{PACKAGE}.generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
}


def common_tests(module: str) -> types.ModuleType:
    """Import a module of transformers' tests, or skip the module that asks for it."""
    if not FOLDER:
        pytest.skip(
            "MPT_TRANSFORMERS_TESTS is unset: it names the folder with transformers' tests", allow_module_level=True
        )
    if PACKAGE not in sys.modules:
        # under another name than `tests`, which is ours
        sys.modules[PACKAGE] = types.ModuleType(PACKAGE)
        sys.modules[PACKAGE].__path__ = [FOLDER]
        for name, values in ABSENT.items():
            sys.modules[name] = types.ModuleType(name)
            vars(sys.modules[name]).update(values)
    # A module of tests imports transformers from a checkout.
    with warnings.catch_warnings(), patch("transformers.utils.direct_transformers_import"):
        warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)  # marks of their own runs
        return importlib.import_module(f"{PACKAGE}.{module}")


def skip_not_applicable(reasons: Mapping[str, str]) -> Callable[[type], type]:
    """Return a class decorator that skips tests by name, each with its reason."""

    def decorate(tester: type) -> type:
        unknown = set(reasons)
        for name in filter(re.compile("test_").match, dir(tester)):
            known = {name, re.sub(r"_\d+(_\w*)?$", "", name)} & reasons.keys()
            unknown -= known
            for each in known:
                setattr(tester, name, unittest.skip(reasons[each])(getattr(tester, name)))
        assert not unknown, f"{tester.__name__} has no tests {sorted(unknown)}: remove them from the reasons"
        return tester

    return decorate
