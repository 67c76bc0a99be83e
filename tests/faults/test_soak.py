"""The soak's commands and verdicts; a real soak is in `test_soak_for_real.py`."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from sim2real_checks.soak.halts import read_spans
from sim2real_checks.soak.judge import (
    GROWTH_MIB,
    count_falls,
    memory_problems,
    permit_problems,
    rate_problems,
    trend_of,
    wire_problems,
)
from sim2real_checks.soak.report import HTML, JSON, describe_halts, write_report
from sim2real_checks.soak.run import SoakLog
from sim2real_checks.soak.wandering import KINDS, STILL, Wandering
from sim2real_checks.soak.witness import Second

RANGES = {"vx": (-0.6, 1.0), "vy": (-0.4, 0.4), "wz": (-1.0, 1.0)}


def legs(seed: int, count: int = 500) -> list:
    wandering = Wandering(RANGES, seed)
    return [wandering.next() for _ in range(count)]


def test_commands_stay_within_what_the_policy_was_trained_for():
    for leg in legs(1):
        for elapsed in np.linspace(0.0, leg.duration, 7):
            for value, (low, high) in zip(leg.at(float(elapsed)), RANGES.values(), strict=True):
                assert low - 1e-12 <= value <= high + 1e-12


def test_all_kinds_come_and_each_leg_begins_where_the_last_ended():
    walked = legs(2)
    assert {leg.kind for leg in walked} == set(KINDS)
    assert walked[0].start == STILL
    for before, after in zip(walked, walked[1:], strict=False):
        assert after.start == before.end
    ramp = next(leg for leg in walked if leg.kind == "ramp")
    assert ramp.at(0.0) == ramp.start and ramp.at(ramp.ramp) == pytest.approx(ramp.end)
    assert ramp.at(ramp.ramp / 2) == pytest.approx(np.mean([ramp.start, ramp.end], axis=0))
    step = next(leg for leg in walked if leg.kind == "step")
    assert step.at(0.0) == step.end
    reverse, before = next((b, a) for a, b in zip(walked, walked[1:], strict=False) if b.kind == "reverse" and a.end[0])
    assert reverse.end[2] == pytest.approx(-before.end[2])
    assert next(leg for leg in walked if leg.kind == "turn").end[:2] == (0.0, 0.0)


def test_the_same_seed_gives_the_same_walk():
    assert legs(3) == legs(3) and legs(3) != legs(4)


# Trends.

HOUR = np.arange(0.0, 3600.0, 5.0)


def test_a_straight_line_has_its_slope_and_no_doubt():
    trend = trend_of(HOUR, 10.0 + 7.0 * HOUR / 3600.0)
    assert trend.slope == pytest.approx(7.0) and trend.low == pytest.approx(7.0) and trend.high == pytest.approx(7.0)
    # A fifth of the hour is warm-up, at most ten minutes.
    assert trend.change == pytest.approx(7.0 * (3595 - 600) / 3600.0)
    assert trend.certain_change == pytest.approx(trend.change)


def test_growth_that_ends_with_the_warm_up_is_none():
    trend = trend_of(HOUR, np.where(HOUR < 500.0, HOUR, 500.0))
    assert trend.slope == pytest.approx(0.0, abs=1e-9) and abs(trend.certain_change) < 1e-9


def test_noise_is_no_growth_and_growth_is_found_in_noise():
    noise = np.random.default_rng(5).normal(0.0, 3.0, len(HOUR))
    flat, growing = trend_of(HOUR, 80.0 + noise), trend_of(HOUR, 80.0 + noise + 20.0 * HOUR / 3600.0)
    assert flat.low < 0.0 < flat.high and flat.certain_change == 0.0
    assert growing.low < 20.0 < growing.high and growing.certain_change > 10.0
    assert memory_problems({"a": flat}) == []
    (problem,) = memory_problems({"a": flat, "leaky": growing})
    assert "leaky" in problem


def test_the_interval_holds_the_true_slope_about_as_often_as_it_says():
    random = np.random.default_rng(6)
    hits = 0
    for _ in range(400):
        trend = trend_of(HOUR, random.normal(0.0, 1.0, len(HOUR)) + 2.0 * HOUR / 3600.0)
        hits += trend.low <= 2.0 <= trend.high
    assert 0.92 < hits / 400 < 0.98


def test_little_memory_may_come_and_go():
    small = trend_of(HOUR, 80.0 + 0.9 * GROWTH_MIB * HOUR / 3600.0)
    assert memory_problems({"a": small}) == []


def test_a_short_or_empty_series_has_no_trend():
    assert trend_of([], []) is None
    assert trend_of(HOUR[:10], HOUR[:10]) is None
    assert trend_of(HOUR, np.full(len(HOUR), math.nan)) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full(len(HOUR), 500.0), []),
        (np.full(len(HOUR), 488.0), ["488.0 Hz in the mean"]),
        (500.0 - 15.0 * HOUR / 3600.0, ["drifted by -1"]),
    ],
)
def test_rates(values, words):
    problems = rate_problems("bridge loop", 500.0, trend_of(HOUR, values))
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


def test_a_rate_that_was_never_seen_is_a_problem():
    assert rate_problems("policy", 50.0, None) == ["policy: too few samples of its rate"]


def test_missed_permits(spec):
    assert permit_problems([0.021, 0.049], [0.03, 0.045], spec) == []
    problems = permit_problems([0.021, 0.081, 0.06], [0.03, 0.07], spec)
    assert len(problems) == 2 and "81 ms" in problems[0] and "2 times" in problems[0] and "70 ms" in problems[1]


def test_pauses_of_the_wire(spec):
    assert wire_problems([3.0, 39.0], spec) == []
    (problem,) = wire_problems([3.0, 41.0, 55.0], spec)
    assert "55 ms" in problem and "2 times" in problem


def test_falls_are_counted_once_each(spec):
    heights, tilts = [0.31, 0.31, 0.1, 0.1, 0.31, 0.31, 0.31], [0.0, 0.0, 0.0, 0.0, 0.0, 1.2, 0.1]
    assert count_falls(heights, tilts, spec) == 2
    assert count_falls([0.31] * 3, [0.1] * 3, spec) == 0


# The report.


def log_of_an_hour() -> SoakLog:
    def sample(t: float) -> dict:
        return {
            "t": t, "command": [0.1, 0.0, 0.0], "permit_gap": 0.012, "permit_rate": 100.0, "permit_age": 0.03,
            "state_age": 0.004, "bridge_rate": 500.0, "bridge_jitter_p99_ms": 0.4, "latency_p99_ms": 7.0, "overruns": 0,
            "policy_rate": 50.0, "load": 4.0, "rss": {"guard": 48.0, "sdk_bridge": 95.0},
            "cpu": {"guard": 0.05, "sdk_bridge": 0.3},
        }  # fmt: skip

    def second(i: int, height: float, stiffness: float = 300.0) -> dict:
        return {
            "ns": i * 1_000_000_000, "lowcmd_rate": 500.0, "lowcmd_jitter_p99_ms": 0.5, "lowcmd_gap_max_ms": 4.0,
            "stiffness": stiffness, "height_min": height, "tilt_max": 0.05, "vx": 0.1, "vy": 0.0, "wz": 0.0,
        }  # fmt: skip

    wire = [second(0, 0.08), *(second(i, 0.30) for i in range(1, 3600)), second(3600, 0.08), second(3601, 0.08, 0.0)]
    return SoakLog(samples=[sample(float(t)) for t in HOUR], wire=wire, walked=3600.0)


def test_a_good_hour_passes(spec, tmp_path):
    assert write_report(tmp_path, log_of_an_hour(), spec, 60.0, {"load": 2}) == []
    data = json.loads((tmp_path / JSON).read_text())
    assert data["passed"] and len(data["samples"]) == len(HOUR)
    assert data["memory"]["guard"]["mean"] == pytest.approx(48.0)
    text = (tmp_path / HTML).read_text()
    assert "nothing went wrong" in text and text.count("data:image/png;base64,") == 4


def leak(log: SoakLog) -> None:
    for sample in log.samples:
        sample["rss"]["guard"] += sample["t"] / 600.0


def fall(log: SoakLog) -> None:
    log.wire[1000]["height_min"] = 0.1


def trip(log: SoakLog) -> None:
    log.trips.append({"t": 12.0, "mode": "FAULT", "reason": "gate: x"})


def miss(log: SoakLog) -> None:
    log.samples[7]["permit_age"] = 0.09


def pause(log: SoakLog) -> None:
    log.wire[7]["lowcmd_gap_max_ms"] = 44.0


def slow(log: SoakLog) -> None:
    for sample in log.samples:
        sample["policy_rate"] = 45.0


def early(log: SoakLog) -> None:
    log.walked = 1800.0


def blind(log: SoakLog) -> None:
    log.wire.clear()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (leak, "memory of guard grew"), (fall, "fell 1 times"), (trip, "unasked FAULT after 12 s: gate: x"),
        (miss, "no new permit for 90 ms"), (pause, "no LowCmd for 44 ms"), (slow, "policy ran at 45.0 Hz"),
        (early, "ended after 30.0 of 60 minutes"), (blind, "nothing was seen"),
    ],
)  # fmt: skip
def test_each_thing_that_goes_wrong_fails_the_soak(spec, tmp_path, spoil, words):
    log = log_of_an_hour()
    spoil(log)
    problems = write_report(tmp_path, log, spec, 60.0, {})
    assert len(problems) == 1 and words in problems[0]


def halted(log: SoakLog, at: float, seconds: float) -> None:
    """A core that stood still."""
    log.halts = [(round(at * 1e9), round((at + seconds) * 1e9))]


def test_what_follows_from_a_computer_that_stood_still_is_told_apart(spec, tmp_path):
    log = log_of_an_hour()
    halted(log, 11.8, 0.06)
    trip(log)
    log.trips[0]["until"] = 20.0
    log.wire[11]["lowcmd_gap_max_ms"] = 63.0
    log.wire[14]["height_min"] = 0.1
    assert write_report(tmp_path, log, spec, 60.0, {}) == []
    words = describe_halts(log)
    assert words == [
        "cores stood still 1 times, for 60 ms at most", "it follows: unasked FAULT after 12 s: gate: x"
    ]  # fmt: skip
    assert words[1] in (tmp_path / HTML).read_text() and json.loads((tmp_path / JSON).read_text())["explained"]


@pytest.mark.parametrize(("at", "seconds"), [(11.8, 0.01), (9.0, 0.06), (12.1, 0.06)])
def test_a_halt_that_is_short_or_at_another_time_explains_nothing(spec, tmp_path, at, seconds):
    log = log_of_an_hour()
    halted(log, at, seconds)
    trip(log)
    assert write_report(tmp_path, log, spec, 60.0, {}) == ["unasked FAULT after 12 s: gate: x"]


def test_a_halt_excuses_no_more_than_itself(spec, tmp_path):
    log = log_of_an_hour()
    halted(log, 7.5, 0.02)
    log.wire[7]["lowcmd_gap_max_ms"] = 64.0
    assert write_report(tmp_path, log, spec, 60.0, {}) == ["no LowCmd for 44 ms (more than 40 ms 1 times)"]


def test_halts_of_all_cores_count_and_a_cut_off_line_does_not(tmp_path):
    (tmp_path / "0").write_text("[50, 90]\n[200, 300]\n[400, 4")
    (tmp_path / "1").write_text("[60, 70]\n")
    assert read_spans([tmp_path / "0", tmp_path / "1", tmp_path / "2"]) == [(50, 90), (60, 70), (200, 300)]


def test_a_computer_that_stands_still_too_often_proves_nothing(spec, tmp_path):
    log = log_of_an_hour()
    for at in range(100, 800, 100):
        log.trips.append({"t": float(at), "mode": "FAULT", "reason": "gate: x", "until": at + 8.0})
        log.halts.append((round((at - 0.1) * 1e9), round((at - 0.05) * 1e9)))
    (problem,) = write_report(tmp_path, log, spec, 60.0, {})
    assert problem.startswith("7 trips because a core stood still, more than 6")
    log.trips.pop()
    assert write_report(tmp_path, log, spec, 60.0, {}) == []


def test_an_empty_soak_fails(spec, tmp_path):
    assert write_report(tmp_path, SoakLog(), spec, 60.0, {})


def test_a_second_in_which_nothing_came_has_no_numbers():
    summary = Second(5).summary()
    assert summary["lowcmd_rate"] == 0.0
    assert summary["lowcmd_gap_max_ms"] is None and summary["height_min"] is None
