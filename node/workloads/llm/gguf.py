"""Reads the header of a GGUF file, which describes the model, without loading it.

llama.cpp has to load a file to describe it, and the `gguf` package takes seconds for a vocabulary. The header is not
trusted: every length is checked against the size of the file.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

#: The `struct` formats of value types with a fixed size, by type number; 8 is a text, 9 a list.
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
#: Longer lists (vocabularies) are skipped.
_KEPT = 1024
_MOST_ENTRIES = 100_000
_MOST_DIMENSIONS = 4
#: The largest plausible value of a model's sizes.
_MOST = 1 << 31


@dataclass(frozen=True)
class Head:
    """The properties of a model according to its GGUF file. Sizes in bytes, lengths in tokens."""

    architecture: str
    parameters: int
    weight_bytes: int
    tensor_type: int
    """ggml's number of the most frequent type of weights"""
    context: int
    """the context length it was trained with"""
    cache_bytes: int
    """size of the attention cache per token, at 16 bits"""
    vocabulary: int
    chat: bool
    """whether it has a chat template"""


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def take(self, form: str) -> Any:
        values = struct.unpack_from("<" + form, self._data, self._at)
        self._at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise ValueError("it is truncated")

    def text(self) -> str:
        length, start = self.take("Q"), self._at
        self.skip(length)
        return self._data[start : self._at].decode(errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            inner, count = self.take("IQ")
            if inner in _FORMATS:
                if count <= _KEPT:
                    return [self.take(_FORMATS[inner]) for _ in range(count)]
                return self.skip(count * struct.calcsize(_FORMATS[inner]))
            if inner != _TEXT:
                raise ValueError("it has a list of an unknown type")
            for _ in range(count):
                self.skip(self.take("Q"))
            return None
        if kind not in _FORMATS:
            raise ValueError("it has a value of an unknown type")
        return self.take(_FORMATS[kind])

    @property
    def at(self) -> int:
        return self._at


def read_head(path: Path) -> Head:
    """The header of the file. Raises: ValueError with a clause ("it is truncated"); OSError."""
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError("it has no GGUF signature")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _head(_Reader(data), len(data))
            except struct.error:
                raise ValueError("it is truncated") from None
            except (TypeError, ZeroDivisionError, OverflowError):
                raise ValueError("its header is invalid") from None


def _head(reader: _Reader, size: int) -> Head:
    reader.skip(4)
    version, tensors, entries = reader.take("IQQ")
    if version not in (2, 3) or tensors > _MOST_ENTRIES or entries > _MOST_ENTRIES:
        raise ValueError(f"it has version {version}, or its header is invalid")
    facts = {}
    for _ in range(entries):
        name = reader.text()
        facts[name] = reader.value(reader.take("I"))
    numbers: Counter[int] = Counter()
    vocabulary = 0
    for _ in range(tensors):
        name, dimensions = reader.text(), reader.take("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise ValueError("its header is invalid")
        shape = [reader.take("Q") for _ in range(dimensions)]
        numbers[reader.take("I")] += prod(shape)
        reader.take("Q")
        if name == "token_embd.weight":
            vocabulary = shape[-1]
    if not numbers:
        raise ValueError("it has no weights")
    return _described(facts, numbers, vocabulary, size - reader.at)


def _described(facts: dict[str, Any], numbers: Counter[int], vocabulary: int, weight_bytes: int) -> Head:
    architecture = str(facts.get("general.architecture", ""))

    def fact(name: str, default: int, least: int = 0) -> int:
        value = facts.get(f"{architecture}.{name}", default)
        # Some models have one number per layer.
        number = max(value, default=default) if isinstance(value, list) else value
        if type(number) is not int or not least <= number <= _MOST:
            raise ValueError(f"its {name} is invalid")
        return number

    heads = fact("attention.head_count", 1, 1)
    width = fact("embedding_length", 0) // heads
    per_layer = fact("attention.head_count_kv", heads) * (
        fact("attention.key_length", width) + fact("attention.value_length", width)
    )
    return Head(
        architecture,
        numbers.total(),
        weight_bytes,
        numbers.most_common(1)[0][0],
        fact("context_length", 2048, 1),
        fact("block_count", 0) * per_layer * 2,
        vocabulary,
        bool(facts.get("tokenizer.chat_template")),
    )
