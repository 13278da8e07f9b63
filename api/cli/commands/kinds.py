"""The kinds of work. `queztl kinds KIND` shows what one takes as its payload. No mesh is needed."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.formatting import counted, duration, size
from api.cli.output.json_types import default_of, type_of, variants
from api.cli.output.table import Column

if TYPE_CHECKING:
    from mesh.kinds.base import KindSpec

HELP = "the kinds of work; with KIND: its payload, field by field"
COLUMNS = (Column("kind"), Column("summary", wraps=True))
FIELD_COLUMNS = (Column("field"), Column("type [default], what it is", wraps=True))


def add(parser: argparse.ArgumentParser) -> None:
    """`kinds [KIND]`"""
    parser.add_argument("kind", nargs="?", metavar="KIND", help="show the payload of this kind")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print all kinds, or one. Raises: UnknownKind."""
    from mesh.kinds.table import KINDS, find

    if args.kind is None:
        if out.as_json:
            out.document({"kinds": [document(spec) for spec in KINDS.values()]})
        else:
            out.table(COLUMNS, [(spec.name, spec.summary) for spec in KINDS.values()])
            out.note("`queztl kinds KIND` shows what a kind takes")
        return OK
    spec = find(args.kind.lower())
    if out.as_json:
        out.document(document(spec))
    else:
        show(spec, out)
    return OK


def show(spec: KindSpec, out: Output) -> None:
    """One kind with the fields of its payload."""
    resources = spec.resources
    needs = ", ".join(need.module for need in spec.needs)
    out.wrapped(f"{spec.name}: {spec.summary}")
    cores = "all cores" if resources.cores == "all" else counted(resources.cores, "core")
    out.wrapped(
        f"takes {cores}, {size(resources.memory_mb * 2**20)} of memory, "
        f"at most {duration(spec.timeout_s)}" + (f"; needs {needs}" if needs else "")
    )
    out.line()
    schema = spec.payload.model_json_schema()
    required, definitions = schema.get("required", ()), schema.get("$defs", {})
    fields = schema.get("properties", {})
    rows: list[tuple[str, str]] = []
    for name, field in fields.items():
        default = "required" if name in required else default_of(field)
        rows.append((name, type_of(field, definitions) + (f" [{default}]" if default else "")))
        if description := field.get("description"):
            rows.append(("", description))
    out.table(FIELD_COLUMNS, rows, empty="its payload has no fields")
    for name, field in fields.items():
        forms = variants(field, definitions)
        if forms:
            out.line()
            out.line(f"{name}, each one of:")
            out.facts((f"  {form}", ", ".join(names) or "(no further fields)") for form, names in forms.items())
    if spec.example is not None:
        out.line()
        out.line(f"queztl submit {spec.name} '{json.dumps(spec.example)}' --wait")


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
