"""A recorded flight is reproduced to the last bit; what is changed in the log is found at the tick it belongs to."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.flight_log.segment import Segment
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from sim2real_checks.replay.command import choose_policy, replay
from sim2real_checks.replay.flight import ReplayError, read_flight
from sim2real_checks.replay.operator_input import follow
from sim2real_checks.replay.rerun import rerun

from .conftest import SHIPPED
from .flights import HEADER, MESSAGES, Topic, without

CHANGED = 60


def commands_of(flight):
    """Positions of the commands among all rows."""
    return [i for i, (name, _, _) in enumerate(flight.rows) if name == "command"]


def change(flight, index, **changes):
    """Change the `index`-th command."""
    row = commands_of(flight)[index]
    name, time_ns, values = flight.rows[row]
    flight.rows[row] = (name, time_ns, without(values, **changes))
    return values


def written(flight, tmp_path, **kwargs):
    return read_flight([flight.write(tmp_path / "flight.mcap", **kwargs)])


def test_the_flight_is_reproduced_exactly(flight, tmp_path):
    read = written(flight, tmp_path)
    result = rerun(read, choose_policy(read, "").policy, tolerance=0.0)
    assert result.compared == result.ticks == len(flight.of("command")) > 120
    assert result.first is None and result.differing == 0 and not result.skipped and result.foreign == 0
    assert result.largest.tolist() == [0.0] * 12 and set(result.largest_terms.values()) == {0.0}
    assert [mode.name for _, mode in read.modes] == ["DAMP", "STAND", "READY", "WALK"]
    assert np.any([command.velocity for command in read.commands])


def test_one_corrupted_command_is_the_only_one_found(flight, policy, tmp_path):
    q = flight.of("command")[CHANGED]["q"]
    change(flight, CHANGED, q=[*q[:4], q[4] + 2e-6, *q[5:]])
    read = written(flight, tmp_path)
    result = rerun(read, policy)
    first = result.first
    assert result.differing == 1 and first.index == CHANGED and first.seq == read.commands[CHANGED].seq
    assert (first.field, first.joint, first.mode, first.term) == ("q", "FL_thigh_joint", "WALK", "")
    assert first.size == pytest.approx(2e-6, rel=1e-6) and first.time_ns == read.commands[CHANGED].time_ns
    assert result.largest[4] == first.size and np.count_nonzero(result.largest) == 1


@pytest.mark.parametrize(("name", "value"), [("stiffness", 26.0), ("tau", 0.5), ("dq", float("nan"))])
def test_other_targets_are_compared_too(flight, policy, tmp_path, name, value):
    values = list(flight.of("command")[CHANGED][name])
    change(flight, CHANGED, **{name: [*values[:-1], value]})
    first = rerun(written(flight, tmp_path), policy).first
    assert (first.index, first.field, first.joint) == (CHANGED, name, "RL_calf_joint")


def test_exchanged_joints_are_found(flight, policy, tmp_path):
    q = flight.of("command")[CHANGED]["q"]
    change(flight, CHANGED, q=[*q[3:6], *q[0:3], *q[6:]])
    result = rerun(written(flight, tmp_path), policy)
    assert result.differing == 1 and result.first.index == CHANGED and result.first.field == "q"


def test_a_command_in_another_joint_order_is_found(flight, policy, tmp_path):
    change(flight, CHANGED, joint_names_crc=1)
    result = rerun(written(flight, tmp_path), policy)
    assert result.differing == 1 and (result.first.index, result.first.field) == (CHANGED, "joint order")


@pytest.mark.parametrize("kind", ["command", "estimate"])
def test_a_lost_message_costs_a_few_ticks_and_is_no_difference(flight, policy, tmp_path, kind):
    """The shipped policy sees two earlier actions and three frames: the third tick after a gap is known again."""
    row = commands_of(flight)[CHANGED]
    if kind == "estimate":
        state = flight.rows[row][2]["state_tick"]
        row = next(i for i, (name, _, v) in enumerate(flight.rows) if name == kind and v["tick"] == state)
    del flight.rows[row]
    result = rerun(written(flight, tmp_path), policy)
    assert result.first is None and result.differing == 0
    assert result.skipped["the policy's memory before it is not in the log"] == 2
    assert result.compared == result.ticks - 2 - (kind == "estimate")


def test_what_differs_after_a_gap_is_found(flight, policy, tmp_path):
    q = flight.of("command")[CHANGED + 5]["q"]
    change(flight, CHANGED + 5, q=[q[0] + 1e-3, *q[1:]])
    del flight.rows[commands_of(flight)[CHANGED]]
    result = rerun(written(flight, tmp_path), policy)
    assert result.differing == 1 and result.first.index == CHANGED + 4


def test_a_log_that_begins_in_the_middle_of_a_walk(flight, policy, tmp_path):
    """As an incident's log does; the gait's phase is found in the recorded observation."""
    flight.rows = flight.rows[commands_of(flight)[CHANGED] - 5 :]
    result = rerun(written(flight, tmp_path), policy)
    assert result.first is None and result.compared == result.ticks - 2 > 50


def test_a_changed_estimate_is_found_with_its_term(flight, policy, tmp_path):
    state = flight.of("command")[CHANGED]["state_tick"]
    for i, (name, time_ns, values) in enumerate(flight.rows):
        if name == "estimate" and values["tick"] == state:
            rate = np.array(values["ang_vel_b"]) + (0.0, 0.5, 0.0)
            flight.rows[i] = (name, time_ns, without(values, ang_vel_b=rate))
    first = rerun(written(flight, tmp_path), policy).first
    assert (first.index, first.field, first.term) == (CHANGED, "q", "base_ang_vel")
    assert first.term_size == pytest.approx(0.5 * 0.25, rel=1e-5)


def test_a_changed_velocity_is_found(flight, policy, tmp_path):
    change(flight, CHANGED, velocity=[0.2, 0.0, 0.0])
    read = written(flight, tmp_path)
    first = rerun(read, policy).first
    assert (first.index, first.term) == (CHANGED, "velocity_commands")
    operator = follow(read, policy.manifest)
    assert operator.first_ns == read.commands[CHANGED].time_ns


def test_the_limiter_explains_every_velocity_or_the_first_it_does_not_is_named(flight, policy, tmp_path):
    read = written(flight, tmp_path)
    operator = follow(read, policy.manifest)
    assert operator.explained == operator.ticks > 120 and operator.first_ns == 0
    began = next(i for i, command in enumerate(read.commands) if command.velocity.any())
    read.operator = [(time_ns, 0.5 * velocity) for time_ns, velocity in read.operator]
    operator = follow(read, policy.manifest)
    # Half the speed is reached after half the ramp of 0.25 s; up to there the velocities are the same.
    assert 0.1 <= (operator.first_ns - read.commands[began].time_ns) * 1e-9 <= 0.16


@pytest.fixture(scope="module")
def other_policy(spec, tmp_path_factory):
    """The shipped policy with one weight changed a little."""
    model = onnx.load(SHIPPED)
    weights = max((i for i in model.graph.initializer if len(i.dims) == 2), key=lambda i: i.dims[0] * i.dims[1])
    values = onnx.numpy_helper.to_array(weights).copy()
    values.flat[0] += 0.05
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    path = tmp_path_factory.mktemp("other") / "other.onnx"
    onnx.save(model, path)
    return OnnxPolicy.load(path, spec)


def test_another_policy_is_named_and_differs_in_the_network(flight, other_policy, tmp_path):
    read = written(flight, tmp_path)
    chosen = choose_policy(read, str(other_policy.path))
    result = rerun(read, chosen.policy)
    assert chosen.recorded is False and result.foreign == result.ticks
    assert result.differing > 100 and result.first.index < 5 and result.first.field == "q" and not result.first.term


def test_the_recorded_policy_is_found_by_its_hash(flight, policy, tmp_path):
    record = {"robot": "go2", "policy": "/somewhere/else.onnx", "policy_sha256": policy.sha256}
    assert choose_policy(written(flight, tmp_path, metadata=record), "").recorded
    read = read_flight([tmp_path / "flight.mcap"])
    read.metadata["policy_sha256"] = "00" * 32
    with pytest.raises(ReplayError, match="neither there any more nor among those of go2; name a file with --policy"):
        choose_policy(read, "")
    del read.metadata["policy_sha256"]
    with pytest.raises(ReplayError, match="does not say which policy flew"):
        choose_policy(read, "")


def test_a_cut_log_is_replayed_up_to_its_end(flight, policy, tmp_path):
    path = flight.write(tmp_path / "flight.mcap")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    read = read_flight([path])
    result = rerun(read, policy)
    assert 10 < result.compared == result.ticks < 120 and result.first is None
    assert "the file ends within a record" in read.problems[0]


def without_commands(flight):
    flight.rows = [row for row in flight.rows if row[0] != "command"]


def of_another_robot(flight):
    for i in range(len(flight.of("command"))):
        change(flight, i, joint_names_crc=77)


def without_estimates(flight):
    flight.rows = [row for row in flight.rows if row[0] != "estimate"]


@pytest.mark.parametrize(
    ("damage", "metadata", "message"),
    [
        (without_commands, None, "holds no command of a policy"),
        (of_another_robot, None, "of another robot or joint order: its joint_names_crc is 0x0000004d"),
        (without_estimates, None, "none of the 127 commands can be compared; the estimate that it answers is not"),
        (lambda flight: flight.rows.clear(), None, "holds no message"),
        (lambda flight: None, {"robot": "go9"}, "the log is of robot 'go9'"),
        (lambda flight: None, {}, "does not say which robot it is of; name it with --robot"),
    ],
)
def test_logs_that_cannot_be_replayed_are_refused_by_name(flight, tmp_path, damage, metadata, message):
    damage(flight)
    path = flight.write(tmp_path / "flight.mcap", metadata)
    with pytest.raises(NfpoError, match=message):
        replay([str(path)])


def test_a_log_of_an_older_version_is_refused(flight, tmp_path):
    text = (MESSAGES / "JointCommand.msg").read_text()
    text = "\n".join(line for line in text.splitlines() if "velocity" not in line and "observation " not in line)
    topic = Topic("/nfpo/joint_command", "nfpo_msgs/msg/JointCommand", text + "\n" + HEADER)
    segment = Segment(tmp_path / "old.mcap", 0, {"nfpo": {"robot": "go2"}})
    segment.add(topic.entry(5, flight.of("command")[0]))
    segment.flush()
    segment.finish(1)
    with pytest.raises(ReplayError, match="recorded by an older version"):
        read_flight([tmp_path / "old.mcap"])


def test_the_command_says_so_in_words_and_exit_status(flight, other_policy, tmp_path, capsys):
    path = str(flight.write(tmp_path / "flight.mcap"))
    assert replay([path]) == 0
    output = capsys.readouterr().out
    assert "policy.onnx" in output and "the recorded one" in output and "equal: all 127 ticks" in output
    assert replay([path, "--policy", str(other_policy.path)]) == 1
    output = capsys.readouterr().out
    assert "NOT the recorded one" in output and "DIFFERS first at tick" in output
    assert "the observation is the recorded one, so the network or what follows it differs" in output
    assert replay([path, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["compared"] == 127 and report["first"] is None and report["policy_is_the_recorded_one"] is True
    with pytest.raises(ReplayError, match="--tolerance must be finite"):
        replay([path, "--tolerance", "nan"])
