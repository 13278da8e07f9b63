"""The files of a worker's results: moved out of the task's folder, which is emptied before the next task."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mesh.messages import CLAIM_CHECK_BYTES, encode
from node.executor.context import Output

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ResultFiles:
    """The result files of one worker. `folder`: of its task; `results`: where they go, for the daemon to take."""

    def __init__(self, folder: Path, results: Path) -> None:
        self._folder, self._results = folder, results
        self._attached: dict[str, tuple[Path, str]] = {}

    def own(self, given: Path, what: str) -> Path:
        """The real path of a file of the task. Raises: RuntimeError, when it is outside the task's folder."""
        path = given.resolve()
        if not path.is_relative_to(self._folder.resolve()) or not path.is_file():
            raise RuntimeError(f"its {what} is not a file in its own folder")
        return path

    def pack(self, seq: int, data: bytes) -> tuple[bytes, str]:
        """(the result, "") for a small result, else (b"", the file that holds it)."""
        if len(data) <= CLAIM_CHECK_BYTES:
            return data, ""
        file = self._file(seq)
        file.write_bytes(data)
        return b"", str(file)

    def pack_output(self, seq: int, output: Output) -> tuple[bytes, str]:
        """The same for a result that is bytes."""
        data = output.data
        if isinstance(data, Path):
            path = self.own(data, "result")
            if path.stat().st_size > CLAIM_CHECK_BYTES:
                file = self._file(seq)
                os.rename(path, file)
                return b"", str(file)
            data = path.read_bytes()
        if len(data) <= CLAIM_CHECK_BYTES:
            return encode(data), ""
        return self.pack(seq, data)

    def attach(self, name: str, file: Path, content_type: str) -> None:
        """Note a file that belongs to the result. Raises: RuntimeError for a name that is no plain file name."""
        if not _NAME.fullmatch(name):
            raise RuntimeError(f"{name!r} is no name for a file of its result")
        self._attached[name] = (self.own(file, "file"), content_type)

    def take(self, seq: int) -> dict[str, tuple[str, str]] | None:
        """name -> (file, content type) of the files that were attached, moved for the daemon; None: there are none."""
        taken = {}
        for name, (path, content_type) in self._attached.items():
            file = self._results / f"{os.getpid()}-{seq}-{name}"
            os.rename(path, file)
            taken[name] = (str(file), content_type)
        return taken or None

    def forget(self) -> None:
        """Forget the files of the task before."""
        self._attached.clear()

    def _file(self, seq: int) -> Path:
        return self._results / f"{os.getpid()}-{seq}"
