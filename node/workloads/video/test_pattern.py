"""Generates the moving test picture: panning textures, moving discs and grain, identical on every machine.

It uses only integer arithmetic on a fixed hash. The upper left corner of each frame shows its number as blocks, so that
frames can be identified in a video.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av
    import numpy as np

#: Textures repeat after this many pixels.
TILE = 512
GRAIN = 6
NUMBER_BITS = 24
_DISCS = 6


def frames(size: tuple[int, int], fps: Fraction, count: int) -> Iterator[av.VideoFrame]:
    """`count` frames of `size` (width, height) in yuv420p; a frame's number is its time stamp in units of 1/fps."""
    import av

    scene = Scene(*size)
    for number in range(count):
        frame = av.VideoFrame(*size, "yuv420p")
        for plane, pixels in zip(frame.planes, scene.picture(number), strict=True):
            _view(plane)[:] = pixels
        frame.pts, frame.time_base = number, 1 / fps
        yield frame


def _view(plane: Any) -> np.ndarray:
    import numpy as np

    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


class Scene:
    """Draws the frames of one size; both sides must be even."""

    def __init__(self, width: int, height: int) -> None:
        import numpy as np

        self._width, self._height = width, height
        reach = (height + TILE, width + TILE)
        tiles = [_texture(seed) for seed in (1, 2)]
        repeats = (-(-reach[0] // TILE), -(-reach[1] // TILE))
        self._back, self._front = (np.tile(tile, repeats)[: reach[0], : reach[1]] for tile in tiles)
        noise = (_hash(np.arange(TILE * TILE, dtype=np.uint32) + np.uint32(77)) % (2 * GRAIN + 1)).astype(np.uint8)
        self._grain = np.tile(noise.reshape(TILE, TILE) - np.uint8(GRAIN), repeats)[: reach[0], : reach[1]]
        smooth = _texture(3, octaves=2)
        self._tint = np.tile(smooth, repeats)[: reach[0], : reach[1]]
        self._radius = max(8, min(width, height) // 8)
        across = np.arange(-self._radius, self._radius)
        self._disc = across[:, None] ** 2 + across[None, :] ** 2 < self._radius**2

    def picture(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The luma plane and the two half-size chroma planes of one frame, uint8."""
        import numpy as np

        luma = self._at(self._back, number * 2, number).copy()
        for disc in range(_DISCS):
            self._draw(luma, disc, number)
        shift = int(_hash(np.array([number], np.uint32))[0])
        # Grain below 0 wraps around: adding it subtracts, since the textures stay away from both ends of the range.
        luma += self._at(self._grain, shift, shift // TILE)
        draw_number(luma, number)
        blue = self._at(self._tint, number, 0)[::2, ::2]
        red = self._at(self._tint, TILE // 2, number)[::2, ::2]
        return luma, blue // 2 + np.uint8(64), red // 2 + np.uint8(64)

    def _at(self, layer: np.ndarray, x: int, y: int) -> np.ndarray:
        x, y = x % TILE, y % TILE
        return layer[y : y + self._height, x : x + self._width]

    def _draw(self, luma: np.ndarray, disc: int, number: int) -> None:
        import numpy as np

        size = 2 * self._radius
        left = _to_and_fro(disc * 97 + number * (disc + 2), self._width - size)
        top = _to_and_fro(disc * 61 + number * (3 - disc % 3), self._height - size)
        texture = self._front[disc * 40 : disc * 40 + size, disc * 30 : disc * 30 + size]
        here = luma[top : top + size, left : left + size]
        rows, columns = here.shape
        np.copyto(here, texture[:rows, :columns], where=self._disc[:rows, :columns])


def _to_and_fro(way: int, room: int) -> int:
    """The position of a point that moves back and forth between 0 and `room`."""
    room = max(1, room)
    place = way % (2 * room)
    return place if place < room else 2 * room - 1 - place


def _hash(values: np.ndarray) -> np.ndarray:
    """The 32-bit finaliser of MurmurHash3 for each value, in wrapping unsigned arithmetic."""
    import numpy as np

    mixed = values ^ (values >> np.uint32(16))
    mixed = mixed * np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed = mixed * np.uint32(0xC2B2AE35)
    return mixed ^ (mixed >> np.uint32(16))


@cache
def _texture(seed: int, octaves: int = 7) -> np.ndarray:
    """A seamless square texture of TILE pixels: noise of several scales, values 32 to 223."""
    import numpy as np

    total = np.zeros((TILE, TILE), np.int64)
    for octave in range(octaves):
        cells = 4 << octave
        index = np.arange(cells * cells, dtype=np.uint32) + np.uint32(seed * 1_000_003 + octave * 7919)
        total += _enlarged((_hash(index) >> np.uint32(24)).astype(np.int64).reshape(cells, cells)) * (octaves - octave)
    low, high = int(total.min()), int(total.max())
    return (32 + (total - low) * 191 // (high - low)).astype(np.uint8)


def _enlarged(grid: np.ndarray) -> np.ndarray:
    """`grid` enlarged to TILE by linear interpolation that wraps around the edges."""
    import numpy as np

    step = TILE // len(grid)
    part = np.arange(TILE) % step
    for axis in (0, 1):
        near = np.repeat(grid, step, axis)
        far = np.repeat(np.roll(grid, -1, axis), step, axis)
        share = part[:, None] if axis == 0 else part[None, :]
        grid = (near * (step - share) + far * share) // step
    return grid


def block_side(width: int) -> int:
    """The side of a block of the number, pixels."""
    return max(2, width // 64 * 2)


def draw_number(luma: np.ndarray, number: int) -> None:
    """Draw `number` into the upper left corner, lowest bit first; white is 1."""
    side = block_side(luma.shape[1])
    for bit in range(NUMBER_BITS):
        luma[:side, bit * side : (bit + 1) * side] = 235 if number >> bit & 1 else 16


def read_number(luma: np.ndarray) -> int:
    """The drawn number, which survives encoding and scaling."""
    side = block_side(luma.shape[1])
    inner = slice(side // 4, side - side // 4)
    blocks = (luma[inner, bit * side : (bit + 1) * side][:, inner] for bit in range(NUMBER_BITS))
    return sum((block.mean() > 125) << bit for bit, block in enumerate(blocks))
