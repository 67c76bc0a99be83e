"""Preflight on one computer, the simulated robot on another, joined by a cable with the robot's addresses."""

import json

import pytest

pytest.importorskip("unitree_sdk2py")
pytest.importorskip("mujoco")

from tests.deploy.transport.test_spdp import announcement
from tests.wire.conftest import Network, missing, start_sim

DOMAIN = 47
SEND = """
import socket, sys, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("192.168.123.161"))
print("on", flush=True)
while True:
    out.sendto(bytes.fromhex(sys.argv[1]), ("239.255.0.1", 7400 + 250 * int(sys.argv[2])))
    time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def cable():
    """Namespaces of robot and host; the robot runs."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    network = Network()
    try:
        robot, host = network.cable()
        for space, device, address in ((robot, "r0", "192.168.123.161"), (host, "h0", "192.168.123.222")):
            space.ip(f"addr flush dev {device}")
            space.ip(f"addr add {address}/24 dev {device}")
        start_sim(robot, "r0", DOMAIN)
        yield robot, host
    finally:
        network.close()


@pytest.fixture
def preflight(cable, tmp_path):
    """Run it on the host: exit status and checks by name."""

    def preflight(domain=DOMAIN):
        file = tmp_path / "preflight.json"
        words = ["--interface", "h0", "--domain-id", domain, "--seconds", "1.3", "--json", file]
        process = cable[1].start("-m", "nfpo_deploy.cli", "preflight", *words)
        out = process.communicate(timeout=40)[0]
        assert process.returncode in (0, 1), out
        return process.returncode, {check["check"]: check for check in json.loads(file.read_text())["checks"]}

    return preflight


def test_a_sound_robot(preflight):
    status, checks = preflight()
    assert status == 0, checks
    assert checks["interface"]["result"] == "pass" and "192.168.123.222, multicast" in checks["interface"]["measured"]
    assert checks["built-in controller"]["result"] == "pass"
    assert "2 × Cyclone DDS 0.10." in checks["DDS participants"]["measured"]


def test_the_wrong_domain(preflight):
    status, checks = preflight(DOMAIN + 1)
    assert status == 1 and checks["identity"]["result"] == "skip"
    assert f"try --domain-id {DOMAIN}" in checks["LowState"]["remedy"].splitlines()[0]
    assert "ping 192.168.123.161" in checks["LowState"]["remedy"]


def test_a_foreign_version_that_announces_itself(cable, preflight):
    sender = cable[0].start("-c", SEND, announcement("11.0.1").hex(), DOMAIN)
    assert sender.stdout.readline().strip() == "on"
    status, checks = preflight()
    sender.kill()
    assert status == 1 and checks["DDS participants"]["result"] == "fail"
    assert "Cyclone DDS 11.0.1" in checks["DDS participants"]["measured"]


def test_a_cable_that_is_pulled_out(cable, preflight):
    cable[0].ip("link set r0 down")
    try:
        status, checks = preflight()
    finally:
        cable[0].ip("link set r0 up")
    assert status == 1 and checks["interface"]["measured"] == "h0: up, no carrier"
    assert checks["LowState"]["result"] == checks["identity"]["result"] == "skip"
