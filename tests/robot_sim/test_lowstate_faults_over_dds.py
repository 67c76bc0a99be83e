"""Every fault of LowState as an independent DDS reader sees it: from which tick on, to which tick, and how."""

import time
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("unitree_sdk2py")

from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowState_, SportModeState_

from nfpo_deploy.transport.codec import GO_LOW_STATE, GO_SPORT_MODE_STATE
from nfpo_deploy.transport.dds import DdsParticipant
from robots.loader import load_robot
from sim2real_checks.robot_sim.remote import Remote

DOMAIN = 31
SPEC = load_robot("go2")
JOINT = "RL_calf_joint"  # motor 11
DURATION = 0.3
PERIODS = 150  # of 2 ms in DURATION


@dataclass
class Seen:
    """What the reader took: bytes and the time of sending (ns of the system clock), in order of arrival."""

    samples: list
    sent_ns: np.ndarray
    begin: int
    """Tick of the first LowState that was made under the fault."""
    applied_ns: int
    truth_ns: dict
    """When each SportModeState was sent, by its stamp in ticks: a clock of the simulation that no fault touches."""

    @property
    def records(self):
        return [GO_LOW_STATE.decode(sample) for sample in self.samples]

    @property
    def ticks(self):
        return np.array([int(record["tick"]) for record in self.records])

    def inside(self, ticks):
        return (ticks >= self.begin) & (ticks < self.begin + 2 * PERIODS)


def valid(record):
    return bool(GO_LOW_STATE.crc(record) == record["crc"])


@pytest.fixture(scope="module")
def readers():
    participant = DdsParticipant("lo", DOMAIN)
    yield (
        participant.reader("rt/lowstate", LowState_, depth=8192),
        participant.reader("rt/sportmodestate", SportModeState_, depth=1024),
    )
    participant.close()


@pytest.fixture
def reader(readers):
    return readers[0]


@pytest.fixture
def observe(control, readers, wait_for):
    """Record LowStates from 0.1 s before a fault to 0.15 s of simulated time after it."""
    reader, truth = readers

    def sim_time(truth_ns):
        for sample, info in truth._take(truth.entity._ref, truth.depth):
            stamp = GO_SPORT_MODE_STATE.decode(sample)["stamp"]
            truth_ns[int(stamp["sec"]) * 1000 + round(stamp["nanosec"] / 1e6)] = info.source_timestamp
        return max(truth_ns) / 1000 - 1.0 if truth_ns else 0.0

    def observe(fault, duration=DURATION, **parameters):
        wait_for(reader.take)
        truth_ns = {}
        start = wait_for(lambda: sim_time(truth_ns))
        reader.take()
        wait_for(lambda: sim_time(truth_ns) > start + 0.1, timeout=60)
        answer = control.request(fault, duration, **parameters)
        # A busy computer simulates more slowly: its own clock says when it is over.
        standing_still = fault == "hang"
        end = answer["sim_time"] + 0.15 + (0.0 if standing_still else duration or 0.0)
        wait_for(lambda: sim_time(truth_ns) > end, timeout=60)
        time.sleep(0.05)
        taken = reader._take(reader.entity._ref, reader.depth)
        return Seen(
            [data for data, _ in taken],
            np.array([info.source_timestamp for _, info in taken]),
            1000 + round(answer["sim_time"] * 1000),
            answer["applied_ns"],
            truth_ns,
        )

    return observe


def assert_only_inside(seen, is_changed):
    """Every LowState of the fault's time is changed, no other is, none is missing and all checksums are right."""
    ticks = seen.ticks
    assert set(np.diff(ticks)) == {2}
    inside = seen.inside(ticks)
    assert inside.sum() == PERIODS and not inside[0] and not inside[-1]
    assert [is_changed(record) for record in seen.records] == inside.tolist()
    assert all(valid(record) for record in seen.records)


def test_lose(observe):
    seen = observe("lose")
    ticks = seen.ticks
    assert not seen.inside(ticks).any()
    assert sorted(np.diff(ticks))[-2:] == [2, 2 + 2 * PERIODS], "one hole, as long as the fault"


def test_lose_some(observe):
    lost = []
    for seed in (1, 1, 2):
        seen = observe("lose_some", p=0.5, seed=seed)
        missing = np.setdiff1d(np.arange(seen.ticks[0], seen.ticks[-1], 2), seen.ticks)
        assert seen.inside(missing).all() and 45 < len(missing) < 105
        lost.append((missing - seen.begin).tolist())
    assert lost[0] == lost[1] != lost[2]


def test_delay(observe):
    seen = observe("delay", seconds=0.1)
    ticks = seen.ticks
    assert set(np.diff(ticks)) == {2}, "late, in order, none lost"
    sent_ns = dict(zip(ticks.tolist(), seen.sent_ns.tolist(), strict=True))
    end = seen.begin + 2 * PERIODS
    last_to_wait = end - 100

    def leaves_with(first, last, delay):
        """Whether the LowStates made at these ticks were sent just before the truth of `delay` ms later."""
        truth = seen.truth_ns
        common = [tick for tick in sent_ns if first <= tick < last and {tick + delay, tick + delay - 10} <= set(truth)]
        assert len(common) >= 4
        return all(truth[tick + delay - 10] < sent_ns[tick] < truth[tick + delay] for tick in common)

    assert leaves_with(seen.begin, last_to_wait, 100)
    assert leaves_with(seen.begin - 60, seen.begin, 0) and leaves_with(end, end + 60, 0)
    burst = [ns for tick, ns in sent_ns.items() if last_to_wait <= tick < end]
    after = min(tick for tick in seen.truth_ns if tick > end)
    assert len(burst) == 50 and max(burst) < seen.truth_ns[after], "what was under way at the end came together"
    assert min(burst) > sent_ns[last_to_wait - 2]


def test_reorder_swaps_pairs(observe):
    seen = observe("reorder")
    start = int(np.argmax(seen.ticks >= seen.begin))
    pairs = seen.ticks[start : start + PERIODS].reshape(-1, 2) - seen.begin
    expected = np.arange(0, 2 * PERIODS, 2).reshape(-1, 2)[:, ::-1]
    assert pairs.tolist() == expected.tolist()
    assert sorted(seen.ticks) == list(range(seen.ticks[0], seen.ticks[0] + 2 * len(seen.ticks), 2)), "none lost"


def test_reorder_within_a_window(observe):
    seen = observe("reorder", window=10, seed=4)
    start = int(np.argmax(seen.ticks >= seen.begin))
    groups = seen.ticks[start : start + PERIODS].reshape(-1, 10) - seen.begin
    assert np.sort(groups).ravel().tolist() == list(range(0, 2 * PERIODS, 2))
    assert all(sorted(group) != group.tolist() for group in groups)


def test_freeze(observe):
    seen = observe("freeze")
    ticks = seen.ticks
    frozen = ticks == seen.begin - 2
    assert frozen.sum() == 1 + PERIODS, "sent once before the fault and then again and again"
    assert len({seen.samples[i] for i in np.flatnonzero(frozen)}) == 1
    assert set(np.diff(ticks)) == {0, 2, 2 + 2 * PERIODS}


def test_duplicate(observe):
    seen = observe("duplicate")
    values, counts = np.unique(seen.ticks, return_counts=True)
    assert np.array_equal(counts, 1 + seen.inside(values)) and seen.inside(values).sum() == PERIODS
    assert len(set(seen.samples)) == len(values)


def test_corrupt(observe):
    seen = observe("corrupt", bits=2)
    bad = np.array([not valid(record) for record in seen.records])
    assert bad.sum() == PERIODS
    start = int(np.argmax(bad))
    assert bad[start : start + PERIODS].all() and seen.ticks[start - 1] == seen.begin - 2
    assert {len(sample) for sample in seen.samples} == {GO_LOW_STATE.wire_size}


def test_bad_crc(observe):
    seen = observe("bad_crc")
    assert set(np.diff(seen.ticks)) == {2}
    assert [not valid(record) for record in seen.records] == seen.inside(seen.ticks).tolist()


def test_truncate(observe):
    seen = observe("truncate", bytes=300)
    sizes = [len(sample) for sample in seen.samples]
    start = sizes.index(300)
    assert sizes[start : start + PERIODS] == [300] * PERIODS and sizes.count(300) == PERIODS
    assert set(sizes) == {300, GO_LOW_STATE.wire_size}
    assert int(GO_LOW_STATE.decode(seen.samples[start - 1])["tick"]) == seen.begin - 2


@pytest.mark.parametrize(
    ("field", "joint", "count"),
    [("q", None, 12), ("dq", JOINT, 1), ("tau_est", None, 12), ("quaternion", None, 4), ("gyroscope", None, 3)],
)
def test_nan(observe, field, joint, count):
    seen = observe("nan", field=field, **({"joint": joint} if joint else {}))
    part = "imu_state" if field in ("quaternion", "gyroscope") else "motor_state"
    assert_only_inside(seen, lambda record: int(np.isnan(record[part][field]).sum()) == count)


def test_wrong_robot(observe):
    def is_other(record):
        slots = record["motor_state"][12:]
        return record["power_v"] == 58 and bool((slots["mode"] != 0).all() and (slots["q"] != 0).all())

    assert_only_inside(observe("wrong_robot"), is_other)


def test_voltage(observe):
    assert_only_inside(observe("voltage", volts=19.5), lambda record: record["power_v"] == 19.5)


def test_spike_is_one_sample(observe):
    seen = observe("spike", duration=None, joint=JOINT, offset=-2.0)
    q = np.array([record["motor_state"]["q"][11] for record in seen.records])
    off = np.abs(q - np.median(q)) > 1
    assert seen.ticks[off].tolist() == [seen.begin]
    assert (q[off] - np.median(q)).item() == pytest.approx(-2.0, abs=0.02)
    assert all(valid(record) for record in seen.records)


def test_clock_jump(observe):
    seen = observe("clock_jump", n=5000)
    jumps = {step: int((np.diff(seen.ticks) == step).sum()) for step in (5002, 2, -4998)}
    assert jumps == {5002: 1, 2: len(seen.ticks) - 3, -4998: 1}
    assert (seen.ticks > seen.begin + 4000).sum() == PERIODS
    assert all(valid(record) for record in seen.records)


def test_tilt_lie(observe):
    def is_tilted(record):
        w, x, _, _ = record["imu_state"]["quaternion"]
        # The robot lies still: what is not the lie is less than 0.1 rad.
        return abs(2 * np.arctan2(x, w) - 0.8) < 0.1 and abs(record["imu_state"]["rpy"][0] - 0.8) < 0.1

    seen = observe("tilt_lie", angle=0.8)
    assert_only_inside(seen, is_tilted)
    assert np.ptp([record["imu_state"]["accelerometer"][2] for record in seen.records]) < 0.5, "gravity does not lie"


def test_gyro_bias(observe):
    seen = observe("gyro_bias", x=0.5, z=-0.25)
    expected = np.array([0.5, 0, -0.25])
    assert_only_inside(seen, lambda record: bool(np.abs(record["imu_state"]["gyroscope"] - expected).max() < 0.1))


def test_heat(observe):
    assert_only_inside(
        observe("heat", joint=JOINT, temperature=95),
        lambda record: record["motor_state"]["temperature"][:12].tolist() == [25] * 11 + [95],
    )


def test_battery(observe):
    seen = observe("battery", soc=5)
    assert_only_inside(seen, lambda record: record["bms_state"]["soc"] == 5 and abs(record["power_v"] - 26.0) < 0.01)
    assert {int(record["bms_state"]["soc"]) for record in seen.records} == {5, 90}


def test_remote(observe):
    pressed = Remote(ly=-0.5, buttons=frozenset({"L2", "B"})).to_bytes()
    seen = observe("remote", buttons=["L2", "B"], ly=-0.5)
    assert_only_inside(seen, lambda record: record["wireless_remote"].tobytes() == pressed)


def test_remote_without_connection(observe):
    seen = observe("remote", connected=False)
    assert_only_inside(seen, lambda record: not record["wireless_remote"].any())
    assert seen.records[0]["wireless_remote"][:2].tolist() == [0x55, 0x51]


def test_faults_last_until_they_are_cleared(observe, control, reader, wait_for):
    observe("voltage", duration=None, volts=7.0)
    answer = control.request("heat", joint=JOINT, temperature=60)
    assert answer["active"] == ["voltage", "heat"]
    time.sleep(0.5)
    newest = GO_LOW_STATE.decode(wait_for(reader.take)[-1])
    assert newest["power_v"] == 7.0 and newest["motor_state"]["temperature"][11] == 60
    control.clear()
    time.sleep(0.1)
    newest = GO_LOW_STATE.decode(wait_for(reader.take)[-1])
    assert newest["power_v"] > 25 and newest["motor_state"]["temperature"][11] < 30
    assert control.request("lose", 0.05)["active"] == ["lose"]


def test_applied_ns_lies_between_the_last_good_and_the_first_changed_state(observe):
    for _ in range(3):
        to_monotonic = time.monotonic_ns() - time.time_ns()
        seen = observe("voltage", 0.02, volts=7.0)
        first = [record["power_v"] == 7.0 for record in seen.records].index(True)
        before, after = (seen.sent_ns[i] + to_monotonic for i in (first - 1, first))
        assert before < seen.applied_ns < after + 100_000, "the two clocks were read some microseconds apart"


def test_hang(observe):
    seen = observe("hang", duration=0.4)
    assert set(np.diff(seen.ticks)) == {2}, "its clock stood still too"
    first = int(np.argmax(seen.ticks == seen.begin))
    assert 0.39 < (seen.sent_ns[first] - seen.sent_ns[first - 1]) / 1e9 < 1.0
