"""Legs of six joints against MuJoCo's own kinematics of the same robot."""

from dataclasses import replace

import numpy as np
import pytest

from nfpo_deploy.errors import EstimatorError
from nfpo_deploy.state.chain_kinematics import ChainKinematics, leg_kinematics
from nfpo_deploy.state.kinematics import LegKinematics
from robots.loader import load_robot

SPEC = load_robot("g1")
LEGS = ChainKinematics(SPEC)
ZERO = np.zeros(29)


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("mujoco")
    from robots.mjcf import build_model

    return build_model("g1", floor=False)


def random_states(seed, count):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.uniform(SPEC.position_lower, SPEC.position_upper), rng.normal(0.0, 3.0, 29)


def test_places_jacobians_and_velocities_are_mujocos(model):
    import mujoco

    data = mujoco.MjData(model)
    for q, dq in random_states(1, 50):
        data.qpos[:7], data.qpos[7:] = [0, 0, 0, 1, 0, 0, 0], q
        data.qvel[:6], data.qvel[6:] = 0.0, dq
        mujoco.mj_forward(model, data)
        state = LEGS.forward(q, dq)
        for f, foot in enumerate(SPEC.feet):
            site = model.site(foot.name).id
            place, turn = np.zeros((3, model.nv)), np.zeros((3, model.nv))
            mujoco.mj_jacSite(model, data, place, turn, site)
            dofs = 6 + np.array(foot.joint_indices)
            np.testing.assert_allclose(state.position[f], data.site_xpos[site], atol=1e-9)
            np.testing.assert_allclose(state.jacobian[f], place[:, dofs], atol=1e-9)
            np.testing.assert_allclose(state.velocity[f], place[:, 6:] @ dq, atol=1e-9)
            np.testing.assert_allclose(state.calf_rate[f], turn[:, 6:] @ dq, atol=1e-9)


def test_soles_are_below_the_pelvis_by_the_standing_height():
    state = LEGS.forward(SPEC.default_pose, ZERO)
    np.testing.assert_allclose(LEGS.foot_radius - state.position[:, 2], SPEC.base_height, atol=1e-4)
    np.testing.assert_allclose(state.position[0], state.position[1] * [1, -1, 1], atol=1e-12)
    assert not state.velocity.any() and not state.calf_rate.any()


def test_a_straight_leg_by_hand():
    """All joints at zero: thigh and shin hang one below the other, the lengths add up."""
    sole = LEGS.forward(ZERO, ZERO).position[0]
    turn = 2 * np.arctan2(0.0873386, 0.996179)  # the thigh's frame leans forward by it and the shin's back
    x, z = 0.025001 - 0.078273, -0.12412 - 0.17734
    thigh = -(x * np.sin(turn) + z * np.cos(turn)) * 1.0
    assert sole[2] == pytest.approx(-(0.1027 + 0.030465 + thigh + 0.30001 + 0.017558 + 0.0275), abs=1e-6)


def test_the_model_and_robot_yaml_have_the_same_sole(model):
    for foot in SPEC.feet:
        np.testing.assert_array_equal(model.site(foot.name).pos, SPEC.leg_chain.sole)
        assert model.geom(foot.name).size[2] == SPEC.leg_chain.foot_radius


def test_each_robot_gets_the_kinematics_of_its_legs():
    assert isinstance(leg_kinematics(SPEC), ChainKinematics)
    go2 = load_robot("go2")
    assert isinstance(leg_kinematics(go2), LegKinematics) and leg_kinematics(go2).foot_radius == 0.022
    with pytest.raises(EstimatorError, match="go2: robot.yaml has no leg_chain"):
        ChainKinematics(go2)
    with pytest.raises(EstimatorError, match="left_foot"):
        LegKinematics(SPEC)
    with pytest.raises(EstimatorError, match="no leg_geometry"):
        LegKinematics(replace(go2, leg_geometry=None))
