"""The server of a load test: aiohttp, in a process of its own, on a socket it was given.

aiohttp because the project depends on it already (its own API runs on it), parses in C, and is what many servers that
people load-test in Python are; without its router it answers a third more. Run as
`python -m node.workloads.web.server <socket fd>` by `web_processes`; it ends when its input does.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from functools import lru_cache

from node.workloads.web import answers

#: An idle connection is kept longer than any test lasts.
KEEP_ALIVE_S = 3600.0
_fixed = lru_cache(maxsize=8)(answers.answer)


async def serve(sock: socket.socket) -> None:
    """Answers until the process is ended."""
    from aiohttp import web

    async def handle(request: web.BaseRequest) -> web.Response:
        sent = await request.read() if request.body_exists else b""
        # What is the same each time is made once; the work of route cpu is the point of it.
        varies = sent or request.path == "/cpu"
        made = answers.answer(request.path, sent) if varies else _fixed(request.path, b"")
        if made is None:
            return web.Response(status=404, text="There is no such path.")
        body, content_type = made
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
    """The process's whole life."""
    import uvloop

    sock = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sock))


if __name__ == "__main__":
    main()
