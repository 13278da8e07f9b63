"""Single commands beside the tools they replace: `map` and OpenCV, `encode` and `submit` and ffmpeg, on one machine."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness.environment import describe, machine_cpu_s, machine_line
from bench.harness.measure import BenchFailed, disturbance, median_interval, spread
from bench.harness.node_process import NodeProcess
from bench.harness.progress import say
from bench.singles import checks, inputs, tools
from bench.singles.timing import Took, timed

SLOTS = 2
#: What a ratio should not exceed.
MARKS = {"map": 1.25, "encode": 1.15, "submit": 1.15}
#: Files of the scene map, and seconds of the scenes encode and submit: whole, and quick.
IMAGES, SECONDS = (32, 8), (20, 6)


@dataclass(frozen=True)
class Scene:
    """A command of `queztl`, and the commands that do the same work without a mesh."""

    queztl: list[str]
    """The arguments of `queztl`; the address of the node is added."""
    baseline: list[list[str]]
    """Started together; the baseline has ended when all of them have."""
    queztl_output: Path
    baseline_output: Path


def run(quick: bool, pairs: int | None, profile: str | None, scenes: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns for each scene the median of queztl / baseline and its interval.

    Raises: BenchFailed, also when the two outputs do not show the same.
    """
    if profile is not None:
        raise BenchFailed("singles can't be profiled: use the case mesh")
    if unknown := set(scenes or ()) - set(MARKS):
        raise BenchFailed(f"singles measures {', '.join(MARKS)}, not {', '.join(sorted(unknown))}")
    encoder = tools.video_encoder(SLOTS)
    document = {"case": "singles", "quick": quick, "slots": SLOTS, "encoder": encoder.name, **describe()}
    measured = asyncio.run(_measure(scenes or list(MARKS), quick, pairs or (3 if quick else 9), encoder))
    return document | {"scenes": measured}


async def _measure(names: list[str], quick: bool, pairs: int, encoder: tools.VideoEncoder) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="queztl-bench-") as name:
        folder = Path(name)
        scenes = await asyncio.to_thread(_scenes, folder, names, quick, encoder)
        async with NodeProcess(folder / "node", SLOTS) as node:
            for scene_name, scene in scenes.items():
                found[scene_name] = await _pairs(scene_name, scene, pairs, node)
    return found


def _scenes(folder: Path, names: list[str], quick: bool, encoder: tools.VideoEncoder) -> dict[str, Scene]:
    """Make the inputs of the scenes."""
    scenes: dict[str, Scene] = {}
    outputs = folder / "out"
    outputs.mkdir()
    if "map" in names:
        photos = inputs.photographs(folder / "photos", IMAGES[quick])
        through, alone = outputs / "map", outputs / "opencv"
        scenes["map"] = Scene(
            ["map", "image_processing", str(photos), "--payload", inputs.IMAGE_PAYLOAD, "--out", str(through)],
            tools.image_processes(photos, alone, SLOTS),
            through,
            alone,
        )
    video = folder / "source.mp4"
    if {"encode", "submit"} & {*names}:
        inputs.video(video, SECONDS[quick])
    for name in ("encode", "submit"):
        if name in names:
            through, alone = outputs / f"{name}.mp4", outputs / f"{name}-alone.mp4"
            scenes[name] = Scene(
                inputs.video_arguments(name, video, through), [encoder.command(video, alone)], through, alone
            )
    return scenes


async def _pairs(name: str, scene: Scene, pairs: int, node: NodeProcess) -> dict[str, Any]:
    """Alternate queztl and the baseline, after a first pair that fills caches and does not count."""
    rounds: list[dict[str, float]] = []
    disturbed: list[dict[str, float]] = []
    for number in range(pairs + 1):
        machine = machine_cpu_s()
        through = await _through_mesh(scene, node)
        alone = await timed(scene.baseline, nice=True)
        checks.same(name, scene.queztl_output, scene.baseline_output)
        if not number:
            continue
        disturbed.append(disturbance(machine, machine_cpu_s(), through.cpu_s + alone.cpu_s))
        rounds.append(
            {
                "queztl_s": through.wall_s,
                "baseline_s": alone.wall_s,
                "queztl_cpu_s": through.cpu_s,
                "baseline_cpu_s": alone.cpu_s,
            }
        )
        figures = {field: round(value, 3) for field, value in rounds[-1].items()}
        say(f"{name} {number}: {figures}, others {disturbed[-1]['others']:.0%}")
    return {"mark": MARKS[name], **_figures(rounds), "disturbed": disturbed, "rounds": rounds}


def _figures(rounds: list[dict[str, float]]) -> dict[str, Any]:
    columns = {field: [pair[field] for pair in rounds] for field in rounds[0]}
    ratios = [pair["queztl_s"] / pair["baseline_s"] for pair in rounds]
    low, high, confidence = median_interval(ratios)
    return {
        "ratio": round(median(ratios), 3),
        "interval": [round(low, 3), round(high, 3)],
        "confidence": round(confidence, 3),
        "cpu_ratio": round(median(pair["queztl_cpu_s"] / pair["baseline_cpu_s"] for pair in rounds), 3),
        **{field: round(median(values), 3) for field, values in columns.items()},
        "spread": {field: round(spread(values), 3) for field, values in columns.items()},
    }


async def _through_mesh(scene: Scene, node: NodeProcess) -> Took:
    """Run the command, without an output of an earlier round. CPU seconds: those of the command and the node."""
    _remove(scene.queztl_output)
    _remove(scene.baseline_output)
    before = sum(node.cpu_s().values())
    took = await timed([[sys.executable, "-m", "api.cli.main", "--url", node.api, *scene.queztl]])
    return Took(took.wall_s, took.cpu_s + sum(node.cpu_s().values()) - before)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def table(document: dict[str, Any]) -> str:
    """The document as text."""
    lines = [
        f"{name:<8}{measured['ratio']:>7.2f}   between {measured['interval'][0]:.2f} and "
        f"{measured['interval'][1]:.2f}, mark {measured['mark']:.2f}   {measured['queztl_s']:.2f} and "
        f"{measured['baseline_s']:.2f} s, CPU {measured['cpu_ratio']:.2f} times"
        for name, measured in document["scenes"].items()
    ]
    head = f"queztl / baseline, median over pairs; videos: {document['encoder']}"
    return "\n".join([head, *lines, machine_line(document)])
