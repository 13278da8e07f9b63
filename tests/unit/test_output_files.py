"""Output files: nothing is replaced unasked, an input never, and a file is written as a whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from mesh.errors import BadInput
from mesh.files import check_output, draft_of

FORCE = pytest.mark.parametrize("force", [False, True])


@FORCE
@pytest.mark.parametrize("alias", ["same", "relative", "symlink", "chain", "hard link", "through a folder link"])
def test_an_input_is_never_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alias: str, force: bool) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "a.mp4"
    source.write_bytes(b"film")
    target = tmp_path / "b.mp4"
    if alias == "same":
        target = source
    elif alias == "relative":
        target = Path("nothing/../a.mp4") if (tmp_path / "nothing").mkdir() is None else target
    elif alias == "symlink":
        target.symlink_to("a.mp4")
    elif alias == "chain":
        (tmp_path / "c").symlink_to("a.mp4")
        target.symlink_to("c")
    elif alias == "hard link":
        target.hardlink_to(source)
    else:
        (tmp_path / "folder").symlink_to(tmp_path)
        target = tmp_path / "folder" / "a.mp4"
    with pytest.raises(BadInput, match="it is the input"):
        check_output(target, force, [source])
    assert source.read_bytes() == b"film"


def test_an_existing_file_is_replaced_only_when_forced(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with pytest.raises(BadInput, match="exists already; --force replaces it"):
        check_output(target)
    # Also when it came to exist after the check.
    with pytest.raises(BadInput, match="exists already"), draft_of(target) as draft:
        draft.write_bytes(b"new")
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == ["out"]
    check_output(target, force=True)
    with draft_of(target, force=True) as draft:
        draft.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new" and os.listdir(tmp_path) == ["out"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    link = tmp_path / "out"
    link.symlink_to("shelf/film")
    check_output(link)
    with draft_of(link) as draft:
        draft.write_bytes(b"1")
    assert link.is_symlink() and (tmp_path / "shelf" / "film").read_bytes() == b"1"
    with pytest.raises(BadInput, match="exists already"):
        check_output(link)
    link.unlink()
    link.symlink_to("nowhere/film")
    with pytest.raises(BadInput, match="there is no folder"):
        check_output(link, force=True)


@FORCE
def test_folders_and_missing_folders_are_refused(tmp_path: Path, force: bool) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for target, problem in (
        (tmp_path, "it is a folder"),
        (tmp_path / "link", "it is a folder"),
        (tmp_path / "no" / "out", "there is no folder"),
        (tmp_path / "file" / "out", "there is no folder"),
    ):
        with pytest.raises(BadInput, match=problem):
            check_output(target, force)


@FORCE
def test_pipes_and_devices_are_written_and_stay(tmp_path: Path, force: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    check_output(pipe, force)
    with draft_of(pipe, force) as draft:
        draft.write_bytes(b"flow")
    reader.join(10)
    assert received == [b"flow"] and pipe.is_fifo()
    for name in (Path("/dev/null"), Path("/dev/stdout")):
        check_output(name, force)
        with draft_of(name, force) as draft:
            assert draft == name
    with pytest.raises(BadInput, match="it is no regular file"):
        check_output(pipe, force, stream=False)


@FORCE
def test_an_interrupted_output_leaves_nothing_behind(tmp_path: Path, force: bool) -> None:
    target = tmp_path / "out"
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), draft_of(target, force) as draft:
            draft.write_bytes(b"half")
            raise error
        assert os.listdir(tmp_path) == []


def test_a_full_disk_is_reported_with_the_name_of_the_output(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OSError, match="out") as caught, draft_of(target) as draft:
        draft.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(target) and os.listdir(tmp_path) == []
