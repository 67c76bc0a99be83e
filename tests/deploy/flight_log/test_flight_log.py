"""The log while it runs: ring, incidents, a full disk, a slow disk, and what is not its own."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nfpo_deploy.flight_log import folder as places
from nfpo_deploy.flight_log.errors import FlightLogError
from nfpo_deploy.flight_log.incident import Trigger
from nfpo_deploy.flight_log.recorder import FlightLog, LogSettings
from nfpo_deploy.flight_log.repair import has_end

from .conftest import counter, read_cut, read_indexed, values

REPO = Path(__file__).resolve().parents[3]


def trigger(reason, kind="fault"):
    return Trigger(kind, reason, "WALK", time.monotonic_ns(), time.time_ns())


class Feeder:
    """Writes numbers at 500 Hz, and knows the longest time that handing one over took."""

    def __init__(self, log):
        self.log, self.value, self.longest_s = log, 0, 0.0

    def feed(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.value += 1
            entry = counter(self.value, time.time_ns())
            # CPU time of this thread: other programs may interrupt it as long as they like.
            start = time.thread_time()
            self.log.write([entry])
            self.longest_s = max(self.longest_s, time.thread_time() - start)
            time.sleep(0.002)


@pytest.fixture
def start(tmp_path, settings, reports):
    started = []

    def start(root=tmp_path / "log", **changes):
        started.append(FlightLog(root, replace(settings, **changes), {"robot": "go2"}, reports.append))
        return started[-1]

    yield start
    for log in started:
        log.close()


def record_of(incident):
    return json.loads((incident / "incident.json").read_text())


def numbers_in(folder):
    return values([message for path in places.segments_in(folder) for message in read_indexed(path)])


def consecutive(numbers):
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_everything_is_there_after_an_orderly_end(start):
    log = start(ring_s=100.0)
    feeder = Feeder(log)
    feeder.feed(1.0)
    log.close()
    paths = places.segments_in(log.session)
    assert len(paths) >= 2 and all(has_end(path) for path in paths)
    assert numbers_in(log.session) == list(range(1, feeder.value + 1))
    assert log.statistics.messages == feeder.value and log.dropped == 0 and log.backlog_bytes == 0
    record = json.loads((log.session / "session.json").read_text())
    assert record["state"] == "ended" and record["context"] == {"robot": "go2"}


def test_the_ring_keeps_the_newest_within_its_length(start):
    log = start()
    feeder = Feeder(log)
    feeder.feed(3.0)
    log.close()
    paths = places.segments_in(log.session)
    assert len(paths) <= 1.2 / 0.3 + 2
    numbers = numbers_in(log.session)
    assert consecutive(numbers) and numbers[-1] == feeder.value and numbers[0] > 1


def test_the_ring_keeps_within_its_size_but_never_below_what_an_incident_needs(start):
    log = start(ring_mb=1e-6)
    feeder = Feeder(log)
    feeder.feed(2.0)
    log.close()
    first_ns = min(m.log_time for path in places.segments_in(log.session) for _, _, m in read_indexed(path))
    assert time.time_ns() - first_ns >= 0.6e9
    assert len(places.segments_in(log.session)) <= 5


def test_an_incident_holds_what_was_before_and_after(start, reports):
    log = start()
    feeder = Feeder(log)
    feeder.feed(1.5)
    at = feeder.value
    log.incident(trigger("emergency stop by test"))
    feeder.feed(0.15)
    (incident,) = places.incidents_in(log.session.parent)
    assert record_of(incident)["state"] == "recording", "kept at once, not only when it is complete"
    feeder.feed(2.5)
    record = record_of(incident)
    assert record["state"] == "complete" and record["kind"] == "fault" and record["mode_before"] == "WALK"
    assert record["reason"] == "emergency stop by test" and record["robot"] == "go2"
    assert record["segments"] == [path.name for path in places.segments_in(incident)]
    assert incident.name.endswith("Z_emergency-stop-by-test")
    messages = [m for path in places.segments_in(incident) for m in read_indexed(path)]
    numbers = values(messages)
    assert consecutive(numbers) and at in numbers
    times = {number: message.log_time for number, (_, _, message) in zip(numbers, messages, strict=True)}
    assert times[at] - times[numbers[0]] >= 0.59e9 and times[numbers[-1]] - times[at] >= 0.35e9
    # By now the ring has lost them.
    assert not any(path.name == record["segments"][0] for path in places.segments_in(log.session))
    assert any("incident: emergency stop by test" in line for line in reports)


def test_nothing_is_copied_for_an_incident(start):
    log = start(segment_s=30.0, ring_s=300.0)
    Feeder(log).feed(0.3)
    log.incident(trigger("x"))
    Feeder(log).feed(0.15)
    (incident,) = places.incidents_in(log.session.parent)
    (own,), (kept,) = places.segments_in(log.session), places.segments_in(incident)
    assert own.samefile(kept)


def test_what_fails_next_belongs_to_the_same_incident(start):
    log = start()
    feeder = Feeder(log)
    feeder.feed(0.2)
    log.incident(trigger("stale state", "gate_tripped"))
    log.incident(trigger("gate: stale state"))
    feeder.feed(0.8)
    (incident,) = places.incidents_in(log.session.parent)
    assert record_of(incident)["reason"] == "stale state"
    assert [event["reason"] for event in record_of(incident)["events"]] == ["stale state", "gate: stale state"]
    log.incident(trigger("the next one"))
    feeder.feed(0.2)
    assert len(places.incidents_in(log.session.parent)) == 2


def test_an_incident_at_the_very_end_is_closed_with_the_session(start):
    log = start()
    Feeder(log).feed(0.2)
    log.incident(trigger("late"))
    log.close()
    (incident,) = places.incidents_in(log.session.parent)
    assert record_of(incident)["state"] == "cut off"
    assert consecutive(numbers_in(incident))


def test_oldest_incidents_beyond_the_bound_go_but_not_those_with_a_file_of_somebody(start, reports):
    log = start(max_incidents=2, after_s=0.05)
    feeder = Feeder(log)
    names = []
    for index in range(5):
        feeder.feed(0.1)
        log.incident(trigger(f"number {index}"))
        feeder.feed(0.4)
        names.append(places.incidents_in(log.session.parent)[-1].name)
        if index == 0:
            (log.session.parent / names[0] / "notes.txt").write_text("look at the left knee")
    feeder.feed(0.2)
    left = [incident.name for incident in places.incidents_in(log.session.parent)]
    assert left == sorted([names[0], names[3], names[4]])
    assert (log.session.parent / names[0] / "notes.txt").read_text() == "look at the left knee"
    for name in names[1:3]:
        assert any(line.startswith(f"removed {name}") for line in reports)


def test_nothing_of_others_is_touched(start, tmp_path):
    root = tmp_path / "log"
    theirs = [
        root / "session_20200101T000000Z_1" / "20200101T000000.000Z_00001.mcap",  # our names, but not our mark
        root / "incident_20200101T000000Z_x" / "20200101T000000.000Z_00001.mcap",
        root / "photos" / "dog.jpg",
        root / "20200101T000000.000Z_00001.mcap",
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (root / "incident_20200101T000000Z_x" / "incident.json").write_text('{"format": "another program"}')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "session.json").write_text(json.dumps({"format": places.FORMAT, "state": "ended"}))
    (elsewhere / "20200101T000000.000Z_00001.mcap").write_text("mine")
    (root / "session_20200101T000000Z_2").symlink_to(elsewhere)
    log = start(max_incidents=1, ring_mb=1e-6)
    feeder = Feeder(log)
    (log.session / "notes.txt").write_text("mine")
    for index in range(3):
        log.incident(trigger(str(index)))
        feeder.feed(0.7)
    log.close()
    assert all(path.read_text() == "mine" for path in (*theirs, elsewhere / "20200101T000000.000Z_00001.mcap"))
    # The next session clears this one away, as far as it is its own.
    log = start(ring_mb=1e-6)
    Feeder(log).feed(1.0)
    assert not places.segments_in(places.sessions_in(root)[0]) and len(places.sessions_in(root)) == 2
    assert (places.sessions_in(root)[0] / "notes.txt").read_text() == "mine"


def test_two_recorders_share_a_folder(start):
    first, second = start(), start()
    for log in (first, second):
        Feeder(log).feed(0.5)
    Feeder(second).feed(1.5)
    first.close()
    assert first.session != second.session
    assert consecutive(numbers_in(first.session))


@pytest.mark.parametrize("path", ["/proc/nowhere/log", "/dev/null/log"])
def test_a_folder_that_cannot_be_written_is_refused(path, settings):
    with pytest.raises(FlightLogError, match=r"cannot be written to /.* log_dir:=PATH or the variable NFPO_LOG_DIR"):
        FlightLog(Path(path), settings, {}, lambda text: None)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("segment_s", 0.0),
        ("before_s", -1.0),
        ("flush_s", float("nan")),
        ("ring_mb", float("inf")),
        ("max_incidents", 0),
    ],
)
def test_senseless_settings_are_refused(setting, value):
    with pytest.raises(FlightLogError, match=f"{setting} .* above zero, got"):
        LogSettings(**{setting: value})


def test_a_ring_shorter_than_what_an_incident_needs_is_refused():
    with pytest.raises(FlightLogError, match="must hold"):
        LogSettings(ring_s=59.0)


# Disks that are full, small, slow.


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    with (folder / "somebody's film").open("ab") as stream:
        try:
            while True:
                stream.write(os.urandom(65536))
                stream.flush()
        except OSError:
            pass


def test_a_full_disk_blocks_nobody_and_recording_goes_on_when_there_is_room(start, small_disk, reports):
    log = start(small_disk / "log", min_free_mb=0.1, ring_s=100.0)
    feeder = Feeder(log)
    feeder.feed(0.8)
    for _ in range(15):
        fill(small_disk)  # also what the ring gives up
        feeder.feed(0.2)
    assert "No space left" in log.statistics.problem
    # Twenty attempts in a second, but not twenty lines.
    assert 1 <= sum("cannot be written" in line for line in reports) <= 4
    full_at = feeder.value
    (small_disk / "somebody's film").unlink()
    feeder.feed(3.0)
    assert log.statistics.problem == "" and any("written again" in line for line in reports)
    log.close()
    assert feeder.longest_s < 0.02
    numbers = numbers_in(log.session)
    assert numbers[-1] == feeder.value and full_at in numbers
    # What the disk could not take waited in memory.
    assert log.dropped == 0 and consecutive(numbers)


def test_memory_is_bounded_while_the_disk_is_full(start, small_disk):
    log = start(small_disk / "log", min_free_mb=0.1, backlog_mb=0.002)
    feeder = Feeder(log)
    feeder.feed(0.3)
    for _ in range(10):
        fill(small_disk)
        feeder.feed(0.2)
    assert log.backlog_bytes < 2 * 0.002e6 + 200 and log.dropped > 0
    (small_disk / "somebody's film").unlink()
    feeder.feed(2.5)
    log.close()
    numbers = numbers_in(log.session)
    assert numbers[-1] == feeder.value and numbers == sorted(set(numbers))
    assert len(numbers) + log.dropped >= numbers[-1] - numbers[0] + 1


def test_the_ring_shrinks_rather_than_fill_the_disk(start, small_disk):
    log = start(small_disk / "log", min_free_mb=3.0, ring_s=1000.0, segment_s=0.2, before_s=0.3)
    noise = [counter(0, time.time_ns())._replace(data=b"\x00\x01\x00\x00" + os.urandom(40_000)) for _ in range(1)]
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        log.write(noise)
        time.sleep(0.01)
    assert places.free_bytes(small_disk) > 0.5e6 and log.statistics.problem == "" and log.dropped == 0
    log.close()


LIMITED = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.deploy.flight_log.conftest import QUICK, counter
from nfpo_deploy.flight_log.recorder import FlightLog, LogSettings
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
log = FlightLog(Path(sys.argv[1]), LogSettings(**QUICK | {"segment_s": 30.0, "ring_s": 300.0}), {}, print)
for value in range(1, 3001):
    log.write([counter(value, time.time_ns())])
    time.sleep(0.0005)
log.close()
print(log.session, log.dropped)
"""


def test_a_limit_on_the_size_of_files_costs_no_message(tmp_path):
    """Any failed write takes this path: half a chunk goes, and comes whole into the next file."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "log"), str(REPO)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPO)
    assert result.returncode == 0, result.stderr
    session, dropped = result.stdout.split()[-2:]
    paths = places.segments_in(Path(session))
    assert len(paths) > 2 and all(path.stat().st_size <= 20_000 for path in paths)
    numbers = values([message for path in paths for message in read_cut(path)])
    assert dropped == "0" and numbers == list(range(1, 3001))


def test_a_disk_that_does_not_answer_blocks_nobody(start, monkeypatch, tmp_path):
    real = os.fdatasync

    def slow(fd):
        time.sleep(1.5)
        real(fd)

    log = start()
    feeder = Feeder(log)
    feeder.feed(0.3)
    monkeypatch.setattr(os, "fdatasync", slow)
    feeder.feed(1.0)
    begin = time.monotonic()
    log.incident(trigger("while the disk sleeps"))
    assert time.monotonic() - begin < 0.2
    feeder.feed(1.0)
    monkeypatch.setattr(os, "fdatasync", real)
    feeder.feed(2.0)
    log.close()
    assert feeder.longest_s < 0.02 and log.dropped == 0 and log.statistics.sync_ms > 1000
    (incident,) = places.incidents_in(tmp_path / "log")
    assert record_of(incident)["reason"] == "while the disk sleeps"
    assert consecutive(numbers_in(incident))
