"""A swarm's document for people. Pure."""

from __future__ import annotations

from typing import Any


def table(document: dict[str, Any]) -> str:
    """The document as text."""
    join, cpu, memory = document["join"], document["cpu_core_percent"], document["pss_mb"]
    plan, looks = document["plan"], document["network_status_ms"].items()
    lines = [
        f"{document['nodes']} nodes joined at once, beside {document['real_nodes']} real ones: started in "
        f"{join['started_s']} s, known to the leader in {join['known_to_leader_s']}, to every node in "
        f"{join['known_everywhere_s']}, planned in {join['planned_s']} ({join['plans_written']} plans); "
        f"{join['started_again']} had to be started again; load {join['load'][1]}",
        "",
        "idle, % of a core      " + ", ".join(f"{name} {_between(one)}" for name, one in cpu.items()),
        "memory, MB PSS         " + ", ".join(f"{name} {mb:g}" for name, mb in memory.items()),
        "network/status, ms     "
        + ", ".join(f"{name} {one['median']:g} (max {one['max']:g}), {one['bytes']:,} B" for name, one in looks),
        f"a new plan, s          made {plan['made_s']['median']:g}, read by all {plan['everywhere_s']['median']:g} "
        f"(spread {plan['everywhere_s']['spread']:.0%})",
        f"no-op tasks/s          {document['tasks_per_s']['median']:,.0f} (spread "
        f"{document['tasks_per_s']['spread']:.0%}) by {document['nodes_that_worked']} nodes; CPU a task, µs: "
        + ", ".join(f"{name} {one:g}" for name, one in document["work_cpu_us_per_task"].items()),
    ]
    for how, one in document["deaths"].items():
        lines.append(
            f"{one['nodes']} {how} at once       leader knew after {one['leader_s']} s, all {one['observers']} others "
            f"after {one['all_noticed_everywhere_s']}; plan without them {one['plan_made_s']}, read by all "
            f"{one['plan_everywhere_s']}; {one['tasks_held']} of {one['tasks']} tasks died with them, last result "
            f"{one['last_result_s']} s, "
            f"lost {one['tasks_lost']}; unnoticed {one['unnoticed'] + one['leader_missed']}, "
            f"false deaths {len(one['false_deaths'])}, doubted {one['suspected_living']}"
        )
    lines += ["", *(_verdict(one) for one in document["verdicts"]), ""]
    machine, lost = document["machine"], document["disturbed"]
    lines.append(
        f"while idling others had {lost['others']:.0%} of the machine, its host took {lost['stolen']:.0%}; load "
        f"{document['load_before'][0]} before, {document['idle_load']} then"
    )
    lines.append(
        f"commit {document['commit']}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}"
        + (", quick: a look, not a result" if document["quick"] else "")
    )
    return "\n".join(lines)


def _between(one: dict[str, float]) -> str:
    return f"{one['median']:g}" + (f" ({one['low']:g} to {one['high']:g})" if "low" in one else "")


def _verdict(one: dict[str, Any]) -> str:
    return f"{'holds' if one['holds'] else 'FAILS'}   {one['what']}: {one['measured']:g}, mark {one['mark']:g}"
