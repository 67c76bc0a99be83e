"""The flight recorder beside a whole graph; what it wrote is read by the MCAP library and decoded by mcap_ros2."""

import json
import os
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import NonSeekingReader, SeekingReader
from mcap.records import Schema
from mcap_ros2._vendor.rosidl_adapter.parser import parse_message_string
from mcap_ros2.decoder import DecoderFactory
from nfpo_msgs.msg import BridgeStatus, JointCommand, RobotState, SafetyPermit, StateEstimate
from rclpy.serialization import serialize_message

from nfpo_deploy.flight_log import folder as places
from nfpo_deploy.flight_log.command import find
from nfpo_deploy.flight_log.schemas import definition_of
from nfpo_deploy.flight_log.timeline import analyse
from nfpo_deploy.graph import build_graph
from nfpo_deploy.ros.flight_recorder import TOPICS
from nfpo_deploy.transport.codec import GO_LOW_CMD, GO_LOW_STATE

from .conftest import Client

ROBOT_DOMAIN, ROS_DOMAIN = 34, 134
DOMAINS = {"domain_id": str(ROBOT_DOMAIN), "ros_domain_id": str(ROS_DOMAIN), "policy": "none", "flight_log": "false"}
REPO = Path(__file__).resolve().parents[2]
OWN_MESSAGES = (BridgeStatus, JointCommand, RobotState, SafetyPermit, StateEstimate)


# Definitions.


def fill(message, rng):
    """A different value in every field, arrays of three elements."""
    for name, kind in message.get_fields_and_field_types().items():
        value = getattr(message, name)
        if hasattr(value, "get_fields_and_field_types"):
            fill(value, rng)
        elif kind.startswith("sequence<"):
            setattr(message, name, _elements(kind[9:-1], rng))
        elif isinstance(value, np.ndarray):
            setattr(message, name, rng.integers(1, 100, len(value)).astype(value.dtype))
        else:
            setattr(message, name, _scalar(value, rng))
    return message


def _elements(kind, rng):
    if "/" not in kind:
        code = {"double": "d", "float": "f"}.get(kind)
        return array(code, rng.random(3)) if code else [str(n) for n in rng.integers(1, 100, 3)]
    package, _, name = kind.partition("/")
    message_type = getattr(__import__(f"{package}.msg", fromlist=[name]), name)
    return [fill(message_type(), rng) for _ in range(3)]


def _scalar(value, rng):
    number = int(rng.integers(1, 100))
    if isinstance(value, bool):
        return True
    if isinstance(value, bytes):
        return bytes([number])
    return type(value)(number)


def assert_same(decoded, sent):
    for name in sent.get_fields_and_field_types():
        got, expected = getattr(decoded, name), getattr(sent, name)
        if hasattr(expected, "get_fields_and_field_types"):
            assert_same(got, expected)
        elif isinstance(expected, list) and expected and hasattr(expected[0], "get_fields_and_field_types"):
            assert len(got) == len(expected)
            for one, other in zip(got, expected, strict=True):
                assert_same(one, other)
        elif isinstance(expected, bytes):
            assert got == expected[0], name
        elif isinstance(expected, (array, np.ndarray)):
            assert list(got) == list(expected), name
        else:
            assert got == expected, name


@pytest.mark.parametrize("message_type", dict.fromkeys(kind for kind, _ in TOPICS.values()), ids=lambda t: t.__name__)
def test_every_recorded_type_is_decoded_by_its_definition(message_type):
    sent = fill(message_type(), np.random.default_rng(7))
    definition = definition_of(message_type)
    schema = Schema(id=1, name=definition.name, encoding="ros2msg", data=definition.text.encode())
    decode = DecoderFactory().decoder_for("cdr", schema)
    assert_same(decode(serialize_message(sent)), sent)


@pytest.mark.parametrize("message_type", OWN_MESSAGES, ids=lambda t: t.__name__)
def test_definitions_are_those_of_the_source(message_type):
    name = message_type.__name__
    source = (REPO / "ros2_ws/src/nfpo_msgs/msg" / f"{name}.msg").read_text()
    ours = definition_of(message_type).text.partition("=" * 80)[0]
    parsed = [parse_message_string("nfpo_msgs", name, text) for text in (source, ours)]
    fields = [[(str(field.type), field.name) for field in message.fields] for message in parsed]
    assert fields[0] == fields[1] and len(fields[0]) > 3
    constants = [[(c.type, c.name, c.value) for c in message.constants] for message in parsed]
    assert constants[0] == constants[1]


# The graph.


class Recorder:
    """The node in a process of its own, beside a graph."""

    def __init__(self, root, **parameters):
        self.root = root
        parameters = {"domain_id": ROBOT_DOMAIN, "log_dir": str(root), **parameters}
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        command = [sys.executable, "-m", "nfpo_deploy.ros.flight_recorder", "--ros-args", *words]
        environment = {**os.environ, **build_graph("go2_walk", {**DOMAINS, "sim": "true"}).environment}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPO
        )

    def stop(self, number=signal.SIGINT, timeout=20.0):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        try:
            self.output = self.process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode

    @property
    def session(self):
        sessions = [path for path in places.sessions_in(self.root) if path.name.endswith(f"_{self.process.pid}")]
        return sessions[0] if sessions else None

    def files(self):
        return places.segments_in(self.session) if self.session else []

    def incidents(self):
        return places.incidents_in(self.root)


@pytest.fixture
def client():
    client = Client(ROS_DOMAIN)
    yield client
    client.close()


@pytest.fixture
def start_recorder(tmp_path, client):
    started = []

    def start(**parameters):
        recorder = Recorder(tmp_path / "log", **parameters)
        started.append(recorder)
        client.wait(lambda: recorder.process.poll() is not None or recorder.files(), 40.0, "the first file")
        return recorder

    yield start
    for recorder in started:
        if recorder.process.poll() is None:
            recorder.process.kill()
            recorder.process.communicate()


def stand_up(client, recorder):
    """Stand up, more than once where a busy computer delays a state so long that the robot is damped."""
    for _ in range(4):
        try:
            return client.stand_up()
        except AssertionError:
            if not client.in_mode(SafetyPermit.FAULT):
                raise
        client.wait(lambda: client.trigger("reset").success, what="reset")
        client.wait(lambda: all(record_of(i)["state"] != "recording" for i in recorder.incidents()), 30.0, "the end")
    pytest.skip(f"this computer is too busy for a robot: {client.describe()}")


def incident_of(recorder, words):
    """The incident whose reason has one of these words; others come from a busy computer."""
    found = [i for i in recorder.incidents() if any(word in record_of(i)["reason"] for word in words)]
    return found[0] if found else None


def record_of(incident):
    return json.loads((incident / "incident.json").read_text())


def messages_of(paths, topic, reader_type=SeekingReader):
    """(log time, channel, sequence, bytes) of a topic."""
    found = []
    for path in paths:
        with path.open("rb") as stream:
            try:
                # In order of the file: sorting would need the end, which a killed recorder did not write.
                reader = reader_type(stream, validate_crcs=True)
                for _, channel, message in reader.iter_messages(topics=[topic], log_time_order=False):
                    found.append((message.log_time, channel, message.sequence, message.data))
            except Exception:
                if reader_type is SeekingReader:
                    raise
    return sorted(found, key=lambda row: row[0])


def decoded(paths, topic):
    for path in paths:
        with path.open("rb") as stream:
            reader = SeekingReader(stream, validate_crcs=True, decoder_factories=[DecoderFactory()])
            for _, _, _, message in reader.iter_decoded_messages(topics=[topic]):
                yield message


def recorder_row(paths):
    """Last words of the recorder about itself."""
    rows = [row for array in decoded(paths, "/diagnostics") for row in array.status]
    rows = [row for row in rows if row.name == "flight_recorder: log"]
    return {item.key: item.value for item in rows[-1].values}


def skip_where_the_computer_kept_the_recorder_from_running(paths):
    row = recorder_row(paths)
    if int(row["lost"]) or int(row["wire_overflows"]):
        pytest.skip(f"this computer is too busy: the recorder itself says that it lost messages: {row}")


def test_an_emergency_stop_leaves_everything_before_it_at_full_rate(start_graph, start_recorder, client):
    graph = start_graph(**DOMAINS)
    recorder = start_recorder(after_s=2.0)
    stand_up(client, recorder)
    client.spin(2.0)
    stopped_ns = time.time_ns()
    assert client.trigger("estop").success
    incident = client.wait(lambda: incident_of(recorder, ["emergency stop"]), 2.0, "the incident")
    client.wait(lambda: record_of(incident)["state"] == "complete", 15.0, "its end")
    assert graph.stop() == 0, graph.output
    assert recorder.stop() == 0, recorder.output
    record = record_of(incident)
    assert record["kind"] == "fault" and "emergency stop" in record["reason"] and record["mode_before"] == "READY"
    assert record["robot"] == "go2" and len(record["robot_sha256"]) == 64 and record["nfpo"]
    paths = places.segments_in(incident)
    assert abs(record["time_ns"] - stopped_ns) < 1e9

    # All since the start, less than half a minute ago, and the two seconds after.
    commands = messages_of(paths, "rt/lowcmd")
    first, last = record["time_ns"] - commands[0][0], commands[-1][0] - record["time_ns"]
    assert first > 4e9 and last > 1.5e9
    assert {channel.metadata["publisher"] for _, channel, _, _ in commands} == {"bridge"}
    stiff = [bool(np.any(GO_LOW_CMD.decode(data)["motor_cmd"]["kp"] > 0)) for *_, data in commands]
    released_ns = commands[len(stiff) - 1 - stiff[::-1].index(True)][0]
    assert 0 < released_ns - record["time_ns"] < 1e9, "the ramp to damping after the stop is in the record"
    permits = list(decoded(paths, "/nfpo/permit"))
    assert [permit.mode for permit in permits][-1] == SafetyPermit.FAULT
    assert [permit.seq for permit in permits] == list(range(permits[0].seq, permits[-1].seq + 1))

    skip_where_the_computer_kept_the_recorder_from_running(paths)
    numbers = [sequence for _, _, sequence, _ in messages_of(paths, "/nfpo/robot_state")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) and len(numbers) > 1000
    ticks = [int(GO_LOW_STATE.decode(data)["tick"]) for *_, data in messages_of(paths, "rt/lowstate")]
    assert set(np.diff(ticks)) == {2}, "500 Hz, tick in ms"
    statuses = list(decoded(paths, "/nfpo/bridge_status"))
    # The bridge's own count is the judge; between two statuses lie ten commands.
    sent = statuses[-1].lowcmd_count - statuses[0].lowcmd_count
    assert abs(len(commands) - sent) <= 25 and sent > 2000


def test_a_killed_recorder_leaves_its_log_and_harms_nobody(start_graph, start_recorder, client):
    graph = start_graph(**DOMAINS)
    recorder = start_recorder()
    stand_up(client, recorder)
    client.spin(1.0)
    before = client.newest["status"].loop_overruns
    recorder.process.kill()
    killed_ns = time.time_ns()
    recorder.process.communicate()
    session = recorder.session
    for topic in ("/nfpo/robot_state", "/nfpo/permit", "/nfpo/bridge_status", "rt/lowcmd", "rt/lowstate"):
        found = messages_of(places.segments_in(session), topic, NonSeekingReader)
        assert found, topic
        assert killed_ns - found[-1][0] < 1e9, topic
    client.spin(1.0)
    assert client.in_mode(SafetyPermit.READY) and client.newest["status"].phase == BridgeStatus.HOLDING
    assert client.newest["status"].loop_overruns - before < 250

    again = start_recorder()
    incident = client.wait(lambda: incident_of(again, ["cut off"]), 30.0, "the recovered incident")
    record = record_of(incident)
    assert record["kind"] == "cut_off" and record["session"] == session.name
    kept = messages_of(places.segments_in(incident), "rt/lowcmd")
    assert killed_ns - kept[-1][0] < 1e9 and kept[-1][0] - kept[0][0] > 3e9
    assert graph.stop() == 0, graph.output
    assert again.stop() == 0, again.output


SILENT_BRIDGE = ["bridge", "state_age"]
"""It also brings the robot's state; either may be missed first."""


@pytest.mark.slow
def test_a_hanging_bridge_is_an_incident_with_what_the_guard_did(start_graph, start_recorder, client):
    graph = start_graph(**DOMAINS)
    recorder = start_recorder(after_s=2.0)
    stand_up(client, recorder)
    client.spin(0.5)
    hung_ns = time.time_ns()
    graph.signal("sdk_bridge", signal.SIGSTOP)
    try:
        incident = client.wait(lambda: incident_of(recorder, SILENT_BRIDGE), 3.0, "the incident")
        client.spin(2.5)
    finally:
        graph.signal("sdk_bridge", signal.SIGCONT)
    client.wait(lambda: record_of(incident)["state"] == "complete", 15.0, "its end")
    graph.stop()
    assert recorder.stop() == 0, recorder.output
    record = record_of(incident)
    assert record["kind"] in ("fault", "bridge_silent")
    paths = places.segments_in(incident)
    after = [row for row in messages_of(paths, "rt/lowcmd") if row[0] > hung_ns + 2e8 and row[0] < hung_ns + 2e9]
    assert {channel.metadata["publisher"] for _, channel, _, _ in after} == {"guard"} and len(after) > 200
    # The bridge's own topic has ended; what the robot did is on the wire.
    states = [row[0] for row in messages_of(paths, "rt/lowstate") if hung_ns < row[0] < hung_ns + 2e9]
    assert len(states) > 500
    assert not [row for row in messages_of(paths, "/nfpo/robot_state") if hung_ns + 2e8 < row[0] < hung_ns + 2e9]
    timeline = analyse(find(incident.name, recorder.root)[0])
    said = [event.text for event in timeline.events]
    assert any(text.startswith("READY → FAULT: ") for text in said)
    assert any("rt/lowcmd by guard" in text and "first message" in text for text in said)
    assert timeline.first_cause and not timeline.problems


def freeze(client, recorder, seconds):
    """Whether the robot stands as before while the recorder is frozen, and the recorder goes on afterwards."""
    stand_up(client, recorder)
    recorder.process.send_signal(signal.SIGSTOP)
    client.spin(seconds)
    recorder.process.send_signal(signal.SIGCONT)
    stood = client.in_mode(SafetyPermit.READY) and client.newest["status"].phase == BridgeStatus.HOLDING
    client.spin(2.0)
    return stood


@pytest.mark.slow
def test_a_frozen_recorder_delays_nobody_and_catches_up(start_graph, start_recorder, client):
    start_graph(**DOMAINS)
    recorder = start_recorder()
    # More than once, because a busy computer alone can delay a state for too long.
    assert any(freeze(client, recorder, 3.0) for _ in range(3)), client.describe()
    resumed_ns = time.time_ns()
    client.spin(2.0)
    recorder.stop()
    rows = messages_of(recorder.files(), "/nfpo/bridge_status")
    assert [row for row in rows if row[0] > resumed_ns]
    assert not incident_of(recorder, ["bridge silent"]), "the recorder's own absence is nobody's incident"


@pytest.mark.slow
def test_an_orderly_end_is_recorded_to_its_last_moment_and_is_no_incident(start_graph, start_recorder, client):
    graph = start_graph(**DOMAINS)
    recorder = start_recorder()
    client.wait(lambda: "status" in client.newest, 25.0, "the graph")
    client.spin(1.0)
    # As `ros2 launch` does: everybody is asked at once, and the recorder has to wait for the others.
    recorder.process.send_signal(signal.SIGINT)
    stopped_ns = time.time_ns()
    assert graph.stop() == 0, graph.output
    assert recorder.stop() == 0, recorder.output
    assert not recorder.incidents()
    assert json.loads((recorder.session / "session.json").read_text())["state"] == "ended"
    assert list(decoded(recorder.files(), "/nfpo/bridge_status"))[-1].stopping
    assert messages_of(recorder.files(), "rt/lowcmd")[-1][0] > stopped_ns


def test_topics_that_appear_later_are_recorded_too(start_recorder, client):
    from std_msgs.msg import String

    recorder = start_recorder(extra_topics="/chatter")
    publishers = {
        topic: client.node.create_publisher(String, topic, 1) for topic in ("/nfpo/test", "/chatter", "/other")
    }
    end = time.monotonic() + 5.0
    while time.monotonic() < end:
        for publisher in publishers.values():
            publisher.publish(String(data="hello"))
        client.spin(0.1)
    assert recorder.stop() == 0, recorder.output
    assert {message.data for message in decoded(recorder.files(), "/nfpo/test")} == {"hello"}
    assert list(decoded(recorder.files(), "/chatter"))
    assert not messages_of(recorder.files(), "/other")


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(start_recorder):
    recorder = start_recorder(log_dir="/proc/nowhere")
    assert recorder.stop() == 1
    assert "flight_recorder cannot be configured: the flight log cannot be written to /proc/nowhere" in recorder.output
