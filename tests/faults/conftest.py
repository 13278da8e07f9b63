"""A mesh of whole nodes as processes, a client, and a witness that receives all that the bus stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mesh.client import Mesh
from tests.invariants import Witness
from tests.nodes import Cluster


@dataclass
class Field:
    """All that a fault test acts on."""

    cluster: Cluster
    mesh: Mesh
    witness: Witness


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """An empty cluster; the nodes that it starts end with the test."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()  # pytest shows it only when the test failed


@pytest.fixture
async def field(cluster: Cluster) -> Field:
    """One host of 4 slots: it created the mesh and is its leader. The tests add the other nodes."""
    await cluster.node("--label", "mix=1", slots=4).start()
    mesh = await cluster.client()
    return Field(cluster, mesh, await Witness(mesh.bus).start())
