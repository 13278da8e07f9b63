"""The capabilities of this machine: a child process imports each library, and the proofs are kept."""

from __future__ import annotations

import time

from mesh.kinds.base import KindSpec, Need, Payload
from mesh.messages import encode
from node.identity.capabilities import probe
from node.probes import packages


async def test_proofs_are_kept_until_the_library_changes(tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "small_wheel.py").write_text("__version__ = '1'")
    monkeypatch.setenv("PYTHONPATH", str(wheels))
    monkeypatch.syspath_prepend(str(wheels))
    spec = KindSpec("small", "Small.", Payload, needs=(Need("small_wheel", "tiny"),))
    asked = []
    real = packages.prove
    monkeypatch.setattr(packages, "prove", lambda *arguments: asked.append(1) or real(*arguments))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    async def look():
        found = await probe(tmp_path / "data", [spec])
        return found.kinds[0], found.libraries.get("small_wheel"), len(asked)

    (tmp_path / "data").mkdir()
    first = await look()
    assert first[0].available and first[1:] == ("1", 1)
    assert (await look())[2] == 1
    (wheels / "small_wheel.py").write_text("raise ImportError('gone wrong')")
    info, version, times = await look()
    assert not info.available and "gone wrong" in info.reason and (version, times) == (None, 2)
    assert info.how_to_install == "pip install --force-reinstall 'queztl[tiny]'"
    # A failure is not cached: what the import lacked may be installed later, for example a system library.
    assert (await look())[2] == 3
    (tmp_path / "cache" / "queztl" / "packages.json").write_text("{broken")
    (wheels / "small_wheel.py").write_text("__version__ = '22'")
    assert (await look())[1] == "22"


async def test_capabilities_of_this_machine(tmp_path):
    first = await probe(tmp_path)
    assert all(info.available for info in first.kinds), first.kinds
    assert {"python", "numpy", "cv2"} <= set(first.libraries)
    encode(first)
    started = time.process_time()
    again = await probe(tmp_path)
    assert again.kinds == first.kinds and again.libraries == first.libraries
    assert time.process_time() - started < 1.0
