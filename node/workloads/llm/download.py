"""Downloads one model from a hub, in a separate process: `python -m node.workloads.llm.download OWNER/NAME REVISION`.

Prints JSON lines: {"share", "bytes"} as progress, and at the end {"model", "format"}, {"wrong"} (no such model) or
{"away"} (the hub is unavailable, or the disk is full).
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.executor.context import InputFault
from node.probes.models import Format
from node.workloads.llm.hub import choose, folder_of

#: Disk space to keep free, bytes.
KEEP_FREE = 1 << 30
REPORT_EVERY_S = 1.0


def fetch(name: str, revision: str) -> dict[str, Any]:
    """Download the model unless it is on disk already, and return the last line, as data."""
    from huggingface_hub import HfApi, errors

    try:
        facts = HfApi(token=False).model_info(name, revision=revision, files_metadata=True)
        if facts.gated:
            return {"wrong": f"names {name}, whose makers grant access on request only: list it with --models instead"}
        files = {file.rfilename: file.size or 0 for file in facts.siblings or () if "/" not in file.rfilename}
        form, selected = choose(files)
        return _download(name, str(facts.sha), form, {file: files[file] for file in selected})
    except InputFault as fault:
        return {"wrong": fault.problem}
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        return {"wrong": f"names {name}@{revision}, which the hub does not have, or not for public access"}
    except Exception as error:  # many types: from its HTTP library, which may change, and from the disk
        return {"away": f"it can't get {name} from the hub: {_sentence(error)}"}


def _download(name: str, commit: str, form: Format, files: dict[str, int]) -> dict[str, Any]:
    from huggingface_hub import snapshot_download

    folder, total = folder_of(name, commit), sum(files.values())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(folder.name + ".lock")):
        if not folder.exists():
            partial = folder.with_name(folder.name + ".part")
            free = shutil.disk_usage(folder.parent).free
            if total - _size(partial) > free - KEEP_FREE:
                return {"away": f"its disk has {free / 1e9:.1f} GB free, and {name} takes {total / 1e9:.1f} GB"}
            with _reporting(partial, total):
                snapshot_download(name, revision=commit, local_dir=partial, allow_patterns=list(files), token=False)
            shutil.rmtree(partial / ".cache", ignore_errors=True)
            partial.rename(folder)  # atomic: the folder is complete or absent
    return {"model": str(folder / next(iter(files)) if form == "gguf" else folder), "format": form}


@contextmanager
def _locked(lock: Path) -> Generator[None, None, None]:
    """Hold a file lock, so that only one process downloads a model."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _reporting(folder: Path, total: int) -> Generator[None, None, None]:
    """Report the progress, from the size of `folder`, while the body runs."""
    stop = threading.Event()

    def report() -> None:
        while not stop.wait(REPORT_EVERY_S):
            _print({"share": min(1.0, _size(folder) / max(1, total)), "bytes": total})

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        yield
    finally:
        stop.set()
        reporter.join()


def _size(folder: Path) -> int:
    found = 0
    for file in folder.rglob("*"):
        try:
            found += file.stat().st_size if file.is_file() else 0
        except OSError:  # renamed in the meantime
            continue
    return found


def _sentence(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    _print(fetch(*sys.argv[1:]))
