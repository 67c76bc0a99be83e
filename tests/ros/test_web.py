"""The web node as a process against a bench; the browser here is a websocket that speaks the page's few messages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("nfpo_msgs", reason="ros2_ws is not built: ros2_ws/build.sh")
pytest.importorskip("aiohttp", reason="the web extra is not installed")

import aiohttp
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Twist
from nfpo_msgs.msg import SafetyPermit
from rclpy.qos import qos_profile_sensor_data

from tests.ros.operator_bench import Bench, start, stop

START_S = 60.0
LATE_S = 1.0
"""What must happen at once may take this long where other programs want the same processor."""
WEB = "/nfpo/operator/web"


class WebBench(Bench):
    """Hears what the page says to the operator node."""

    def __init__(self) -> None:
        super().__init__()
        self.node.create_subscription(Twist, WEB, self._hear, qos_profile_sensor_data)


@pytest.fixture
def bench():
    bench = WebBench()
    yield bench
    bench.close()


class Page:
    """A process of the web node, and one page of it."""

    def __init__(self, bench: WebBench, **parameters: object) -> None:
        self.bench = bench
        self.process = start("nfpo_deploy.ros.web", port=0, **parameters)
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.output = ""
        bench.wait(lambda: "web page: " in self.read() or self.process.poll() is not None, START_S, "the web node")
        match = re.search(r"web page: (\S+)", self.output)
        self.url = match.group(1) if match else ""
        self.held = False
        self.velocity = [0.3, 0.0, 0.0]
        self.statuses: list[dict] = []
        self.answers: list[dict] = []
        self.beating = True

    def read(self) -> str:
        assert self.process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.process.stdout.fileno(), 65536):
                self.output += data.decode()
        return self.output

    async def live(self, script) -> None:
        """Open the page and run `script(socket)` beside the bench and the page's own beats."""
        async with aiohttp.ClientSession() as session, session.ws_connect(self.url + "control") as socket:
            tasks = [asyncio.ensure_future(part) for part in (self._hear(socket), self._beat(socket), self._spin())]
            try:
                await asyncio.wait_for(script(socket), 90)
            finally:
                for task in tasks:
                    task.cancel()

    async def _hear(self, socket) -> None:
        async for message in socket:
            data = message.json()
            (self.answers if "answer" in data else self.statuses).append(data)

    async def _beat(self, socket) -> None:
        while True:
            await asyncio.sleep(0.1)
            if self.statuses and self.beating and not socket.closed:
                beat = {"beat": self.statuses[-1]["status"], "held": self.held, "velocity": self.velocity}
                await socket.send_json(beat)

    async def _spin(self) -> None:
        while True:
            self.bench.spin(0.01)
            await asyncio.sleep(0.005)

    def end(self) -> None:
        stop(self.process)


async def until(condition, what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        await asyncio.sleep(0.01)


@pytest.fixture
def page(bench):
    page = Page(bench, view="false")
    yield page
    print(page.read())
    page.end()


def moving(bench) -> bool:
    return bool(bench.velocities) and bench.velocities[-1][1][0] > 0


async def start_moving(page) -> None:
    await until(lambda: page.bench.velocities, "presence")
    page.held = True
    await until(lambda: moving(page.bench), "motion")


def test_holding_moves_and_letting_go_stops(bench, page):
    async def script(socket):
        await until(lambda: bench.velocities, "presence")
        assert {velocity for _, velocity in bench.velocities} == {(0.0, 0.0, 0.0)}
        await start_moving(page)
        assert bench.velocities[-1][1] == (0.3, 0.0, 0.0)
        page.held = False
        released = time.monotonic()
        await until(lambda: not moving(bench), "the stop")
        assert time.monotonic() - released < LATE_S

    asyncio.run(page.live(script))


@pytest.mark.parametrize("way", ["closed", "frozen", "cut", "web node hangs", "web node killed"])
def test_a_page_that_goes_away_stops_within_the_operators_timeout(bench, page, way):
    async def script(socket):
        await start_moving(page)
        if way == "closed":
            await socket.close()
        elif way == "frozen":
            page.beating = False
        elif way == "cut":
            socket.get_extra_info("socket").shutdown(2)
        else:
            page.process.send_signal(signal.SIGSTOP if "hangs" in way else signal.SIGKILL)
        gone = time.monotonic()
        await asyncio.sleep(2.5)
        last = max(at for at, velocity in bench.velocities if velocity[0] > 0)
        assert last - gone < 0.5 + LATE_S
        assert not [at for at, _ in bench.velocities if at - gone > 0.5 + LATE_S], "nothing at all any more"
        if way == "frozen":
            # The tab wakes up with the pad still held.
            page.beating = True
            await until(lambda: bench.velocities[-1][0] > time.monotonic() - 0.2, "presence")
            await asyncio.sleep(0.5)
            assert not moving(bench)
            page.held = False
            await asyncio.sleep(0.5)
            page.held = True
            await until(lambda: moving(bench), "motion after a fresh press")

    asyncio.run(page.live(script))
    page.process.send_signal(signal.SIGCONT)


def test_late_beats_do_not_move(bench, page):
    async def script(socket):
        await start_moving(page)
        page.beating = False
        # A connection that delivers everything, one second late.
        delayed: list[tuple[float, dict]] = []
        end = time.monotonic() + 4.0
        while time.monotonic() < end:
            beat = {"beat": page.statuses[-1]["status"], "held": True, "velocity": page.velocity}
            delayed.append((time.monotonic() + 1.0, beat))
            while delayed[0][0] <= time.monotonic():
                await socket.send_json(delayed.pop(0)[1])
            await asyncio.sleep(0.1)
        assert bench.velocities[-1][0] < time.monotonic() - 1.5

    asyncio.run(page.live(script))


@pytest.mark.parametrize("way", ["button", "plain request"])
def test_the_emergency_stop(bench, page, way):
    async def script(socket):
        await start_moving(page)
        asked = time.monotonic()
        if way == "button":
            await socket.send_json({"request": "estop", "number": 3})
        else:
            async with aiohttp.ClientSession() as session, session.post(page.url + "estop") as response:
                assert response.status == 202
        await until(lambda: "estop" in bench.calls, "the call")
        assert time.monotonic() - asked < LATE_S
        await until(lambda: page.answers, "the confirmation")
        assert page.answers[0]["answer"] == "estop" and page.answers[0]["accepted"] is True

    asyncio.run(page.live(script))


def test_buttons_ask_and_refusals_are_shown(bench, page):
    async def script(socket):
        await until(lambda: page.statuses, "a status")
        for number, name in enumerate(("stand", "walk", "ready", "sit", "damp", "reset")):
            await socket.send_json({"request": name, "number": number})
            await until(lambda number=number: len(page.answers) == number + 1, name)
            assert page.answers[-1] == {"answer": name, "number": number, "accepted": True, "message": "well"}
        assert bench.calls == ["arm", "stand", "walk", "ready", "sit", "damp", "reset"]
        bench.refusal = "walk refused: bench says no"
        await socket.send_json({"request": "walk", "number": 9})
        await until(lambda: page.answers[-1]["number"] == 9, "the refusal")
        assert page.answers[-1]["accepted"] is False and page.answers[-1]["message"] == bench.refusal

    asyncio.run(page.live(script))


def test_it_shows_mode_cause_and_diagnostics(bench, page):
    publisher = bench.node.create_publisher(DiagnosticArray, "/diagnostics", 1)
    values = {"mode": "FAULT", "armed": "False", "first_cause": "tilt: 1.2 rad", "later_cause_1": "state_age: late"}
    rows = [
        DiagnosticStatus(
            name="safety_watchdog: mode", level=DiagnosticStatus.ERROR,
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        ),
        DiagnosticStatus(
            name="safety_watchdog: battery", level=DiagnosticStatus.WARN, message="18 %",
            values=[KeyValue(key="seen", value="18 %")],
        ),
        DiagnosticStatus(name="another node: mode", level=DiagnosticStatus.ERROR, message="not ours"),
    ]  # fmt: skip

    async def script(socket):
        bench.mode = SafetyPermit.FAULT
        await until(lambda: page.statuses and page.statuses[-1].get("mode") == "FAULT", "FAULT")

        def told() -> bool:
            publisher.publish(DiagnosticArray(status=rows))
            return "causes" in page.statuses[-1]

        await until(told, "/diagnostics")
        status = page.statuses[-1]
        assert status["causes"] == ["tilt: 1.2 rad", "state_age: late"] and status["battery"] == "18 %"
        assert status["problems"] == [{"name": "battery", "level": "warning", "message": "18 %"}]
        assert status["reason"] == "bench" and status["listening"] is True

    asyncio.run(page.live(script))


@pytest.mark.slow
def test_it_says_when_the_recorder_is_dead(bench, page):
    publisher = bench.node.create_publisher(DiagnosticArray, "/diagnostics", 1)
    row = DiagnosticStatus(name="flight_recorder: log", level=DiagnosticStatus.ERROR, message="disk full")

    async def script(socket):
        def told(level: str) -> bool:
            problems = page.statuses[-1]["problems"] if page.statuses else []
            return [problem["level"] for problem in problems if problem["name"] == "flight_recorder"] == [level]

        def full() -> bool:
            publisher.publish(DiagnosticArray(status=[row]))
            return told("error")

        await until(full, "the full disk")
        await until(lambda: told("stale"), "the silence")

    asyncio.run(page.live(script))


def test_beyond_loopback_it_prints_a_link_with_a_token(bench, tmp_path: Path):
    page = Page(bench, view="false", host="0.0.0.0")
    try:
        match = re.fullmatch(r"http://0\.0\.0\.0:(\d+)/\?token=(\S{32,})", page.url)
        assert match is not None, page.output
        assert match.group(2) not in page.output.replace(page.url, ""), "printed once, never logged"
        port = int(match.group(1))

        async def statuses() -> list[int]:
            async with aiohttp.ClientSession() as session:
                found = []
                for path in ("", "control", "?token=" + "x" * 32, "?token=" + match.group(2)):
                    async with session.get(f"http://127.0.0.1:{port}/{path}") as response:
                        found.append(response.status)
                return found

        assert asyncio.run(statuses()) == [401, 401, 401, 200]
    finally:
        page.end()


def test_a_bad_token_file_or_port_ends_it_with_one_line(bench, tmp_path: Path):
    path = tmp_path / "token"
    path.write_text("short")
    path.chmod(0o600)
    page = Page(bench, view="false", host="0.0.0.0", token_file=str(path))
    assert page.process.wait(START_S) == 1 and "at least 16 characters, got 5" in page.read()
