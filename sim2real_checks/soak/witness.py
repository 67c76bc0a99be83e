"""What the wire shows, second by second: LowCmds and the simulator's truth. Memory stays flat however long it runs.

`python -m sim2real_checks.soak.witness --domain-id 43 --out wire.jsonl` until SIGINT or SIGTERM.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from pathlib import Path

import numpy as np
import tyro

from nfpo_deploy.realtime import adopt_priority, drop_priority
from nfpo_deploy.transport.codec import GO_SPORT_MODE_STATE
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.family import family_of
from robots.loader import RobotSpec, load_robot

PERIOD_S = 0.02
DEPTH = 2048
"""Four seconds of the wire: how long this program may be kept from running without losing a sample."""
NOMINAL_S = 0.002


class Second:
    """One second of the wire."""

    def __init__(self, start_ns: int) -> None:
        self.start_ns = start_ns
        self.periods: list[float] = []
        self.stiffness = 0.0
        self.height, self.tilt = math.inf, 0.0
        self.states = 0
        self.velocity = np.zeros(3)

    def summary(self) -> dict[str, float | None]:
        """Plain numbers: Hz, ms, m, rad, m/s; None where nothing was seen."""
        periods = np.array(self.periods)
        jitter = np.abs(periods - NOMINAL_S)
        seen = self.states > 0
        return {
            "ns": self.start_ns,
            "lowcmd_rate": float(len(periods)),
            "lowcmd_jitter_p99_ms": float(np.percentile(jitter, 99)) * 1e3 if len(periods) else None,
            "lowcmd_gap_max_ms": float(periods.max()) * 1e3 if len(periods) else None,
            "stiffness": self.stiffness,
            "height_min": self.height if seen else None,
            "tilt_max": self.tilt if seen else None,
            "vx": float(self.velocity[0] / self.states) if seen else None,
            "vy": float(self.velocity[1] / self.states) if seen else None,
            "wz": float(self.velocity[2] / self.states) if seen else None,
        }


def watch(domain_id: int, out: Path, interface: str = "lo", robot: str = "go2") -> None:
    """Write one JSON line for each second until a signal comes.

    Args:
        domain_id: DDS domain of the robot.
        out: file.
        interface: network interface.
        robot: whose joints.
    """
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import SportModeState_

    stops: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stops.append(received))
    adopt_priority(lower_by=1)
    spec = load_robot(robot)
    participant = DdsParticipant(interface, domain_id)
    commands = participant.reader("rt/lowcmd", family_of(spec).low_cmd_type(), depth=DEPTH)
    truths = participant.reader("rt/sportmodestate", SportModeState_, depth=DEPTH)
    # DDS must empty its sockets in time. We need not hurry, for each sample says when it was written.
    drop_priority()
    second, last_ns = Second(time.monotonic_ns()), 0
    with out.open("w") as file:
        while not stops:
            now_ns = time.monotonic_ns()
            samples = commands.take_with_times()
            if samples:
                last_ns = _note_commands(second, samples, last_ns, spec)
            for sample in truths.take():
                _note_truth(second, sample)
            if now_ns - second.start_ns >= 1_000_000_000:
                file.write(json.dumps(second.summary()) + "\n")
                file.flush()
                second = Second(now_ns)
            time.sleep(PERIOD_S)
    participant.close()


def _note_commands(second: Second, samples: list[tuple[bytes, int]], last_ns: int, spec: RobotSpec) -> int:
    times = np.array([last_ns, *(written_ns for _, written_ns in samples)])
    second.periods += (np.diff(times if last_ns else times[1:]) * 1e-9).tolist()
    second.stiffness = float(family_of(spec).low_cmd.decode(samples[-1][0])["motor_cmd"]["kp"][spec.motor_index].sum())
    return int(times[-1])


def _note_truth(second: Second, sample: bytes) -> None:
    record = GO_SPORT_MODE_STATE.decode(sample)
    w, x, y, z = (float(value) for value in record["imu_state"]["quaternion"])
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    vx, vy = float(record["velocity"][0]), float(record["velocity"][1])
    second.velocity += (
        vx * math.cos(yaw) + vy * math.sin(yaw),
        vy * math.cos(yaw) - vx * math.sin(yaw),
        float(record["yaw_speed"]),
    )
    second.states += 1
    second.height = min(second.height, float(record["position"][2]))
    second.tilt = max(second.tilt, math.acos(max(-1.0, min(1.0, 1 - 2 * (x * x + y * y)))))


if __name__ == "__main__":
    tyro.cli(watch)
    sys.exit(0)
