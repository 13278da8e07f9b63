"""The fields that say how an image fits a box of width x height: in the operation `resize` and in its short form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo

Gravity = Literal["top-left", "top", "top-right", "left", "center", "right", "bottom-left", "bottom", "bottom-right"]
Fit = Literal["inside", "cover", "pad"]

FitField = Annotated[
    Fit,
    Field(
        description="with width and height: inside the box; cover it and crop the rest; inside it with bars (pad)",
    ),
]
GravityField = Annotated[
    Gravity | None,
    Field(description="fit cover and pad only: the part to keep, or the image's place; by default center"),
]
EnlargeField = Annotated[
    bool, Field(description="scale small images up too; by default no side becomes longer than the image's own")
]


def check_fit(value: Fit, info: ValidationInfo) -> Fit:
    """Raises: ValueError when `cover` or `pad` has no box, or the box is stretched to."""
    if value != "inside":
        if info.data.get("width", 0) is None or info.data.get("height", 0) is None:
            raise ValueError(f"{value} needs width and height")
        if not info.data.get("keep_aspect", True):
            raise ValueError(f"can't be {value} with keep_aspect false, which stretches the image")
    return value


def check_needs_fit(value: Any, info: ValidationInfo, fits: tuple[str, ...]) -> Any:
    """Raises: ValueError when `value` is given and the fit is valid and none of `fits`."""
    if value is not None and info.data.get("fit", fits[0]) not in fits:
        raise ValueError(f"applies to fit {' and '.join(fits)} only")
    return value


def box_position(gravity: str, room: tuple[int, int]) -> tuple[int, int]:
    """(x, y) of a part inside a whole that is larger by `room` pixels, at the side or corner of `gravity` (pure)."""
    words = gravity.split("-")
    x = 0 if "left" in words else room[0] if "right" in words else room[0] // 2
    y = 0 if "top" in words else room[1] if "bottom" in words else room[1] // 2
    return x, y
