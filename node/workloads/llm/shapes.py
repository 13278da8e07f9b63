"""Size classes: architectures of well-known sizes, for models with random weights (pure).

Each has the dimensions of a real model, so that it takes the same computation and memory traffic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SIZE = re.compile(r"[0-9]+(\.[0-9]+)?[MB]", re.IGNORECASE)


@dataclass(frozen=True)
class Shape:
    """The dimensions of a Llama: width, feed-forward width, layers, attention heads, key-value heads, vocabulary,
    whether input and output share their embedding, context length in tokens."""

    width: int
    inner: int
    layers: int
    heads: int
    cache_heads: int
    vocabulary: int
    tied: bool
    context: int

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        cache_width = self.width // self.heads * self.cache_heads
        layer = 2 * self.width * (self.width + cache_width) + 3 * self.width * self.inner + 2 * self.width
        return self.vocabulary * self.width * (1 if self.tied else 2) + self.layers * layer + self.width


SHAPES = {
    "135M": Shape(576, 1536, 30, 9, 3, 49_152, True, 8192),  # SmolLM2
    "360M": Shape(960, 2560, 32, 15, 5, 49_152, True, 8192),  # SmolLM2
    "1B": Shape(2048, 8192, 16, 32, 8, 128_256, True, 8192),  # Llama 3.2
    "3B": Shape(3072, 8192, 28, 24, 8, 128_256, True, 8192),  # Llama 3.2
    "7B": Shape(4096, 11_008, 32, 32, 32, 32_000, False, 4096),  # Llama 2
    "8B": Shape(4096, 14_336, 32, 32, 8, 128_256, False, 8192),  # Llama 3.1
    "13B": Shape(5120, 13_824, 40, 40, 40, 32_000, False, 4096),  # Llama 2
    "34B": Shape(8192, 22_016, 48, 64, 8, 32_000, False, 8192),  # Code Llama
    "70B": Shape(8192, 28_672, 80, 64, 8, 128_256, False, 8192),  # Llama 3.1
}


def is_size(name: str) -> bool:
    """Return whether a name is a size such as "7B", "1.7b" or "135M"."""
    return _SIZE.fullmatch(name) is not None


def shape_of(name: str) -> Shape:
    """The shape of the size class nearest to a size such as "7B". Raises: KeyError when `name` is not a size."""
    if name.upper() in SHAPES:
        return SHAPES[name.upper()]
    if not is_size(name):
        raise KeyError(name)
    return min(SHAPES.values(), key=lambda shape: abs(shape.parameters - size_of(name)))


def size_of(name: str) -> float:
    """The number of parameters of a size: "7B" -> 7e9."""
    return float(name[:-1]) * (1e9 if name[-1] in "bB" else 1e6)
