"""ROS programs in processes of their own, what sockets a process has, and two hosts with a cable between them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from nfpo_deploy.ros.profiles import discovery_environment

REPO = Path(__file__).resolve().parents[2]
ROBOT_DOMAIN, ROS_DOMAIN = 36, 136
ROS_VARIABLES = ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_DISCOVERY_SERVER", "ROS_STATIC_PEERS",
                 "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "RMW_IMPLEMENTATION")  # fmt: skip


def environment(kind: str) -> dict[str, str]:
    """Environment of a ROS program: "confined" as the graph's processes, "local" as a tool that knows no profile."""
    clean = {key: value for key, value in os.environ.items() if key not in ROS_VARIABLES}
    clean |= {"ROS_DOMAIN_ID": str(ROS_DOMAIN), "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp", "PYTHONUNBUFFERED": "1"}
    if kind == "confined":
        return clean | discovery_environment(clean)
    return clean | {"ROS_AUTOMATIC_DISCOVERY_RANGE": {"local": "LOCALHOST", "subnet": "SUBNET"}[kind]}


@dataclass(frozen=True)
class Socket:
    """An Internet socket of a process."""

    kind: str
    address: str
    port: int
    drops: int = 0

    @property
    def loopback(self) -> bool:
        return self.address in ("127.0.0.1", "::1") or self.address.startswith("127.")


def _address(text: str) -> str:
    raw = bytes.fromhex(text)
    words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))


def sockets_of(pid: int) -> list[Socket]:
    """All Internet sockets that a process holds: what the kernel says, not what the process says."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry))
        except OSError:  # closed meanwhile
            continue
        inodes |= {found.group(1)} if found else set()
    result = []
    for kind in ("udp", "udp6", "udplite", "tcp", "tcp6", "raw", "raw6", "icmp"):
        table = Path(f"/proc/{pid}/net/{kind}")
        for line in table.read_text().splitlines()[1:] if table.exists() else []:
            fields = line.split()
            if fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                drops = int(fields[12]) if kind.startswith("udp") and len(fields) > 12 else 0
                result.append(Socket(kind, _address(address), int(port, 16), drops))
    return result


class Program:
    """A Python program whose lines of JSON the test reads."""

    def __init__(self, source: str, *arguments: object, env: Mapping[str, str], prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, sys.executable, "-c", source, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPO
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def read(self, timeout: float = 60.0):
        """Next line of output as JSON."""
        stream = self.process.stdout
        assert stream is not None
        ready, _, _ = select.select([stream], [], [], timeout)
        assert ready, f"no line within {timeout} s"
        line = stream.readline()
        assert line, f"ended with status {self.process.wait()}"
        return json.loads(line)

    def tell(self, word: str) -> None:
        stream = self.process.stdin
        assert stream is not None
        stream.write(word + "\n")
        stream.flush()

    def kill(self) -> None:
        """SIGKILL, as the worst end."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def run_program():
    started: list[Program] = []

    def run(source: str, *arguments: object, env: Mapping[str, str], prefix: tuple[str, ...] = ()) -> Program:
        started.append(Program(source, *arguments, env=env, prefix=prefix))
        return started[-1]

    yield run
    for program in started:
        program.kill()


@pytest.fixture(scope="session")
def ros_helpers() -> ModuleType:
    """tests/ros/conftest.py: a graph in its own processes and a client of it."""
    spec = importlib.util.spec_from_file_location("ros_conftest", REPO / "tests/ros/conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TwoHosts:
    """Two network namespaces with two cables between them.

    `robot_side` runs the stack, `stranger` is another computer.
    """

    CABLES = {"cable0": "10.250.36", "cable1": "10.250.37"}
    NUMBER = {"robot_side": 1, "stranger": 2}

    def __init__(self) -> None:
        self.names = {side: f"nfpo-{os.getpid()}-{side}" for side in self.NUMBER}
        for name in self.names.values():
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        first, second = self.names.values()
        for cable in self.CABLES:
            _ip("link", "add", cable, "netns", first, "type", "veth", "peer", "name", cable, "netns", second)
        for side, name in self.names.items():
            for cable in self.CABLES:
                _ip("-n", name, "link", "set", cable, "up")
                _ip("-n", name, "addr", "add", f"{self.address(side, cable)}/24", "dev", cable)
            # As an ordinary computer has it; without a route no multicast would leave, and the tests prove nothing.
            _ip("-n", name, "route", "add", "default", "dev", "cable0")

    def address(self, side: str, cable: str = "cable0") -> str:
        """Address of a host on a cable."""
        return f"{self.CABLES[cable]}.{self.NUMBER[side]}"

    def prefix(self, side: str) -> tuple[str, ...]:
        """Words before a command that run it on one of the hosts."""
        return ("ip", "netns", "exec", self.names[side])

    def close(self) -> None:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def two_hosts():
    try:
        hosts = TwoHosts()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces are not permitted here: {error}")
    yield hosts
    hosts.close()


def wait_for(condition, timeout: float = 60.0, what: str = "condition"):
    """Value of `condition()` once it is true."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"timed out waiting for {what}"
        time.sleep(0.1)
    return value


@pytest.fixture(scope="session")
def tools():
    """The functions of this file: pytest imports test files by path, so they cannot import each other."""
    return sys.modules[__name__]
