"""The page's own server: files, the control channel, and the proxy in front of the 3D view.

It runs in a thread of its own. What it says to the rest goes through a queue and `WebLink`; what the rest says to it is
one text for all pages.

The 3D view (viser) has no access control, and any of its clients may open a public tunnel to it; so it listens on
loopback, and this proxy passes nothing on from browsers but the connection itself. Its script runs in a sandboxed
frame, where it can neither touch the buttons nor, in browsers that give such frames a process, hold up their thread. A
sandboxed frame has no cookies: its address, which only the page is told, is its key.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import queue
import secrets
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import WSMsgType, web

from nfpo_deploy.errors import WebError
from nfpo_deploy.operator.requests import Request
from nfpo_deploy.operator.web_link import WebLink
from nfpo_deploy.types import VelocityCommand
from nfpo_deploy.web.access import Access, same_origin

STATIC = Path(__file__).parent / "static"
COOKIE = "nfpo_session"
MAX_PAGES = 8
MAX_MESSAGE = 4096
PING_S = 5.0
START_S = 10.0
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
PAGE_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"
VIEW_POLICY = "sandbox allow-scripts; frame-ancestors 'self'"
VIEW_HEADERS = ("Content-Type", "Content-Encoding")
VIEW = "/view-"
"""Start of the view's address; its key follows."""
VIEW_OPTIONS = "/?darkMode&fixedDpr=1"
HEAD = b"<head>"
WORKER_SHIM = (
    b"<script>window.Worker = class extends Worker { constructor(url, options) {"
    b" if (options?.type === 'module' && String(url).startsWith('blob:')) throw Error('not from a blob');"
    b" super(url, options); } };</script>"
)
"""viser's connection lives in a module worker made from a blob, which Chromium refuses in a sandboxed frame with an
event that viser does not hear. Refused at once, viser takes its second choice, a data: URL, which is allowed."""


class PageRequest(NamedTuple):
    """A button of a page. `page` is None for the plain HTTP request behind the emergency stop."""

    page: int | None
    number: int
    request: Request


class _Page:
    """What is to be sent to one browser: every answer, and the newest status."""

    def __init__(self) -> None:
        self.answers: deque[str] = deque(maxlen=50)
        self.status = ""
        self.ready = asyncio.Event()


class WebServer:
    """Serves the page from `start` to `stop`.

    Attributes:
        requests: buttons that were pressed, for whoever talks to the robot.
    """

    def __init__(self, host: str, port: int, access: Access, link: WebLink, view_port: int | None) -> None:
        """Prepare; nothing listens yet.

        Args:
            host: address or name to bind to.
            port: TCP port; 0 lets the system choose.
            access: who may in.
            link: told of every page and its beats.
            view_port: loopback port of the 3D view; None where there is none.
        """
        self._host, self._port = host, port
        self._access, self._link, self._view_port = access, link, view_port
        self._view_path = VIEW + secrets.token_urlsafe(24)
        self._numbers = itertools.count(1)
        self._pages: dict[int, _Page] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._started = threading.Event()
        self._problem = ""
        self._client: aiohttp.ClientSession
        self.requests: queue.SimpleQueue[PageRequest] = queue.SimpleQueue()

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return self._port

    @property
    def pages(self) -> int:
        """How many browsers are connected."""
        return len(self._pages)

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen.

        Raises:
            WebError: the address cannot be bound.
        """
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()
        if not self._started.wait(START_S):
            raise WebError(f"the web page did not start within {START_S:g} s")
        if self._problem:
            raise WebError(self._problem)

    def stop(self) -> None:
        """Close every connection and end the thread."""
        loop, end, thread = self._loop, self._end, self._thread
        if loop is None or end is None or thread is None or not thread.is_alive():
            return
        loop.call_soon_threadsafe(end.set)
        thread.join(START_S)

    def broadcast(self, status: dict[str, Any]) -> None:
        """Send a status to every page; one that cannot keep up gets the newest only."""
        view = None if self._view_port is None else self._view_path + VIEW_OPTIONS
        text = json.dumps(status | {"view": view}, allow_nan=False)
        self._in_loop(self._offer, None, text, False)

    def answer(self, page: int | None, answer: dict[str, Any]) -> None:
        """Send an answer to the page that asked, or to all."""
        self._in_loop(self._offer, page, json.dumps(answer, allow_nan=False), True)

    def _in_loop(self, function: Any, *arguments: Any) -> None:
        if self._loop is not None and self.running:
            self._loop.call_soon_threadsafe(function, *arguments)

    def _offer(self, page: int | None, text: str, is_answer: bool) -> None:
        for number, state in self._pages.items():
            if page is None or page == number:
                if is_answer:
                    state.answers.append(text)
                else:
                    state.status = text
                state.ready.set()

    # The server's own thread.

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._problem = f"the web page cannot listen on {self._host}:{self._port}: {error.strerror or error}"
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application(middlewares=[self._admit], client_max_size=MAX_MESSAGE)
        application.on_response_prepare.append(_add_headers)
        application.router.add_get("/", self._index)
        application.router.add_get("/control", self._control)
        application.router.add_post("/estop", self._estop)
        if self._view_port is not None:
            application.router.add_get(self._view_path + "{path:(/.*)?}", self._view)
        application.router.add_static("/static", STATIC)
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        # The view's files and messages pass through as they are.
        async with aiohttp.ClientSession(auto_decompress=False) as self._client:
            await runner.setup()
            try:
                site = web.TCPSite(runner, self._host, self._port)
                await site.start()
                self._port = runner.addresses[0][1]
                self._started.set()
                await self._end.wait()
            finally:
                await runner.cleanup()

    @web.middleware
    async def _admit(self, request: web.Request, handler: Any) -> web.StreamResponse:
        access, host = self._access, request.headers.get("Host")
        if not access.host_allowed(host):
            return web.Response(status=403, text="this page answers to localhost only\n")
        if self._is_view(request):
            shown: web.StreamResponse = await handler(request)
            return shown
        if not access.open and not access.knows(request.cookies.get(COOKIE)):
            return self._login(request)
        changes = request.method != "GET" or "Upgrade" in request.headers
        if changes and not same_origin(request.headers.get("Origin"), host):
            return web.Response(status=403, text="this came from another site's page\n")
        response: web.StreamResponse = await handler(request)
        return response

    def _is_view(self, request: web.Request) -> bool:
        given = request.path[: len(self._view_path)].encode()
        return self._view_port is not None and hmac.compare_digest(given, self._view_path.encode())

    def _login(self, request: web.Request) -> web.Response:
        address, now = request.remote or "", time.monotonic()
        token = request.query.get("token") if request.method == "GET" and request.path == "/" else None
        session = self._access.login(token, address, now) if token is not None else None
        if session is None:
            waiting = self._access.blocked(address, now)
            return web.Response(status=429 if waiting else 401, text="a token is needed: /?token=…\n")
        # A page and no redirect: only what starts from our own site sends a strict cookie. And the token leaves the
        # address bar.
        response = web.Response(
            text='<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>nfpo</title>',
            content_type="text/html",
        )
        response.set_cookie(COOKIE, session, httponly=True, samesite="Strict", path="/", secure=request.secure)
        return response

    async def _index(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(STATIC / "index.html", headers={"Content-Security-Policy": PAGE_POLICY})

    async def _estop(self, request: web.Request) -> web.Response:
        self.requests.put(PageRequest(None, 0, Request.ESTOP))
        return web.Response(status=202, text="asked for\n")

    # The control channel.

    async def _control(self, request: web.Request) -> web.StreamResponse:
        if len(self._pages) >= MAX_PAGES:
            return web.Response(status=503, text=f"{MAX_PAGES} pages are open already\n")
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, heartbeat=PING_S)
        await socket.prepare(request)
        number, page = next(self._numbers), _Page()
        self._pages[number] = page
        self._link.connect(number)
        writer = asyncio.ensure_future(_write(socket, page))
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT or not self._take(number, message.data):
                    break
        finally:
            self._link.disconnect(number)
            del self._pages[number]
            writer.cancel()
            await socket.close()
        return socket

    def _take(self, page: int, text: str) -> bool:
        """One message of a page; False for one that is none of ours, which ends the connection."""
        now_ns = time.monotonic_ns()
        try:
            message = json.loads(text)
            if "beat" in message:
                velocity = VelocityCommand(*(float(value) for value in message["velocity"]))
                self._link.beat(page, int(message["beat"]), message["held"] is True, velocity, now_ns)
            else:
                self.requests.put(PageRequest(page, int(message["number"]), Request(message["request"])))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return False
        return True

    # The 3D view.

    async def _view(self, request: web.Request) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            return await self._view_messages(request)
        url = f"http://127.0.0.1:{self._view_port}{request.match_info['path'] or '/'}"
        async with self._client.get(url, headers={"Accept-Encoding": "identity"}) as answer:
            headers = {name: answer.headers[name] for name in VIEW_HEADERS if name in answer.headers}
            headers["Content-Security-Policy"] = VIEW_POLICY
            body = await answer.read()
        if headers.get("Content-Type", "").startswith("text/html"):
            body = body.replace(HEAD, HEAD + WORKER_SHIM, 1)
        return web.Response(status=answer.status, body=body, headers=headers)

    async def _view_messages(self, request: web.Request) -> web.StreamResponse:
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        protocols = [word.strip() for word in offered.split(",") if word.strip().startswith("viser-v")]
        outer = web.WebSocketResponse(protocols=protocols, max_msg_size=1 << 20, heartbeat=PING_S)
        url = f"http://127.0.0.1:{self._view_port}/"
        async with self._client.ws_connect(url, protocols=protocols, max_msg_size=0) as inner:
            await outer.prepare(request)
            drain = asyncio.ensure_future(_drain(outer))
            try:
                async for message in inner:
                    if message.type is not WSMsgType.BINARY or outer.closed:
                        break
                    await outer.send_bytes(message.data)
            except ConnectionError:
                pass
            finally:
                drain.cancel()
                await outer.close()
        return outer


async def _write(socket: web.WebSocketResponse, page: _Page) -> None:
    try:
        while True:
            await page.ready.wait()
            page.ready.clear()
            while page.answers:
                await socket.send_str(page.answers.popleft())
            if page.status:
                text, page.status = page.status, ""
                await socket.send_str(text)
    except ConnectionError:
        pass


async def _drain(socket: web.WebSocketResponse) -> None:
    """Receive, so that a closed browser is noticed, and pass nothing on; closes the socket in the end."""
    async for _ in socket:
        pass
    await socket.close()


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
