"""What can be done to an image: one model an operation, each naming its own fields.

Values are in the terms people know from CSS and photo programs, not in a library's: factors of 1 change nothing,
opacity is 0 to 1, colours are "#rrggbb". What each does to alpha and to 16 bits a sample is said in docs/images.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from mesh.kinds.base import Data, Payload

MAX_SIDE = 65_500
#: OpenCV's median counts in 8 bits; its bilateral filter reads (2 radius + 1)² samples for each pixel.
MAX_MEDIAN_RADIUS, MAX_BILATERAL_RADIUS = 127, 25

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Colour = Annotated[str, Field(pattern=r"^#([0-9a-fA-F]{6}|[0-9a-fA-F]{8})$")]
Interpolation = Literal["nearest", "linear", "cubic", "area", "lanczos"]
Factor = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


class Resize(Payload):
    """Scale to a width, a height, or into a box."""

    op: Literal["resize"]
    width: Side | None = Field(default=None, description="pixels; from the height when left out")
    keep_aspect: bool = Field(
        default=True, description="with both sides given: fit inside them, rather than stretch to them"
    )
    height: Side | None = Field(default=None, validate_default=True, description="pixels; from the width when left out")
    interpolation: Interpolation | None = Field(
        default=None, description="area when it shrinks and linear when it grows, if left out"
    )

    @field_validator("height")
    @classmethod
    def _bounded(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is None and info.data.get("width", 0) is None:
            raise ValueError("must be given when width is not")
        return value


class Crop(Payload):
    """Cut out a rectangle, which must lie inside the image."""

    op: Literal["crop"]
    width: Side = Field(description="pixels")
    height: Side = Field(description="pixels")
    x: int | None = Field(default=None, ge=0, le=MAX_SIDE, description="left edge; in the middle when left out")
    y: int | None = Field(default=None, ge=0, le=MAX_SIDE, description="top edge; in the middle when left out")


class Rotate(Payload):
    """Turn anticlockwise about the middle; multiples of 90 degrees move pixels and change none."""

    op: Literal["rotate"]
    angle: float = Field(ge=-360, le=360, allow_inf_nan=False, description="degrees, anticlockwise")
    expand: bool = Field(default=True, description="grow so that all of it is seen; else keep the size and cut")
    fill: Colour | None = Field(
        default=None, description="of the corners, #rrggbb or #rrggbbaa; black, or transparent where there is alpha"
    )
    interpolation: Literal["nearest", "linear", "cubic", "lanczos"] = Field(
        default="linear", description="how pixels between pixels are made"
    )


class Flip(Payload):
    """Mirror."""

    op: Literal["flip"]
    direction: Literal["horizontal", "vertical", "both"] = Field(
        default="horizontal", description="horizontal swaps left and right"
    )


class Blur(Payload):
    """Smooth, with a kernel of 2 radius + 1 pixels."""

    op: Literal["blur"]
    method: Literal["gaussian", "median", "bilateral", "box"] = Field(
        default="gaussian", description="median removes specks, bilateral keeps edges"
    )
    radius: int = Field(default=2, ge=1, le=250, description="pixels; at most 127 for median and 25 for bilateral")
    sigma: float | None = Field(
        default=None, gt=0, le=250, allow_inf_nan=False, description="gaussian only; from the radius when left out"
    )
    sigma_colour: float = Field(
        default=50.0, gt=0, le=255, allow_inf_nan=False, description="bilateral: colours further apart do not mix"
    )
    sigma_space: float = Field(
        default=50.0, gt=0, le=250, allow_inf_nan=False, description="bilateral: pixels that far away count less"
    )

    @field_validator("radius")
    @classmethod
    def _possible(cls, value: int, info: ValidationInfo) -> int:
        limits = {"median": MAX_MEDIAN_RADIUS, "bilateral": MAX_BILATERAL_RADIUS}
        method = info.data.get("method", "")
        if value > limits.get(method, value):
            raise ValueError(f"must be at most {limits[method]} for {method}")
        return value


class Sharpen(Payload):
    """Unsharp mask: adds what a Gaussian blur would take away."""

    op: Literal["sharpen"]
    sigma: float = Field(default=1.0, ge=0.1, le=50, allow_inf_nan=False, description="of the blur, pixels")
    amount: Factor = Field(default=1.0, description="how much of the difference is added; 0 changes nothing")
    threshold: int = Field(
        default=0, ge=0, le=255, description="differences up to this stay as they are, of 255: spares noise"
    )


class Edges(Payload):
    """Canny's edges: white lines on black, one channel."""

    op: Literal["edges"]
    low: float = Field(default=100.0, ge=0, le=10_000, allow_inf_nan=False, description="gradients below are no edge")
    high: float = Field(default=200.0, ge=0, le=10_000, allow_inf_nan=False, description="gradients above always are")
    aperture: Literal[3, 5, 7] = Field(default=3, description="of the Sobel operator, pixels")
    accurate: bool = Field(default=False, description="gradients by their length, rather than |x| + |y|")


class Threshold(Payload):
    """Black and white, one channel."""

    op: Literal["threshold"]
    method: Literal["fixed", "otsu", "adaptive"] = Field(
        default="fixed", description="otsu finds the value; adaptive compares with the neighbourhood"
    )
    value: int = Field(default=127, ge=0, le=255, description="fixed: brighter becomes white")
    block: Annotated[int, Field(ge=3, le=999)] = Field(
        default=11, description="adaptive: side of the neighbourhood, odd"
    )
    offset: float = Field(
        default=2.0, ge=-255, le=255, allow_inf_nan=False, description="adaptive: taken off the neighbourhood's mean"
    )
    weights: Literal["mean", "gaussian"] = Field(default="mean", description="adaptive: of the neighbourhood")
    invert: bool = Field(default=False, description="brighter becomes black")

    _odd_block = field_validator("block")(_odd)


class Colours(Payload):
    """Brightness, contrast, gamma, saturation and hue, in this order, as CSS' filters of these names define them."""

    op: Literal["colour", "color"]
    brightness: Factor = Field(default=1.0, description="factor; 1 changes nothing")
    contrast: Factor = Field(default=1.0, description="factor about middle gray")
    gamma: float = Field(default=1.0, ge=0.05, le=20, allow_inf_nan=False, description="above 1 lifts the shadows")
    saturation: Factor = Field(default=1.0, description="factor; 0 is gray")
    hue: float = Field(default=0.0, ge=-360, le=360, allow_inf_nan=False, description="degrees round the circle")


class Grayscale(Payload):
    """One channel of brightness."""

    op: Literal["grayscale", "greyscale"]


class Sepia(Payload):
    """The brown of old photographs."""

    op: Literal["sepia"]
    amount: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False, description="0 changes nothing")


class Invert(Payload):
    """The negative; alpha stays."""

    op: Literal["invert"]


class Equalise(Payload):
    """Spread the brightness over the whole range; colours keep their hue."""

    op: Literal["equalise", "equalize"]
    method: Literal["global", "clahe"] = Field(
        default="global", description="clahe works tile by tile and limits the contrast"
    )
    clip_limit: float = Field(default=2.0, gt=0, le=100, allow_inf_nan=False, description="clahe: of the contrast")
    tiles: int = Field(default=8, ge=1, le=64, description="clahe: in each direction")


class Denoise(Payload):
    """Non-local means: averages patches that look alike."""

    op: Literal["denoise"]
    strength: float = Field(
        default=3.0, gt=0, le=100, allow_inf_nan=False, description="more removes more noise, and more detail"
    )
    colour_strength: float | None = Field(
        default=None, gt=0, le=100, allow_inf_nan=False, description="of colour noise; as strength when left out"
    )
    patch: Annotated[int, Field(ge=3, le=15)] = Field(default=7, description="side of a patch, pixels, odd")
    window: Annotated[int, Field(ge=3, le=49)] = Field(
        default=21, description="side of the area searched, pixels, odd; the time grows with its square"
    )

    _odd_sides = field_validator("patch", "window")(_odd)


class Watermark(Payload):
    """A text or another image, laid over."""

    op: Literal["watermark"]
    text: str | None = Field(default=None, min_length=1, max_length=200, description="one line")
    image: Data | None = Field(
        default=None, validate_default=True, description="instead of text, a file: base64, or a blob"
    )
    position: Literal[
        "top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right"
    ] = Field(default="bottom-right", description="where")
    margin: int = Field(default=10, ge=0, le=MAX_SIDE, description="from the edges, pixels")
    opacity: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False, description="1 hides what is under it")
    scale: float = Field(
        default=0.25, ge=0.01, le=1, allow_inf_nan=False, description="its width as a share of the image's"
    )
    colour: Colour = Field(default="#ffffff", description="of the text, #rrggbb or #rrggbbaa")

    @field_validator("text")
    @classmethod
    def _drawable(cls, value: str | None) -> str | None:
        if value is not None and not (value.isprintable() and value.strip()):
            raise ValueError("must be one line of printable characters, not only spaces")
        return value

    @field_validator("image")
    @classmethod
    def _one_of_two(cls, value: object, info: ValidationInfo) -> object:
        text = info.data.get("text", "")
        if value is None and text is None:
            raise ValueError("must be given when text is not")
        if value is not None and text:
            raise ValueError("can't be given together with text")
        return value


Step = (
    Resize | Crop | Rotate | Flip | Blur | Sharpen | Edges | Threshold | Colours | Grayscale | Sepia | Invert
    | Equalise | Denoise | Watermark
)  # fmt: skip
Operation = Annotated[Step, Field(discriminator="op")]
