"""The banner that `python -m node` prints once it is in a mesh: its identity, its abilities and a first command. Pure.

The last lines are commands to paste into a shell; they are never wrapped.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass

from mesh.messages import KindInfo

WIDTH = 80
_LABEL = 11
_BOLD, _DIM, _WARN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[33m", "\x1b[0m"

#: The banner suggests the first of these tasks that the node can run: kind -> payload.
FIRST_TASKS = {"crypto_mining": {"algorithm": "SHA256"}, "echo": {"value": "hello"}}


@dataclass(frozen=True)
class BannerFacts:
    """Everything that the banner shows."""

    node_id: str
    name: str
    """The machine's name."""
    version: str
    mesh_name: str
    mesh_id: str
    how: str
    """created, joined or resumed"""
    by: str
    """The bus URL that the node joined through; empty unless it joined."""
    api: str
    """http://host:port"""
    bus_urls: tuple[str, ...]
    slots: int
    cores: int
    memory_bytes: int
    kinds: tuple[KindInfo, ...]
    data: str
    accelerators: tuple[str, ...] = ()
    """Names of the devices."""
    has_key: bool = False
    api_is_local: bool = True
    open_api: bool = False
    this_machine_only: bool = False
    """Whether the bus listens on loopback only."""
    notices: tuple[str, ...] = ()
    """Sentences that the user must read: no multicast, no network …"""
    colour: bool = False


def banner(facts: BannerFacts) -> str:
    """The text, with a final newline; its lines are 80 columns at most, except for commands."""
    style = _Style(facts.colour)
    lines = [
        style.bold(f"Queztl {facts.version}".rstrip()),
        *_row("node", f"{facts.node_id} on {facts.name}"),
        *_row("mesh", _mesh(facts)),
        *_row("machine", _machine(facts)),
        *_row("runs", ", ".join(kind.kind for kind in facts.kinds if kind.available) or "nothing"),
        *_missing(facts.kinds, style),
        *_row("API", facts.api),
        *_row("bus", ", ".join(facts.bus_urls) or "none"),
        *_row("data", facts.data),
    ]
    for sentence in (*_warnings(facts), *facts.notices):
        wrapped = textwrap.wrap("! " + sentence, WIDTH, subsequent_indent="  ")
        lines += ["", *(style.warn(line) for line in wrapped)]
    lines += ["", *_first_task(facts), "", "Ctrl-C finishes running tasks and leaves the mesh."]
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
    ways = {"created": "created by this node", "resumed": "resumed by this node, which hosts its bus"}
    how = ways.get(facts.how, f"joined through {facts.by}" if facts.by else facts.how)
    return f"{facts.mesh_name} ({facts.mesh_id}), {how}"


def _machine(facts: BannerFacts) -> str:
    parts = [_count(facts.slots, "slot"), _count(facts.cores, "core")]
    if facts.memory_bytes:
        parts.append(f"{facts.memory_bytes / 2**30:.1f} GiB memory")
    return ", ".join([*parts, *facts.accelerators])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _missing(kinds: tuple[KindInfo, ...], style: _Style) -> list[str]:
    """One line for each kind that an installation adds; a broken library or any other obstacle needs its reason too."""
    lines: list[str] = []
    for kind in kinds:
        if kind.available:
            continue
        how = kind.how_to_install
        if how and "--force-reinstall" not in how:
            lines.append(f"  {'missing':<{_LABEL - 2}}{kind.kind}: {style.dim(how)}")
            continue
        lines += _row("missing", f"{kind.kind}: {kind.reason or 'not available on this machine'}")
        if how:
            lines.append(" " * _LABEL + style.dim(how))
    return lines


def _warnings(facts: BannerFacts) -> list[str]:
    found: list[str] = []
    if not facts.has_key:
        who = "any program on this machine" if facts.this_machine_only else "any machine on this network"
        found.append(
            f"This mesh has no key: {who} can join it, submit tasks and cancel them. It runs built-in kinds "
            "only, and spends no money."
        )
    if not facts.api_is_local and not facts.has_key:
        found.append(
            "The API answers every request of every machine that can reach it (--open-api)."
            if facts.open_api
            else "Without a key the API answers only register, health and status requests of other machines; "
            "--open-api lifts that limit."
        )
    return found


def _first_task(facts: BannerFacts) -> list[str]:
    available = {kind.kind for kind in facts.kinds if kind.available}
    kind = next((name for name in FIRST_TASKS if name in available), "")
    if not kind:
        return ["This node can't run any kind; other nodes may. Submit a first task:", *_commands(facts, "echo")]
    return ["Submit a first task:", *_commands(facts, kind)]


def _commands(facts: BannerFacts, kind: str) -> list[str]:
    payload = FIRST_TASKS[kind]
    body = json.dumps({"workload_type": kind, "payload": payload}, separators=(",", ":"))
    # `queztl` uses this address by default.
    variable = "" if facts.api == "http://127.0.0.1:8000" else f"QUEZTL_URL={facts.api} "
    return [
        f"  curl -X POST {facts.api}/api/v1.2/workload/submit \\",
        f"    -d '{body}'",
        f"  {variable}queztl submit {kind} '{json.dumps(payload)}' --wait",
    ]
