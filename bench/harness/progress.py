"""Progress messages of a benchmark, on stderr, so that stdout holds nothing but the result."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
