"""JSON schemas of payloads as people read them: the type of a field in a few words. Pure."""

from __future__ import annotations

import json
from typing import Any

#: More forms of an object than this are listed apart from the type.
MANY_FORMS = 3
_BLOB = {"blob", "size", "content_type"}


def type_of(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """The type of a field of a JSON schema, in a few words."""
    if "const" in field:
        return json.dumps(field["const"])
    if "enum" in field:
        return " | ".join(json.dumps(value) for value in field["enum"])
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        fields = definitions.get(name, {}).get("properties", {})
        if set(fields) == _BLOB:
            return "blob"
        return "{" + ", ".join(fields) + "}" if fields else name
    for several in ("anyOf", "oneOf"):
        if several in field:
            if len(_forms(field, definitions)) > MANY_FORMS:
                return "object (below)"
            types = dict.fromkeys(type_of(choice, definitions) for choice in field[several])
            return " | ".join(text for text in types if text != "null")
    if field.get("type") == "array":
        return f"list of {type_of(field.get('items', {}), definitions)}"
    if field.get("format") == "binary":
        return "bytes"
    name = str(field.get("type", "any"))
    low, high = _bounds(field, whole=name == "integer")
    return f"{name} {low}..{high}" if low or high else name


def default_of(field: dict[str, Any]) -> str:
    """The default of a field; "" for null, which means that the field is left out."""
    default = field.get("default")
    return "" if default is None else json.dumps(default)


def variants(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, list[str]]:
    """form -> its other fields, where a field takes one of many forms of an object told apart by a constant field."""
    for inner in (field, *field.get("anyOf", ()), *field.get("oneOf", ())):
        forms = _forms(inner.get("items", inner), definitions)
        if len(forms) > MANY_FORMS:
            return forms
    return {}


def _forms(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for choice in (*field.get("anyOf", ()), *field.get("oneOf", ())):
        fields = definitions.get(choice.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
        name = next((name for name, inner in fields.items() if "const" in inner or len(inner.get("enum", ())) == 1), "")
        if name:
            value = fields[name].get("const", (fields[name].get("enum") or [None])[0])
            found[f"{name} {json.dumps(value)}"] = [other for other in fields if other != name]
    return found


def _bounds(field: dict[str, Any], whole: bool) -> tuple[str, str]:
    """(lowest, highest) as text, "" for none; an exclusive bound of a number is marked, of an integer moved by one."""
    low, high = str(field.get("minimum", "")), str(field.get("maximum", ""))
    over, under = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    if over is not None:
        low = str(over + 1) if whole else f">{over}"
    if under is not None:
        high = str(under - 1) if whole else f"<{under}"
    return low, high
