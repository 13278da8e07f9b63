"""The image operations: one model per operation, each with its own fields.

Values follow CSS and photo editors rather than a library: a factor of 1 changes nothing, opacity is 0 to 1, colours are
"#rrggbb". docs/images.md describes how each operation treats alpha and 16-bit samples.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from mesh.kinds.base import Data, Payload
from mesh.kinds.image_fit import EnlargeField, FitField, Gravity, GravityField, check_fit, check_needs_fit

MAX_SIDE = 65_500
#: OpenCV's median filter counts in 8 bits; its bilateral filter reads (2 radius + 1)² samples per pixel.
MAX_MEDIAN_RADIUS, MAX_BILATERAL_RADIUS = 127, 25

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Colour = Annotated[str, Field(pattern=r"^#([0-9a-fA-F]{6}|[0-9a-fA-F]{8})$")]
Interpolation = Literal["nearest", "linear", "cubic", "area", "lanczos"]
Factor = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


def _left_to_right(text: str) -> str:
    """Raises: ValueError for characters that have to be joined or laid out from right to left to be readable."""
    turned = dict.fromkeys(char for char in text if unicodedata.bidirectional(char) in ("R", "AL", "AN"))
    joined = dict.fromkeys(char for char in text if unicodedata.category(char) in ("Mn", "Mc", "Me"))
    for chars, reason in ((turned, "is written from right to left"), (joined, "has to be joined to the one before")):
        if chars:
            raise ValueError(f"has a character that {reason}, which is not supported ({list_characters(chars)})")
    return text


def list_characters(chars: Iterable[str], most: int = 10) -> str:
    """The characters for a message: "🙂 U+1F642, ☃ U+2603"."""
    listed = [f"{char} U+{ord(char):04X}" for char in chars]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


class Resize(Payload):
    """Scale to a width, a height, or to fit inside a box."""

    op: Literal["resize"]
    width: Side | None = Field(default=None, description="pixels; by default computed from the height")
    keep_aspect: bool = Field(
        default=True, description="with width and height given: fit the box; false: stretch to fill it"
    )
    height: Side | None = Field(
        default=None, validate_default=True, description="pixels; by default computed from the width"
    )
    fit: FitField = "inside"
    gravity: GravityField = None
    fill: Colour | None = Field(
        default=None,
        description="fit pad only: colour of the bars; by default background, or transparent with alpha",
    )
    enlarge: EnlargeField = False
    interpolation: Interpolation | None = Field(
        default=None,
        description="by default area for shrinking and linear for enlarging; all but nearest smooth what they shrink",
    )

    @field_validator("height")
    @classmethod
    def _bounded(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is None and info.data.get("width", 0) is None:
            raise ValueError("must be given when width is not")
        return value

    _fit = field_validator("fit")(check_fit)

    @field_validator("gravity")
    @classmethod
    def _placed(cls, value: str | None, info: ValidationInfo) -> str | None:
        return check_needs_fit(value, info, ("cover", "pad"))

    @field_validator("fill")
    @classmethod
    def _filled(cls, value: str | None, info: ValidationInfo) -> str | None:
        return check_needs_fit(value, info, ("pad",))


class Crop(Payload):
    """Cut out a rectangle that lies inside the image."""

    op: Literal["crop"]
    width: Side = Field(description="pixels")
    height: Side = Field(description="pixels")
    x: int | None = Field(default=None, ge=0, le=MAX_SIDE, description="left edge, pixels; centred by default")
    y: int | None = Field(default=None, ge=0, le=MAX_SIDE, description="top edge, pixels; centred by default")


class Rotate(Payload):
    """Rotate anticlockwise about the centre; multiples of 90 degrees move pixels without changing them."""

    op: Literal["rotate"]
    angle: float = Field(ge=-360, le=360, allow_inf_nan=False, description="degrees, anticlockwise")
    expand: bool = Field(
        default=True, description="enlarge the image to show all of it; false: keep the size and cut the corners"
    )
    fill: Colour | None = Field(
        default=None,
        description="colour of the corners, #rrggbb or #rrggbbaa; by default black, or transparent with alpha",
    )
    interpolation: Literal["nearest", "linear", "cubic", "lanczos"] = Field(
        default="linear", description="interpolation between pixels"
    )


class Flip(Payload):
    """Mirror the image."""

    op: Literal["flip"]
    direction: Literal["horizontal", "vertical", "both"] = Field(
        default="horizontal", description="horizontal swaps left and right"
    )


class Blur(Payload):
    """Blur with a kernel of 2 radius + 1 pixels."""

    op: Literal["blur"]
    method: Literal["gaussian", "median", "bilateral", "box"] = Field(
        default="gaussian", description="filter; median removes specks, bilateral keeps edges"
    )
    radius: int = Field(default=2, ge=1, le=250, description="pixels; at most 127 for median and 25 for bilateral")
    sigma: float | None = Field(
        default=None,
        gt=0,
        le=250,
        allow_inf_nan=False,
        description="gaussian only, pixels; by default derived from the radius",
    )
    sigma_colour: float = Field(
        default=50.0, gt=0, le=255, allow_inf_nan=False, description="bilateral only: colours further apart do not mix"
    )
    sigma_space: float = Field(
        default=50.0,
        gt=0,
        le=250,
        allow_inf_nan=False,
        description="bilateral only, pixels: distance at which weights fall off",
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
    """Unsharp mask: add the difference between the image and its Gaussian blur."""

    op: Literal["sharpen"]
    sigma: float = Field(default=1.0, ge=0.1, le=50, allow_inf_nan=False, description="of the blur, pixels")
    amount: Factor = Field(default=1.0, description="share of the difference to add; 0 changes nothing")
    threshold: int = Field(
        default=0, ge=0, le=255, description="largest difference, of 255, to leave unchanged, so that noise stays"
    )


class Edges(Payload):
    """Canny edge detection: white lines on black, one channel."""

    op: Literal["edges"]
    low: float = Field(
        default=100.0, ge=0, le=10_000, allow_inf_nan=False, description="gradients below this are not edges"
    )
    high: float = Field(
        default=200.0, ge=0, le=10_000, allow_inf_nan=False, description="gradients above this are always edges"
    )
    aperture: Literal[3, 5, 7] = Field(default=3, description="size of the Sobel operator, pixels")
    accurate: bool = Field(default=False, description="use the L2 norm of gradients instead of |x| + |y|")


class Threshold(Payload):
    """Convert to black and white, one channel."""

    op: Literal["threshold"]
    method: Literal["fixed", "otsu", "adaptive"] = Field(
        default="fixed", description="otsu computes the value; adaptive compares with the neighbourhood"
    )
    value: int = Field(default=127, ge=0, le=255, description="fixed only: brighter pixels become white")
    block: Annotated[int, Field(ge=3, le=999)] = Field(
        default=11, description="adaptive only: side of the neighbourhood, pixels, odd"
    )
    offset: float = Field(
        default=2.0,
        ge=-255,
        le=255,
        allow_inf_nan=False,
        description="adaptive only: subtracted from the neighbourhood's mean",
    )
    weights: Literal["mean", "gaussian"] = Field(
        default="mean", description="adaptive only: weights of the neighbourhood"
    )
    invert: bool = Field(default=False, description="swap black and white")

    _odd_block = field_validator("block")(_odd)


class Colours(Payload):
    """Change brightness, contrast, gamma, saturation and hue, in this order, as the CSS filters of these names do."""

    op: Literal["colour", "color"]
    brightness: Factor = Field(default=1.0, description="factor; 1 changes nothing")
    contrast: Factor = Field(default=1.0, description="factor, about middle gray")
    gamma: float = Field(default=1.0, ge=0.05, le=20, allow_inf_nan=False, description="above 1 brightens the shadows")
    saturation: Factor = Field(default=1.0, description="factor; 0 is gray")
    hue: float = Field(default=0.0, ge=-360, le=360, allow_inf_nan=False, description="rotation of the hue, degrees")


class Grayscale(Payload):
    """Convert to one channel, the brightness."""

    op: Literal["grayscale", "greyscale"]


class Sepia(Payload):
    """Tint brown, as old photographs are."""

    op: Literal["sepia"]
    amount: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False, description="0 changes nothing")


class Invert(Payload):
    """Invert the colours; alpha is unchanged."""

    op: Literal["invert"]


class Equalise(Payload):
    """Histogram equalisation of the brightness; colours keep their hue."""

    op: Literal["equalise", "equalize"]
    method: Literal["global", "clahe"] = Field(
        default="global", description="clahe works tile by tile with limited contrast"
    )
    clip_limit: float = Field(
        default=2.0, gt=0, le=100, allow_inf_nan=False, description="clahe only: limit of the contrast"
    )
    tiles: int = Field(default=8, ge=1, le=64, description="clahe only: number of tiles in each direction")


class Denoise(Payload):
    """Non-local means: average similar patches."""

    op: Literal["denoise"]
    strength: float = Field(
        default=3.0, gt=0, le=100, allow_inf_nan=False, description="higher values remove more noise and more detail"
    )
    colour_strength: float | None = Field(
        default=None,
        gt=0,
        le=100,
        allow_inf_nan=False,
        description="strength for colour noise; by default that of strength",
    )
    patch: Annotated[int, Field(ge=3, le=15)] = Field(default=7, description="side of a patch, pixels, odd")
    window: Annotated[int, Field(ge=3, le=49)] = Field(
        default=21, description="side of the search area, pixels, odd; the time grows with its square"
    )

    _odd_sides = field_validator("patch", "window")(_odd)


class Watermark(Payload):
    """Lay a text or another image over the image."""

    op: Literal["watermark"]
    text: str | None = Field(default=None, min_length=1, max_length=200, description="one line of text")
    image: Data | None = Field(
        default=None, validate_default=True, description="image file instead of text, as base64 or a blob"
    )
    position: Gravity = Field(default="bottom-right", description="position in the image")
    margin: int = Field(default=10, ge=0, le=MAX_SIDE, description="distance from the edges, pixels")
    opacity: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False, description="1 is opaque")
    scale: float = Field(
        default=0.25, ge=0.01, le=1, allow_inf_nan=False, description="width as a share of the image's width"
    )
    colour: Colour = Field(default="#ffffff", description="of the text, #rrggbb or #rrggbbaa")

    @field_validator("text")
    @classmethod
    def _drawable(cls, value: str | None) -> str | None:
        if value is not None and not (value.isprintable() and value.strip()):
            raise ValueError("must be one line of printable characters, not only spaces")
        return None if value is None else _left_to_right(unicodedata.normalize("NFC", value))

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
