"""Who is told that no node can run a task: only those whose task nobody in the mesh can ever run."""

from __future__ import annotations

import pytest

from mesh.membership.member import DRAINING, GONE, LEFT, REGISTERED, SUSPECT, UP, Member
from mesh.messages import Capabilities, KindInfo, NodeRecord
from mesh.scheduling.placement import warnings


def member(state: str = UP, kind: KindInfo | None = None, memory_mb: int = 1000, **labels: str) -> Member:
    kinds = (kind or KindInfo("echo", True),)
    capabilities = Capabilities(kinds=kinds, memory_bytes=memory_mb << 20, cores=2)
    return Member(
        NodeRecord(id="n1", name="n1", incarnation="1", slots=2, labels=labels, capabilities=capabilities), state
    )


@pytest.mark.parametrize(
    ("requires", "members", "lack"),
    [
        ({"labels": {"disk": "nvme"}}, [member()], "1 of 1 node: has no label disk=nvme"),
        ({"memory_mb": 2000}, [member(), member()], "2 of 2 nodes: has 1000 of 2000 MB of memory"),
        ({"cores": 8}, [member()], "has 2 of 8 cores"),
        ({"accelerator": "cuda"}, [member()], "has no cuda"),
        ({"region": "moon"}, [member()], "is not in region moon"),
        ({}, [member(kind=KindInfo("echo", False, "no cv2"))], "1 of 1 node: no cv2"),
        ({}, [member(kind=KindInfo("other", True))], "does not know echo"),
        ({}, [member(GONE)], "1 of 1 node: gone"),
        ({}, [member(REGISTERED)], "registered, not connected yet"),
        ({}, [member(DRAINING)], "leaving"),
        ({}, [member(LEFT)], "there is no node in the mesh"),
        ({}, [], "there is no node in the mesh"),
    ],
)
def test_what_nobody_can_run_is_said_with_who_lacks_what(requires, members, lack) -> None:
    (sentence,) = warnings(requires, "echo", members)
    assert lack in sentence


@pytest.mark.parametrize(
    ("requires", "members"),
    [
        ({}, [member()]),
        ({}, [member(GONE), member(SUSPECT)]),
        ({"labels": {"disk": "nvme"}}, [member(), member(disk="nvme")]),
        ({"memory_mb": 2000}, [member(), member(memory_mb=2000)]),
    ],
)
def test_nothing_is_said_where_one_node_can(requires, members) -> None:
    assert warnings(requires, "echo", members) == ()
