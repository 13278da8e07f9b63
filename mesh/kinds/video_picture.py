"""How the pictures of a video must be shown: the facts that the encoder needs, the same for all parts of a video."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from pydantic import Field

from mesh.kinds.base import Payload

#: The eight ways to turn and mirror a picture into an upright one, by right angles.
Turn = Literal[
    "none", "mirror", "flip", "rotate_180", "rotate_left", "rotate_right", "transpose", "transverse",
]  # fmt: skip
FieldOrder = Literal["progressive", "top_first", "bottom_first"]

#: The turn for the signs (-1, 0 or 1) of the display matrix's elements a, b, c, d, which map the point (x, y) of the
#: stored picture to (a x + c y, b x + d y) of the shown one; y counts downwards.
TURNS: dict[tuple[int, int, int, int], Turn] = {
    (1, 0, 0, 1): "none",
    (-1, 0, 0, 1): "mirror",
    (1, 0, 0, -1): "flip",
    (-1, 0, 0, -1): "rotate_180",
    (0, -1, 1, 0): "rotate_left",
    (0, 1, -1, 0): "rotate_right",
    (0, 1, 1, 0): "transpose",
    (0, -1, -1, 0): "transverse",
}
#: Turns that exchange width and height.
SIDEWAYS = frozenset(("rotate_left", "rotate_right", "transpose", "transverse"))
#: Turns that exchange odd and even lines of a picture with an even number of lines.
LINES_REVERSED = frozenset(("flip", "rotate_180"))
#: The largest share of the other axis in a matrix that still counts as a right angle: 1 degree, as in FFmpeg's tools.
_SKEW = 0.0175


def turn_of(matrix: tuple[int, ...]) -> Turn | None:
    """The turn of a display matrix: nine numbers as in a QuickTime track header; None for any other angle."""
    a, b, _, c, d = matrix[:5]
    size = max(abs(number) for number in (a, b, c, d))
    if not size:
        return None
    signs = [0 if abs(number) <= _SKEW * size else 1 if number > 0 else -1 for number in (a, b, c, d)]
    return TURNS.get((signs[0], signs[1], signs[2], signs[3]))


class Mastering(Payload):
    """The mastering display of an HDR video (SMPTE ST 2086)."""

    red: tuple[int, int] = Field(description="x and y of the red primary, in units of 0.00002")
    green: tuple[int, int] = Field(description="x and y of the green primary, in units of 0.00002")
    blue: tuple[int, int] = Field(description="x and y of the blue primary, in units of 0.00002")
    white: tuple[int, int] = Field(description="x and y of the white point, in units of 0.00002")
    luminance: tuple[int, int] = Field(description="greatest and least luminance, in units of 0.0001 cd/m²")


class Picture(Payload):
    """How the pictures of a video must be shown."""

    turn: Turn = Field(default="none", description="how to turn the stored picture upright")
    matrix: tuple[int, int, int, int, int, int, int, int, int] | None = Field(
        default=None, description="the display matrix when it is no turn by right angles, as in a QuickTime header"
    )
    aspect: str = Field(
        default="1/1", pattern=r"^[1-9]\d{0,9}/[1-9]\d{0,9}$", description="width over height of a stored pixel"
    )
    fields: FieldOrder = Field(default="progressive", description="the order of the fields of interlaced pictures")
    colour: tuple[int, int, int, int] = Field(
        default=(2, 2, 2, 0), description="primaries, transfer, matrix and range, as FFmpeg numbers them"
    )
    mastering: Mastering | None = Field(default=None, description="mastering display of an HDR video")
    light: tuple[int, int] | None = Field(
        default=None, description="greatest light level of a pixel and of a frame's average, cd/m²"
    )

    packing: int | None = Field(
        default=None,
        ge=0,
        le=5,
        description="how both eyes of a stereoscopic video share a picture, as H.264 numbers it",
    )

    @property
    def pixel_aspect(self) -> Fraction:
        """`aspect` as a number."""
        return Fraction(self.aspect)

    @property
    def interlaced(self) -> bool:
        """Whether a picture consists of two fields of different times."""
        return self.fields != "progressive"
