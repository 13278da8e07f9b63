"""JSON schemas of documents: msgspec's, with the docstring of each field as its description.

The docstrings are read from the source of the module that defines the class, as they stand below each field.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import typing
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

REF = "#/components/schemas/{name}"


def schemas(documents: Iterable[type]) -> tuple[dict[str, Any], dict[type, dict[str, Any]]]:
    """(name -> schema of the documents and all that they contain, document -> reference to its schema)."""
    types = tuple(dict.fromkeys(documents))
    refs, components = msgspec.json.schema_components(types, ref_template=REF)
    for kind in {inner for document in types for inner in _classes(document)}:
        component = components.get(kind.__name__, {})
        docs = field_docs(kind)
        encoded = dict(
            zip(getattr(kind, "__struct_encode_fields__", ()), getattr(kind, "__struct_fields__", ()), strict=True)
        )
        for name, schema in component.get("properties", {}).items():
            field = encoded.get(name, name)
            if field in docs and "description" not in schema:
                schema["description"] = docs[field]
    return components, dict(zip(types, refs, strict=True))


def field_docs(kind: type) -> dict[str, str]:
    """field -> its docstring, those of base classes included; empty where the source is not available."""
    source = getattr(kind, "__source__", None)
    if source is not None:
        return field_docs(source)
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        found |= _docs_of_module(base.__module__).get(base.__qualname__, {})
    return found


@cache
def _docs_of_module(name: str) -> dict[str, dict[str, str]]:
    """class -> field -> docstring of the classes at the top of a module."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[name]))
    except (KeyError, OSError, TypeError):
        return {}
    return {node.name: _docs_of_class(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docs_of_class(node: ast.ClassDef) -> dict[str, str]:
    found: dict[str, str] = {}
    for statement, after in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[statement.target.id] = inspect.cleandoc(after.value.value)
    return found


def _classes(hint: Any, found: set[type] | None = None) -> set[type]:
    """The structs and dataclasses in a type hint, and in their fields."""
    found = set() if found is None else found
    for inner in typing.get_args(hint):
        _classes(inner, found)
    is_class = isinstance(hint, type) and (issubclass(hint, msgspec.Struct) or dataclasses.is_dataclass(hint))
    if is_class and hint not in found:
        found.add(hint)
        for inner in typing.get_type_hints(hint, include_extras=True).values():
            _classes(inner, found)
    return found
