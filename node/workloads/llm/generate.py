"""Runs `generate` of `transformers` with the payload's sampling, streaming, stop texts and timing.

Sampling has the order of llama.cpp, so that a payload means the same in both back ends: repeat penalty, top_k, top_p
and min_p on the model's own distribution, and the temperature last. `transformers` would apply the temperature first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mesh.kinds.llm_inference import LlmInferencePayload
from node.executor.context import CertainFailure
from node.workloads.llm.result import Answer, Progress, Writing

if TYPE_CHECKING:
    import torch

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def generate(
    network: Any,
    tokenizer: Any,
    device: torch.device,
    rows: list[list[int]],
    payload: LlmInferencePayload,
    room: int,
    progress: Progress,
) -> list[Answer]:
    """The answers to prompts, computed as one batch. `rows`: the tokens of each; `room`: the longest answer, tokens."""
    import torch
    import transformers

    padding = _padding(network, tokenizer)
    longest = max(map(len, rows))
    ids = torch.tensor([[padding] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    written = [_Row(tokenizer, payload, _ends(network), partial(progress.add, index)) for index in range(len(rows))]
    watch = _watch(written)
    torch.manual_seed(payload.seed)
    start = perf_counter()
    with torch.inference_mode():
        network.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=min(payload.max_tokens, room),
            pad_token_id=padding,
            logits_processor=_processors(payload),
            stopping_criteria=transformers.StoppingCriteriaList([watch]),
            repetition_penalty=payload.repeat_penalty,
            # Explicit, since the model's generation_config may ask for something else.
            **{"num_beams": 1, "do_sample": bool(payload.temperature)},
            **{"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": None},
        )
    end = perf_counter()
    first = watch.first_at or end
    share = 1 / len(rows)
    return [
        row.answer(len(prompt), (first - start) * share, (end - first) * share)
        for row, prompt in zip(written, rows, strict=True)
    ]


def _processors(payload: LlmInferencePayload) -> Any:
    """What changes the scores of the next token, after the repeat penalty."""
    import transformers

    processors: list[Any] = [_finite]
    if payload.temperature:
        if payload.top_k:
            processors.append(transformers.TopKLogitsWarper(payload.top_k))
        if payload.top_p < 1:
            processors.append(transformers.TopPLogitsWarper(payload.top_p))
        if payload.min_p:
            processors.append(transformers.MinPLogitsWarper(payload.min_p))
        processors.append(transformers.TemperatureLogitsWarper(payload.temperature))
    return transformers.LogitsProcessorList(processors)


def _finite(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """`scores`, unchanged. Raises: CertainFailure when one is not a number: any token would be as likely as another."""
    if scores.isnan().any():
        raise CertainFailure(f"the model computes values that are not numbers (NaN) after {ids.shape[1]} tokens")
    return scores


def _padding(network: Any, tokenizer: Any) -> int:
    found = getattr(tokenizer, "pad_token_id", None)
    return found if found is not None else min(_ends(network), default=0)


def _ends(network: Any) -> set[int]:
    """The tokens that end an answer."""
    found = network.generation_config.eos_token_id
    return set(found if isinstance(found, list) else [found]) - {None}


class _Row:
    """One answer of a batch while it is generated."""

    def __init__(
        self, tokenizer: Any, payload: LlmInferencePayload, ends: set[int], report: Callable[[str], None]
    ) -> None:
        self._tokenizer, self._ends, self._report = tokenizer, ends, report
        self._writing = Writing(payload.stop)
        self._ids: list[int] = []
        self._taken = 0
        """Length of the text that `_writing` has."""
        self._tokens = 0
        self.ended = False
        """By an end token or a stop text; what `generate` appends to the row after that is padding."""

    def add(self, token: int) -> None:
        """Add the next token."""
        if self.ended:
            return
        self._tokens += 1
        if token in self._ends:
            self.ended = True
            return
        self._ids.append(token)
        text = whole_characters(self._tokenizer, self._ids)
        self._report(self._writing.add(text[self._taken :]))
        self._taken = max(self._taken, len(text))
        self.ended = self._writing.stopped

    def answer(self, prompt_tokens: int, prefill_s: float, decode_s: float) -> Answer:
        """The complete answer."""
        if rest := self._writing.finish():
            self._report(rest)
        reason = "stop" if self.ended else "length"
        return Answer(self._writing.text, reason, prompt_tokens, self._tokens, prefill_s, decode_s)


def _watch(rows: Sequence[_Row]) -> Any:
    """A criterion that gives every new token to its row and ends the rows that have ended."""
    import torch
    from transformers import StoppingCriteria

    class Watch(StoppingCriteria):
        first_at = 0.0

        def __call__(self, ids: torch.LongTensor, scores: Any, **more: Any) -> Any:
            self.first_at = self.first_at or perf_counter()
            for row, token in zip(rows, ids[:, -1].tolist(), strict=True):
                row.add(token)
            return torch.tensor([row.ended for row in rows], dtype=torch.bool, device=ids.device)

    return Watch()


def whole_characters(tokenizer: Any, ids: list[int]) -> str:
    """The text of tokens without the character at its end that is not complete yet: one may take several tokens."""
    text = text_of(tokenizer, ids)
    if not text.endswith(_REPLACEMENT):
        return text
    # Decoders write this character in place of an incomplete one; the model may also have written it itself.
    itself = tokenizer(_REPLACEMENT, add_special_tokens=False)["input_ids"]
    return text if itself and ids[-len(itself) :] == itself else text[:-1]


def text_of(tokenizer: Any, ids: list[int]) -> str:
    """The text of tokens. Models with random weights have no tokenizer: each token becomes a letter."""
    if tokenizer is None:
        return "".join(chr(97 + token % 26) for token in ids)
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
