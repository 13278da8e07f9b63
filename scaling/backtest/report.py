"""The result of a back-test: the figures of each policy, as a document and as a table. Pure.

Under- and over-provisioning and their shares of the time are SPEC's elasticity metrics, with the demand in nodes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from scaling.backtest.run import Backtest, Scored
from scaling.backtest.tuning import ORACLE, POLICIES, QUANTILE
from scaling.domain.config import HYBRID, REACTIVE
from scaling.domain.units import NODE_EPSILON


def figures(demand: Sequence[float], scored: Scored, oracle_node_h: float) -> dict[str, Any]:
    """The figures of one run. `demand`: nodes kept busy in each scored step."""
    run, steps = scored.run, len(demand)
    under = [max(0.0, need - have) / max(need, NODE_EPSILON) for need, have in zip(demand, run.ready, strict=True)]
    over = [
        max(0.0, have - ceil(need - NODE_EPSILON)) / max(1, ceil(need - NODE_EPSILON))
        for need, have in zip(demand, run.ready, strict=True)
    ]
    return {
        "cost_usd": sum(run.cost_usd),
        "violating_share": run.violating / steps,
        "under_provisioning": statistics.fmean(under),
        "over_provisioning": statistics.fmean(over),
        "time_under": sum(share > 0 for share in under) / steps,
        "time_over": sum(share > 0 for share in over) / steps,
        "node_hours": sum(run.node_h),
        "node_hours_over_oracle": sum(run.node_h) - oracle_node_h,
        "actions": run.actions,
        "settings": scored.tuned.facts(),
    }


def document(
    name: str, test: Backtest, scored: Mapping[str, tuple[Scored, Scored | None]], notes: Sequence[str]
) -> dict[str, Any]:
    """Everything about one series, with every scored step. `scored`: policy -> (as chosen, at 1 % violations)."""
    demand = test.demand[test.split :]
    oracle_h = sum(scored[ORACLE][0].run.node_h)
    policies: dict[str, Any] = {}
    for policy in POLICIES:
        chosen, equal = scored[policy]
        policies[policy] = {
            "as_chosen": figures(demand, chosen, oracle_h),
            "at_one_percent": figures(demand, equal, oracle_h) if equal else None,
            "steps": {"ready": (equal or chosen).run.ready, "cost_usd": (equal or chosen).run.cost_usd},
            "steps_as_chosen": {"ready": chosen.run.ready, "cost_usd": chosen.run.cost_usd},
        }
    made, column = test.forecasts, test.forecasts.column(QUANTILE)
    force = [made.names[number] for number in made.in_force[test.split :, column].tolist() if number >= 0]
    return {
        "series": name,
        "step_s": test.scenario.step_s,
        "steps_training": test.split,
        "steps_scored": len(demand),
        "load_per_node": 1.0 / test.scale,
        "hybrid_over_reactive": ratio(policies, "at_one_percent"),
        "hybrid_over_reactive_as_chosen": ratio(policies, "as_chosen"),
        "forecast_trusted_share": float(test.gate.trusted[test.split : -1].mean()),
        "models_in_force": {model: force.count(model) / max(1, len(force)) for model in sorted(set(force))},
        "notes": list(notes),
        "demand": demand,
        "policies": policies,
    }


def ratio(policies: Mapping[str, Any], which: str) -> float | None:
    """Cost of hybrid over the cost of reactive; None when one of them has none."""
    hybrid, reactive = policies[HYBRID][which], policies[REACTIVE][which]
    return hybrid["cost_usd"] / reactive["cost_usd"] if hybrid and reactive and reactive["cost_usd"] else None


def table(made: Mapping[str, Any]) -> str:
    """The document of one series as a table."""
    head = f"{made['series']}: {made['steps_training']} steps of {made['step_s']:g} s for training, "
    head += f"{made['steps_scored']} scored"
    lines = [head, *(f"  ({note})" for note in made["notes"]), ""]
    lines.append(
        f"{'policy':<11}{'at <= 1 %':>10}{'as chosen':>11}{'violating':>11}{'under':>8}{'over':>8}{'time under':>12}"
        f"{'time over':>11}{'node h':>9}{'over oracle':>13}{'actions':>9}"
    )
    for policy in POLICIES:
        both = made["policies"][policy]
        equal, chosen = both["at_one_percent"], both["as_chosen"]
        cost = f"{equal['cost_usd']:.2f}" if equal else "never"
        lines.append(
            f"{policy:<11}{cost:>10}{chosen['cost_usd']:>11.2f}{chosen['violating_share']:>11.2%}"
            f"{chosen['under_provisioning']:>8.2%}{chosen['over_provisioning']:>8.0%}{chosen['time_under']:>12.2%}"
            f"{chosen['time_over']:>11.0%}{chosen['node_hours']:>9.0f}{chosen['node_hours_over_oracle']:>13.0f}"
            f"{chosen['actions']:>9}"
        )
    lines += [
        "",
        "Costs in dollars. The columns from 'violating' on are for the settings as chosen on the training part.",
    ]
    lines.append(f"Forecasts were trusted in {made['forecast_trusted_share']:.0%} of the scored steps.")
    found, as_chosen = made["hybrid_over_reactive"], made["hybrid_over_reactive_as_chosen"]
    if found is not None:
        lines.append(
            f"Cost of hybrid over reactive at <= 1 % violating steps: {found:.3f} (as chosen: {as_chosen:.3f})"
        )
    return "\n".join(lines)
