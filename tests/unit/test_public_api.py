"""The Python API: every option is named, and the blocking client has every method of the asynchronous one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from mesh.client import Mesh, TaskHandle
from mesh.client_connection import ClientConnection
from mesh.splitting import mining, video
from mesh.sync import SyncMesh, SyncTaskHandle
from mesh.tasks import mapping
from mesh.views import SubmitRequest

#: What only coroutines can use: parts of the connection.
ASYNC_ONLY = {"bus", "completions", "submitter"}


def public(kind: type) -> dict[str, Callable[..., Any]]:
    """name -> method, of a class and its bases."""
    return {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}


def parameters(method: Callable[..., Any]) -> list[tuple[str, object, object]]:
    """(name, kind, default) of each parameter."""
    found = inspect.signature(method).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in found]


def functions() -> list[Any]:
    """The functions and methods that programs call."""
    found = [mining.mine, video.encode, mapping.run]
    for kind in (Mesh, SyncMesh, TaskHandle, SyncTaskHandle):
        found += [member for member in public(kind).values() if inspect.isfunction(member)]
    return [pytest.param(function, id=function.__qualname__) for function in found]


@pytest.mark.parametrize(("ours", "twin"), [(Mesh, SyncMesh), (TaskHandle, SyncTaskHandle)])
def test_the_twin_has_every_method_with_the_same_parameters(ours, twin):
    methods = {name: method for name, method in public(ours).items() if inspect.isfunction(method)}
    assert methods.keys() - ASYNC_ONLY <= public(twin).keys()
    for name in methods.keys() - ASYNC_ONLY:
        assert parameters(methods[name]) == parameters(public(twin)[name]), name


@pytest.mark.parametrize("function", functions())
def test_every_option_is_named_and_explained(function):
    assert function.__doc__
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


@pytest.mark.parametrize("method", ["start", "submit", "submit_workload", "map"])
def test_the_methods_that_submit_take_all_options_of_a_request(method):
    defaults = {name: default for name, _, default in parameters(getattr(Mesh, method))}
    request = SubmitRequest("echo")
    for name in SubmitRequest.__dataclass_fields__.keys() - {"kind", "payload"}:
        assert name in defaults
        assert defaults[name] == (getattr(request, name) if name != "requires" else None), name


def test_a_limit_of_the_run_and_a_limit_of_the_wait_have_their_own_names():
    for kind in (Mesh, SyncMesh, TaskHandle, SyncTaskHandle):
        for name, method in public(kind).items():
            names = {parameter for parameter, *_ in parameters(method)} if inspect.isfunction(method) else set()
            assert "timeout_s" not in names or "urgency" in names, f"{kind.__name__}.{name}"


def test_the_connection_is_part_of_the_client():
    assert issubclass(Mesh, ClientConnection)
