"""`queztl nodes`, `bus`, `kinds`, `doctor`, `blobs`; all commands without a node or with wrong arguments."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import pytest_asyncio

from api.cli.main import COMMANDS
from api.cli.output.exit_codes import MEANINGS
from mesh.kinds.table import KINDS
from tests.integration.queztl_process import Ran, queztl, start
from tests.nodes import Cluster, NodeProcess
from tests.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory):
    """One node with a label and a region."""
    async with Cluster(tmp_path_factory.mktemp("cli")) as cluster:
        yield await cluster.node("--label", "disk=nvme", "--region", "eu").start()
        cluster.print_logs()


async def over_bus(node: NodeProcess, *arguments: object) -> Ran:
    """Run a command that has only the URL of the bus."""
    urls = (await queztl("bus", "--json", url=node.api)).json["bus"]["urls"]
    return await queztl(*arguments, "--url", urls[0])


async def test_nodes(node: NodeProcess) -> None:
    """A table for people, and the document of network/status for programs, from the API or from the bus alone."""
    ran = await queztl("nodes", url=node.api)
    assert ran.code == 0
    (row,) = [line for line in ran.out.splitlines() if node.id in line]
    assert row.split()[1] == "*" and " up " in row and " 0/2 " in row and " eu " in row
    assert len(row) <= 80 and len(ran.out.splitlines()[0]) <= 80
    for document in (
        (await queztl("nodes", "--json", url=node.api)).json,
        (await over_bus(node, "nodes", "--json")).json,
    ):
        (listed_node,) = document["registry"]["nodes"]
        assert document["registry"]["total_nodes"] == 1 and document["leader"] == node.id
        assert (listed_node["id"], listed_node["state"], listed_node["labels"], listed_node["region"]) == (
            node.id,
            "up",
            {"disk": "nvme"},
            "eu",
        )
        assert {kind["kind"] for kind in listed_node["capabilities"]["kinds"]} == set(KINDS)


async def test_one_node_in_full(node: NodeProcess) -> None:
    """By id or by name, for people and for programs; the address may lack its scheme."""
    url = node.api.removeprefix("http://")
    document = (await queztl("nodes", node.id, "--json", url=url)).json
    assert document["id"] == node.id and document["labels"] == {"disk": "nvme"}
    shown = await queztl("nodes", document["name"], "--url", url)
    facts = (f"id +{node.id}$", "roles +leader, bus server$", "labels +disk=nvme$", r"cores +\d", "echo +ok$")
    for fact in (f"^{fact}" for fact in facts):
        assert re.search(fact, shown.out, re.MULTILINE), (fact, shown.out)
    ran = await queztl("nodes", "nobody", "--json", url=url)
    assert ran.code == 4 and "there is no node 'nobody'" in ran.err


async def test_bus(node: NodeProcess) -> None:
    """Its address and the durability of stored work; only the API of a node knows the latter."""
    ran = await queztl("bus", "--json", url=node.api)
    assert ran.json["mesh"] and ran.json["leader"] == node.id and ran.json["queue"] == {"tasks": 0}
    assert "1 copy" in ran.json["bus"]["safety"] and len(ran.json["bus"]["urls"]) == 1
    shown = await queztl("bus", url=node.api)
    assert re.search(rf"^leader +{node.id}$", shown.out, re.MULTILINE) and "1 copy" in shown.out
    assert "known to nodes only" in (await over_bus(node, "bus")).out


async def test_kinds_need_no_mesh() -> None:
    """All kinds, and one with its fields; the command that a kind suggests parses."""
    listed = (await queztl("kinds", "--json")).json["kinds"]
    assert [listed_kind["kind"] for listed_kind in listed] == list(KINDS)
    table = await queztl("kinds", "--quiet")
    assert table.err == "" and all(spec.summary in table.out for spec in KINDS.values())
    for name in KINDS:
        document = (await queztl("kinds", name.upper(), "--json")).json
        assert document["schema"]["properties"] and document["example"] == KINDS[name].example
        shown = (await queztl("kinds", name)).out
        assert all(re.search(rf"^{field} ", shown, re.MULTILINE) for field in document["schema"]["properties"])
        assert f"queztl submit {name} '{json.dumps(KINDS[name].example)}' --wait" in shown
    ran = await queztl("kinds", "telepathy", "--json")
    assert ran.code == 2 and ran.json["error"]["code"] == "unknown_kind"


async def test_doctor(node: NodeProcess) -> None:
    """It finds the node and its data; without a node it reports that and says what to do."""
    arguments = ("doctor", "--interface", "lo", "--data", node.folder)
    ran = await queztl(*arguments, "--mesh", node.arguments[node.arguments.index("--mesh") + 1], "--json", url=node.api)
    findings = ran.json["findings"]
    assert ran.code == 0 and not [finding for finding in findings if finding["level"] == "fail"], findings
    assert any(f"pid {node.pid}" in finding["what"] for finding in findings)
    assert any(node.id in finding["what"] for finding in findings)
    ran = await queztl(*arguments, "--mesh", "nobody", "--listen", "0.5", url=f"http://127.0.0.1:{free_port()}")
    assert ran.code == 0 and "Heard nobody of mesh nobody" in ran.out and "-> Start one: python -m node" in ran.out


async def test_blobs(node: NodeProcess, tmp_path: Path) -> None:
    """Upload and download, into a file or a pipe; the id of a blob is used in a payload."""
    content = os.urandom(400_000)
    (tmp_path / "photo.jpg").write_bytes(content)
    (tmp_path / "empty").write_bytes(b"")
    ran = await queztl("blobs", "put", "photo.jpg", "empty", "--json", url=node.api, cwd=tmp_path)
    photo, empty = ran.json["blobs"]
    assert (photo["size"], photo["content_type"], empty["size"]) == (400_000, "image/jpeg", 0)
    got = await queztl("blobs", "get", photo["blob"], "-o", "back.jpg", "--json", url=node.api, cwd=tmp_path)
    assert got.json["size"] == 400_000 and (tmp_path / "back.jpg").read_bytes() == content
    piped = await start("blobs", "get", empty["blob"], url=node.api)
    assert (await piped.communicate())[0] == b"" and piped.returncode == 0
    kept = await queztl("blobs", "put", "photo.jpg", "--keep", "--content-type", "a/b", url=node.api, cwd=tmp_path)
    assert kept.out.startswith("b-k")
    payload = json.dumps({"data": {"blob": kept.out.strip()}})
    used = await queztl("submit", "echo", payload, "--wait", "--json", url=node.api)
    assert used.json["result"]["data_bytes"] == 400_000
    assert (await queztl("blobs", "get", photo["blob"], "--json", url=node.api)).code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("nodes",), ("bus",), ("submit", "echo"), ("submit", "echo", "--wait"), ("status", "c0ffee-1"),
        ("result", "c0ffee-1"), ("cancel", "c0ffee-1"), ("watch", "c0ffee-1"), ("dead", "list"),
        ("blobs", "put", "file"), ("map", "echo", "file", "--out", "out"),
    ],
    ids=" ".join,
)  # fmt: skip
async def test_without_a_node_a_command_fails(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """One sentence names the address, and nothing is submitted."""
    (tmp_path / "file").write_bytes(b"x")
    for scheme in ("http", "nats"):
        address = f"{scheme}://127.0.0.1:{free_port()}"
        ran = await queztl(*arguments, "--json", "--url", address, cwd=tmp_path)
        assert ran.code == 3 and ran.json["error"]["code"] == "bus_unavailable", ran
        assert address in ran.err and ran.err.startswith("queztl: ") and ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("frobnicate",), ("submit",), ("submit", "echo", "--urgency", "soon"), ("submit", "echo", "--timeout", "x"),
        ("submit", "echo", "--attempts", "0"), ("submit", "echo", "--file", "data"), ("status",), ("dead",),
        ("dead", "show"), ("map", "echo"), ("map", "echo", ".", "--out", "o", "--window", "0"), ("nodes", "--jsn"),
        ("nodes", "--url", "ftp://127.0.0.1"),
    ],
    ids=" ".join,
)  # fmt: skip
async def test_wrong_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    ran = await queztl(*arguments, "--json")
    assert ran.code == 2 and ran.json["error"]["code"] == "bad_input" and "queztl: " in ran.err


async def test_the_version() -> None:
    ran = await queztl("--version")
    assert ran.code == 0 and re.fullmatch(r"queztl \d+\.\d+\S*\n", ran.out)


async def test_help_lists_every_command_and_every_exit_code() -> None:
    shown = (await queztl("--help")).out
    assert all(re.search(rf"^    {name} ", shown, re.MULTILINE) for name in COMMANDS)
    assert all(f"  {code:<3}  {meaning}" in shown for code, meaning in MEANINGS.items())


async def test_a_closed_pipe_is_no_error(node: NodeProcess) -> None:
    """`queztl nodes | head -0`"""
    process = await start("nodes", "--json", url=node.api)
    assert process.stdout is not None and process.stderr is not None
    # pyrefly: ignore[missing-attribute]  asyncio has no public call that closes the reading end of a pipe
    process.stdout._transport.close()
    assert await process.stderr.read() == b"" and await process.wait() == 128 + 13


async def test_the_address_of_another_protocol_is_one_sentence(node: NodeProcess) -> None:
    """The address of a bus given as that of an API, and the other way round."""
    (bus,) = (await queztl("bus", "--json", url=node.api)).json["bus"]["urls"]
    for address in (bus.replace("nats://", "http://"), node.api.replace("http://", "nats://")):
        for arguments in (("nodes",), ("submit", "echo"), ("doctor", "--interface", "lo", "--listen", "0.5")):
            ran = await queztl(*arguments, "--url", address)
            assert ran.code == (0 if arguments[0] == "doctor" else 3), ran
            assert arguments[0] == "doctor" or (address in ran.err and ran.err.count("\n") == 1)
