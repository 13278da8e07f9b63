"""Runs `generate` of `transformers` with the payload's sampling, streaming, stop texts and timing."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from mesh.kinds.llm_inference import LlmInferencePayload
from node.executor.context import CertainFailure
from node.workloads.llm.result import Answer, Progress, before_stop, certain

if TYPE_CHECKING:
    import torch

#: How many of an answer's last tokens are searched for a stop text, which has at most 64 characters.
_TAIL_TOKENS = 80


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
    streamer = _streamer(tokenizer, payload, len(rows), progress)
    torch.manual_seed(payload.seed)
    start = perf_counter()
    with torch.inference_mode():
        whole = network.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=min(payload.max_tokens, room),
            pad_token_id=padding,
            streamer=streamer,
            logits_processor=transformers.LogitsProcessorList([_finite]),
            stopping_criteria=transformers.StoppingCriteriaList([streamer.stops]),
            **_sampling(payload),
        )
    end = perf_counter()
    first = streamer.first_at or end
    share = 1 / len(rows)
    ends = _ends(network)
    return [
        _answer(tokenizer, payload, row, written, ends, (first - start) * share, (end - first) * share)
        for row, written in zip(rows, whole[:, longest:].tolist(), strict=True)
    ]


def _finite(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """`scores`, unchanged. Raises: CertainFailure when one is not a number: any token would be as likely as another."""
    if scores.isnan().any():
        raise CertainFailure(f"the model computes values that are not numbers (NaN) after {ids.shape[1]} tokens")
    return scores


def _sampling(payload: LlmInferencePayload) -> dict[str, Any]:
    options: dict[str, Any] = {"repetition_penalty": payload.repeat_penalty}
    if not payload.temperature:
        # Explicit, since the model's generation_config may ask for sampling.
        return options | {"do_sample": False, "num_beams": 1, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
    return options | {
        "do_sample": True,
        "num_beams": 1,
        "temperature": payload.temperature,
        "top_p": payload.top_p,
        "top_k": payload.top_k,
        "min_p": payload.min_p,
    }


def _padding(network: Any, tokenizer: Any) -> int:
    found = getattr(tokenizer, "pad_token_id", None)
    return found if found is not None else min(_ends(network), default=0)


def _ends(network: Any) -> set[int]:
    """The tokens that end an answer."""
    found = network.generation_config.eos_token_id
    return set(found if isinstance(found, list) else [found]) - {None}


def _streamer(tokenizer: Any, payload: LlmInferencePayload, count: int, progress: Progress) -> Any:
    """A streamer of `count` answers; its attribute `stops` is the criterion for stop texts."""
    import torch
    from transformers import StoppingCriteria
    from transformers.generation import BaseStreamer

    class Stops(StoppingCriteria):
        """Returns for each answer whether it contains a stop text."""

        def __init__(self, start: int) -> None:
            self.start = start

        def __call__(self, ids: torch.LongTensor, scores: Any, **more: Any) -> Any:
            if not payload.stop:
                return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
            tails = ids[:, max(self.start, ids.shape[1] - _TAIL_TOKENS) :].tolist()
            found = [any(stop in text_of(tokenizer, tail) for stop in payload.stop) for tail in tails]
            return torch.tensor(found, dtype=torch.bool, device=ids.device)

    class Streamer(BaseStreamer):
        """Receives the prompts, then every generated token."""

        def __init__(self) -> None:
            self.first_at = 0.0
            self.stops = Stops(0)
            self._ids: list[list[int]] = [[] for _ in range(count)]
            self._reported = [0] * count

        def put(self, value: torch.Tensor) -> None:
            if not self.stops.start:
                self.stops.start = value.shape[-1]
                return
            self.first_at = self.first_at or perf_counter()
            for index, token in enumerate(value.reshape(-1).tolist()):
                self._ids[index].append(token)
                self._report(index)

        def _report(self, index: int) -> None:
            # A character may consist of several tokens: an incomplete one is reported with its last token.
            text = text_of(tokenizer, self._ids[index])
            if text.endswith("\N{REPLACEMENT CHARACTER}"):
                text = text[: self._reported[index]]
            text = certain(text, payload.stop)
            progress.add(index, text[self._reported[index] :])
            self._reported[index] = max(self._reported[index], len(text))

        def end(self) -> None:
            """Required by the base class; all text is reported already."""

    return Streamer()


def text_of(tokenizer: Any, ids: list[int]) -> str:
    """The text of tokens. Models with random weights have no tokenizer: each token becomes a letter."""
    if tokenizer is None:
        return "".join(chr(97 + token % 26) for token in ids)
    return tokenizer.decode(ids, skip_special_tokens=True)


def _answer(
    tokenizer: Any,
    payload: LlmInferencePayload,
    row: list[int],
    written: list[int],
    ends: set[int],
    prefill_s: float,
    decode_s: float,
) -> Answer:
    ended = next((at for at, token in enumerate(written) if token in ends), None)
    count = len(written) if ended is None else ended + 1
    text = text_of(tokenizer, written[: count if ended is None else ended])
    kept = before_stop(text, payload.stop)
    reason = "stop" if ended is not None or kept != text else "length"
    return Answer(kept, reason, len(row), count, prefill_s, decode_s)
