"""Files that were cut anywhere, and sessions whose recorder was killed."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mcap.reader import SeekingReader
from mcap.writer import MCAP0_MAGIC

from nfpo_deploy.flight_log import folder as places
from nfpo_deploy.flight_log.errors import FlightLogError
from nfpo_deploy.flight_log.recorder import FlightLog
from nfpo_deploy.flight_log.repair import has_end, recover_sessions, repair_file
from nfpo_deploy.flight_log.segment import Segment

from .conftest import counter, read_cut, read_indexed, values
from .test_segment_and_reader import chunk_offsets, write


@pytest.fixture
def memory_folder(tmp_path):
    """Where a thousand synced files take no time."""
    folder = Path("/dev/shm") / f"nfpo_test_{os.getpid()}_{time.monotonic_ns()}"
    if not os.access("/dev/shm", os.W_OK):
        return tmp_path
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_a_file_cut_at_any_byte_gives_back_every_message_that_was_flushed(memory_folder):
    segment = Segment(memory_folder / "whole.mcap", 0, {"nfpo": {"robot": "go2"}})
    flushed = [(0, 0)]  # size of the file, messages in it
    for count in range(1, 7):
        segment.add(counter(count))
        if count % 2 == 0:
            segment.flush()
            flushed.append((segment.size, count))
    segment.finish(1)
    whole = segment.path.read_bytes()
    cut = memory_folder / "cut.mcap"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        if length < len(MCAP0_MAGIC):
            with pytest.raises(FlightLogError, match="no MCAP file"):
                repair_file(cut)
            continue
        repair = repair_file(cut)
        certain = max(count for size, count in flushed if size <= length)
        recovered = values(read_indexed(cut))
        # A chunk is whole before the index that follows it is, hence sometimes two more.
        assert recovered == list(range(1, len(recovered) + 1)) and certain <= len(recovered) <= certain + 2, length
        assert repair.changed and repair.messages == len(recovered), length
    assert repair_file(segment.path).changed is False
    assert segment.path.read_bytes() == whole
    assert sorted(path.name for path in memory_folder.iterdir()) == ["cut.mcap", "whole.mcap"]


def test_a_tail_of_zeros_is_a_cut(tmp_path):
    """What some file systems leave where a power cut came before the data."""
    path = write(tmp_path / "a.mcap", [[1, 2], [3, 4]])
    data = path.read_bytes()
    path.write_bytes(data[: chunk_offsets(data)[1]] + bytes(5000))
    assert repair_file(path).messages == 2
    assert values(read_indexed(path)) == [1, 2]


def test_a_repaired_file_keeps_its_description(tmp_path):
    path = write(tmp_path / "a.mcap", [[1]], {"nfpo": {"robot": "go2"}})
    path.write_bytes(path.read_bytes()[:-100])
    repair_file(path)
    with path.open("rb") as stream:
        reader = SeekingReader(stream, validate_crcs=True)
        assert [(record.name, record.metadata) for record in reader.iter_metadata()] == [("nfpo", {"robot": "go2"})]
        assert reader.get_summary().statistics.message_count == 1
        assert reader.get_header().profile == "ros2"


def test_damage_in_the_middle_is_evidence(tmp_path):
    path = write(tmp_path / "a.mcap", [[1, 2], [3, 4], [5]])
    data = bytearray(path.read_bytes())
    data[chunk_offsets(data)[1] + 60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FlightLogError, match="damaged at byte .* --output"):
        repair_file(path)
    assert path.read_bytes() == data
    repair = repair_file(path, tmp_path / "out.mcap")
    assert values(read_indexed(tmp_path / "out.mcap")) == [1, 2, 5]
    assert repair.messages == 3 and repair.problems and path.read_bytes() == data
    with pytest.raises(FlightLogError, match="exists"):
        repair_file(path, tmp_path / "out.mcap")


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    path = write(tmp_path / "a.mcap", [[1]])
    with pytest.raises(FlightLogError, match="cannot write .*nowhere"):
        repair_file(path, tmp_path / "nowhere" / "b.mcap")


# A recorder that is killed.

RECORDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.deploy.flight_log.conftest import QUICK, counter
from nfpo_deploy.flight_log.incident import Trigger
from nfpo_deploy.flight_log.recorder import FlightLog, LogSettings
log = FlightLog(Path(sys.argv[1]), LogSettings(**QUICK), {"robot": "go2"}, lambda text: None)
print(log.session, flush=True)
value = 0
while True:
    value += 1
    now = time.time_ns()
    log.write([counter(value, now)])
    if len(sys.argv) > 3 and value == int(sys.argv[3]):
        log.incident(Trigger("fault", "emergency stop by test", "WALK", time.monotonic_ns(), now))
        print("incident", flush=True)
    time.sleep(0.002)
"""
REPO = Path(__file__).resolve().parents[3]


class Killed:
    """A recorder of its own process; after `kill` its folder is what a crash leaves."""

    def __init__(self, root, *arguments):
        command = [sys.executable, "-c", RECORDER, str(root), str(REPO), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO)
        self.session = Path(self.process.stdout.readline().strip())

    def started(self):
        return bool(places.segments_in(self.session))

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        return time.time_ns()


@pytest.mark.parametrize("seconds", [0.07, 0.4, 0.9, 1.7])
def test_what_was_taken_half_a_second_before_a_kill_is_in_the_files(tmp_path, seconds):
    recorder = Killed(tmp_path)
    start_ns = time.time_ns()
    time.sleep(seconds)
    killed_ns = recorder.kill()
    messages = [m for path in places.segments_in(recorder.session) for m in read_cut(path)]
    times = [message.log_time for _, _, message in messages]
    if seconds > 0.6:
        assert times and killed_ns - times[-1] < 500_000_000
    numbers = values(messages)
    # The ring holds less than all when it runs longer than that.
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    if seconds < 1.2 and numbers:
        assert numbers[0] == 1 and times[0] - start_ns < 500_000_000


def test_the_next_start_repairs_what_a_kill_left_and_keeps_its_end(tmp_path, settings, reports):
    recorder = Killed(tmp_path)
    time.sleep(1.0)
    while all(has_end(path) for path in places.segments_in(recorder.session)):
        time.sleep(0.01)  # between two files
    killed_ns = recorder.kill()
    before = [m for path in places.segments_in(recorder.session) for m in read_cut(path)]
    log = FlightLog(tmp_path, settings, {"robot": "go2"}, reports.append)
    deadline = time.monotonic() + 10
    while not places.incidents_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    log.close()
    (incident,) = places.incidents_in(tmp_path)
    record = json.loads((incident / "incident.json").read_text())
    assert record["kind"] == "cut_off" and record["state"] == "cut off" and record["robot"] == "go2"
    assert record["session"] == recorder.session.name
    kept = [m for path in places.segments_in(incident) for m in read_indexed(path)]
    assert values(kept)[-1] == values(before)[-1]
    # The last 0.6 s before the end, as the settings ask.
    assert kept[-1][2].log_time - kept[0][2].log_time >= 600_000_000
    assert killed_ns - kept[-1][2].log_time < 500_000_000
    assert any("was cut off" in line for line in reports)
    assert json.loads((recorder.session / "session.json").read_text())["state"] == "recovered"


def test_an_incident_that_was_being_recorded_survives_the_kill(tmp_path, reports):
    recorder = Killed(tmp_path, 200)
    recorder.process.stdout.readline()
    time.sleep(0.25)
    recorder.kill()
    (incident,) = places.incidents_in(tmp_path)
    assert json.loads((incident / "incident.json").read_text())["state"] == "recording"
    assert recover_sessions(tmp_path, 0.6, reports.append) == [incident]
    record = json.loads((incident / "incident.json").read_text())
    assert record["state"] == "cut off" and record["kind"] == "fault" and record["mode_before"] == "WALK"
    assert [event["kind"] for event in record["events"]] == ["fault", "cut_off"]
    assert record["segments"] == [path.name for path in places.segments_in(incident)]
    numbers = values([m for path in places.segments_in(incident) for m in read_indexed(path)])
    assert 200 in numbers and numbers == list(range(numbers[0], numbers[-1] + 1))
    # Nothing is left to do.
    assert recover_sessions(tmp_path, 0.6, reports.append) == []


def test_a_living_session_is_left_alone(tmp_path, settings, reports):
    log = FlightLog(tmp_path, settings, {}, reports.append)
    log.write([counter(1)])
    time.sleep(0.3)
    path = places.segments_in(log.session)[0]
    before = path.stat().st_ino
    assert recover_sessions(tmp_path, 0.6, reports.append) == []
    assert path.stat().st_ino == before and not places.incidents_in(tmp_path)
    log.close()


def test_a_session_that_ended_well_makes_no_incident(tmp_path, settings, reports):
    log = FlightLog(tmp_path, settings, {}, reports.append)
    log.write([counter(1)])
    log.close()
    assert all(has_end(path) for path in places.segments_in(log.session))
    assert recover_sessions(tmp_path, 0.6, reports.append) == []
    assert not places.incidents_in(tmp_path)


def test_damage_of_another_kind_is_kept_as_it_is(tmp_path, reports):
    recorder = Killed(tmp_path)
    while len(chunk_offsets(places.segments_in(recorder.session)[-1].read_bytes() if recorder.started() else b"")) < 3:
        time.sleep(0.01)
    recorder.kill()
    path = places.segments_in(recorder.session)[-1]
    data = bytearray(path.read_bytes())
    offsets = chunk_offsets(data)
    if has_end(path):  # killed between two files
        data = data[: offsets[-1]]
    data[offsets[0] + 60] ^= 0xFF
    path.write_bytes(data)
    (incident,) = recover_sessions(tmp_path, 0.6, reports.append)
    assert (incident / path.name).read_bytes() == data
    assert any("stays as it is" in line for line in reports)
