"""The accuracy check itself: it measures, reports and fails when it should."""

import json

import pytest

from sim2real_checks import estimator_accuracy


def test_report_of_a_short_drive(tmp_path, capsys):
    arguments = ["--duration", "1.0", "--out", str(tmp_path)]
    assert estimator_accuracy.main(arguments) == 0
    summary = json.loads((tmp_path / "estimator_accuracy.json").read_text())
    assert list(summary["parts"]) == [name for name, _, _ in estimator_accuracy.DRIVE] + ["walking"]
    assert summary["parts"]["walking"]["contact_accuracy"] > 0.9
    assert max(summary["parts"]["walking"]["rms"]) < 0.1
    # A robot that fell would make the numbers meaningless.
    assert summary["lowest_base"] > 0.2
    assert (tmp_path / "estimator_accuracy.png").stat().st_size > 10_000
    assert "walking" in capsys.readouterr().out


def test_error_over_the_limit_fails(tmp_path, capsys):
    assert estimator_accuracy.main(["--duration", "0.6", "--limit", "1e-4", "--out", str(tmp_path)]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_limit_must_be_positive():
    with pytest.raises((ValueError, SystemExit)):
        estimator_accuracy.main(["--limit", "0"])
