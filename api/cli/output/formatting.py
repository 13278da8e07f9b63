"""Values as people read them. Pure."""

from __future__ import annotations

import re
from time import localtime, strftime

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

STYLES = {
    "done": "green", "up": "green", "ok": "green",
    "running": "cyan", "queued": "yellow", "suspect": "yellow", "draining": "yellow", "warn": "yellow",
    "registered": "blue",
    "failed": "red", "expired": "red", "gone": "red", "fail": "red", "cancelled": "magenta", "left": "dim",
}  # fmt: skip


def printable(text: object) -> str:
    """`text` without control characters: names and messages come from other machines, terminals obey them."""
    return _CONTROL.sub("�", str(text))


def size(count: float) -> str:
    """1536 -> "1.5 KiB" """
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """0.0123 -> "12.3 ms"; 75 -> "1 min 15 s" """
    if seconds < 0:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s" if rest_s else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def moment(at: float, now: float) -> str:
    """A Unix time as the wall clock here says it, and how long ago that is; "-" for none."""
    if at <= 0:
        return "-"
    shape = "%H:%M:%S" if abs(now - at) < 12 * 3600 else "%Y-%m-%d %H:%M:%S"
    ago = f"{duration(now - at)} ago" if now >= at else f"in {duration(at - now)}"
    return f"{strftime(shape, localtime(at))} ({ago})"
