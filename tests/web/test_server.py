"""The page's server over real HTTP and websockets: what is served to whom, and what a browser can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the web extra is not installed")
pytest.importorskip("viser", reason="the web extra is not installed")

import aiohttp
import msgspec
import viser

from nfpo_deploy.errors import WebError
from nfpo_deploy.operator.requests import Request
from nfpo_deploy.operator.web_link import WebLink
from nfpo_deploy.types import VelocityCommand
from nfpo_deploy.web.access import MAX_FAILURES, Access
from nfpo_deploy.web.server import COOKIE, MAX_PAGES, WORKER_SHIM, WebServer
from nfpo_deploy.web.view import RobotView
from robots.loader import load_robot

TOKEN = "correct-horse-battery"
PAGES = ["/", "/static/page.js", "/static/page.css"]
PATHS = [*PAGES, "/view-guess/", "/view-guess/index.html", "/control", "/estop", "/nothing"]
SOCKETS = ["/control", "/view-guess", "/view-guess/"]


@pytest.fixture(scope="module")
def view() -> Iterator[RobotView]:
    view = RobotView(load_robot("go2"))
    yield view
    view.stop()


@pytest.fixture
def serve(view: RobotView) -> Iterator:
    started: list[WebServer] = []

    def begin(token: str = "", link: WebLink | None = None) -> WebServer:
        server = WebServer("127.0.0.1", 0, Access(token), link or WebLink(), view.port)
        started.append(server)
        server.start()
        return server

    yield begin
    for server in started:
        server.stop()
        assert not server.running


def browse(server: WebServer, talk, **options):
    """Run `talk(session, url)` with a fresh cookie jar."""

    async def run():
        jar = aiohttp.CookieJar(unsafe=True)  # cookies of bare addresses as well
        async with aiohttp.ClientSession(cookie_jar=jar, **options) as session:
            return await asyncio.wait_for(talk(session, f"http://127.0.0.1:{server.port}"), 60)

    return asyncio.run(run())


async def status_of(session, url: str, method: str = "GET", **options) -> int:
    async with session.request(method, url, allow_redirects=False, **options) as response:
        body = await response.text(errors="replace")
        if response.status in (401, 403, 429):
            assert len(body) < 60 and "<" not in body, "nothing of the page"
        return response.status


async def socket_status(session, url: str, **headers: str) -> int:
    try:
        async with session.ws_connect(url, protocols=["viser-v1.1.1"], headers=headers) as ws:
            await ws.close()
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


async def view_of(session, server: WebServer, url: str) -> str:
    """Path of the 3D view, as the page is told it."""
    async with session.ws_connect(url + "/control") as ws:
        server.broadcast({"status": 0})
        return urlsplit((await ws.receive_json(timeout=10))["view"]).path.rstrip("/")


def test_the_views_workers_are_shimmed_before_its_own_script(serve) -> None:
    server = serve()

    async def talk(session, url):
        path = await view_of(session, server, url)
        async with session.get(url + path + "/") as response:
            return await response.text()

    page = browse(server, talk)
    assert page.index(WORKER_SHIM.decode()) < page.index("<script", page.index("<head>") + len("<head>" + "<script"))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_a_real_browser_connects_to_the_robot_in_its_sandboxed_frame(serve, tmp_path, monkeypatch) -> None:
    connected, view_messages = threading.Event(), WebServer._view_messages

    def watched(self, request):
        connected.set()
        return view_messages(self, request)

    monkeypatch.setattr(WebServer, "_view_messages", watched)
    server = serve()
    options = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    browser = subprocess.Popen(
        ["chromium", *options, f"--user-data-dir={tmp_path}", f"http://127.0.0.1:{server.port}/"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 200.0
        while not connected.is_set():
            assert time.monotonic() < deadline, "the page shows no robot"
            server.broadcast({"status": time.monotonic_ns()})
            time.sleep(0.1)
    finally:
        browser.kill()
        browser.wait()


@pytest.mark.parametrize("cookie", [None, TOKEN, "x" * 43, ""])
def test_without_a_session_nothing_is_served(serve, cookie: str | None) -> None:
    server = serve(TOKEN)

    async def talk(session, url):
        if cookie is not None:
            session.cookie_jar.update_cookies({COOKIE: cookie})
        for path in PATHS:
            assert await status_of(session, url + path) == 401, path
            assert await status_of(session, url + path, "POST") == 401, path
        for path in SOCKETS:
            assert await socket_status(session, url + path) == 401, path
        assert await status_of(session, url + "/static/page.js?token=" + TOKEN) == 401, "the token buys the page only"
        assert await status_of(session, url + "/?token=" + TOKEN, "POST") == 401

    browse(server, talk)
    assert server.requests.empty() and server.pages == 0


def test_the_right_token_once_and_then_the_cookie(serve) -> None:
    server = serve(TOKEN)

    async def talk(session, url):
        async with session.get(f"{url}/?token={TOKEN}") as response:
            cookie = response.headers["Set-Cookie"]
            text = await response.text()
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie and TOKEN not in text
        shown = await view_of(session, server, url)
        for path in (*PAGES, shown, shown + "/", shown + "/index.html"):
            assert await status_of(session, url + path) == 200, path
        for path in ("/control", shown, shown + "/"):
            assert await socket_status(session, url + path) == 101, path
        # The view's address is all that its frame has; it opens nothing else.
        async with aiohttp.ClientSession() as frame:
            assert await status_of(frame, url + shown + "/") == 200
            assert await socket_status(frame, url + shown, Origin="null") == 101
            assert await status_of(frame, url + shown + "/../") == 401
            assert await status_of(frame, url + shown[:-1] + "/") == 401
        assert await status_of(session, url + "/estop", "POST") == 202

    browse(server, talk)
    assert server.requests.get(timeout=5).request is Request.ESTOP


def test_guesses_are_slowed_but_a_session_is_not(serve) -> None:
    server = serve(TOKEN)

    async def talk(session, url):
        assert await status_of(session, f"{url}/?token={TOKEN}") == 200
        async with aiohttp.ClientSession() as other:
            statuses = [await status_of(other, f"{url}/?token=guess{i}") for i in range(MAX_FAILURES + 2)]
            assert statuses == [401] * (MAX_FAILURES - 1) + [429] * 3
            assert await status_of(other, f"{url}/?token={TOKEN}") == 429
        assert await status_of(session, url + "/") == 200
        assert await status_of(session, url + "/estop", "POST") == 202

    browse(server, talk)


@pytest.mark.parametrize("token", ["", TOKEN])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_other_sites_in_the_same_browser_can_do_nothing(serve, token: str, origin: str) -> None:
    server = serve(token)

    async def talk(session, url):
        if token:
            assert await status_of(session, f"{url}/?token={token}") == 200
        for path in SOCKETS:
            assert await socket_status(session, url + path, Origin=origin) == 403, path
        assert await socket_status(session, url + "/control", Origin=url) == 101
        assert await status_of(session, url + "/estop", "POST", headers={"Origin": origin}) == 403

    browse(server, talk)
    assert server.requests.empty()


def test_an_open_page_refuses_names_that_were_rebound_to_this_computer(serve) -> None:
    server = serve("")

    async def talk(session, url):
        headers = {"Host": f"evil.example:{server.port}", "Origin": f"http://evil.example:{server.port}"}
        for path in PATHS:
            assert await status_of(session, url + path, headers=headers) == 403
        assert await socket_status(session, url + "/control", **headers) == 403
        assert await status_of(session, url + "/") == 200

    browse(server, talk)


def test_nobody_can_frame_the_page_or_keep_it(serve) -> None:
    server = serve("")

    async def talk(session, url):
        async with session.get(url) as response:
            assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Referrer-Policy"] == "no-referrer"

    browse(server, talk)


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses on which a process listens, from the kernel's tables."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                address, port = words[1].split(":")
                found.add((address, int(port, 16)))
    return found


def test_page_and_view_listen_on_loopback_only(serve, view: RobotView) -> None:
    server = serve("")
    ours = listening(os.getpid())
    assert {port for _, port in ours} >= {server.port, view.port}
    assert {address for address, _ in ours} == {"0100007F"}, "127.0.0.1 as the kernel writes it"


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = WebServer("127.0.0.1", taken.getsockname()[1], Access(""), WebLink(), None)
        with pytest.raises(WebError, match=r"cannot listen on 127\.0\.0\.1:\d+: .*in use"):
            server.start()
    with pytest.raises(WebError, match=r"cannot listen on 203\.0\.113\.1"):
        WebServer("203.0.113.1", 0, Access(TOKEN), WebLink(), None).start()


def test_beats_and_requests_arrive_and_answers_return(serve) -> None:
    link = WebLink()
    server = serve("", link)

    async def talk(session, url):
        async with session.ws_connect(url + "/control") as ws:
            for number, held in ((1, False), (2, True)):
                link.sent(number, time.monotonic_ns())
                server.broadcast({"status": number})
                assert (await ws.receive_json(timeout=10))["status"] == number
                await ws.send_json({"beat": number, "held": held, "velocity": [0.25, 0, -0.5]})
            await ws.send_json({"request": "walk", "number": 7})
            page, number, request = await asyncio.to_thread(server.requests.get, timeout=10)
            assert (number, request) == (7, Request.WALK) and server.pages == 1
            assert link.output(time.monotonic_ns()) == (True, VelocityCommand(0.25, 0.0, -0.5))
            server.answer(page, {"answer": "walk"})
            assert (await ws.receive_json(timeout=10)) == {"answer": "walk"}
        while server.pages:
            await asyncio.sleep(0.01)
        assert link.output(time.monotonic_ns()) == (False, None)

    browse(server, talk)


@pytest.mark.parametrize(
    "message",
    [
        "", "x", "[]", "1", "null", "{}", '{"beat": 1}', '{"request": "fly", "number": 1}', '{"request": "walk"}',
        '{"beat": 1, "held": true, "velocity": [1]}', '{"beat": 1, "held": true, "velocity": "fast"}',
        '{"beat": "x", "held": true, "velocity": [0, 0, 0]}', '{"beat": 1e999, "held": true, "velocity": [0, 0, 0]}',
        "[" * 3000, json.dumps({"request": "walk" * 2000, "number": 1}), b"\x00\xff",
    ],
)  # fmt: skip
def test_nonsense_ends_the_connection_and_nothing_else(serve, message: str | bytes) -> None:
    link = WebLink()
    server = serve("", link)

    async def talk(session, url):
        async with session.ws_connect(url + "/control") as ws, session.ws_connect(url + "/control") as bystander:
            await (ws.send_bytes(message) if isinstance(message, bytes) else ws.send_str(message))
            closed = await ws.receive(timeout=10)
            assert closed.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
            server.broadcast({"status": 1})
            assert (await bystander.receive_json(timeout=10))["status"] == 1

    browse(server, talk)
    assert server.requests.empty() and link.output(time.monotonic_ns()) == (False, None)


def test_not_finite_velocities_do_not_move(serve) -> None:
    link = WebLink()
    server = serve("", link)

    async def talk(session, url):
        async with session.ws_connect(url + "/control") as ws:
            link.sent(1, time.monotonic_ns())
            await ws.send_str('{"beat": 1, "held": true, "velocity": [NaN, Infinity, 0]}')
            await ws.send_json({"request": "sit", "number": 1})
            await asyncio.to_thread(server.requests.get, timeout=10)
            assert link.output(time.monotonic_ns()) == (False, None)

    browse(server, talk)


def test_pages_are_counted(serve) -> None:
    server = serve("")

    async def talk(session, url):
        open_ = [await session.ws_connect(url + "/control") for _ in range(MAX_PAGES)]
        assert await socket_status(session, url + "/control") == 503
        await open_.pop().close()
        while server.pages == MAX_PAGES:
            await asyncio.sleep(0.01)
        assert await socket_status(session, url + "/control") == 101

    browse(server, talk)


def test_a_browser_that_does_not_read_delays_nobody(serve) -> None:
    server = serve("")

    async def talk(session, url):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        head = f"GET /control HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n"
        writer.write(head.encode())
        await reader.readuntil(b"\r\n\r\n")
        async with session.ws_connect(url + "/control") as ws:
            for number in range(200):
                server.broadcast({"status": number, "much": "x" * 100_000})
                assert (await ws.receive_json(timeout=10))["status"] == number
        writer.close()

    browse(server, talk, read_bufsize=1 << 20)


def test_the_view_shows_and_hears_nothing(serve, view: RobotView, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any client of viser may ask it for a public tunnel; ours must not open one."""
    server = serve("")
    tunnels: list[object] = []
    # The one thing that may not run here: it would call a server on the Internet.
    monkeypatch.setattr("viser._viser.ViserTunnel", lambda *arguments: tunnels.append(arguments))
    share = msgspec.msgpack.encode({"type": "ShareUrlRequest"})

    async def frames(session, url) -> int:
        async with session.ws_connect(url, protocols=["viser-v1.1.1"], max_msg_size=0) as ws:
            assert ws.protocol == "viser-v1.1.1"
            await ws.send_bytes(share)
            received = 0
            for step in range(20):
                view.update(np.array([0.1 * step, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]), np.full(12, 0.01 * step))
                with contextlib.suppress(asyncio.TimeoutError):
                    received += (await ws.receive(timeout=0.5)).type is aiohttp.WSMsgType.BINARY
            return received

    async def through_the_proxy(session, url) -> int:
        return await frames(session, url + await view_of(session, server, url))

    assert browse(server, through_the_proxy) > 3
    # And who reaches viser itself, on this computer, cannot open a tunnel either.
    assert browse(server, lambda session, url: frames(session, f"http://127.0.0.1:{view.port}/")) > 3
    time.sleep(0.5)
    assert not tunnels
    stock = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    try:
        browse(server, lambda session, url: frames(session, f"http://127.0.0.1:{stock.get_port()}/"))
        time.sleep(0.5)
        assert tunnels, "the message that was refused above is a real one"
    finally:
        stock.stop()
