"""Tasks of every kind and of many lengths, each with its expected result, computed without the mesh."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

from mesh.client import Mesh
from mesh.kinds.crypto_mining import GENESIS_HEADER_HEX
from mesh.messages import TaskEnd
from tests.invariants import Expected

Task = tuple[str, dict[str, Any], Expected]


def mixed(count: int, seed: int = 1) -> list[Task]:
    """`count` tasks: seven of ten are echoes (some sleep up to 1.5 s), the rest compute."""
    make: list[Callable[[int, random.Random], Task]] = [_echo] * 14 + [_crypto] * 2 + [_science] * 2 + [_image] * 2
    chance = random.Random(seed)
    return [make[number % len(make)](number, chance) for number in range(count)]


async def submit_all(mesh: Mesh, tasks: list[Task], **options: Any) -> dict[str, Expected]:
    """Task id -> its expected result; every task is durable when this returns."""
    accepted = {}
    for kind, payload, expected in tasks:
        handle = await mesh.start(kind, payload, **options)
        accepted[handle.id] = expected
    return accepted


def done(end: TaskEnd) -> None:
    """The task has a result."""
    assert end.state == "done", f"{end.id} {end.state}: {end.error}"


def cancelled(end: TaskEnd, _: Any) -> None:
    """The task was cancelled."""
    assert end.state == "cancelled", end


def echoed(value: Any) -> Expected:
    """The task is done and has the value as its result."""

    def expected(end: TaskEnd, result: Any) -> None:
        done(end)
        assert result == {"value": value}, result

    return expected


def _echo(number: int, chance: random.Random) -> Task:
    sleep_s = 0.0 if number % 3 else chance.choice([0.02, 0.1, 0.3, 1.5])
    return "echo", {"value": [number, "ü"], "sleep_s": sleep_s}, echoed([number, "ü"])


def _crypto(number: int, chance: random.Random) -> Task:
    first, count = chance.randrange(1 << 31), 600
    header = bytes.fromhex(GENESIS_HEADER_HEX)[:76]
    nonce = next((n for n in range(first, first + count) if _hash(header, n)[0] == 0), None)

    def expected(end: TaskEnd, result: Any) -> None:
        done(end)
        assert result["nonce"] == nonce and result["found"] is (nonce is not None), (result, nonce)
        if nonce is not None:
            assert bytes.fromhex(result["hash_hex"]) == _hash(header, nonce)

    return "crypto_mining", {"nonce_start": first, "nonce_count": count, "target_bits": 8}, expected


def _hash(header: bytes, nonce: int) -> bytes:
    """Double SHA-256, most significant byte first."""
    once = hashlib.sha256(header + nonce.to_bytes(4, "little")).digest()
    return hashlib.sha256(once).digest()[::-1]


def _science(number: int, chance: random.Random) -> Task:
    operation, n = chance.choice(["lu_solve", "matmul", "fft"]), chance.choice([32, 64])

    def expected(end: TaskEnd, result: Any) -> None:
        done(end)
        found = (result["operation"], result["n"], result["seed"], result["passed"])
        assert found == (operation, n, number, True) and 0 <= result["residual"] < 16, result

    return "scientific_computing", {"operation": operation, "n": n, "seed": number}, expected


def _image(number: int, chance: random.Random) -> Task:
    import cv2
    import numpy as np

    height, width = chance.choice([(24, 32), (60, 40)])
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    form = chance.choice(["png", "jpeg", "webp"])
    file = cv2.imencode(f".{form}", pixels)[1].tobytes()
    decoded = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    wanted = cv2.GaussianBlur(cv2.resize(decoded, (width // 2, height // 2), interpolation=cv2.INTER_AREA), (3, 3), 0)

    def expected(end: TaskEnd, result: Any) -> None:
        done(end)
        assert end.content_type == "image/png", end.content_type
        assert np.array_equal(cv2.imdecode(np.frombuffer(result, np.uint8), cv2.IMREAD_UNCHANGED), wanted)

    payload = {"image": file, "width": width // 2, "height": height // 2, "blur": 1, "format": "png"}
    return "image_processing", payload, expected
