"""Joint targets by hand: default + scale·clip(action)."""

import numpy as np

from nfpo_deploy.command.joint_targets import joint_targets

POSE, SCALE = np.array([0.1, -1.5]), np.array([0.25, 0.5])


def test_targets_by_hand():
    np.testing.assert_allclose(joint_targets(np.array([2.0, -4.0]), POSE, SCALE), [0.6, -3.5])
    np.testing.assert_array_equal(joint_targets(np.zeros(2), POSE, SCALE), POSE)


def test_clip_bounds_the_raw_action_on_both_sides():
    targets = joint_targets(np.array([[100.0, -100.0], [1.0, -1.0]]), POSE, SCALE, clip=3.0)
    np.testing.assert_allclose(targets, [[0.85, -3.0], [0.35, -2.0]])
