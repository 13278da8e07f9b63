"""Names that somebody mistyped: which valid name they are nearest to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher


def similarity(name: str, valid: str) -> float:
    """0 to 1, whatever the case and whether words are joined by "-" or "_"."""
    return SequenceMatcher(None, _plain(name), _plain(valid)).ratio()


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid name that `name` is most similar to; the first of equals."""
    return max(valid, key=lambda candidate: similarity(name, candidate))


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
