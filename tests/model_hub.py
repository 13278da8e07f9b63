"""A model hub for tests: the endpoints that the real hub's client requests, on a local port."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves each folder as the model of its id."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders, self.url = folders, ""
        self.asked: list[str] = []
        """The requests received: method, path, and whether each carried a key."""
        self.gated, self.lost = False, ""
        """Whether the models are gated; the name of a file that is listed but cannot be downloaded"""

    def app(self) -> web.Application:
        """The routes: model information, file lists and files."""
        made = web.Application(middlewares=[self._note])
        made.router.add_get("/api/models/{owner}/{name}/revision/{revision}", self._facts)
        made.router.add_get("/api/models/{owner}/{name}/tree/{revision}", self._tree)
        made.router.add_route("*", "/{owner}/{name}/resolve/{revision}/{file}", self._file)
        return made

    @web.middleware
    async def _note(self, request: web.Request, handler) -> web.StreamResponse:
        key = " with a key" if "Authorization" in request.headers else ""
        self.asked.append(f"{request.method} {request.path}{key}")
        return await handler(request)

    def _folder(self, request: web.Request) -> Path:
        folder = self.folders.get(f"{request.match_info['owner']}/{request.match_info['name']}")
        known = request.match_info["revision"] in ("main", COMMIT)
        if folder is None or not known:
            code = "RepoNotFound" if folder is None else "RevisionNotFound"
            raise web.HTTPNotFound(headers={"X-Error-Code": code})
        return folder

    async def _facts(self, request: web.Request) -> web.Response:
        folder, name = self._folder(request), f"{request.match_info['owner']}/{request.match_info['name']}"
        files = [{"rfilename": file.name, "size": file.stat().st_size} for file in folder.iterdir()]
        facts = {"_id": "1", "id": name, "modelId": name, "sha": COMMIT, "siblings": files, "gated": self.gated}
        return web.json_response(facts | {"private": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0})

    async def _tree(self, request: web.Request) -> web.Response:
        return web.json_response(
            [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _etag(file)}
                for file in self._folder(request).iterdir()
            ]
        )

    async def _file(self, request: web.Request) -> web.Response:
        file = self._folder(request) / request.match_info["file"]
        if file.name == self.lost:
            raise web.HTTPForbidden
        headers = {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        return web.Response(body=file.read_bytes(), headers=headers)


def _etag(file: Path) -> str:
    data = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve(folders: dict[str, Path]) -> Iterator[Hub]:
    """A hub in a thread; tests set HF_ENDPOINT to its `url`."""
    hub, loop, ready = Hub(folders), asyncio.new_event_loop(), threading.Event()
    over = asyncio.Event()

    async def run() -> None:
        runner = web.AppRunner(hub.app(), shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        hub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        # Not `loop.stop`: called before the loop waits here, it would interrupt the start instead of ending the hub.
        await over.wait()
        await runner.cleanup()

    def serve_until_over() -> None:
        loop.run_until_complete(run())
        loop.close()

    thread = threading.Thread(target=serve_until_over)
    thread.start()
    ready.wait()
    try:
        yield hub
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
