"""The machine code for SHA-256d: the same answers as hashlib, and a fallback where LLVM is not installed."""

import logging
import random
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.kinds.crypto_mining import GENESIS_HEADER_HEX, GENESIS_NONCE
from mesh.kinds.table import validate
from node.executor.context import Context, load
from node.workloads import crypto_mining
from node.workloads.mining import sha256_lane, sha256_vector

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def kernel():
    made = sha256_vector.kernel()
    assert made is not None
    return made


@pytest.fixture
def run(tmp_path):
    def call(payload, cores=1, **more):
        return load("crypto_mining")(validate("crypto_mining", payload), Context(cores, tmp_path, **more))

    return call


def test_machine_code_gives_what_hashlib_gives(kernel):
    chance = random.Random(7)
    for bits in (256, 232, 240, 244, 256 - 32, 256 - 33, 0):
        for count in (0, 1, kernel.lanes - 1, kernel.lanes, kernel.lanes + 1, 5000):
            header, start = chance.randbytes(76), chance.randrange((1 << 32) - count)
            for target in ((1 << bits) - 1, chance.getrandbits(bits)):
                arguments = (header, start, count, target)
                assert kernel.scan(*arguments) == sha256_lane.scan(*arguments), arguments


def test_the_range_up_to_the_last_nonce_can_be_searched(kernel):
    header, count = bytes.fromhex(GENESIS_HEADER_HEX)[:76], 1000
    arguments = (header, (1 << 32) - count, count, (1 << 250) - 1)
    assert kernel.scan(*arguments) == sha256_lane.scan(*arguments)


@pytest.mark.parametrize("cores", [1, 2])
def test_genesis_nonce_is_found_by_machine_code(run, kernel, cores):
    result = run({"block": "genesis"}, cores)
    assert (result["found"], result["nonce"], result["engine"]) == (True, GENESIS_NONCE, kernel.name)
    assert result["hash_hex"].startswith("000000000019d6689c085ae165831e93")


def test_both_engines_search_a_whole_range_and_agree(run, kernel, monkeypatch):
    payload = {"header_hex": GENESIS_HEADER_HEX, "nonce_start": 9, "nonce_count": 400_001, "target_bits": 70}
    fast, faster = run(payload), run(payload, 3)
    monkeypatch.setattr(crypto_mining.sha256_vector, "kernel", lambda: None)
    slow = run(payload, 2)
    assert slow["engine"] == "hashlib" != fast["engine"]
    for key in ("hashes", "found", "best_nonce", "best_hash_hex"):
        assert slow[key] == fast[key] == faster[key], key


def test_a_small_search_does_not_wait_for_the_compiler(run, monkeypatch):
    monkeypatch.setattr(crypto_mining.sha256_vector, "is_compiled", lambda: False)
    assert run({"nonce_count": 1000, "target_bits": 70})["engine"] == "hashlib"


def test_machine_code_that_computes_wrong_hashes_is_not_used(monkeypatch, caplog):
    real, constant = sha256_vector._module, sha256_vector.ROUND[5]
    assert f"i32 {constant}" in real(8, "")

    def wrong(*arguments):
        return real(*arguments).replace(f"i32 {constant}", f"i32 {constant + 1}")

    monkeypatch.setattr(sha256_vector, "_module", wrong)
    sha256_vector.kernel.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert sha256_vector.kernel() is None
        assert "computes wrong SHA-256 hashes" in caplog.text
    finally:
        sha256_vector.kernel.cache_clear()


def test_without_llvm_the_kind_works_and_names_its_engine(tmp_path):
    script = (
        "import sys; sys.modules['llvmlite'] = None\n"
        "from pathlib import Path\n"
        "from mesh.kinds.table import validate\n"
        "from node.executor.context import Context, load\n"
        "result = load('crypto_mining')(validate('crypto_mining', {'seconds': 0.01}), Context(1, Path('.')))\n"
        "print(result['engine'], result['hashes'] > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "hashlib True"
