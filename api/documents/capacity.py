"""The documents of the scaler. Times are Unix seconds, money is in US dollars; null: no limit, or not known. Pure."""

from __future__ import annotations

from typing import Any

from api.documents.base import Document, OpenDocument


class PolicyDoc(Document, frozen=True):
    """The policy in force."""

    version: int
    """0: none was ever set"""
    enabled: bool
    settings: dict[str, Any]
    """the settings that differ from their defaults"""
    at: float
    by: str
    """flags: the start of a node; hand: REST or the command line"""
    node: str
    by_hand: list[str]
    """the settings, and "enabled", that a person has set: flags of nodes don't change them"""


class WholePolicyDoc(PolicyDoc, frozen=True):
    """A policy with the value of every setting."""

    effective: dict[str, Any]
    """setting -> value in force"""


class PolicyHistoryDoc(WholePolicyDoc, frozen=True):
    """The policy in force, and its versions."""

    versions: list[WholePolicyDoc]
    """newest first"""


class ManualDoc(Document, frozen=True):
    """The number of nodes that was set by hand."""

    target: int
    until: float
    for_s: float
    """how long it still holds, seconds"""
    provider: str


class ManualSetDoc(ManualDoc, frozen=True):
    """The number of nodes that holds from now on."""

    have: int
    """nodes that exist or are being started"""


class ManualClearedDoc(Document, frozen=True):
    """No number of nodes is set by hand any more."""

    was: ManualDoc | None


class PanicDoc(Document, frozen=True):
    """Whether all paid nodes are stopped."""

    panic: bool


class LaunchDoc(OpenDocument, frozen=True):
    """Nodes to start."""

    offer: str
    count: int
    price_usd_h: float


class ProposalDoc(OpenDocument, frozen=True):
    """What one policy proposes."""

    policy: str
    nodes: int
    reason: str


class PoolDecisionDoc(Document, frozen=True):
    """The decision about a pool, and its reasons."""

    pool: str
    have: int
    target: int
    launches: list[LaunchDoc]
    drains: list[str]
    """ids of the nodes to drain"""
    ends: list[str]
    """ids of the nodes to end"""
    proposals: list[ProposalDoc]
    trail: list[str]
    """the steps from the first proposal to the last limit, a sentence each"""


class PoolSeenDoc(Document, frozen=True):
    """The last measurements of a pool."""

    pool: str
    ready: int
    starting: int
    draining: int
    managed: int
    """nodes that the scaler started"""
    running: int
    """tasks"""
    queued: int
    """tasks"""
    load: float
    """nodes that the work keeps busy: what arrived lately, and no less than what is in use now"""
    cpu: float
    """share of the nodes in use, 0 to 1"""
    task_s: float
    """mean run time of a task, seconds"""
    slots: int
    origins: dict[str, float]
    """region of origin -> share of the tasks that arrived"""


class OfferDoc(Document, frozen=True):
    """A type of node that can be started."""

    id: str
    provider: str
    type: str
    region: str
    market: str
    price_usd_h: float
    priced_on: str
    start_s: float
    """time it takes to start, seconds"""
    speed: dict[str, float]
    """pool -> speed of its nodes at the pool's work, relative to the mean offer"""
    available: int
    refused: dict[str, str]
    """pool -> why it is not used there"""


class OrderDoc(Document, frozen=True):
    """An ordered node that is not gone."""

    token: str
    state: str
    """intended, launched, joined or ending"""
    provider: str
    offer: str
    pool: str
    node: str
    instance: str
    at: float
    why: str
    price_usd_h: float


class BudgetDoc(Document, frozen=True):
    """What runs, what was spent, and what is left."""

    running_usd_h: float
    spent_today_usd: float | None
    """null: the leader has not counted yet"""
    spent_month_usd: float | None
    month_forecast_usd: float | None
    """cost of this month if all that runs now goes on to its end"""
    budget_usd_h: float | None
    budget_usd_day: float | None
    room_usd_h: float | None
    """what may still be started"""
    wall: str
    """the limit that this follows from"""


class CostDoc(BudgetDoc, frozen=True):
    """What costs money now, and what was spent today and this month."""

    at: float | None
    """when the leader last counted; null: not yet"""
    running: list[OrderDoc]
    """the paid nodes, most expensive first"""
    running_usd_minute: float
    panic: bool


class ForecastDoc(OpenDocument, frozen=True):
    """The load expected of a pool, in nodes; figures are present only where a model was fitted."""

    pool: str
    in_force: bool
    """whether the forecast is part of the decisions' input"""
    why: str
    """its back-test in words, or why there is no forecast"""
    trusted: bool = False
    """whether it may decide: it was cheaper than the reactive policy at equal violations"""
    model: str = ""
    ratio: float | None = None
    """its cost relative to the reactive policy in the back-test"""
    median: float | None = None
    """the load expected when a node that is started now is ready"""
    at_start: float | None = None
    """the quantile of that load for which nodes are held"""
    until_start: float | None = None
    """the same quantile of the highest load until then"""
    sure: float | None = None
    """probability that the load is at most at_start"""
    quantile: float | None = None
    lower: float | None = None
    """lower quantile of the load: as likely to be undercut as upper is to be exceeded"""
    upper: float | None = None
    """upper quantile of the load"""
    steps: int | None = None
    """steps of history, of step_s each"""
    step_s: float | None = None
    known_until: float | None = None
    at: float | None = None
    """when it was made"""
    took_s: float | None = None


class ForecastsDoc(Document, frozen=True):
    """The forecasts of all pools."""

    at: float | None
    pools: list[ForecastDoc]


class AutoscalerDoc(Document, frozen=True):
    """The last measurements and decisions of the scaler, and the policy in force."""

    state: str
    """off, on, or waiting for the leader's first cycle"""
    reason: str
    at: float | None
    master: str
    """node id of the leader"""
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


class DecisionDoc(OpenDocument, frozen=True):
    """A decision of the journal."""

    id: int
    at: float
    node: str
    fence: int
    policy: int
    """version of the policy"""
    pools: list[PoolDecisionDoc]
    running_usd_h: float
    launched_usd_h: float
    notes: list[str]


class DecisionsDoc(Document, frozen=True):
    """The last decisions."""

    decisions: list[DecisionDoc]
    """newest first"""


class DecisionReplayDoc(DecisionDoc, frozen=True):
    """A decision with all of its input (`from`), and its replay."""

    replayed: bool | None
    """whether the replay gave the same decision; null: another version of Queztl made it"""
    says: list[str]
    """the decision in words"""
