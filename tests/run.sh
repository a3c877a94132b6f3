#!/usr/bin/env bash
# Installs MPT with its test tools into .venv and passes the tests. Needs Python >= 3.10 and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d .venv ] || python3 -m venv .venv
.venv/bin/pip install --quiet --editable '.[dev]'
.venv/bin/ruff check
.venv/bin/ruff format --check
# Two processes, each with one thread: as many as the smallest machine has cores.
OMP_NUM_THREADS=1 .venv/bin/pytest --numprocesses 2 --quiet "$@"
