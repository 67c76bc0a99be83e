"""A witness on the wire: every LowCmd with its time, for faults in which the robot itself cannot tell.

`python -m sim2real_checks.faults.tap --domain-id 43 --out tap.npz` until SIGINT or SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import numpy as np
import tyro

from nfpo_deploy.realtime import adopt_priority
from nfpo_deploy.transport.dds import DdsParticipant
from nfpo_deploy.transport.family import family_of
from robots.loader import load_robot
from sim2real_checks.faults.lowcmds import LowCmds, writer_of

PERIOD_S = 0.001


def listen(domain_id: int, out: Path, interface: str = "lo", robot: str = "go2") -> None:
    """Write down LowCmds until a signal comes.

    Args:
        domain_id: DDS domain of the robot.
        out: .npz file.
        interface: network interface.
        robot: whose joints.
    """
    stops: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stops.append(received))
    adopt_priority(lower_by=1)
    spec = load_robot(robot)
    family, slots = family_of(spec), spec.motor_index
    participant = DdsParticipant(interface, domain_id)
    reader = participant.reader("rt/lowcmd", family.low_cmd_type(), depth=64)
    times, samples, writers = [], [], []
    while not stops:
        for data, handle in reader.take_with_handles():
            times.append(time.monotonic_ns())
            samples.append(data)
            writers.append(writer_of(reader.publisher(handle).user_data.decode(errors="replace")))
        time.sleep(PERIOD_S)
    participant.close()
    motors = [family.low_cmd.decode(data)["motor_cmd"][slots] for data in samples]
    shape = (len(motors), len(slots))
    q, kp, kd = (np.array([m[name] for m in motors], dtype=np.float64).reshape(shape) for name in ("q", "kp", "kd"))
    np.savez(out, ns=np.array(times, dtype=np.int64), writer=np.array(writers, dtype="U8"), q=q, kp=kp, kd=kd)


def load_tap(path: Path) -> LowCmds:
    """What a tap wrote; raises `OSError` where there is nothing."""
    with np.load(path) as data:
        return LowCmds(data["ns"], data["kp"].sum(axis=1), data["kd"].sum(axis=1), data["q"], data["writer"])


if __name__ == "__main__":
    tyro.cli(listen)
    sys.exit(0)
