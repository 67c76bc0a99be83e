"""A computer and a robot in one: network namespaces, joined by a cable (veth) or by a switch with faults (TAP)."""

import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_serial = itertools.count()
ROBOT_ADDRESS, HOST_ADDRESS, OTHER_ADDRESS = "10.77.0.1", "10.77.0.2", "10.77.0.3"


def missing() -> str:
    """Why this computer cannot make network namespaces; "" if it can."""
    if shutil.which("ip") is None:
        return "needs iproute2"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    name = f"nfpo-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"cannot make network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


class Computer:
    """This one. Processes started on it are stopped with it."""

    ENTER = ()

    def __init__(self):
        self.started = []

    def start(self, *command, **options):
        """Start a program of this Python, with text pipes for stdin and stdout."""
        environment = {key: value for key, value in os.environ.items() if key != "CYCLONEDDS_URI"}
        defaults = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT, "env": environment}
        process = subprocess.Popen([*self.ENTER, sys.executable, *map(str, command)], **defaults | options)
        self.started.append(process)
        return process

    def delete(self):
        """Kill what still runs."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()


class Namespace(Computer):
    """Another one: a network namespace."""

    def __init__(self, name):
        super().__init__()
        self.name = f"nfpo-{os.getpid()}-{next(_serial)}-{name}"
        self.ENTER = ("ip", "netns", "exec", self.name)
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.ip("link set lo up")

    def ip(self, arguments, check=True):
        """Run iproute2 inside: `ip("link set veth0 down")`."""
        subprocess.run(["ip", "-n", self.name, *arguments.split()], check=check)

    def delete(self):
        super().delete()
        subprocess.run(["ip", "netns", "del", self.name], check=True)


class Probe:
    """probe.py in a namespace, and what it reports."""

    def __init__(self, namespace, interface, domain):
        self.process = namespace.start(HERE / "probe.py", interface, domain, stderr=subprocess.PIPE)
        self.reports = queue.Queue()
        self.errors = []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.reports.put(json.loads(line))

    def until(self, condition, timeout=40.0):
        """Reports up to the first that satisfies `condition`."""
        seen, deadline = [], time.monotonic() + timeout
        while not seen or not condition(seen[-1]):
            left = deadline - time.monotonic()
            assert left > 0 and self.process.poll() is None, (seen[-3:], self.process.poll(), self.errors[-5:])
            with contextlib.suppress(queue.Empty):
                seen.append(self.reports.get(timeout=min(left, 1.0)))
        return seen

    def during(self, seconds):
        """Reports of the next seconds, from now on."""
        start = time.monotonic()
        reports = self.until(lambda report: report["t"] > start + seconds, timeout=seconds + 30)
        return [report for report in reports if report["t"] > start]

    def stop(self):
        """End it in an orderly way; returns its exit status."""
        self.process.stdin.close()
        return self.process.wait(timeout=20)


class Network:
    """Namespaces by name; see the fixtures."""

    def __init__(self):
        self.spaces = {}
        self.switch = None

    def space(self, name):
        if name not in self.spaces:
            self.spaces[name] = Namespace(name)
        return self.spaces[name]

    def cable(self):
        """A veth pair between "robot" (r0) and "host" (h0)."""
        robot, host = self.space("robot"), self.space("host")
        subprocess.run(
            f"ip link add r0 netns {robot.name} type veth peer name h0 netns {host.name}".split(), check=True
        )
        for space, device, address in ((robot, "r0", ROBOT_ADDRESS), (host, "h0", HOST_ADDRESS)):
            space.ip(f"addr add {address}/24 dev {device}")
            space.ip(f"link set {device} up")
        return robot, host

    def switched(self, *names):
        """A switch between namespaces; the device of "robot" is t-robot."""
        addresses = (ROBOT_ADDRESS, HOST_ADDRESS, OTHER_ADDRESS)
        spaces = [self.space(name) for name in names]
        ports = [
            f"{space.name}:t-{name}:{address}/24"
            for space, name, address in zip(spaces, names, addresses, strict=False)
        ]
        self.switch = subprocess.Popen(
            [sys.executable, HERE / "switch.py", *ports], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.switch.stdout.readline().strip() == "ready"
        return spaces

    def faults(self, **faults):
        """Set the switch's faults; those not named are off."""
        self.switch.stdin.write(json.dumps(faults) + "\n")
        self.switch.stdin.flush()
        return json.loads(self.switch.stdout.readline())

    def close(self):
        for space in self.spaces.values():
            space.delete()
        if self.switch is not None:
            self.switch.communicate("")


def start_sim(space, interface, domain, *options):
    """The simulated robot inside a namespace, on the network and with no built-in controller active."""
    process = space.start(
        "-m", "sim2real_checks.robot_sim", "--interface", interface, "--domain-id", domain,
        "--builtin-mode", "", *options,
    )  # fmt: skip
    line = process.stdout.readline()
    assert "on DDS domain" in line, line
    return process


def stop_sim(process):
    """End it; returns its last words."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=20)[0]


@pytest.fixture(scope="session")
def namespaces_work():
    reason = missing()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def network(namespaces_work):
    network = Network()
    yield network
    network.close()


@pytest.fixture
def computer():
    """This computer, for tests that stay on loopback and need no privilege."""
    computer = Computer()
    yield computer
    computer.delete()


@pytest.fixture
def tun(namespaces_work):
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")


@pytest.fixture(name="Probe")
def probe_fixture():
    return Probe


@pytest.fixture(name="start_sim")
def start_sim_fixture():
    return start_sim


@pytest.fixture(name="stop_sim")
def stop_sim_fixture():
    return stop_sim
