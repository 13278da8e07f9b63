"""Training of neural networks in PyTorch, on data made from a seed or given, with checkpoints the mesh keeps."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from mesh.kinds.base import Data, KindSpec, Need, Payload, Resources

#: What a task has unless it asks for more with requires.memory_mb: enough for GPT-2's 124 million parameters.
MEMORY_MB = 6144
MAX_PARAMETERS = 20 * 10**9
MAX_STEPS = 1_000_000
#: No machine trains what takes more, bytes.
_MAX_BYTES = 1 << 40
#: PyTorch itself, its kernels and their scratch space, bytes.
_LIBRARY_BYTES = 420 << 20
#: What ResNet-50 keeps of one image of 224 x 224 points for the way back, bytes: measured, in float32.
_RESNET_IMAGE_BYTES = 105 << 20
_RESNET_BODY = 23_508_032

#: What is meant when a field is left out; a field that is not there belongs to other models.
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
#: Of DEFAULTS: what says nothing about how large the model is.
_NO_SHAPE = {"steps", "batch", "learning_rate"}
_SGD_RATES = {"mlp": 0.1, "resnet50": 0.01, "transformer": 0.05}


class MlTrainingPayload(Payload):
    """What `ml_training` takes; nothing at all trains a small network on patterns for a second."""

    model: Literal["mlp", "resnet50", "transformer"] = Field(
        default="mlp",
        description="mlp: samples to classes; resnet50: images to classes; transformer: the next token, as GPT-2 does, "
        "whose smallest size (124 million parameters) is the default",
    )
    data: Data | None = Field(
        default=None,
        description="what to train on; made from the seed when left out. For mlp and resnet50 an .npz with x (samples "
        "by features, or images by 3 by height by width; uint8 counts as 0 to 255) and y (classes from 0); for "
        "transformer a text, whose bytes are the tokens",
    )
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="adamw, or sgd with momentum 0.9")
    learning_rate: float | None = Field(
        default=None, ge=0, le=10, allow_inf_nan=False, description="the optimizer's; a usual one when left out"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="of products; sums and weights stay fp32. auto: what is fastest on the device; fp16 needs CUDA",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="where it runs; auto: the GPU that PyTorch can use there, or the processor"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="what weights, data and their order are made from")
    seconds: float | None = Field(
        default=None,
        gt=0,
        le=7 * 24 * 3600,
        allow_inf_nan=False,
        description="train for so long, all runs of the task together; with steps too: whichever is over first",
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        le=MAX_STEPS,
        description="updates of the weights; 300 for mlp, 20 for the others when seconds is left out as well",
    )
    checkpoint_every_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="at most so much training is lost when its node dies; longer when writing a checkpoint takes over "
        "a tenth of the time. 0: none",
    )
    classes: int | None = Field(
        default=None, ge=2, le=100_000, validate_default=True, description="to tell apart (mlp, resnet50); 10"
    )
    features: int | None = Field(
        default=None, ge=1, le=1_000_000, validate_default=True, description="numbers a sample has (mlp); 784"
    )
    image_size: int | None = Field(
        default=None, ge=32, le=1024, validate_default=True, description="points a side (resnet50); 224"
    )
    layers: int | None = Field(
        default=None,
        ge=1,
        le=128,
        validate_default=True,
        description="hidden layers (mlp; 2) or blocks (transformer; 12)",
    )
    width: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        validate_default=True,
        description="of a hidden layer (mlp; 256) or of a token (transformer; 768)",
    )
    heads: int | None = Field(
        default=None, ge=1, le=256, validate_default=True, description="of attention (transformer); 12"
    )
    context: int | None = Field(
        default=None, ge=2, le=32_768, validate_default=True, description="tokens a sequence has (transformer); 1024"
    )
    vocabulary: int | None = Field(
        default=None, ge=16, le=1_000_000, validate_default=True, description="tokens there are (transformer); 50257"
    )
    batch: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        validate_default=True,
        description="samples, images or sequences a step; 128 for mlp, 8 for resnet50, 2 for transformer",
    )

    @field_validator("classes", "features", "image_size", "layers", "width", "heads", "context", "vocabulary")
    @classmethod
    def _of_this_model(cls, value: int | None, info: ValidationInfo) -> int | None:
        meant = DEFAULTS.get(info.data.get("model", ""))
        if meant is None:
            return value
        if info.field_name not in meant:
            if value is not None:
                raise ValueError(f"must be left out for {info.data['model']}")
            return None
        wanted = value if value is not None else int(meant[str(info.field_name)])
        if info.field_name == "heads" and info.data.get("width") and info.data["width"] % wanted:
            raise ValueError(f"must divide width, which is {info.data['width']}")
        if info.field_name == "vocabulary" and info.data.get("data") is not None and wanted < 256:
            raise ValueError("must be at least 256 for a text, whose bytes are the tokens")
        return wanted

    @field_validator("batch")
    @classmethod
    def _can_be_held(cls, value: int | None, info: ValidationInfo) -> int | None:
        model, given = info.data.get("model"), info.data
        # A field at fault is not among `given`; what it says of itself is enough.
        if model is None or not (DEFAULTS[model].keys() | {"optimizer"}) - _NO_SHAPE <= given.keys():
            return value
        wanted = value or int(DEFAULTS[model]["batch"])
        if wanted == 1 and (given.get("image_size") or 64) <= 32:
            raise ValueError("must be at least 2 for images of 32 points, which end as one point each")
        count = parameters(given)
        if count > MAX_PARAMETERS:
            raise ValueError(f"is not looked at: the model has {count / 1e9:.4g} billion parameters, 20 are the limit")
        if memory_bytes(given, wanted) > _MAX_BYTES:
            needed = memory_bytes(given, wanted) / (1 << 30)
            raise ValueError(f"is too large for this model: about {needed:,.0f} GiB of memory would be needed")
        return wanted

    @property
    def rate(self) -> float:
        """The learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return float(DEFAULTS[self.model]["learning_rate"] if self.optimizer == "adamw" else _SGD_RATES[self.model])

    @property
    def step_limit(self) -> int:
        """Steps after which it is over."""
        return self.steps or (MAX_STEPS if self.seconds else int(DEFAULTS[self.model]["steps"]))


def parameters(shape: Any) -> int:
    """How many numbers a model of that shape learns; `shape`: the payload's fields, as a mapping."""
    if shape["model"] == "resnet50":
        return _RESNET_BODY + 2049 * int(shape["classes"])
    layers, width = int(shape["layers"]), int(shape["width"])
    if shape["model"] == "mlp":
        hidden = (layers - 1) * (width + 1) * width
        return (int(shape["features"]) + 1) * width + hidden + (width + 1) * int(shape["classes"])
    return (shape["vocabulary"] + shape["context"]) * width + layers * (12 * width + 13) * width + 2 * width


def memory_bytes(shape: Any, batch: int) -> int:
    """About how much memory training takes: weights, gradients, optimizer, and what the way back needs."""
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
    summary="Train an MLP, ResNet-50 or a GPT-2-sized transformer; checkpoints, samples a second, loss must fall.",
    payload=MlTrainingPayload,
    resources=Resources(cores="all", memory_mb=MEMORY_MB),
    needs=(Need("torch", "training"), Need("numpy", "training")),
    timeout_s=24 * 3600.0,
    checkpoints=True,
    example={"model": "mlp", "steps": 100},
    probe={
        "model": "transformer", "layers": 2, "width": 256, "heads": 4, "context": 128, "vocabulary": 256,
        "batch": 8, "steps": 4,
    },
)  # fmt: skip
