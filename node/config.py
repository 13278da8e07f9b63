"""The settings of one node: each from its flag, else its environment variable, else its default.

Every field is a flag and a `QUEZTL_…` variable (`api_host` and `api_port` share `--api`). All invalid settings are
reported at once. `build` reads nothing but its arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mesh import limits, targets
from mesh.config import PRESETS, MeshConfig
from mesh.discovery.identity import default_data_dir
from mesh.errors import CannotStart
from mesh.log import LEVELS
from mesh.scheduling import geo
from mesh.subjects import is_token

DEFAULT_API = "127.0.0.1:8000"
DEFAULT_MESH = "queztl"
MAX_SLOTS = 4096
MAX_MEASURE_AFTER_S = 24 * 3600
MAX_NODES = 10_000
MAX_LEAVE_ALONE_S = 7 * 24 * 3600
#: The settings that tasks can read with `context.granted(field)`: lists of strings.
GRANTS = ("models", "web_targets")
T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True)
class NodeConfig:
    """The settings of a node. A field name ends in its unit."""

    mesh_name: str = DEFAULT_MESH
    """Name of the mesh to find or create (`--mesh`). Meshes of another name are ignored."""
    interface: str = ""
    """The only network interface to use; empty: every real one; `lo`: this machine only."""
    data: Path = field(default_factory=default_data_dir)
    """Data directory: the identity of the node and, if it hosts a bus server, its store. One node per directory."""
    api_host: str = "127.0.0.1"
    """Address on which the REST bridge listens."""
    api_port: int = 8000
    """Port of the REST bridge; 0: any free one."""
    join: tuple[str, ...] = ()
    """Where to join a mesh, besides mDNS: a bus server (nats://…) or the API of any node (http://…)."""
    slots: int = 0
    """Tasks at the same time; 0: one per usable core."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels that a task can require."""
    region: str = ""
    """Region of this machine: tasks run near their origin."""
    at: str = ""
    """Coordinates of that region, LATITUDE,LONGITUDE in degrees: a task whose origin is coordinates runs in the nearest
    region for which a node gives them."""
    log_level: str = "info"
    """debug, info, warning or error."""
    json_logs: bool = False
    """Log one JSON object per line."""
    fault_kinds: bool = False
    """Let `echo` fail, crash, leak memory and hang on request: for tests."""
    open_api: bool = False
    """Answer every request of other machines, although there is no key (`api_host` is not loopback)."""
    preset: str = "lan"
    """local, lan or wan: the timeouts of the mesh (see `mesh_config`)."""
    max_nodes: int | None = None
    """Most nodes of the mesh; the scaler starts nodes as tasks need them. 0: it starts none; None: the policy of the
    mesh decides, which starts none by default."""
    min_nodes: int | None = None
    """Fewest nodes that the scaler keeps, where it may start any."""
    started_as: str = ""
    """The name that the scaler gives a node it starts, and may order to leave: MESH.OFFER.TOKEN.EXPIRES."""
    leave_alone_s: int = 0
    """Leave when the bus was unreachable for this long, seconds (`--leave-alone`); 0: never."""
    bus_port: int = 0
    """Port of the bus server, if this node hosts one; 0: 4222 if that is free, else any free one."""
    measure_after_s: int = 10
    """Measure how fast this machine runs each kind, after so many idle seconds (`--measure-after`); 0: never."""
    measure_below_percent: int = 25
    """Measure only while the machine uses less of its CPU time than this, percent (`--measure-below`); 100: always."""
    models: tuple[str, ...] = ()
    """Directories whose models `llm_inference` may load, by the name of a file or folder in them."""
    web_targets: tuple[str, ...] = ()
    """HOST:PORT of servers that `web_server_load` may send requests to (`--web-target`), besides its own."""
    limits: dict[str, int] = field(default_factory=dict)
    """Limits that differ from their defaults, NAME=N (`--limit`)."""

    @property
    def mesh_config(self) -> MeshConfig:
        """The mesh settings of `preset`, with `limits`."""
        preset = PRESETS[self.preset]
        return replace(preset, limits=replace(preset.limits, **self.limits)) if self.limits else preset

    @property
    def grants(self) -> dict[str, tuple[str, ...]]:
        """field -> listed values, of the settings that tasks can read; only those that are set."""
        return {name: getattr(self, name) for name in GRANTS if getattr(self, name)}

    @property
    def api_is_local(self) -> bool:
        """Whether the API is reachable from this machine only."""
        return self.api_host == "localhost" or self.api_host.startswith("127.") or self.api_host == "::1"


class BadConfig(CannotStart):
    """Invalid settings; `faults` has one sentence per setting."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


#: setting -> (flag, environment variable)
NAMES = {
    name: ("--" + name.replace("_", "-"), "QUEZTL_" + name.upper())
    for name in (
        "mesh",
        "interface",
        "data",
        "api",
        "join",
        "slots",
        "label",
        "region",
        "at",
        "log_level",
        "json_logs",
        "fault_kinds",
        "open_api",
        "preset",
        "bus_port",
        "measure_after",
        "measure_below",
        "models",
        "web_target",
        "max_nodes",
        "min_nodes",
        "started_as",
        "leave_alone",
        "limit",
    )
}


def build(flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> NodeConfig:
    """The configuration from parsed flags (None or absent: not given) and the environment.

    A list in the environment is separated by commas. Raises: BadConfig, with every fault.
    """
    reader = _Reader(flags, environ)
    host, port = reader.read("api", _address, ("127.0.0.1", 8000))
    config = NodeConfig(
        mesh_name=reader.read("mesh", _token("a mesh name"), DEFAULT_MESH),
        interface=reader.read("interface", _interface, ""),
        data=reader.read("data", _directory, default_data_dir()),
        api_host=host,
        api_port=port,
        join=reader.read_list("join", _join_url),
        slots=reader.read("slots", _number(0, MAX_SLOTS), 0),
        labels=dict(reader.read_list("label", _label)),
        region=reader.read("region", _token("a region"), ""),
        at=reader.read("at", _point, ""),
        log_level=reader.read("log_level", _one_of(LEVELS), "info"),
        json_logs=reader.read("json_logs", _boolean, False),
        fault_kinds=reader.read("fault_kinds", _boolean, False),
        open_api=reader.read("open_api", _boolean, False),
        preset=reader.read("preset", _one_of(tuple(PRESETS)), "lan"),
        bus_port=reader.read("bus_port", _number(0, 65535), 0),
        measure_after_s=reader.read("measure_after", _number(0, MAX_MEASURE_AFTER_S), 10),
        measure_below_percent=reader.read("measure_below", _number(1, 100), 25),
        models=reader.read_list("models", _existing_directory),
        web_targets=reader.read_list("web_target", _web_target),
        max_nodes=reader.read("max_nodes", _number(0, MAX_NODES), None),
        min_nodes=reader.read("min_nodes", _number(0, MAX_NODES), None),
        started_as=reader.read("started_as", _started_as, ""),
        leave_alone_s=reader.read("leave_alone", _number(0, MAX_LEAVE_ALONE_S), 0),
        limits=dict(reader.read_list("limit", _limit)),
    )
    if config.min_nodes and config.max_nodes is None:
        reader.faults.append(f"--min-nodes {config.min_nodes}: needs --max-nodes as well.")
    elif config.min_nodes and config.max_nodes and config.min_nodes > config.max_nodes:
        reader.faults.append(f"--min-nodes {config.min_nodes}: must not be above --max-nodes {config.max_nodes}.")
    if reader.faults:
        raise BadConfig(reader.faults)
    return config


class _Reader:
    """Reads each setting from its first source, and collects the faults."""

    def __init__(self, flags: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self._flags, self._environ = flags, environ
        self.faults: list[str] = []

    def _source(self, name: str) -> tuple[str, Any]:
        flag, variable = NAMES[name]
        if self._flags.get(name) is not None:
            return flag, self._flags[name]
        return variable, self._environ.get(variable) or None

    def _parse(self, source: str, text: object, parse: Callable[[str], T]) -> T | None:
        try:
            return parse(str(text).strip())
        except ValueError as error:
            self.faults.append(f"{source} {str(text)!r}: {error}.")
            return None

    def read(self, name: str, parse: Callable[[str], T], default: D) -> T | D:
        source, text = self._source(name)
        if text is None:
            return default
        value = self._parse(source, text, parse)
        return default if value is None else value

    def read_list(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        source, given = self._source(name)
        texts = given.split(",") if isinstance(given, str) else given or ()
        values = [self._parse(source, text, parse) for text in texts if str(text).strip()]
        return tuple(value for value in values if value is not None)


# --- the parsers; each raises ValueError with a phrase that follows the setting -----------------------


def _token(what: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not is_token(text):
            raise ValueError(f"{what} is 1 to 64 letters, digits, '_' or '-'")
        return text

    return parse


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _one_of(values: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return text.lower()

    return parse


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("must be 1 or 0 (or true, false, yes, no, on, off)")


def _interface(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:@ -]{1,64}", text):
        raise ValueError("is not the name of a network interface, such as eth0 or lo")
    return text


def _directory(text: str) -> Path:
    try:
        path = Path(text).expanduser().absolute()
        if "\0" not in text and (path.is_dir() or not path.exists()):
            return path
    except (RuntimeError, OSError):
        pass  # ~ of an unknown user, or a name that is too long
    raise ValueError("is not a directory; name one that exists or can be created")


def _existing_directory(text: str) -> str:
    path = _directory(text)
    if not path.is_dir():
        raise ValueError("is not a directory")
    return str(path)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon:
        host, port = ("", text) if text.isdigit() else (text, "8000")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535 or not re.fullmatch(r"[\w.:-]*", host):
        raise ValueError(f"must be HOST:PORT, such as {DEFAULT_API}")
    return host or "127.0.0.1", int(port)


def _join_url(text: str) -> str:
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        if parts.scheme in ("nats", "tls", "http", "https") and parts.hostname:
            port = parts.port or (4222 if parts.scheme in ("nats", "tls") else 8000)
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            return f"{parts.scheme}://{host}:{port}"
    except ValueError:
        pass
    raise ValueError("must be nats://HOST:PORT (a bus server) or http://HOST:PORT (the API of any node)")


def _started_as(text: str) -> str:
    parts = text.split(".")
    if len(parts) != 4 or not all(is_token(part) for part in parts):
        raise ValueError("is not a name that the scaler gives: MESH.OFFER.TOKEN.EXPIRES")
    return text


def _web_target(text: str) -> str:
    target = targets.canonical(text)
    host, _ = targets.parse(target)
    if targets.is_address(host) and (why := targets.forbidden(host)):
        raise ValueError(f"{why}: load tests are not sent there")
    return target


def _point(text: str) -> str:
    if geo.point(text) is None:
        raise ValueError("must be LATITUDE,LONGITUDE in degrees, such as 50.1,8.7 (north and east are positive)")
    return text


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in limits.NAMES:
        raise ValueError(f"must be NAME=N with a name of {', '.join(limits.NAMES)}")
    return name, _number(1, limits.LARGEST)(number)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not is_token(key) or not re.fullmatch(r"[\w.:/-]{1,128}", value):
        raise ValueError("must be KEY=VALUE, letters, digits, '_', '-' and in the value also '.', ':', '/'")
    return key, value
