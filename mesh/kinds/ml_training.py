"""The contract of `ml_training`: neural networks in PyTorch, on generated or given data, with checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from mesh.kinds.base import Data, KindSpec, Need, Payload, Resources

#: The default memory of a task, MiB, unless requires.memory_mb asks for more: enough for GPT-2's 124M parameters.
MEMORY_MB = 6144
MAX_PARAMETERS = 20 * 10**9
MAX_STEPS = 1_000_000
#: The largest training that is accepted, bytes of memory.
_MAX_BYTES = 1 << 40
#: Memory of PyTorch itself, its kernels and their scratch space, bytes.
_LIBRARY_BYTES = 420 << 20
#: Activations that ResNet-50 keeps of one image of 224 x 224 pixels for the backward pass, bytes (measured, float32).
_RESNET_IMAGE_BYTES = 105 << 20
#: Parameters of ResNet-50 without its last layer.
_RESNET_BODY = 23_508_032

#: The default values by model; a model does not have the fields that are missing here.
DEFAULTS: dict[str, dict[str, Any]] = {
    "mlp": {
        "steps": 300, "batch": 128, "learning_rate": 1e-3,
        "classes": 10, "features": 784, "layers": 2, "width": 256,
    },
    "resnet50": {"steps": 20, "batch": 8, "learning_rate": 1e-3, "classes": 10, "image_size": 224},
    "transformer": {
        "steps": 20, "batch": 2, "learning_rate": 6e-4,
        "vocabulary": 50257, "context": 1024, "layers": 12, "width": 768, "heads": 12,
    },
}  # fmt: skip
#: The keys of DEFAULTS that don't change the size of the model.
_NO_SHAPE = {"steps", "batch", "learning_rate"}
_SGD_RATES = {"mlp": 0.1, "resnet50": 0.01, "transformer": 0.05}


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model and of its batches; 0 for a size that other models have."""

    classes: int
    features: int
    image_size: int
    layers: int
    width: int
    heads: int
    context: int
    vocabulary: int
    batch: int


class MlTrainingPayload(Payload):
    """Payload of `ml_training`; an empty one trains a small network on generated patterns for a second."""

    model: Literal["mlp", "resnet50", "transformer"] = Field(
        default="mlp",
        description="mlp classifies samples, resnet50 classifies images, transformer predicts the next token as GPT-2 "
        "does; its default is GPT-2's smallest size (124 million parameters)",
    )
    data: Data | None = Field(
        default=None,
        description="training data; by default generated from the seed. For mlp and resnet50 an .npz with x (samples "
        "x features, or images x 3 x height x width; uint8 means 0 to 255) and y (classes from 0); for transformer a "
        "text, whose bytes are the tokens",
    )
    start_from: Data | None = Field(
        default=None,
        description="weights to start from, as safetensors: those of an earlier training (its result names the blob "
        "under files), or of a model with the same names and shapes. By default random weights from the seed",
    )
    weights: bool = Field(
        default=True, description="store the trained weights (safetensors) and all losses as blobs, named by the result"
    )
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="adamw, or sgd with momentum 0.9")
    learning_rate: float | None = Field(
        default=None, ge=0, le=10, allow_inf_nan=False, description="learning rate; the default depends on the model"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="precision of products; sums and weights stay fp32. auto: the fastest on the device; fp16 requires "
        "CUDA",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="device; auto: a GPU that PyTorch can use, else the processor"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="random seed of weights, data and their order")
    seconds: float | None = Field(
        default=None,
        gt=0,
        le=7 * 24 * 3600,
        allow_inf_nan=False,
        description="training time, all runs of the task together; with steps: whichever limit comes first",
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        le=MAX_STEPS,
        description="number of optimizer steps; by default, without seconds, 300 for mlp and 20 for the others",
    )
    checkpoint_every_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="interval between checkpoints, which bounds what the death of a node loses; longer when writing "
        "one takes more than a tenth of the time. 0: no checkpoints",
    )
    classes: int | None = Field(
        default=None,
        ge=2,
        le=100_000,
        validate_default=True,
        description="number of classes (mlp, resnet50); default 10",
    )
    features: int | None = Field(
        default=None, ge=1, le=1_000_000, validate_default=True, description="features of a sample (mlp); default 784"
    )
    image_size: int | None = Field(
        default=None,
        ge=32,
        le=1024,
        validate_default=True,
        description="side of an image, pixels (resnet50); default 224",
    )
    layers: int | None = Field(
        default=None,
        ge=1,
        le=128,
        validate_default=True,
        description="hidden layers (mlp, default 2) or blocks (transformer, default 12)",
    )
    width: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        validate_default=True,
        description="width of a hidden layer (mlp, default 256) or of a token (transformer, default 768)",
    )
    heads: int | None = Field(
        default=None, ge=1, le=256, validate_default=True, description="attention heads (transformer); default 12"
    )
    context: int | None = Field(
        default=None,
        ge=2,
        le=32_768,
        validate_default=True,
        description="tokens of a sequence (transformer); default 1024",
    )
    vocabulary: int | None = Field(
        default=None,
        ge=16,
        le=1_000_000,
        validate_default=True,
        description="number of distinct tokens (transformer); default 50257",
    )
    batch: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        validate_default=True,
        description="samples, images or sequences per step; default 128 for mlp, 8 for resnet50, 2 for transformer",
    )

    @field_validator("classes", "features", "image_size", "layers", "width", "heads", "context", "vocabulary")
    @classmethod
    def _of_this_model(cls, value: int | None, info: ValidationInfo) -> int | None:
        defaults = DEFAULTS.get(info.data.get("model", ""))
        if defaults is None:
            return value
        if info.field_name not in defaults:
            if value is not None:
                raise ValueError(f"must be left out for {info.data['model']}")
            return None
        size = value if value is not None else int(defaults[info.field_name])
        if info.field_name == "heads" and info.data.get("width") and info.data["width"] % size:
            raise ValueError(f"must divide width, which is {info.data['width']}")
        if info.field_name == "vocabulary" and info.data.get("data") is not None and size < 256:
            raise ValueError("must be at least 256 for a text, whose bytes are the tokens")
        return size

    @field_validator("batch")
    @classmethod
    def _fits_in_memory(cls, value: int | None, info: ValidationInfo) -> int | None:
        model, valid = info.data.get("model"), info.data
        # An invalid field is missing here; its own error is reported instead.
        if model is None or not (DEFAULTS[model].keys() | {"optimizer"}) - _NO_SHAPE <= valid.keys():
            return value
        batch = value or int(DEFAULTS[model]["batch"])
        if batch == 1 and (valid.get("image_size") or 64) <= 32:
            raise ValueError("must be at least 2 for images of 32 pixels, which shrink to one pixel each")
        count = parameters(valid)
        if count > MAX_PARAMETERS:
            raise ValueError(f"can't be checked: the model has {count / 1e9:.4g} billion parameters, the limit is 20")
        if memory_bytes(valid, batch) > _MAX_BYTES:
            needed = memory_bytes(valid, batch) / (1 << 30)
            raise ValueError(f"is too large for this model: it would need about {needed:,.0f} GiB of memory")
        return batch

    @property
    def rate(self) -> float:
        """The learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return float(DEFAULTS[self.model]["learning_rate"] if self.optimizer == "adamw" else _SGD_RATES[self.model])

    @property
    def sizes(self) -> Sizes:
        """All sizes, defaults included: validation sets those that the model has."""
        return Sizes(
            classes=self.classes or 0,
            features=self.features or 0,
            image_size=self.image_size or 0,
            layers=self.layers or 0,
            width=self.width or 0,
            heads=self.heads or 0,
            context=self.context or 0,
            vocabulary=self.vocabulary or 0,
            batch=self.batch or 0,
        )

    @property
    def step_limit(self) -> int:
        """The maximum number of steps."""
        return self.steps or (MAX_STEPS if self.seconds else int(DEFAULTS[self.model]["steps"]))


def parameters(shape: Any) -> int:
    """The number of parameters of a model. `shape`: the payload's fields, as a mapping."""
    if shape["model"] == "resnet50":
        return _RESNET_BODY + 2049 * int(shape["classes"])
    layers, width = int(shape["layers"]), int(shape["width"])
    if shape["model"] == "mlp":
        hidden = (layers - 1) * (width + 1) * width
        return (int(shape["features"]) + 1) * width + hidden + (width + 1) * int(shape["classes"])
    return (shape["vocabulary"] + shape["context"]) * width + layers * (12 * width + 13) * width + 2 * width


def memory_bytes(shape: Any, batch: int) -> int:
    """Estimate of the memory that training takes: weights, gradients, optimizer state and activations."""
    numbers = (3 if shape["optimizer"] == "sgd" else 4) * parameters(shape)
    if shape["model"] == "resnet50":
        kept = batch * int(_RESNET_IMAGE_BYTES * (shape["image_size"] / 224) ** 2)
    elif shape["model"] == "mlp":
        kept = 4 * batch * (2 * shape["features"] + 3 * shape["layers"] * shape["width"] + 3 * shape["classes"])
    else:
        token = 20 * shape["layers"] * shape["width"] + 3 * shape["vocabulary"]
        kept = 4 * batch * shape["context"] * token
    return 4 * numbers + kept + _LIBRARY_BYTES


SPEC = KindSpec(
    name="ml_training",
    summary="Train an MLP, ResNet-50 or a GPT-2-sized transformer, with checkpoints; fails unless the loss falls.",
    payload=MlTrainingPayload,
    resources=Resources(cores="all", memory_mb=MEMORY_MB),
    needs=(Need("torch", "training"), Need("numpy", "training"), Need("safetensors", "training")),
    timeout_s=24 * 3600.0,
    checkpoints=True,
    example={"model": "mlp", "steps": 100},
    probe={
        "model": "transformer", "layers": 2, "width": 256, "heads": 4, "context": 128, "vocabulary": 256,
        "batch": 8, "steps": 4, "weights": False,
    },
)  # fmt: skip
