"""When an incident begins."""

import pytest

from nfpo_deploy.flight_log.incident import IncidentRules
from nfpo_deploy.types import Mode

S = 1_000_000_000


@pytest.fixture
def rules():
    return IncidentRules(0.5)


def stay():
    return False


def test_entering_fault_is_one_incident_with_its_reason_and_the_mode_before(rules):
    assert rules.permit(Mode.WALK, "requested", S, 11) is None
    trigger = rules.permit(Mode.FAULT, "tilt", 2 * S, 12)
    assert (trigger.kind, trigger.reason, trigger.mode) == ("fault", "tilt", "WALK")
    assert (trigger.at_ns, trigger.utc_ns) == (2 * S, 12)
    assert rules.permit(Mode.FAULT, "tilt", 3 * S, 13) is None
    assert rules.permit(Mode.DAMP, "reset", 4 * S, 14) is None
    assert rules.permit(Mode.FAULT, "again", 5 * S, 15).mode == "DAMP"


def test_a_fault_that_was_there_before_is_an_incident_too(rules):
    assert rules.permit(Mode.FAULT, "earlier", S, 0).mode == ""


def test_a_gate_that_trips_is_an_incident_once(rules):
    assert rules.bridge(False, "", False, S, 0) is None
    trigger = rules.bridge(True, "stale state", False, 2 * S, 0)
    assert (trigger.kind, trigger.reason) == ("gate_tripped", "stale state")
    assert rules.bridge(True, "stale state", False, 3 * S, 0) is None
    assert rules.bridge(False, "", False, 4 * S, 0) is None
    assert rules.bridge(True, "again", False, 5 * S, 0) is not None


def watch(rules, start_ns, end_ns, has_left=stay, period_ns=S // 50):
    """First trigger of a clock that is looked at 50 times a second, and its time."""
    for now_ns in range(start_ns, end_ns, period_ns):
        trigger = rules.check(now_ns, 0, has_left)
        if trigger is not None:
            return trigger, now_ns
    return None, end_ns


def test_a_bridge_that_was_never_heard_is_not_silent(rules):
    assert watch(rules, S, 10 * S) == (None, 10 * S)


def test_a_silent_bridge_is_an_incident_after_the_given_time_and_only_once(rules):
    rules.permit(Mode.WALK, "", S, 0)
    rules.bridge(False, "", False, S, 0)
    trigger, at_ns = watch(rules, S, 5 * S)
    assert trigger.kind == "bridge_silent" and trigger.mode == "WALK" and "0.5" in trigger.reason
    assert 1.5 * S <= at_ns <= 1.53 * S
    assert watch(rules, at_ns, 9 * S)[0] is None
    rules.bridge(False, "", False, 9 * S, 0)
    assert watch(rules, 9 * S, 12 * S)[0] is not None


def test_a_bridge_that_said_that_it_ends_may_fall_silent(rules):
    rules.bridge(False, "", True, S, 0)
    assert watch(rules, S, 5 * S)[0] is None


def test_a_bridge_that_left_the_graph_may_fall_silent(rules):
    asked = []
    rules.bridge(False, "", False, S, 0)
    assert watch(rules, S, 5 * S, lambda: asked.append(1) or True)[0] is None
    assert asked == [1], "asking costs time"


def test_an_observer_that_was_kept_from_looking_accuses_nobody(rules):
    """A recorder that did not run for two seconds has not heard the bridge either."""
    rules.bridge(False, "", False, S, 0)
    assert watch(rules, S, S + S // 10)[0] is None
    trigger = rules.check(3 * S, 0, stay)
    assert trigger is None
    rules.bridge(False, "", False, 3 * S, 0)
    assert watch(rules, 3 * S, 3 * S + 4 * S // 10)[0] is None
    # And it still finds out when the bridge is silent while it looks.
    assert watch(rules, 3 * S + 4 * S // 10, 5 * S)[0] is not None
