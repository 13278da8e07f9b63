"""The examples of the documents, as they stand: on a machine of its own, where a node has the default address.

The machine is a network namespace without a network. Lines run in bash, in an empty folder, one after the other.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.lan.conftest import machines
from tests.nodes import NodeProcess

pytestmark = [pytest.mark.lan, pytest.mark.asyncio(loop_scope="module")]
ROOT = Path(__file__).parents[2]
#: The lines of the mission, in docs/usage.md word for word.
MISSION = (
    """curl -X POST http://localhost:8000/api/v1.2/workload/submit """
    """-d '{"workload_type":"crypto_mining","payload":{"algorithm":"SHA256"}}'""",
    """curl http://localhost:8000/api/v1.2/network/status | jq '.registry.total_nodes'""",
    """curl -X POST http://localhost:8000/api/v1.2/workload/submit """
    """-d '{"workload_type":"llm_inference","payload":{"model":"7B"}}'""",
)
#: What a reader replaces, and what installs or starts something.
_NOT_RUN = re.compile(r"SEQUENCE|^\./(start|test)\.sh|^nats ")


def lines_of(page: str) -> list[str]:
    """The lines of a page's shell examples; those with `$ ` only, where a block shows output too."""
    text = (ROOT / page).read_text()
    lines: list[str] = []
    for kind, block in re.findall(r"^```(sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        joined = re.sub(r"\\\n\s*", "", block).splitlines()
        lines += [line.removeprefix("$ ") for line in joined if kind == "sh" or line.startswith("$ ")]
    return [line for line in lines if not _NOT_RUN.search(line)]


def python_of(page: str) -> list[str]:
    """The Python examples of a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


class Desk:
    """A shell on the machine of the node."""

    def __init__(self, machine: str, folder: Path) -> None:
        self._machine, self._folder = machine, folder

    async def run(self, *command: str, within_s: float = 120.0) -> str:
        """What a command prints. Raises: AssertionError when it fails."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("QUEZTL_")}
        path = f"{Path(sys.executable).parent}:{clean['PATH']}"
        process = await asyncio.create_subprocess_exec(
            "nsenter", f"--net=/run/netns/{self._machine}", *command, cwd=self._folder,
            env=clean | {"PATH": path, "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(within_s):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, f"{command}\n{out.decode()}\n{err.decode()}"
        return out.decode()

    async def line(self, line: str) -> str:
        """Run a line as it stands."""
        return await self.run("bash", "-eo", "pipefail", "-c", line)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """A machine with one node at the address that it has without options."""
    folder = tmp_path_factory.mktemp("examples")
    desks = machines(1)
    (machine,) = next(desks)
    node = NodeProcess("node", folder / "node", ("--slots", "2", "--measure-after", "0"), "http://127.0.0.1:8000")
    node.command = ("nsenter", f"--net=/run/netns/{machine}", sys.executable, "-m", "node")
    (folder / "desk").mkdir()
    try:
        await node.start()
        yield Desk(machine, folder / "desk")
    finally:
        await node.close()
        next(desks, None)


async def test_the_lines_of_the_mission_run_word_for_word(desk: Desk) -> None:
    """The last of them was answered 400; with a prompt it failed after it had started."""
    assert set(MISSION) <= set(lines_of("docs/usage.md"))
    mined, nodes, asked = [json.loads(await desk.line(line)) for line in MISSION]
    assert (mined["kind"], nodes, asked["kind"], asked["warnings"]) == ("crypto_mining", 1, "llm_inference", [])
    assert json.loads(await desk.run("queztl", "result", mined["id"]))["hashes"] > 0
    result = json.loads(await desk.run("queztl", "result", asked["id"]))
    assert result["text"] and result["requested_model"] == "7B" and result["weights"] == "trained", result
    assert "needs about" in result["why_this_model"] and result["model"] in result.values()


async def test_the_files_of_the_examples_are_made_and_lines_that_use_them_run(desk: Desk) -> None:
    await desk.line("queztl sample")
    lines = [line for line in lines_of("docs/usage.md") if "image=photo.jpg" in line or line.startswith("curl")]
    assert len(lines) >= 5
    for line in lines:
        if line not in MISSION:
            await desk.line(line)
    kept = json.loads(await desk.line("queztl sample --json"))
    assert kept["made"] == [] and {"photo.jpg", "photos/1.jpg", "holiday.mov"} <= set(kept["kept"])


@pytest.mark.long
@pytest.mark.parametrize("page", ["README.md", "docs/usage.md"])
async def test_every_example_of_the_first_pages_runs_as_it_stands(desk: Desk, page: str) -> None:
    await desk.line("queztl sample")
    lines = lines_of(page)
    assert len(lines) >= 5
    for line in lines:
        await desk.line(line)
    for example in python_of(page):
        await desk.run(sys.executable, "-c", example)
