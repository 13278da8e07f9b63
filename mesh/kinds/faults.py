"""Readable faults from a failed validation: the field, and what is wrong with it (pure).

Pydantic's path to a field includes the union branch it tried ("image", "BlobInput", "blob"), a word the sender never
wrote. Walking the payload along the path separates field names from branch names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mesh.errors import Fault

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

#: The maximum number of faults in one response.
MAX_FAULTS = 20

_MISSING = object()

_WORDS = {
    "missing": "is required",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "bytes_type": "must be bytes (or base64 text)",
    "string_type": "must be text",
    "string_unicode": "must be valid UTF-8 text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "none_required": "must be null",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "too_short": "must have at least {min_length} elements",
    "too_long": "must have at most {max_length} elements",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "bytes_too_short": "must have at least {min_length} bytes",
    "bytes_too_long": "must have at most {max_length} bytes",
    "invalid_key": "is not a field name: field names are text",
    "string_pattern_mismatch": "must match {pattern}",
    "union_tag_invalid": "must have {discriminator} set to one of {expected_tags}",
    "union_tag_not_found": "must have the field {discriminator}",
    "value_error": "{error}",
    "assertion_error": "{error}",
    "recursion_loop": "must not contain itself",
}


def problem_of(error: ErrorDetails, known: tuple[str, ...] = ()) -> str:
    """What is wrong, as a phrase that follows the field's name: "must be at least 1"."""
    kind = error["type"]
    if kind == "extra_forbidden":
        takes = f"; it takes {', '.join(known)}" if known else ""
        return f"is not a field of this kind{takes}"
    words = _WORDS.get(kind)
    if words is not None:
        return words.format_map(error.get("ctx", {}))
    return error["msg"].replace("Input should be", "must be").replace("Input should", "must")


def _is_absent(item: ErrorDetails) -> bool:
    """Return whether the payload may lack the faulty field: the field is missing, or its default is invalid."""
    last = item["loc"][-1] if item["loc"] else None
    own = item["type"] in ("value_error", "assertion_error") and isinstance(last, str) and last.isidentifier()
    return item["type"] == "missing" or own


def _inside(value: Any, step: Any) -> Any:
    """`value[step]`, or _MISSING when there is no such element."""
    if isinstance(value, dict):
        return value.get(step, _MISSING)
    if isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(value):
        return value[step]
    return _MISSING


def _locate(loc: tuple[Any, ...], payload: Any, absent: bool) -> tuple[tuple[Any, ...], int, Any]:
    """(path of field names, its length at the last union branch or -1, the value at the end of the path)."""
    path: list[Any] = []
    branch_at, value = -1, payload
    for index, step in enumerate(loc):
        inside = _inside(value, step)
        if inside is not _MISSING:
            path.append(step)
            value = inside
        elif absent and isinstance(value, dict) and index == len(loc) - 1:
            path.append(step)
        else:
            branch_at = len(path)
    return tuple(path), branch_at, value


def _dotted(path: tuple[Any, ...]) -> str:
    """The path as text; the sender chose the names, so unprintable characters become "?"."""
    text = ".".join(("payload", *(str(step) for step in path)))[:200]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def faults_of(error: ValidationError, payload: Any, known: tuple[str, ...] = ()) -> tuple[Fault, ...]:
    """The faults that `error` found in `payload`: one per field, at most MAX_FAULTS.

    `known`: the names of the payload's fields. The problems of several union branches are joined with "or"; branches
    that could never match (bytes, when the value is an object) are left out.
    """
    found: dict[str, list[str]] = {}
    details = error.errors(include_url=False, include_input=False)
    located = [(item, *_locate(item["loc"], payload, _is_absent(item))) for item in details]
    deeper = {path[:at] for _, path, at, _ in located if 0 <= at < len(path)}
    for item, path, branch_at, value in located:
        if path in deeper and branch_at == len(path) and isinstance(value, dict):
            continue
        top = known if len(path) == 1 else ()
        problems = found.setdefault(_dotted(path), [])
        problem = problem_of(item, top)
        if problem not in problems:
            problems.append(problem)
    faults = [Fault(field, _join(problems)) for field, problems in found.items()]
    if len(faults) > MAX_FAULTS:
        more = len(faults) - MAX_FAULTS
        faults = [*faults[:MAX_FAULTS], Fault("payload", f"has {more} more faults")]
    return tuple(faults)


def _join(problems: list[str]) -> str:
    first, *others = problems
    return " or ".join([first, *(other.removeprefix("must be ") for other in others)])
