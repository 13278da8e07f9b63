"""Flags, environment, defaults, and the messages for wrong values."""

from __future__ import annotations

import asyncio
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config import LAN, LOCAL
from mesh.errors import CannotStart
from node import cli
from node.config import NAMES, BadConfig, NodeConfig, build
from node.executor.context import Context
from node.executor.process import Permissions
from node.executor.worker_main import parse_grants


def flags(*argv: str) -> dict:
    return vars(cli.parser().parse_args(argv))


def test_nothing_configured_is_the_default():
    assert build(flags(), {}) == NodeConfig()
    assert NodeConfig().mesh_config is LAN and NodeConfig().api_is_local


def test_a_flag_wins_over_the_environment_and_that_over_the_default(tmp_path):
    environ = {
        "QUEZTL_MESH": "home",
        "QUEZTL_API": "0.0.0.0:9000",
        "QUEZTL_JOIN": "nats://a, http://[::1]:1",
        "QUEZTL_LABEL": "disk=nvme,rack=3",
        "QUEZTL_OPEN_API": "yes",
        "QUEZTL_SLOTS": "",
        "QUEZTL_DATA": "~",
    }
    got = build(flags("--mesh", "lab", "--label", "rack=7", "--preset", "LOCAL", "--json-logs"), environ)
    assert got.mesh_name == "lab" and got.labels == {"rack": "7"} and got.json_logs and got.open_api
    assert (got.api_host, got.api_port, got.api_is_local) == ("0.0.0.0", 9000, False)
    assert got.join == ("nats://a:4222", "http://[::1]:1") and got.slots == 0
    assert got.data == Path.home() and got.mesh_config is LOCAL
    assert build(flags("--data", str(tmp_path)), environ).data == tmp_path


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("8001", ("127.0.0.1", 8001)),
        (":0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("localhost", ("localhost", 8000)),
    ],
)
def test_addresses_may_be_short(text, want):
    got = build(flags("--api", text), {})
    assert (got.api_host, got.api_port) == want and got.api_is_local


def test_every_fault_is_named_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    argv = ["--mesh", "my mesh", "--api", "host:99999", "--slots", "-1", "--label", "x", "--label", "a b=c"]
    argv += ["--join", "ftp://x", "--preset", "moon", "--log-level", "loud", "--data", str(tmp_path / "file")]
    environ = {"QUEZTL_JSON_LOGS": "maybe", "QUEZTL_BUS_PORT": "70000", "QUEZTL_INTERFACE": "eth0;rm"}
    with pytest.raises(BadConfig) as caught:
        build(flags(*argv), environ)
    assert len(caught.value.faults) == 12
    assert all(fault.endswith(".") and ": " in fault for fault in caught.value.faults)
    assert "--mesh 'my mesh': a mesh name is 1 to 64 letters" in str(caught.value)
    assert "QUEZTL_BUS_PORT '70000': must be a whole number from 0 to 65535." in caught.value.faults


@pytest.mark.parametrize("text", ["~nobody-of-that-name/x", "x" * 300, "a\0b"])
def test_a_directory_that_can_not_be_is_a_sentence(text):
    with pytest.raises(BadConfig, match="is not a directory"):
        build({"data": text}, {})


def test_targets_are_listed_in_one_spelling_and_never_forbidden_ones():
    got = build(flags("--web-target", "LAB.test.:080", "--web-target", "[::0:1]:8080"), {})
    assert got.web_targets == ("lab.test:80", "[::1]:8080") and got.grants == {"web_targets": got.web_targets}
    assert build({}, {"QUEZTL_WEB_TARGET": "127.0.0.1:80,localhost:81"}).web_targets == ("127.0.0.1:80", "localhost:81")
    bad = "169.254.169.254:80,[fe80::1]:80,[::ffff:169.254.1.1]:80,0.0.0.0:80,2130706433:80,http://a:80,a"
    with pytest.raises(BadConfig) as caught:
        build({}, {"QUEZTL_WEB_TARGET": bad})
    assert len(caught.value.faults) == 7
    assert "load tests are not sent there" in caught.value.faults[0]


@given(st.dictionaries(st.sampled_from([variable for _, variable in NAMES.values()]), st.text(max_size=40)))
def test_any_environment_gives_a_configuration_or_sentences(environ):
    try:
        build({}, environ)
    except BadConfig as error:
        assert error.faults and error.exit_code == 2


def test_every_setting_is_a_flag_with_help_and_a_docstring():
    text = cli.parser().format_help()
    assert all(flag in text for flag, _ in NAMES.values())
    source = Path(cli.__file__).with_name("config.py").read_text()
    for field in fields(NodeConfig):
        declared = source.index(f"    {field.name}: ")
        assert source[declared:].split("\n")[1].strip().startswith('"""'), f"{field.name} lacks its docstring"


def test_bad_settings_end_with_sentences_and_exit_code_2(capsys, monkeypatch):
    monkeypatch.setenv("QUEZTL_SLOTS", "many")
    assert cli.main(["--preset", "moon"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "QUEZTL_SLOTS 'many'" in err and "--preset 'moon'" in err and "Traceback" not in err


def test_errors_become_a_sentence_and_an_exit_code(capsys):
    async def cannot(config):
        raise CannotStart("Port 8000 is taken; give another one with --api.")

    async def breaks(config):
        raise ZeroDivisionError("odd")

    async def ends(config):
        await asyncio.sleep(0)
        return 0

    assert cli.start(cannot, NodeConfig()) == 2
    assert cli.start(breaks, NodeConfig()) == 1
    assert cli.start(ends, NodeConfig()) == 0
    err = capsys.readouterr().err
    assert "Port 8000 is taken" in err and "odd" in err and "Traceback" not in err


def test_what_the_operator_listed_reaches_the_workload_by_its_setting(monkeypatch):
    monkeypatch.setattr("node.config.GRANTS", ("join",))
    config = build(flags("--join", "nats://a", "--join", "http://b:1"), {})
    fault_kinds, grants = Permissions(True, config.grants).arguments()
    context = Context(1, Path("."), grants=parse_grants(grants))
    assert fault_kinds == "1" and context.granted("join") == ("nats://a:4222", "http://b:1")
    assert context.granted("nothing") == () and NodeConfig().grants == {}


def test_no_node_is_started_unless_max_nodes_is_given():
    assert build({}, {}).max_nodes is None and build(flags("--max-nodes", "0"), {}).max_nodes == 0
    got = build(flags("--max-nodes", "9"), {"QUEZTL_MIN_NODES": "2", "QUEZTL_LEAVE_ALONE": "60"})
    assert (got.max_nodes, got.min_nodes, got.leave_alone_s) == (9, 2, 60)
    with pytest.raises(BadConfig) as caught:
        build(flags("--max-nodes", "-1", "--started-as", "me", "--leave-alone", "x"), {})
    assert len(caught.value.faults) == 3
    for argv in (["--min-nodes", "3"], ["--min-nodes", "3", "--max-nodes", "2"]):
        with pytest.raises(BadConfig, match="--min-nodes 3"):
            build(flags(*argv), {})


def test_the_version_names_all_that_a_bug_report_needs(capsys):
    assert cli.main(["--version"]) == 0
    pattern = r"queztl-node \S+ \(wire version \d+, Python \d+\.\d+\.\d+\S*, nats-server \d+\.\d+\.\d+\)\n"
    assert re.fullmatch(pattern, capsys.readouterr().out)
