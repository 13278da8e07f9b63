"""The answers of the back ends, their progress while they are generated, and the figures of the result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """The answer to one prompt. Times in seconds; in a batch that is computed as one, this answer's share."""

    text: str
    finish_reason: str
    """stop: end token or stop text; length: max_tokens, or the context, is exhausted"""
    prompt_tokens: int
    completion_tokens: int
    prefill_s: float
    decode_s: float

    def as_dict(self) -> dict[str, Any]:
        """Its fields in the result of a task."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }


class Progress:
    """Reports the text while it is generated; thread-safe."""

    def __init__(self, progress: Callable[..., None], count: int, max_tokens: int) -> None:
        self._progress, self._most = progress, count * max_tokens
        self._texts = [""] * count
        self._pieces = 0
        self._lock = threading.Lock()

    def add(self, index: int, text: str, tokens: int = 1) -> None:
        """Append `text` to answer `index`."""
        with self._lock:
            self._texts[index] += text
            self._pieces += tokens
            joined = "\n\n".join(answer for answer in self._texts if answer)
            self._progress(min(0.99, self._pieces / self._most), text=joined)


class Writing:
    """The text of one answer while it is generated, whatever the pieces that it comes in.

    Text that may become a stop text is held back, until it has become one, is none, or the answer ends.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held = stops, ""
        self._delivered: list[str] = []
        self.stopped = False
        """Whether a stop text has ended the answer."""

    @property
    def text(self) -> str:
        """All text that was delivered."""
        return "".join(self._delivered)

    def add(self, piece: str) -> str:
        """Add a piece of text; returns the text that this makes certain."""
        if self.stopped:
            return ""
        text = self._held + piece
        self.stopped = before_stop(text, self._stops) != text
        sure = certain(text, self._stops)
        self._held = "" if self.stopped else text[len(sure) :]
        self._delivered.append(sure)
        return sure

    def finish(self) -> str:
        """The answer is complete: returns the text that was held back for a stop text which was never completed."""
        rest, self._held = self._held, ""
        self._delivered.append(rest)
        return rest


def before_stop(text: str, stops: Sequence[str]) -> str:
    """`text` up to the stop text that is complete first, so that the result does not depend on the pieces of the text.

    Of two that end at the same character, the longer one counts.
    """
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(found)[1]] if found else text


def certain(text: str, stops: Sequence[str]) -> str:
    """The part of an unfinished text that can't become part of a stop text."""
    kept = before_stop(text, stops)
    if kept != text:
        return kept
    held = max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
    return text[: len(text) - held]


def figures(answers: Sequence[Answer], concurrent_s: float = 0.0) -> dict[str, Any]:
    """Counts and speeds of all answers. `concurrent_s`: the time for all, if they were generated concurrently, else 0.

    decode_tokens_per_s excludes the first token of an answer, which the prefill computes. For concurrent answers it is
    the rate of all of them over `concurrent_s`, prefill included.
    """
    prompt = sum(answer.prompt_tokens for answer in answers)
    completion = sum(answer.completion_tokens for answer in answers)
    prefill_s = sum(answer.prefill_s for answer in answers)
    decode_s = concurrent_s or sum(answer.decode_s for answer in answers)
    after_first = sum(max(0, answer.completion_tokens - 1) for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prefill_s": round(prefill_s, 6),
        "decode_s": round(decode_s, 6),
        "prefill_tokens_per_s": rate(prompt, prefill_s),
        "decode_tokens_per_s": rate(after_first, decode_s),
    }


def rate(count: float, seconds: float) -> float:
    """`count` per second; 0 when either is 0."""
    return round(count / seconds, 3) if count and seconds > 0 else 0.0
