"""The documents of capacity and cost. Times are Unix seconds, money US dollars; null where there is no limit."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.documents.schema import Doc


class PolicyDoc(Doc):
    """The scaler's settings in force, those that differ from their defaults under `settings`."""

    version: int = Field(description="0: nobody ever set one")
    enabled: bool
    settings: dict[str, Any]
    at: float
    by: str = Field(description="flags: of a node's start; hand: REST or command")
    node: str


class WholePolicyDoc(PolicyDoc):
    """A policy with what every setting is by it."""

    effective: dict[str, Any]


class PolicyHistoryDoc(WholePolicyDoc):
    """The policy in force, and its versions."""

    versions: list[WholePolicyDoc] = Field(description="the newest first")


class PolicyBody(Doc):
    """A change of the policy: what is not named stays."""

    settings: dict[str, Any] = Field(default={}, description="docs/scaling.md lists them; null: back to the default")
    enabled: bool | None = Field(default=None, description="whether nodes may be started at all")
    version: int | None = Field(default=None, description="the version it is meant to follow; 409 when it is another")


class ManualBody(BaseModel):
    """So many nodes for some time, whatever is seen; one of target and delta."""

    model_config = ConfigDict(extra="forbid")

    target: int | None = Field(default=None, ge=0, description="nodes there are to be")
    delta: int | None = Field(default=None, description="so many more, or fewer, than there are")
    provider: str = Field(default="", description="only this one starts them")
    for_s: float = Field(default=3600.0, gt=0, description="seconds it holds")


class ManualDoc(Doc):
    """What is asked for by hand."""

    target: int
    until: float
    for_s: float
    provider: str


class ManualSetDoc(ManualDoc):
    """It holds from now on."""

    have: int = Field(description="nodes that there are, or are on their way")


class ManualClearedDoc(Doc):
    """Nothing is asked for by hand any more."""

    was: ManualDoc | None


class PanicBody(Doc):
    """Stop everything paid, or allow it again."""

    on: bool


class PanicDoc(Doc):
    """Whether everything paid is stopped."""

    panic: bool


class PoolDecisionDoc(Doc):
    """What is to happen to one pool, and why."""

    pool: str
    have: int
    target: int
    launches: list[dict[str, Any]] = Field(description="offer, count, price_usd_h")
    drains: list[str]
    ends: list[str]
    proposals: list[dict[str, Any]] = Field(description="policy, nodes, reason")
    trail: list[str] = Field(description="from the first proposal to the last limit, a sentence each")


class PoolSeenDoc(Doc):
    """One pool as it was last seen; load is counted in nodes that it keeps busy."""

    pool: str
    ready: int
    starting: int
    draining: int
    managed: int = Field(description="nodes that the scaler started")
    running: int = Field(description="tasks")
    queued: int
    load: float
    cpu: float
    task_s: float
    slots: int
    origins: dict[str, float] = Field(description="region of origin -> share of what arrived")


class OfferDoc(Doc):
    """Something that could be started."""

    id: str
    provider: str
    type: str
    region: str
    market: str
    price_usd_h: float
    priced_on: str
    start_s: float
    speed: dict[str, float] = Field(description="pool -> how fast its nodes were at its work, the mean offer's being 1")
    available: int
    refused: dict[str, str] = Field(description="pool -> why it is not taken")


class OrderDoc(Doc):
    """One node that was ordered and is not gone."""

    token: str
    state: str = Field(description="intended, launched, joined or ending")
    provider: str
    offer: str
    pool: str
    node: str
    instance: str
    at: float
    why: str
    price_usd_h: float


class BudgetDoc(Doc):
    """What runs and was spent, and what is left."""

    running_usd_h: float
    spent_today_usd: float
    spent_month_usd: float
    month_forecast_usd: float = Field(description="what the month will have cost when what runs now runs to its end")
    budget_usd_h: float | None
    budget_usd_day: float | None
    room_usd_h: float | None = Field(description="what may still be started")
    wall: str = Field(description="which limit that comes from")


class CostDoc(BudgetDoc):
    """What costs money this minute, this day, this month."""

    at: float | None = Field(description="when the master last counted; null: it never did")
    running: list[OrderDoc] = Field(description="what is paid for now, the dearest first")
    running_usd_minute: float
    panic: bool


class ForecastDoc(BaseModel):
    """What is expected of one pool's load, in nodes; the figures only where a fit was made."""

    pool: str
    in_force: bool = Field(description="whether decisions are given it")
    why: str = Field(description="how it did in its back-test, or why there is none")
    trusted: bool = Field(default=False, description="whether it beat reactive at equal violations, and may decide")
    model: str = ""
    ratio: float | None = Field(default=None, description="its cost over reactive's in that back-test")
    median: float | None = Field(default=None, description="the load expected when a node started now is ready")
    at_start: float | None = Field(default=None, description="what is to be held of that load")
    until_start: float | None = Field(default=None, description="what is to be held of the highest load until then")
    sure: float | None = Field(default=None, description="how likely the load is to be no higher than at_start")
    quantile: float | None = None
    lower: float | None = Field(default=None, description="the load falls under it as often as it rises over upper")
    upper: float | None = Field(default=None, description="that upper quantile of the load")
    steps: int | None = Field(default=None, description="of history, each of step_s")
    step_s: float | None = None
    known_until: float | None = None
    at: float | None = Field(default=None, description="when it was made")
    took_s: float | None = None


class ForecastsDoc(Doc):
    """What is expected."""

    at: float | None
    pools: list[ForecastDoc]


class AutoscalerDoc(Doc):
    """What was last seen and decided, and what is in force."""

    state: str = Field(description="off, on, or waiting: for the master to look")
    reason: str
    at: float | None
    master: str
    fence: int
    policy: PolicyDoc
    manual: ManualDoc | None
    panic: bool
    pools: list[PoolSeenDoc]
    decision: list[PoolDecisionDoc]
    forecast: list[ForecastDoc]
    offers: list[OfferDoc]
    orders: list[OrderDoc]
    budget: BudgetDoc | None
    notes: list[str]


class DecisionDoc(BaseModel):
    """One decision of the journal."""

    id: int
    at: float
    node: str
    fence: int
    policy: int = Field(description="version of the policy")
    pools: list[PoolDecisionDoc]
    running_usd_h: float
    launched_usd_h: float
    notes: list[str]


class DecisionsDoc(Doc):
    """The last decisions, the newest first."""

    decisions: list[DecisionDoc]


class DecisionReplayDoc(DecisionDoc):
    """One decision with all it was made from (`from`), made again."""

    replayed: bool | None = Field(description="whether it came out the same; null: another version wrote it")
    says: list[str] = Field(description="in words")
