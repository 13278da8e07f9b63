"""Fetches one model of a hub, in a process of its own: `python -m node.workloads.llm.download OWNER/NAME REVISION`.

Says JSON lines: {"share", "bytes"} on the way, and last {"model", "format"}, or {"wrong"} (there is no such model) or
{"away"} (the hub can't be had just now, or the disk is full).
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

#: Kept free on the disk, whatever is fetched.
KEEP_FREE = 1 << 30
TELL_EVERY_S = 1.0


def fetch(name: str, revision: str) -> dict[str, Any]:
    """The last line, as data."""
    from huggingface_hub import HfApi, errors

    try:
        facts = HfApi(token=False).model_info(name, revision=revision, files_metadata=True)
        if facts.gated:
            return {"wrong": f"{name} is given to those only who asked its makers: list it with --models instead"}
        files = {one.rfilename: one.size or 0 for one in facts.siblings or () if "/" not in one.rfilename}
        form, wanted = choose(files)
        return _held(name, str(facts.sha), form, {file: files[file] for file in wanted})
    except InputFault as fault:
        return {"wrong": fault.problem}
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        return {"wrong": f"names {name}@{revision}, which the hub does not have (or does not show to everybody)"}
    except Exception as error:  # of its HTTP library, which is its own affair, or of the disk
        return {"away": f"it can't get {name} from the hub: {_sentence(error)}"}


def _held(name: str, commit: str, form: Format, files: dict[str, int]) -> dict[str, Any]:
    from huggingface_hub import snapshot_download

    folder, total = folder_of(name, commit), sum(files.values())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_name(folder.name + ".lock")):
        if not folder.exists():
            half = folder.with_name(folder.name + ".part")
            free = shutil.disk_usage(folder.parent).free
            if total - _size(half) > free - KEEP_FREE:
                return {"away": f"its disk has {free / 1e9:.1f} GB free, and {name} takes {total / 1e9:.1f} GB"}
            with _telling(half, total):
                snapshot_download(name, revision=commit, local_dir=half, allow_patterns=list(files), token=False)
            shutil.rmtree(half / ".cache", ignore_errors=True)
            half.rename(folder)  # whole, or not there at all
    return {"model": str(folder / next(iter(files)) if form == "gguf" else folder), "format": form}


@contextmanager
def _alone(lock: Path) -> Generator[None, None, None]:
    """One process of this user at a time."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _telling(folder: Path, total: int) -> Generator[None, None, None]:
    over = threading.Event()

    def tell() -> None:
        while not over.wait(TELL_EVERY_S):
            _say({"share": min(1.0, _size(folder) / max(1, total)), "bytes": total})

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _size(folder: Path) -> int:
    found = 0
    for file in folder.rglob("*"):
        try:
            found += file.stat().st_size if file.is_file() else 0
        except OSError:  # renamed meanwhile
            continue
    return found


def _sentence(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    _say(fetch(*sys.argv[1:]))
