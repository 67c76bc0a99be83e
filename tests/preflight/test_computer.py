"""Judging this computer, and the list that is printed."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from nfpo_deploy.errors import TransportError
from nfpo_deploy.guard.link import BRIDGE_ROLE, Mailbox, is_served
from robots import RobotSpecError
from sim2real_checks.preflight import command, computer
from sim2real_checks.preflight.computer import Interface, judge_computer, judge_interface, read_interface
from sim2real_checks.preflight.finding import Finding, Result, skipped, worst

PASS, WARN, FAIL, SKIP = Result.PASS, Result.WARN, Result.FAIL, Result.SKIP
WIRED = Interface("eth0", True, True, False, True, "192.168.123.222")
DOMAIN = 46


@pytest.mark.parametrize(
    ("change", "result", "said"),
    [
        ({}, PASS, "multicast"),
        ({"up": False}, FAIL, "down"),
        ({"carrier": False}, FAIL, "no carrier"),
        ({"address": ""}, FAIL, "no IPv4 address"),
        ({"address": "192.168.123.161"}, FAIL, "192.168.123.161"),
        ({"address": "192.168.123.18"}, FAIL, "192.168.123.18"),
        ({"address": "10.0.0.5"}, WARN, "outside 192.168.123.0/24"),
        ({"multicast": False}, FAIL, "no multicast"),
        ({"name": "lo", "loopback": True, "multicast": False, "address": "127.0.0.1"}, PASS, "simulated robot"),
    ],
)
def test_interface(change, result, said):
    finding = judge_interface(replace(WIRED, **change))
    assert finding.result is result and said in finding.measured
    assert bool(finding.remedy) == (result is not PASS)


def test_the_loopback_interface_is_read():
    assert read_interface("lo") == Interface("lo", True, True, True, False, "127.0.0.1")


def test_a_foreign_dds_library_fails_with_the_remedy(monkeypatch):
    def refuse():
        raise TransportError("loaded Cyclone DDS (libddsc) is version '11.0.1', expected 0.10.x; install 0.10.x")

    monkeypatch.setattr(computer, "require_supported_dds", refuse)
    finding = computer.check_dds_library()
    assert finding.result is FAIL and "11.0.1" in finding.measured and finding.remedy == "install 0.10.x"


def test_real_time_permission():
    assert judge_computer(True, "6.1", 4).result is PASS
    finding = judge_computer(False, "6.1", 4)
    assert finding.result is WARN and "rtprio" in finding.remedy and "6.1, 4 cores" in finding.measured


def test_trying_real_time_leaves_the_scheduler_as_it_was():
    before = os.sched_getscheduler(0)
    computer.may_run_real_time()
    assert os.sched_getscheduler(0) == before


def test_a_second_stack_is_found_without_taking_its_place():
    assert computer.check_second_stack("lo", DOMAIN).result is PASS
    mailbox = Mailbox(BRIDGE_ROLE, "lo", DOMAIN)
    try:
        finding = computer.check_second_stack("lo", DOMAIN)
        assert finding.result is FAIL and BRIDGE_ROLE in finding.measured
        assert mailbox.receive() == [], "nothing was sent"
        assert not is_served(BRIDGE_ROLE, "lo", DOMAIN + 1)
    finally:
        mailbox.close()
    assert not is_served(BRIDGE_ROLE, "lo", DOMAIN)


def test_it_loads_nothing_that_a_robots_computer_lacks():
    code = "import sys, sim2real_checks.preflight.command; print(*sorted({n.partition('.')[0] for n in sys.modules}))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"mujoco", "rclpy", "torch", "scipy", "matplotlib", "onnxruntime", "cyclonedds", "unitree_sdk2py"}
    assert not heavy & set(output.stdout.split())


def test_the_worst_result_counts():
    findings = [Finding("a", PASS, ""), *skipped(["b", "c"], "reason")]
    assert worst(findings) is PASS
    assert worst([*findings, Finding("d", WARN, "")]) is WARN
    assert worst([Finding("e", FAIL, ""), Finding("d", WARN, "")]) is FAIL


def test_the_list_shows_text_of_strangers_as_it_is(capsys):
    command.show([Finding("a", PASS, "fine"), Finding("bb", FAIL, "[red]x[/red] [link=y]", "do this\nthen that")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["✓ a   fine", "✗ bb  [red]x[/red] [link=y]", "      → do this", "      → then that"]
    assert lines[-1] == "NOT READY: repair what failed and run this again (1 pass, 1 fail)"


def test_after_a_bad_interface_nothing_is_opened(monkeypatch, capsys):
    monkeypatch.setattr(computer, "read_interface", lambda name: replace(WIRED, carrier=False))
    monkeypatch.setattr(command, "listen", lambda *_: pytest.fail("DDS was opened"))
    assert command.preflight(["--interface", "eth0"]) == 1
    out = capsys.readouterr().out
    assert "– LowState" in out and "needs a good interface" in out and "NOT READY" in out


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["--interface", "eth99"], TransportError, "'eth99' does not exist; existing interfaces: .*lo"),
        (["--interface", "lo", "--robot", "go3"], RobotSpecError, "'go3'; available: .*go2"),
        (["--interface", "lo", "--seconds", "0"], command.PreflightError, "0.5..60, got 0"),
        (["--interface", "lo", "--seconds", "nan"], command.PreflightError, "got nan"),
        (["--interface", "lo", "--domain-id", "233"], command.PreflightError, "0..232, got 233"),
    ],
)
def test_bad_options_are_named(words, error, said):
    with pytest.raises(error, match=said):
        command.preflight(words)


def test_a_result_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "check_all", lambda *_: [Finding("a", SKIP, "", values={"x": float("nan")})])
    with pytest.raises(command.PreflightError, match="cannot write"):
        command.preflight(["--interface", "lo", "--json", str(tmp_path / "no" / "file.json")])
    assert command.preflight(["--interface", "lo", "--json", str(tmp_path / "file.json")]) == 0
    content = json.loads((tmp_path / "file.json").read_text())
    assert content["checks"][0]["values"]["x"] is None and content["verdict"] == "pass"
