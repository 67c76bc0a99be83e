"""What `nfpo log` tells of logs whose story is known."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap_ros2._dynamic import serialize_dynamic

from nfpo_deploy.flight_log import folder as places
from nfpo_deploy.flight_log.command import log_command
from nfpo_deploy.flight_log.errors import FlightLogError
from nfpo_deploy.flight_log.schemas import Definition
from nfpo_deploy.flight_log.segment import Channel, Entry, Segment
from nfpo_deploy.flight_log.timeline import analyse, robot_state_tick
from nfpo_deploy.transport.codec import GO_LOW_CMD

from .conftest import LOW_CMD
from .test_segment_and_reader import write

REPO = Path(__file__).resolve().parents[3]
HEADER = f"""{"=" * 80}
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
"""
PERMIT = Channel(
    "/nfpo/permit",
    Definition(
        "nfpo_msgs/msg/SafetyPermit", f"std_msgs/Header header\nuint32 seq\nuint8 mode\nstring reason\n{HEADER}"
    ),
)
STATUS = Channel(
    "/nfpo/bridge_status",
    Definition(
        "nfpo_msgs/msg/BridgeStatus",
        "std_msgs/Header header\nuint8 phase\nstring reason\nbool tripped\nuint8 guards_alive\nbool guard_active\n"
        + HEADER,
    ),
)
LOG = Channel("/rosout", Definition("rcl_interfaces/msg/Log", "uint8 level\nstring name\nstring msg\n"))
GUARD = Channel("rt/lowcmd", LOW_CMD.definition, {"publisher": "guard", "pid": "18", "guid": "b"})
MS = 1_000_000
START_NS = 1_800_000_000_000_000_000
STATE = f"std_msgs/Header header\nuint64 received_ns\nuint32 tick\nuint32 joint_names_crc\n{HEADER}"


def message(channel, time_ms, sequence=0, **fields):
    encode = serialize_dynamic(channel.definition.name, channel.definition.text)[channel.definition.name]
    time_ns = START_NS + round(time_ms * MS)
    return Entry(channel, time_ns, time_ns, sequence, encode({"header": {"stamp": {"sec": 0, "nanosec": 0}}, **fields}))


def low_cmd(channel, time_ms, kp, kd):
    record = GO_LOW_CMD.new()
    record["motor_cmd"]["mode"][:12] = 1
    record["motor_cmd"]["kp"][:12], record["motor_cmd"]["kd"][:12] = kp, kd
    time_ns = START_NS + round(time_ms * MS)
    return Entry(channel, time_ns, time_ns, 0, GO_LOW_CMD.encode(record))


@pytest.fixture(scope="module")
def story():
    """Walking; the gate trips at 1.0 s, the watchdog follows, at 1.5 s the bridge dies and a guard takes over."""
    entries = []
    for index in range(50):
        walking = index < 26
        mode, reason = (3, "requested") if walking else (5, "gate: robot state stale")
        entries.append(message(PERMIT, 40 * index, index, seq=index, mode=mode, reason=reason))
    for index in range(38):
        tripped = index >= 25
        status = {"phase": 1 if tripped else 4, "reason": "robot state stale" if tripped else "", "tripped": tripped}
        entries.append(message(STATUS, 40 * index, 100 + index, guards_alive=2, guard_active=False, **status))
    entries += [low_cmd(LOW_CMD, 2 * index, 60 if index < 500 else 0, 3) for index in range(750)]
    entries += [low_cmd(GUARD, 1600 + 2 * index, 0, 3) for index in range(200)]
    entries.append(message(LOG, 1200, level=40, name="safety_watchdog", msg="FAULT: \x1b[31mgate"))
    entries.append(message(LOG, 1201, level=20, name="safety_watchdog", msg="not worth telling"))
    return sorted(entries, key=lambda entry: entry.log_ns)


@pytest.fixture
def story_file(story, tmp_path):
    return save(story, tmp_path / "story.mcap")


def save(entries, path, about=None):
    segment = Segment(path, 0, {"nfpo": about or {"robot": "go2", "robot_sha256": "f" * 64, "nfpo": "0.1"}})
    for entry in entries:
        segment.add(entry)
    segment.flush()
    segment.finish(1)
    return path


def lines(timeline):
    return [(round((event.time_ns - START_NS) / MS), event.kind, event.text) for event in timeline.events]


def test_the_story_is_told_in_order_with_its_first_cause(story_file):
    timeline = analyse([story_file])
    told = lines(timeline)
    assert told == sorted(told, key=lambda line: line[0])
    assert timeline.first_cause == "robot state stale" and not timeline.problems
    for expected in (
        (0, "mode", "WALK: requested"),
        (0, "gate", "TRACKING"),
        (0, "bridge", "2 guards alive"),
        (0, "motors", "bridge, pid 17: stiff"),
        (1000, "gate", "DAMPING: robot state stale"),
        (1000, "trip", "the gate tripped: robot state stale"),
        (1000, "motors", "bridge, pid 17: damping"),
        (1040, "mode", "WALK → FAULT: gate: robot state stale"),
        (1200, "log", "safety_watchdog: FAULT: [31mgate"),
        (1498, "wire", "rt/lowcmd by bridge, pid 17: last message"),
        (1600, "wire", "rt/lowcmd by guard, pid 18: first message"),
        (1600, "motors", "guard, pid 18: damping"),
    ):
        assert expected in told, told
    assert not any("not worth" in text for *_, text in told)
    assert sum(kind == "mode" for _, kind, _ in told) == 2, "a permit that says the same again is no event"


def test_rates_gaps_and_losses_of_each_stream(tmp_path):
    # 50 Hz; numbers 20 to 24 are missing: 0.12 s without a message.
    entries = [message(PERMIT, 20 * i, i, seq=i, mode=0, reason="") for i in range(100) if not 20 <= i < 25]
    timeline = analyse([save(entries, tmp_path / "a.mcap")])
    (stream,) = timeline.streams
    assert stream.count == 95 and stream.lost == 5
    assert (380, "gap", "nothing for 0.12 s: /nfpo/permit") in lines(timeline)
    assert timeline.end_ns - timeline.start_ns == 99 * 20 * MS


def test_streams_that_fall_silent_together_share_a_line(tmp_path):
    entries = []
    for index in range(100):
        if not 40 <= index < 60:
            entries.append(message(PERMIT, 20 * index, index, seq=index, mode=0, reason=""))
            entries.append(message(STATUS, 20 * index + 1, index, phase=0))
    timeline = analyse([save(entries, tmp_path / "a.mcap")])
    gaps = [text for _, kind, text in lines(timeline) if kind == "gap"]
    assert gaps == ["nothing for 0.42 s: /nfpo/bridge_status, /nfpo/permit"]


def test_missing_ticks_are_counted_where_the_sender_lost_them(tmp_path):
    state = Channel("/nfpo/robot_state", Definition("nfpo_msgs/msg/RobotState", STATE))
    ticks = [2 * i for i in range(200) if i not in (70, 71, 150)]
    entries = [message(state, tick, number, received_ns=tick, tick=tick) for number, tick in enumerate(ticks)]
    (stream,) = analyse([save(entries, tmp_path / "a.mcap")]).streams
    assert stream.lost == 0 and stream.ticks.total == 3


@pytest.mark.parametrize("frame", ["", "b", "base_link", "a much longer name of a frame"])
def test_the_tick_is_found_behind_any_frame_name(frame):
    state = Channel("/nfpo/robot_state", Definition("nfpo_msgs/msg/RobotState", STATE))
    header = {"stamp": {"sec": 1, "nanosec": 2}, "frame_id": frame}
    assert robot_state_tick(message(state, 0, header=header, received_ns=1 << 60, tick=123456).data) == 123456


def test_an_incident_is_read_over_its_files(tmp_path, story):
    save(story[: len(story) // 2], tmp_path / "20260102T030405.000Z_00001.mcap")
    save(story[len(story) // 2 :], tmp_path / "20260102T030406.000Z_00002.mcap")
    timeline = analyse(places.segments_in(tmp_path))
    assert sum(stream.count for stream in timeline.streams) == len(story)
    assert timeline.first_cause == "robot state stale"


@given(st.binary(max_size=200), st.sampled_from(["nfpo_msgs/msg/SafetyPermit", "nfpo_msgs/msg/BridgeStatus"]))
@settings(max_examples=300, deadline=None)
def test_messages_that_do_not_fit_their_definition_are_counted_not_believed(tmp_path_factory, data, name):
    text = {c.definition.name: c.definition.text for c in (PERMIT, STATUS)}[name]
    path = tmp_path_factory.mktemp("fuzz") / "a.mcap"
    analyse([save([Entry(Channel("/x", Definition(name, text)), 1, 1, 1, data)], path)])


HOSTILE_TEXTS = [
    "nfpo_msgs/SafetyPermit self\n",  # contains itself
    "uint8[4000000000] mode\nstring reason\n",
    "string[] reason\nuint8 mode\n",
    "x/Nothing[] reason\nuint8 mode\n" + "=" * 80 + "\nMSG: x/Nothing\n",
    "uint8 mode\n",  # without the field that is asked for
    "not a definition",
    "\x00\xff",
    "uint8 mode\n" * 3,
    "=" * 4000,
]


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
@pytest.mark.parametrize("name", ["nfpo_msgs/msg/SafetyPermit", "", "/", "nfpo_msgs/msg/BridgeStatus"])
def test_hostile_definitions_are_no_harm(tmp_path, text, name):
    data = b"\x00\x01\x00\x00" + b"\xff" * 60_000
    analyse([save([Entry(Channel("/x", Definition(name, text)), 1 << 63, 2**64 - 1, 1, data)], tmp_path / "a.mcap")])


# The command.


@pytest.fixture
def log_folder(tmp_path, story):
    root = tmp_path / "log"
    incident = root / "incident_20270115T080001Z_robot-state-stale"
    session = root / "session_20270115T080000Z_17"
    for folder in (incident, session):
        folder.mkdir(parents=True)
        save(story, folder / "20270115T080000.000Z_00001.mcap")
    reason = {
        "kind": "gate_tripped",
        "reason": "robot state stale",
        "state": "complete",
        "time_ns": START_NS + 1000 * MS,
    }
    places.write_record(incident / "incident.json", reason)
    places.write_record(session / "session.json", {"state": "ended"})
    return root


def test_list_shows_incidents_and_sessions(log_folder, capsys):
    assert log_command(["list", "--folder", str(log_folder)]) == 0
    output = capsys.readouterr().out
    assert "incident_20270115T080001Z_robot-state-stale" in output and "robot state stale" in output
    assert "session_20270115T080000Z_17" in output and "ended" in output


def test_list_of_an_empty_folder_says_so(tmp_path, capsys):
    assert log_command(["list", "--folder", str(tmp_path)]) == 0
    assert f"no flight log in {tmp_path}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("what", ["latest", "incident_20270115T080001Z_robot-state-stale"])
def test_show_counts_from_the_incident(log_folder, capsys, what):
    assert log_command(["show", what, "--folder", str(log_folder)]) == 0
    output = capsys.readouterr().out
    assert "first cause robot state stale" in output
    assert "+0.040 s  mode    WALK → FAULT: gate: robot state stale" in output
    assert "-1.000 s  mode    WALK: requested" in output
    assert "\x1b" not in output


def test_show_as_json_is_for_machines(log_folder, capsys):
    assert log_command(["show", "latest", "--folder", str(log_folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["first_cause"] == "robot state stale" and told["incident"]["kind"] == "gate_tripped"
    assert {"topic": "rt/lowcmd", "writer": "guard, pid 18", "messages": 200} | told["topics"][-1] == told["topics"][-1]


def test_show_of_a_cut_file_names_what_is_missing(story_file, capsys):
    story_file.write_bytes(story_file.read_bytes()[:-200])
    assert log_command(["show", str(story_file)]) == 0
    assert "problem: story.mcap, byte" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["show", "nothing"], "no log 'nothing'"),
        (["show", "latest"], "there is no incident in"),
        (["show", "empty"], "holds no segments"),
        (["recover", "nothing.mcap"], "is not a file"),
    ],
)
def test_what_does_not_exist_is_named(tmp_path, monkeypatch, arguments, error):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("NFPO_LOG_DIR", str(tmp_path))
    with pytest.raises(FlightLogError, match=error):
        log_command(arguments)


def test_recover_makes_a_cut_file_whole(tmp_path, capsys):
    path = write(tmp_path / "a.mcap", [[1, 2], [3]])
    path.write_bytes(path.read_bytes()[:-9])
    assert log_command(["recover", str(path)]) == 0
    assert "3 messages, written to" in capsys.readouterr().out
    assert log_command(["recover", str(path)]) == 0
    assert "3 messages, nothing to repair in" in capsys.readouterr().out


def test_the_command_line_ends_with_one_line_for_a_bad_file(tmp_path):
    (tmp_path / "a.mcap").write_bytes(b"no log")
    command = [sys.executable, "-m", "nfpo_deploy.cli", "log", "show", str(tmp_path / "a.mcap")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPO, env=dict(os.environ))
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("nfpo log: ") and result.stderr.count("\n") == 1
