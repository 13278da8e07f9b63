"""The PyTorch back end: safetensors and GGUF through `AutoModelForCausalLM`, and models with random weights.

It downloads nothing and runs no code that a model contains.
"""

from __future__ import annotations

import json
import os
import struct
from math import prod
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mesh.kinds.llm_inference import DEFAULT_CONTEXT, PACKAGE_MODEL, LlmInferencePayload
from node.executor.context import Context, InputFault
from node.probes.models import Model
from node.workloads.common.machine_errors import machine_error
from node.workloads.llm import cache
from node.workloads.llm.models import ModelUnavailable, check_folder
from node.workloads.llm.prompts import PLAIN_CHAT, chat_text, chat_tokens, field_of, no_template
from node.workloads.llm.result import Answer, Progress
from node.workloads.llm.shapes import Shape, shape_of

if TYPE_CHECKING:
    import torch

#: Memory of PyTorch and transformers, and of the activations of a pass through the model.
_LIBRARY_BYTES = 600 << 20
_CPU_HAS_BF16 = ("avx512_bf16", "amx_bf16", "bf16")


def load_model(model: Model, payload: LlmInferencePayload, context: Context) -> tuple[TorchModel, float]:
    """(the model, seconds that loading took; 0 if it was loaded). Raises: InputFault, ModelUnavailable."""
    on_cpu = payload.device == "cpu"
    key = ("torch", model.path, model.name, _changed_ns(model), on_cpu)
    start = perf_counter()
    loaded = cache.have(lambda other: other == key)
    if loaded is not None:
        loaded.prepare(payload, context.cores)
        return loaded, 0.0
    # Check the memory before the import of PyTorch, which takes two seconds.
    parameters = _parameters(model)
    device, dtype_bytes = ("cpu", 2 if cpu_has_bf16() else 4) if _no_gpu_here(on_cpu) else ("", 2)
    need_bytes = parameters * dtype_bytes + _LIBRARY_BYTES
    loaded, _ = cache.load(
        key, lambda: _load(model, on_cpu, context.cores), need_bytes if device else _LIBRARY_BYTES, context.memory_mb
    )
    loaded.need_bytes = need_bytes
    loaded.prepare(payload, context.cores)
    return loaded, perf_counter() - start


def _load(model: Model, on_cpu: bool, threads: int) -> TorchModel:
    # The libraries read these when they are imported: they never contact a hub.
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    device, dtype = place(on_cpu)
    if model.format == "random":
        shape = shape_of(model.name)
        return TorchModel(_random(shape, device, dtype), None, device, shape.context, "random")
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if model.format == "gguf":
        folder, options["gguf_file"] = model.path.parent, model.path.name
    else:
        folder, options["use_safetensors"] = model.path, True
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            folder, **{name: value for name, value in options.items() if name != "use_safetensors"}
        )
        network, found = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, **options
        )
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelUnavailable(f"transformers needs a library for this model: {reason}") from None
    except Exception as error:  # `tokenizers` raises plain Exception
        if (problem := machine_error(error)) is not None:
            raise problem from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise InputFault("model", f"can't be loaded by transformers: {reason}") from None
    if model.name == PACKAGE_MODEL:
        tokenizer.chat_template = PLAIN_CHAT
    # transformers would silently initialise missing weights at random.
    if gaps := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
        raise InputFault("model", f"lacks {len(gaps)} of the weights in its config.json, such as {gaps[0]}")
    network.to(device).eval()
    room = getattr(network.config, "max_position_embeddings", None) or DEFAULT_CONTEXT
    return TorchModel(network, tokenizer, device, room, "trained")


class TorchModel:
    """A loaded model, which computes several prompts as one batch."""

    concurrent = False

    def __init__(self, network: Any, tokenizer: Any, device: torch.device, room: int, weights: str) -> None:
        self._network, self._tokenizer, self._device, self._room = network, tokenizer, device, room
        self.weights, self.need_bytes = weights, 0
        self.parameters = sum(part.numel() for part in network.parameters())
        self.weight_bytes = sum(part.numel() * part.element_size() for part in network.parameters())
        self.dtype = str(network.dtype).removeprefix("torch.")
        self.device, self.context = _device_name(device), min(room, DEFAULT_CONTEXT)

    def close(self) -> None:
        """Free its memory."""
        self._network = self._tokenizer = None

    def prepare(self, payload: LlmInferencePayload, threads: int) -> None:
        """Set threads and context length for the next task. Raises: InputFault when the context is too long."""
        import torch

        torch.set_num_threads(threads)
        if payload.context is not None and payload.context > self._room:
            raise InputFault("context", f"is {payload.context}, and the model's maximum is {self._room}")
        self.context = payload.context or min(self._room, DEFAULT_CONTEXT)

    def answer(self, payload: LlmInferencePayload, progress: Progress) -> list[Answer]:
        """One answer per prompt. Raises: InputFault when a prompt is longer than the context."""
        from node.workloads.llm.generate import generate

        rows = self._rows(payload)
        longest = max(map(len, rows))
        if longest >= self.context:
            raise InputFault(
                field_of(payload),
                f"has {longest} tokens, and the context of {self.context} must also hold the answer: shorten it, or "
                "increase context if the model supports that",
            )
        return generate(self._network, self._tokenizer, self._device, rows, payload, self.context - longest, progress)

    def _rows(self, payload: LlmInferencePayload) -> list[list[int]]:
        """The tokens of each prompt."""
        prompts = list(payload.prompts or (payload.prompt or "",))
        if self._tokenizer is None:
            # Models with random weights have no tokenizer: each byte is a token.
            texts = ["\n".join(turn.content for turn in payload.messages)] if payload.messages else prompts
            return [list(text.encode()) for text in texts]
        has_template = bool(getattr(self._tokenizer, "chat_template", None))
        if payload.messages and not has_template:
            raise no_template()
        if payload.messages:
            chats = [[turn.model_dump() for turn in payload.messages]]
        elif has_template and not payload.raw:
            chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        else:
            return [self._tokenizer(prompt)["input_ids"] for prompt in prompts]
        return [chat_tokens(self._tokenizer, chat_text(self._tokenizer, chat, payload)) for chat in chats]


def place(on_cpu: bool) -> tuple[torch.device, torch.dtype]:
    """(the device, the fastest number type on it)"""
    import torch

    if not on_cpu and torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    if not on_cpu and torch.backends.mps.is_available():
        return torch.device("mps"), torch.float16
    return torch.device("cpu"), torch.bfloat16 if cpu_has_bf16() else torch.float32


def cpu_has_bf16() -> bool:
    """Return whether the processor has bfloat16 instructions; without them bfloat16 is slower than float32."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return any(name in flags.split() for name in _CPU_HAS_BF16)


def _no_gpu_here(on_cpu: bool) -> bool:
    if on_cpu:
        return True
    signs = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg", "/System/Library/Frameworks/Metal.framework")
    return not any(map(os.path.exists, signs))


def _device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _changed_ns(model: Model) -> int:
    return 0 if model.format == "random" else model.path.stat().st_mtime_ns


def _parameters(model: Model) -> int:
    """The number of parameters according to the headers of the model's files. Raises: InputFault."""
    if model.format == "random":
        return shape_of(model.name).parameters
    if model.format == "gguf":
        from node.workloads.llm.gguf import read_head

        try:
            return read_head(model.path).parameters
        except (ValueError, OSError) as error:
            raise InputFault("model", f"is not a readable GGUF file: {error}") from None
    return sum(map(_numbers_in, check_folder(model.path)))


def _numbers_in(file: Path) -> int:
    """The number of weights in a safetensors file. Raises: InputFault."""
    try:
        with open(file, "rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(file.stat().st_size, 100 << 20):
                raise ValueError("it is truncated")
            head = json.loads(opened.read(length))
        shapes = [entry["shape"] for name, entry in head.items() if name != "__metadata__"]
        ends = [entry["data_offsets"][1] for name, entry in head.items() if name != "__metadata__"]
        if 8 + length + max(ends, default=0) > file.stat().st_size:
            raise ValueError("it is truncated")
        return sum(prod(shape) for shape in shapes)
    except (OSError, ValueError, struct.error, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputFault("model", f"has a damaged safetensors file ({file.name}): {error}") from None


def _random(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    """A Llama of this shape with random weights, small as in an untrained network, so that nothing overflows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=shape.width, intermediate_size=shape.inner, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.cache_heads, vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied, max_position_embeddings=shape.context,
    )  # fmt: skip
    with torch.device("meta"):
        network: Any = LlamaForCausalLM(config)
    network = network.to(dtype).to_empty(device=device)
    network.tie_weights()
    # Not a weight: computed from the configuration, and lost with the tensors on the meta device.
    network.model.rotary_emb = type(network.model.rotary_emb)(config).to(device)
    source = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(device=device, dtype=dtype)
    with torch.no_grad():
        for name, part in network.named_parameters():
            flat = part.view(-1)
            if "norm" in name:
                flat.fill_(1)
                continue
            # Repeat one random block, at the speed of memory: drawing 7 billion numbers takes minutes.
            for start in range(0, flat.numel(), source.numel()):
                piece = flat[start : start + source.numel()]
                piece.copy_(source[: piece.numel()])
    return network.eval()
