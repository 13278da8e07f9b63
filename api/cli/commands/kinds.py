"""The kinds of work there are, and what each takes as its payload. Needs no mesh."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.formatting import duration

if TYPE_CHECKING:
    from mesh.kinds.base import KindSpec

HELP = "the kinds of work; with KIND: its payload, field by field"


def add(parser: argparse.ArgumentParser) -> None:
    """`kinds [KIND]`"""
    parser.add_argument("kind", nargs="?", metavar="KIND", help="show this one with its payload's schema")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print them. Raises: UnknownKind."""
    from mesh.kinds.table import KINDS, find

    if args.kind is None:
        if out.as_json:
            out.document({"kinds": [document(spec) for spec in KINDS.values()]})
        else:
            out.table(("kind", "summary"), [(spec.name, spec.summary) for spec in KINDS.values()])
            out.note("`queztl kinds KIND` shows what a kind takes")
        return OK
    spec = find(args.kind.lower())
    if out.as_json:
        out.document(document(spec))
        return OK
    needs = ", ".join(need.module for need in spec.needs)
    out.line(f"{spec.name}: {spec.summary}")
    resources = spec.resources
    out.line(
        f"takes {resources.cores} core(s), {resources.memory_mb} MiB, at most {duration(spec.timeout_s)}"
        + (f"; needs {needs}" if needs else "")
    )
    out.line()
    schema = spec.payload.model_json_schema()
    required = schema.get("required", ())
    rows = [
        (
            name,
            type_of(field, schema.get("$defs", {})),
            "required" if name in required else json.dumps(field.get("default")),
            field.get("description", ""),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    out.table(("field", "type", "default", "what"), rows, empty="its payload has no fields")
    if spec.example is not None:
        out.line()
        out.line(f"queztl submit {spec.name} '{json.dumps(spec.example)}' --wait")
    return OK


def document(spec: KindSpec) -> dict[str, Any]:
    """A kind for programs."""
    return {
        "kind": spec.name,
        "summary": spec.summary,
        "cores": spec.resources.cores,
        "memory_mb": spec.resources.memory_mb,
        "gpu": spec.resources.gpu,
        "timeout_s": spec.timeout_s,
        "needs": [{"module": need.module, "extra": need.extra} for need in spec.needs],
        "example": spec.example,
        "schema": spec.payload.model_json_schema(),
    }


def type_of(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """The type of a field of a JSON schema, in a few words."""
    if "const" in field:
        return json.dumps(field["const"])
    if "enum" in field:
        return " | ".join(json.dumps(value) for value in field["enum"])
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        inner = definitions.get(name, {})
        fields = inner.get("properties", {})
        return "{" + ", ".join(fields) + "}" if fields else name
    for several in ("anyOf", "oneOf"):
        if several in field:
            words = dict.fromkeys(type_of(one, definitions) for one in field[several])
            return " | ".join(word for word in words if word != "null")
    if field.get("type") == "array":
        return f"list of {type_of(field.get('items', {}), definitions)}"
    if field.get("format") == "binary":
        return "bytes"
    kind = str(field.get("type", "any"))
    low, high = _bounds(field, whole=kind == "integer")
    return f"{kind} {low}..{high}" if low or high else kind


def _bounds(field: dict[str, Any], whole: bool) -> tuple[str, str]:
    """(lowest, highest) as text, "" for none; one that is not allowed itself is marked, or the next integer."""
    low, high = str(field.get("minimum", "")), str(field.get("maximum", ""))
    over, under = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    if over is not None:
        low = str(over + 1) if whole else f">{over}"
    if under is not None:
        high = str(under - 1) if whole else f"<{under}"
    return low, high
