#!/bin/sh
# From a clone to a running node: makes its own virtual environment, installs what the node needs, starts it.
# Arguments go to the node: ./start.sh --mesh lab --api 127.0.0.1:8001
set -eu
cd "$(dirname "$0")"
. deploy/environment.sh
ensure_environment .venv '.[all]'
exec .venv/bin/python -P -m node "$@"
