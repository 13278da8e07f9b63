#!/bin/sh
# The test suite, in a virtual environment of its own:
#   ./test.sh               what every change must pass; 15 minutes at most on two cores
#   ./test.sh --quick       what needs no mesh and no model (unit, property, contract, architecture); 90 seconds at most
#   ./test.sh --all         also the long fault scenes; 45 minutes at most
#   ./test.sh ARGUMENTS     these go to pytest: ./test.sh tests/unit -k lanes
# tests/README.md says what is where, and how tests run side by side.
set -eu
cd "$(dirname "$0")"
. deploy/environment.sh
ensure_environment .venv-test '.[dev]'
# Gigabytes that were just unpacked and are still on their way to the disk would hold up every write of the first tests.
sync

step() {
    echo "==> $*" >&2
    "$@"
}

step .venv-test/bin/ruff check .
step .venv-test/bin/ruff format --check .
step .venv-test/bin/lint-imports --no-cache
step .venv-test/bin/pyrefly check --python-interpreter-path .venv-test/bin/python

# Processes that run side by side: `auto` is two a core, for tests that wait; `logical` is one a core and one more.
side_by_side() {
    processes=$1
    shift
    step .venv-test/bin/python -m pytest -n "$processes" "$@"
}

case "${1:-}" in
--quick)
    shift
    export HYPOTHESIS_PROFILE="${HYPOTHESIS_PROFILE:-quick}"
    side_by_side logical -m 'not long' tests/architecture tests/contract tests/property tests/unit "$@"
    exit
    ;;
--all) shift && chosen="long or not long" ;;
"") chosen="not long" ;;
*) exec .venv-test/bin/python -m pytest "$@" ;;
esac
status=0
side_by_side auto -m "($chosen) and not serial" "$@" || status=$?
step .venv-test/bin/python -m pytest -m "($chosen) and serial" tests/integration tests/lan tests/faults "$@" || status=$?
exit $status
