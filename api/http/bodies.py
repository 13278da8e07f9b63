"""From the bytes of a body to plain data, strictly: what is not valid JSON or MessagePack is said, with its place.

Whatever content type a client names: `curl -d` calls everything a form. Only application/msgpack is taken at
its word. Numbers that the wire can't carry, deep nesting and a key given twice are refused here, so that
nothing behind this file meets them.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import msgspec
from aiohttp import web

from mesh.errors import BadInput, Fault

MAX_DEPTH = 100
#: Up to this size a repeated key is looked for: the standard library's parser is slow on large bodies.
DUPLICATES_UP_TO_BYTES = 64 * 1024
MSGPACK = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")

_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1
_decode_json = msgspec.json.Decoder().decode
_decode_msgpack = msgspec.msgpack.Decoder().decode


async def read_object(request: web.Request) -> dict[str, Any]:
    """The request's body as an object. Raises: BadInput; HTTPRequestEntityTooLarge past the app's limit."""
    data = await request.read()
    value = parse_msgpack(data) if request.content_type in MSGPACK else parse_json(data)
    if not isinstance(value, dict):
        refuse("The body must be a JSON object.", "must be an object")
    return value


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
        refuse(f"The body is no valid MessagePack: {error}.", f"is no valid MessagePack: {error}")
    except RecursionError:
        refuse(f"The body is nested deeper than {MAX_DEPTH} levels.", "is nested too deep")
    if len(data) > MAX_DEPTH:
        check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """Refuse what is nested too deep and whole numbers past 64 bits. Raises: BadInput."""
    level, depth = [value], 0
    while level:
        depth += 1
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(one.values())
            elif isinstance(one, (list, tuple)):
                inner.extend(one)
            elif isinstance(one, int) and not _SMALLEST <= one <= _LARGEST:
                refuse("The body holds a whole number past 64 bits; send it as text.", "holds a huge number")
        if depth > MAX_DEPTH and inner:
            refuse(f"The body is nested deeper than {MAX_DEPTH} levels.", "is nested too deep")
        level = inner


def refuse(message: str, problem: str) -> NoReturn:
    """Raises: BadInput that names the body as a whole."""
    raise BadInput(message, (Fault("body", problem),))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)[:80]
        refuse(f"The body gives {json.dumps(twice)} more than once.", f"gives {json.dumps(twice)} more than once")
    return found


def _constant(name: str) -> NoReturn:
    refuse(f"{name} is no JSON; leave the field out, or send null or text.", f"holds {name}, which is no JSON")


def _explain(data: bytes) -> NoReturn:
    """The fast parser gives a byte; people want a line. Raises: BadInput."""
    try:
        json.loads(data.decode(), parse_constant=_constant)
    except UnicodeDecodeError as error:
        refuse(f"The body is no UTF-8 text: byte {error.start} is wrong.", f"is no UTF-8 (byte {error.start})")
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        refuse(f"The body is no valid JSON: {error.msg} at {place}.", f"{place}: {error.msg}")
    except RecursionError:
        refuse(f"The body is nested deeper than {MAX_DEPTH} levels.", "is nested too deep")
    except ValueError:
        pass  # a number of thousands of digits
    refuse(
        "The body holds a number out of range, or text that is no Unicode (half of a surrogate pair).",
        "holds a number or text that can't be carried",
    )
