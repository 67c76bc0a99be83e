"""Flights of the simulated robot, written by the real flight-log writer; messages are encoded by mcap_ros2, from the
definitions in `ros2_ws`, so no code of ours has a say in the bytes that the reader gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from mcap_ros2._dynamic import serialize_dynamic

from nfpo_deploy.contract.clearance import policy_id
from nfpo_deploy.flight_log.schemas import Definition, definition_of_record
from nfpo_deploy.flight_log.segment import Channel, Entry, Segment
from nfpo_deploy.transport.codec import GO_LOW_CMD
from nfpo_deploy.transport.mapping import LowCmdEncoder
from nfpo_deploy.types import Mode
from sim2real_checks.validation.run import run_scenario

MESSAGES = Path(__file__).parents[2] / "ros2_ws/src/nfpo_msgs/msg"
UTC_NS = 10**18
HEADER = "\n".join([
    "=" * 80, "MSG: std_msgs/Header", "builtin_interfaces/Time stamp", "string frame_id",
    "=" * 80, "MSG: builtin_interfaces/Time", "int32 sec", "uint32 nanosec", "",
])  # fmt: skip
VECTOR = "=" * 80 + "\nMSG: geometry_msgs/Vector3\nfloat64 x\nfloat64 y\nfloat64 z\n"
TWIST = "geometry_msgs/Vector3 linear\ngeometry_msgs/Vector3 angular\n" + VECTOR


class Topic:
    """A channel and its encoder."""

    def __init__(self, topic, name, text):
        self.channel = Channel(topic, Definition(name, text))
        self._encode = serialize_dynamic(name, text)[name]
        self.count = 0

    def entry(self, now_ns, values):
        self.count += 1
        return Entry(self.channel, UTC_NS + now_ns, UTC_NS + now_ns - 1000, self.count, self._encode(values))


def own(topic, name):
    return Topic(topic, f"nfpo_msgs/msg/{name}", (MESSAGES / f"{name}.msg").read_text() + HEADER)


def vector(x=0.0, y=0.0, z=0.0):
    return {"x": x, "y": y, "z": z}


def header(now_ns):
    now_ns += UTC_NS
    return {"stamp": {"sec": now_ns // 10**9, "nanosec": now_ns % 10**9}, "frame_id": "odom"}


@dataclass
class Flight:
    """Messages of a flight as (topic, time in ns, values), to be damaged and written."""

    spec: object
    policy: object
    rows: list = field(default_factory=list)
    raw: list = field(default_factory=list)
    """Entries that are written as they are."""

    def of(self, topic):
        return [values for name, _, values in self.rows if name == topic]

    def write(self, path, metadata=None):
        """One finished segment; returns its path."""
        topics = {
            "command": own("/nfpo/joint_command", "JointCommand"),
            "estimate": own("/nfpo/state_estimate", "StateEstimate"), "permit": own("/nfpo/permit", "SafetyPermit"),
            "state": own("/nfpo/robot_state", "RobotState"),
            "velocity": Topic("/cmd_vel", "geometry_msgs/msg/Twist", TWIST),
        }  # fmt: skip
        entries = [topics[name].entry(now_ns, values) for name, now_ns, values in self.rows] + self.raw
        record = {
            "robot": self.spec.name, "robot_sha256": self.spec.sha256, "policy": str(self.policy.path),
            "policy_sha256": self.policy.sha256,
        }  # fmt: skip
        segment = Segment(path, 0, {"nfpo": record if metadata is None else metadata})
        for k, entry in enumerate(sorted(entries, key=lambda entry: entry.log_ns)):
            segment.add(entry)
            if k % 500 == 0:
                segment.flush()
        segment.finish(1)
        return path


class Tap:
    """Notes what the parts of a `DeployedStack` say, as the recorder hears the nodes."""

    def __init__(self, stack, flight, states=False):
        self.stack, self.flight, self.states = stack, flight, states
        self.last = SimpleNamespace(estimate=None, command=None, permit=None)
        self.encoder = LowCmdEncoder(flight.spec)
        self.bridge = Channel("rt/lowcmd", definition_of_record(GO_LOW_CMD), {"publisher": "bridge", "pid": "7"})
        self.cycle, stack.cycle = stack.cycle, self._cycle

    def _cycle(self, fresh, operator):
        answer = self.cycle(fresh, operator)
        stack, now = self.stack, self.stack.now_ns
        rows, n = self.flight.rows, self.flight.spec.num_joints
        crc = self.flight.spec.joint_names_crc
        if stack._cycle % stack._policy_every == 0:
            rows.append(("velocity", now - 2000, {"linear": vector(operator.vx, operator.vy),
                                                  "angular": vector(z=operator.wz)}))  # fmt: skip
        if self.states and fresh is not None:
            rows.append(("state", now, {
                "header": header(now), "received_ns": now, "tick": fresh.tick, "joint_names_crc": crc,
                "quat_wxyz": list(fresh.quat_wxyz), "gyro_b": list(fresh.gyro_b), "accel_b": list(fresh.accel_b),
                "q": list(fresh.q), "dq": list(fresh.dq), "tau_est": list(fresh.tau_est), "temperature": [30.0] * n,
                "foot_force": list(fresh.foot_force), "battery_soc": 90.0, "voltage": 29.0,
                "wireless_remote": [0] * 40, "mode_machine": 0,
            }))  # fmt: skip
            data = self.encoder.encode(answer)
            self.flight.raw.append(Entry(self.bridge, UTC_NS + now, UTC_NS + now, stack._cycle, data))
        estimate = stack.estimate
        if estimate is not self.last.estimate:
            arrays = {name: list(getattr(estimate, name)) for name in (
                "quat_wxyz", "ang_vel_b", "lin_vel_b", "lin_vel_std", "position_w", "contact", "q", "dq")}  # fmt: skip
            rows.append(("estimate", now, {
                "header": header(now), "received_ns": estimate.received_ns, "tick": estimate.tick,
                "joint_names_crc": crc, **arrays,
            }))  # fmt: skip
        command = stack.joint_command
        if command is not self.last.command:
            runner = stack.runner
            arrays = {name: list(getattr(command, name)) for name in ("q", "dq", "stiffness", "damping", "tau")}
            rows.append(("command", now + 1000, {
                "header": header(now), "seq": command.seq, "state_tick": command.state_tick,
                "state_received_ns": command.state_received_ns, "joint_names_crc": crc,
                "policy_id": policy_id(runner.policy.sha256), **arrays, "inference_ms": 0.1, "observation_ok": True,
                "output_ok": True, "step": runner.steps, "velocity": list(stack.given.as_array()),
                "observation": [float(v) for v in runner.last_observation],
            }))  # fmt: skip
        permit = stack._permit
        if permit is not self.last.permit:
            rows.append(("permit", now, {
                "header": header(now), "seq": permit.seq, "mode": int(permit.mode), "reason": permit.reason
            }))  # fmt: skip
        self.last.estimate, self.last.command, self.last.permit = estimate, command, permit
        return answer


def fly(spec, policy, scenario, seed=0, states=False):
    """A flight from lying down to the end of a scenario; `states` for the whole wire, too."""
    flight = Flight(spec, policy)
    trace = run_scenario(spec, policy, scenario, seed, lambda stack: Tap(stack, flight, states))
    assert trace.mode == Mode.WALK.name and not trace.fell, trace.ended
    return flight


def without(values, **changes):
    """A copy of a message with some fields changed."""
    return {
        **values,
        **{name: np.asarray(v).tolist() if isinstance(v, np.ndarray) else v for name, v in changes.items()},
    }
