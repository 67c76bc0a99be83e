"""Closed-form leg kinematics against MuJoCo's and against finite differences."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from nfpo_deploy.errors import EstimatorError
from nfpo_deploy.state.kinematics import LegKinematics
from robots.loader import load_robot
from robots.mjcf import build_model

SPEC = load_robot("go2")
LEGS = LegKinematics(SPEC)


def _random_poses(count, seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(SPEC.position_lower, SPEC.position_upper, (count, SPEC.num_joints))


def test_feet_and_velocities_match_mujoco_in_random_poses():
    model = build_model("go2", floor=False)
    data = mujoco.MjData(model)
    sites = [model.site(foot.name).id for foot in SPEC.feet]
    joint_dofs = [int(model.joint(name).dofadr[0]) for name in SPEC.joint_names]
    rng = np.random.default_rng(1)
    for q in _random_poses(200, 0):
        dq = rng.normal(0.0, 5.0, SPEC.num_joints)
        data.qpos[:7] = [0, 0, 0, 1, 0, 0, 0]
        for name, angle in zip(SPEC.joint_names, q, strict=True):
            data.joint(name).qpos[0] = angle
        mujoco.mj_forward(model, data)
        legs = LEGS.forward(q, dq)
        for i, site in enumerate(sites):
            jacobian, rotation = np.zeros((3, model.nv)), np.zeros((3, model.nv))
            mujoco.mj_jacSite(model, data, jacobian, rotation, site)
            chain = [joint_dofs[j] for j in SPEC.feet[i].joint_indices]
            np.testing.assert_allclose(legs.position[i], data.site_xpos[site], atol=1e-6)
            np.testing.assert_allclose(legs.jacobian[i], jacobian[:, chain], atol=1e-6)
            np.testing.assert_allclose(legs.velocity[i], jacobian[:, joint_dofs] @ dq, atol=1e-6)
            np.testing.assert_allclose(legs.calf_rate[i], rotation[:, joint_dofs] @ dq, atol=1e-6)


def test_jacobian_is_the_derivative_of_the_position():
    step = 1e-6
    zero = np.zeros(SPEC.num_joints)
    for q in _random_poses(20, 2):
        legs = LEGS.forward(q, zero)
        for i, foot in enumerate(SPEC.feet):
            for column, joint in enumerate(foot.joint_indices):
                shift = zero.copy()
                shift[joint] = step
                ahead, behind = LEGS.forward(q + shift, zero), LEGS.forward(q - shift, zero)
                slope = (ahead.position[i] - behind.position[i]) / (2.0 * step)
                np.testing.assert_allclose(legs.jacobian[i, :, column], slope, atol=1e-8)


def test_stretched_leg_by_hand():
    """All joints zero: the foot hangs thigh + calf below the hip axis, offset sideways, and 2 mm back."""
    feet = LEGS.forward(np.zeros(12), np.zeros(12)).position
    np.testing.assert_allclose(feet[0], [0.1934 - 0.002, -(0.0465 + 0.0955), -0.426], atol=1e-12)  # FR
    np.testing.assert_allclose(feet[3], [-0.1934 - 0.002, 0.0465 + 0.0955, -0.426], atol=1e-12)  # RL


def test_inverse_returns_the_angles():
    rng = np.random.default_rng(3)
    for _ in range(100):
        q = np.tile([0.0, 0.8, -1.5], 4) + rng.uniform(-0.4, 0.4, 12)
        feet = LEGS.forward(q, np.zeros(12)).position
        np.testing.assert_allclose(LEGS.inverse(feet), q, atol=1e-9)


def test_foot_out_of_reach_is_named():
    feet = LEGS.forward(SPEC.default_pose, np.zeros(12)).position
    feet[2, 2] = -0.6
    with pytest.raises(ValueError, match="leg 2"):
        LEGS.inverse(feet)


def test_leg_with_other_chain_is_refused():
    foot = SPEC.feet[0]
    spec = replace(SPEC, feet=(replace(foot, joint_indices=foot.joint_indices[:2]),))
    with pytest.raises(EstimatorError, match="FR_foot"):
        LegKinematics(spec)
