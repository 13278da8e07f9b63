"""Parse request bodies strictly: a fault in JSON or MessagePack is reported with its place.

The content type is ignored, because `curl -d` calls everything a form; only application/msgpack counts. Numbers that
the wire can't carry, deep nesting and repeated keys are refused here, so that nothing behind this module meets them.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, TypeVar

import msgspec
from aiohttp import web
from pydantic import BaseModel, ValidationError

from api.http.encodings import pieces
from api.http.errors import too_large
from api.http.keys import SETTINGS, USAGE
from mesh.errors import BadInput, Fault, TooLarge
from mesh.kinds.faults import problem_of

MAX_DEPTH = 100
#: Repeated keys are searched for up to this size: the parser of the standard library is slow on large bodies.
DUPLICATES_UP_TO_BYTES = 64 * 1024
MSGPACK = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")

_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1
Model = TypeVar("Model", bound=BaseModel)
_decode_json = msgspec.json.Decoder().decode
_decode_msgpack = msgspec.msgpack.Decoder().decode


async def read_object(request: web.Request, limit_bytes: int = 0) -> dict[str, Any]:
    """The body of the request as an object, decoded; `limit_bytes`: 0 is the limit of the application.

    Raises: BadInput; UnsupportedEncoding; TooLarge; TooSlow; Busy, when other bodies take all the memory for bodies.
    """
    data = await _read(request, limit_bytes)
    value = parse_msgpack(data) if request.content_type in MSGPACK else parse_json(data)
    if not isinstance(value, dict):
        refuse("The body must be a JSON object.", "must be an object")
    return value


async def _read(request: web.Request, limit_bytes: int) -> bytes:
    limit = limit_bytes or request.app[SETTINGS].limits.body_bytes
    if (request.content_length or 0) > limit:
        raise _too_large(limit_bytes, limit)
    usage, data = request.app[USAGE], bytearray()
    async for piece in pieces(request):
        if len(data) + len(piece) > limit:
            raise _too_large(limit_bytes, limit)
        usage.hold_body(request, len(piece))
        data += piece
    return bytes(data)


def _too_large(own_limit: int, limit: int) -> TooLarge:
    return TooLarge(f"The body of this request is larger than {limit} bytes" if own_limit else too_large(limit))


def parse_json(data: bytes) -> Any:
    """Plain data. Raises: BadInput with line and column."""
    if not data.strip():
        refuse("The body is empty; send a JSON object.", "is empty")
    try:
        value = _decode_json(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        _explain(data)
    except RecursionError:
        refuse(f"The body is nested deeper than {MAX_DEPTH} levels.", "is nested too deep")
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH or _LONG_NUMBER.search(data):
        check_plain(value)
    if len(data) <= DUPLICATES_UP_TO_BYTES:
        json.loads(data, object_pairs_hook=_once)
    return value


def parse_msgpack(data: bytes) -> Any:
    """Plain data. Raises: BadInput."""
    if not data:
        refuse("The body is empty; send a MessagePack map.", "is empty")
    try:
        value = _decode_msgpack(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, TypeError) as error:
        refuse(f"The body is not valid MessagePack: {error}.", f"is not valid MessagePack: {error}")
    except RecursionError:
        refuse(f"The body is nested deeper than {MAX_DEPTH} levels.", "is nested too deep")
    if len(data) > MAX_DEPTH:
        check_plain(value)
    return value


def checked(model: type[Model], body: dict[str, Any]) -> tuple[Model | None, list[Fault]]:
    """(the body as `model`, the faults found in it); None for the model when there are faults."""
    try:
        return model.model_validate(body), []
    except ValidationError as error:
        items = error.errors(include_url=False, include_input=False)
        return None, [Fault(".".join(str(step) for step in item["loc"])[:80], problem_of(item)) for item in items]


def check_plain(value: Any) -> None:
    """Refuse deep nesting and whole numbers of over 64 bits. Raises: BadInput."""
    level, depth = [value], 0
    while level:
        depth += 1
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, (list, tuple)):
                inner.extend(item)
            elif isinstance(item, int) and not _SMALLEST <= item <= _LARGEST:
                refuse(
                    "The body has a whole number of over 64 bits; send it as text.",
                    "has a number of over 64 bits",
                )
        if depth > MAX_DEPTH and inner:
            refuse(f"The body is nested deeper than {MAX_DEPTH} levels.", "is nested too deep")
        level = inner


def refuse(message: str, problem: str) -> NoReturn:
    """Raises: BadInput about the body as a whole."""
    raise BadInput(message, (Fault("body", problem),))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)[:80]
        refuse(f"The body gives {json.dumps(twice)} more than once.", f"gives {json.dumps(twice)} more than once")
    return found


def _constant(name: str) -> NoReturn:
    refuse(f"{name} is not JSON; leave the field out, or send null or text.", f"has {name}, which is not JSON")


def _explain(data: bytes) -> NoReturn:
    """Find the line of the fault: the fast parser gives only a byte offset. Raises: BadInput."""
    try:
        json.loads(data.decode(), parse_constant=_constant)
    except UnicodeDecodeError as error:
        refuse(f"The body is not UTF-8 text: byte {error.start} is wrong.", f"is not UTF-8 (byte {error.start})")
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        refuse(f"The body is not valid JSON: {error.msg} at {place}.", f"{place}: {error.msg}")
    except RecursionError:
        refuse(f"The body is nested deeper than {MAX_DEPTH} levels.", "is nested too deep")
    except ValueError:
        pass  # a number of thousands of digits
    refuse(
        "The body has a number out of range, or text that is not Unicode (half of a surrogate pair).",
        "has a number or text that can't be transmitted",
    )
