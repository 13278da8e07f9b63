"""What `python -m node` prints once it is in a mesh: who, where, what it can do, and how to use it. Pure.

The last lines are commands that work as they stand when pasted; they are never wrapped.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass

from mesh.messages import KindInfo

WIDTH = 80
_LABEL = 11
_BOLD, _DIM, _WARN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[33m", "\x1b[0m"

#: The first task to suggest: the first of these that the node can run.
FIRST_TASKS = {"crypto_mining": {"algorithm": "SHA256"}, "echo": {"value": "hello"}}


@dataclass(frozen=True)
class BannerFacts:
    """All that the banner says."""

    node_id: str
    name: str
    """The machine's name."""
    version: str
    mesh_name: str
    mesh_id: str
    how: str
    """founded, joined or resumed"""
    by: str
    """Node id or address it was joined by; empty when founded."""
    api: str
    """http://host:port"""
    bus_urls: tuple[str, ...]
    slots: int
    cores: int
    memory_bytes: int
    kinds: tuple[KindInfo, ...]
    data: str
    accelerators: tuple[str, ...] = ()
    """Their names."""
    has_key: bool = False
    api_is_local: bool = True
    open_api: bool = False
    this_machine_only: bool = False
    """The bus listens on loopback only."""
    notices: tuple[str, ...] = ()
    """Sentences worth reading: no multicast, no network …"""
    colour: bool = False


def banner(facts: BannerFacts) -> str:
    """The text, lines of at most 80 columns (but for commands), with a final newline."""
    style = _Style(facts.colour)
    lines = [
        style.bold(f"Queztl {facts.version}".rstrip()),
        *_row("node", f"{facts.node_id} on {facts.name}"),
        *_row("mesh", _mesh(facts)),
        *_row("machine", _machine(facts)),
        *_row("runs", ", ".join(kind.kind for kind in facts.kinds if kind.available) or "nothing"),
        *_lacking(facts.kinds, style),
        *_row("API", facts.api),
        *_row("bus", ", ".join(facts.bus_urls) or "none"),
        *_row("data", facts.data),
    ]
    for sentence in (*_warnings(facts), *facts.notices):
        wrapped = textwrap.wrap("! " + sentence, WIDTH, subsequent_indent="  ")
        lines += ["", *(style.warn(line) for line in wrapped)]
    lines += ["", *_first_task(facts), "", "Ctrl-C finishes what runs and leaves the mesh."]
    return "\n".join(lines) + "\n"


class _Style:
    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def _wrap(self, code: str, text: str) -> str:
        return f"{code}{text}{_PLAIN}" if self._colour else text

    def bold(self, text: str) -> str:
        return self._wrap(_BOLD, text)

    def dim(self, text: str) -> str:
        return self._wrap(_DIM, text)

    def warn(self, text: str) -> str:
        return self._wrap(_WARN, text)


def _row(label: str, text: str) -> list[str]:
    first = f"  {label:<{_LABEL - 2}}"
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * _LABEL,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first]


def _mesh(facts: BannerFacts) -> str:
    ways = {"founded": "founded by this node", "resumed": "resumed by this node, which hosts its bus"}
    how = ways.get(facts.how, f"joined by way of {facts.by}" if facts.by else facts.how)
    return f"{facts.mesh_name} ({facts.mesh_id}), {how}"


def _machine(facts: BannerFacts) -> str:
    parts = [_count(facts.slots, "slot"), _count(facts.cores, "core")]
    if facts.memory_bytes:
        parts.append(f"{facts.memory_bytes / 2**30:.1f} GiB memory")
    return ", ".join([*parts, *facts.accelerators])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _lacking(kinds: tuple[KindInfo, ...], style: _Style) -> list[str]:
    lines = []
    for kind in kinds:
        if kind.available:
            continue
        lines += _row("lacks", f"{kind.kind}: {kind.reason or 'not available here'}")
        if kind.how_to_install:
            lines.append(" " * _LABEL + style.dim(kind.how_to_install))
    return lines


def _warnings(facts: BannerFacts) -> list[str]:
    found = []
    if not facts.has_key:
        who = "any program on this machine" if facts.this_machine_only else "any machine on this network"
        found.append(
            f"This mesh has no key: {who} can join it, submit work and remove it. It runs built-in kinds of "
            "work only, and spends no money."
        )
    if not facts.api_is_local and not facts.has_key:
        found.append(
            "The API answers everything to everybody who can reach it (--open-api)."
            if facts.open_api
            else "Without a key, only register, health and status are answered from other machines; "
            "--open-api lifts that."
        )
    return found


def _first_task(facts: BannerFacts) -> list[str]:
    able = {kind.kind for kind in facts.kinds if kind.available}
    kind = next((name for name in FIRST_TASKS if name in able), "")
    if not kind:
        return ["This node runs no work itself; others may. Submit a first task:", *_commands(facts, "echo")]
    return ["Submit a first task:", *_commands(facts, kind)]


def _commands(facts: BannerFacts, kind: str) -> list[str]:
    payload = FIRST_TASKS[kind]
    body = json.dumps({"workload_type": kind, "payload": payload}, separators=(",", ":"))
    # `queztl` looks at this address by itself
    where = "" if facts.api == "http://127.0.0.1:8000" else f"QUEZTL_URL={facts.api} "
    return [
        f"  curl -X POST {facts.api}/api/v1.2/workload/submit \\",
        f"    -d '{body}'",
        f"  {where}queztl submit {kind} '{json.dumps(payload)}' --wait",
    ]
