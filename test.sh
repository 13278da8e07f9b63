#!/bin/sh
# The whole test suite, in a virtual environment of its own. Arguments go to pytest: ./test.sh tests/unit -k lanes
set -eu
cd "$(dirname "$0")"
. deploy/environment.sh
ensure_environment .venv-test '.[dev]'
.venv-test/bin/ruff check .
.venv-test/bin/lint-imports --no-cache
exec .venv-test/bin/python -m pytest "$@"
