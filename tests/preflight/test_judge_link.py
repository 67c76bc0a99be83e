"""Judging the link and who is on it, with numbers made by hand."""

import os

import numpy as np
import pytest

from nfpo_deploy.transport.publisher import Publisher
from nfpo_deploy.transport.spdp import CYCLONE, PeerVersion
from robots.loader import load_robot
from sim2real_checks.preflight.finding import Result
from sim2real_checks.preflight.judge_link import (
    diagnose_silence,
    judge_checksums,
    judge_clock,
    judge_commands,
    judge_controller,
    judge_low_state,
    judge_peers,
    timing_of,
)
from sim2real_checks.preflight.listen import Commands, Peers
from tests.preflight.conftest import heard, states

SPEC = load_robot("go2")


def judged(made, **others):
    return judge_low_state(heard(made, **others), SPEC, "the diagnosis")


def test_a_steady_link_passes():
    timing = timing_of(states())
    assert (timing.lost, timing.repeated, timing.swapped, timing.jumps) == (0, 0, 0, ())
    assert timing.rate == pytest.approx(500.0) and timing.longest_gap == pytest.approx(0.002)
    assert timing.jitter_p99 == pytest.approx(0.0, abs=1e-9) and timing.drift_ppm == pytest.approx(0.0, abs=0.1)
    assert judged(states()).result is Result.PASS and judge_clock(states()).result is Result.PASS


def test_two_states_are_too_few_to_measure():
    with pytest.raises(ValueError, match="got 2"):
        timing_of(states(2))


@pytest.mark.parametrize(
    ("hz", "result"), [(495, Result.PASS), (485, Result.FAIL), (515, Result.FAIL), (200, Result.FAIL)]
)
def test_rate(hz, result):
    count = np.arange(1000)
    finding = judged(states(received_ns=(count * 1e9 / hz).astype(np.int64), tick=1000 + 2 * count))
    assert finding.result is result and f"{hz:.1f} Hz" in finding.measured


@pytest.mark.parametrize(
    ("every", "result"), [(500, Result.WARN), (10, Result.FAIL)], ids=["two of a thousand", "every tenth"]
)
def test_lost_states(every, result):
    kept = np.flatnonzero(np.arange(1, 1001) % every)
    finding = judged(states(len(kept), received_ns=kept * 2_000_000, tick=1000 + 2 * kept))
    assert finding.result is result and "lost" in finding.remedy
    assert finding.values["lost"] == pytest.approx(1000 / every, abs=1)


def test_repeated_states_are_a_hanging_firmware():
    tick = 1000 + 2 * np.arange(1000)
    tick[500:600] = tick[499]
    finding = judged(states(tick=tick))
    assert finding.result is Result.FAIL and "100 states repeat" in finding.remedy


def test_swapped_states_are_not_lost():
    tick = (1000 + 2 * np.arange(1000)).reshape(-1, 2)[:, ::-1].ravel()
    finding = judged(states(tick=tick))
    assert finding.result is Result.WARN and finding.values["lost"] == 0 and finding.values["swapped"] == 500


@pytest.mark.parametrize(("longest_poll_s", "result"), [(0.001, Result.FAIL), (0.05, Result.WARN)])
def test_a_gap_is_the_links_or_this_computers(longest_poll_s, result):
    received_ns = np.arange(1000) * 2_000_000
    received_ns[500:525] = received_ns[525]
    assert timing_of(states(received_ns=received_ns)).lost == 0
    assert judged(states(received_ns=received_ns), longest_poll_s=longest_poll_s).result is result


def test_nothing_heard_shows_the_diagnosis_and_nothing_valid_points_to_the_checksums():
    assert judged(states(0), came=0).remedy == "the diagnosis"
    assert judged(states(0), came=0).measured == "nothing heard"
    assert judged(states(0), came=500, crc_errors=500).measured == "500 came, 0 valid"


@pytest.mark.parametrize(("step", "count"), [(5000, 1), (-5000, 1), (400, 0)])
def test_a_jump_of_the_tick_is_told_from_lost_states(step, count):
    tick = 1000 + 2 * np.arange(1000)
    tick[500:] += step
    timing = timing_of(states(tick=tick))
    assert len(timing.jumps) == count and timing.lost == (0 if count else 200)
    assert judge_clock(states(tick=tick)).result is (Result.FAIL if count else Result.WARN)


@pytest.mark.parametrize(("ppm", "result"), [(100, Result.PASS), (-5000, Result.WARN)])
def test_drift_of_the_robots_clock(ppm, result):
    received_ns = np.round(np.arange(1000) * 2e6 / (1 + ppm * 1e-6)).astype(np.int64)
    finding = judge_clock(states(received_ns=received_ns))
    assert finding.result is result and finding.values["drift_ppm"] == pytest.approx(ppm, abs=1)


def test_a_tick_that_does_not_count_milliseconds_is_said():
    finding = judge_clock(states(tick=np.arange(1000)))
    assert finding.result is Result.WARN and "milliseconds" in finding.measured
    assert judge_clock(states(0)).result is Result.SKIP


def test_checksums():
    assert judge_checksums(heard(states())).result is Result.PASS
    assert judge_checksums(heard(states(), crc_errors=1)).result is Result.FAIL
    finding = judge_checksums(heard(states(), malformed=2))
    assert finding.result is Result.FAIL and "2 malformed" in finding.measured
    assert judge_checksums(heard(states(0), came=0)).result is Result.SKIP


def peer(vendor_id=CYCLONE, version="0.10.2", vendor="Cyclone DDS", pid="1"):
    return PeerVersion("00" * 12, vendor, vendor_id, "2.1", version, "lab-pc", "python", pid)


def test_versions_of_others():
    assert judge_peers(Peers((peer(), peer()))).measured == "heard 2 × Cyclone DDS 0.10.2, this program included"
    foreign = Peers((peer(), peer(version="11.0.1")), problem="foreign DDS version: 11.0.1; stop that program")
    finding = judge_peers(foreign)
    assert finding.result is Result.FAIL and "11.0.1" in finding.measured and finding.remedy == "stop that program"
    fast = peer(0x010F, "", "Fast DDS")
    finding = judge_peers(Peers((peer(), fast), others=(fast,)))
    assert finding.result is Result.WARN and "Fast DDS" in finding.measured and "ROS_DOMAIN_ID" in finding.remedy


@pytest.mark.parametrize(
    ("address", "result"),
    [("192.168.123.161", Result.PASS), ("192.168.123.18", Result.PASS), ("192.168.123.181", Result.WARN)],
)
def test_a_stranger_who_kept_silent_is_not_taken_for_the_robot(address, result):
    stranger = Publisher(process="ros2", address=f"udp/{address}:7411@2")
    finding = judge_peers(Peers((peer(),), unheard=(stranger,)))
    assert finding.result is result and ("--seconds 35" in finding.remedy) == (result is Result.WARN)


@pytest.mark.parametrize(
    ("commands", "controller", "result"),
    [
        (Commands(), "normal", Result.PASS),
        (Commands(5, "process x", "udp/192.168.123.222:7411@2"), "normal", Result.FAIL),
        (Commands(5, "process x", "udp/192.168.123.161:7411@2"), "normal", Result.WARN),
        (Commands(5, "process x", "udp/192.168.123.161:7411@2"), "", Result.FAIL),
        (Commands(guard=3), "", Result.FAIL),
        (Commands(silent=("process y",)), "", Result.WARN),
    ],
)
def test_who_commands_the_motors(commands, controller, result):
    assert judge_commands(commands, controller).result is result


@pytest.mark.parametrize(
    ("controller", "was_heard", "result"),
    [("", True, Result.PASS), ("ai", True, Result.WARN), (None, True, Result.WARN), (None, False, Result.SKIP)],
)
def test_built_in_controller(controller, was_heard, result):
    finding = judge_controller(controller, was_heard)
    assert finding.result is result and (not controller or controller in finding.measured)


def test_the_diagnosis_of_silence_is_in_order():
    silent = heard(states(0), came=0)
    text = diagnose_silence(silent, "eth0", 7, False, [0, 3], ["eth1"])
    assert text.splitlines() == [
        "1. somebody speaks DDS in domain 0, 3: try --domain-id 0",
        "2. eth1 has an address in the robot's network: try --interface eth1",
        "3. ping 192.168.123.161; no answer: cable, address, robot switched on and booted (a minute)",
        "4. a firewall that drops UDP 7400 and above",
    ]
    text = diagnose_silence(silent, "lo", 7, True, [], [])
    assert "nfpo sim --interface lo --domain-id 7" in text and "a real robot uses --domain-id 0" in text
    found = heard(states(0), came=0, publishers=("process robot",))
    assert diagnose_silence(found, "eth0", 0, False, [], []).startswith("1. a publisher is there and silent")
    others = heard(states(0), came=0, peers=Peers((peer(), peer(pid=str(os.getpid())))))
    assert diagnose_silence(others, "eth0", 0, False, [], []).startswith("1. others speak DDS here")
    alone = heard(states(0), came=0, peers=Peers((peer(pid=str(os.getpid())),)))
    assert diagnose_silence(alone, "eth0", 0, False, [], []).startswith("1. ping")
