"""Any input: validation gives faults in plain words, image headers give a size or an InputFault."""

import hashlib
import struct
import zlib
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import BadInput
from mesh.kinds.crypto_mining import NONCES, CryptoMiningPayload, compact_problem, target_of
from mesh.kinds.faults import MAX_FAULTS
from mesh.kinds.image_operations import Resize
from mesh.kinds.image_sizes import MAX_PIXELS, fit
from mesh.kinds.table import KINDS, blob_ids, validate
from node.executor.context import InputFault
from node.workloads.crypto_mining import Search
from node.workloads.echo import filler
from node.workloads.image.header import read_header
from node.workloads.mining import sha256_lane
from tests.examples import examples

keys = st.text("abc é\n", max_size=6)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
@settings(max_examples=examples(150))
def test_any_payload_is_taken_or_refused_in_plain_words(kind, data):
    names = [*KINDS[kind].payload.model_fields, "other"]
    payload = data.draw(st.dictionaries(st.sampled_from(names), plain, max_size=5) | plain)
    try:
        taken = validate(kind, payload)
    except BadInput as error:
        assert 1 <= len(error.faults) <= MAX_FAULTS + 1
        for fault in error.faults:
            assert fault.field == "payload" or fault.field.startswith("payload.")
            assert fault.problem and "pydantic" not in fault.problem and "{" not in fault.problem
            assert "[" not in fault.field and "Input" not in fault.problem and fault.field.isprintable()
    else:
        assert isinstance(taken, KINDS[kind].payload)


@given(plain, st.lists(st.from_regex(r"b-[a-z0-9]{1,8}", fullmatch=True), max_size=4))
def test_every_blob_reference_is_found_once(value, ids):
    found = blob_ids([value, [{"deep": {"blob": blob}} for blob in ids]])
    assert found == tuple(dict.fromkeys(ids))


def png(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    frame = b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00"
    return b"\xff\xd8" + b"\xff\xe0\x00\x04xy" + frame + b"\xff\xda\xff\xd9"


def webp(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


side = st.integers(1, 65_535)


@given(make=st.sampled_from([png, jpeg, webp]), width=side, height=side)
def test_sizes_are_read_and_bombs_refused_before_decoding(make, width, height):
    if width * height > MAX_PIXELS:
        with pytest.raises(InputFault, match="million"):
            read_header(make(width, height))
    else:
        header = read_header(make(width, height))
        assert (header.format, header.width, header.height) == (make.__name__, width, height)


@given(make=st.sampled_from([png, jpeg, webp]), cut=st.integers(0, 100), noise=st.binary(max_size=60))
@settings(max_examples=examples(300))
def test_damaged_headers_raise_nothing_but_input_faults(make, cut, noise):
    whole = make(30, 20)
    for data in (whole[:cut], whole[:cut] + noise, noise, whole[:cut] + noise + whole[cut + len(noise) :]):
        try:
            header = read_header(data)
        except InputFault as fault:
            assert fault.field == "image"
        else:
            assert 0 < header.width * header.height <= MAX_PIXELS


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    want=st.tuples(st.none() | st.integers(1, 5000), st.none() | st.integers(1, 5000)).filter(any),
    keep=st.booleans(),
    enlarge=st.booleans(),
)
def test_fit_stays_in_the_box_and_keeps_the_aspect(width, height, want, keep, enlarge):
    asked = Resize(op="resize", width=want[0], height=want[1], keep_aspect=keep, enlarge=enlarge)
    new_width, new_height = fit((width, height), asked)
    assert new_width >= 1 and new_height >= 1
    if not enlarge:
        assert new_width <= width and new_height <= height
        want = tuple(side and min(side, old) for side, old in zip(want, (width, height), strict=True))
        if (new_width, new_height) == (width, height):
            return
    if want[0] and want[1] and not keep:
        assert (new_width, new_height) == want
        return
    assert (not want[0] or new_width <= want[0]) and (not want[1] or new_height <= want[1])
    assert want[0] == new_width or want[1] == new_height
    # Rounding moves each side by half a pixel at most.
    assert abs(new_width * height - new_height * width) <= (width + height) / 2 + max(width, height)


@given(compact=st.integers(0, (1 << 32) - 1))
def test_targets_are_hashes(compact):
    assert 0 <= target_of(compact) < 1 << 256


@given(size=st.integers(0, 255) | st.integers(0, 36), word=st.integers(0, (1 << 24) - 1) | st.integers(0, 0x1FFFF))
def test_a_compact_target_is_taken_when_it_is_a_positive_number_of_256_bits(size, word):
    """The value is mantissa x 256^(exponent - 3), as its definition says, and bit 23 its sign."""
    compact = size << 24 | word
    value = int(Fraction(word & 0x7FFFFF) * Fraction(256) ** (size - 3))
    problem = compact_problem(compact)
    assert (problem == "") == (0 < value < 1 << 256 and not word & 0x800000), problem
    assert (problem == "is zero") == (value == 0)
    if not problem:
        assert target_of(compact) == value
    header = "00" * 72 + compact.to_bytes(4, "little").hex()
    for more in ({"target_bits": 20}, {"target_hex": "ff"}):
        assert CryptoMiningPayload(header_hex=header, **more).target > 0, "nBits don't matter"
    if problem:
        with pytest.raises(ValueError, match=rf"{compact:#010x} \(nBits\), which {problem}: no hash can meet it"):
            CryptoMiningPayload(header_hex=header)
    else:
        assert CryptoMiningPayload(header_hex=header).target == value


@given(
    start=st.none() | st.integers(0, NONCES - 1),
    count=st.none() | st.integers(1, NONCES),
    seconds=st.none() | st.floats(0.01, 3600),
    block=st.none() | st.just("genesis"),
)
def test_nonces_stay_in_their_field_and_something_ends_the_search(start, count, seconds, block):
    payload = CryptoMiningPayload(nonce_start=start, nonce_count=count, seconds=seconds, block=block)
    first, end = payload.nonces
    assert 0 <= first < end <= NONCES
    assert start is None or first == start
    assert count is None or end - first <= count
    if start is None and count is None and block is None:
        assert payload.limit_s


header76 = st.binary(min_size=76, max_size=76)


def double(header: bytes, nonce: int) -> bytes:
    whole = header + nonce.to_bytes(4, "little")
    return hashlib.sha256(hashlib.sha256(whole).digest()).digest()[::-1]


@given(header=header76, start=st.integers(0, NONCES - 300), count=st.integers(1, 300), bits=st.integers(0, 12))
def test_scan_agrees_with_hashlib_one_by_one(header, start, count, bits):
    target = (1 << (256 - bits)) - 1
    hashes = {nonce: double(header, nonce) for nonce in range(start, start + count)}
    expected = next((n for n, digest in hashes.items() if int.from_bytes(digest, "big") <= target), -1)
    done, found, best_nonce, best = sha256_lane.scan(header, start, count, target)
    assert found == expected
    assert done == (found - start + 1 if found >= 0 else count)
    assert (best, best_nonce) == min((hashes[n], n) for n in range(start, start + done))


@given(
    first=st.integers(0, 1000),
    size=st.integers(1, 5000),
    solutions=st.sets(st.integers(0, 6000), max_size=3),
    lanes=st.integers(1, 4),
    order=st.randoms(use_true_random=False),
)
def test_the_lowest_solution_wins_whichever_lane_is_faster(first, size, solutions, lanes, order):
    search = Search(first, first + size, piece=100)
    search.piece = 100
    out = {}

    def feed(lane):
        piece = search.take(lane)
        if piece is not None:
            out[lane] = piece
        # Pieces grow after the first one; the test needs many.
        search.piece = 100

    for lane in range(lanes):
        feed(lane)
    while search.open:
        lane = order.choice(sorted(out))
        start, count = out.pop(lane)
        hit = min((s for s in solutions if start <= s < start + count), default=-1)
        search.put(lane, (hit - start + 1 if hit >= 0 else count, hit, start, bytes(32)))
        feed(lane)
    assert search.found == min((s for s in solutions if first <= s < first + size), default=None)


@given(seed=st.integers(0, (1 << 63) - 1), size=st.integers(1, 5000))
def test_filler_has_the_requested_size_and_depends_on_its_seed(seed, size):
    assert len(filler(seed, size)) == size and filler(seed, size) == filler(seed, size)
