"""The gate moves a simulated Go2: up from the belly, down again, and limp after faults while standing."""

from dataclasses import dataclass, field

import mujoco
import numpy as np
import pytest

from nfpo_deploy.safety.gate import Gate
from nfpo_deploy.types import GatePhase, JointCommand, Mode, RobotState, SafetyPermit
from robots.mjcf import build_model


@dataclass
class Peaks:
    """Largest values since the start of one piece of the story."""

    speed: float = 0.0
    torque: float = 0.0
    fall_speed: float = 0.0
    stiffness: list = field(default_factory=list)


class SimulatedRobot:
    """MuJoCo Go2 with a PD law at every physics step (1 kHz), gate at 500 Hz, permits at 50 Hz."""

    def __init__(self, spec):
        self.spec, self.gate = spec, Gate(spec)
        self.model = build_model(spec.name, collision="full", timestep=0.001)
        self.data = mujoco.MjData(self.model)
        joints = [self.model.joint(name) for name in spec.joint_names]
        self.q_index = [int(joint.qposadr[0]) for joint in joints]
        self.v_index = [int(joint.dofadr[0]) for joint in joints]
        owners = self.model.actuator_trnid[:, 0].tolist()
        self.actuators = [owners.index(joint.id) for joint in joints]
        self.tick = self.seq = 0
        self.permit = self.permit_ns = None
        self.command = self.command_ns = None
        self.place(spec.crouch_pose, 0.12)

    def place(self, pose, height, quat=(1.0, 0.0, 0.0, 0.0)):
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:7] = [0.0, 0.0, height, *quat]
        self.data.qpos[self.q_index] = pose
        mujoco.mj_forward(self.model, self.data)

    @property
    def q(self):
        return self.data.qpos[self.q_index].copy()

    @property
    def height(self):
        return float(self.data.qpos[2])

    def state(self, now):
        data, n = self.data, self.spec.num_joints
        return RobotState(
            self.tick, now, data.qpos[3:7].copy(), data.qvel[3:6].copy(), np.array([0, 0, 9.81]), self.q,
            data.qvel[self.v_index].copy(), data.actuator_force[self.actuators].copy(), np.full(n, 30.0),
            np.zeros(4), 80.0, 28.0, bytes(40),
        )  # fmt: skip

    def run(self, mode, seconds, *, lose=(), target=None) -> Peaks:
        """Let time pass; `lose` names streams that are silent, `target` is a policy's pose at 50 Hz."""
        peaks, limit, n = Peaks(), self.spec.torque_limit, self.spec.num_joints
        for _ in range(round(seconds * 500)):
            self.tick += 1
            now = 10**9 + self.tick * 2_000_000
            if self.tick % 10 == 0:
                self.seq += 1
                if "permit" not in lose:
                    self.permit, self.permit_ns = SafetyPermit(self.seq, mode), now
                if target is not None and "command" not in lose:
                    gains = self.spec.stand_gains
                    self.command = JointCommand(
                        self.seq, self.tick, now, target(now * 1e-9), np.zeros(n), gains.stiffness, gains.damping,
                        np.zeros(n),
                    )  # fmt: skip
                    self.command_ns = now
            if "state" not in lose:
                self.last_state = self.state(now)
            out = self.gate.step(now, self.last_state, self.permit, self.permit_ns, self.command, self.command_ns)
            peaks.stiffness.append(out.stiffness[0])
            for _ in range(2):
                q, dq = self.data.qpos[self.q_index], self.data.qvel[self.v_index]
                torque = out.tau + out.stiffness * (out.q - q) + out.damping * (out.dq - dq)
                self.data.ctrl[self.actuators] = np.clip(torque, -limit, limit)
                mujoco.mj_step(self.model, self.data)
                peaks.speed = max(peaks.speed, float(np.abs(self.data.qvel[self.v_index]).max()))
                peaks.torque = max(peaks.torque, float(np.abs(torque).max()))
                peaks.fall_speed = max(peaks.fall_speed, -float(self.data.qvel[2]))
        return peaks

    def stand(self):
        self.run(Mode.DAMP, 0.5)
        peaks = self.run(Mode.STAND, self.spec.safety.stand_duration + 0.3)
        self.run(Mode.READY, 0.5)
        return peaks


@pytest.fixture
def robot(spec):
    return SimulatedRobot(spec)


def test_stands_up_from_the_belly_holds_and_sits(robot, spec):
    robot.run(Mode.DAMP, spec.safety.damp_ramp + spec.safety.damp_duration + 0.2)
    assert robot.gate.phase is GatePhase.ZERO_TORQUE and robot.height < 0.1
    peaks = robot.stand()
    # Measured 0.8 rad/s and 10.3 N·m of 23.7; a stand-up that jerks or saturates shows here.
    assert peaks.speed < 1.5 and peaks.torque < 15.0
    assert robot.gate.stand_reached and robot.height == pytest.approx(spec.base_height, abs=0.03)
    assert np.abs(robot.q - spec.default_pose).max() < 0.15
    hold = robot.run(Mode.READY, 2.0)
    assert hold.speed < 0.05 and robot.height == pytest.approx(spec.base_height, abs=0.03)
    sit = robot.run(Mode.SIT, spec.safety.sit_duration + 0.5)
    assert robot.gate.sit_reached and robot.height < 0.12 and sit.speed < 2.0 and sit.fall_speed < 0.4
    damp = robot.run(Mode.DAMP, 1.0)
    assert robot.height < 0.1 and damp.speed < 2.0
    assert not robot.gate.tripped and robot.gate.last_trip == ""


@pytest.mark.parametrize("fault", ["state", "permit", "FAULT"])
def test_goes_limp_without_spikes_after_a_fault_while_standing(robot, spec, fault):
    robot.stand()
    mode = Mode.FAULT if fault == "FAULT" else Mode.READY
    peaks = robot.run(mode, 3.0, lose=() if fault == "FAULT" else (fault,))
    assert robot.gate.phase is GatePhase.DAMPING
    if fault == "FAULT":
        assert robot.gate.reason == "mode FAULT"
    else:
        assert robot.gate.tripped and f"{fault} stale" in robot.gate.reason
    # Measured 2.1 rad/s and 6.4 N·m. A free fall of 0.2 m would end at 2 m/s.
    assert peaks.speed < 4.0 and peaks.torque < 12.0 and peaks.fall_speed < 0.8
    assert robot.height < 0.1 and np.abs(robot.data.qvel).max() < 0.05
    # The robot gets up again from where it fell, but only through DAMP.
    robot.run(Mode.READY, 0.2)
    assert robot.height < 0.1
    robot.stand()
    assert robot.gate.stand_reached and robot.height == pytest.approx(spec.base_height, abs=0.03)


def test_loss_of_the_command_in_walk_ends_in_damping(robot, spec):
    robot.stand()

    def bob(t):
        return spec.default_pose + 0.1 * np.sin(2 * np.pi * t) * np.tile([0.0, 1.0, -2.0], 4)

    walk = robot.run(Mode.WALK, 2.0, target=bob)
    assert robot.gate.phase is GatePhase.TRACKING and walk.speed > 0.5, "the robot must have moved"
    peaks = robot.run(Mode.WALK, 2.0, target=bob, lose=("command",))
    assert robot.gate.tripped and "joint command stale" in robot.gate.reason
    assert peaks.speed < 4.0 and robot.height < 0.1
    robot.run(Mode.WALK, 0.5, target=bob)
    assert robot.height < 0.1, "fresh commands must not make it rise"


def test_back_to_the_held_pose_from_the_middle_of_a_move(robot, spec):
    robot.stand()
    robot.run(Mode.WALK, 1.0, target=lambda t: spec.default_pose + np.tile([0.0, 0.3, -0.5], 4))
    settle = robot.run(Mode.READY, spec.safety.settle_duration + 0.3)
    assert robot.gate.phase is GatePhase.HOLDING and robot.gate.stand_reached
    assert settle.speed < 3.0 and np.abs(robot.q - spec.default_pose).max() < 0.15


def test_stand_up_is_refused_on_its_back(robot, spec):
    robot.place(spec.crouch_pose, 0.12, quat=(0.0, 1.0, 0.0, 0.0))
    robot.run(Mode.DAMP, 1.0)
    peaks = robot.run(Mode.STAND, 1.0)
    assert robot.gate.tripped and "tilt" in robot.gate.reason and max(peaks.stiffness) == 0.0
