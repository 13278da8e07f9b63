"""One model under training: its weights, its optimizer, where it stands, and all of that as a state to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.kinds.ml_training import MlTrainingPayload
from node.workloads.training.data import Source
from node.workloads.training.device import Place
from node.workloads.training.models import build

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
#: Gradients of the transformer longer than this are shortened to it, as GPT-2's were.
_LONGEST_GRADIENT = 1.0


class BadState(ValueError):
    """A checkpoint that this training can't go on from."""


class Training:
    """`step()` learns from one batch; `state()` is all that is needed to go on elsewhere as if nothing had been."""

    def __init__(self, payload: MlTrainingPayload, place: Place, source: Source) -> None:
        import torch

        self._payload, self.place, self._source = payload, place, source
        torch.manual_seed(payload.seed)
        self.model: nn.Module = build(payload).to(place.device)
        self._layout = torch.channels_last if payload.model == "resnet50" else torch.preserve_format
        self.model.to(memory_format=self._layout)  # pyrefly: ignore[no-matching-overload]  the stub lacks this overload
        if payload.optimizer == "adamw":
            self._optimizer: Any = torch.optim.AdamW(self.model.parameters(), lr=payload.rate)
        else:
            self._optimizer = torch.optim.SGD(self.model.parameters(), lr=payload.rate, momentum=0.9)
        self._scaler = torch.amp.GradScaler(place.device, enabled=place.precision == "fp16")
        self.losses: list[float] = []
        """of every step of all runs"""
        self.trained_s = 0.0
        """of all runs"""
        self.runs = 1

    def step(self) -> float:
        """One update of the weights; the loss before it."""
        inputs, targets = self._source.batch(len(self.losses))
        loss = self.loss(inputs, targets)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        if self._payload.model == "transformer":
            from torch.nn.utils import clip_grad_norm_

            self._scaler.unscale_(self._optimizer)
            clip_grad_norm_(self.model.parameters(), _LONGEST_GRADIENT)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        value = loss.item()
        self.losses.append(value)
        return value

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy in nats, the mean over the batch."""
        from torch.nn.functional import cross_entropy

        if inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=self._layout)
        with self.place.autocast():
            logits = self.model(inputs)
        return cross_entropy(logits.flatten(0, -2).float(), targets.flatten())

    def state(self) -> dict[str, Any]:
        """Plain data and tensors only: it is read with `weights_only`."""
        import torch

        return {
            "format": FORMAT,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.place.device == "cuda" else None,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "trained_s": self.trained_s,
            "runs": self.runs,
            "precision": self.place.precision,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there. Raises: anything, when the state is of another training; then this object is spoilt."""
        import torch

        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.place.device == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"])
        self.losses = state["losses"].tolist()
        self.trained_s, self.runs = float(state["trained_s"]), int(state["runs"]) + 1


def load(file: Path) -> dict[str, Any]:
    """A state from a file. Raises: BadState, when it is none, is damaged, or holds anything but data."""
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise BadState("it is no state of this version")
    except BadState:
        raise
    except Exception as error:  # whatever a damaged file makes of zip, pickle and tensors
        raise BadState(str(error).partition("\n")[0][:150] or type(error).__name__) from None
    return state


def save(training: Training, file: Path) -> None:
    """The state into a file."""
    import torch

    torch.save(training.state(), file)
