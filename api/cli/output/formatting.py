"""Values as people read them. Pure."""

from __future__ import annotations

import base64
import json
import os
import re
from time import localtime, strftime
from typing import Any

_SPACE = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
#: C0 and C1 controls, and the marks that reverse the direction of the text that follows them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
#: What is not UTF-8 in the name of a file (PEP 383), and other halves of characters.
_NO_TEXT = re.compile(r"[\ud800-\udfff]")

STYLES = {
    "done": "green", "up": "green", "ok": "green",
    "running": "cyan", "queued": "yellow", "suspect": "yellow", "draining": "yellow", "warn": "yellow",
    "registered": "blue",
    "failed": "red", "expired": "red", "gone": "red", "fail": "red", "cancelled": "magenta", "left": "dim",
}  # fmt: skip


def printable(text: object, keep_lines: bool = False) -> str:
    """`text` without anything a terminal obeys: names, labels and errors come from other machines.

    Line breaks and tabs become one space, unless `keep_lines`; every other control character becomes U+FFFD.
    """
    shown = str(text)
    if not keep_lines:
        shown = _SPACE.sub(" ", shown)
    return _CONTROL.sub("�", shown)


def as_text(name: str) -> str:
    """`name` with U+FFFD for each byte that is not UTF-8: what JSON can hold."""
    return _NO_TEXT.sub("�", name)


def name_fields(field: str, name: str) -> dict[str, str]:
    """The name of a file as a field of a document; beside it, where it is not UTF-8, its bytes as base64."""
    shown = as_text(name)
    if shown == name:
        return {field: name}
    return {field: shown, f"{field}_base64": base64.b64encode(os.fsencode(name)).decode()}


def json_bytes(value: Any) -> bytes:
    """`value` as compact JSON; a text that is not Unicode, such as the name of a file, as in `as_text`."""
    import msgspec

    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:
        return msgspec.json.encode(_cleaned(msgspec.to_builtins(value, enc_hook=str)))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(inner) for key, inner in value.items()}
    return [_cleaned(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def counted(count: int, what: str) -> str:
    """1, "task" -> "1 task"; 2, "task" -> "2 tasks" """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


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
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def age(seconds: float) -> str:
    """A duration in its largest unit, for narrow columns: 0.4 -> "0 s"; 75 -> "1 min"; -1 -> "-" """
    if seconds < 0:
        return "-"
    for unit_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def ago(at: float, now: float) -> str:
    """How long ago the Unix time `at` is, for narrow columns; "-" for none."""
    return f"{age(max(0.0, now - at))} ago" if at > 0 else "-"


def moment(at: float, now: float) -> str:
    """A Unix time as local wall clock time, and how long ago that is; "-" for none."""
    if at <= 0:
        return "-"
    shape = "%H:%M:%S" if abs(now - at) < 12 * 3600 else "%Y-%m-%d %H:%M:%S"
    distance = f"{duration(now - at)} ago" if now >= at else f"in {duration(at - now)}"
    return f"{strftime(shape, localtime(at))} ({distance})"


def plain(value: Any) -> str:
    """A value of a document on one line: text as it is, "none" for null, the rest as JSON."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
