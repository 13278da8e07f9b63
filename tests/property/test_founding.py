"""Any candidates, started in any order, with any delay within the wait: exactly one creates the mesh."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.config import MeshConfig
from mesh.discovery.announcement import CANDIDATE, FOUNDING, MEMBER, SEEKER, Announcement, Sighting
from mesh.discovery.founding import REMEMBERED_PATIENCE_S, Create, Join, LocalNode, Memory, Wait, decide

TICK_S = 0.1
WAIT_TICKS = 10
CONFIG = MeshConfig(discovery_wait_s=WAIT_TICKS * TICK_S)


@dataclass
class Machine:
    """A node in the simulation; times are in ticks."""

    id: str
    start: int
    delay_to: list[int]
    """Ticks until each other machine receives an announcement of this one."""
    dies_when_founding: bool = False
    dies_at: int = 10**6
    """A candidate crashes at this tick, unless it has created a mesh before."""
    forgotten_after: int = 10**6
    """Ticks after its death until the others forget its announcement."""
    announced: list[tuple[int, Announcement]] = field(default_factory=list)
    seen: dict[str, Sighting] = field(default_factory=dict)
    founded_at: int | None = None
    joined: str = ""
    died_at: int | None = None
    memory: Memory | None = None

    def say(self, tick: int, **changes) -> None:
        last = self.announced[-1][1] if self.announced else Announcement("m", "", "", self.id, (), CANDIDATE)
        self.announced.append((tick, replace(last, **changes)))


def hear(machine: Machine, number: int, others: list[Machine], tick: int) -> None:
    for other in others:
        if other is machine:
            continue
        if other.died_at is not None and tick > other.died_at + other.forgotten_after:
            machine.seen.pop(other.id, None)
            continue
        announcements = [w for at, w in other.announced if max(at, machine.start) + other.delay_to[number] <= tick]
        if announcements:
            before = machine.seen.get(other.id)
            same = before is not None and before.announcement.role == announcements[-1].role
            since = before.since if same else tick * TICK_S
            machine.seen[other.id] = Sighting(announcements[-1], since, tick * TICK_S)


def act(machine: Machine, tick: int, founding_ticks: int) -> None:
    if machine.founded_at is not None:
        if tick == machine.founded_at + founding_ticks:
            machine.say(tick, role=MEMBER, mesh_id=f"of-{machine.id}", urls=(f"nats://{machine.id}:1",))
        return
    if tick >= machine.dies_at:
        machine.died_at = tick
        return
    memory = machine.memory or Memory(machine.start * TICK_S)
    step, machine.memory = decide(LocalNode(machine.id, "m"), machine.seen.values(), memory, tick * TICK_S, CONFIG)
    if isinstance(step, Create):
        machine.founded_at = tick
        machine.say(tick, role=FOUNDING, supports=machine.id)
        machine.died_at = tick if machine.dies_when_founding else None
    elif isinstance(step, Join):
        machine.joined = step.mesh_id
    elif machine.announced[-1][1].supports != step.supports:
        machine.say(tick, supports=step.supports)


def simulate(machines: list[Machine], ticks: int, founding_ticks: int) -> None:
    for tick in range(ticks):
        living = [m for m in machines if m.died_at is None and m.start <= tick]
        for number, machine in enumerate(machines):
            if machine in living and not machine.joined:
                if machine.start == tick:
                    machine.say(tick, supports=machine.id)
                hear(machine, number, machines, tick)
        for machine in living:
            if not machine.joined:
                act(machine, tick, founding_ticks)


@st.composite
def meshes(draw, dying: bool = False) -> list[Machine]:
    ids = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True))
    delays = st.integers(0, WAIT_TICKS)
    machines = [Machine(id_, draw(st.integers(0, 4 * WAIT_TICKS)), [draw(delays) for _ in ids]) for id_ in ids]
    if dying:
        for machine in machines:
            machine.forgotten_after = draw(st.integers(2 * WAIT_TICKS, 30 * WAIT_TICKS))
        draw(st.sampled_from(machines)).dies_when_founding = True
        draw(st.sampled_from(machines)).dies_at = draw(st.integers(0, 6 * WAIT_TICKS))
    return machines


@settings(deadline=None)
@given(meshes(), st.integers(1, 60))
def test_exactly_one_founds_and_the_rest_join_it(machines, founding_ticks):
    simulate(machines, 350, founding_ticks)
    founders = [m for m in machines if m.founded_at is not None]
    assert len(founders) == 1, founders
    assert {m.joined for m in machines if m is not founders[0]} <= {f"of-{founders[0].id}"}
    assert all(m.joined for m in machines if m is not founders[0])


@settings(deadline=None)
@given(meshes(dying=True), st.integers(1, 60))
def test_when_a_candidate_and_the_founder_die_exactly_one_other_takes_over(machines, founding_ticks):
    simulate(machines, 600, founding_ticks)
    living = [m for m in machines if m.died_at is None]
    founders = [m for m in living if m.founded_at is not None]
    assert len(founders) == (1 if living else 0)
    assert all(m.joined == f"of-{founders[0].id}" for m in living if m is not founders[0])


announcements = st.builds(
    Announcement,
    mesh_name=st.sampled_from(["m", "m", "m", "other"]),
    mesh_id=st.sampled_from(["", "x", "y"]),
    key_fingerprint=st.sampled_from(["", "", "", "k"]),
    node_id=st.sampled_from("abcd"),
    urls=st.sampled_from([(), ("nats://h:1",), ("nats://h:1", "nats://i:2")]),
    role=st.sampled_from([MEMBER, MEMBER, CANDIDATE, FOUNDING, SEEKER]),
    supports=st.sampled_from("abcd"),
)


times = st.floats(0, 100)
sightings = st.lists(st.builds(Sighting, announcements, times, times), max_size=3)
dead_urls = st.frozensets(st.sampled_from(["nats://h:1", "nats://i:2"]))


@given(sightings, times, times, dead_urls)
def test_a_node_that_remembers_a_mesh_never_founds(seen, started_at, now, unreachable):
    step, _ = decide(LocalNode("b", "m", mesh_id="x"), seen, Memory(started_at), now, CONFIG, unreachable)
    assert not isinstance(step, Create)
    if isinstance(step, Join) and now - started_at < REMEMBERED_PATIENCE_S:
        assert step.mesh_id == "x"


@given(sightings, times, times, dead_urls)
def test_it_never_founds_beside_an_announced_mesh_nor_joins_a_strange_one(seen, started_at, now, unreachable):
    me = LocalNode("b", "m")
    mine = [
        announcement
        for announcement in (sighting.announcement for sighting in seen)
        if announcement.mesh_name == "m" and not announcement.key_fingerprint and announcement.node_id != "b"
    ]
    members = [announcement for announcement in mine if announcement.role == MEMBER]
    step, _ = decide(me, seen, Memory(started_at), now, CONFIG, unreachable)
    if isinstance(step, Create):
        assert not members and now - started_at >= CONFIG.discovery_wait_s
    elif isinstance(step, Join):
        assert step.urls and not set(step.urls) & unreachable
        assert set(step.urls) <= {url for announcement in members for url in announcement.urls}
    else:
        assert isinstance(step, Wait) and step.seconds > 0 and step.why.endswith(".")
