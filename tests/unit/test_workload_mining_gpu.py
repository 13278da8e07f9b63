"""SHA-256d on a GPU: the kernel in Triton's interpreter against hashlib, and compiled; no GPU has run it yet."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.kinds.crypto_mining import GENESIS_NONCE
from mesh.kinds.table import validate
from node.executor.context import Context, load
from node.workloads.mining import sha256_gpu

ROOT = Path(__file__).resolve().parents[2]
needs_triton = pytest.mark.skipif(
    not (importlib.util.find_spec("torch") and importlib.util.find_spec("triton")),
    reason="PyTorch and Triton (1 GB, part of PyTorch for CUDA) are not both installed",
)


def python(script: str, folder: Path, **environment: str) -> str:
    """The output of a fresh interpreter: Triton decides on import whether it interprets."""
    clean = os.environ | {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(folder / "cache")} | environment
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@given(st.binary(max_size=55))
def test_the_state_after_one_block_is_sha_256s(data):
    block = data + b"\x80" + bytes(55 - len(data)) + struct.pack(">Q", 8 * len(data))
    assert struct.pack(">8I", *sha256_gpu.midstate(struct.unpack(">16I", block))) == hashlib.sha256(data).digest()


@given(target=st.integers(0, (1 << 256) - 1))
def test_a_launch_is_never_so_large_that_its_hits_overflow_the_buffer(target):
    size = sha256_gpu.launch_size(target)
    assert size >= 0 and size * ((target >> 224) + 1) <= sha256_gpu.CAPACITY // 16 << 32


@needs_triton
def test_the_kernel_gives_what_hashlib_gives(tmp_path):
    """Whole and partial program blocks; no hit, one and many; the last nonces; and the whole kind."""
    script = (
        "import random\n"
        "from pathlib import Path\n"
        "from mesh.kinds.table import validate\n"
        "from node.executor.context import Context, load\n"
        "from node.workloads.mining import sha256_gpu, sha256_lane\n"
        "gpu, chance, block = sha256_gpu.Gpu('cpu', 'interpreter', 1 << 14), random.Random(3), 1 << 14\n"
        "for bits, count in ((256, block), (246, block + 5), (236, 2 * block), (0, block), (224, 100)):\n"
        "    last = (1 << 32) - count\n"
        "    work = chance.randbytes(76), last if bits == 0 else chance.randrange(last), count, (1 << bits) - 1\n"
        "    assert gpu.scan(*work) == sha256_lane.scan(*work), (bits, count)\n"
        "sha256_gpu.kernel = lambda: gpu\n"
        f"payload = {{'block': 'genesis', 'nonce_start': {GENESIS_NONCE - 20_000}, 'nonce_count': 30_000}}\n"
        "payload = validate('crypto_mining', payload | {'device': 'gpu'})\n"
        "result = load('crypto_mining')(payload, Context(2, Path('.')))\n"
        "print(result['nonce'], result['engine'])\n"
    )
    assert python(script, tmp_path, TRITON_INTERPRET="1") == f"{GENESIS_NONCE} gpu, interpreter"


@needs_triton
def test_the_kernel_compiles_to_machine_code_of_a_gpu(tmp_path):
    script = (
        "import triton\n"
        "from triton.backends.compiler import GPUTarget\n"
        "from triton.compiler import ASTSource\n"
        "from node.workloads.mining.sha256_triton import search\n"
        "signature = {'words': '*i32', 'hits': '*i32', 'count': 'i32', 'CAPACITY': 'constexpr', 'BLOCK': 'constexpr'}\n"
        "source = ASTSource(fn=search, signature=signature, constexprs={'CAPACITY': 4096, 'BLOCK': 128})\n"
        "made = triton.compile(source, target=GPUTarget('cuda', 80, 32))\n"
        "print(len(made.asm['cubin']) > 10_000, made.metadata.shared)\n"
    )
    assert python(script, tmp_path) == "True 0"


def test_a_real_gpu_finds_what_hashlib_finds(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    payload = validate("crypto_mining", {"block": "genesis", "device": "gpu"})
    result = load("crypto_mining")(payload, Context(1, tmp_path))
    assert result["nonce"] == GENESIS_NONCE and result["engine"] == f"gpu, {torch.cuda.get_device_name()}"


def test_a_machine_without_a_gpu_says_so(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(sha256_gpu.NoGpu, match="has no GPU that Triton can use"):
        load("crypto_mining")(validate("crypto_mining", {"device": "gpu"}), Context(1, tmp_path))


def test_without_torch_it_says_what_is_absent(tmp_path):
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from mesh.kinds.table import validate\n"
        "from node.executor.worker_main import error_of\n"
        "from node.executor.context import Context, load\n"
        "payload = validate('crypto_mining', {'device': 'gpu'})\n"
        "try: load('crypto_mining')(payload, Context(1, Path('.')))\n"
        "except ImportError as error: print(error_of('crypto_mining', error).code, error.name)\n"
    )
    assert python(script, tmp_path) == "unavailable torch"
