"""Data from outside is decoded in one place, which checks it and never raises."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from tests.source_files import sources

PACKAGES = ("mesh", "node", "api", "scaling")
#: The files that may call a decoder of msgspec, and what each decodes.
DECODES = {
    "mesh/decoder.py": "all that comes over the bus",
    "mesh/messages.py": "payloads of a node's own submitter and workers, checked where they came in",
    "api/http/bodies.py": "bodies of HTTP requests",
    "node/executor/protocol.py": "frames of a node's own workers",
    "node/work/completion.py": "facts that a node's own worker sent",
    "scaling/forecast/loop.py": "lines of the scaler's own child",
    "scaling/forecast/child.py": "lines of the scaler that started it",
}
_RAISING = re.compile(
    r"decode_(task|state|end|held|heartbeat|digest|node|claim|checkpoint|dead|mesh|lease|plan|pool|server"
    r"|hosting_request|hosting_answer|merge|event|leave)"
)
#: The checking decoders of the scaler, and those of the worker's frames.
_OF_THEIR_OWN = ("scaling/state/", "node/executor/")


def _decoding(nodes: Iterable[ast.AST]) -> list[int]:
    """The lines that create or call a decoder of msgspec."""
    return [
        node.lineno
        for node in nodes
        if isinstance(node, ast.Attribute)
        and node.attr in ("decode", "Decoder")
        and isinstance(node.value, ast.Attribute)
        and node.value.attr in ("msgpack", "json")
    ]


def test_decoders_of_msgspec_are_called_in_the_decoding_module_only() -> None:
    found = {source.path: lines for source in sources(*PACKAGES) if (lines := _decoding(source.nodes))}
    assert not {path: lines for path, lines in found.items() if path not in DECODES}


def test_no_reader_of_the_bus_uses_a_decoder_that_raises() -> None:
    used = {}
    for source in sources(*PACKAGES):
        if source.path in DECODES or source.path.startswith(_OF_THEIR_OWN):
            continue
        names = {node.attr for node in source.nodes if isinstance(node, ast.Attribute)}
        names |= {name.name for node in source.nodes if isinstance(node, ast.ImportFrom) for name in node.names}
        if raising := sorted(filter(_RAISING.fullmatch, names)):
            used[source.path] = raising
    assert not used
