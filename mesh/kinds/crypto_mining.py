"""The contract of `crypto_mining`: a search for a nonce whose double SHA-256, as in Bitcoin, meets a target."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from mesh.kinds.base import KindSpec, Need, Payload, Resources

#: The header of Bitcoin's first block without its nonce (76 bytes), and the nonce that solves it.
GENESIS_HEADER_HEX = (
    "01000000" + "00" * 32 + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d"
)
GENESIS_NONCE = 2083236893

NONCES = 1 << 32
HEADER_BYTES = 80
DEFAULT_SECONDS = 1.0
#: Default start of a search for the genesis block: this far below the known nonce.
GENESIS_LEAD = 500_000

_HEX = re.compile(r"[0-9A-Fa-f]{1,64}")


def _upper(value: Any) -> Any:
    return value.upper().replace("-", "") if isinstance(value, str) else value


class CryptoMiningPayload(Payload):
    """Payload of `crypto_mining`. Without a range and a time limit, it hashes for one second to measure the rate."""

    algorithm: Annotated[Literal["SHA256", "SHA256D"], BeforeValidator(_upper)] = Field(
        default="SHA256", description="both names mean SHA-256 applied twice, as block headers are hashed"
    )
    block: Literal["genesis"] | None = Field(
        default=None,
        description="mine Bitcoin's first block; unless nonce_start or seconds is given, the search covers a "
        "million nonces around the solution",
    )
    nonce_start: int | None = Field(default=None, ge=0, lt=NONCES, description="first nonce to try")
    nonce_count: int | None = Field(
        default=None, ge=1, le=NONCES, description="number of nonces to try; they end at 2**32"
    )
    seconds: float | None = Field(default=None, gt=0, le=3600, allow_inf_nan=False, description="time limit, seconds")
    target_bits: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="required leading zero bits of the hash; 256: no hash has them, to measure the rate",
    )
    target_hex: str | None = Field(
        default=None, description="largest hash, as a number, that meets the target; up to 64 hexadecimal digits"
    )
    header_hex: str | None = Field(
        default=None,
        description="block header in hex, 76 or 80 bytes; the last 4 of 80 bytes are replaced. Without target_bits and "
        "target_hex its bytes 72 to 75 (nBits) are the target, of any chain, which must not be negative, zero or more "
        "than 256 bits",
    )
    device: Literal["cpu", "gpu"] = Field(
        default="cpu",
        description="where hashes are computed; gpu requires PyTorch and an NVIDIA GPU: select such a node with "
        'requires {"accelerator": "cuda"}',
    )

    @field_validator("header_hex")
    @classmethod
    def _header(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if info.data.get("block"):
            raise ValueError("must be left out when block is given")
        try:
            size = len(bytes.fromhex(value))
        except ValueError:
            raise ValueError("must be hexadecimal, two digits per byte") from None
        if size not in (HEADER_BYTES - 4, HEADER_BYTES):
            raise ValueError(f"must be 76 or 80 bytes long, not {size}")
        # An invalid field is missing here; its own error is reported instead.
        if all(info.data.get(name, "invalid") is None for name in ("target_bits", "target_hex")):
            compact = int.from_bytes(bytes.fromhex(value)[72:76], "little")
            if problem := compact_problem(compact):
                raise ValueError(f"has the target {compact:#010x} (nBits), which {problem}: no hash can meet it")
        return value

    @field_validator("target_hex")
    @classmethod
    def _one_target(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not _HEX.fullmatch(value):
            raise ValueError("must be 1 to 64 hexadecimal digits")
        if value is not None and info.data.get("target_bits") is not None:
            raise ValueError("must be left out when target_bits is given")
        if value is not None and int(value, 16) == 0:
            raise ValueError("must be more than 0, which no hash meets")
        return value

    @property
    def header(self) -> bytes:
        """The 76 bytes before the nonce."""
        return bytes.fromhex(self.header_hex or GENESIS_HEADER_HEX)[: HEADER_BYTES - 4]

    @property
    def target(self) -> int:
        """The largest hash, as a little-endian number, that meets the target; by default the header's own."""
        if self.target_bits is not None:
            return (1 << (256 - self.target_bits)) - 1
        if self.target_hex is not None:
            return int(self.target_hex, 16)
        return target_of(int.from_bytes(self.header[72:76], "little"))

    @property
    def nonces(self) -> tuple[int, int]:
        """(first, end) of the range to search; end is at most 2**32."""
        genesis = self.nonce_start is None and self.seconds is None and self.block == "genesis"
        first = GENESIS_NONCE - GENESIS_LEAD if genesis else self.nonce_start or 0
        count = self.nonce_count or (2 * GENESIS_LEAD if genesis else NONCES)
        return first, min(NONCES, first + count)

    @property
    def limit_s(self) -> float | None:
        """The time limit in seconds; None: only the range limits the search."""
        if self.seconds is None and self.nonce_count is None and self.block is None:
            return DEFAULT_SECONDS
        return self.seconds


def compact_problem(compact: int) -> str:
    """Why no hash can meet a header's compact target, as a phrase ("is zero"); "" when one can.

    The conditions under which Bitcoin Core refuses it (`arith_uint256::SetCompact`), except for the limit of its chain.
    """
    size, word = compact >> 24, compact & 0x007FFFFF
    if size <= 3:
        word >>= 8 * (3 - size)
    if not word:
        return "is zero"
    if compact & 0x00800000:
        return "is negative"
    overflows = size > 34 or (word > 0xFF and size > 33) or (word > 0xFFFF and size > 32)
    return "has more than 256 bits" if overflows else ""


def target_of(compact: int) -> int:
    """The target encoded by a header's compact "bits" field: 3 bytes of mantissa, 1 of exponent."""
    exponent, mantissa = compact >> 24, compact & 0x007FFFFF
    shift = 8 * (exponent - 3)
    return min((1 << 256) - 1, mantissa << shift if shift >= 0 else mantissa >> -shift)


SPEC = KindSpec(
    name="crypto_mining",
    summary="Search the nonces of a block header for a double SHA-256 that meets a target, on all cores.",
    payload=CryptoMiningPayload,
    resources=Resources(cores="all", memory_mb=512),
    timeout_s=3900.0,
    example={"algorithm": "SHA256", "seconds": 0.5},
    gains=(Need("llvmlite", "mining"),),
    probe={"nonce_count": 2_000_000, "target_bits": 200},
)
