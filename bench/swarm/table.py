"""The document of a swarm as text. Pure."""

from __future__ import annotations

from typing import Any

from bench.harness.environment import machine_line


def table(document: dict[str, Any]) -> str:
    """All lines."""
    join, cpu, memory = document["join"], document["cpu_core_percent"], document["pss_mb"]
    plan, looks = document["plan"], document["network_status_ms"].items()
    lines = [
        f"{document['nodes']} nodes joined at once, beside {document['real_nodes']} real ones: started in "
        f"{join['started_s']} s, known to the leader in {join['known_to_leader_s']}, to every node in "
        f"{join['known_everywhere_s']}, planned in {join['planned_s']} ({join['plans_written']} plans); "
        f"{join['started_again']} were started again; load {join['load'][1]}",
        "",
        "idle, % of a core      " + ", ".join(f"{name} {_between(value)}" for name, value in cpu.items()),
        "memory, MB PSS         " + ", ".join(f"{name} {mb:g}" for name, mb in memory.items()),
        "network/status, ms     "
        + ", ".join(f"{name} {look['median']:g} (max {look['max']:g}), {look['bytes']:,} B" for name, look in looks),
        f"a new plan, s          made {plan['made_s']['median']:g}, read by all {plan['everywhere_s']['median']:g} "
        f"(spread {plan['everywhere_s']['spread']:.0%})",
        f"no-op tasks/s          {document['tasks_per_s']['median']:,.0f} (spread "
        f"{document['tasks_per_s']['spread']:.0%}) by {document['nodes_that_worked']} nodes; CPU per task, µs: "
        + ", ".join(f"{name} {per_task:g}" for name, per_task in document["work_cpu_us_per_task"].items()),
    ]
    for how, death in document["deaths"].items():
        lines.append(
            f"{death['nodes']} {how} at once       leader knew after {death['leader_s']} s, all {death['observers']} "
            f"others after {death['all_noticed_everywhere_s']}; plan without them {death['plan_made_s']}, read by all "
            f"{death['plan_everywhere_s']}; {death['tasks_held']} of {death['tasks']} tasks were held by them, last "
            f"result {death['last_result_s']} s, "
            f"lost {death['tasks_lost']}; unnoticed {death['unnoticed'] + death['leader_missed']}, "
            f"false deaths {len(death['false_deaths'])}, suspected {death['suspected_living']}"
        )
    lines += ["", *(_verdict(verdict) for verdict in document["verdicts"]), ""]
    disturbed = document["disturbed"]
    lines.append(
        f"while idle, other processes used {disturbed['others']:.0%} of the machine, its host took "
        f"{disturbed['stolen']:.0%}; load {document['idle_load']}"
    )
    lines.append(machine_line(document))
    return "\n".join(lines)


def _between(value: dict[str, float]) -> str:
    return f"{value['median']:g}" + (f" ({value['low']:g} to {value['high']:g})" if "low" in value else "")


def _verdict(verdict: dict[str, Any]) -> str:
    word = "holds" if verdict["holds"] else "FAILS"
    return f"{word}   {verdict['what']}: {verdict['measured']:g}, mark {verdict['mark']:g}"
