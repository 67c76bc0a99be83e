"""Requests for faults and what they do to LowStates, without a network; expected values worked out by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfpo_deploy.transport.codec import GO_LOW_STATE
from robots.loader import load_robot
from sim2real_checks.robot_sim.control import _parameter
from sim2real_checks.robot_sim.faults import FAULTS, FaultError, describe_parameters, parse_fault
from sim2real_checks.robot_sim.lowstate_faults import LowStateStream

SPEC = load_robot("go2")
JOINT = "FL_thigh_joint"  # motor 4
LOWSTATE_FAULTS = [
    {"fault": "lose"}, {"fault": "lose_some", "p": 0.5}, {"fault": "delay", "seconds": 0.01}, {"fault": "reorder"},
    {"fault": "reorder", "window": 5}, {"fault": "duplicate"}, {"fault": "freeze"}, {"fault": "corrupt"},
    {"fault": "bad_crc"}, {"fault": "truncate"}, {"fault": "nan", "field": "q"}, {"fault": "wrong_robot"},
    {"fault": "voltage", "volts": 5}, {"fault": "spike", "joint": JOINT}, {"fault": "clock_jump", "n": 7},
    {"fault": "tilt_lie", "angle": 0.5}, {"fault": "gyro_bias", "x": 1}, {"fault": "battery", "soc": 5},
    {"fault": "heat", "joint": JOINT, "temperature": 90}, {"fault": "flip_joint", "joint": JOINT},
    {"fault": "swap_joints", "joint": JOINT, "other": "RL_thigh_joint"},
]  # fmt: skip


def low_state(tick=1000):
    record = GO_LOW_STATE.new()
    record["tick"] = tick
    record["motor_state"]["q"][:12] = np.arange(12) / 10
    record["motor_state"]["mode"][:12] = 1
    record["imu_state"]["quaternion"] = (1, 0, 0, 0)
    record["power_v"] = 29.0
    record["crc"] = GO_LOW_STATE.crc(record)
    return GO_LOW_STATE.encode(record)


def decoded(sample):
    return GO_LOW_STATE.decode(sample)


def valid(sample):
    record = decoded(sample)
    return bool(GO_LOW_STATE.crc(record) == record["crc"])


def stream_of(*messages):
    stream = LowStateStream(SPEC)
    for message in messages:
        stream.add(parse_fault(message, SPEC))
    return stream


def run(stream, count, first=0):
    """What leaves in each of `count` periods of 2 ms: lists of ticks."""
    return [
        [int(decoded(s)["tick"]) for s in stream.process(low_state(1000 + 2 * i), i * 0.002)]
        for i in range(first, first + count)
    ]


def apply(**message):
    (sample,) = stream_of(message).process(low_state(), 0.0)
    return decoded(sample), valid(sample)


def test_without_faults_the_same_bytes_leave():
    sample = low_state()
    assert LowStateStream(SPEC).process(sample, 0.0)[0] is sample
    assert LowStateStream(SPEC).process(None, 0.0) == []


@pytest.mark.parametrize(
    ("field", "where"),
    [("q", "motor_state"), ("dq", "motor_state"), ("tau_est", "motor_state"), ("quaternion", "imu_state"),
     ("gyroscope", "imu_state")],
)  # fmt: skip
def test_nan_in_exactly_the_named_field_with_a_valid_checksum(field, where):
    record, ok = apply(fault="nan", field=field)
    assert ok
    bad = {
        (place, name): int(np.isnan(record[place][name]).sum())
        for place in ("motor_state", "imu_state")
        for name in record[place].dtype.names
        if record[place][name].dtype.kind == "f"
    }
    size = {"quaternion": 4, "gyroscope": 3}.get(field, 12)
    assert {key: count for key, count in bad.items() if count} == {(where, field): size}


def test_nan_of_one_joint():
    record, _ = apply(fault="nan", field="q", joint=JOINT)
    assert np.flatnonzero(np.isnan(record["motor_state"]["q"])).tolist() == [4]


def test_values_of_the_sensor_faults():
    record, ok = apply(fault="wrong_robot")
    assert ok and record["power_v"] == 58
    assert record["motor_state"]["mode"].tolist() == [1] * 20 and record["motor_state"]["q"][12:].tolist() == [0.5] * 8
    record, ok = apply(fault="spike", joint=JOINT, offset=-3.0)
    assert ok and record["motor_state"]["q"][4] == pytest.approx(0.4 - 3.0)
    assert apply(fault="clock_jump", n=-1001)[0]["tick"] == 2**32 - 1
    record, ok = apply(fault="battery", soc=50)
    assert ok and record["bms_state"]["soc"] == 50 and record["power_v"] == pytest.approx(8 * 3.7)
    assert record["bms_state"]["cell_vol"].tolist() == [3700] * 8 + [0] * 7
    record, ok = apply(fault="heat", joint=JOINT, temperature=90)
    assert ok and np.flatnonzero(record["motor_state"]["temperature"]).tolist() == [4]
    assert apply(fault="gyro_bias", y=0.5)[0]["imu_state"]["gyroscope"].tolist() == [0, 0.5, 0]
    record, ok = apply(fault="swap_joints", joint=JOINT, other="RL_calf_joint")
    assert ok and record["motor_state"]["q"][[4, 11, 5]].tolist() == pytest.approx([1.1, 0.4, 0.5])
    record, ok = apply(fault="flip_joint", joint=JOINT)
    assert ok and record["motor_state"]["q"][[4, 5]].tolist() == pytest.approx([-0.4, 0.5])


@pytest.mark.parametrize(("axis", "index"), [("roll", 0), ("pitch", 1)])
def test_tilt_lie_turns_quaternion_and_angles_together(axis, index):
    record, ok = apply(fault="tilt_lie", angle=0.6, axis=axis)
    expected = [math.cos(0.3), 0, 0, 0]
    expected[1 + index] = math.sin(0.3)
    assert ok and record["imu_state"]["quaternion"] == pytest.approx(expected)
    assert record["imu_state"]["rpy"][index] == pytest.approx(0.6)


def test_corruption_flips_so_many_bits_behind_the_header():
    stream = stream_of({"fault": "corrupt", "bits": 4})
    for _ in range(300):
        sample = low_state()
        (bad,) = stream.process(sample, 0.0)
        difference = np.unpackbits(np.frombuffer(sample, np.uint8) ^ np.frombuffer(bad, np.uint8))
        assert difference.sum() == 4 and not difference[:32].any() and not valid(bad)


def test_delay_holds_back_and_lets_go_of_everything_at_its_end():
    stream = stream_of({"fault": "delay", "seconds": 0.006})
    assert run(stream, 6) == [[], [], [], [1000], [1002], [1004]]
    stream.remove(("delay", None))
    assert run(stream, 2, first=6) == [[1006, 1008, 1010, 1012], [1014]]


def test_reorder_swaps_neighbours():
    stream = stream_of({"fault": "reorder"})
    assert run(stream, 6) == [[], [1002], [1000], [1006], [1004], [1010]]
    stream.remove(("reorder", None))
    assert run(stream, 2, first=6) == [[1008, 1012], [1014]]


def test_reorder_shuffles_within_its_window():
    ticks = [tick for left in run(stream_of({"fault": "reorder", "window": 5, "seed": 3}), 54) for tick in left]
    groups = np.array(ticks).reshape(-1, 5)
    assert len(groups) == 10
    for i, group in enumerate(groups):
        assert sorted(group) == list(range(1000 + 10 * i, 1010 + 10 * i, 2)) and sorted(group) != group.tolist()


def test_loss_has_its_probability_and_depends_on_the_seed():
    def lost(seed):
        return [not left for left in run(stream_of({"fault": "lose_some", "p": 0.3, "seed": seed}), 1000)]

    assert sum(lost(1)) == pytest.approx(300, abs=60)
    assert lost(1) == lost(1) and lost(1) != lost(2)


def test_freeze_repeats_the_last_state_and_other_faults_act_on_the_repetition():
    stream = LowStateStream(SPEC)
    run(stream, 3)
    stream.add(parse_fault({"fault": "freeze"}, SPEC))
    assert run(stream, 3, first=3) == [[1004]] * 3
    stream.add(parse_fault({"fault": "duplicate"}, SPEC))
    stream.add(parse_fault({"fault": "voltage", "volts": 1}, SPEC))
    assert run(stream, 1, first=6) == [[1004, 1004]]
    stream.remove(("freeze", None))
    samples = stream.process(low_state(1234), 0.1)
    assert [int(decoded(sample)["tick"]) for sample in samples] == [1234, 1234]
    assert decoded(samples[0])["power_v"] == 1


def test_every_pair_of_faults_can_be_active_together():
    for one in LOWSTATE_FAULTS:
        for other in LOWSTATE_FAULTS:
            stream = stream_of(one, other)
            for i in range(12):
                stream.process(low_state(1000 + 2 * i), i * 0.002)
            stream.remove(parse_fault(one, SPEC).key)
            stream.remove(parse_fault(other, SPEC).key)
            stream.process(low_state(), 0.1)
            assert stream.process(low_state(7), 0.102) == [low_state(7)], "nothing stays behind"


def test_the_list_above_knows_every_fault_of_the_stream():
    places = ("sensors", "firmware", "wire", "network")
    assert {message["fault"] for message in LOWSTATE_FAULTS} == {n for n, k in FAULTS.items() if k.place in places}


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (None, "JSON object"), ([], "JSON object"), ({}, "unknown fault None; known: lose,"),
        ({"fault": "freez"}, "unknown fault 'freez'"), ({"fault": ["freeze"]}, "unknown fault"),
        ({"fault": "freeze", "p": 1}, "unknown parameter 'p'; it takes duration"),
        ({"fault": "lose_some"}, "p is missing"), ({"fault": "lose_some", "p": 1.5}, "bad p 1.5: expected a number"),
        ({"fault": "lose_some", "p": True}, "bad p"), ({"fault": "lose_some", "p": float("nan")}, "bad p"),
        ({"fault": "delay", "seconds": 10**400}, "bad seconds"), ({"fault": "delay", "seconds": 0}, "bad seconds"),
        ({"fault": "reorder", "window": 1}, "bad window"), ({"fault": "reorder", "window": 2.0}, "bad window"),
        ({"fault": "truncate", "bytes": 301}, "a multiple of 4"),
        ({"fault": "nan", "field": "ddq"}, "one of q, dq, tau_est, quaternion, gyroscope"),
        ({"fault": "block_joint"}, "joint is missing"), ({"fault": "block_joint", "joint": "FL"}, "FL_thigh_joint"),
        ({"fault": "heat", "joint": JOINT, "temperature": 128}, "-128..127"),
        ({"fault": "remote", "buttons": ["Z"]}, "bad buttons"), ({"fault": "remote", "lx": 2}, "bad lx"),
        ({"fault": "remote", "connected": False, "lx": 0.5}, "not connected"),
        ({"fault": "remote", "connected": 0}, "true or false"),
        ({"fault": "freeze", "duration": 0}, "duration must be above 0"),
        ({"fault": "freeze", "duration": -1}, "duration"), ({"fault": "freeze", "duration": "1"}, "duration"),
        ({"fault": "freeze", "duration": float("inf")}, "duration"), ({"fault": "push", "duration": 1}, "happens once"),
    ],
)  # fmt: skip
def test_bad_request_is_refused_by_name(message, named):
    with pytest.raises(FaultError) as caught:
        parse_fault(message, SPEC)
    assert named in str(caught.value)


def test_good_requests_carry_their_values():
    assert parse_fault({"fault": "weak_motor", "joint": JOINT, "factor": 0}, SPEC).values == {"joint": 4, "factor": 0.0}
    assert parse_fault({"fault": "remote", "buttons": "L2+B"}, SPEC).values["buttons"] == {"L2", "B"}
    assert parse_fault({"fault": "remote", "buttons": ["A"], "ly": 1}, SPEC).values["ly"] == 1.0
    fault = parse_fault({"fault": "freeze", "duration": 2, "id": 17}, SPEC)
    assert (fault.values, fault.duration, fault.key) == ({}, 2.0, ("freeze", None))
    assert parse_fault({"fault": "block_joint", "joint": JOINT}, SPEC).key == ("block_joint", 4)


def test_every_fault_and_its_parameters_are_documented():
    lines = (Path(__file__).parents[2] / "docs" / "robot_sim.md").read_text().splitlines()
    for name, kind in FAULTS.items():
        (row,) = [line for line in lines if line.startswith(f"| `{name}` |")]
        words = row.replace("=", " ").replace("`", " ").replace(",", " ").replace(";", " ").split()
        assert set(kind.parameters) <= set(words), name
        command = row.split("`ctl ")[1].split("`")[0]
        pairs = dict(_parameter(word) for word in command.split()[1:])
        assert parse_fault({"fault": command.split()[0], **pairs}, SPEC).name == name


def test_every_fault_describes_itself():
    for name, kind in FAULTS.items():
        text = describe_parameters(name)
        assert kind.effect and all(parameter in text for parameter in kind.parameters)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(SPEC.joint_names),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=5,
)
PARAMETERS = sorted({name for kind in FAULTS.values() for name in kind.parameters} | {"duration", "id", "other"})
REQUEST = st.builds(
    lambda name, rest: {"fault": name, **rest},
    st.sampled_from(sorted(FAULTS)) | JSON,
    st.dictionaries(
        st.sampled_from(PARAMETERS), JSON | st.sampled_from(("q", "roll", "A+B", 2, 0.5, True)), max_size=4
    ),
)


@given(REQUEST | JSON)
def test_any_request_is_carried_out_or_refused(message):
    try:
        fault = parse_fault(message, SPEC)
    except FaultError as error:
        json.dumps(str(error))
        return
    if fault.kind.place in ("sensors", "firmware", "wire", "network"):
        stream = LowStateStream(SPEC)
        stream.add(fault)
        for i in range(3):
            assert all(isinstance(sample, bytes) for sample in stream.process(low_state(), i * 0.002))
