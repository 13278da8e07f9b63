"""How a node describes itself: its record in the mesh, its mDNS announcement and the facts of its banner."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence

from mesh.bus.server.data_dir import Route
from mesh.capacity import TOKEN_LABEL, token_of
from mesh.discovery.announcement import MEMBER, Announcement
from mesh.discovery.interfaces import is_wireless
from mesh.messages import NodeRecord
from mesh.scheduling.geo import AT_LABEL
from node.config import NodeConfig
from node.context import NodeContext
from node.identity.banner import BannerFacts
from node.probes import models
from node.version import version


def machine_name(node_id: str) -> str:
    """The host name of this machine without its domain; the node id where it has none."""
    return platform.node().split(".")[0] or node_id


def record_of(context: NodeContext, hosts_bus: bool) -> NodeRecord:
    """The node's record in KV `nodes`; `hosts_bus`: whether a bus server runs here."""
    config = context.config
    return NodeRecord(
        id=context.node_id,
        name=machine_name(context.node_id),
        incarnation=context.data.incarnation,
        version=version(),
        slots=context.slots,
        labels=models.labels(config.models) | config.labels | own_labels(config),
        region=config.region,
        api=context.api,
        host=context.addresses[0],
        hosts_bus=hosts_bus,
        addresses=context.addresses,
        wired=not any(map(is_wireless, context.addresses)),
        server_client_id=context.bus.client_id,
        server_id=context.bus.server_id,
        joined_at=time.time(),
        capabilities=context.capabilities,
    )


def own_labels(config: NodeConfig) -> dict[str, str]:
    """The labels that Queztl sets: the token of a node that the scaler started, and the coordinates of the machine."""
    labels = {TOKEN_LABEL: token_of(config.started_as), AT_LABEL: config.at}
    return {name: value for name, value in labels.items() if value}


def announcement_of(context: NodeContext, bus_urls: tuple[str, ...], routes: tuple[Route, ...]) -> Announcement:
    """What the node announces by mDNS; `bus_urls`: where clients reach the bus; `routes`: where other bus servers reach
    the one of this node."""
    return Announcement(
        mesh_name=context.mesh.name,
        mesh_id=context.mesh.id,
        key_fingerprint="",
        node_id=context.node_id,
        urls=bus_urls,
        role=MEMBER,
        api=context.api,
        version=version(),
        routes=routes,
    )


def banner_facts(
    context: NodeContext, how: str, bus_urls: tuple[str, ...], notices: Sequence[str], colour: bool
) -> BannerFacts:
    """The facts of the banner. `how`: created, resumed or joined; `notices`: sentences that the user must read."""
    return BannerFacts(
        node_id=context.node_id,
        name=context.record.name,
        version=version(),
        mesh_name=context.mesh.name,
        mesh_id=context.mesh.id,
        how=how,
        by=bus_urls[0] if how == "joined" else "",
        api=context.api,
        bus_urls=bus_urls,
        slots=context.slots,
        cores=context.capabilities.cores,
        memory_bytes=context.capabilities.memory_bytes,
        kinds=context.capabilities.kinds,
        data=str(context.data.path),
        accelerators=tuple(accelerator.name for accelerator in context.capabilities.accelerators),
        api_is_local=context.config.api_is_local,
        open_api=context.config.open_api,
        this_machine_only=all(address.startswith("127.") for address in context.addresses),
        notices=tuple(notices),
        colour=colour,
    )
