"""The guard before gradio: the routes that the page needs and no others, with bounds on what a client may send.

gradio's server has many more routes than a page uses: among them one that fetches any address, and one that runs a
program on an upload. Those that take JSON read a body of any size into memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path, PurePosixPath
from typing import Any

from avsbg.runtime.page.limits import Limits
from avsbg.runtime.page.storage import Storage

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_API = "/gradio_api/"
_UPLOAD, _JOIN, _FILE = f"{_API}upload", f"{_API}queue/join", f"{_API}file="
# What browsers ask for, and `startup-events`, by which gradio knows that its server has begun.
_PAGES = {"/", "/config", "/theme.css", "/favicon.ico", "/robots.txt",
          f"{_API}queue/data", f"{_API}upload_progress", f"{_API}startup-events"}  # fmt: skip
_FOLDERS = ("/assets/", "/static/")
# Bytes of a request to the queue, which has the values of the inputs and the name of an upload, and of a query: gradio
# keeps the names of sessions and uploads that stand in them.
_JOIN_BYTES, _QUERY_BYTES = 16 * 2**10, 256
# Bytes of an upload's body that are not its file, and boundaries in it: one before the file and one at the end, each
# of which may also be in the file, by chance. gradio keeps every file of a body open until all have come.
_UPLOAD_SLACK, _MOST_BOUNDARIES = 64 * 2**10, 4


class Guard:
    """An ASGI application (https://asgi.readthedocs.io) that passes on to another what is allowed.

    Args:
        application: gradio's.
        files: the folder whose files are shown.
        storage: of that folder.
        limits: of each request.
    """

    def __init__(self, application: Application, *, files: Path, storage: Storage, limits: Limits) -> None:
        self._application, self._files, self._storage = application, PurePosixPath(files), storage
        self._upload_bytes = limits.megabytes * 2**20 + _UPLOAD_SLACK

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
        elif scope["type"] != "http":  # a WebSocket: the page has none
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif len(scope["query_string"]) > _QUERY_BYTES:
            await _answer(send, 414, f"A query has at most {_QUERY_BYTES} bytes.")
        elif scope["method"] in {"GET", "HEAD"} and self._shows(scope["path"]):
            # No page has a query of its own: in it, gradio takes names of states of the page that it is to read.
            query = b"" if scope["path"] in {"/", "/config"} else scope["query_string"]
            await self._application({**scope, "query_string": query}, receive, send)
        elif scope["method"] == "POST" and scope["path"] == _JOIN:
            await self._join(scope, receive, send)
        elif scope["method"] == "POST" and scope["path"] == _UPLOAD:
            await self._upload(scope, receive, send)
        else:
            await _answer(send, 404, "This page has nothing there.")

    def _shows(self, path: str) -> bool:
        if path.startswith(_FILE):
            file = PurePosixPath(path.removeprefix(_FILE))
            return ".." not in file.parts and self._files in file.parents
        return path in _PAGES or path.startswith(_FOLDERS)

    async def _join(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on a body that has come, as one message, once it is known to be small."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > _JOIN_BYTES:
                await _answer(send, 413, f"This takes up to {_JOIN_BYTES} bytes.")
                return
        told = False

        async def replay() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._application(scope, replay, send)

    async def _upload(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on an upload as it comes; an error that gradio knows ends it, and removes what has come of it."""
        from python_multipart.multipart import parse_options_header
        from starlette.formparsers import MultiPartException

        if (size := int(_header(scope, b"content-length") or 0)) > self._upload_bytes:
            await self._refuse_upload(receive, send)
            return
        if not await self._storage.has_room(size):
            await _answer(send, 503, "This page holds as many files as it may. Try again in some minutes.")
            return
        _, options = parse_options_header(_header(scope, b"content-type").decode("latin-1"))
        boundary = b"--" + options.get(b"boundary", b"")
        came, more, boundaries, end = 0, True, 0, b""

        async def bounded() -> Message:
            nonlocal came, more, boundaries, end
            message = await receive()
            if more and message["type"] == "http.disconnect":
                raise MultiPartException("The upload was broken off.")
            body, more = message.get("body", b""), message.get("more_body", False)
            came += len(body)
            if came > self._upload_bytes:
                raise MultiPartException(f"The upload exceeds the maximum allowed size of {self._upload_bytes} bytes.")
            seen = end + body
            boundaries += seen.count(boundary)
            end = seen[-(len(boundary) - 1) :]
            if boundaries > _MOST_BOUNDARIES:
                raise MultiPartException("This page takes one file at a time.")
            if not self._storage.take(len(body)):
                raise MultiPartException("This page holds as many files as it may. Try again in some minutes.")
            return message

        await self._application(scope, bounded, send)

    async def _refuse_upload(self, receive: Receive, send: Send) -> None:
        """Read and drop the beginning of a body that is too large: a client reads no answer while it still sends."""
        more, dropped = True, 0
        while more and dropped <= self._upload_bytes:
            message = await receive()
            more, dropped = message.get("more_body", False), dropped + len(message.get("body", b""))
        await _answer(send, 413, f"An upload has at most {self._upload_bytes} bytes.")


def _header(scope: Message, name: bytes) -> bytes:
    """The first header of a name, as gradio reads it; empty without one."""
    return next((value for key, value in scope["headers"] if key == name), b"")


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
