"""The bus topology under Hypothesis: a simulated bus carries out every step, and invariants hold after each one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.cluster.steps import MoveMeta, MoveStreams, Promote, Remove, Scale, Step, Stop, Wait
from mesh.cluster.topology import Candidate, Rules, Server, Stream, View, pick, plan
from mesh.subjects import host_of
from tests.examples import examples

RULES = Rules(servers=3, candidate_s=20, gone_s=60, join_s=30)
STREAMS = ("WORK", "TASKS", "KV_lease")


@dataclass
class Copy:
    """The copies of a stream: how many it should have, which servers have one, and its leader."""

    replicas: int
    members: list[str]
    leader: str


@dataclass
class World:
    """A bus that carries out every step at once; machines are named by their node."""

    machines: dict[str, str]
    """node -> address"""
    group: list[str] = field(default_factory=list)
    records: dict[str, str] = field(default_factory=dict)
    """server -> node, as recorded on the bus"""
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
        return host_of(server) not in self.gone and server in self.records

    def view(self) -> View:
        servers = tuple(
            Server(
                name,
                host_of(name),
                frozenset({self.machines[host_of(name)]}),
                recorded=name in self.records,
                in_group=name in self.group,
                current=name in self.group and self.living(name),
                gone_s=100.0 if host_of(name) in self.gone else 0.0,
                leaving=host_of(name) in self.leaving,
            )
            for name in sorted({*self.group, *self.records})
        )
        hosts = set(self.records.values())
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
        """Elect a leader by majority, of the meta group and of each stream's copies."""
        living = [server for server in self.group if self.living(server)]
        if len(living) * 2 <= (self.size or len(self.group)):
            self.leader = ""
        elif self.leader not in living:
            self.leader = min(living)
        for copy in self.streams.values():
            up = [server for server in copy.members if self.living(server)]
            if copy.leader not in up:
                copy.leader = min(up) if len(up) * 2 > len(copy.members) else ""

    def obey(self, step: Step) -> None:
        self.took.append(step)
        match step:
            case Promote(node):
                assert node not in self.gone | self.leaving
                self.made += 1
                name = f"{node}~{self.made}"
                self.records[name] = node
                self.group.append(name)
                self.size = 0  # adding or removing a member corrects the group size
                living = [member for member in self.group if self.living(member)]
                assert len(living) * 2 > len(self.group), "the corrected group size cost the majority"
            case Scale(streams, replicas):
                for stream_name in streams:
                    self._scale(self.streams[stream_name], replicas)
            case MoveStreams(streams, to):
                for stream_name in streams:
                    assert to in self.streams[stream_name].members and self.living(to)
                    self.streams[stream_name].leader = to
            case MoveMeta(to):
                assert to in self.group and self.living(to)
                self.leader = to
            case Remove(server):
                self._remove(server)
            case Stop(node, server):
                assert server not in self.group, "a member's server was ended"
                del self.records[server]

    def _scale(self, copy: Copy, replicas: int) -> None:
        copy.replicas = replicas
        if replicas < len(copy.members):
            copy.members = [copy.leader, *(member for member in copy.members if member != copy.leader)][:replicas]
        for server in self.group:
            if len(copy.members) < replicas and server not in copy.members and self.living(server):
                copy.members.append(server)

    def _remove(self, server: str) -> None:
        living = [server for server in self.group if self.living(server)]
        assert len(living) * 2 > len(self.group), "nobody could have agreed to the removal"
        assert server != self.leader
        self.group.remove(server)
        self.size = 0
        left = [server for server in self.group if self.living(server)]
        assert len(left) * 2 > len(self.group), "the group lost its majority"
        for name, copy in self.streams.items():
            if server in copy.members:
                copy.members.remove(server)
                assert any(map(self.living, copy.members)), f"{name} lost its last copy"
                self._scale(copy, copy.replicas)

    def run(self, limit: int = 60) -> Step:
        """Carry out the plan until it waits; returns the last step."""
        for _ in range(limit):
            self.elect()
            step = plan(self.view(), self.rules)
            if isinstance(step, Wait):
                return step
            self.obey(step)
        raise AssertionError(f"the plan never settles: {self.took[-8:]}")


def created_mesh(count: int) -> World:
    """A mesh of `count` machines that one of them has created."""
    world = World({f"n{number}": f"10.0.0.{number}" for number in range(1, count + 1)})
    world.group, world.records, world.leader = ["n1"], {"n1": "n1"}, "n1"
    world.streams = {name: Copy(1, ["n1"], "n1") for name in STREAMS}
    return world


@given(st.integers(1, 7))
def test_it_grows_to_three_with_three_machines_and_never_stays_at_two(count: int) -> None:
    world = created_mesh(count)
    assert world.run() == Wait()
    wanted = 3 if count >= 3 else 1
    assert len(world.group) == wanted
    assert all(len(copy.members) == wanted for copy in world.streams.values())


EVENTS = st.lists(
    st.tuples(st.sampled_from(["kill", "leave", "back", "new"]), st.integers(0, 9)), min_size=1, max_size=12
)


@settings(max_examples=examples(300))
@given(st.integers(1, 6), EVENTS)
def test_no_event_removes_the_last_copy(count: int, happenings: list[tuple[str, int]]) -> None:
    """Machines die, leave, return and appear; `World.obey` checks each step as it carries it out."""
    world = created_mesh(count)
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
            hosted = [server for server in world.group if host_of(server) == node]
            alive = [server for server in world.group if world.living(server)]
            if hosted and (len(alive) - 1) * 2 <= len(world.group):
                continue  # the loss of a majority needs a person: `queztl bus rescue`
            world.gone.add(node)
        world.run()
        world.elect()
        assert world.leader, "the bus lost its leader"
        assert all(copy.leader for copy in world.streams.values()), "a stream lost its leader"
        living = [server for server in world.group if world.living(server)]
        away = {node for node in world.machines if node in world.gone | world.leaving}
        if len(world.machines) - len(away) >= 3:
            assert len(living) == 3 == len(world.group), world.group


def test_a_dead_server_gets_time_to_return_before_it_is_replaced() -> None:
    world = created_mesh(4)
    world.run()
    victim = next(server for server in world.group if server != world.leader)
    view = world.view()
    dying = tuple(
        replace(server, gone_s=5.0, current=False) if server.name == victim else server for server in view.servers
    )
    step = plan(replace(view, servers=dying), RULES)
    assert isinstance(step, Wait) and "away" in step.reason
    world.gone.add(host_of(victim))
    world.run()
    assert victim not in world.group and len(world.group) == 3
    first_two = [type(step) for step in world.took if not isinstance(step, Stop)][-2:]
    assert first_two == [Promote, Remove], "its successor joins before it is removed"


def test_newcomers_join_one_by_one() -> None:
    world = created_mesh(3)
    world.obey(plan(world.view(), RULES))
    view = world.view()
    joining = tuple(
        replace(server, in_group=False, current=False, age_s=1.0) if "~" in server.name else server
        for server in view.servers
    )
    assert plan(replace(view, servers=joining), RULES) == Wait("n2 joins")
    late = tuple(
        replace(server, in_group=False, age_s=31.0) if "~" in server.name else server for server in view.servers
    )
    assert plan(replace(view, servers=late), RULES) == Stop("n2", "n2~1")


def test_the_only_server_hands_over_its_streams_before_it_leaves() -> None:
    world = created_mesh(2)
    world.leaving = {"n1"}
    world.run()
    assert [host_of(server) for server in world.group] == ["n2"]
    assert all(copy.members == ["n2~1"] for copy in world.streams.values())
    kinds = [type(step) for step in world.took]
    assert kinds == [Promote, Scale, MoveStreams, Scale, MoveMeta, Remove, Stop]


def test_no_candidate_on_the_machine_of_a_server_is_picked() -> None:
    def candidate(node: str, *addresses: str) -> Candidate:
        return Candidate(node, frozenset(addresses), 100.0)

    here = frozenset({"10.0.0.1"})
    crowd = [
        candidate("a", "10.0.0.1", "10.1.0.1"),
        candidate("b", "10.0.0.2"),
        candidate("c", "10.0.0.2"),
        replace(candidate("d", "10.0.0.3"), wired=False),
        replace(candidate("e", "10.0.0.4"), free_bytes=10),
        replace(candidate("f", "10.0.0.5"), willing=False),
        candidate("g"),
        replace(candidate("h", "10.0.0.6"), up_s=1.0),
    ]
    assert [picked.node for picked in pick(crowd, [here], RULES)] == ["b", "d"]


def test_a_node_that_starts_its_server_is_waited_for_and_not_asked_again() -> None:
    view = created_mesh(3).view()
    step = plan(view, RULES)
    assert isinstance(step, Promote)
    asked = tuple(replace(node, starting=node.node == step.node) for node in view.candidates)
    assert plan(replace(view, candidates=asked), RULES) == Wait(f"{step.node} starts a bus server")


def test_a_newcomer_whose_node_is_away_for_a_moment_is_waited_for() -> None:
    """A power cut in the middle of growth: two members are back, the third server is recorded and its node is late.
    The group of two shrank to one at once."""
    world = created_mesh(3)
    world.obey(plan(world.view(), RULES))
    view = world.view()
    newcomer = Server("n3~1", "n3", frozenset({"10.0.0.3"}), in_group=False, age_s=2.0, gone_s=2.0)
    away = replace(view, servers=(*view.servers, newcomer), candidates=())
    assert isinstance(plan(away, RULES), Wait)
    lost = replace(newcomer, gone_s=RULES.gone_s + 1, age_s=RULES.gone_s + 1)
    assert plan(replace(away, servers=(*view.servers, lost)), RULES) == Stop("n3", "n3~1")


def test_without_a_leader_nothing_is_done() -> None:
    assert isinstance(plan(View(leader=""), RULES), Wait)


def test_growth_whose_second_server_is_lost_is_reversed() -> None:
    world = created_mesh(3)
    world.obey(plan(world.view(), RULES))
    world.gone.add("n3")
    assert world.run() == Wait()
    assert world.group == ["n1"]


def test_a_member_its_own_node_no_longer_runs_is_replaced_at_once() -> None:
    """Its node came back with an empty disk, so that server never returns."""
    world = created_mesh(4)
    world.run()
    victim = next(server for server in world.group if server != world.leader)
    del world.records[victim]
    world.machines.pop(host_of(victim))
    world.machines["n9"] = "10.0.0.9"
    view = world.view
    world.view = lambda: replace(  # pyrefly: ignore[method-assign]  only this test changes what is seen
        view(), servers=tuple(replace(server, gone_s=0.0) for server in view().servers)
    )
    world.machines[host_of(victim)] = "10.0.0.99"
    world.run()
    assert victim not in world.group and len(world.group) == 3


@given(st.integers(1, 6), EVENTS, st.sampled_from(STREAMS))
def test_while_a_stream_does_not_answer_no_copy_is_made_moved_or_removed(
    count: int, happenings: list[tuple[str, int]], name: str
) -> None:
    """A new server may join, and a server in no group may end; all other steps wait until the stream answers."""
    world = created_mesh(count)
    world.run(limit=60)
    for what, number in happenings:
        node = sorted(world.machines)[number % len(world.machines)]
        {"leave": world.leaving, "kill": world.gone}.get(what, set()).add(node)
    view = world.view()
    unheard = Stream(name, 0, "", frozenset(), frozenset())
    streams = tuple(unheard if stream.name == name else stream for stream in view.streams)
    assert isinstance(plan(replace(view, streams=streams), RULES), Wait | Promote | Stop)


def test_a_lagging_copy_is_reported_after_a_while() -> None:
    world = created_mesh(3)
    world.run()
    view = world.view()
    lagging = replace(view.streams[1], current=view.streams[1].current - {max(view.streams[1].current)})
    for behind_s, reason in ((1.0, ""), (6.0, f"{lagging.name}: a copy catches up")):
        streams = (view.streams[0], replace(lagging, behind_s=behind_s), view.streams[2])
        assert plan(replace(view, streams=streams), RULES) == Wait(reason)


def test_no_server_leaves_while_the_remaining_copies_are_empty() -> None:
    """The leader holds the only complete copy until two others do, whatever the servers call current."""
    world = created_mesh(4)
    world.run()
    world.leaving = {"n1"}
    world.obey(plan(world.view(), RULES))
    view = world.view()
    alone = tuple(replace(stream, leader="n1", current=frozenset({"n1"})) for stream in view.streams)
    step = plan(replace(view, streams=alone), RULES)
    assert isinstance(step, Wait) and "copies are being made" in step.reason
