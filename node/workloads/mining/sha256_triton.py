"""The Triton kernel of `sha256_gpu`. Triton is part of PyTorch's CUDA builds.

Only `sha256_gpu` imports this file, right before it hashes: the import loads Triton, and a kernel must be at the top
level of a file. Implements FIPS 180-4; the words of a message move through a tuple of sixteen.
"""

# Triton compiles these functions by its own rules, and PyTorch's CPU builds come without it:
# pyrefly: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rotate(x, bits: tl.constexpr):
    return (x >> bits) | (x << (32 - bits))


@triton.jit
def _swap(x):
    return (x >> 24) | ((x >> 8) & 0xFF00) | ((x << 8) & 0xFF0000) | (x << 24)


@triton.jit
def _word(words, place):
    return tl.load(words + place).to(tl.uint32, bitcast=True)


@triton.jit
def _rounds(w, state, words, rounds: tl.constexpr):
    """The state after `rounds` rounds over the 16 words `w`, before `state` is added."""
    a, b, c, d, e, f, g, h = state
    for t in tl.static_range(rounds):
        if t < 16:
            x = w[t]
        else:
            p, q = w[1], w[14]
            low = _rotate(p, 7) ^ _rotate(p, 18) ^ (p >> 3)
            high = _rotate(q, 17) ^ _rotate(q, 19) ^ (q >> 10)
            x = w[0] + low + w[9] + high
            w = (w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15], x)
        first = h + (_rotate(e, 6) ^ _rotate(e, 11) ^ _rotate(e, 25)) + (g ^ (e & (f ^ g))) + x + _word(words, 20 + t)
        second = (_rotate(a, 2) ^ _rotate(a, 13) ^ _rotate(a, 22)) + ((a & b) | (c & (a | b)))
        a, b, c, d, e, f, g, h = first + second, a, b, c, d + first, e, f, g
    return a, b, c, d, e, f, g, h


@triton.jit
def search(words, hits, count, CAPACITY: tl.constexpr, BLOCK: tl.constexpr):
    """Write the nonces whose hash has a most significant word of at most the limit into `hits`.

    `words`, of 32 bits: 8 of SHA-256's initial state, 8 of the state after the header's first block, 3 of the header
    after that block, the first nonce, 64 round constants, the limit. `hits`: the number of hits, then up to CAPACITY.
    """
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    nonce = offset.to(tl.uint32) + _word(words, 19)
    zero = nonce ^ nonce
    s = (
        zero + _word(words, 8), zero + _word(words, 9), zero + _word(words, 10), zero + _word(words, 11),
        zero + _word(words, 12), zero + _word(words, 13), zero + _word(words, 14), zero + _word(words, 15),
    )  # fmt: skip
    i = (
        zero + _word(words, 0), zero + _word(words, 1), zero + _word(words, 2), zero + _word(words, 3),
        zero + _word(words, 4), zero + _word(words, 5), zero + _word(words, 6), zero + _word(words, 7),
    )  # fmt: skip
    one_bit = (zero + 0x80) << 24
    m = (
        zero + _word(words, 16), zero + _word(words, 17), zero + _word(words, 18), _swap(nonce),
        one_bit, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero + 640,
    )  # fmt: skip
    a, b, c, d, e, f, g, h = _rounds(m, s, words, 64)
    m = (
        a + s[0], b + s[1], c + s[2], d + s[3], e + s[4], f + s[5], g + s[6], h + s[7],
        one_bit, zero, zero, zero, zero, zero, zero, zero + 256,
    )  # fmt: skip
    # The last three rounds don't change the word with the most significant bytes.
    a, b, c, d, e, f, g, h = _rounds(m, i, words, 61)
    top = _swap(e + i[7])
    hit = (top <= _word(words, 84)) & (offset < count)
    slot = tl.atomic_add(hits + offset * 0, 1, mask=hit)
    tl.store(hits + 1 + slot, nonce.to(tl.int32, bitcast=True), mask=hit & (slot < CAPACITY))
