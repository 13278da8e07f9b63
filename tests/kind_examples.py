"""Runs the example of a kind, which is part of the contract of every kind."""

from __future__ import annotations

import json

import msgspec

from mesh.kinds.table import KINDS, validate
from node.executor.context import Context, Output, load

#: Kinds whose example loads PyTorch, for seconds: tests/integration/test_kind_examples.py runs them.
LOADS_PYTORCH = ("llm_inference", "ml_training")


def example_runs(kind: str, context: Context) -> None:
    """Run the example of `kind` and check that its result can be sent over the bus and over HTTP."""
    context.cores = 2
    fractions = []
    context.progress = lambda fraction, note="", text="": fractions.append(fraction)
    # As a payload really arrives: through JSON, then MessagePack.
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(json.loads(json.dumps(KINDS[kind].example))))
    result = load(kind)(validate(kind, sent), context)
    if isinstance(result, Output):
        data = result.data if isinstance(result.data, bytes) else result.data.read_bytes()
        assert data and "/" in result.content_type
        result = result.info
    assert isinstance(result, dict)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(result)) == result
    json.dumps(result)
    assert all(0 <= fraction <= 1 for fraction in fractions)
