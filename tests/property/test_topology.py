"""The bus' topology under Hypothesis: a pretend bus that obeys every step, and what must hold at each one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.cluster.steps import MoveMeta, MoveStreams, Promote, Remove, Scale, Step, Stop, Wait
from mesh.cluster.topology import Candidate, Rules, Server, Stream, View, pick, plan
from mesh.subjects import host_of

RULES = Rules(servers=3, candidate_s=20, gone_s=60, join_s=30)
STREAMS = ("WORK", "TASKS", "KV_lease")


@dataclass
class Copy:
    """Where a stream is: how many copies it should have, who has them, who leads."""

    replicas: int
    members: list[str]
    leader: str


@dataclass
class World:
    """A bus that does what it is told, at once; machines are named by their node."""

    machines: dict[str, str]
    """node -> address"""
    group: list[str] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    """server -> node"""
    leader: str = ""
    gone: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)
    streams: dict[str, Copy] = field(default_factory=dict)
    size: int = 0
    """A wrong group size; 0: it is the number of members."""
    rules: Rules = RULES
    made: int = 0
    took: list[Step] = field(default_factory=list)

    def living(self, server: str) -> bool:
        return host_of(server) not in self.gone and server in self.told

    def view(self) -> View:
        servers = tuple(
            Server(
                name,
                host_of(name),
                frozenset({self.machines[host_of(name)]}),
                recorded=name in self.told,
                in_group=name in self.group,
                current=name in self.group and self.living(name),
                gone_s=100.0 if host_of(name) in self.gone else 0.0,
                leaving=host_of(name) in self.leaving,
            )
            for name in sorted({*self.group, *self.told})
        )
        hosts = set(self.told.values())
        candidates = tuple(
            Candidate(node, frozenset({address}), 1000.0)
            for node, address in sorted(self.machines.items())
            if node not in hosts | self.gone | self.leaving
        )
        streams = tuple(
            Stream(name, copy.replicas, copy.leader, frozenset(filter(self.living, copy.members)),
                   frozenset(copy.members))
            for name, copy in sorted(self.streams.items())
        )  # fmt: skip
        return View(self.leader, servers, candidates, streams, self.size)

    def elect(self) -> None:
        """A majority elects, of the meta group and of each stream's copies."""
        living = [one for one in self.group if self.living(one)]
        if len(living) * 2 <= (self.size or len(self.group)):
            self.leader = ""
        elif self.leader not in living:
            self.leader = min(living)
        for copy in self.streams.values():
            up = [one for one in copy.members if self.living(one)]
            if copy.leader not in up:
                copy.leader = min(up) if len(up) * 2 > len(copy.members) else ""

    def obey(self, step: Step) -> None:
        self.took.append(step)
        match step:
            case Promote(node):
                assert node not in self.gone | self.leaving
                self.made += 1
                name = f"{node}~{self.made}"
                self.told[name] = node
                self.group.append(name)
                self.size = 0  # adding or removing a member corrects the group size
                living = [one for one in self.group if self.living(one)]
                assert len(living) * 2 > len(self.group), "the corrected group size cost the majority"
            case Scale(streams, replicas):
                for one in streams:
                    self._scale(self.streams[one], replicas)
            case MoveStreams(streams, to):
                for one in streams:
                    assert to in self.streams[one].members and self.living(to)
                    self.streams[one].leader = to
            case MoveMeta(to):
                assert to in self.group and self.living(to)
                self.leader = to
            case Remove(server):
                self._remove(server)
            case Stop(node, server):
                assert server not in self.group, "a member's server was ended"
                del self.told[server]

    def _scale(self, copy: Copy, replicas: int) -> None:
        copy.replicas = replicas
        if replicas < len(copy.members):
            copy.members = [copy.leader, *(one for one in copy.members if one != copy.leader)][:replicas]
        for one in self.group:
            if len(copy.members) < replicas and one not in copy.members and self.living(one):
                copy.members.append(one)

    def _remove(self, server: str) -> None:
        living = [one for one in self.group if self.living(one)]
        assert len(living) * 2 > len(self.group), "nobody could have agreed to the removal"
        assert server != self.leader
        self.group.remove(server)
        self.size = 0
        left = [one for one in self.group if self.living(one)]
        assert len(left) * 2 > len(self.group), "the group lost its majority"
        for name, copy in self.streams.items():
            if server in copy.members:
                copy.members.remove(server)
                assert any(map(self.living, copy.members)), f"{name} lost its last copy"
                self._scale(copy, copy.replicas)

    def run(self, limit: int = 60) -> Step:
        """Carry out the plan until it waits; the last step."""
        for _ in range(limit):
            self.elect()
            step = plan(self.view(), self.rules)
            if isinstance(step, Wait):
                return step
            self.obey(step)
        raise AssertionError(f"it never comes to rest: {self.took[-8:]}")


def founded(count: int) -> World:
    """A mesh that one machine of `count` has founded."""
    world = World({f"n{number}": f"10.0.0.{number}" for number in range(1, count + 1)})
    world.group, world.told, world.leader = ["n1"], {"n1": "n1"}, "n1"
    world.streams = {name: Copy(1, ["n1"], "n1") for name in STREAMS}
    return world


@given(st.integers(1, 7))
def test_it_grows_to_three_when_there_are_three_machines_and_never_rests_at_two(count: int) -> None:
    world = founded(count)
    assert world.run() == Wait()
    wanted = 3 if count >= 3 else 1
    assert len(world.group) == wanted
    assert all(len(copy.members) == wanted for copy in world.streams.values())


EVENTS = st.lists(
    st.tuples(st.sampled_from(["kill", "leave", "back", "new"]), st.integers(0, 9)), min_size=1, max_size=12
)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), EVENTS)
def test_whatever_happens_no_copy_is_the_last_one_to_go(count: int, happenings: list[tuple[str, int]]) -> None:
    """Machines die, leave, come back and appear; each step is checked as it is obeyed (`World.obey`)."""
    world = founded(count)
    world.run()
    for what, number in happenings:
        nodes = sorted(world.machines)
        node = nodes[number % len(nodes)]
        if what == "new":
            fresh = f"n{len(nodes) + 1}"
            world.machines[fresh] = f"10.0.0.{len(nodes) + 1}"
        elif what == "back":
            world.gone.discard(node)
            world.leaving.discard(node)
        elif what == "leave":
            world.leaving.add(node)
        else:
            hosted = [one for one in world.group if host_of(one) == node]
            alive = [one for one in world.group if world.living(one)]
            if hosted and (len(alive) - 1) * 2 <= len(world.group):
                continue  # the loss of a majority is a person's case: `queztl bus rescue`
            world.gone.add(node)
        world.run()
        world.elect()
        assert world.leader, "the bus lost its leader"
        assert all(copy.leader for copy in world.streams.values()), "a stream lost its leader"
        living = [one for one in world.group if world.living(one)]
        away = {node for node in world.machines if node in world.gone | world.leaving}
        if len(world.machines) - len(away) >= 3:
            assert len(living) == 3 == len(world.group), world.group


def test_a_dead_server_is_waited_for_before_it_is_replaced() -> None:
    world = founded(4)
    world.run()
    victim = next(one for one in world.group if one != world.leader)
    view = world.view()
    dying = tuple(replace(one, gone_s=5.0, current=False) if one.name == victim else one for one in view.servers)
    step = plan(replace(view, servers=dying), RULES)
    assert isinstance(step, Wait) and "away" in step.reason
    world.gone.add(host_of(victim))
    world.run()
    assert victim not in world.group and len(world.group) == 3
    first_two = [type(step) for step in world.took if not isinstance(step, Stop)][-2:]
    assert first_two == [Promote, Remove], "its successor comes before it goes"


def test_newcomers_join_one_by_one() -> None:
    world = founded(3)
    world.obey(plan(world.view(), RULES))
    view = world.view()
    joining = tuple(
        replace(one, in_group=False, current=False, age_s=1.0) if "~" in one.name else one for one in view.servers
    )
    assert plan(replace(view, servers=joining), RULES) == Wait("n2 joins")
    late = tuple(replace(one, in_group=False, age_s=31.0) if "~" in one.name else one for one in view.servers)
    assert plan(replace(view, servers=late), RULES) == Stop("n2", "n2~1")


def test_the_last_one_that_leaves_hands_over_and_the_streams_move_before_it_goes() -> None:
    world = founded(2)
    world.leaving = {"n1"}
    world.run()
    assert [host_of(one) for one in world.group] == ["n2"]
    assert all(copy.members == ["n2~1"] for copy in world.streams.values())
    kinds = [type(step) for step in world.took]
    assert kinds == [Promote, Scale, MoveStreams, Scale, MoveMeta, Remove, Stop]


def test_nobody_who_shares_a_machine_with_a_server_is_picked() -> None:
    def candidate(node: str, *addresses: str, **more: object) -> Candidate:
        return Candidate(node, frozenset(addresses), 100.0, **more)  # type: ignore[arg-type]

    here = frozenset({"10.0.0.1"})
    crowd = [
        candidate("a", "10.0.0.1", "10.1.0.1"),
        candidate("b", "10.0.0.2"),
        candidate("c", "10.0.0.2"),
        candidate("d", "10.0.0.3", wired=False),
        candidate("e", "10.0.0.4", free_bytes=10),
        candidate("f", "10.0.0.5", willing=False),
        candidate("g"),
        replace(candidate("h", "10.0.0.6"), up_s=1.0),
    ]
    assert [one.node for one in pick(crowd, [here], RULES)] == ["b", "d"]


def test_a_node_that_starts_its_server_is_waited_for_and_not_asked_again() -> None:
    view = founded(3).view()
    step = plan(view, RULES)
    assert isinstance(step, Promote)
    asked = tuple(replace(one, starting=one.node == step.node) for one in view.candidates)
    assert plan(replace(view, candidates=asked), RULES) == Wait(f"{step.node} starts a bus server")


def test_a_newcomer_whose_node_is_away_for_a_moment_is_waited_for() -> None:
    """A power cut in the middle of growth: two members are back, the third server is recorded and its node is late.
    The group of two shrank to one at once."""
    world = founded(3)
    world.obey(plan(world.view(), RULES))
    view = world.view()
    newcomer = Server("n3~1", "n3", frozenset({"10.0.0.3"}), in_group=False, age_s=2.0, gone_s=2.0)
    away = replace(view, servers=(*view.servers, newcomer), candidates=())
    assert isinstance(plan(away, RULES), Wait)
    lost = replace(newcomer, gone_s=RULES.gone_s + 1, age_s=RULES.gone_s + 1)
    assert plan(replace(away, servers=(*view.servers, lost)), RULES) == Stop("n3", "n3~1")


def test_without_a_leader_nothing_is_done() -> None:
    assert isinstance(plan(View(leader=""), RULES), Wait)


def test_a_growth_that_lost_its_second_half_is_taken_back() -> None:
    world = founded(3)
    world.obey(plan(world.view(), RULES))
    world.gone.add("n3")
    assert world.run() == Wait()
    assert world.group == ["n1"]


def test_a_member_its_own_node_no_longer_runs_is_replaced_at_once() -> None:
    """Its node came back with an empty disk: nobody will ever hear of that server again."""
    world = founded(4)
    world.run()
    victim = next(one for one in world.group if one != world.leader)
    del world.told[victim]
    world.machines.pop(host_of(victim))
    world.machines["n9"] = "10.0.0.9"
    view = world.view
    world.view = lambda: replace(  # type: ignore[method-assign]
        view(), servers=tuple(replace(one, gone_s=0.0) for one in view().servers)
    )
    world.machines[host_of(victim)] = "10.0.0.99"
    world.run()
    assert victim not in world.group and len(world.group) == 3


@given(st.integers(1, 6), EVENTS, st.sampled_from(STREAMS))
def test_while_a_stream_does_not_answer_no_copy_is_made_moved_or_taken_away(
    count: int, happenings: list[tuple[str, int]], name: str
) -> None:
    """Somebody new may come, and a server in no group may end; the rest waits until the stream was heard of."""
    world = founded(count)
    world.run(limit=60)
    for what, number in happenings:
        node = sorted(world.machines)[number % len(world.machines)]
        {"leave": world.leaving, "kill": world.gone}.get(what, set()).add(node)
    view = world.view()
    unheard = Stream(name, 0, "", frozenset(), frozenset())
    streams = tuple(unheard if one.name == name else one for one in view.streams)
    assert isinstance(plan(replace(view, streams=streams), RULES), Wait | Promote | Stop)


def test_a_copy_that_lags_is_told_of_after_a_while() -> None:
    world = founded(3)
    world.run()
    view = world.view()
    lagging = replace(view.streams[1], current=view.streams[1].current - {max(view.streams[1].current)})
    for behind_s, reason in ((1.0, ""), (6.0, f"{lagging.name}: a copy catches up")):
        streams = (view.streams[0], replace(lagging, behind_s=behind_s), view.streams[2])
        assert plan(replace(view, streams=streams), RULES) == Wait(reason)


def test_nobody_goes_while_the_copies_of_those_who_stay_are_empty() -> None:
    """What leads alone holds what waits, until two others hold it, whatever the servers call current."""
    world = founded(4)
    world.run()
    world.leaving = {"n1"}
    world.obey(plan(world.view(), RULES))
    view = world.view()
    alone = tuple(replace(one, leader="n1", current=frozenset({"n1"})) for one in view.streams)
    step = plan(replace(view, streams=alone), RULES)
    assert isinstance(step, Wait) and "copies are being made" in step.reason
