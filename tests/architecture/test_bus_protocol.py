"""JetStream's subjects, headers and the bodies of acknowledgements are spelled in `mesh/bus/` and nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import pytest

from tests.source_files import PACKAGES, sources

#: Files outside `mesh/bus/` that may spell the protocol, each with the reason.
EXCEPTIONS = {
    "bench/harness/raw.py": "measures the raw broker with nats-py alone, so nothing of mesh.bus may be in the path",
}
#: `$JS.API.…` and `$JS.ACK.…`; a verb such as STREAM.MSG.GET or CONSUMER.CREATE; the body of an acknowledgement.
#: The subjects of keys and blobs; a header of the server.
_PROTOCOL = re.compile(
    r"\$(?:JS|KV|O)\b|\bNats-[A-Z]|(?<!\$SYS\.REQ\.)\b(?:STREAM|CONSUMER|META|SERVER|DIRECT)\.[A-Z]{3,}\b|(?:\+ACK|-NAK|\+TERM|\+WPI|\+NXT)\b"
)


def protocol_in(nodes: Sequence[ast.AST]) -> list[str]:
    """Every string and bytes literal of a file, parts of f-strings included, that spells the protocol, and every call
    of a method `api`, which takes such a name. Docstrings may explain it. `nodes`: the whole syntax tree of the file.
    """
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    found = []
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "api":
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if not isinstance(node, ast.Constant) or id(node) in docstrings:
            continue
        text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        if isinstance(text, str) and _PROTOCOL.search(text):
            found.append(f"line {node.lineno}: {node.value!r}")
    return found


def nodes_of(source: str) -> list[ast.AST]:
    """The syntax tree of a few lines."""
    return list(ast.walk(ast.parse(source)))


def test_only_the_bus_spells_the_protocol():
    found = {source.path: protocol_in(source.nodes) for source in sources(*PACKAGES)}
    spelled = {path for path, where in found.items() if where}
    assert EXCEPTIONS.keys() <= spelled, "an exception that is not needed any more"
    outside = {path: found[path] for path in spelled - EXCEPTIONS.keys() if not path.startswith("mesh/bus/")}
    assert not outside


@pytest.mark.parametrize(
    "line",
    [
        'subject = "$JS.API.INFO"',
        'answer = api(f"STREAM.MSG.GET.{stream}", {})',
        'api(f"{verb}", {}) or api("CONSUMER.CREATE.WORK.x")',
        'REMOVE = "$JS.API.SERVER.REMOVE"',
        'send(reply, b"+ACK")',
        'send(reply, b"-NAK " + delay)',
        'send(reply, b"%s" % b"+TERM")',
        'send(reply, "+WPI".encode())',
        "await bus.api(name)",
        'headers = {"Nats-TTL": "5s"}',
        'f"NATS/1.0\\r\\nNats-Msg-Id: {task}"',
        'messages(stream, f"$O.{bucket}.M.>")',
        'prefix = "$KV.nodes."',
    ],
)
def test_the_protocol_is_found(line):
    assert protocol_in(nodes_of(line))


@pytest.mark.parametrize(
    "text",
    ["$SYS.REQ.SERVER.PING.JSZ", "$SYS.SERVER.*.SHUTDOWN", "STREAM", "Nats-server", "$ORIGIN", "+ACKNOWLEDGED", "a.b"],
)
def test_other_strings_are_not_taken_for_it(text):
    assert not protocol_in(nodes_of(f'"""Sends b"+ACK" to $JS.ACK."""\nname = {text!r}'))
