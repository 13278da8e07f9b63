"""`queztl map` with a real node: its files and output, and how it resumes after an interrupt or a kill."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from api.cli.batch.journal import NAME
from mesh import subjects
from mesh.bus.client import Bus
from mesh.client import Mesh
from tests.integration.queztl_process import queztl, start
from tests.nodes import Cluster, eventually
from tests.small_disk import small_disk
from tests.videos import video

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory):
    """The API of one node with two slots and fault kinds."""
    async with Cluster(tmp_path_factory.mktemp("map")) as cluster:
        yield (await cluster.node().start()).api
        cluster.print_logs()


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(url: str):
    """A client of the same mesh, to check what the command did."""
    async with Mesh(url) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """Twelve files in `in`; the first one is too large for the payload of its task."""
    content = {f"f{number:02}.dat": f"file {number}".encode() for number in range(1, 12)}
    content["f00.dat"] = bytes(200_000)
    (tmp_path / "in").mkdir()
    for name, data in content.items():
        (tmp_path / "in" / name).write_bytes(data)
    return dict(sorted(content.items()))


def right(folder: Path, files: dict[str, bytes]) -> None:
    """Check that each file has an output with the result of its own task."""
    assert {path.name for path in folder.glob("*.json")} == {f"{name[:-4]}.json" for name in files}
    for name, data in files.items():
        result = json.loads((folder / f"{name[:-4]}.json").read_text())
        assert result["data_sha256"] == hashlib.sha256(data).hexdigest(), name


async def ends(bus: Bus) -> set[str]:
    """Every task that has ended."""
    answer = await bus.api(f"STREAM.INFO.{subjects.TASKS}", {"subjects_filter": "task.*.*.end"})
    return set(answer["state"].get("subjects") or {})


async def idle(bus: Bus) -> None:
    """Wait until no task is queued or running."""

    async def empty() -> bool:
        return not (await bus.api(f"STREAM.INFO.{subjects.WORK}"))["state"]["messages"]

    await eventually(empty, 30, "there are still tasks in the lanes")


async def test_a_run_without_a_terminal_prints_one_line_per_file(
    url: str, mesh: Mesh, files: dict[str, bytes], tmp_path: Path
) -> None:
    """Outputs are not taken for inputs; a second run has nothing to do; only changed files are processed again."""
    arguments = ("map", "echo", tmp_path / "in", "--out", tmp_path / "out")
    ran = await queztl(*arguments, url=url)
    assert ran.code == 0 and ran.err == ""
    *reported, last = ran.out.splitlines()
    assert sorted(reported) == [
        f"done    {tmp_path / 'in' / name} -> {tmp_path / 'out'}/{name[:-4]}.json" for name in files
    ]
    assert last.startswith("12 done, 0 failed, in ")
    right(tmp_path / "out", files)

    ended = await ends(mesh.bus)
    twice = ("map", "echo", tmp_path / "in" / "f01.dat", *arguments[2:])
    ran = await queztl(*twice, "--json", url=url)
    assert ran.code == 0 and [outcome["summary"]["skipped"] for outcome in ran.lines] == [12]
    files["f05.dat"] = b"changed"
    (tmp_path / "in" / "f05.dat").write_bytes(b"changed")
    (tmp_path / "out" / "f07.json").unlink()
    ran = await queztl(*arguments, "--json", url=url)
    *done, summary = ran.lines
    assert {Path(outcome["input"]).name for outcome in done} == {"f05.dat", "f07.dat"}
    assert (summary["summary"]["done"], summary["summary"]["skipped"]) == (2, 10)
    assert len(await ends(mesh.bus) - ended) == 2
    right(tmp_path / "out", files)

    ran = await queztl(*arguments, "--payload", '{"value": 1}', "--json", url=url)
    assert ran.lines[-1]["summary"]["done"] == 12, "another payload makes other outputs"
    ran = await queztl("map", "echo", tmp_path / "out", "--out", tmp_path / "out", "--json", url=url)
    assert ran.lines[-1]["summary"] == {"done": 0, "failed": 0, "skipped": 0, "seconds": 0.0}


async def test_uploads_and_results_are_removed(url: str, mesh: Mesh, tmp_path: Path) -> None:
    """A large file is uploaded as a blob and its result is one: both are removed once the output is written."""

    async def stored() -> int:
        return int((await mesh.bus.api(f"STREAM.INFO.OBJ_{subjects.BLOBS}"))["state"]["messages"])

    before = await stored()
    (tmp_path / "large").write_bytes(bytes(500_000))
    arguments = ("map", "echo", tmp_path / "large", "--out", tmp_path / "out", "--payload", '{"size_bytes": 300000}')
    assert (await queztl(*arguments, url=url)).code == 0
    assert (tmp_path / "out" / "large.bin").stat().st_size == 300_000
    assert await stored() == before


async def test_failures_are_listed_and_retried(url: str, files: dict[str, bytes], tmp_path: Path) -> None:
    """A failure sets the exit code; failures.json exists as long as an input fails."""
    (tmp_path / "in" / "gone.dat").write_bytes(b"x")
    (tmp_path / "in" / "gone.dat").chmod(0)
    unreadable = not _readable(tmp_path / "in" / "gone.dat")
    arguments = ("map", "echo", tmp_path / "in", "--out", tmp_path / "out")
    ran = await queztl(*arguments, "--payload", '{"fail": "on order"}', "--attempts", "1", url=url)
    count = len(files) + 1
    assert ran.code == 1 and f"0 done, {count} failed" in ran.out
    assert sum(line.startswith("failed  ") for line in ran.out.splitlines()) == count
    listed = json.loads((tmp_path / "out" / "failures.json").read_text())
    reasons = {Path(failure["input"]).name: (failure["code"], failure["reason"]) for failure in listed}
    assert len(reasons) == count
    assert all("on order" in reasons[name][1] for name in files)
    if unreadable:
        assert reasons["gone.dat"][0] == "file" and "gone.dat" in reasons["gone.dat"][1]
    (tmp_path / "in" / "gone.dat").unlink()
    ran = await queztl(*arguments, "--quiet", url=url)
    assert ran.code == 0 and ran.out.startswith("12 done, 0 failed")
    assert not (tmp_path / "out" / "failures.json").exists()
    right(tmp_path / "out", files)


def _readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


async def begin(arguments: tuple[object, ...], url: str, count: int) -> tuple[asyncio.subprocess.Process, list[Any]]:
    """Start `map` with --json; returns the process and its first `count` outcomes."""
    process = await start(*arguments, "--json", url=url)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return process, [json.loads(await process.stdout.readline()) for _ in range(count)]


async def test_after_a_kill_it_resumes(url: str, mesh: Mesh, files: dict[str, bytes], tmp_path: Path) -> None:
    """After SIGKILL, finished inputs are not run again, missing ones are, and each output is complete."""
    arguments = (
        "map", "echo", tmp_path / "in", "--out", tmp_path / "out",
        "--payload", '{"sleep_s": 0.3}', "--window", "2",
    )  # fmt: skip
    before = await ends(mesh.bus)
    process, first = await begin(arguments, url, 5)
    process.kill()
    reported = [*first, *(json.loads(line) for line in (await process.communicate())[0].splitlines())]
    assert process.returncode == -signal.SIGKILL and len(reported) < len(files)
    await idle(mesh.bus)
    killed = await ends(mesh.bus) - before
    journal = [json.loads(line) for line in (tmp_path / "out" / NAME).read_text().splitlines()]
    remembered = {entry["input"] for entry in journal if "output" in entry}
    assert {outcome["input"] for outcome in reported} <= remembered and len(remembered) < len(files)
    with (tmp_path / "out" / NAME).open("ab") as file:
        file.write(b'{"input": "/cut o')  # as a power cut leaves it
    (tmp_path / "out" / f".f11.json.{process.pid}.part").write_bytes(b"half of an outp")

    ran = await queztl(*arguments, "--json", url=url)
    *done, summary = ran.lines
    assert ran.code == 0
    assert {outcome["input"] for outcome in done}.isdisjoint(remembered)
    assert summary["summary"]["skipped"] == len(remembered)
    assert summary["summary"]["done"] == len(files) - len(remembered)
    assert len(await ends(mesh.bus) - before - killed) == len(files) - len(remembered)
    right(tmp_path / "out", files)
    assert not list((tmp_path / "out").glob(".*.part"))


async def test_an_interrupt_cancels_its_open_tasks(
    url: str, mesh: Mesh, files: dict[str, bytes], tmp_path: Path
) -> None:
    """Ctrl-C gives exit code 130, no task runs on, and the same command does the rest."""
    arguments = (
        "map", "echo", tmp_path / "in", "--out", tmp_path / "out",
        "--payload", '{"sleep_s": 1.5}', "--window", "4",
    )  # fmt: skip
    process, first = await begin(arguments, url, 3)
    process.send_signal(signal.SIGSTOP)  # so that it does not end before the second command checks the lock
    busy = await queztl(*arguments, "--json", url=url)
    assert busy.code == 2 and "another `queztl map` writes to" in busy.lines[-1]["error"]["message"]
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 130 and "queztl: interrupted" in err.decode() and b"Traceback" not in err
    reported = [*first, *(outcome for outcome in map(json.loads, out.splitlines()) if "input" in outcome)]
    await idle(mesh.bus)
    ran = await queztl(*arguments, "--json", url=url)
    assert ran.code == 0 and ran.lines[-1]["summary"]["skipped"] >= len(reported)
    right(tmp_path / "out", files)


async def test_names_of_any_bytes_fail_and_succeed_like_others(url: str, tmp_path: Path) -> None:
    """Names that are not UTF-8, have line breaks or a dash at the start, or are as long as names can be."""
    raw_names = [
        b"caf\xe9.dat",
        b"\xff\xfe",
        b"two\nlines.dat",
        b"-x.dat",
        b"-x.bin",
        b"n" * 251 + b".dat",
        "ü.d".encode(),
    ]
    names = [os.fsdecode(name) for name in raw_names]
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).write_bytes(os.fsencode(name))
    arguments = ("map", "echo", tmp_path / "in", "--out", tmp_path / "out")
    refused = await started(*arguments, "--payload", '{"fail": "on order"}', "--attempts", "1", url=url)
    assert refused[0] == 1 and b"0 done, 7 failed" in refused[1]
    assert b"caf\xe9.dat: " in refused[1] and b"two lines.dat: " in refused[1]
    listed = msgspec.json.decode((tmp_path / "out" / "failures.json").read_bytes())
    bytes_of = {"input": lambda text: text.encode(), "input_base64": base64.b64decode}
    found = {
        bytes_of[key](failure[key]) for failure in listed for key in (max({"input", "input_base64"} & {*failure}),)
    }
    assert found == {os.fsencode(tmp_path / "in" / name) for name in names}

    code, out, _ = await started(*arguments, "--json", url=url)
    documents = [msgspec.json.decode(line) for line in out.splitlines()]
    assert code == 0 and documents[-1]["summary"]["done"] == 7
    outputs = [path for path in (tmp_path / "out").iterdir() if path.suffix == ".json"]
    assert len(outputs) == 7 and {os.fsdecode(b"caf\xe9.json"), "-x.json"} < {path.name for path in outputs}
    hashes = {json.loads(path.read_text())["data_sha256"] for path in outputs}
    assert hashes == {hashlib.sha256(os.fsencode(name)).hexdigest() for name in names}
    assert (await queztl(*arguments, "--json", url=url)).lines[-1]["summary"]["skipped"] == 7


async def started(*arguments: object, url: str) -> tuple[int | None, bytes, bytes]:
    """A command that prints what is no text: (exit code, stdout, stderr)."""
    process = await start(*arguments, url=url)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert b"Traceback" not in out + err, err
    return process.returncode, out, err


async def test_what_is_left_out_is_said_and_recursive_keeps_the_tree(
    url: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    """A pipe, a dead link and subfolders beside the files; the output folder is one of the subfolders."""
    top, out = tmp_path / "in", tmp_path / "in" / "out"
    for name in ("2023/f01.dat", "2024/deep/f01.dat"):
        (top / name).parent.mkdir(parents=True)
        (top / name).write_bytes(name.encode())
    (top / "dead").symlink_to("nowhere")
    os.mkfifo(top / "pipe")
    ran = await queztl("map", "echo", top, "--out", out, url=url)
    assert ran.code == 0 and "12 done, 0 failed, 4 left out, in " in ran.out
    said = "queztl: left out: 2 subfolders (--recursive takes its files), 1 link to nothing, 1 pipe, socket or device"
    assert ran.err.strip() == said
    ran = await queztl("map", "echo", top, "--out", out, "--recursive", "--json", url=url)
    summary = ran.lines[-1]["summary"]
    assert (summary["done"], summary["skipped"], summary["left_out"]) == (2, 12, {"dead_links": 1, "special": 1})
    for name in ("2023/f01", "2024/deep/f01"):
        result = json.loads((out / f"{name}.json").read_text())
        assert result["data_sha256"] == hashlib.sha256(f"{name}.dat".encode()).hexdigest()
    ran = await queztl("map", "echo", top, "--out", out, "-r", "--json", url=url)
    assert ran.lines[-1]["summary"]["skipped"] == 14


async def test_a_full_disk_stops_it_and_with_room_it_resumes(
    url: str, mesh: Mesh, files: dict[str, bytes], tmp_path: Path
) -> None:
    """One sentence, no task runs on, and what was done is kept."""
    with small_disk(tmp_path, 8, "tmpfs") as disk:
        (disk / "filler").write_bytes(bytes(6 << 20))
        arguments = (
            "map", "echo", tmp_path / "in", "--out", disk / "out", "--window", "2",
            "--payload", '{"size_bytes": 400000}',
        )  # fmt: skip
        before = await ends(mesh.bus)
        ran = await queztl(*arguments, url=url)
        assert ran.code == 2 and "unexpected" not in ran.err
        *_, last = ran.err.splitlines()
        done = len(list((disk / "out").glob("*.bin")))
        assert last.startswith(f"queztl: {disk / 'out'}/") and last.endswith(
            f": No space left on device; {done} of 12 done; the same command does the rest"
        )
        assert 3 <= done <= 5 and not list((disk / "out").glob(".*.part"))
        await idle(mesh.bus)
        assert len(await ends(mesh.bus) - before) <= done + 3
        (disk / "filler").unlink()
        ran = await queztl(*arguments, "--json", url=url)
        summary = ran.lines[-1]["summary"]
        assert (summary["done"], summary["skipped"], summary["failed"]) == (12 - done, done, 0), ran.out


async def test_a_matroska_file_is_called_mkv(url: str, tmp_path: Path) -> None:
    """Whatever the table of content types of this machine says."""
    (tmp_path / "in.mp4").write_bytes(video(frames=5))
    payload = '{"container": "mkv", "preset": "ultrafast", "encoder": "software"}'
    ran = await queztl(
        "map", "video_encode_h264", tmp_path / "in.mp4", "--out", tmp_path / "out", "--payload", payload, url=url
    )
    assert ran.code == 0 and (tmp_path / "out" / "in.mkv").stat().st_size > 0, ran.out


async def test_it_waits_for_a_bus_that_is_away(files: dict[str, bytes], tmp_path: Path) -> None:
    """SIGKILL to the bus server during a map: its node restarts it, and no file fails."""
    async with Cluster(tmp_path) as cluster:
        node = await cluster.node().start()
        arguments = (
            "map", "echo", tmp_path / "in", "--out", tmp_path / "out",
            "--payload", '{"sleep_s": 0.2}', "--window", "3",
        )  # fmt: skip
        process, _ = await begin(arguments, node.api, 3)
        server = node.bus_process()
        assert server is not None
        server.kill()
        out, err = await asyncio.wait_for(process.communicate(), 60)
        cluster.print_logs()
        assert process.returncode == 0, (out, err)
        assert json.loads(out.splitlines()[-1])["summary"]["failed"] == 0
        right(tmp_path / "out", files)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
