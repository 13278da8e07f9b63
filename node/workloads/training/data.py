"""The training data of `ml_training`: batches generated from a seed, or taken from given data.

A batch depends only on the seed and its number, so a run that resumes on another node gets the same batches.
Generated data is unlimited and has structure to learn: patterns for the MLP (two opposite ones per class, which no
linear model separates), coloured gratings for ResNet-50, and text from a Markov source with known entropy for the
transformer. The device draws the random numbers; another type of device draws others from the same distribution.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mesh.kinds.ml_training import MlTrainingPayload
from node.executor.context import Context, InputFault

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor

#: The maximum size of unpacked arrays.
MAX_ARRAY_BYTES = 4 << 30
#: Each symbol of the generated text has four successors with these probabilities: 1.75 bits per symbol.
_SUCCESSORS = (0.5, 0.25, 0.125, 0.125)
TEXT_FLOOR = -sum(share * math.log(share) for share in _SUCCESSORS)
_ALPHABET = 64
#: Sequences of generated text that are drawn together.
_ROWS = 256
#: The norm of a pattern, under noise of standard deviation 1 in each direction, so that some samples resemble another
#: class.
_PATTERN_LENGTH = 7.0


@dataclass(frozen=True)
class Source:
    """Training data: `batch(step)` returns (inputs, targets) on the device."""

    batch: Callable[[int], tuple[Tensor, Tensor]]
    what: str
    """A one-sentence description."""
    floor: float | None = None
    """The lowest possible loss; None: unknown."""


def open_source(payload: MlTrainingPayload, context: Context, device: str) -> Source:
    """The training data of a payload. Raises: InputFault naming `data`."""
    if payload.data is None:
        generators = {"mlp": _patterns, "resnet50": _gratings, "transformer": _generated_text}
        return generators[payload.model](payload, device)
    data = context.read(payload.data, "data")
    return _given_text(payload, data, device) if payload.model == "transformer" else _arrays(payload, data, device)


def _random(device: str, *numbers: int) -> Generator:
    """A generator seeded by `numbers` alone; SplitMix64 turns similar numbers into different seeds."""
    import torch

    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & (1 << 64) - 1
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        state = (state ^ state >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
        state ^= state >> 31
    return torch.Generator(device).manual_seed(state >> 1)


# --- generated data -----------------------------------------------------------------------------------------
def _patterns(payload: MlTrainingPayload, device: str) -> Source:
    import torch

    sizes = payload.sizes
    shape = (sizes.classes, sizes.features)
    patterns = torch.randn(shape, generator=_random(device, payload.seed, 1), device=device)
    patterns *= _PATTERN_LENGTH / math.sqrt(sizes.features)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        chance = _random(device, payload.seed, 2, step)
        targets = torch.randint(sizes.classes, (sizes.batch,), generator=chance, device=device)
        signs = torch.randint(2, (sizes.batch, 1), generator=chance, device=device) * 2 - 1
        noise = torch.randn((sizes.batch, sizes.features), generator=chance, device=device)
        return signs * patterns[targets] + noise, targets

    return Source(batch, "generated from the seed: each class is one pattern and its negative, with noise")


def _gratings(payload: MlTrainingPayload, device: str) -> Source:
    import torch

    chance, classes, size = _random(device, payload.seed, 1), payload.sizes.classes, payload.sizes.image_size
    angles = torch.rand(classes, generator=chance, device=device) * math.pi
    waves = 2 * math.pi * (2 + 6 * torch.rand(classes, generator=chance, device=device))
    colours = torch.randn((classes, 3), generator=chance, device=device)
    line = torch.linspace(0, 1, size, device=device)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        chance, many = _random(device, payload.seed, 2, step), payload.sizes.batch
        targets = torch.randint(classes, (many,), generator=chance, device=device)
        phases = torch.rand(many, generator=chance, device=device) * 2 * math.pi
        across = (waves * angles.cos())[targets].view(-1, 1, 1) * line
        down = (waves * angles.sin())[targets].view(-1, 1, 1) * line.view(-1, 1)
        grating = torch.sin(across + down + phases.view(-1, 1, 1)).unsqueeze(1)
        noise = torch.randn((many, 3, size, size), generator=chance, device=device)
        return grating * colours[targets].view(-1, 3, 1, 1) + 0.5 * noise, targets

    return Source(batch, "generated from the seed: each class is a direction, a wavelength and a colour of stripes")


def _generated_text(payload: MlTrainingPayload, device: str) -> Source:
    import torch

    sizes = payload.sizes
    symbols, length = min(_ALPHABET, sizes.vocabulary), sizes.context + 1
    chance = _random("cpu", payload.seed, 1)
    order, place = (torch.randperm(symbols, generator=chance).to(device) for _ in range(2))
    tokens = torch.randperm(sizes.vocabulary, generator=chance)[:symbols].to(device)
    shares = torch.tensor(_SUCCESSORS, device=device)
    kept: tuple[int, Tensor] | None = None

    def shard(number: int) -> Tensor:
        """`_ROWS` independent sequences, drawn together."""
        chance = _random(device, payload.seed, 2, number)
        rows = torch.empty((length, _ROWS), dtype=torch.long, device=device)
        rows[0] = torch.randint(symbols, (_ROWS,), generator=chance, device=device)
        which = torch.multinomial(shares, _ROWS * length, True, generator=chance).view(length, _ROWS)
        for at in range(1, length):
            rows[at] = order[(place[rows[at - 1]] + which[at]) % symbols]
        return tokens[rows.T]

    def row(number: int) -> Tensor:
        nonlocal kept
        if kept is None or kept[0] != number // _ROWS:
            kept = number // _ROWS, shard(number // _ROWS)
        return kept[1][number % _ROWS]

    def batch(step: int) -> tuple[Tensor, Tensor]:
        drawn = torch.stack([row(step * sizes.batch + index) for index in range(sizes.batch)])
        return drawn[:, :-1], drawn[:, 1:]

    what = f"generated from the seed: text of {symbols} tokens, each followed by one of four"
    return Source(batch, what, TEXT_FLOOR)


# --- given data ---------------------------------------------------------------------------------------------
def _given_text(payload: MlTrainingPayload, data: bytes, device: str) -> Source:
    import torch

    length = payload.sizes.context
    if len(data) < length + 2:
        raise InputFault("data", f"must be longer than context: {length + 2} bytes or more, not {len(data)}")
    text = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
    offsets = torch.arange(length + 1, device=device)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        chance = _random(device, payload.seed, 2, step)
        starts = torch.randint(len(text) - length, (payload.sizes.batch, 1), generator=chance, device=device)
        drawn = text[starts + offsets].long()
        return drawn[:, :-1], drawn[:, 1:]

    return Source(batch, f"given: {len(data)} bytes of text, one token per byte")


def _arrays(payload: MlTrainingPayload, data: bytes, device: str) -> Source:
    import torch

    x, y = checked(payload, *unpacked(data))
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    count, many = len(y), payload.sizes.batch

    def order(epoch: int) -> Tensor:
        return torch.randperm(count, generator=_random("cpu", payload.seed, 2, epoch))

    known: dict[int, Tensor] = {}

    def batch(step: int) -> tuple[Tensor, Tensor]:
        """Every epoch contains each sample once, in a different order."""
        places = range(step * many, (step + 1) * many)
        for epoch in {places[0] // count, places[-1] // count} - known.keys():
            known[epoch] = order(epoch)
        for epoch in [old for old in known if old < places[0] // count]:
            del known[epoch]
        indices = torch.stack([known.setdefault(at // count, order(at // count))[at % count] for at in places])
        selected = inputs[indices]
        floats = selected.float() / 255 if selected.dtype == torch.uint8 else selected
        return floats.to(device), targets[indices].to(device)

    return Source(batch, f"given: {count} samples, each once per epoch")


def unpacked(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The arrays x and y of an .npz. Raises: InputFault when it is damaged, incomplete, pickled or too large."""
    import numpy as np

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_ARRAY_BYTES:
            raise InputFault("data", f"must be at most {MAX_ARRAY_BYTES >> 30} GiB unpacked, not {size / 2**30:.3g}")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            missing = [name for name in ("x", "y") if name not in arrays.files]
            if missing:
                raise InputFault("data", f"must contain x and y; it lacks {' and '.join(missing)}")
            return arrays["x"], arrays["y"]
    except InputFault:
        raise
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile, MemoryError) as error:
        if "pickle" in str(error).lower():
            raise InputFault("data", "contains Python objects, which may run code and are not read") from None
        raise InputFault("data", f"is not a valid .npz: {str(error)[:100] or type(error).__name__}") from None


def checked(payload: MlTrainingPayload, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """(x as uint8 or float32, y as int64). Raises: InputFault when shapes, types or values don't fit the model."""
    import numpy as np

    features, side, classes = payload.sizes.features, payload.sizes.image_size, payload.sizes.classes
    if payload.model == "mlp":
        shape, words = (features,), f"samples x {features} (features)"
    else:
        shape, words = (3, side, side), f"images x 3 x {side} x {side} (image_size)"
    if x.ndim != len(shape) + 1 or x.shape[1:] != shape or not len(x):
        raise InputFault("data", f"must have an x of shape {words}, not {x.shape}")
    if y.shape != (len(x),):
        raise InputFault("data", f"must have a y of {len(x)} classes, one for each x; its shape is {y.shape}")
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise InputFault("data", f"must have an x of floating-point numbers or uint8, not {x.dtype}")
    if not np.issubdtype(y.dtype, np.integer):
        raise InputFault("data", f"must have a y of whole numbers, not {y.dtype}")
    if y.min() < 0 or y.max() >= classes:
        raise InputFault("data", f"must have a y from 0 to {classes - 1} (classes)")
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # the next check finds values that overflow
            x = np.ascontiguousarray(x, dtype=np.float32)
        if not np.isfinite(x).all():
            raise InputFault("data", "has an x with values that are not finite numbers")
    return np.ascontiguousarray(x), y.astype(np.int64)
