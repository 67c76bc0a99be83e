"""Rotations against hand-computed turns and MuJoCo's own quaternion code."""

import math

import mujoco
import numpy as np
import pytest

from nfpo_deploy.observation.rotations import projected_gravity, rotate_inverse

HALF = math.sqrt(0.5)


def _random_quaternions(count, seed=0):
    quat = np.random.default_rng(seed).normal(size=(count, 4))
    return quat / np.linalg.norm(quat, axis=1, keepdims=True)


def _in_body(quat, vector):
    inverse, result = np.empty(4), np.empty(3)
    mujoco.mju_negQuat(inverse, quat)
    mujoco.mju_rotVecQuat(result, vector, inverse)
    return result


@pytest.mark.parametrize(
    ("quat", "world", "body"),
    [
        ([1, 0, 0, 0], [1, 2, 3], [1, 2, 3]),
        # Turned 90° to the left: what lies ahead in the world lies to the right (−y) of the robot.
        ([HALF, 0, 0, HALF], [1, 0, 0], [0, -1, 0]),
        # Nose 90° down (pitch +90°): the robot's x points to world −z.
        ([HALF, 0, HALF, 0], [0, 0, -1], [1, 0, 0]),
        # On its right side (roll +90°): the robot's y points up.
        ([HALF, HALF, 0, 0], [0, 0, 1], [0, 1, 0]),
        ([0, 1, 0, 0], [1, 2, 3], [1, -2, -3]),
    ],
)
def test_world_vectors_seen_from_a_turned_body(quat, world, body):
    np.testing.assert_allclose(rotate_inverse(np.array(quat, float), np.array(world, float)), body, atol=1e-15)


@pytest.mark.parametrize(
    ("quat", "gravity"),
    [
        ([1, 0, 0, 0], [0, 0, -1]),
        ([HALF, 0, 0, HALF], [0, 0, -1]),
        ([HALF, 0, HALF, 0], [1, 0, 0]),
        ([HALF, HALF, 0, 0], [0, -1, 0]),
        ([0, 1, 0, 0], [0, 0, 1]),
        # 30° nose down: sin 30° forward, cos 30° down.
        ([math.cos(math.pi / 12), 0, math.sin(math.pi / 12), 0], [0.5, 0, -math.sqrt(0.75)]),
    ],
)
def test_gravity_seen_from_a_turned_body(quat, gravity):
    np.testing.assert_allclose(projected_gravity(np.array(quat, float)), gravity, atol=1e-15)


def test_random_rotations_agree_with_mujoco():
    quats = _random_quaternions(500)
    vectors = np.random.default_rng(1).normal(size=(500, 3)) * 10
    expected = np.array([_in_body(q, v) for q, v in zip(quats, vectors, strict=True)])
    np.testing.assert_allclose(rotate_inverse(quats, vectors), expected, atol=1e-13)
    down = np.array([_in_body(q, np.array([0.0, 0.0, -1.0])) for q in quats])
    np.testing.assert_allclose(projected_gravity(quats), down, atol=1e-14)


def test_q_and_minus_q_are_the_same_rotation():
    quats = _random_quaternions(20, seed=2)
    vectors = np.random.default_rng(3).normal(size=(20, 3))
    np.testing.assert_allclose(rotate_inverse(-quats, vectors), rotate_inverse(quats, vectors), atol=1e-15)
    np.testing.assert_allclose(projected_gravity(-quats), projected_gravity(quats), atol=1e-15)


def test_one_vector_and_batches_of_any_shape_give_the_same():
    quats = _random_quaternions(6, seed=4)
    vectors = np.random.default_rng(5).normal(size=(6, 3))
    flat = rotate_inverse(quats, vectors)
    np.testing.assert_array_equal(
        rotate_inverse(quats.reshape(2, 3, 4), vectors.reshape(2, 3, 3)), flat.reshape(2, 3, 3)
    )
    np.testing.assert_array_equal(rotate_inverse(quats[0], vectors[0]), flat[0])
    np.testing.assert_array_equal(projected_gravity(quats[3]), projected_gravity(quats)[3])
