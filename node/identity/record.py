"""A node as others see it: its record in the mesh, and the text it prints when it is up."""

from __future__ import annotations

import platform
import sys
import time
from importlib import metadata
from typing import TYPE_CHECKING

from mesh.capacity import TOKEN_LABEL, token_of
from mesh.discovery.announcement import MEMBER, Announcement
from mesh.discovery.interfaces import is_wireless
from mesh.membership.member import UP
from mesh.messages import NodeRecord
from mesh.scheduling.geo import AT_LABEL
from node.config import NodeConfig
from node.identity.banner import BannerFacts, banner
from node.probes import models

if TYPE_CHECKING:
    from node.daemon import Node

_WAYS = {"founded": "founded", "hosts": "resumed", "joined": "joined"}


def version() -> str:
    """The installed version of Queztl."""
    try:
        return metadata.version("queztl")
    except metadata.PackageNotFoundError:
        return "0.0.0"


def machine_name(node_id: str) -> str:
    """What people call this machine; its node id where it has no name."""
    return platform.node().split(".")[0] or node_id


def record_of(node: Node) -> NodeRecord:
    """What KV `nodes` says of it."""
    config = node.config
    return NodeRecord(
        id=node.data.node_id,
        name=machine_name(node.data.node_id),
        incarnation=node.data.incarnation,
        version=version(),
        slots=node.slots,
        labels=models.labels(config.models) | config.labels | own_labels(config),
        region=config.region,
        api=node.bridge.url,
        host=node.addresses[0],
        hosts_bus=node.bus_host.server is not None,
        addresses=node.addresses,
        wired=not any(map(is_wireless, node.addresses)),
        server_client_id=node.bus.client_id,
        server_id=node.bus.server_id,
        joined_at=time.time(),
        capabilities=node.capabilities,
    )


def own_labels(config: NodeConfig) -> dict[str, str]:
    """How the scaler knows a node that it started, and where on the earth this machine is."""
    said = {TOKEN_LABEL: token_of(config.started_as), AT_LABEL: config.at}
    return {name: text for name, text in said.items() if text}


def has_successor(node: Node) -> bool:
    """Whether another machine of the mesh could take over the bus server that runs here."""
    mine = set(node.addresses)
    others = [one.record for one in node.registry.members() if one.record.id != node.record.id and one.state == UP]
    return any(not mine & set(one.addresses) for one in others)


def banner_of(node: Node) -> str:
    """What `python -m node` prints."""
    return banner(
        BannerFacts(
            node_id=node.record.id,
            name=node.record.name,
            version=version(),
            mesh_name=node.joined.mesh.name,
            mesh_id=node.joined.mesh.id,
            how=_WAYS[node.joined.how],
            by=node.joined.urls[0] if node.joined.how == "joined" else "",
            api=node.bridge.url,
            bus_urls=node.joined.urls,
            slots=node.slots,
            cores=node.capabilities.cores,
            memory_bytes=node.capabilities.memory_bytes,
            kinds=node.capabilities.kinds,
            data=str(node.data.path),
            accelerators=tuple(one.name for one in node.capabilities.accelerators),
            api_is_local=node.config.api_is_local,
            open_api=node.config.open_api,
            this_machine_only=all(address.startswith("127.") for address in node.addresses),
            notices=tuple(node.notices),
            colour=sys.stdout.isatty(),
        )
    )


def announcement_of(node: Node) -> Announcement:
    """What it says of itself on the local network."""
    return Announcement(
        mesh_name=node.joined.mesh.name, mesh_id=node.joined.mesh.id, key_fingerprint="",
        node_id=node.data.node_id, urls=node.bus_host.urls, role=MEMBER, api=node.bridge.url,
        version=version(),
    )  # fmt: skip
