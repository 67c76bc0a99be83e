"""A network that loses, delays, reorders, doubles and corrupts frames; several robots on it; the wrong interface.

The faults are made by tests/wire/switch.py, frame by frame, between TAP devices in network namespaces.
"""

import time

import pytest

DOMAIN = 37
PATIENCE_S = 60.0
pytestmark = pytest.mark.usefixtures("tun")


@pytest.fixture
def segment(network, start_sim, Probe):
    """A robot and a host on a switch, and a probe that hears the robot."""
    robot, host = network.switched("robot", "host")
    sim = start_sim(robot, "t-robot", DOMAIN)
    probe = Probe(host, "t-host", DOMAIN)
    probe.until(lambda report: report["states"] > 10)
    return sim, probe


def count(reports, what):
    """By how much a running total grew."""
    return reports[-1][what] - reports[0][what]


def rate(reports):
    return sum(report["states"] for report in reports[1:]) / (reports[-1]["t"] - reports[0]["t"])


def check_alive(reports):
    assert not any(report["errors"] for report in reports)
    assert max(report["waited_ms"] for report in reports) < 20.0
    assert all(report["identity"] == "" and report["foreign"] == 0 for report in reports)
    # Corruption that the checksum of UDP finds never gets here; what gets here is right.
    assert count(reports, "malformed") == 0 and count(reports, "crc_errors") == 0


def test_multicast_discovery_and_full_rate_without_faults(segment):
    _, probe = segment
    reports = probe.during(4.0)
    assert rate(reports) > 200
    check_alive(reports)


def test_loss_of_one_frame_in_five(segment, network):
    _, probe = segment
    probe.during(2.0)
    before = probe.during(3.0)
    network.faults(loss=0.2)
    reports = probe.during(5.0)
    check_alive(reports)
    total = count(reports, "accepted") + count(reports, "lost")
    assert total > 0.4 * 5 * rate(before)
    assert 0.1 < count(reports, "lost") / total < 0.45, "a fifth, and what a busy computer loses besides"


def test_delay_reorder_and_duplicates(segment, network):
    _, probe = segment
    network.faults(delay=0.03)
    delayed = probe.during(3.0)
    network.faults(reorder=0.2, duplicate=0.2)
    mixed = probe.during(4.0)
    check_alive(delayed + mixed)
    assert rate(delayed) > 100 and rate(mixed) > 100


def test_a_reordered_or_doubled_state_never_comes_twice_or_backwards(network, start_sim):
    """DDS drops by sequence number what is old or known: no state of the past reaches the bridge."""
    robot, host = network.switched("robot", "host")
    start_sim(robot, "t-robot", DOMAIN)
    network.faults(reorder=0.3, duplicate=0.3, jitter=0.004)
    reader = host.start("-c", TICKS, "t-host", DOMAIN)
    ticks = [int(word) for word in reader.communicate(timeout=60)[0].split()]
    assert len(ticks) > 200
    assert ticks == sorted(set(ticks))


TICKS = """
import sys, time
from nfpo_deploy.transport import open_transport
from robots.loader import load_robot

transport = open_transport(load_robot("go2"), sys.argv[1], int(sys.argv[2]))
ticks, deadline = [], time.monotonic() + 40
while len(ticks) < 1000 and time.monotonic() < deadline:
    state = transport.read_state()
    ticks += [state.tick] if state else []
    time.sleep(0.001)
print(*ticks)
"""


def test_corrupt_frames_are_lost_frames(segment, network):
    _, probe = segment
    network.faults(corrupt=0.5)
    reports = probe.during(4.0)
    check_alive(reports)
    assert count(reports, "lost") > 0


def test_forged_frames_with_a_valid_udp_checksum_do_not_become_states(segment, network, Probe):
    """One flipped bit in half of all frames, past UDP's checksum: the robot's own checksum must find it.

    A flipped bit in a sequence number makes DDS discard everything that follows as old. The states then stop, which
    trips; a bridge that is started again hears the robot.
    """
    _, probe = segment
    probe.during(1.0)
    network.faults(corrupt=0.5, forge=True)
    reports = probe.until(lambda report: report["crc_errors"] > 20, timeout=PATIENCE_S) + probe.during(3.0)
    network.faults()
    assert not any(report["errors"] or report["identity"] for report in reports)
    assert probe.stop() == 0, "the process lived through it"
    again = Probe(network.space("host"), "t-host", DOMAIN)
    again.until(lambda report: report["states"] > 10, timeout=PATIENCE_S)


def test_robot_that_vanishes_behind_a_switch_never_delays_a_command(segment, network):
    """The link stays up and nobody answers for the robot's address: packets wait in the kernel for its neighbour."""
    _, probe = segment
    network.faults(unplugged=["t-robot"])
    network.space("host").ip("neigh flush dev t-host")
    reports = probe.during(8.0)
    assert sum(report["states"] for report in reports[3:]) == 0
    network.faults()
    reports += probe.until(lambda report: report["states"] > 10, timeout=PATIENCE_S)
    check_alive(reports)


def test_small_mtu_only_costs_fragments(network, start_sim, Probe):
    robot, host = network.switched("robot", "host")
    for name, space in (("robot", robot), ("host", host)):
        space.ip(f"link set t-{name} mtu 576")
    start_sim(robot, "t-robot", DOMAIN)
    probe = Probe(host, "t-host", DOMAIN)
    probe.until(lambda report: report["states"] > 10, timeout=PATIENCE_S)
    reports = probe.during(2.0)
    check_alive(reports)
    assert rate(reports) > 100


def test_second_robot_that_joins_is_noticed(network, start_sim, Probe):
    robot, host, other = network.switched("robot", "host", "other")
    network.faults(unplugged=["t-other"])  # each robot refuses to start beside another one that it can hear
    first = start_sim(robot, "t-robot", DOMAIN)
    second = start_sim(other, "t-other", DOMAIN)
    probe = Probe(host, "t-host", DOMAIN)
    probe.until(lambda report: report["states"] > 10, timeout=PATIENCE_S)
    assert all(report["identity"] == "" for report in probe.during(2.0))
    network.faults()
    problem = probe.until(lambda report: report["identity"], timeout=PATIENCE_S)[-1]["identity"]
    assert "two programs or robots publish rt/lowstate" in problem
    assert all(f"pid {sim.pid}" in problem for sim in (first, second))
    network.faults(unplugged=["t-other"])
    probe.until(lambda report: not report["identity"] and report["states"] > 10, timeout=PATIENCE_S)


def test_the_other_interface_hears_no_robot_and_says_so(network, start_sim):
    """The robot is on t-host, the user names lo: no state, and the first request says what may be wrong."""
    robot, host = network.switched("robot", "host")
    start_sim(robot, "t-robot", DOMAIN)
    begin = time.monotonic()
    asked = host.start("-c", ASK, "lo", DOMAIN)
    output = asked.communicate(timeout=60)[0]
    assert "no service 'motion_switcher' found within 3.0 s" in output and "network interface" in output
    assert "states 0" in output
    assert time.monotonic() - begin < 50


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("link set t-host down", "is down; switch it on: ip link set t-host up"),
        ("addr flush dev t-host", "has no IPv4 address"),
    ],
)
def test_interface_that_cannot_work_is_refused_with_the_remedy(network, change, said):
    _, host = network.switched("robot", "host")
    host.ip(change)
    assert said in host.start("-c", ASK, "t-host", DOMAIN).communicate(timeout=60)[0]


ASK = """
import sys
from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport import open_transport
from robots.loader import load_robot

try:
    transport = open_transport(load_robot("go2"), sys.argv[1], int(sys.argv[2]))
    transport.release_mode(3.0)
except TransportError as error:
    print(error)
    print("states", transport.statistics.lowstate_count if "transport" in globals() else None)
"""
