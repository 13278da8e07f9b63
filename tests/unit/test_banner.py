"""The banner: complete, 80 columns wide, with commands that can be pasted."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from mesh.messages import KindInfo
from node.identity.banner import BannerFacts, banner

FACTS = BannerFacts(
    node_id="n7f3k2ab",
    name="kitchen",
    version="0.1.0",
    mesh_name="queztl",
    mesh_id="m42abcde",
    how="created",
    by="",
    api="http://127.0.0.1:8000",
    bus_urls=("nats://192.168.1.20:4222",),
    slots=2,
    cores=2,
    memory_bytes=8 * 2**30,
    kinds=(
        KindInfo("crypto_mining", True),
        KindInfo("echo", True),
        KindInfo("image_processing", False, "needs cv2", "pip install 'queztl[vision]'  # 210 MB"),
        KindInfo("database_ops", False, "duckdb is broken", "pip install --force-reinstall 'queztl[sql]'"),
    ),
    data="/home/ada/.local/share/queztl",
)


def commands(text: str) -> list[list[str]]:
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if "curl" in line or "queztl submit" in line]


def test_it_shows_the_node_the_mesh_and_the_kinds():
    text = banner(FACTS)
    mesh = "queztl (m42abcde), created by this node"
    for part in ("n7f3k2ab", "kitchen", mesh, "crypto_mining, echo", "8.0 GiB"):
        assert part in text
    assert "  missing  image_processing: pip install 'queztl[vision]'  # 210 MB\n" in text
    assert "database_ops: duckdb is broken\n           pip install --force-reinstall 'queztl[sql]'\n" in text
    assert "any machine on this network can join it" in text
    assert text.isascii() and text.endswith("\n")


@pytest.mark.parametrize(
    "facts",
    [
        FACTS,
        replace(FACTS, how="joined", by="n" + "x" * 30, accelerators=("NVIDIA H200 " * 3,) * 3),
        replace(FACTS, bus_urls=tuple(f"nats://192.168.1.{n}:4222" for n in range(12))),
        replace(FACTS, notices=("No network. " * 20,)),
        replace(FACTS, kinds=tuple(KindInfo(f"kind_{n}", True) for n in range(40))),
    ],
)
def test_lines_fit_80_columns(facts):
    assert max(map(len, banner(facts).splitlines())) <= 80


def test_the_commands_can_be_pasted():
    curl, queztl = commands(banner(FACTS))
    assert curl[:4] == ["curl", "-X", "POST", "http://127.0.0.1:8000/api/v1.2/workload/submit"]
    assert json.loads(curl[curl.index("-d") + 1]) == {
        "workload_type": "crypto_mining",
        "payload": {"algorithm": "SHA256"},
    }
    assert queztl[:3] == ["queztl", "submit", "crypto_mining"] and queztl[-1] == "--wait"
    assert json.loads(queztl[3]) == {"algorithm": "SHA256"}


def test_another_port_and_another_kind_change_the_commands():
    facts = replace(FACTS, api="http://127.0.0.1:8001", kinds=(KindInfo("echo", True),))
    curl, queztl = commands(banner(facts))
    assert "http://127.0.0.1:8001/api/v1.2/workload/submit" in curl
    assert queztl[:4] == ["QUEZTL_URL=http://127.0.0.1:8001", "queztl", "submit", "echo"]


def test_the_suggested_payloads_are_valid():
    from mesh.kinds.table import KINDS
    from node.identity.banner import FIRST_TASKS

    for kind, payload in FIRST_TASKS.items():
        KINDS[kind].payload.model_validate(payload)


def test_it_states_who_may_use_the_api():
    def flat(**changes):
        return " ".join(banner(replace(FACTS, **changes)).split())

    assert "has no key" not in flat(has_key=True)
    assert "any program on this machine" in flat(this_machine_only=True)
    assert "--open-api lifts that" in flat(api_is_local=False)
    assert "answers every request of every machine" in flat(api_is_local=False, open_api=True)
    assert "\x1b[" in banner(replace(FACTS, colour=True)) and "\x1b[" not in banner(FACTS)
