"""Blobs over HTTP: uploaded and downloaded as streams, never whole in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from api.documents.base import fill
from api.documents.tasks import BlobDoc
from api.http import streaming
from api.http.encodings import encoding_of, pieces
from api.http.errors import UnsupportedType, json_reply
from api.http.ids import blob_id
from api.http.keys import SERVICES, SETTINGS
from api.services.mesh import MeshServices
from mesh.errors import BadInput, Fault, TooLarge

#: The content type that curl gives to any --data: it does not describe the bytes.
_FORM = "application/x-www-form-urlencoded"
YES, NO = ("1", "true", "yes", ""), ("0", "false", "no")


async def upload(request: web.Request) -> web.Response:
    """201 and the reference for payloads."""
    settings = request.app[SETTINGS]
    limit = settings.max_blob_bytes
    if encoding_of(request):
        decoded = settings.limits.decoded_blob_bytes
        limit = min(limit or decoded, decoded)
    if request.content_type.startswith("multipart/"):
        raise UnsupportedType("Send the bytes themselves (curl --data-binary @FILE), not a form.")
    if limit and (request.content_length or 0) > limit:
        raise _too_large(limit)
    header = request.headers.get("Content-Type", streaming.OCTETS)
    content_type = streaming.OCTETS if request.content_type == _FORM else streaming.clean_type(header)
    reference = await request.app[SERVICES].mesh.put_blob(_limited(request, limit), content_type, _keep(request))
    return json_reply(fill(BlobDoc, reference), 201, {"Location": f"{request.path}/{reference.blob}"})


async def download(request: web.Request) -> web.StreamResponse:
    """The bytes of a blob."""
    return await streaming.send(request, await content(request.app[SERVICES].mesh, blob_id(request)))


async def delete(request: web.Request) -> web.Response:
    """204: the blob is gone."""
    await request.app[SERVICES].mesh.delete_blob(blob_id(request))
    return web.Response(status=204)


async def content(mesh: MeshServices, blob: str, content_type: str = "") -> streaming.Content:
    """A blob as an answer; `content_type`: another one than that of its upload. Raises: NotFound, BusUnavailable."""
    reference, chunks = await mesh.open_blob(blob)
    return streaming.Content(
        blob, content_type or reference.content_type, reference.size, chunks, partial(mesh.blob_part, blob)
    )


async def _limited(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in pieces(request):
        size += len(piece)
        if limit and size > limit:
            raise _too_large(limit)
        yield piece


def _keep(request: web.Request) -> bool:
    text = request.query.get("keep", "0").lower()
    if text not in YES + NO:
        fault = Fault("keep", "must be 1 (kept until deleted) or 0 (kept for a day)")
        raise BadInput("The upload's keep is not valid.", (fault,))
    return text in YES


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"This node accepts blobs of at most {limit} bytes, decoded; split the data into several.")
