"""The server of a load test: an aiohttp process on an inherited socket.

It uses aiohttp because the REST API requires it already, it parses in C, and it is a common server in Python. Without
the router it serves a third more requests. `node.workloads.web.processes` runs it as
`python -m node.workloads.web.server <socket fd>`; it ends when its input closes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from functools import lru_cache

from node.workloads.web import answers

#: How long idle connections stay open: longer than any test.
KEEP_ALIVE_S = 3600.0
_fixed = lru_cache(maxsize=8)(answers.answer)


async def serve(sock: socket.socket) -> None:
    """Serve until the process ends."""
    from aiohttp import web

    async def handle(request: web.BaseRequest) -> web.Response:
        sent = await request.read() if request.body_exists else b""
        # Constant responses are cached; route cpu exists to compute its response each time.
        varies = sent or request.path == "/cpu"
        answer = answers.answer(request.path, sent) if varies else _fixed(request.path, b"")
        if answer is None:
            return web.Response(status=404, text="There is no such path.")
        body, content_type = answer
        return web.Response(body=body, headers={"Content-Type": content_type})

    server = web.Server(handle, access_log=None, keepalive_timeout=KEEP_ALIVE_S)
    loop = asyncio.get_running_loop()
    await loop.create_server(server, sock=sock, backlog=socket.SOMAXCONN)
    loop.add_reader(0, _end_with_parent)
    gc.freeze()
    print('{"ready": true}', flush=True)
    await asyncio.Event().wait()


def _end_with_parent() -> None:
    if not os.read(0, 4096):
        os._exit(0)


def main() -> None:
    """Serve on the socket whose descriptor is the first argument."""
    import uvloop

    sock = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sock))


if __name__ == "__main__":
    main()
