"""Handing the robot back to its built-in controller, against the SDK's own RPC server."""

import json
import subprocess
import sys
import textwrap
import time

import pytest

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport import open_transport
from robots.loader import load_robot

pytest.importorskip("unitree_sdk2py")

DOMAIN = 39
SPEC = load_robot("go2")

SERVER = """
    import json, sys
    from unitree_sdk2py.core.channel import ChannelFactoryInitialize
    from unitree_sdk2py.rpc.server import Server

    ChannelFactoryInitialize(int(sys.argv[1]), "lo")
    codes = json.loads(sys.argv[2])  # what SelectMode answers, one after the other; the last one for ever
    obeys = json.loads(sys.argv[3])  # whether a mode that was accepted becomes active

    class Switcher(Server):
        name = ""
        asked = []

        def Init(self):
            self._SetApiVersion("1.0.0.1")
            self._RegistHandler(1001, self.check, False)
            self._RegistHandler(1002, self.select, False)

        def check(self, parameter):
            return 0, json.dumps({"form": "0", "name": self.name})

        def select(self, parameter):
            self.asked.append(json.loads(parameter)["name"])
            code = codes.pop(0) if len(codes) > 1 else codes[0]
            if code == 0 and obeys:
                self.name = self.asked[-1]
            return code, ""

    server = Switcher("motion_switcher")
    server.Init()
    server.Start()
    print("ready", flush=True)
    sys.stdin.read()
    print(json.dumps([server.name, server.asked]), flush=True)
"""


@pytest.fixture
def transport():
    transport = open_transport(SPEC, "lo", DOMAIN)
    yield transport
    transport.close()


@pytest.fixture
def serve():
    started = []

    def start(codes, obeys=True):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SERVER), str(DOMAIN), json.dumps(codes), json.dumps(obeys)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        while process.stdout.readline().strip() != "ready":
            assert process.poll() is None
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def outcome(process):
    output, _ = process.communicate("", timeout=15)
    return json.loads(output.strip().splitlines()[-1])


def test_controller_is_selected_and_confirmed(serve, transport):
    server = serve([0])
    transport.restore_mode("normal", 20.0)
    name, asked = outcome(server)
    assert name == "normal" and set(asked) == {"normal"}


def test_refusals_that_may_pass_are_retried(serve, transport):
    server = serve([7002, 7002, 0])
    transport.restore_mode("ai", 20.0)
    name, asked = outcome(server)
    assert name == "ai" and len(asked) >= 3


def test_unknown_controller_is_an_error_at_once(serve, transport):
    serve([7004])
    begin = time.monotonic()
    with pytest.raises(TransportError, match=r"no built-in controller .*nonsense.* \(code 7004\)"):
        transport.restore_mode("nonsense", 120.0)
    assert time.monotonic() - begin < 60.0


@pytest.mark.parametrize(("codes", "obeys", "said"), [([0], False, "did not start it"), ([7003], True, "code 7003")])
def test_controller_that_does_not_start_is_an_error_in_time(serve, transport, codes, obeys, said):
    serve(codes, obeys)
    with pytest.raises(TransportError, match=rf"'ai' is not active 4.0 s .*{said}.*app"):
        transport.restore_mode("ai", 4.0)


def test_no_service_is_an_error_in_time(transport):
    begin = time.monotonic()
    with pytest.raises(TransportError, match="no service 'motion_switcher'"):
        transport.restore_mode("ai", 0.5)
    assert time.monotonic() - begin < 10.0


def test_nothing_to_restore_is_refused(transport):
    with pytest.raises(TransportError, match="no built-in controller named"):
        transport.restore_mode("", 1.0)


def test_release_and_restore_the_simulated_robot(transport):
    """The whole way round, with the simulator's own switcher."""
    sim = subprocess.Popen(
        [sys.executable, "-m", "sim2real_checks.robot_sim", "--domain-id", str(DOMAIN)], stdout=subprocess.PIPE
    )
    try:
        assert b"on DDS domain" in sim.stdout.readline()
        active = transport.release_mode(20.0)
        assert active == "normal" and transport.release_mode(20.0) == ""
        transport.restore_mode(active, 20.0)
        assert transport.release_mode(20.0) == active
    finally:
        sim.terminate()
        sim.wait(timeout=20)
