"""Contact detection against MuJoCo's contact forces."""

from dataclasses import replace

import numpy as np
import pytest

from nfpo_deploy.state.contact import ContactConfig
from nfpo_deploy.state.estimator import StateEstimator
from robots.loader import load_robot

SPEC = load_robot("go2")


def _contacts(states):
    estimator = StateEstimator(SPEC)
    probability, force = [], []
    for state in states:
        probability.append(estimator.update(state).contact)
        force.append(estimator.contact_force)
    return np.array(probability), np.array(force)


@pytest.mark.parametrize("name", ["standing", "trotting", "turning", "shoved"])
def test_contacts_match_mujoco(name, request):
    run = request.getfixturevalue(name)
    probability, _ = _contacts(run.states)
    right = (probability > 0.5) == run.contact
    assert right[250:].mean(axis=0).min() > 0.9
    if name != "standing":
        assert 0.2 < run.contact[500:].mean() < 0.9, "the run must have both stance and swing"


def test_force_is_the_ground_s_force(standing):
    """Standing still: each foot within 20 % of MuJoCo's force, and all together the robot's 15.2 kg.

    Torques miss what the legs' own links and the joints' friction take.
    """
    _, force = _contacts(standing.states)
    truth = np.array([state.foot_force for state in standing.states])
    np.testing.assert_allclose(force[500:].mean(axis=0), truth[500:].mean(axis=0), rtol=0.2)
    assert force[500:].mean(axis=0).sum() == pytest.approx(15.2 * 9.81, rel=0.15)


def test_foot_sensors_are_not_needed(trotting):
    with_sensors, _ = _contacts(trotting.states)
    without, _ = _contacts([replace(s, foot_force=np.zeros(4)) for s in trotting.states])
    np.testing.assert_array_equal(with_sensors, without)


def test_foot_sensors_take_over_when_torques_are_missing(trotting):
    """Raw sensors with an offset and a gain of their own for each foot, and no torque at all."""
    gain, offset = np.array([0.3, 1.0, 2.0, 0.5]), np.array([20.0, 0.0, -5.0, 100.0])
    states = [replace(s, tau_est=np.zeros(12), foot_force=offset + gain * s.foot_force) for s in trotting.states]
    probability, _ = _contacts(states)
    assert ((probability > 0.5) == trotting.contact)[1000:].mean() > 0.75


def test_silent_torques_and_constant_sensors_mean_no_contact(trotting):
    states = [replace(s, tau_est=np.zeros(12), foot_force=np.full(4, 37.0)) for s in trotting.states[:500]]
    probability, _ = _contacts(states)
    assert probability[300:].max() < 0.01


def test_thresholds_are_validated():
    with pytest.raises(ValueError, match="off must be below on"):
        ContactConfig(on=0.1, off=0.2)
    with pytest.raises(ValueError, match="force_time"):
        ContactConfig(force_time=0.0)
