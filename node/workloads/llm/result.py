"""What a back end says of an answer, how it tells of it while it writes, and the result that is made of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One prompt's answer. Times in seconds; of a batch that is computed as one, this answer's share."""

    text: str
    finish_reason: str
    """stop: the model was done, or a stop text came; length: max_tokens, or the context, were used up"""
    prompt_tokens: int
    completion_tokens: int
    prefill_s: float
    decode_s: float

    def as_dict(self) -> dict[str, Any]:
        """What a result says of it."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }


class Told:
    """Tells of the text as it comes; pieces may come from several threads."""

    def __init__(self, progress: Callable[..., None], count: int, max_tokens: int) -> None:
        self._progress, self._most = progress, count * max_tokens
        self._texts = [""] * count
        self._pieces = 0
        self._lock = threading.Lock()

    def piece(self, index: int, text: str, tokens: int = 1) -> None:
        """`text` goes on the end of answer `index`."""
        with self._lock:
            self._texts[index] += text
            self._pieces += tokens
            together = "\n\n".join(one for one in self._texts if one)
            self._progress(min(0.99, self._pieces / self._most), text=together)


def before_stop(text: str, stops: Sequence[str]) -> str:
    """`text` as far as the first of `stops`."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def certain(text: str, stops: Sequence[str]) -> str:
    """What can be told of a text that goes on: not an end that may turn out to be the beginning of a stop."""
    kept = before_stop(text, stops)
    if kept != text:
        return kept
    held = max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
    return text[: len(text) - held]


def figures(answers: Sequence[Answer], together_s: float = 0.0) -> dict[str, Any]:
    """Counts and speeds of all answers; `together_s`: how long they took when several were written side by side.

    decode_tokens_per_s does not count an answer's first token, which comes with the prompt. Of answers that were
    written side by side it is what all of them got in the whole time, reading the prompts included.
    """
    prompt, written = sum(one.prompt_tokens for one in answers), sum(one.completion_tokens for one in answers)
    prefill_s = sum(one.prefill_s for one in answers)
    decode_s = together_s or sum(one.decode_s for one in answers)
    after_first = sum(max(0, one.completion_tokens - 1) for one in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "prefill_s": round(prefill_s, 6),
        "decode_s": round(decode_s, 6),
        "prefill_tokens_per_s": rate(prompt, prefill_s),
        "decode_tokens_per_s": rate(after_first, decode_s),
    }


def rate(count: float, seconds: float) -> float:
    """`count` a second; 0 when there was nothing to time."""
    return round(count / seconds, 3) if count and seconds > 0 else 0.0
