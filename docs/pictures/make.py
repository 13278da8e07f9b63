"""Make docs/pictures/mesh.svg from a real run: `python -m docs.pictures.make`, in the environment of the tests.

Three nodes on this machine resize 120 photographs. The picture shows the end of `queztl map`, and `queztl nodes` while
it ran, in a terminal of 80 columns.
"""

from __future__ import annotations

import asyncio
import os
import pty
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.nodes import Cluster, eventually

COLUMNS, LINES = 80, 40
PHOTOS, SIDE = 120, 1600
PICTURE = Path(__file__).with_name("mesh.svg")
QUEZTL = Path(sys.executable).with_name("queztl")
MAP = ("map", "image_processing", "photos", "--out", "small", "--payload", '{"width": 320}')
#: As rich's own, without its window title, and with the viewer's own monospaced font instead of one from a server.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px;
line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def photographs(folder: Path) -> None:
    """Smooth colours, a different picture each."""
    folder.mkdir()
    for number in range(PHOTOS):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (SIDE, SIDE * 3 // 4), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"photo-{number:03}.jpg"), image)


async def terminal(folder: Path, api: str, *arguments: str) -> str:
    """What `queztl ARGUMENTS` writes to a terminal, control sequences included."""
    ours, its = pty.openpty()
    environment = os.environ | {
        "QUEZTL_URL": api, "COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        QUEZTL, *arguments, cwd=folder, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=its, stderr=its
    )
    os.close(its)
    output = await asyncio.to_thread(lambda: b"".join(chunks(ours)).decode())
    if await process.wait():
        raise SystemExit(output)
    return output


def chunks(descriptor: int) -> Iterator[bytes]:
    """All that comes, until the other end is closed."""
    with open(descriptor, "rb", buffering=0) as stream:
        while True:
            try:
                chunk = stream.read(65536)
            except OSError:  # how Linux says that a terminal was closed
                return
            if not chunk:
                return
            yield chunk


def screen(output: str) -> Text:
    """What is left on the screen: a line that was written again shows what came last."""
    lines = [line.rpartition("\x1b[2K")[2].rpartition("\r")[2] for line in output.replace("\r\n", "\n").split("\n")]
    return Text.from_ansi("\n".join(line for line in lines if line.strip()))


async def run(folder: Path) -> tuple[str, str]:
    """The output of `queztl nodes` while the nodes work, and of `queztl map`."""

    async def begun() -> bool:
        return any((folder / "small").glob("*.jpg"))

    photographs(folder / "photos")
    async with Cluster(folder) as cluster:
        nodes = [cluster.node("--region", region) for region in ("attic", "cellar", "garage")]
        for node in nodes:
            await node.start()
        mapped = asyncio.create_task(terminal(folder, nodes[0].api, *MAP))
        await eventually(begun, 60.0, "map made nothing")
        shown = await terminal(folder, nodes[0].api, "nodes")
        return shown, await mapped


def draw(shown: str, mapped: str) -> None:
    """Write the picture."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    words = " ".join(f"'{word}'" if "{" in word else word for word in MAP)
    for command, output in ((f"queztl {words}", mapped), ("queztl nodes", shown)):
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")), soft_wrap=True)
        console.print(screen(output))
        console.print()
    PICTURE.write_text(console.export_svg(title="", theme=MONOKAI, code_format=SVG, unique_id="mesh"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        draw(*asyncio.run(run(Path(made))))
