"""What is stored of a calibration, and when it is measured anew."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from mesh import data_folder
from mesh.kinds.base import Need
from mesh.kinds.table import KINDS, validate
from mesh.messages import Accelerator, Capabilities, KindInfo
from node.identity import calibration

SPECS = (KINDS["echo"], KINDS["crypto_mining"], KINDS["scientific_computing"])
HAVE = Capabilities(
    cpu_model="EPYC",
    cores=2,
    memory_bytes=8 << 30,
    libraries={"python": "3.11.2", "numpy": "2.4", "cv2": "5"},
    kinds=tuple(KindInfo(spec.name, spec.name != "scientific_computing", "x") for spec in SPECS),
)


def test_only_kinds_with_a_probe_that_can_run_are_measured():
    assert [spec.name for spec in calibration.measurable(SPECS, HAVE)] == ["crypto_mining"]


def test_every_probe_is_a_payload_that_needs_nothing_else():
    probes = {name: spec.probe for name, spec in KINDS.items() if spec.probe is not None}
    assert set(probes) >= {"crypto_mining", "scientific_computing", "image_processing", "database_ops"}
    for name, probe in probes.items():
        validate(name, probe)
        json.dumps(probe)


def test_a_stored_speed_is_reused_and_a_damaged_file_costs_only_a_measurement(tmp_path):
    spec = KINDS["crypto_mining"]
    of = calibration.conditions(spec, HAVE, 2, "1")
    assert calibration.known(SPECS, HAVE, 2, "1", tmp_path) == {}
    calibration.save(spec.name, 0.25, of, tmp_path)
    calibration.save("another", 1.0, "x", tmp_path)
    assert calibration.known(SPECS, HAVE, 2, "1", tmp_path) == {"crypto_mining": 0.25}
    for damaged in ("", "[]", '{"crypto_mining": 3}', json.dumps({"crypto_mining": {"of": of, "seconds": "fast"}})):
        (tmp_path / data_folder.SPEEDS).write_text(damaged)
        assert calibration.known(SPECS, HAVE, 2, "1", tmp_path) == {}
    calibration.save(spec.name, 0.5, of, tmp_path)
    assert calibration.known(SPECS, HAVE, 2, "1", tmp_path) == {"crypto_mining": 0.5}


def test_a_folder_that_cannot_be_written_is_only_logged(tmp_path, caplog):
    calibration.save("k", 1.0, "x", tmp_path / "absent")
    assert "could not save the measured speed of k" in caplog.text


@pytest.mark.parametrize(
    "change",
    [{"cpu_model": "Xeon"}, {"cores": 4}, {"memory_bytes": 1}, {"accelerators": (Accelerator("cuda", "H100"),)}],
)
def test_other_hardware_is_measured_anew(change):
    spec = KINDS["crypto_mining"]
    before = calibration.conditions(spec, HAVE, 2, "1")
    assert calibration.conditions(spec, msgspec.structs.replace(HAVE, **change), 2, "1") != before


def test_other_versions_of_its_libraries_are_measured_anew_and_unrelated_ones_are_not(monkeypatch):
    spec = replace(KINDS["scientific_computing"], gains=(Need("fast_wheel", "x"),))
    before = calibration.conditions(spec, HAVE, 2, "1")

    def with_library(name, version):
        return msgspec.structs.replace(HAVE, libraries={**HAVE.libraries, name: version})

    assert calibration.conditions(spec, with_library("numpy", "2.5"), 2, "1") != before
    assert calibration.conditions(spec, with_library("cv2", "6"), 2, "1") == before
    assert calibration.conditions(spec, HAVE, 1, "1") != before
    assert calibration.conditions(spec, HAVE, 2, "2") != before
    assert calibration.conditions(replace(spec, probe={"n": 9}), HAVE, 2, "1") != before
    monkeypatch.setattr(calibration, "_installed", lambda name: "1.0")
    assert calibration.conditions(spec, HAVE, 2, "1") != before
