"""Every observation term on numbers that were worked out by hand."""

import math

import numpy as np
import pytest

from nfpo_deploy.errors import ObservationError
from nfpo_deploy.observation.terms import TERMS, ObservationInput, term_width

HALF = math.sqrt(0.5)
# Two environments, three joints; the second robot lies on its right side.
INPUT = ObservationInput(
    quat_wxyz=np.array([[1.0, 0.0, 0.0, 0.0], [HALF, HALF, 0.0, 0.0]]),
    ang_vel_b=np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]),
    lin_vel_b=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    command=np.array([[0.5, -0.2, 0.7], [0.0, 0.0, 0.0]]),
    q=np.array([[0.2, 0.9, -1.4], [-0.1, 0.8, -1.5]]),
    dq=np.array([[1.0, -2.0, 3.0], [0.5, 0.6, 0.7]]),
    last_action=np.array([[7.0, 8.0, 9.0], [-7.0, -8.0, -9.0]]),
    gait_phase=np.array([[0.6, 0.8], [0.0, 0.0]]),
    default_pose=np.array([-0.1, 0.8, -1.5]),
)
EXPECTED = {
    "base_lin_vel": [[1, 2, 3], [4, 5, 6]],
    "base_ang_vel": [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]],
    "projected_gravity": [[0, 0, -1], [0, -1, 0]],
    "velocity_commands": [[0.5, -0.2, 0.7], [0, 0, 0]],
    "joint_pos_rel": [[0.3, 0.1, 0.1], [0, 0, 0]],
    "joint_vel_rel": [[1, -2, 3], [0.5, 0.6, 0.7]],
    "last_action": [[7, 8, 9], [-7, -8, -9]],
    "gait_phase": [[0.6, 0.8], [0, 0]],
}


def test_no_term_is_left_untested():
    assert set(EXPECTED) == set(TERMS)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_term(name):
    value = TERMS[name][0](INPUT)
    np.testing.assert_allclose(value, EXPECTED[name], atol=1e-15)
    assert value.shape[1] == term_width(name, num_joints=3)


@pytest.mark.parametrize(("joints", "width"), [(12, 12), (29, 29)])
def test_joint_terms_are_as_wide_as_the_robot_has_joints(joints, width):
    assert term_width("joint_pos_rel", joints) == width
    assert term_width("base_ang_vel", joints) == 3
    assert term_width("gait_phase", joints) == 2


def test_unknown_term_is_named_with_the_known_ones():
    with pytest.raises(
        ObservationError, match=r"unknown observation term 'height_scan'.*base_ang_vel.*velocity_commands"
    ):
        term_width("height_scan", 12)
