"""The wiggle's stack against the simulated body, in simulated time and without a wire."""

import numpy as np

from nfpo_deploy.types import RobotState
from robots.loader import load_robot
from sim2real_checks.preflight.wiggle_stack import Surroundings, WiggleStack
from sim2real_checks.robot_sim.config import SimConfig
from sim2real_checks.robot_sim.motors import MotorBank
from sim2real_checks.robot_sim.plant import Plant

SPEC = load_robot("go2")
WELL = Surroundings(guards_alive=2)
PERIOD_NS = 2_000_000


class WiggleRig:
    """A Go2 with limp motors that has come to rest, lying or hanging.

    `report` maps the true joint angles, speeds and torques to those that LowState shows. `pose` (qpos) spares the fall.
    """

    def __init__(self, hanging=False, report=lambda values: values, pose=None):
        self.plant, self.motors = (
            Plant(SPEC, SimConfig(initial_pose="default" if hanging else "crouch")),
            MotorBank(SPEC),
        )
        self.report = report
        self.random = np.random.default_rng(0)
        self.now_ns = 10_000_000_000
        self.commands = []
        self.motors.off()
        if hanging:
            self.plant.lift(0.4)
        if pose is not None:
            self.plant.data.qpos[:] = pose
        self.pass_time(4.0 if pose is None else 0.1)
        self.rest = np.mean([self.state().q for _ in range(100)], axis=0)
        self.stack = WiggleStack(SPEC, self.rest)

    def pass_time(self, seconds):
        for _ in range(round(seconds * 1000)):
            self.plant.begin()
            self.plant.finish(self.motors.step(self.plant.q, self.plant.dq))

    def state(self, **changes):
        quat, gyro, accel = self.plant.imu()
        q, dq, tau = (self.report(values.copy()) for values in (self.plant.q, self.plant.dq, self.motors.torque))
        values = {
            "tick": self.now_ns // 1_000_000, "received_ns": self.now_ns, "quat_wxyz": quat, "gyro_b": gyro,
            "accel_b": accel, "q": q + self.random.normal(0, 0.001, 12), "dq": dq + self.random.normal(0, 0.05, 12),
            "tau_est": tau + self.random.normal(0, 0.1, 12), "temperature": np.full(12, 30.0),
            "foot_force": np.zeros(4), "battery_soc": 80.0, "voltage": 29.0, "wireless_remote": bytes(40),
        }  # fmt: skip
        return RobotState(**(values | changes))

    def cycle(self, around=WELL, fresh=True, **changes):
        self.now_ns += PERIOD_NS
        command = self.stack.cycle(self.now_ns, self.state(**changes) if fresh else None, around)
        self.commands.append(command)
        if self.stack.gate.write:
            self.motors.command(command.q, command.dq, command.stiffness, command.damping, command.tau)
        self.pass_time(0.002)
        return command

    def run(self, seconds=120.0, until=lambda: False, **options):
        """Until it is over, or `until` holds; at most so many seconds."""
        for _ in range(round(seconds * 500)):
            if self.stack.over or until():
                return
            self.cycle(**options)


def still(**changes):
    """A state of a Go2 that lies limp and level."""
    none = np.zeros(12)
    values = {
        "tick": 1000, "received_ns": 0, "quat_wxyz": np.array([1.0, 0.0, 0.0, 0.0]), "gyro_b": np.zeros(3),
        "accel_b": np.array([0.0, 0.0, 9.81]), "q": SPEC.crouch_pose, "dq": none, "tau_est": none,
        "temperature": np.full(12, 30.0), "foot_force": np.zeros(4), "battery_soc": 80.0, "voltage": 29.0,
        "wireless_remote": bytes(40),
    }  # fmt: skip
    return RobotState(**(values | changes))
