"""web_server_load: runs a server and load generators in separate processes, and merges their measurements."""

from __future__ import annotations

import base64
import importlib
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from mesh.kinds.web_server_load import SPEC, WebServerLoadPayload
from node.executor.context import Context
from node.workloads.web import answers, figures, plan, processes, targets
from node.workloads.web.processes import Helper, ProcessFault

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

#: Time between the start message and the start of the load, for each generator to read it.
LEAD_NS = 20_000_000
#: Time for generators to end, in addition to the load and the last responses.
SLACK_S = 15.0


def run(payload: WebServerLoadPayload, context: Context) -> dict[str, Any]:
    """Run the load test; returns `summary`.

    Raises: InputFault for a target that this node may not contact; RuntimeError when the task's own server returns a
    wrong response, or a process dies.
    """
    for need in SPEC.needs:
        importlib.import_module(need.module)  # raises before a process is started
    address, port, host = "127.0.0.1", 0, payload.target
    if payload.target is not None:
        address, port = targets.resolve(payload.target, context.granted("web_targets"))
    count, server_count = plan.processes(
        context.cores, payload.connections, payload.target is None, payload.server_processes
    )
    with ExitStack() as stack:
        servers: list[Helper] = []
        if payload.target is None:
            servers, port = stack.enter_context(processes.servers(server_count))
            host = f"127.0.0.1:{port}"
        generators = []
        for order in orders(payload, address, port, str(host), count):
            generators.append(Helper("a load generator", "node.workloads.web.generator"))
            stack.callback(generators[-1].end)
            generators[-1].send(order)
        processes.await_ready([*servers, *generators])
        parts, server_cpu_s = _measure(payload, servers, generators, context)
    return summary(payload, parts, server_cpu_s, server_count, f"{address}:{port}")


def orders(payload: WebServerLoadPayload, address: str, port: int, host: str, count: int) -> list[dict[str, Any]]:
    """The orders of `count` generators: everything except the start time."""
    path = payload.path
    status, body = payload.expect_status, None
    if payload.target is None:
        path = answers.path_of(payload.route, payload.body_kb)
        answer = answers.answer(path, payload.request_body)
        assert answer is not None
        body = base64.b64encode(answer[0]).decode()
    request = answers.request(payload.method, path, host, payload.request_body, payload.keep_alive)
    requests = [None] * count if payload.requests is None else plan.shares(payload.requests, count)
    return [
        {
            "address": address, "port": port, "request": base64.b64encode(request).decode(),
            "status": status, "body": body, "sha256": payload.expect_sha256, "keep_alive": payload.keep_alive,
            "connections": connections, "requests": requests[index], "timeout_s": payload.timeout_s,
            "rate_per_s": payload.rate_per_s, "index": index, "count": count,
        }
        for index, connections in enumerate(plan.shares(payload.connections, count))
    ]  # fmt: skip


def _measure(
    payload: WebServerLoadPayload, servers: list[Helper], generators: list[Helper], context: Context
) -> tuple[list[dict[str, Any]], float]:
    """(the result of each generator, the CPU seconds of the servers during the measurement)"""
    start_ns = time.monotonic_ns() + LEAD_NS
    from_ns = start_ns + round(payload.warm_up_s * 1e9)
    to_ns = from_ns + round(payload.seconds * 1e9)
    for generator in generators:
        generator.send({"start_ns": start_ns, "from_ns": from_ns, "to_ns": to_ns})
    deadline_ns = to_ns + round((payload.timeout_s + SLACK_S) * 1e9)
    done = dict.fromkeys(generators, 0)
    note = "warming up"
    results: dict[Helper, dict[str, Any]] = {}
    cpu = _ServerCpu(servers, from_ns, to_ns)
    while len(results) < len(generators):
        now = time.monotonic_ns()
        cpu.sample(now)
        if now > deadline_ns:
            raise ProcessFault("a load generator did not end in time")
        running = [generator for generator in generators if generator not in results]
        next_ns = min(now + 250_000_000, *(at for at in (from_ns, to_ns) if at > now), deadline_ns)
        for sender, message in processes.receive([*running, *servers], (next_ns - now) / 1e9):
            if "result" in message:
                results[sender] = message["result"]
            elif done[sender] != message["done"]:
                done[sender] = message["done"]
                note = f"{sum(done.values()) / (time.monotonic_ns() - from_ns) * 1e9:.0f} requests/s"
        by_time = (time.monotonic_ns() - start_ns) / (to_ns - start_ns)
        by_count = sum(done.values()) / payload.requests if payload.requests else 0.0
        context.progress(min(1.0, max(0.0, by_time, by_count)), note)
    return [results[generator] for generator in generators], cpu.used_s()


class _ServerCpu:
    """The CPU time of the servers during the measurement."""

    def __init__(self, servers: list[Helper], from_ns: int, to_ns: int) -> None:
        self._servers, self._from_ns, self._to_ns = servers, from_ns, to_ns
        self._before_s, self._after_s, self._is_measuring = self._total_s(), -1.0, False

    def sample(self, now: int) -> None:
        """Read the CPU time at the start and at the end of the measurement."""
        if not self._is_measuring and now >= self._from_ns:
            self._before_s, self._is_measuring = self._total_s(), True
        if self._after_s < 0 and now >= self._to_ns:
            self._after_s = self._total_s()

    def used_s(self) -> float:
        """Seconds until the end of the measurement, or until now if it ended before."""
        return max(0.0, (self._after_s if self._after_s >= 0 else self._total_s()) - self._before_s)

    def _total_s(self) -> float:
        return sum(server.cpu_s() for server in self._servers)


def summary(
    payload: WebServerLoadPayload, parts: list[dict[str, Any]], server_cpu_s: float, server_count: int, address: str
) -> dict[str, Any]:
    """requests, requests_per_s, latency_ms, errors, checked, generator, server, percentiles, histogram and more.

    `requests` are the correct responses within `seconds`; those that came later are `requests_after_the_end`.
    Latencies are in ms and cover requests with a correct response, and requests without a response, with the time
    waited; `histogram` is the same in HdrHistogram's encoding, in µs. Open mode adds offered_per_s and from_sending_ms:
    latencies from the sending of a request instead of its due time. The bytes are those of whole requests and
    responses, warm-up included.
    Raises: RuntimeError when the task's own server returned wrong responses.
    """
    latency, late = merged([part["latency"] for part in parts]), merged([part["late"] for part in parts])
    late_ms = times(late) if late.total_count else None
    records = [figures.record_of(part) for part in parts]
    found = figures.figures(records, payload.seconds, late_ms["p99"] if late_ms else None, payload.mode == "open")
    if (wrong := sum(record.wrong for record in records)) and payload.target is None:
        counts = ", ".join(f"{name}: {count}" for name, count in found["errors"].items())
        whole = sum(record.right + record.right_after for record in records) + wrong
        raise RuntimeError(f"the task's own server returned {wrong} wrong responses out of {whole} ({counts})")
    result = {
        "mode": payload.mode,
        "target": payload.target,
        "address": address,
        "connections": payload.connections,
        **found,
        "generator": found["generator"] | {"late_send_ms": late_ms},
        "latency_ms": times(latency),
        "checked": checked(payload),
        "server": {"processes": server_count, "cpu_s": round(server_cpu_s, 3)} if payload.target is None else None,
        "percentiles": [[at, ms(latency.get_value_at_percentile(at))] for at in plan.CURVE],
        "histogram": latency.encode().decode(),
    }
    if payload.mode == "open":
        result["from_sending_ms"] = times(merged([part["served"] for part in parts]))
    return result


def checked(payload: WebServerLoadPayload) -> str:
    """A description of what was checked of each response."""
    if payload.target is None:
        return "status and every byte of the body of each response"
    return "status and SHA-256 of the body of each response" if payload.expect_sha256 else "status of each response"


def merged(encoded: list[str]) -> HdrHistogram:
    """The sum of histograms, each in HdrHistogram's encoding."""
    from hdrh.histogram import HdrHistogram

    whole = HdrHistogram.decode(encoded[0])
    for other in encoded[1:]:
        whole.add(HdrHistogram.decode(other))
    return whole


def times(histogram: HdrHistogram) -> dict[str, float]:
    """mean, p50, p90, p99, p99_9 and max of a histogram of µs, in ms."""
    found = {f"p{at:g}".replace(".", "_"): ms(histogram.get_value_at_percentile(at)) for at in plan.PERCENTILES}
    mean = histogram.get_mean_value() if histogram.total_count else 0.0
    return {"mean": round(mean / 1000, 3), **found, "max": ms(histogram.get_max_value())}


def ms(value_us: float) -> float:
    """µs as ms."""
    return round(value_us / 1000, 3)
