"""The llama.cpp back end: GGUF models in `xllamacpp`, whose server runs in this process and is called directly.

The server always opens an HTTP listener. It gets a socket file in the task's folder instead of a port, and a random API
key that is not kept; the file is removed as soon as the server has started.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from mesh.kinds.llm_inference import DEFAULT_CONTEXT, PACKAGE_MODEL, LlmInferencePayload
from node.executor.context import Context, InputFault
from node.probes.models import Model
from node.workloads.common.machine_errors import machine_error
from node.workloads.llm import cache
from node.workloads.llm.gguf import Head, read_head
from node.workloads.llm.prompts import PLAIN_CHAT, field_of, no_template, refused
from node.workloads.llm.result import Answer, Progress, Writing

#: Maximum number of prompts of a batch that are answered concurrently.
SLOTS = 4
_BATCH = 512
#: llama.cpp rounds the context length up to a multiple of this many tokens.
_CONTEXT_STEP = 256
_LIBRARY_BYTES = 64 << 20


@lru_cache
def _head(path: Path, changed_ns: int) -> Head:
    return read_head(path)


def load_model(model: Model, payload: LlmInferencePayload, context: Context) -> tuple[LlamaModel, float]:
    """(the model, seconds that loading took; 0 if it was loaded). Raises: InputFault, ModelUnavailable."""
    try:
        changed_ns = model.path.stat().st_mtime_ns
        head = _head(model.path, changed_ns)
    except (ValueError, OSError) as error:
        raise InputFault("model", f"is not a readable GGUF file: {error}") from None
    room, slots = context_of(head, payload.context), min(SLOTS, len(payload.prompts or (0,)))
    on_gpu = payload.device == "auto" and has_gpu()
    key = ("llama.cpp", model.path, changed_ns, room, context.cores, on_gpu)
    loaded = cache.have(lambda other: other[:-1] == key and other[-1] >= slots)
    if loaded is not None:
        return loaded, 0.0
    return cache.load(
        (*key, slots),
        lambda: LlamaModel(model, head, room, slots, context.cores, on_gpu),
        need_bytes(head, room, slots),
        context.memory_mb,
    )


class LlamaModel:
    """A loaded model. `need_bytes` estimates its memory: weights, attention cache, buffers."""

    weights = "trained"

    def __init__(self, model: Model, head: Head, context: int, slots: int, threads: int, on_gpu: bool) -> None:
        self.context, self.slots, self.concurrent = context, slots, slots > 1
        self.parameters, self.weight_bytes = head.parameters, head.weight_bytes
        self.need_bytes = need_bytes(head, context, slots)
        self._server = _serve(model, context * slots, slots, threads, on_gpu)
        self.device = device(on_gpu)
        self.dtype = _type_name(head.tensor_type)
        self._chat = head.chat

    def close(self) -> None:
        """Free its memory."""
        self._server = None

    def answer(self, payload: LlmInferencePayload, progress: Progress) -> list[Answer]:
        """One answer per prompt. Raises: InputFault when a prompt is longer than the context."""
        prompts = payload.prompts or (payload.prompt or "",)
        chats: list[Any] = [payload.messages] if payload.messages else list(prompts)
        with ThreadPoolExecutor(min(self.slots, len(chats))) as pool:
            return list(pool.map(partial(self._answer, payload, progress), range(len(chats)), chats))

    def _answer(self, payload: LlmInferencePayload, progress: Progress, index: int, chat: Any) -> Answer:
        request = _options(payload, index) | {"repeat_last_n": self.context}
        handle: Callable[..., None]
        if isinstance(chat, tuple) and not self._chat:
            raise no_template()
        if isinstance(chat, tuple):
            request["messages"], handle = [turn.model_dump() for turn in chat], self._server.handle_chat_completions
        elif self._chat and not payload.raw:
            request["messages"] = [{"role": "user", "content": chat}]
            handle = self._server.handle_chat_completions
        else:
            request["prompt"], handle = chat, self._server.handle_completions
        response = _Response(payload, index, progress)
        try:
            handle(request, response.add)
        except (ValueError, RuntimeError) as error:  # the chat template refuses these messages
            raise machine_error(error) or refused(payload, str(error)) from None
        return response.answer()


class _Response:
    """Collects the server's response to one request, chunk by chunk.

    It finds the stop texts itself: at the end of an answer llama.cpp does not deliver what it holds back for one.
    """

    def __init__(self, payload: LlmInferencePayload, index: int, progress: Progress) -> None:
        self._payload, self._index, self._progress = payload, index, progress
        self._writing = Writing(payload.stop)
        self._error: dict[str, Any] | None = None
        self._last: dict[str, Any] = {}
        self._reason = ""

    def add(self, chunk: dict[str, Any]) -> bool:
        """Add a chunk; returns True to end the response."""
        if "error" in chunk:
            self._error = chunk["error"]
            return True
        for choice in chunk.get("choices", ()):
            piece = choice.get("text") or (choice.get("delta") or {}).get("content")
            if piece:
                self._progress.add(self._index, self._writing.add(piece))
            self._reason = "stop" if self._writing.stopped else choice.get("finish_reason") or self._reason
        if "timings" in chunk:
            self._last = chunk
        return self._writing.stopped

    def answer(self) -> Answer:
        """The complete answer. Raises: InputFault or RuntimeError for an error of the server."""
        if self._error is not None:
            self._refuse(self._error)
        if rest := self._writing.finish():
            self._progress.add(self._index, rest, 0)
        timings, usage = self._last.get("timings", {}), self._last.get("usage", {})
        return Answer(
            self._writing.text,
            self._reason or "length",
            usage.get("prompt_tokens", timings.get("prompt_n", 0)),
            usage.get("completion_tokens", timings.get("predicted_n", 0)),
            timings.get("prompt_ms", 0.0) / 1000,
            timings.get("predicted_ms", 0.0) / 1000,
        )

    def _refuse(self, error: dict[str, Any]) -> None:
        if error.get("type") == "exceed_context_size_error":
            raise InputFault(
                field_of(self._payload),
                f"has {error.get('n_prompt_tokens')} tokens, more than the context of {error.get('n_ctx')}: shorten "
                "it, or increase context if the model supports that",
            )
        if error.get("code") == 400:
            raise refused(self._payload, str(error.get("message")))
        raise RuntimeError(f"llama.cpp failed: {error.get('message')}")


def _options(payload: LlmInferencePayload, index: int) -> dict[str, Any]:
    return {
        "max_tokens": payload.max_tokens,
        "temperature": payload.temperature,
        "top_p": payload.top_p,
        "top_k": payload.top_k,
        "min_p": payload.min_p,
        "repeat_penalty": payload.repeat_penalty,
        "timings_per_token": bool(payload.stop),  # the last ones, when a stop text ends the answer
        "seed": payload.seed + index,
        "stream": True,
        "stream_options": {"include_usage": True},
        # With the cached prompt of an earlier task, the measured speed would be wrong and the answer not reproducible.
        "cache_prompt": False,
        "reasoning_format": "none",
    }


def context_of(head: Head, requested: int | None) -> int:
    """The context length in tokens, rounded up as llama.cpp does. `requested`: None for the default.

    Raises: InputFault when `requested` exceeds the model's maximum.
    """
    if requested is None:
        requested = min(head.context, DEFAULT_CONTEXT)
    if requested > head.context:
        raise InputFault("context", f"is {requested}, and the model's maximum is {head.context}")
    return -(-requested // _CONTEXT_STEP) * _CONTEXT_STEP


def need_bytes(head: Head, context: int, slots: int) -> int:
    """Estimated memory of a model; all weights count, since llama.cpp repacks most instead of using the mapped file."""
    return head.weight_bytes + head.cache_bytes * context * slots + _BATCH * head.vocabulary * 4 + _LIBRARY_BYTES


def has_gpu() -> bool:
    """Return whether the installed llama.cpp can use a GPU of this machine. Raises: ImportError."""
    return any("GPU" in info["type"].name for info in _library().get_device_info())


def device(on_gpu: bool) -> str:
    """The name of the device: "cpu" or that of the GPU."""
    if not on_gpu:
        return "cpu"
    return next(info["description"] for info in _library().get_device_info() if "GPU" in info["type"].name)


def _library() -> Any:
    """The module `xllamacpp`, untyped: it is a C extension without stubs. Raises: ImportError."""
    import xllamacpp

    return xllamacpp


def _type_name(number: int) -> str:
    return _library().ggml_type(number).name.removeprefix("GGML_TYPE_")


def _serve(model: Model, context: int, slots: int, threads: int, on_gpu: bool) -> Any:
    """A llama.cpp server with the model loaded. Raises: InputFault when it can't load it."""
    # A worker sets this in its environment (`node.executor.limits.clean_environment`); other callers don't.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    library = _library()
    params = library.CommonParams()
    params.model.path = str(model.path)
    params.n_ctx, params.n_parallel, params.n_batch, params.n_ubatch = context, slots, _BATCH, _BATCH
    for pool in (params.cpuparams, params.cpuparams_batch):
        pool.n_threads, pool.poll = threads, 0
    params.n_gpu_layers = -1 if on_gpu else 0
    params.fit_params = on_gpu
    params.cache_ram_mib, params.n_ctx_checkpoints, params.ui = 0, 0, False
    params.offline, params.endpoint_slots, params.verbosity = True, False, 1
    params.n_threads_http, params.api_keys = 1, [secrets.token_hex(32)]
    if model.name == PACKAGE_MODEL:
        params.chat_template = PLAIN_CHAT
    # Relative, because the path of a socket has at most 108 characters; hidden, so that nothing lists it.
    socket = Path(f".llama-{secrets.token_hex(4)}.sock")
    params.hostnames = [str(socket)]
    with _own_signals():
        try:
            return library.Server(params)
        except RuntimeError:
            raise InputFault(
                "model", "can't be loaded by llama.cpp: the file is damaged, incomplete or of an unsupported type"
            ) from None
        finally:
            socket.unlink(missing_ok=True)


@contextmanager
def _own_signals() -> Generator[None, None, None]:
    """Restore the handlers of SIGINT and SIGTERM, which llama.cpp replaces."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
