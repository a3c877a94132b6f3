#!/usr/bin/env bash
# Installs MPT with its development tools into .venv, lints, and passes the tests. Needs Python >= 3.10 and git.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .venv ] || python3 -m venv .venv
.venv/bin/pip install --quiet --editable '.[dev]'
# The oldest transformers that setup.cfg admits, for the tests that load a saved folder with it.
export MPT_OLDEST_TRANSFORMERS="$PWD/.venv/oldest-transformers"
[ -d "$MPT_OLDEST_TRANSFORMERS" ] || .venv/bin/pip install --quiet --target "$MPT_OLDEST_TRANSFORMERS" --no-deps \
    transformers==5.11.0 'huggingface_hub<2' 'tokenizers<0.23' typer typer-slim httpx httpcore h11 anyio sniffio
# transformers' common tests of the installed version, which its source distribution holds; nothing is built.
transformers="transformers-$(.venv/bin/python -c 'from importlib.metadata import version; print(version("transformers"))')"
export MPT_TRANSFORMERS_TESTS="$PWD/.venv/$transformers/tests"
if [ ! -d "$MPT_TRANSFORMERS_TESTS" ]; then
    .venv/bin/pip download --quiet --no-deps --no-binary transformers --dest .venv "${transformers/-/==}"
    tar -xzf ".venv/$transformers.tar.gz" -C .venv "$transformers/tests"
fi
.venv/bin/ruff check
.venv/bin/ruff format --check
unset HF_HUB_OFFLINE  # it would keep the tests from their own servers too
# Two processes, each with one thread: as many as the smallest machine has cores. A process without tests takes some of
# the other's.
OMP_NUM_THREADS=1 .venv/bin/pytest --numprocesses 2 --dist worksteal --quiet "$@"
