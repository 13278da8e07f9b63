"""A node keeps to its OpenAPI document: every operation, with what the document allows and with what it does not.

schemathesis makes the requests from the document. Its pytest plugin is not loaded (pyproject.toml).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.nodes import Cluster

#: All of these hold for each answer. That valid data is accepted is not among them: the document can't say everything,
#: for example that a payload must be one of its kind.
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
#: Requests for each operation, of those that the document allows and of those that it does not.
EXAMPLES = 4
WITHIN_S = 25.0
#: A valid body would start the benchmarks of the node.
ONLY_INVALID = {"POST /api/v1.2/benchmarks/realworld/run"}


class Calls:
    """The requests made so far."""

    def __init__(self, url: str) -> None:
        self.document = schemathesis.openapi.from_url(f"{url}/api/v1.2/openapi.json")
        self.until = time.monotonic() + WITHIN_S
        self.counts: dict[str, int] = {}
        self.failures: list[str] = []

    def all(self) -> None:
        """Call every operation."""
        for result in self.document.get_all_operations():
            operation = result.ok()
            name = f"{operation.method.upper()} {operation.path}"
            if name not in ONLY_INVALID:
                self.several(name, operation.as_strategy(generation_mode=GenerationMode.POSITIVE), CHECKS)
            if operation.body or operation.query:
                invalid = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
                self.several(name, invalid, (*CHECKS, negative_data_rejection))

    def several(self, name: str, cases: SearchStrategy[Any], checks: tuple[Any, ...]) -> None:
        """Make up to EXAMPLES requests, and keep what is wrong with an answer."""

        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=cases)
        def call(case: Any) -> None:
            # Each operation is called at least once, however slow the machine is.
            if name in self.counts and time.monotonic() > self.until:
                return
            self.counts[name] = self.counts.get(name, 0) + 1
            case.call_and_validate(checks=list(checks), timeout=20)

        try:
            call()
        except BaseExceptionGroup as failures:
            self.failures += [f"{name}: {failure}" for failure in failures.exceptions]
        except Exception as failure:
            self.failures.append(f"{name}: {type(failure).__name__}: {failure}")


async def test_every_answer_of_a_node_is_one_that_its_document_describes(tmp_path) -> None:
    async with Cluster(tmp_path) as cluster:
        node = await cluster.node().start()
        calls = await asyncio.to_thread(Calls, node.api)
        await asyncio.to_thread(calls.all)
        if calls.failures:
            cluster.print_logs()
        assert not calls.failures, "\n\n".join(calls.failures)[:20_000]
        assert len(calls.counts) > 30 and sum(calls.counts.values()) > 60, calls.counts
