"""Probes which kinds can run here by importing their libraries: an installed wheel may still fail to import.

`find_spec` lists what is installed. Each installed library is imported once in a child process, so that its memory and
its crashes do not affect the node. Successful imports are cached in a file, so that a restart needs no child process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mesh import data_folder
from mesh.kinds.base import KindSpec, Need
from mesh.kinds.table import KINDS
from mesh.messages import KindInfo

log = logging.getLogger(__name__)

IMPORT_TIMEOUT_S = 60.0
#: The cache keeps this many imports; those of replaced libraries are dropped in time.
MOST_PROOFS = 300
#: Extra -> its size on disk with everything it depends on, beyond the base dependencies (Linux, x86-64).
EXTRA_SIZES = {
    "science": "210 MB",
    "vision": "260 MB",
    "video": "170 MB",
    "sql": "75 MB",
    "load": "10 MB",
    "llm": "130 MB",
    "llm-torch": "1.1 GB, more with CUDA",
    "training": "900 MB, more with CUDA",
}

# Prints the name of each module before it imports it, so that a crash or a hang is attributed to the right one.
_PROOF = """
import importlib, importlib.metadata, json, sys
owners = importlib.metadata.packages_distributions()
for name in sys.argv[1:]:
    print(json.dumps([name]), flush=True)
    try:
        module = importlib.import_module(name)
        owner = owners.get(name)
        version = importlib.metadata.version(owner[0]) if owner else getattr(module, "__version__", "")
        print(json.dumps([name, "", str(version)]), flush=True)
    except BaseException as error:
        lines = str(error).strip().splitlines() or [""]
        print(json.dumps([name, (type(error).__name__ + ": " + lines[0])[:300], ""]), flush=True)
"""


@dataclass(frozen=True)
class Proof:
    """The result of importing a module: `error` is "" when it succeeded."""

    error: str = ""
    version: str = ""
    absent: bool = False


def shared_folder(otherwise: Path) -> Path:
    """Where all nodes of this user cache their imports: the user's cache directory, or `otherwise` if that is not
    writable."""
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        base = Path(home) if home else Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
        folder = base / "queztl"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return otherwise
    return folder if os.access(folder, os.W_OK) else otherwise


def probe_packages(
    specs: Iterable[KindSpec], folder: Path, timeout_s: float = IMPORT_TIMEOUT_S
) -> tuple[tuple[KindInfo, ...], dict[str, str]]:
    """(whether each kind can run here, versions of the libraries they need); `folder` holds the cache."""
    specs = tuple(specs)
    file = folder / data_folder.PACKAGES
    cached, prints, proofs, is_changed = _load(file), dict[str, str](), dict[str, Proof](), False
    while modules := sorted(_next_modules(specs, proofs)):
        prints |= {name: _fingerprint(name) for name in modules}
        proofs |= {name: Proof(absent=True) for name in modules if not prints[name]}
        proofs |= {name: Proof(version=cached[prints[name]]) for name in modules if prints[name] in cached}
        if unproven := [name for name in modules if name not in proofs]:
            proofs |= prove(unproven, timeout_s)
            is_changed = True
    if is_changed:
        good = {prints[name]: proof.version for name, proof in proofs.items() if not _failed(proof)}
        _save(file, dict([*cached.items(), *good.items()][-MOST_PROOFS:]))
    kinds = tuple(kind_info(spec, proofs) for spec in specs)
    return kinds, {name: proof.version for name, proof in proofs.items() if not _failed(proof)}


def _next_modules(specs: Iterable[KindSpec], proofs: Mapping[str, Proof]) -> set[str]:
    """The modules to import now. Of alternative sets of libraries, the next one only when all before it failed."""
    found: set[str] = set()
    for spec in specs:
        found.update(need.module for need in spec.needs)
        for alternative in spec.either:
            found.update(need.module for need in alternative)
            if not any(need.module in proofs and _failed(proofs[need.module]) for need in alternative):
                break
    return found - set(proofs)


def _failed(proof: Proof) -> bool:
    return proof.absent or bool(proof.error)


def kind_info(spec: KindSpec, proofs: Mapping[str, Proof]) -> KindInfo:
    """Whether `spec` can run, given the imports of its modules; if not, the reason and the command that helps."""
    lacking = [need for need in spec.needs if _failed(proofs[need.module])]
    others = ""
    if spec.either and all(any(_is_missing(need, proofs) for need in alternative) for alternative in spec.either):
        lacking += [need for need in spec.either[0] if _is_missing(need, proofs)]
        others = "".join(
            f" (or {' and '.join(need.module for need in alternative)})" for alternative in spec.either[1:]
        )
    if not lacking:
        return KindInfo(spec.name, True)
    absent = [need.module for need in lacking if proofs[need.module].absent]
    broken = [need.module for need in lacking if not proofs[need.module].absent]
    reasons = [f"needs {' and '.join(absent)}{others}, not installed here"] if absent else []
    reasons += [f"{name} is installed but can't be imported ({proofs[name].error})" for name in broken]
    return KindInfo(spec.name, False, "; ".join(reasons), _command(lacking, repair=not absent))


def _command(lacking: Iterable[Need], repair: bool) -> str:
    """The command that installs `lacking`, with their size as a shell comment; `repair`: reinstall broken ones."""
    extras = list(dict.fromkeys(need.extra for need in lacking))
    quoted = f"'queztl[{','.join(extras)}]'"
    if repair:
        return f"pip install --force-reinstall {quoted}"
    sizes = " + ".join(EXTRA_SIZES[extra] for extra in extras if extra in EXTRA_SIZES)
    return f"pip install {quoted}" + (f"  # {sizes}" if sizes else "")


def _is_missing(need: Need, proofs: Mapping[str, Proof]) -> bool:
    """Whether its import failed, or was not needed."""
    return need.module not in proofs or _failed(proofs[need.module])


def prove(modules: Iterable[str], timeout_s: float = IMPORT_TIMEOUT_S) -> dict[str, Proof]:
    """Import each module in a child process; a module that crashes or hangs does not affect the others."""
    waiting, proofs = list(modules), dict[str, Proof]()
    while waiting:
        # -P: a folder of that name in the working directory is not the library.
        command = [sys.executable, "-P", "-c", _PROOF, *waiting]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
            )
            output, ending = done.stdout, f"its import ended the process with status {done.returncode}"
        except subprocess.TimeoutExpired as error:
            output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
            ending = f"its import took longer than {timeout_s:g} s"
        fresh = parse_proofs(output, ending)
        if not fresh:
            fresh = {name: Proof(error=f"the import could not be tried: {ending}") for name in waiting}
        proofs |= fresh
        waiting = [name for name in waiting if name not in proofs]
    return proofs


def parse_proofs(output: str, ending: str) -> dict[str, Proof]:
    """The imports in the output of the child; `ending` is the error of a module that it began and did not finish."""
    proofs: dict[str, Proof] = {}
    for line in output.splitlines():
        # Modules may print while they are imported.
        if not line.startswith('["'):
            continue
        try:
            name, *rest = json.loads(line)
        except ValueError:
            continue
        proofs[name] = Proof(*rest) if len(rest) == 2 else Proof(error=ending)
    return proofs


def _fingerprint(module: str) -> str:
    """A digest that changes with the library: interpreter, path, date. "" when it is not installed."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    origin = spec.origin or ""
    stat = os.stat(origin) if os.path.isfile(origin) else None
    facts = (sys.executable, sys.version, module, origin, stat and (stat.st_mtime_ns, stat.st_size))
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _load(file: Path) -> dict[str, str]:
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _save(file: Path, proofs: Mapping[str, str]) -> None:
    fresh = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(proofs, indent=1))
        fresh.replace(file)
    except OSError as error:
        log.warning("could not cache in %s which libraries import; the next start tries them again: %s", file, error)


def main() -> None:
    """Import every library once, and print what the unavailable kinds need.

    `deploy/environment.sh` runs this after an installation: it compiles the libraries and fills the cache, so that the
    first node does not have to.
    """
    for kind in probe_packages(KINDS.values(), shared_folder(Path(sys.prefix)))[0]:
        if not kind.available:
            print(f"{kind.kind}: {kind.reason}; to add it: {kind.how_to_install}")


if __name__ == "__main__":
    main()
