"""`nfpo preflight --wiggle` as a program, against a simulated robot that lies limp, over DDS."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("unitree_sdk2py")
pytest.importorskip("mujoco")

from nfpo_deploy.guard.link import BRIDGE_ROLE, Mailbox, guard_role, is_served
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.family import GO
from nfpo_deploy.transport.lowcmd_watch import GUARD, LOW_CMD_TOPIC
from nfpo_deploy.transport.mapping import LowCmdDecoder
from nfpo_deploy.transport.motion_switcher import MotionSwitcherClient
from robots.loader import load_robot
from sim2real_checks.robot_sim.control import SimControl

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = 48
SPEC = load_robot("go2")
SETTLED_S = 2.5


class Witness:
    """Everything that is commanded, with who commands it."""

    def __init__(self):
        self.participant = DdsParticipant("lo", DOMAIN)
        self.reader = self.participant.reader(LOW_CMD_TOPIC, GO.low_cmd_type(), depth=512)
        self.decoder = LowCmdDecoder(SPEC)

    def take(self):
        """(UserData, command) of each, oldest first."""
        taken = self.reader.take_with_handles()
        return [(self.reader.publisher(handle).user_data, self.decoder.decode(data)) for data, handle in taken]

    def until(self, holds, timeout=40.0):
        """Wait for a command of which `holds(user_data, command)`; returns it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for user_data, command in self.take():
                if holds(user_data, command):
                    return command
            time.sleep(0.02)
        raise AssertionError(f"no such command within {timeout} s")


@pytest.fixture
def robot(tmp_path):
    """Control socket of a robot whose motors are off, after it has come to rest."""
    words = ["--domain-id", str(DOMAIN), "--control", str(tmp_path / "control"), "--builtin-mode", ""]
    process = subprocess.Popen(
        [sys.executable, "-m", "sim2real_checks.robot_sim", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert "on DDS domain" in process.stdout.readline()
    time.sleep(SETTLED_S)
    try:
        with SimControl(tmp_path / "control", timeout=10.0) as control:
            yield control
    finally:
        process.terminate()
        process.communicate(timeout=15)


@pytest.fixture
def witness():
    witness = Witness()
    yield witness
    witness.participant.close()


@pytest.fixture
def start(tmp_path):
    """Start the program; one that a test leaves behind is ended."""
    started = []

    def start(*words):
        command = [
            sys.executable,
            "-m",
            "nfpo_deploy.cli",
            "preflight",
            "--interface",
            "lo",
            "--domain-id",
            str(DOMAIN),
        ]
        process = subprocess.Popen(
            [*command, "--seconds", "1.3", "--json", str(tmp_path / "result.json"), "--wiggle", *words],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=30)


@pytest.fixture
def run(start, tmp_path):
    """Run it to its end: exit status, checks by name, output."""

    def run(*words):
        process = start("--yes", *words)
        out = process.communicate(timeout=150)[0]
        file = tmp_path / "result.json"
        checks = json.loads(file.read_text())["checks"] if file.exists() else []
        return process.returncode, {check["check"]: check for check in checks}, out

    return run


def nobody_is_left():
    roles = (BRIDGE_ROLE, guard_role(0), guard_role(1))
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline and any(is_served(role, "lo", DOMAIN) for role in roles):
        time.sleep(0.1)
    return not any(is_served(role, "lo", DOMAIN) for role in roles)


def stiff(user_data, command):
    return command is not None and command.stiffness.max() > 45.0


@pytest.mark.slow
def test_a_sound_robot_passes_and_is_left_damped(robot, witness, run):
    status, checks, out = run()
    assert status == 0, out
    moved = {name.removeprefix("wiggle "): check for name, check in checks.items() if name.startswith("wiggle ")}
    assert list(moved) == list(SPEC.joint_names)
    assert {check["result"] for name, check in moved.items() if "calf" not in name} == {"pass"}, out
    assert {check["result"] for check in moved.values()} <= {"pass", "warn"}
    assert "FL_thigh_joint: front left leg moves" in out
    last = witness.take()[-1][1]
    assert not last.stiffness.any() and (last.damping > 0).all()
    assert nobody_is_left()


@pytest.mark.slow
def test_wrong_cables_and_dead_motors_are_named(robot, run):
    robot.send("limp_motor", joint="FR_hip_joint")
    robot.send("block_joint", joint="FR_thigh_joint")
    robot.send("swap_joints", joint="FL_thigh_joint", other="RL_thigh_joint")
    status, checks, out = run()
    assert status == 1, out
    said = {
        name.removeprefix("wiggle "): check["measured"] for name, check in checks.items() if check["result"] == "fail"
    }
    assert "does not answer" in said["FR_hip_joint"], out
    assert "the motor pushes and the encoder shows no motion" in said["FR_thigh_joint"]
    assert "RL_thigh_joint moved instead" in said["FL_thigh_joint"]
    assert set(said) == {"FR_hip_joint", "FR_thigh_joint", "FL_thigh_joint", "RL_thigh_joint"}, out


@pytest.mark.slow
def test_a_flipped_sign_is_named_as_soon_as_the_joint_runs_away(robot, witness, run):
    robot.send("flip_joint", joint="RR_hip_joint")
    status, checks, out = run()
    failed = {name: check["measured"] for name, check in checks.items() if check["result"] == "fail"}
    assert status == 1 and set(failed) == {"wiggle RR_hip_joint"}, out
    assert (
        "rad away from its rest" in failed["wiggle RR_hip_joint"] and checks["wiggle RL_calf_joint"]["result"] == "skip"
    )
    assert not witness.take()[-1][1].stiffness.any() and nobody_is_left()


@pytest.mark.parametrize("how", [pytest.param("SIGINT", marks=pytest.mark.slow), "SIGTERM", "remote"])
def test_it_ends_in_damping_when_asked(robot, witness, start, how):
    process = start("--yes")
    witness.until(stiff)
    if how == "remote":
        robot.send("remote", buttons="L2+B")
    else:
        process.send_signal(getattr(signal, how))
    out = process.communicate(timeout=30)[0]
    assert process.returncode == 1 and ("L2+B held" if how == "remote" else f"{how} received") in out, out
    _, last = witness.take()[-1]
    assert not last.stiffness.any() and (last.damping > 0).all() and nobody_is_left()


def test_a_killed_one_is_replaced_by_a_guard(robot, witness, start):
    process = start("--yes")
    witness.until(stiff)
    os.kill(process.pid, signal.SIGKILL)
    command = witness.until(lambda user_data, command: user_data.startswith(GUARD) and not command.stiffness.any(), 5.0)
    assert (command.damping > 0).all() and nobody_is_left()


@pytest.mark.slow
def test_a_suspended_one_damps_when_it_comes_back(robot, witness, start):
    process = start("--yes")
    witness.until(stiff)
    process.send_signal(signal.SIGSTOP)
    witness.until(lambda user_data, command: user_data.startswith(GUARD), 5.0)
    process.send_signal(signal.SIGCONT)
    out = process.communicate(timeout=30)[0]
    assert process.returncode == 1 and "the bridge paused" in out, out
    after = [command for user_data, command in witness.take() if not user_data.startswith(GUARD)]
    assert after and not after[-1].stiffness.any() and nobody_is_left()


def test_another_program_that_commands_the_motors_ends_it(robot, witness, start):
    process = start("--yes")
    witness.until(stiff)
    robot.send("foreign_controller", duration=1.0)
    out = process.communicate(timeout=30)[0]
    # The gate and the watchdog's monitor both see it; which one speaks first is chance.
    assert process.returncode == 1 and ("another program publishes" in out or "LowCmds of another program" in out), out


def refused(run, witness, said, status=1):
    code, checks, out = run()
    assert code == status and said in out, out
    assert not [user_data for user_data, _ in witness.take() if user_data.startswith(b"nfpo")]


def test_it_refuses_beside_a_bridge_an_active_controller_and_another_commander(robot, witness, run):
    mailbox = Mailbox(BRIDGE_ROLE, "lo", DOMAIN)
    try:
        refused(run, witness, "already running on this computer: sdk_bridge")
    finally:
        mailbox.close()
    robot.send("foreign_controller")
    refused(run, witness, "nothing was moved: motor commands")
    robot.clear()
    MotionSwitcherClient(witness.participant).select_mode("normal", 5.0)
    refused(run, witness, "built-in controller: 'normal' is active")


def test_a_tilted_robot_is_refused(robot, witness, run):
    robot.send("tilt_lie", angle=0.3)
    refused(run, witness, "nothing was moved: ")


def test_it_asks_before_anything_moves(robot, witness, start):
    out = start().communicate(timeout=40)[0]
    assert "confirm it on a terminal, or consent with --yes" in out and witness.take() == []
