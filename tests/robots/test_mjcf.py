"""What `build_model` makes of its options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")

from robots import load_robot  # noqa: E402
from robots.mjcf import build_model  # noqa: E402

REPO = Path(__file__).resolve().parents[2]


def test_position_actuators_are_pd_servos_bounded_to_the_motor_torque():
    stiffness, damping = np.arange(20.0, 32.0), np.linspace(0.5, 1.0, 12)
    model = build_model("go2", actuators="position", stiffness=stiffness, damping=damping, floor=False)
    data = mujoco.MjData(model)
    rng = np.random.default_rng(4)
    data.qpos[7:], data.qvel[6:] = rng.normal(size=12), rng.normal(size=12)
    data.ctrl[:] = data.qpos[7:] + rng.normal(size=12) * 2
    mujoco.mj_forward(model, data)
    expected = stiffness * (data.ctrl - data.qpos[7:]) - damping * data.qvel[6:]
    limit = load_robot("go2").torque_limit
    assert np.any(np.abs(expected) > limit)
    np.testing.assert_allclose(data.actuator_force, np.clip(expected, -limit, limit))
    key = model.key("stand")
    np.testing.assert_array_equal(key.ctrl, key.qpos[7:])


def test_options_reach_the_model():
    model = build_model(
        "go2", timestep=0.004, cone="elliptic", integrator="euler", iterations=8, ls_iterations=20,
        foot_friction=0.5, floor_friction=0.7, looks=False, omit_sensors=["imu_acc"],
    )  # fmt: skip
    assert model.opt.timestep == 0.004 and model.opt.iterations == 8 and model.opt.ls_iterations == 20
    assert model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC and model.opt.impratio == 100
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER
    assert model.geom("RL_foot").friction[0] == 0.5 and model.geom("floor").friction[0] == 0.7
    assert 2 not in model.geom_group
    names = [model.sensor(i).name for i in range(model.nsensor)]
    assert "imu_acc" not in names and "imu_gyro" in names


@pytest.mark.parametrize(
    ("robot", "options", "error", "message"),
    [
        ("go3", {}, ValueError, "available: .*go2"),
        ("go2", {"colision": "full"}, TypeError, "colision.*known: .*collision"),
        ("go2", {"collision": "half"}, ValueError, "simple.*full.*half"),
        ("go2", {"timestep": 0.0}, ValueError, "timestep.*above zero"),
        ("go2", {"actuators": "position"}, ValueError, "stiffness and damping"),
        ("go2", {"stiffness": 20.0, "damping": 0.5}, ValueError, "actuators='torque'"),
        ("go2", {"actuators": "position", "stiffness": [1.0] * 3, "damping": 1.0}, ValueError, "12"),
        ("go2", {"actuators": "position", "stiffness": float("nan"), "damping": 1.0}, ValueError, "finite"),
        ("go2", {"omit_sensors": ["sonar"]}, ValueError, "sonar.*imu_acc"),
    ],
)
def test_wrong_options_are_named(robot, options, error, message):
    with pytest.raises(error, match=message):
        build_model(robot, **options)


def test_importing_the_builder_does_not_import_mujoco():
    code = "import sys, robots.mjcf; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, timeout=60, check=False).returncode == 0
