"""The whole of preflight against a simulated robot in a process of its own, with a planted fault for each check."""

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("unitree_sdk2py")
pytest.importorskip("mujoco")

from nfpo_deploy.guard.link import BRIDGE_ROLE, Mailbox
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.family import GO
from nfpo_deploy.transport.lowcmd_watch import LOW_CMD_TOPIC
from robots.loader import load_robot
from sim2real_checks.preflight import command, listen
from sim2real_checks.preflight.command import check_all, preflight
from sim2real_checks.preflight.finding import Result
from sim2real_checks.robot_sim.control import SimControl

ROOT = Path(__file__).resolve().parents[2]
DOMAIN, EMPTY_DOMAIN = 45, 46
SPEC = load_robot("go2")
PASS, WARN, FAIL, SKIP = Result.PASS, Result.WARN, Result.FAIL, Result.SKIP
BUSY = {"LowState", "clock", "computer"}
"""Checks that a busy computer may spoil."""


@contextmanager
def simulated(*words):
    """A simulated robot in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sim2real_checks.robot_sim", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert "on DDS domain" in process.stdout.readline()
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=15)


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    """Control socket of a robot as after its boot: sensor noise, built-in controller active."""
    path = tmp_path_factory.mktemp("sim") / "control"
    with simulated("--domain-id", str(DOMAIN), "--control", str(path)), SimControl(path, timeout=10.0) as control:
        yield control


@pytest.fixture
def checked(robot):
    """Run all checks under faults, those of `later` for 0.2 s, one second after the start; findings by name."""
    robot.clear()

    def checked(*faults, later=(), seconds=1.3, domain=DOMAIN):
        for name, parameters in faults:
            robot.request(name, **parameters)
        timers = [threading.Timer(1.0, robot.request, [name, 0.2], parameters) for name, parameters in later]
        for timer in timers:
            timer.start()
        found = {finding.check: finding for finding in check_all(SPEC, "lo", domain, seconds)}
        for timer in timers:
            timer.join()
        return found

    yield checked
    robot.clear()


def assert_only(found, **expected):
    """These checks came to that; all others passed, the built-in controller warned as it does after every boot."""
    names = {name.replace("_", " "): result for name, result in expected.items()}
    for check, finding in found.items():
        usual = {WARN} if check == "built-in controller" else set(Result) if check in BUSY else {PASS}
        assert finding.result in ({names[check]} if check in names else usual), finding
        assert bool(finding.remedy) == (finding.result in (WARN, FAIL)), finding
    assert set(names) <= set(found)


def test_a_sound_robot_is_ready_and_nothing_but_discovery_and_checkmode_was_sent(robot, monkeypatch, tmp_path, capsys):
    robot.clear()
    topics, file = [], tmp_path / "preflight.json"
    made = DdsParticipant.writer

    def writer(self, topic, *arguments):
        topics.append(topic)
        return made(self, topic, *arguments)

    monkeypatch.setattr(DdsParticipant, "writer", writer)
    witness = DdsParticipant("lo", DOMAIN)
    commands = witness.reader(LOW_CMD_TOPIC, GO.low_cmd_type())
    try:
        assert (
            preflight(["--interface", "lo", "--domain-id", str(DOMAIN), "--json", str(file), "--seconds", "1.3"]) == 0
        )
        assert commands.publishers() == [] and commands.take() == []
    finally:
        witness.close()
    assert topics == ["rt/api/motion_switcher/request"]
    result = json.loads(file.read_text())
    assert result["verdict"] == "warn" and (result["domain_id"], result["robot"]) == (DOMAIN, "go2")
    checks = {check["check"]: check for check in result["checks"]}
    assert checks["LowState"]["values"]["rate"] == pytest.approx(500, rel=0.02)
    assert checks["built-in controller"]["values"] == {"active": "normal"}
    out = capsys.readouterr().out
    assert "✓ identity" in out and "READY, with warnings" in out and "✗" not in out


def test_a_sound_robot_passes_everything(checked):
    found = checked()
    assert_only(found)
    assert found["LowState"].result is not FAIL, found["LowState"]


@pytest.mark.parametrize("robot", ["g1", "h1", "h1_2"])
def test_a_humanoid_in_its_gantry(robot):
    """The LowState of some carries no battery; all else is checked as for a quadruped."""
    spec = load_robot(robot)
    with simulated("--robot", robot, "--domain-id", str(EMPTY_DOMAIN)):
        found = {finding.check: finding for finding in check_all(spec, "lo", EMPTY_DOMAIN, 1.3)}
    swinging = found.pop("gyroscope")
    assert swinging.result is not FAIL, swinging
    if spec.message_family == "unitree_go":
        assert_only(found)
    else:
        assert_only(found, battery=WARN)
        assert f"mode_machine {spec.mode_machines[0]}" in found["identity"].measured
        assert "not reported" in found["battery"].measured


def test_a_b2_is_known_from_a_go2_by_its_battery():
    with simulated("--robot", "b2", "--domain-id", str(EMPTY_DOMAIN)):
        assert_only({finding.check: finding for finding in check_all(load_robot("b2"), "lo", EMPTY_DOMAIN, 1.3)})
        taken_for_go2 = {finding.check: finding for finding in check_all(SPEC, "lo", EMPTY_DOMAIN, 1.3)}
    assert taken_for_go2["identity"].result is FAIL and "V" in taken_for_go2["identity"].measured


def test_a_humanoid_is_not_wiggled():
    with pytest.raises(command.PreflightError, match="quadrupeds .* g1 is none"):
        preflight(["--interface", "lo", "--robot", "g1", "--wiggle", "--yes"])


def test_sensors(checked):
    found = checked(
        ("heat", {"joint": "FL_hip_joint", "temperature": 90}),
        ("battery", {"soc": 5}),
        ("gyro_bias", {"z": 0.3}),
        ("tilt_lie", {"angle": 0.8}),
    )
    assert_only(found, motor_temperatures=FAIL, battery=FAIL, gyroscope=FAIL, orientation=FAIL)
    assert "FL_hip_joint" in found["motor temperatures"].measured and "5 %" in found["battery"].measured
    assert found["gyroscope"].values["mean"][2] == pytest.approx(0.3, abs=0.02)
    assert found["orientation"].values["angle"] == pytest.approx(0.8, abs=0.05)


def test_another_robot_and_another_commander(checked):
    found = checked(("wrong_robot", {}), ("foreign_controller", {}))
    assert_only(found, identity=FAIL, battery=FAIL, motor_commands=FAIL)
    assert "[12, 13, 14" in found["identity"].measured and "robot_sim" in found["motor commands"].measured


def test_lost_states(checked):
    found = checked(("lose_some", {"p": 0.2}))
    assert_only(found, LowState=FAIL)
    assert "states are lost" in found["LowState"].remedy
    assert found["LowState"].values["lost"] == pytest.approx(130, abs=60)


def test_states_that_are_all_corrupt(checked):
    found = checked(("corrupt", {}))
    assert found["checksums"].result is FAIL and found["LowState"].result is FAIL
    assert found["LowState"].remedy == "see checksums" and found["battery"].result is SKIP


def test_a_jump_of_the_clock_and_a_few_corrupt_states(checked):
    found = checked(later=[("clock_jump", {"n": 5000})], seconds=1.6)
    assert_only(found, clock=FAIL)
    found = checked(later=[("bad_crc", {})], seconds=1.6)
    assert_only(found, checksums=FAIL, LowState=FAIL)
    assert found["checksums"].values["crc_errors"] == pytest.approx(100, abs=5)


def test_late_states(checked):
    assert_only(checked(later=[("delay", {"seconds": 0.1})], seconds=1.6), LowState=FAIL)


def test_no_robot_in_this_domain_and_a_second_stack(checked, monkeypatch):
    monkeypatch.setattr(listen, "FIRST_S", 1.0)
    mailbox = Mailbox(BRIDGE_ROLE, "lo", EMPTY_DOMAIN)
    try:
        found = checked(domain=EMPTY_DOMAIN, seconds=0.5)
    finally:
        mailbox.close()
    assert found["second stack"].result is FAIL
    assert found["LowState"].result is FAIL and found["identity"].result is SKIP
    assert found["LowState"].remedy.startswith(f"1. somebody speaks DDS in domain {DOMAIN}: try --domain-id {DOMAIN}")


def test_a_silent_robot_is_told_from_none(checked, monkeypatch):
    monkeypatch.setattr(listen, "FIRST_S", 1.0)
    monkeypatch.setattr(command, "domains_in_use", lambda *_: [])
    found = checked(("lose", {}), seconds=0.5)
    assert found["LowState"].remedy.startswith("1. a publisher is there and silent (process")


def test_a_robot_that_is_moved(checked):
    found = checked(("runaway_motor", {"joint": "FL_calf_joint", "torque": 20.0, "duration": 0.5}))
    assert found["joints at rest"].result is WARN and found["LowState"].result is not FAIL


def test_a_participant_that_announces_itself_rarely(checked):
    code = (
        "import sys, time; from cyclonedds.domain import DomainParticipant; "
        f"it = DomainParticipant({DOMAIN}); print('on', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip() == "on"
        time.sleep(1.5)
        found = checked()
    finally:
        process.kill()
        process.communicate()
    assert_only(found, DDS_participants=WARN)
    assert f"pid {process.pid}" in found["DDS participants"].measured
