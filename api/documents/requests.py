"""The bodies of requests. Those that pydantic checks are pydantic models: it finds every fault of a body. Pure."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class RegisterBody(BaseModel):
    """A machine that multicast does not reach. Unknown fields are ignored."""

    name: str = Field(min_length=1, max_length=255)
    id: str = Field(default="", description="the node id that it already has, if any")
    capabilities: dict[str, Any] = Field(default=dict[str, Any]())
    labels: dict[str, str] = Field(default=dict[str, str]())


class BenchRunBody(BaseModel):
    """Which benchmarks to run, and where."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] = Field(default=list[str](), max_length=64, description="benchmarks; left out: all")
    nodes: list[str] | Literal["all"] | None = Field(
        default=None, description='ids or names of nodes, or "all"; left out: this node'
    )
    quick: bool = Field(default=False, description="less work and fewer repetitions: an estimate, not a result")


class PolicyBody(BaseModel):
    """A change of the policy; a setting that is not named stays."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = Field(
        default=dict[str, Any](), description="setting -> value, see docs/scaling.md; null: the default"
    )
    enabled: bool | None = Field(default=None, description="whether nodes may be started at all")
    version: int | None = Field(default=None, description="the version it changes; 409 when the policy has another one")


class ManualBody(BaseModel):
    """A number of nodes to hold for some time, whatever the load; `target` or `delta`."""

    model_config = ConfigDict(extra="forbid")

    target: int | None = Field(default=None, ge=0, description="number of nodes")
    delta: int | None = Field(default=None, description="nodes more (or, negative, fewer) than there are")
    provider: str = Field(default="", description="start nodes at this provider only")
    for_s: float = Field(default=3600.0, gt=0, description="how long it holds, seconds")


class PanicBody(BaseModel):
    """Stop all paid nodes, or allow paid nodes again."""

    model_config = ConfigDict(extra="forbid")

    on: bool
