"""The configuration of a nats-server: plain values in, the text of its file out. Pure.

The file is written as JSON, which nats-server reads: quoting is left to the library.
Routes and tags are values, so that the same writer serves the lone server, its boot peer, and the voters of a larger
mesh. The witness has a writer of its own: it is not a member of the cluster.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

MIB = 1024 * 1024

VOTER_TAG = "voter"
"""Streams are declared to live on servers with this tag only."""
SYSTEM_USER = "system"
SYSTEM_ACCOUNT = "SYS"
MESH_USER = "mesh"
MESH_ACCOUNT = "MESH"
_ROUTE_USER = "route"
_WITNESS_USER = "witness"
_WITNESS_ACCOUNT = "WITNESS"
"""The account of the witness's leaf connection. It is empty, so no message passes."""

MAX_PAYLOAD_BYTES = 8 * MIB
MAX_CONTROL_LINE_BYTES = 4096
_MEMORY_STORE_BYTES = 64 * MIB
_LOG_BYTES = 8 * MIB
#: Raft of a restarted lone server starts once the witness is connected. The connection is local, so retries are cheap.
_WITNESS_RECONNECT = "50ms"
#: A route is given up after two unanswered pings. The server's own default would take 90 s.
_ROUTE_PING, _ROUTE_PINGS_LOST = "3s", 2


@dataclass(frozen=True)
class ServerConfig:
    """One server. `routes` are (host, port) of the others' cluster listeners; `store` None means no JetStream."""

    name: str
    cluster: str
    host: str
    client_port: int
    cluster_host: str
    cluster_port: int
    routes: tuple[tuple[str, int], ...]
    password: str
    log_file: Path
    store: Path | None = None
    store_max_bytes: int = 0
    sync_interval_s: float = 1.0
    tags: tuple[str, ...] = ()
    client_advertise: str = ""
    hidden: bool = False
    """Whether clients are not told of this server (boot peers)."""
    witness_port: int = 0
    """The loopback port for its witness; 0 for a server without one."""
    max_connections: int = 0
    """Clients at most; 0: the server's own limit."""


def render(config: ServerConfig) -> str:
    """The text of the configuration file. Holds the password: write it readable by its owner only."""
    document: dict[str, Any] = {
        "server_name": config.name,
        "listen": _listen(config.host, config.client_port),
        "max_payload": MAX_PAYLOAD_BYTES,
        "max_control_line": MAX_CONTROL_LINE_BYTES,
        "write_deadline": "10s",
        "log_file": str(config.log_file),
        "logfile_size_limit": _LOG_BYTES,
        "logfile_max_num": 3,
        "accounts": {
            SYSTEM_ACCOUNT: {"users": [{"user": SYSTEM_USER, "password": config.password}]},
            MESH_ACCOUNT: {
                "users": [{"user": MESH_USER, "password": config.password}],
                **({"jetstream": "enabled"} if config.store else {}),
            },
        },
        "system_account": SYSTEM_ACCOUNT,
        "no_auth_user": MESH_USER,
        "cluster": {
            "name": config.cluster,
            "listen": _listen(config.cluster_host, config.cluster_port),
            "authorization": {"user": _ROUTE_USER, "password": config.password, "timeout": 2},
            "routes": [_url("nats-route", _ROUTE_USER, config.password, host, port) for host, port in config.routes],
            "no_advertise": config.hidden,
            # A route to an address that is gone is silent: its peer is refused as a duplicate until it is given up.
            "ping_interval": _ROUTE_PING,
            "ping_max": _ROUTE_PINGS_LOST,
            # One connection between two servers, not the default four: they are on one machine.
            "pool_size": 1,
        },
    }
    if config.witness_port:
        document["accounts"] |= {_WITNESS_ACCOUNT: {}}
        document["leafnodes"] = {
            "listen": _listen("127.0.0.1", config.witness_port),
            "authorization": {
                "user": _WITNESS_USER,
                "password": config.password,
                "account": _WITNESS_ACCOUNT,
                "timeout": 2,
            },
            # Otherwise a witness would learn, and try, the leaf ports of the other servers of the cluster.
            "no_advertise": True,
        }
    if config.max_connections:
        document["max_connections"] = config.max_connections
    if config.tags:
        document["server_tags"] = list(config.tags)
    if config.client_advertise:
        document["client_advertise"] = config.client_advertise
    if config.store:
        document["jetstream"] = {
            "store_dir": str(config.store),
            "max_memory_store": _MEMORY_STORE_BYTES,
            "max_file_store": config.store_max_bytes,
            "sync_interval": f"{max(1, round(config.sync_interval_s * 1000))}ms",
        }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def render_witness(name: str, port: int, password: str, log_file: Path) -> str:
    """The text of the configuration file of a witness that connects to `port` on loopback. Holds the password.

    The witness is a leaf node in an empty account: no server of the cluster counts it.
    """
    document = {
        "server_name": name,
        "listen": _listen("127.0.0.1", -1),
        "authorization": {"user": _WITNESS_USER, "password": password},
        "log_file": str(log_file),
        "logfile_size_limit": _LOG_BYTES,
        "logfile_max_num": 3,
        "leafnodes": {
            "reconnect": _WITNESS_RECONNECT,
            "remotes": [{"url": _url("nats-leaf", _WITNESS_USER, password, "127.0.0.1", port)}],
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def client_urls(bind_host: str, advertise: Sequence[str], port: int) -> tuple[str, ...]:
    """Where clients find a server bound to `bind_host`: the advertised addresses, else the one it listens on."""
    hosts = tuple(dict.fromkeys(advertise)) or (local_host(bind_host),)
    return tuple(f"nats://{_bracketed(host)}:{port}" for host in hosts)


def local_host(bind_host: str) -> str:
    """The address by which this machine itself reaches a server bound to `bind_host`."""
    return "127.0.0.1" if bind_host in ("", "0.0.0.0", "::") else bind_host


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> str:
    return f"{_bracketed(host)}:{port}"


def _url(scheme: str, user: str, password: str, host: str, port: int) -> str:
    return f"{scheme}://{user}:{quote(password, safe='')}@{_bracketed(host)}:{port}"
