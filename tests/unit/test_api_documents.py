"""REST documents: derived from views and records, and described by the docstrings of those."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated

import msgspec
import pytest
from jsonschema import Draft202012Validator
from msgspec import UNSET, Meta

from api.documents import tasks
from api.documents.base import derive, fill, rfc3339
from api.documents.errors import sentence
from api.documents.schemas import field_docs, schemas
from api.handlers.submission import FIELDS
from api.http.openapi import document
from api.routes import ROUTE_TABLE
from mesh.messages import BlobRef, Raw, TaskEnd, TaskError, TaskState, encode
from mesh.tasks.status import of_end, of_state
from mesh.views import SubmitRequest, TaskView


@dataclass(frozen=True)
class View:
    """Something of the mesh."""

    id: str
    """Its id."""
    begun_at: float = 0.0
    share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """How far it is."""
    secret: int = 0
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)


ViewDoc = derive("ViewDoc", View, without=("secret",), absent=("tags",), more={"link": str})
RequestDoc = derive("RequestDoc", View, replace={"id": int}, is_request=True)


def test_a_derived_document_has_the_fields_of_its_source() -> None:
    (components, refs) = schemas([ViewDoc])
    assert refs[ViewDoc] == {"$ref": "#/components/schemas/ViewDoc"}
    schema = components["ViewDoc"]
    assert schema["description"] == "Something of the mesh." and schema["additionalProperties"] is False
    assert schema["required"] == ["id", "begun_at", "share", "labels", "link"]
    shown = schema["properties"]
    assert list(shown) == ["id", "begun_at", "share", "tags", "labels", "link"]
    assert shown["id"] == {"type": "string", "description": "Its id."}
    assert shown["share"]["maximum"] == 1 and shown["share"]["description"] == "How far it is."
    assert "RFC 3339" in shown["begun_at"]["description"]


def test_a_document_is_filled_from_its_source() -> None:
    made = fill(ViewDoc, View("a", 1.5, tags=("x",)), link="/a")
    assert msgspec.to_builtins(made) == {
        "id": "a", "begun_at": "1970-01-01T00:00:01.500Z", "share": 0.5, "tags": ("x",), "labels": {}, "link": "/a"
    }  # fmt: skip
    without = msgspec.to_builtins(fill(ViewDoc, View("a"), link="/a", tags=UNSET))
    assert "tags" not in without and without["begun_at"] is None


def test_a_request_keeps_the_defaults_of_its_source() -> None:
    schema = schemas([RequestDoc])[0]["RequestDoc"]
    assert schema["required"] == ["id"] and schema["properties"]["id"]["type"] == "integer"
    assert schema["properties"]["share"]["default"] == 0.5 and schema["properties"]["labels"]["default"] == {}


def test_docstrings_of_base_classes_and_missing_sources() -> None:
    @dataclass(frozen=True)
    class Local(View):
        more: int = 0
        """Not at the top of its module."""

    assert field_docs(Local) == field_docs(View) == {"id": "Its id.", "share": "How far it is."}
    assert field_docs(msgspec.defstruct("Made", ["a"])) == {}


@pytest.mark.parametrize(
    "end",
    [
        TaskEnd(id="c1-1", kind="echo", state="done", result=Raw(encode({"value": 1})), ended_at=9.0),
        TaskEnd(id="c1-1", kind="echo", state="done", result=Raw(encode(b"x")), content_type="a/b", info={"n": 1}),
        TaskEnd(id="c1-1", kind="echo", state="done", result_ref=BlobRef("b-t1", 9)),
        TaskEnd(id="c1-1", kind="echo", state="failed", error=TaskError("crash", "It crashed.", (("a", "is odd"),))),
        TaskState(id="c1-1", kind="echo", state="running", node="n1", text="so far", text_from=3, progress=0.5),
        TaskState(id="c1-1", kind="echo", state="queued", error=TaskError("crash", "It crashed."), attempt=2),
    ],
    ids=lambda record: f"{record.state} {record.error.code if record.error else ''}",
)
def test_every_state_of_a_task_is_a_valid_document(end: TaskEnd | TaskState) -> None:
    view = of_end(end) if isinstance(end, TaskEnd) else of_state(end)
    for name in {view_field.name for view_field in fields(TaskView)} & set(end.__struct_fields__) - {"result", "error"}:
        assert getattr(view, name) == getattr(end, name), name
    shown = msgspec.json.decode(msgspec.json.encode(tasks.status(view)))
    components = schemas([tasks.StatusDoc])[0]
    schema = {"$ref": "#/components/schemas/StatusDoc", "components": {"schemas": components}}
    Draft202012Validator(schema).validate(shown)
    assert shown["id"] == "c1-1" and shown["links"]["status"] == "/api/v1.2/workload/c1-1/status"
    assert ("text" in shown) == ("text_from" in shown) == bool(view.text)
    assert ("content_type" in shown) == ("info" in shown) == bool(view.content_type)
    assert ("result" in shown) == (view.state == "done" and not view.content_type and view.result_ref is None)
    if view.error:
        assert {name: shown["error"][name] for name in view.error} == view.error
    assert "result" not in msgspec.to_builtins(tasks.status(view, with_result=False))


def test_every_field_of_a_submission_is_described() -> None:
    body = document(ROUTE_TABLE, "1")["components"]["schemas"]["SubmitBody"]
    assert (
        {request_field.name for request_field in fields(SubmitRequest)} | {"workload_type"}
        == set(body["properties"])
        == FIELDS
    )
    assert all(schema.get("description") for schema in body["properties"].values())
    assert "required" not in body or not body["required"]


def test_names_of_components_are_unique() -> None:
    """A struct and a pydantic model of the same name would replace each other without an error."""
    documents = {kind for route in ROUTE_TABLE for kind in (route.body, *(a.model for a in route.answers.values()))}
    structs = [kind for kind in documents if kind is not None and not hasattr(kind, "model_json_schema")]
    models = [kind for kind in documents if kind is not None and hasattr(kind, "model_json_schema")]
    assert not set(schemas(structs)[0]) & {model.__name__ for model in models}


def test_times_and_sentences() -> None:
    assert (rfc3339(0), rfc3339(1.7e9)) == (None, "2023-11-14T22:13:20.000Z")
    cases = {
        "it broke": "It broke.",
        "Done!": "Done!",
        " ": "Something went wrong.",
        "3 left": "3 left.",
    }
    assert {text: sentence(text) for text in cases} == cases
