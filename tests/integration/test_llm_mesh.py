"""llm_inference through a whole node, by REST: answers, streamed text, a cancellation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.language_models import tiny_llama
from tests.nodes import Cluster

QUESTION = {"prompt": "What is the capital of France?", "max_tokens": 16}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster that ends with the test and prints its logs when it fails."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


class Bridge:
    """The REST bridge of a node."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, f"{url}/api/v1.2"

    async def submit(self, payload: dict[str, Any], wait_s: int = 60, attempts: int = 1) -> dict[str, Any]:
        body = {"workload_type": "llm_inference", "payload": payload, "max_attempts": attempts}
        async with self.session.post(f"{self.url}/workload/submit?wait={wait_s}", json=body) as answer:
            return await answer.json()

    async def get(self, path: str) -> dict[str, Any]:
        async with self.session.get(f"{self.url}/{path}") as answer:
            return await answer.json()

    async def result(self, payload: dict[str, Any]) -> dict[str, Any]:
        task = await self.submit(payload)
        assert task["state"] == "done", task
        return await self.get(f"workload/{task['id']}/result")

    async def events(self, task: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """(name, document) of each server-sent event."""
        async with self.session.get(f"{self.url}/workload/{task}/events") as answer:
            name = ""
            async for line in answer.content:
                key, _, value = line.decode().strip().partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    yield name, json.loads(value)


async def test_a_language_model_over_rest(cluster: Cluster, tmp_path: Path) -> None:
    tiny_llama(tmp_path / "listed" / "tiny-llama")
    node = await cluster.node("--models", str(tmp_path / "listed"), slots=1).start()
    async with aiohttp.ClientSession() as session:
        rest = Bridge(session, node.api)
        await _answers_and_is_warm(rest)
        await _streams_its_text_and_is_cancelled(rest)
        await _answers_and_is_warm(rest)
        await _runs_what_the_operator_listed(rest)
        await _refuses(rest)


async def _answers_and_is_warm(rest: Bridge) -> None:
    first = await rest.result(QUESTION)
    assert "Paris" in first["text"] and first["backend"] == "llama.cpp" and not first["warm"], first
    assert first["prefill_tokens_per_s"] > 0 and first["decode_tokens_per_s"] > 0
    second = await rest.result(QUESTION)
    assert (second["text"], second["warm"], second["load_s"]) == (first["text"], True, 0)


async def _streams_its_text_and_is_cancelled(rest: Bridge) -> None:
    """A long answer is read while it is written; a cancellation ends it at once, with its worker."""
    story = {"prompt": "Once upon a time", "raw": True, "max_tokens": 4000, "repeat_penalty": 1.3}
    task, texts, last = (await rest.submit(story, wait_s=0))["id"], [], {}
    async for name, view in rest.events(task):
        last = view
        if name == "end":
            break
        if view.get("text") and (not texts or view["text"] != texts[-1]):
            assert view["state"] == "running" and 0 < view["progress"] < 1 and view["text_from"] == 0, view
            texts.append(view["text"])
        if len(texts) == 4:
            async with rest.session.delete(f"{rest.url}/workload/{task}") as answer:
                assert answer.status < 300, await answer.text()
    assert last["state"] == "cancelled" and len(texts) >= 4, (last, texts)
    assert all(map(str.startswith, texts[1:], texts)), texts


async def _runs_what_the_operator_listed(rest: Bridge) -> None:
    result = await rest.result({"model": "tiny-llama", "prompt": "w1 w2 w3", "max_tokens": 20})
    assert (result["backend"], result["weights"], result["completion_tokens"]) == ("torch", "trained", 20), result
    (node,) = (await rest.get("network/status"))["registry"]["nodes"]
    assert node["labels"]["model.tiny-llama"] == "here", node


async def _refuses(rest: Bridge) -> None:
    """In one sentence, whether the fault is found at submission, in the workload, or the model does not exist."""
    refused = await rest.submit({"prompt": "x", "model": "../tiny-llama", "stop": ["x"] * 9})
    assert {fault["field"] for fault in refused["error"]["faults"]} == {"payload.model", "payload.stop"}, refused
    task = await rest.submit({"prompt": "w1 " * 400, "model": "tiny-llama"})
    assert task["state"] == "failed" and "payload.prompt has 400 tokens" in task["error"]["message"], task
    task = await rest.submit({"prompt": "x", "model": "no-such-model"}, attempts=3)
    message = task["error"]["message"]
    assert task["state"] == "failed" and "has no model 'no-such-model'; it has tiny-llama" in message, task
    assert "Traceback" not in message and "\n" not in message
    assert task["attempt"] == 1, "no other node could have the model"
