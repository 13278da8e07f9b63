"""ml_training: trains an MLP, ResNet-50 or a transformer with PyTorch; the task fails when the loss does not fall."""

from __future__ import annotations

import math
import os
from time import monotonic
from typing import TYPE_CHECKING, Any

from mesh.kinds.ml_training import MlTrainingPayload, memory_bytes, parameters
from node.executor.context import CertainFailure, Context, InputFault, NotAvailableNow
from node.workloads.common.machine_errors import machine_error
from node.workloads.training import curve
from node.workloads.training import device as training_device
from node.workloads.training.data import Source, open_source
from node.workloads.training.weights import METRICS, WEIGHTS, start_of, write_metrics, write_weights

if TYPE_CHECKING:
    from node.workloads.training.device import Place
    from node.workloads.training.run import Training

_UNITS = {"mlp": "samples", "resnet50": "images", "transformer": "tokens"}
#: With fewer floating-point operations per step than this, a second thread makes training slower.
_ONE_THREAD_FLOPS = 1e9
#: How long PyTorch's threads spin while they wait for each other. With the default, 300 times as long, a step of
#: ResNet-50 on two cores took 0.22 s instead of 0.25 s, but 2.9 s instead of 0.5 s when other processes used the cores.
_SPINS = "1000"
#: The maximum share of the time for checkpoints.
_CHECKPOINT_SHARE = 0.1
#: Stop taking checkpoints when this many more failed to be stored than were stored.
_GIVE_UP_AFTER = 3


class DidNotLearn(CertainFailure):
    """The loss did not fall, or is not a finite number: with the same seed it would again."""


def run(payload: MlTrainingPayload, context: Context) -> dict[str, Any]:
    """Train the model, and return what was done, the speed and the loss curve:

    model, parameters, data, device, device_name, precision, precision_why, threads, optimizer, learning_rate, batch,
    seed; steps and seconds (of all runs), steps_before (of trainings before, see start_from), runs, steps_this_run,
    resumed_from_step, note; samples_per_s, images_per_s or tokens_per_s, flops_per_step and gflops (of this run);
    peak_memory_mb; loss_first, loss_last, loss_floor (if known), loss_fell (null: undecided), loss_words, losses (at
    most 200 [step, loss]); checkpoints. Attached files: WEIGHTS and METRICS.

    Raises: DidNotLearn; BadInput for weights that don't fit; InputFault, also when training needs more memory than the
    task has; MemoryError.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # read when PyTorch is loaded
    import torch

    from node.workloads.training.models import flops

    state, note = load_checkpoint(context)
    place = training_device.choose(payload, str(state.get("precision", "")))
    refuse_too_large(payload, place.device, context.memory_mb)
    training_device.reset_peak(place.device)
    data = open_source(payload, context, place.device)
    try:
        work = flops(payload)
        threads = context.cores if work >= _ONE_THREAD_FLOPS else 1
        torch.set_num_threads(threads)
        training, note = _resume_or_start(payload, context, place, data, state, note)
        del state
        resumed_from = len(training.losses)
        measured = _train(training, payload, context, work)
        result = _described(training, payload, data) | {"threads": threads} | measured
        result |= {"resumed_from_step": resumed_from, "note": note}
        result["peak_memory_mb"] = training_device.peak_bytes(place.device) >> 20
    except RuntimeError as error:
        if (problem := machine_error(error)) is not None:
            raise problem from error
        raise
    verdict = curve.judge(training.losses)
    # Weights that were trained before may have little left to learn.
    if verdict.fell is False and payload.start_from is None:
        raise DidNotLearn(f"the loss: {verdict.words}; try another learning_rate (it was {payload.rate:g})")
    if payload.weights:
        _attach_files(training, payload, context)
    return result | {
        "loss_first": verdict.first,
        "loss_last": verdict.last,
        "loss_floor": data.floor,
        "loss_fell": verdict.fell,
        "loss_words": verdict.words,
        "losses": curve.thinned(training.losses),
    }


def _attach_files(training: Training, payload: MlTrainingPayload, context: Context) -> None:
    """Attach the trained weights and the loss of every step to the result."""
    weights_file, metrics_file = context.folder / WEIGHTS, context.folder / METRICS
    write_weights(training.model, payload, training.steps_before + len(training.losses), weights_file)
    write_metrics(training.losses, training.steps_before, metrics_file)
    context.attach(WEIGHTS, weights_file, "application/octet-stream")
    context.attach(METRICS, metrics_file, "text/csv")


def refuse_too_large(payload: MlTrainingPayload, device: str, memory_mb: int) -> None:
    """Raises: InputFault when the estimated memory exceeds that of the GPU or of the task; NotAvailableNow when it only
    exceeds what is free on the GPU."""
    needed = memory_bytes(payload.model_dump(), payload.sizes.batch)
    free, have = training_device.memory(device, memory_mb)
    if 0 < have < needed:
        more = "" if device == "cuda" else ", or more memory with requires.memory_mb"
        available = f"the GPU has {have >> 20} MB" if device == "cuda" else f"this task has {have >> 20} MB"
        raise InputFault(
            "batch",
            f"needs about {needed >> 20} MB with this model, and {available}: request a smaller batch or model{more}",
        )
    if 0 < free < needed:
        raise NotAvailableNow(f"it needs about {needed >> 20} MB of the GPU, which has {free >> 20} MB free")


def load_checkpoint(context: Context) -> tuple[dict[str, Any], str]:
    """(the state of an earlier run, or an empty one; a note for the result)"""
    from node.workloads.training.run import BadState, load

    if context.resume is None:
        return {}, ""
    try:
        return load(context.resume), ""
    except BadState as error:
        return {}, f"started over: the checkpoint of an earlier run can't be read ({error})"


def _resume_or_start(
    payload: MlTrainingPayload, context: Context, place: Place, data: Source, state: dict[str, Any], note: str
) -> tuple[Training, str]:
    """(a training that resumes from `state` or starts over, a note for the result). Raises: BadInput, InputFault."""
    from node.workloads.training.run import Training

    start = start_of(payload, context)
    if not state:
        return Training(payload, place, data, start), note
    training = Training(payload, place, data)
    try:
        training.restore(state)
    except Exception as error:  # PyTorch raises many types for a state that does not fit
        reason = str(error).partition("\n")[0][:150]
        return Training(payload, place, data, start), f"started over: the checkpoint is of another training ({reason})"
    return training, f"resumed from step {len(training.losses)}"


def due(now: float, last: float, every_s: float, cost_s: float) -> bool:
    """Return whether another checkpoint is due: every `every_s`, but less often when checkpoints would take more than a
    tenth of the time (pure). `last`: when the last one was finished; `cost_s`: how long it took."""
    return every_s > 0 and now - last >= max(every_s, cost_s / _CHECKPOINT_SHARE)


class _Checkpoints:
    """Saves checkpoints at intervals."""

    def __init__(self, payload: MlTrainingPayload, context: Context) -> None:
        self._every_s, self._context = payload.checkpoint_every_s, context
        self._last, self._cost_s, self._taken, self._all_s, self._bytes = monotonic(), 0.0, 0, 0.0, 0

    def save_if_due(self, training: Training) -> None:
        """Save a checkpoint if one is due; stops for good when the mesh fails to store several."""
        from node.workloads.training.run import save

        started = monotonic()
        if not due(started, self._last, self._every_s, self._cost_s):
            return
        kept, unkept = self._context.kept()
        if unkept - kept >= _GIVE_UP_AFTER:
            self._every_s = 0.0
            return
        file = self._context.folder / "state.pt"
        save(training, file)
        self._bytes = file.stat().st_size
        self._context.checkpoint(file, f"step {len(training.losses)}")
        self._last = monotonic()
        self._cost_s = self._last - started
        self._taken += 1
        self._all_s += self._cost_s

    def facts(self) -> dict[str, Any]:
        """taken, kept (so far), not_kept, bytes (of the last one), seconds (for all)."""
        kept, unkept = self._context.kept()
        return {
            "taken": self._taken,
            "kept": kept,
            "not_kept": unkept,
            "bytes": self._bytes,
            "seconds": round(self._all_s, 3),
        }


def _train(training: Training, payload: MlTrainingPayload, context: Context, work: float) -> dict[str, Any]:
    """Train until a limit is reached. The rate excludes the first step of the run, which loads kernels."""
    began = len(training.losses)
    before_s, run_s, warm_s = training.trained_s, 0.0, 0.0
    checkpoints = _Checkpoints(payload, context)
    limit, limit_s = payload.step_limit, payload.seconds or math.inf
    while len(training.losses) < limit and training.trained_s < limit_s:
        started = monotonic()
        loss = training.step()
        if not math.isfinite(loss):
            raise DidNotLearn(f"the loss of step {len(training.losses)} is {loss}; try a smaller learning_rate")
        run_s += monotonic() - started
        training.trained_s = before_s + run_s
        warm_s = warm_s or run_s
        done = len(training.losses)
        share = max(done / limit, training.trained_s / limit_s)
        context.progress(share, f"step {done}{f' of {limit}' if payload.steps else ''}, loss {loss:.4g}")
        if share < 1:
            checkpoints.save_if_due(training)
    steps = len(training.losses) - began
    timed, timed_s = (steps - 1, run_s - warm_s) if steps > 1 else (steps, run_s)
    steps_per_s = timed / timed_s if timed_s else 0.0
    units_per_step = payload.sizes.batch * (payload.sizes.context if payload.model == "transformer" else 1)
    return {
        "steps_this_run": steps,
        "checkpoints": checkpoints.facts(),
        f"{_UNITS[payload.model]}_per_s": float(f"{steps_per_s * units_per_step:.4g}"),
        "flops_per_step": work,
        "gflops": float(f"{work * steps_per_s / 1e9:.4g}"),
    }


def _described(training: Training, payload: MlTrainingPayload, data: Source) -> dict[str, Any]:
    return {
        "model": payload.model,
        "parameters": parameters(payload.model_dump()),
        "data": data.what,
        "device": training.place.device,
        "device_name": training.place.name,
        "precision": training.place.precision,
        "precision_why": training.place.why,
        "optimizer": payload.optimizer,
        "learning_rate": payload.rate,
        "batch": payload.batch,
        "seed": payload.seed,
        "steps": len(training.losses),
        "steps_before": training.steps_before,
        "seconds": round(training.trained_s, 3),
        "runs": training.runs,
    }
