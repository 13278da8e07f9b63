"""A training run: the model, the optimizer and the step, and their state for checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.kinds.ml_training import MlTrainingPayload
from node.workloads.training.data import Source
from node.workloads.training.device import Place
from node.workloads.training.models import build
from node.workloads.training.weights import Start

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
#: The norm to which the transformer's gradients are clipped, as GPT-2's were.
_LONGEST_GRADIENT = 1.0


class BadState(ValueError):
    """A checkpoint from which this training can't resume."""


class Training:
    """`step()` trains on one batch; `state()` is everything needed to resume on another node."""

    def __init__(self, payload: MlTrainingPayload, place: Place, source: Source, start: Start | None = None) -> None:
        """`start`: the weights to start from; None: random ones. Raises: BadInput when they don't fit the model."""
        import torch

        self._payload, self.place, self._source = payload, place, source
        torch.manual_seed(payload.seed)
        self.model: nn.Module = build(payload)
        self.steps_before = 0
        """Steps of the trainings before this one, whose batches are not repeated."""
        if start is not None:
            start.load_into(self.model)
            self.steps_before = start.steps
        self.model.to(place.device)
        self._layout = torch.channels_last if payload.model == "resnet50" else torch.preserve_format
        self.model.to(memory_format=self._layout)  # pyrefly: ignore[no-matching-overload]  the stub lacks this overload
        if payload.optimizer == "adamw":
            self._optimizer: Any = torch.optim.AdamW(self.model.parameters(), lr=payload.rate)
        else:
            self._optimizer = torch.optim.SGD(self.model.parameters(), lr=payload.rate, momentum=0.9)
        self._scaler = torch.amp.GradScaler(place.device, enabled=place.precision == "fp16")
        self.losses: list[float] = []
        """The loss of every step of all runs."""
        self.trained_s = 0.0
        """Training time of all runs."""
        self.runs = 1

    def step(self) -> float:
        """Update the weights once; returns the loss before the update."""
        inputs, targets = self._source.batch(self.steps_before + len(self.losses))
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
        """The mean cross entropy of the batch, nats."""
        from torch.nn.functional import cross_entropy

        if inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=self._layout)
        with self.place.autocast():
            logits = self.model(inputs)
        return cross_entropy(logits.flatten(0, -2).float(), targets.flatten())

    def state(self) -> dict[str, Any]:
        """The state, as plain data and tensors only, since it is read with `weights_only`."""
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
            "steps_before": self.steps_before,
            "precision": self.place.precision,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a state. Raises: any exception for the state of another training; don't use the object then."""
        import torch

        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.place.device == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"])
        self.losses = state["losses"].tolist()
        self.steps_before = int(state.get("steps_before", 0))
        self.trained_s, self.runs = float(state["trained_s"]), int(state["runs"]) + 1


def load(file: Path) -> dict[str, Any]:
    """Read a state from a file. Raises: BadState when it is damaged, not a state, or contains more than data."""
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise BadState("it is not a state of this version")
    except BadState:
        raise
    except Exception as error:  # zip, pickle and tensors raise many types for a damaged file
        raise BadState(str(error).partition("\n")[0][:150] or type(error).__name__) from None
    return state


def save(training: Training, file: Path) -> None:
    """Write the state of a training into a file."""
    import torch

    torch.save(training.state(), file)
