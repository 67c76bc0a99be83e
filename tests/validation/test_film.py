"""Films keep what a picture needs, and the pictures show it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from robots.untrusted import UntrustedError
from sim2real_checks.validation import evidence
from sim2real_checks.validation.evidence import write_evidence
from sim2real_checks.validation.film import FILM_HZ, film_of
from sim2real_checks.validation.judge import Outcome, Verdict
from sim2real_checks.validation.pictures import PICTURES, read_film, strip_times
from sim2real_checks.validation.scenario import Scenario, Terrain
from sim2real_checks.validation.trace import Trace
from tests.validation.test_scores import made


def outcome_of(spec, name="walk", ended="", seconds=2.0, **columns):
    film = film_of(made(spec, seconds, **columns))
    scenario = Scenario(name, terrain=Terrain("stairs"))
    return Outcome(scenario, 3, {}, ended, 0.1, film)


def test_a_film_has_the_trace_at_its_rate(spec):
    film = film_of(made(spec, 2.0, position=lambda t: np.column_stack([t, 0 * t, 0.3 + 0 * t])))
    assert len(film["time"]) == 2 * FILM_HZ and film["time"][1] == pytest.approx(1 / FILM_HZ)
    assert film["pose"][FILM_HZ] == pytest.approx([1.0, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0])
    assert film["q"][0] == pytest.approx(spec.default_pose)


def test_no_peak_of_torque_falls_between_two_pictures(spec):
    trace = made(spec, 2.0)
    trace.columns["torque"][333, 4] = -0.5 * spec.torque_limit[4]
    film = film_of(trace)
    assert film["torque"].max() == pytest.approx(0.5) and np.count_nonzero(film["torque"]) == 1


def test_a_robot_that_never_walked_has_no_film(spec):
    assert film_of(Trace(spec)) == {}


def test_an_early_end_is_shown_from_close_by():
    time = np.arange(0.0, 5.0, 0.04)
    assert strip_times(time, True)[[0, -1]] == pytest.approx([2.96, 4.96])
    assert strip_times(time, False)[[0, -1]] == pytest.approx([0.0, 4.96])
    assert strip_times(time[:10], True)[0] == 0.0


def test_evidence_shows_the_worst_run_of_the_first_failures(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "MOST_SHOWN", 2)
    fell = outcome_of(spec, ended="fell after 1.0 s", seconds=1.0)
    verdict = Verdict(fell.scenario, (outcome_of(spec), fell), ("seed 3: fell after 1.0 s", "tilt <b>"))
    parts, problem = write_evidence(tmp_path, "go2", [verdict] * 3)
    assert len(parts) == len(list(tmp_path.glob("*.npz"))) == 2
    film, about = read_film(tmp_path / "00.npz")
    assert (
        about["ended"] == "fell after 1.0 s" and about["seed"] == 3 and about["scenario"]["terrain"]["kind"] == "stairs"
    )
    assert len(film["time"]) == FILM_HZ
    assert "tilt &lt;b&gt;" in parts[0]
    assert parts[0].count("data:image/png") == (1 if problem else 2)
    again, _ = write_evidence(tmp_path, "go2", [verdict])
    assert len(again) == len(list(tmp_path.glob("*.npz"))) == 1, "older films are replaced"


def test_pictures_show_robot_and_ground(spec, tmp_path):
    from PIL import Image

    _, problem = write_evidence(tmp_path, "go2", [Verdict(Scenario("x"), (outcome_of(spec),), ("y",))])
    if "no off-screen renderer" in problem:
        pytest.skip(problem)
    assert not problem
    strip = np.asarray(Image.open(tmp_path / "00.png").convert("RGB")).astype(int)
    assert strip.shape[1] > PICTURES * strip.shape[0] and strip.std() > 10


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"about": np.array("{}")}, "not a film"),
        ({"about": np.array(json.dumps(dict.fromkeys(("robot", "scenario", "seed", "ended"), 1)))}, "as many rows"),
    ],
)
def test_other_files_are_no_films(tmp_path, columns, message):
    np.savez_compressed(tmp_path / "x.npz", **columns)
    with pytest.raises(UntrustedError, match=message):
        read_film(tmp_path / "x.npz")
