"""Measures of a gap on signals whose measures are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim2real_checks.replay.flight import ReplayError
from sim2real_checks.replay.gap import measure_gap, stretches
from sim2real_checks.replay.recording import COMMANDED, Recording

TIME = np.arange(0.0, 8.0, 0.002)


def recording(spec, q, target, dq=None, tau=None, time=TIME):
    n = spec.num_joints

    def wide(values):
        return np.repeat(np.broadcast_to(np.asarray(values, dtype=float), time.shape)[:, None], n, axis=1)

    rows = np.zeros((len(time), 3))
    command = {name: wide(0.0) for name in COMMANDED} | {"q": wide(target), "kp": wide(25.0)}
    return Recording(
        name="made", spec=spec, time=time, q=wide(q), dq=wide(0.0 if dq is None else dq),
        tau=wide(0.0 if tau is None else tau), quat_wxyz=np.tile((1.0, 0, 0, 0), (len(time), 1)), gyro_b=rows,
        accel_b=rows, accel_at=np.zeros(3), contact=np.zeros((len(time), 4)), command_time=time, command=command,
        active=np.ones(len(time), dtype=bool),
    )  # fmt: skip


def wave(hz, delay=0.0, size=1.0):
    return size * np.sin(2.0 * math.pi * hz * (TIME - delay))


def test_sizes_distances_and_delays_are_those_of_the_signals(spec):
    target = wave(2.0, size=0.2) + wave(0.7, size=0.1)
    late = wave(2.0, 0.0234, 0.2) + wave(0.7, 0.0234, 0.1)
    sim = recording(spec, target + 0.05, target, tau=wave(1.0, size=3.0))
    real = recording(spec, late, target, tau=wave(1.0, size=3.0) + 1.5)
    gap = measure_gap(sim, real)
    first, second = gap.joints["FL_thigh_joint"]
    assert first.rms["tracking"] == pytest.approx(0.05) == first.p95["tracking"]
    assert first.rms["torque"] == pytest.approx(3.0 / math.sqrt(2.0), rel=1e-3)
    assert second.rms["torque"] == pytest.approx(math.sqrt(4.5 + 2.25), rel=1e-2)
    assert second.delay_ms == pytest.approx(23.4, abs=0.5) and math.isnan(first.delay_ms)
    assert gap.distance["FL_thigh_joint"]["torque"] == pytest.approx(1.5, rel=1e-6)
    assert gap.distance["RR_calf_joint"]["dq"] == 0.0


def test_only_what_is_faster_than_the_gait_counts_as_shaking(spec):
    still = recording(spec, 0.0, 0.0, dq=wave(4.0, size=5.0))
    shaking = recording(spec, 0.0, 0.0, dq=wave(4.0, size=5.0) + wave(30.0, size=0.6))
    gap = measure_gap(still, shaking)
    first, second = gap.joints["RL_hip_joint"]
    assert first.shaking < 0.02 and second.shaking == pytest.approx(0.6 / math.sqrt(2.0), rel=0.02)
    peak = gap.spectrum_hz[20 + int(gap.spectra[1][20:, 0].argmax())]
    assert peak == pytest.approx(30.0, abs=1.0)


def test_nothing_between_a_run_and_itself(spec):
    run = recording(spec, wave(1.0), wave(1.0, -0.01), dq=wave(3.0), tau=wave(2.0))
    gap = measure_gap(run, run)
    assert all(size == 0.0 for sizes in gap.distance.values() for size in sizes.values())
    assert all(sim == real for sim, real in gap.joints.values())


def test_gaps_end_a_stretch(spec):
    kept = (TIME < 2.0) | (TIME > 2.1)
    whole = recording(spec, 0.0, 0.0, time=TIME[kept])
    assert [(part.start, part.stop) for part in stretches(whole)] == [(0, 1000), (1000, kept.sum())]
    short = recording(spec, 0.0, 0.0, time=TIME[:100])
    with pytest.raises(ReplayError, match="no stretch of 0.3 s"):
        measure_gap(whole, short)
