"""LowStates made by hand: a Go2 that lies level, 500 Hz, perfect clocks, a little noise."""

import numpy as np

from robots.loader import load_robot
from sim2real_checks.preflight.listen import Commands, Heard, Peers, States

SPEC = load_robot("go2")


def states(count=1000, **columns):
    """`count` states; `columns` replace whole columns."""
    rng = np.random.default_rng(0)
    n = SPEC.num_joints
    made = {
        "received_ns": np.arange(count) * 2_000_000,
        "tick": 1000 + 2 * np.arange(count),
        "quat_wxyz": np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)),
        "gyro_b": rng.normal(0.0, 0.01, (count, 3)),
        "accel_b": rng.normal([0.0, 0.0, 9.81], 0.05, (count, 3)),
        "q": np.tile(SPEC.crouch_pose, (count, 1)),
        "dq": rng.normal(0.0, 0.05, (count, n)),
        "temperature": np.full((count, n), 30.0),
        "battery_soc": np.full(count, 80.0),
        "voltage": np.full(count, 30.0),
        "mode_machine": np.zeros(count, int),
    }
    return States(**{name: np.broadcast_to(columns.get(name, made[name]), made[name].shape) for name in made})


def heard(made, **others):
    """All that listening brings, with these states."""
    values = {
        "came": len(made), "crc_errors": 0, "malformed": 0, "identity_problem": "", "publishers": (),
        "longest_poll_s": 0.001, "commands": Commands(), "peers": Peers(), "controller": "",
    }  # fmt: skip
    return Heard(made, **(values | others))
