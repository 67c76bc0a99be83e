"""Verdicts: what passes, and that each thing that must fail a campaign does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nfpo_deploy.types import GatePhase, Mode
from sim2real_checks.faults import detect
from sim2real_checks.faults.bounds import Bounds, check_bounds
from sim2real_checks.faults.catalogue import Case, Expect, Fault, Injection, React
from sim2real_checks.faults.judge import (
    Result,
    judge_reaction,
    judge_robot,
    judge_targets,
    new_result,
    result_from,
    verdict,
)
from sim2real_checks.faults.lowcmds import lowcmds_of
from sim2real_checks.faults.measure import find_reaction, measure_motion
from sim2real_checks.faults.report import HTML, JSON, write_report
from sim2real_checks.faults.watch import BridgeChange, PermitChange

FAULT_MS = 1000.0
DAMPED = Expect(React.DAMP, "bridge", "permit_timeout", ("gate",))


def case_of(expect: Expect, mode: Mode = Mode.READY, group: str = "process", **fields) -> Case:
    return Case(Fault("x", group, (Injection("signal"),), {mode: expect}, **fields), mode, 0)


def judged(record, case: Case, detector: str = "gate") -> Result:
    """Everything that the campaign does with a record, but for the nodes' words."""
    columns, fault_ns = record.columns(), record.ns(FAULT_MS)
    commands = lowcmds_of(columns)
    reaction = find_reaction(commands, fault_ns, record.spec)
    result = new_result(case, record.spec)
    result.detector = detector if reaction.first_ns else ""
    judge_reaction(result, case.expect, fault_ns, record.ns(record.seconds * 1000), reaction)
    motion = measure_motion(columns, commands, fault_ns, reaction.first_ns, record.spec)
    judge_robot(result, case, motion, check_bounds(columns, record.spec, fault_ns, record.ns(record.seconds * 1000)))
    return result


@pytest.fixture
def good(hand_made):
    """Permit lost at 1 s, damped 4 ms after its timeout, on the ground half a second later."""
    hand_made.damp(FAULT_MS + 102)
    hand_made.lies_from(1600)
    return hand_made


def test_a_reaction_in_time_passes(good):
    result = judged(good, case_of(DAMPED))
    assert result.reaction == "damp" and not result.problems
    assert result.fault_to_reaction_ms == pytest.approx(104.0)
    assert result.reaction_ms == pytest.approx(4.0) and not result.late
    assert verdict([result]) == []


def test_a_late_reaction_fails_the_campaign(hand_made):
    hand_made.damp(FAULT_MS + 140)
    hand_made.lies_from(1600)
    result = judged(hand_made, case_of(DAMPED))
    assert result.late and not result.failed
    (problem,) = verdict([result])
    assert "target bridge" in problem and "42.0 ms" in problem and "10 ms" in problem


def test_a_violated_bound_fails_the_campaign(good):
    good.command_q[good.row(1050) : good.row(1052), 2] = -0.5
    result = judged(good, case_of(DAMPED))
    problems = verdict([result])
    assert any("bound violated: a position target out of its range" in problem for problem in problems)


def test_no_reaction_fails_the_campaign(hand_made):
    result = judged(hand_made, case_of(DAMPED))
    assert "expected damp, saw none" in result.problems


def test_an_unwanted_reaction_fails_the_campaign(good):
    (problem,) = judged(good, case_of(Expect(React.NONE))).problems
    assert problem.startswith("expected none, saw damp by gate")
    assert not judged(good, case_of(Expect(React.ANY))).problems


def test_the_wrong_one_who_acts_fails_the_campaign(good):
    (problem,) = judged(good, case_of(DAMPED), detector="watchdog").problems
    assert "watchdog acted" in problem and "expected gate" in problem


def test_a_stiff_command_that_stands_too_long_fails_the_campaign(good):
    good.silent(FAULT_MS, FAULT_MS + 101)
    (problem,) = judged(good, case_of(Expect(React.DAMP))).problems
    assert "held a stiff command for 10" in problem
    assert not judged(good, case_of(Expect(React.DAMP), continuous=False)).problems


def test_a_robot_that_is_not_down_in_the_end_fails_the_campaign(hand_made):
    hand_made.damp(FAULT_MS + 102)
    assert any("not on the ground" in problem for problem in judged(hand_made, case_of(DAMPED)).problems)


def test_a_robot_that_lies_but_is_held_stiff_fails_the_campaign(hand_made):
    hand_made.lies_from(1500)
    (problem,) = judged(hand_made, case_of(Expect(React.ANY))).problems
    assert problem.startswith("fell without being damped")


@pytest.mark.parametrize(("seconds", "moving"), [(2.0, False), (3.0, True)])
def test_a_robot_that_does_not_come_to_rest_fails_the_campaign(make_record, seconds, moving):
    record = make_record(seconds)
    record.damp(FAULT_MS + 102)
    record.lies_from(1600)
    record.joint_speed[-1, 3] = 1.2
    problems = judged(record, case_of(DAMPED)).problems
    assert any("still moving in the end: 1.2 rad/s" in problem for problem in problems) == moving


def test_a_robot_that_was_dropped_fails_the_campaign(good):
    good.vertical_speed[good.row(1300)] = -1.9
    assert any("came down at 1.90 m/s" in problem for problem in judged(good, case_of(DAMPED)).problems)


def test_a_robot_that_the_fault_itself_throws_may_come_down_fast(good):
    good.vertical_speed[good.row(1300)] = -1.9
    result = judged(good, case_of(DAMPED, group="body"))
    assert result.problems == [] and result.motion["fall_speed"] == pytest.approx(1.9)


def test_a_robot_that_lies_damped_must_not_be_commanded(hand_made):
    hand_made.lies_from(0)
    problems = judged(hand_made, case_of(Expect(React.ANY), Mode.DAMP)).problems
    assert any("stiff commands to a robot that lies damped" in problem for problem in problems)


def test_a_bridge_that_is_asked_to_end_may_sit_down_instead(hand_made, spec):
    hand_made.command_q[hand_made.row(FAULT_MS) :] += 0.0
    steps = hand_made.time[hand_made.row(FAULT_MS) :, None] - FAULT_MS * 1e-3
    hand_made.command_q[hand_made.row(FAULT_MS) :] += 0.1 * steps * (spec.crouch_pose - spec.default_pose)
    expect = replace(DAMPED, by=("gate", "bridge"))
    assert not judged(hand_made, case_of(expect), detector="bridge").problems
    assert judged(hand_made, case_of(expect), detector="gate").problems


def result_with(reaction_ms: float | None, target: str = "bridge") -> Result:
    return Result("k", "f", "process", "READY", 0, "damp", target, 10.0, 0.0, reaction_ms=reaction_ms)


def test_the_99th_percentile_is_never_below_a_measured_time():
    times = [*([5.0] * 99), 20.0]
    (bridge,) = [t for t in judge_targets([result_with(ms) for ms in times]) if t.name == "bridge"]
    assert bridge.p99 == 20.0 and not bridge.met and bridge.late == 1 and bridge.median == 5.0
    (bridge,) = [t for t in judge_targets([result_with(ms) for ms in [*([5.0] * 199), 20.0]]) if t.name == "bridge"]
    assert bridge.p99 == 5.0 and bridge.met and bridge.worst == 20.0


def test_who_was_asked_to_end_before_it_acted_does_not_make_its_target_faster():
    own, asked = result_with(5.0), replace(result_with(-45.0), detector="bridge")
    (bridge,) = [t for t in judge_targets([own, asked]) if t.name == "bridge"]
    assert (bridge.count, bridge.median) == (1, 5.0)
    ended = replace(result_with(90.0, "shutdown"), detector="bridge")
    (shutdown,) = [t for t in judge_targets([ended]) if t.name == "shutdown"]
    assert (shutdown.count, shutdown.median) == (1, 90.0)


def test_an_empty_campaign_fails():
    assert verdict([]) == ["nothing was run"]


def test_results_survive_their_file(good):
    result = judged(good, case_of(DAMPED))
    from dataclasses import asdict

    assert result_from(json.loads(json.dumps(asdict(result)))) == result


def test_the_report_shows_failures_first_and_stands_alone(good, hand_made, tmp_path):
    passed = judged(good, case_of(DAMPED))
    failed = replace(passed, key="<late>@READY#1", reaction_ms=55.0, problems=["bound violated: a & b"])
    assert write_report(tmp_path, [passed], {"commit": "abc"}) == []
    problems = write_report(tmp_path, [passed, failed], {"commit": "abc"})
    text, data = (tmp_path / HTML).read_text(), json.loads((tmp_path / JSON).read_text())
    assert len(problems) == 2 and not data["passed"] and len(data["runs"]) == 2
    assert "&lt;late&gt;@READY#1" in text and "<late>" not in text and "a &amp; b" in text
    assert text.index("Runs that went wrong") < text.index("Every run")
    assert text.count("data:image/png;base64,") == 2
    assert "http" not in text.split("</style>")[1].split("base64")[0] and 'src="/' not in text


# Who acted.

MS = 1_000_000
PASSIVE = GatePhase.DAMPING


def report(ms: float, phase: GatePhase = PASSIVE, reason: str = "", tripped: bool = False, **fields) -> BridgeChange:
    return BridgeChange(
        round(ms * MS), phase, reason, tripped, fields.get("guard", False), fields.get("stopping", False)
    )


def permit(ms: float, mode: Mode, reason: str) -> PermitChange:
    return PermitChange(round(ms * MS), mode, reason)


@pytest.mark.parametrize(
    ("permits", "reports", "writer", "gap", "who", "reason"),
    [
        ([], [report(115, reason="permit stale", tripped=True)], "bridge", 0.002, "gate", "permit stale"),
        (
            [permit(130, Mode.FAULT, "gate: gate tripped: permit stale")],
            [report(115, reason="permit stale", tripped=True), report(140, reason="mode FAULT")],
            "bridge", 0.002, "gate", "permit stale",
        ),
        (
            [permit(104, Mode.FAULT, "emergency stop by service call")], [report(118, reason="mode FAULT")],
            "bridge", 0.002, "watchdog", "FAULT: emergency stop by service call",
        ),
        ([permit(104, Mode.READY, "operator: gone")], [], "bridge", 0.002, "watchdog", "READY: operator: gone"),
        ([], [], "guard", 0.056, "guard", "no LowCmd for 56 ms"),
        ([], [], "", 0.056, "guard", "no LowCmd for 56 ms"),
        ([], [report(108, GatePhase.RAMPING, stopping=True)], "bridge", 0.002, "bridge", "asked to end"),
        (
            [permit(120, Mode.SIT, detect.BRIDGE_ENDS)], [report(108, GatePhase.RAMPING, stopping=True)],
            "bridge", 0.002, "bridge", "asked to end",
        ),
        ([], [report(50, reason="old", tripped=True)], "bridge", 0.002, "gate", "tripped between two reports"),
        (
            [permit(115, Mode.FAULT, "command_values: x")], [report(125, reason="mode FAULT")],
            "bridge", 0.002, "gate", "tripped between two reports",
        ),
    ],
)  # fmt: skip
def test_who_acted(spec, permits, reports, writer, gap, who, reason):
    found = detect.who_acted(permits, reports, 100 * MS, 110 * MS, writer, gap, spec)
    assert found == (who, reason)


def test_nobody_acted_where_nothing_followed(spec):
    assert detect.who_acted([], [], 100 * MS, None, "", 0.0, spec) == ("", "")


def test_the_launchers_words_are_found(tmp_path):
    log = tmp_path / "graph.log"
    log.write_text("[guard] x\n[launch]           failure: guard ended with signal SIGKILL; stopping\n")
    assert detect.launcher_words(log) == "guard ended with signal SIGKILL"
    log.write_text("[guard] x\n")
    assert detect.launcher_words(log) == ""


def test_bounds_of_nothing_are_kept():
    assert Bounds().violations == 0
