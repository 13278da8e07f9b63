#!/bin/sh
# From a clone to a running node: makes its own virtual environment, installs what the node needs, starts it.
# Arguments go to the node: ./start.sh --mesh lab --api 127.0.0.1:8001
# --slim installs no library that only some kinds of work need; ./start.sh without it adds them later.
set -eu
cd "$(dirname "$0")"
. deploy/environment.sh
what='.[all]'
for argument; do
    shift
    if [ "$argument" = --slim ]; then
        what=.
    else
        set -- "$@" "$argument"
    fi
done
ensure_environment .venv "$what"
is_installed .venv '.[all]' ||
    echo "Slim: the node's banner lists the missing kinds. ./start.sh without --slim installs all of them (2 GB)." >&2
exec .venv/bin/python -P -m node "$@"
