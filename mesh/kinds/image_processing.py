"""Images in, images out: resize, blur, edges, grayscale, another format; JPEG, PNG and WebP."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from mesh.kinds.base import Data, KindSpec, Need, Payload, Resources

#: No image is decoded, and none is made, that has more pixels than this.
MAX_PIXELS = 100_000_000
MAX_SIDE = 65_500

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class Resize(Payload):
    """Scale to a width, a height, or into a box."""

    op: Literal["resize"]
    width: Side | None = Field(default=None, description="pixels; from the height when left out")
    keep_aspect: bool = Field(
        default=True, description="with both sides given: fit inside them, rather than stretch to them"
    )
    height: Side | None = Field(
        default=None, validate_default=True, description="pixels; from the width when left out"
    )

    @field_validator("height")
    @classmethod
    def _bounded(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is None and info.data.get("width", 0) is None:
            raise ValueError("must be given when width is not")
        return value


class Blur(Payload):
    """Gaussian blur with a kernel of 2 radius + 1 pixels."""

    op: Literal["blur"]
    radius: int = Field(default=2, ge=1, le=250, description="pixels")


class Edges(Payload):
    """Canny's edges: white lines on black, one channel."""

    op: Literal["edges"]
    low: float = Field(default=100.0, ge=0, le=10_000, description="gradients below are no edge")
    high: float = Field(default=200.0, ge=0, le=10_000, description="gradients above always are")


class Grayscale(Payload):
    """One channel of brightness."""

    op: Literal["grayscale"]


Operation = Annotated[Resize | Blur | Edges | Grayscale, Field(discriminator="op")]


def _format(value: Any) -> Any:
    if isinstance(value, str):
        value = value.lower()
        return "jpeg" if value == "jpg" else value
    return value


class ImageProcessingPayload(Payload):
    """What `image_processing` takes. Short forms (width, height, blur, …) run before `operations`."""

    image: Data = Field(description="the file: base64, or a blob")
    width: Side | None = Field(default=None, description="short for a resize")
    height: Side | None = Field(default=None, description="short for a resize")
    keep_aspect: bool = Field(default=True, description="of that resize")
    blur: int | None = Field(default=None, ge=1, le=250, description="short for a blur of that radius, pixels")
    grayscale: bool = Field(default=False, description="short for grayscale")
    edges: bool = Field(default=False, description="short for edges")
    operations: tuple[Operation, ...] = Field(
        default=(), max_length=50, description='what to do, in order: {"op": "resize", "width": 320}, …'
    )
    format: Annotated[Literal["jpeg", "png", "webp"], BeforeValidator(_format)] | None = Field(
        default=None, description="of the result; the same as the input's when left out"
    )
    quality: int = Field(default=90, ge=1, le=100, description="of a JPEG or WebP result")

    @property
    def steps(self) -> tuple[Resize | Blur | Edges | Grayscale, ...]:
        """All operations in order, the short forms first."""
        short: list[Resize | Blur | Edges | Grayscale] = []
        if self.width is not None or self.height is not None:
            short.append(
                Resize(op="resize", width=self.width, height=self.height, keep_aspect=self.keep_aspect)
            )
        if self.blur is not None:
            short.append(Blur(op="blur", radius=self.blur))
        if self.grayscale:
            short.append(Grayscale(op="grayscale"))
        if self.edges:
            short.append(Edges(op="edges"))
        return (*short, *self.operations)


def fit(size: tuple[int, int], wanted: Resize) -> tuple[int, int]:
    """The (width, height) that `wanted` makes of an image of `size`; never less than one pixel a side."""
    width, height = size
    if wanted.width and wanted.height and not wanted.keep_aspect:
        return wanted.width, wanted.height
    by_width = wanted.width / width if wanted.width else float("inf")
    by_height = wanted.height / height if wanted.height else float("inf")
    scale = min(by_width, by_height)
    return max(1, round(width * scale)), max(1, round(height * scale))


#: Four by four pixels.
_SMALL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAIklEQVQIHWPkYmXghwFGN0cbfhhgbKqt4IcBxn07t/DDAACOqgaVVvRhWAAAAABJ"
    "RU5ErkJggg=="
)

SPEC = KindSpec(
    name="image_processing",
    summary="Resize, blur, find edges, convert images: JPEG, PNG and WebP.",
    payload=ImageProcessingPayload,
    resources=Resources(cores=1, memory_mb=2048),
    needs=(Need("cv2", "vision"), Need("numpy", "vision")),
    timeout_s=600.0,
    example={"image": _SMALL, "width": 8, "format": "png"},
    probe={"image": _SMALL, "width": 3000, "height": 3000, "blur": 5, "format": "jpeg"},
)
