"""Parameter files: the shipped one passes, what rcl would ignore or choke on is refused by name."""

import os

import pytest

from nfpo_deploy.contract.params_file import check_params_file
from nfpo_deploy.errors import ParameterError
from robots.loader import ROBOTS_DIR

SHIPPED = ROBOTS_DIR.parent / "ros2_ws/src/nfpo_deploy/config/go2_walk.yaml"
NODES = ("sdk_bridge", "state_estimator", "policy_inference", "safety_watchdog", "operator", "flight_recorder")


def test_the_shipped_file_passes():
    check_params_file(SHIPPED, NODES)


@pytest.mark.parametrize(
    "text",
    [
        "/**:\n  ros__parameters:\n    a: 1",
        "/sdk_bridge:\n  ros__parameters: {a: true, b: 1.5, c: x, d: [1, 2], e: {f: [a, b]}}",
        "sdk_bridge:\n  ros__parameters: {}",
    ],
)
def test_what_rcl_reads_passes(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    check_params_file(tmp_path / "p.yaml", NODES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected node names"),
        ("[1, 2]", "expected node names"),
        ("sdk_brigde:\n  ros__parameters: {a: 1}", "unknown node 'sdk_brigde'; known: sdk_bridge"),
        ("1:\n  ros__parameters: {a: 1}", "unknown node 1"),
        ("sdk_bridge: {a: 1}", "must hold a mapping ros__parameters"),
        ("sdk_bridge:\n  ros__parameters: [1]", "must hold a mapping"),
        ("sdk_bridge:\n  ros__parameters: {a: 1}\n  b: 2", "and nothing else"),
        ("sdk_bridge:\n  ros__parameters: {a: [1, x]}", r"sdk_bridge\.a: expected a list of one kind"),
        ("sdk_bridge:\n  ros__parameters: {a: []}", "not empty"),
        ("sdk_bridge:\n  ros__parameters: {a: [[1]]}", "one kind of value"),
        ("sdk_bridge:\n  ros__parameters: {a: .inf}", "finite number"),
        ("sdk_bridge:\n  ros__parameters: {a: 2001-01-01}", "got date"),
        ("sdk_bridge:\n  ros__parameters: {a: }", "got NoneType"),
        ("sdk_bridge:\n  ros__parameters: {a: 99999999999999999999}", "got int"),
        ("sdk_bridge:\n  ros__parameters: {1: 2}", "name must be text"),
        ("sdk_bridge:\n  ros__parameters: {a: {b: [1, 2.0]}}", r"sdk_bridge\.a\.b"),
        ("a: &x 1\nb: *x", r"p\.yaml: alias"),
        ("sdk_bridge:\n  ros__parameters: {a: 1, a: 2}", "keys given twice"),
    ],
)
def test_what_rcl_would_ignore_or_refuse_is_named(tmp_path, text, message):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ParameterError, match=message):
        check_params_file(tmp_path / "p.yaml", NODES)


def test_a_path_that_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("gone", "pipe", "."):
        with pytest.raises(ParameterError):
            check_params_file(tmp_path / name, NODES)
