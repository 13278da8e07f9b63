"""The weights of a training as a file: written at the end, and read to start the next training.

The format is safetensors, which holds numbers only. A file comes from another node or person: nothing else is read, and
its names, shapes and types are compared with those of the model before any weight is loaded.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.errors import BadInput, Fault, bad_input
from mesh.kinds.faults import MAX_FAULTS
from mesh.kinds.ml_training import MlTrainingPayload
from node.executor.context import Context

if TYPE_CHECKING:
    from torch import nn

FIELD = "payload.start_from"
WEIGHTS, METRICS = "weights.safetensors", "metrics.csv"
#: The first bytes of what `torch.save` and `pickle` write.
_PICKLES = (b"PK\x03\x04", *(bytes((0x80, protocol)) for protocol in range(2, 6)))
_MOST_STEPS = 1 << 40
_FLOATS = ("F16", "BF16", "F32", "F64")


def write_weights(model: nn.Module, payload: MlTrainingPayload, steps: int, file: Path) -> None:
    """Write the weights under the names of the model's state. Metadata: format, model, sizes, steps (all together)."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    sizes = {name: size for name, size in vars(payload.sizes).items() if size and name != "batch"}
    save_file(tensors, file, {"format": "pt", "model": payload.model, "sizes": json.dumps(sizes), "steps": str(steps)})


def write_metrics(losses: Sequence[float], before: int, file: Path) -> None:
    """Write the loss of every step as CSV with the columns step and loss. `before`: steps of earlier trainings."""
    with open(file, "w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(("step", "loss"))
        writer.writerows((before + step, repr(loss)) for step, loss in enumerate(losses, 1))


class Start:
    """The weights from which a training starts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.steps = 0
        """How many steps they were trained, according to the file."""

    def load_into(self, model: nn.Module) -> None:
        """Replace the weights of `model`. Raises: BadInput with every fault; the model is unchanged then."""
        import torch
        from safetensors import SafetensorError, safe_open

        state = model.state_dict()
        expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
        whole = {name for name, tensor in state.items() if not tensor.is_floating_point()}
        try:
            with safe_open(self._file, "pt") as opened:
                found = {name: _header(opened, name) for name in opened.keys()}  # noqa: SIM118  it is no mapping
                _refuse(misfits(expected, whole, found))
                self.steps = steps_in(opened.metadata() or {})
                loaded = {name: opened.get_tensor(name) for name in expected}
        except (SafetensorError, OSError, ValueError) as error:
            raise self._unreadable(error) from None
        _refuse(
            [
                f"has values in {name} that are not finite numbers"
                for name in expected
                if not loaded[name].isfinite().all()
            ]
        )
        with torch.no_grad():
            for name, tensor in state.items():
                tensor.copy_(loaded[name])

    def _unreadable(self, error: Exception) -> BadInput:
        with open(self._file, "rb") as opened:
            is_pickled = opened.read(4).startswith(_PICKLES)
        if is_pickled:
            return _refusal(["is pickled, as torch.save does it, which can run code and is not read; send safetensors"])
        return _refusal([f"is no valid safetensors file: {str(error).partition(chr(10))[0][:150]}"])


def start_of(payload: MlTrainingPayload, context: Context) -> Start | None:
    """The weights that the payload names; None: there are none. Raises: InputFault for a blob that does not exist."""
    if payload.start_from is None:
        return None
    path = None if isinstance(payload.start_from, bytes) else context.blobs.get(payload.start_from.blob)
    if path is None:
        path = context.folder / "start.safetensors"
        path.write_bytes(context.read(payload.start_from, "start_from"))
    return Start(path)


def misfits(
    expected: Mapping[str, tuple[int, ...]], whole: set[str], found: Mapping[str, tuple[tuple[int, ...], str]]
) -> list[str]:
    """Why weights don't fit a model, one phrase for each name; empty when they fit (pure).

    `expected`: name -> shape; `whole`: the names of whole numbers; `found`: name -> (shape, type in safetensors).
    """
    problems = []
    for name, shape in expected.items():
        if name not in found:
            problems.append(f"lacks {name} ({_words(shape)})")
            continue
        given, kind = found[name]
        if given != shape:
            problems.append(f"has {name} of shape {_words(given)}, and the model's is {_words(shape)}")
        elif (kind not in _FLOATS) is not (name in whole):
            problems.append(f"has {name} of type {kind}, and the model's is {'I64' if name in whole else 'F32'}")
    problems += [f"has {name[:100]!r}, which the model lacks" for name in found if name not in expected]
    return problems


def steps_in(metadata: Mapping[str, str]) -> int:
    """The number of steps according to the metadata of a file; 0 when they hold none (pure)."""
    text = metadata.get("steps", "")
    steps = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
    return steps if steps < _MOST_STEPS else 0


def _header(opened: Any, name: str) -> tuple[tuple[int, ...], str]:
    part = opened.get_slice(name)
    return tuple(part.get_shape()), part.get_dtype()


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _refuse(problems: Sequence[str]) -> None:
    """Raises: BadInput with a fault for each problem, unless there is none."""
    if problems:
        raise _refusal(problems)


def _refusal(problems: Sequence[str]) -> BadInput:
    faults = [Fault(FIELD, problem) for problem in problems[:MAX_FAULTS]]
    if len(problems) > MAX_FAULTS:
        faults.append(Fault(FIELD, f"has {len(problems) - MAX_FAULTS} more faults"))
    return bad_input("The weights don't fit the model", faults)
