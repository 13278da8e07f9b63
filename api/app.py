"""The REST bridge: one route table, one middleware, no state of its own.

`build_app` makes the application, `api.http.serving.serve` starts its server. A request passes the guard (Host, Origin,
key) and its handler; errors become documents in the middleware.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from api.http.auth import Guard, Trust, own_names
from api.http.compression import compress
from api.http.errors import of_error, of_http, of_unexpected
from api.http.keys import CLOSING, GUARD, ROUTES, SERVICES, SETTINGS, USAGE, ApiSettings
from api.http.protocol import SERVER_NAME, expect
from api.http.route import Handler
from api.http.usage import Usage
from api.routes import ROUTE_TABLE
from api.services.node import Services
from mesh.errors import QueztlError

_OPEN = frozenset(route.full_path for route in ROUTE_TABLE if route.open)


def build_app(services: Services, settings: ApiSettings | None = None) -> web.Application:
    """The application; until `serve` sets its address it accepts the names of loopback with port 80."""
    settings = settings or ApiSettings()
    app = web.Application(middlewares=[_around_all], client_max_size=settings.limits.body_bytes)
    extra = frozenset(host.lower() for host in settings.extra_hosts)
    app[SERVICES], app[SETTINGS], app[ROUTES] = services, settings, ROUTE_TABLE
    app[GUARD] = Guard(Trust(80, own_names(), extra, open_api=settings.open_api))
    app[USAGE] = Usage(settings.limits)
    app[CLOSING] = asyncio.Event()
    _add_routes(app.router)
    app.on_response_prepare.append(_head)
    app.on_shutdown.append(_close)
    app.cleanup_ctx.append(_sweeping)
    return app


def _add_routes(router: web.UrlDispatcher) -> None:
    """Every path with its methods, HEAD beside GET, OPTIONS, and an answer to all other methods.

    Without that last one a path such as /workload/submit would fall through to /workload/{id} and its methods.
    """
    handlers: dict[str, dict[str, Handler]] = {}
    for route in ROUTE_TABLE:
        methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
        handlers.setdefault(route.full_path, {}).update(dict.fromkeys(methods, route.handler))
    for path, by_method in handlers.items():
        allowed = sorted({*by_method, "OPTIONS"})
        others = {"OPTIONS": partial(_options, allowed=allowed), "*": partial(_refuse_method, allowed=allowed)}
        for method, handler in (by_method | others).items():
            router.add_route(method, path, handler, expect_handler=expect)


async def _options(request: web.Request, allowed: list[str]) -> web.Response:
    return web.Response(status=204, headers={"Allow": ", ".join(allowed)})


async def _refuse_method(request: web.Request, allowed: list[str]) -> web.Response:
    raise web.HTTPMethodNotAllowed(request.method, allowed)


_numbers = itertools.count(1)
_ID_PREFIX = secrets.token_hex(4)
_ID = web.RequestKey("id", str)
_STARTED = web.RequestKey("started", bool)


@web.middleware
async def _around_all(request: web.Request, handler: Handler) -> web.StreamResponse:
    resource = request.match_info.route.resource
    # The 404 or 405 of an unknown path or method needs no key.
    is_open = resource is None or resource.canonical in _OPEN
    request[_ID] = f"{_ID_PREFIX}-{next(_numbers)}"
    try:
        refusal = request.app[GUARD].refusal(request, is_open)
        if refusal is not None:
            return of_error(refusal)
        with request.app[USAGE].request(request):
            return await compress(request, await handler(request))
    except QueztlError as error:
        return of_error(request.app[SERVICES].explained(error))
    except web.HTTPException as error:
        return of_http(error, request, request.app[SETTINGS].limits.body_bytes)
    except ConnectionError:
        raise  # the client has gone
    except Exception as error:
        answer = of_unexpected(error, request, request[_ID])
        if _STARTED in request:
            # A part of the answer is sent: only a cut connection shows the client that it is incomplete.
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the answer was cut") from None
        return answer


async def _head(request: web.Request, response: web.StreamResponse) -> None:
    request[_STARTED] = True
    headers = response.headers
    headers["X-Request-Id"] = request.get(_ID, "")
    headers["Server"] = SERVER_NAME
    headers.setdefault("Cache-Control", "no-store")
    headers["X-Content-Type-Options"] = "nosniff"


async def _close(app: web.Application) -> None:
    app[CLOSING].set()


async def _sweeping(app: web.Application) -> AsyncIterator[None]:
    sweeping = asyncio.create_task(app[USAGE].sweep(), name="overdue connections")
    yield
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)
