"""What holds for every test: nothing leaves this machine, and no result depends on how fast it is."""

from __future__ import annotations

import os
import tempfile

from hypothesis import HealthCheck, settings

# Nodes that a test starts as processes speak on loopback only: no test ever multicasts into a real network.
os.environ["QUEZTL_INTERFACE"] = "lo"

# What nodes keep for each other (proofs of libraries) is this run's own.
_CACHE = tempfile.TemporaryDirectory(prefix="queztl-tests-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name

settings.register_profile(
    "queztl", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("queztl")
