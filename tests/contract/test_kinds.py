"""Every kind of the table fulfils the contract of a kind."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mesh import subjects
from mesh.errors import BadInput, UnknownKind
from mesh.kinds.base import KindSpec, Payload
from mesh.kinds.table import KINDS, WorkloadType, blob_ids, schema, validate
from node.executor.context import Context, load
from node.probes.packages import EXTRA_SIZES, kind_info, probe_packages, prove
from tests.kind_examples import LOADS_PYTORCH, example_runs

ROOT = Path(__file__).resolve().parents[2]
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def context(tmp_path):
    return Context(cores=1, folder=tmp_path)


@every_kind
def test_contract_is_complete(kind):
    spec = KINDS[kind]
    assert isinstance(spec, KindSpec) and issubclass(spec.payload, Payload)
    assert spec.name == kind and subjects.is_token(kind) and kind.isidentifier()
    assert spec.summary.endswith(".") and "\n" not in spec.summary
    assert spec.timeout_s > 0 and spec.resources.memory_mb > 0
    assert importlib.util.find_spec(f"node.workloads.{kind}")
    assert WorkloadType[kind.upper()] == kind


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LOADS_PYTORCH])
def test_example_runs_and_its_result_crosses_the_bus(kind, context):
    example_runs(kind, context)


@every_kind
def test_one_wrong_field_is_named_and_does_not_crash_checks_across_fields(kind):
    for name in KINDS[kind].payload.model_fields:
        if (kind, name) == ("echo", "value"):
            continue  # it accepts any value
        with pytest.raises(BadInput) as caught:
            validate(kind, {name: {"no field": {"takes": "this"}}})
        assert any(re.split(r"[.\[]", fault.field)[1] == name for fault in caught.value.faults), name


@every_kind
def test_schema_describes_every_field(kind):
    document = schema(kind)
    json.dumps(document)
    assert document["type"] == "object" and document["additionalProperties"] is False
    assert document["description"]
    for name, field in document["properties"].items():
        assert field.get("description"), f"{kind}.{name} has no description"
    for name in re.findall(r'"#/\$defs/([^"]+)"', json.dumps(document)):
        assert name in document["$defs"]


@every_kind
def test_unknown_field_is_refused_by_name(kind):
    with pytest.raises(BadInput) as caught:
        validate(kind, {**KINDS[kind].example, "wdith": 1})
    (fault,) = caught.value.faults
    assert fault.field == "payload.wdith" and "is not a field" in fault.problem
    assert "payload.wdith" in caught.value.message


@every_kind
def test_payload_that_is_no_object_is_refused(kind):
    for payload in (3, "text", [1], b"x", True):
        with pytest.raises(BadInput) as caught:
            validate(kind, payload)
        assert caught.value.faults[0].field == "payload"


def test_unknown_kind_names_a_similar_kind():
    with pytest.raises(UnknownKind, match=r"crypto_minin'.*crypto_mining"):
        validate("crypto_minin", {})
    with pytest.raises(UnknownKind):
        load("../etc/passwd")
    with pytest.raises(UnknownKind):
        load("no_such_kind")


OPERATIONS = (
    "'resize', 'crop', 'rotate', 'flip', 'blur', 'sharpen', 'edges', 'threshold', 'colour', 'color', 'grayscale', "
    "'greyscale', 'sepia', 'invert', 'equalise', 'equalize', 'denoise', 'watermark'"
)


def test_every_wrong_field_is_named_in_plain_words():
    with pytest.raises(BadInput) as caught:
        validate(
            "image_processing",
            {
                "image": {"bob": 1},
                "width": "wide",
                "format": "gif",
                "operations": [{"op": "resize"}, {"op": "spin"}, {"op": "blur", "radius": 0}, 3],
            },
        )
    assert {fault.field: fault.problem for fault in caught.value.faults} == {
        "payload.image.blob": "is required",
        "payload.width": "must be a whole number",
        "payload.format": "must be 'jpeg', 'png', 'webp', 'avif', 'tiff' or 'bmp'",
        "payload.operations.0.height": "must be given when width is not",
        "payload.operations.1": f"must have 'op' set to one of {OPERATIONS}",
        "payload.operations.2.radius": "must be at least 1",
        "payload.operations.3": "must be an object",
    }
    assert "pydantic" not in caught.value.message and "http" not in caught.value.message


def test_data_may_be_bytes_base64_or_a_blob(context, tmp_path):
    (tmp_path / "b").write_bytes(b"abc")
    context.blobs["b-1"] = tmp_path / "b"
    results = [
        load("echo")(validate("echo", {"data": data}), context)
        for data in (b"abc", "YWJj", {"base64": "YWJj"}, {"blob": "b-1", "size": 3})
    ]
    assert results[0]["data_bytes"] == 3
    assert all(result == results[0] for result in results)


def test_blob_ids_are_found_wherever_they_stand():
    listed = [{"blob": "b-1"}, {"x": ({"blob": "b-2"},)}, {"blob": "b-1"}]
    payload = {"a": listed, "blob": "no id", "c": {"blob": 7}}
    assert blob_ids(payload) == ("b-1", "b-2")
    assert blob_ids(None) == blob_ids(b"b-1") == ()


def _wheel(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)


def test_absent_and_broken_libraries_are_distinguished(tmp_path, monkeypatch):
    """Four modules: one absent, one that raises, one that kills its process, one that is fine."""
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    _wheel(libraries, "broken_wheel", "raise ImportError('libGL.so.1: cannot open shared object file')")
    _wheel(libraries, "deadly_wheel", "import os; os._exit(9)")
    _wheel(libraries, "fine_wheel", "print('[\"noise'); __version__ = '1.2'")
    monkeypatch.setenv("PYTHONPATH", str(libraries))
    proofs = prove(["broken_wheel", "deadly_wheel", "fine_wheel"])
    assert "libGL.so.1" in proofs["broken_wheel"].error
    assert "status 9" in proofs["deadly_wheel"].error
    assert proofs["fine_wheel"].error == "" and proofs["fine_wheel"].version == "1.2"


def test_a_module_that_hangs_on_import_is_abandoned(tmp_path, monkeypatch):
    _wheel(tmp_path, "endless_wheel", "import threading; threading.Event().wait()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "longer than 1 s" in prove(["endless_wheel"], timeout_s=1.0)["endless_wheel"].error


@every_kind
def test_a_kind_whose_library_is_absent_says_so_and_how_to_get_it(kind, tmp_path, monkeypatch):
    spec = KINDS[kind]
    needs = (*spec.needs, *(need for libraries_needed in spec.either for need in libraries_needed))
    real = importlib.util.find_spec
    absent = {need.module for need in needs}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in absent else real(name))
    (info,), libraries = probe_packages([KINDS[kind]], tmp_path)
    assert info.available is (not needs) and libraries == {}
    if needs:
        assert needs[0].module in info.reason
        extra = needs[0].extra
        assert info.how_to_install == f"pip install 'queztl[{extra}]'  # {EXTRA_SIZES[extra]}"


def test_a_kind_in_a_child_with_its_import_blocked_fails_with_an_import_error(tmp_path):
    script = (
        "import sys; sys.modules['cv2'] = None\n"
        "from pathlib import Path\n"
        "from node.executor.context import Context, load\n"
        "from mesh.kinds.table import KINDS, validate\n"
        "spec = KINDS['image_processing']\n"
        "try: load(spec.name)(validate(spec.name, spec.example), Context(1, Path('.')))\n"
        "except ImportError as error: print('absent', error.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "absent cv2"


def test_importing_the_table_and_all_work_loads_no_heavy_library():
    script = (
        "import sys, importlib\n"
        "from mesh.kinds.table import KINDS\n"
        "import node.identity.capabilities\n"
        "from node.executor.context import load\n"
        "for kind in KINDS: load(kind)\n"
        "heavy = ('numpy', 'cv2', 'av', 'threadpoolctl', 'duckdb', 'llvmlite', 'nats', 'aiohttp', 'torch',\n"
        "         'transformers', 'xllamacpp')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_kind_info_names_all_that_is_wrong():
    from node.probes.packages import Proof

    spec = KINDS["image_processing"]
    proofs = {need.module: Proof(version="2.4") for need in spec.needs}
    info = kind_info(spec, {**proofs, "cv2": Proof(error="ImportError: libGL.so.1")})
    assert info.reason == "cv2 is installed but can't be imported (ImportError: libGL.so.1)"
    assert info.how_to_install == "pip install --force-reinstall 'queztl[vision]'"
