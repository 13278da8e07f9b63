#!/bin/sh
# The whole test suite, in a virtual environment of its own. Arguments go to pytest: ./test.sh tests/unit -k lanes
set -eu
cd "$(dirname "$0")"
. deploy/environment.sh
ensure_environment .venv-test '.[dev]'
# Gigabytes that were just unpacked and are still on their way to the disk would hold up every write of the first tests.
sync
.venv-test/bin/ruff check .
.venv-test/bin/lint-imports --no-cache
exec .venv-test/bin/python -m pytest "$@"
