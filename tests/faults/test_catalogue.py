"""The catalogue is complete: every process, every fault of the simulator, every way to spoil a process, every mode."""

from __future__ import annotations

import pytest

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.graph import build_graph
from nfpo_deploy.types import Mode
from sim2real_checks.faults.catalogue import (
    ACTIVE,
    ANY_JOINT,
    TARGETS,
    Case,
    Fault,
    React,
    build_cases,
    build_catalogue,
)
from sim2real_checks.faults.command import faults
from sim2real_checks.faults.inject import KINDS
from sim2real_checks.faults.processes import LAUNCHER
from sim2real_checks.faults.spoiled import KINDS as SPOILED
from sim2real_checks.robot_sim.faults import CLEAR, FAULTS, parse_fault

WAYS = {"kill", "segv", "abort", "stop", "stop and continue", "block", "exhaust memory of"}
QUICK_S = 150.0


@pytest.fixture(scope="module")
def processes() -> list[str]:
    graph = build_graph("go2_walk", {"interface": "lo", "domain_id": "43", "ros_domain_id": "143"}, {})
    return [process.name for process in graph.processes]


@pytest.fixture(scope="module")
def catalogue(processes) -> tuple[Fault, ...]:
    return build_catalogue(processes)


def test_every_process_is_lost_in_every_way_and_in_every_active_mode(catalogue, processes):
    assert {"sdk_bridge", "safety_watchdog", "guard", "guard_backup"} <= set(processes)
    faults = {fault.name: fault for fault in catalogue}
    for process in processes:
        for way in WAYS:
            assert set(ACTIVE) <= set(faults[f"{way} {process}"].expect), (way, process)
    assert {f"kill {LAUNCHER}", f"stop {LAUNCHER}", "kill robot_sim", "stop robot_sim"} <= set(faults)


def test_every_two_processes_are_lost_together(catalogue, processes):
    pairs = {frozenset(i.target for i in fault.injections) for fault in catalogue if fault.group == "pair"}
    assert pairs == {frozenset((a, b)) for a in processes for b in processes if a != b}


def test_a_process_that_joins_the_graph_joins_the_campaign(processes):
    names = {fault.name for fault in build_catalogue([*processes, "newcomer"])}
    assert {"kill newcomer", "stop newcomer", "kill safety_watchdog and newcomer"} <= names


def test_machine_shutdown_reaches_everybody_but_the_robot(catalogue, processes):
    for name in ("machine shutdown", "Ctrl-C", "closed terminal"):
        (fault,) = [fault for fault in catalogue if fault.name == f"{name} at all processes"]
        assert {injection.target for injection in fault.injections} == {LAUNCHER, *processes}
        assert set(fault.expect) == set(ACTIVE) and fault.ends_lying


def test_every_fault_of_the_simulator_appears_with_parameters_that_it_takes(catalogue, spec):
    injections = [i for fault in catalogue for i in fault.injections if i.kind == "sim"]
    # Laying a robot down is no fault: it is what somebody does after one, and so is hanging it up.
    # Wrong cables are found before a start.
    left_out = {CLEAR, "lay_down", "gantry", "swap_joints", "flip_joint"}
    assert {injection.target for injection in injections} == set(FAULTS) - left_out
    for injection in injections:
        options = {k: spec.joint_names[0] if v == ANY_JOINT else v for k, v in injection.options.items()}
        parse_fault({"fault": injection.target, **options}, spec)


def test_every_kind_of_injection_is_used_and_known(catalogue):
    assert {i.kind for fault in catalogue for i in fault.injections} == set(KINDS)
    assert {fault.policy for fault in catalogue if fault.policy} == set(SPOILED)


def test_expectations_name_what_exists(catalogue, spec):
    for fault in catalogue:
        for mode, expect in fault.expect.items():
            assert mode is not Mode.FAULT
            assert expect.target in ("", *TARGETS), fault.name
            if isinstance(expect.allowance, str):
                assert getattr(spec.safety, expect.allowance) > 0.0
            # A limit is for a reaction.
            assert not expect.target or expect.reaction not in (React.NONE, React.ANY), fault.name


@pytest.mark.parametrize(
    ("name", "mode", "target", "allowance"),
    [
        ("kill sdk_bridge", Mode.WALK, "guard", 0.0),
        ("stop sdk_bridge", Mode.STAND, "guard", 0.0),
        ("kill guard and sdk_bridge", Mode.READY, "guard", 0.0),
        ("stop safety_watchdog", Mode.SIT, "bridge", "permit_timeout"),
        ("kill safety_watchdog and policy_inference", Mode.WALK, "bridge", "command_timeout"),
        ("stop safety_watchdog and policy_inference", Mode.READY, "bridge", "permit_timeout"),
        ("stop state_estimator", Mode.WALK, "watchdog", "estimate_timeout"),
        ("lowstate frozen", Mode.WALK, "bridge", "state_timeout"),
        ("foreign controller", Mode.READY, "bridge", 0.0),
        ("emergency stop by service", Mode.WALK, "watchdog", 0.0),
        ("emergency stop on the remote", Mode.SIT, "watchdog", 0.0),
    ],
)
def test_the_limits_are_those_of_the_targets(catalogue, name, mode, target, allowance):
    (fault,) = [fault for fault in catalogue if fault.name == name]
    assert (fault.expect[mode].target, fault.expect[mode].allowance) == (target, allowance)
    assert TARGETS == {"bridge": 0.010, "watchdog": 0.050, "guard": 0.100, "shutdown": 0.500}


def test_silence_of_the_operator_counts_from_the_last_word_of_the_operator_node(catalogue):
    (fault,) = [fault for fault in catalogue if fault.name == "operator silent"]
    # The node's sources expire after 0.2 s (docs/operator.md), and it publishes at 20 Hz.
    assert fault.expect[Mode.WALK].delay == pytest.approx(0.25)
    assert fault.expect[Mode.WALK].allowance == "operator_abandon"


def test_cases_can_be_chosen(catalogue):
    every = build_cases(catalogue, repeats=2)
    assert len(every) == 2 * sum(len(fault.expect) for fault in catalogue)
    assert len({case.key for case in every}) == len(every)
    walking = build_cases(catalogue, 1, modes=[Mode.WALK], only="SDK_bridge")
    assert walking and all(case.mode is Mode.WALK and "sdk_bridge" in case.fault.name for case in walking)
    assert [case.key for case in build_cases(catalogue, 1, only="kill sdk_bridge@walk")] == ["kill sdk_bridge@WALK#0"]
    # A campaign that is stopped half-way has seen every fault before any twice.
    half = every[: len(every) // 2]
    assert {case.repeat for case in half} == {0}


def test_moments_differ_between_repeats_and_stay_the_same_between_campaigns(catalogue):
    seeds = [Case(catalogue[0], Mode.WALK, repeat).seed for repeat in range(5)]
    assert len(set(seeds)) == 5
    assert seeds == [Case(catalogue[0], Mode.WALK, repeat).seed for repeat in range(5)]


def test_the_quick_campaign_has_what_matters_most(catalogue):
    quick = build_cases(catalogue, 1, quick=True)
    keys = {case.key for case in quick}
    assert {"kill sdk_bridge@WALK#0", "stop sdk_bridge@READY#0", "kill safety_watchdog@WALK#0"} <= keys
    assert {case.mode for case in quick} >= {Mode.STAND, Mode.READY, Mode.WALK}
    assert {case.fault.group for case in quick} >= {"process", "wire", "sensor", "remote", "ros", "operator"}
    from sim2real_checks.faults.command import estimate

    assert 10 <= len(quick) <= 14 and estimate(quick) < 1.2 * QUICK_S


def test_a_campaign_may_be_of_some_groups_only(capsys):
    assert faults(["--list", "--group", "operator", "--mode", "walk"]) == 0
    listed = capsys.readouterr().out
    assert "emergency stop by service" in listed and "kill sdk_bridge" not in listed
    with pytest.raises(NfpoError, match="--group wiri: known groups are process, pair"):
        faults(["--list", "--group", "wiri"])
