"""One call of `transformers`' own `generate`: sampling as asked, tokens told, stop texts, times of its two parts."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from mesh.kinds.llm_inference import LlmInferencePayload
from node.workloads.llm.result import Answer, Told, before_stop, certain

if TYPE_CHECKING:
    import torch

#: So many tokens of an answer's end are looked at for a stop text, which has 64 characters at most.
_TAIL_TOKENS = 80


def generate(
    network: Any,
    tokenizer: Any,
    device: torch.device,
    rows: list[list[int]],
    payload: LlmInferencePayload,
    room: int,
    told: Told,
) -> list[Answer]:
    """The answers to prompts of these tokens, computed as one batch; `room`: tokens an answer has at most."""
    import torch
    import transformers

    padding = _padding(network, tokenizer)
    longest = max(map(len, rows))
    ids = torch.tensor([[padding] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    heartbeat_relay = _heartbeat_relay(tokenizer, payload, len(rows), told)
    torch.manual_seed(payload.seed)
    start = perf_counter()
    with torch.inference_mode():
        whole = network.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=min(payload.max_tokens, room),
            pad_token_id=padding,
            streamer=heartbeat_relay,
            stopping_criteria=transformers.StoppingCriteriaList([heartbeat_relay.stops]),
            **_sampling(payload),
        )
    end = perf_counter()
    first = heartbeat_relay.first_at or end
    share = 1 / len(rows)
    ends = _ends(network)
    return [
        _answer(tokenizer, payload, row, written, ends, (first - start) * share, (end - first) * share)
        for row, written in zip(rows, whole[:, longest:].tolist(), strict=True)
    ]


def _sampling(payload: LlmInferencePayload) -> dict[str, Any]:
    options: dict[str, Any] = {"repetition_penalty": payload.repeat_penalty}
    if not payload.temperature:
        # Said out loud: a model's own generation_config may ask for more.
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


def _heartbeat_relay(tokenizer: Any, payload: LlmInferencePayload, count: int, told: Told) -> Any:
    import torch
    from transformers import StoppingCriteria
    from transformers.generation import BaseStreamer

    class Stops(StoppingCriteria):
        """Says of each answer whether a stop text has come."""

        def __init__(self, start: int) -> None:
            self.start = start

        def __call__(self, ids: torch.LongTensor, scores: Any, **more: Any) -> Any:
            if not payload.stop:
                return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
            tails = ids[:, max(self.start, ids.shape[1] - _TAIL_TOKENS) :].tolist()
            found = [any(stop in text_of(tokenizer, tail) for stop in payload.stop) for tail in tails]
            return torch.tensor(found, dtype=torch.bool, device=ids.device)

    class HeartbeatRelay(BaseStreamer):
        """Hears each token as it is made: first of all the prompts themselves."""

        def __init__(self) -> None:
            self.first_at = 0.0
            self.stops = Stops(0)
            self._ids: list[list[int]] = [[] for _ in range(count)]
            self._said = [0] * count

        def put(self, value: torch.Tensor) -> None:
            if not self.stops.start:
                self.stops.start = value.shape[-1]
                return
            self.first_at = self.first_at or perf_counter()
            for index, token in enumerate(value.reshape(-1).tolist()):
                self._ids[index].append(token)
                self._tell(index)

        def _tell(self, index: int) -> None:
            # A character may be made of several tokens: what ends with half of one waits for the rest.
            text = text_of(tokenizer, self._ids[index])
            if text.endswith("\N{REPLACEMENT CHARACTER}"):
                text = text[: self._said[index]]
            text = certain(text, payload.stop)
            told.piece(index, text[self._said[index] :])
            self._said[index] = max(self._said[index], len(text))

        def end(self) -> None:
            """Nothing is left to tell."""

    return HeartbeatRelay()


def text_of(tokenizer: Any, ids: list[int]) -> str:
    """The words of tokens; random weights have none, and get letters."""
    if tokenizer is None:
        return "".join(chr(97 + one % 26) for one in ids)
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
