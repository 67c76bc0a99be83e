"""Scenario files are read as written, or refused with the entry that is wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from sim2real_checks.validation.judge import check_limits
from sim2real_checks.validation.scenario import SETS_DIR, Command, ScenarioError, load_set

GOOD = {
    "version": 1, "name": "mine", "robot": "go2", "description": "x",
    "defaults": {"duration": 4, "limits": {"planar_error": 0.2}, "terrain": {"friction": 0.6}},
    "scenarios": [{"name": "walk", "group": "g", "commands": [{"at": 1, "vx": 0.5}], "limits": {"yaw_error": 0.1}}],
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(**changes) -> str:
        path = tmp_path / "set.yaml"
        path.write_text(yaml.safe_dump({**GOOD, **changes}, sort_keys=False))
        return str(path)

    return write


def test_defaults_and_entries_are_merged(write):
    path = write()
    found = load_set(path)
    (scenario,) = found.scenarios
    assert (found.name, found.robot) == ("mine", "go2")
    assert scenario.duration == 4.0 and scenario.terrain.friction == 0.6 and scenario.terrain.kind == "flat"
    assert scenario.commands == (Command(1.0, 0.5),) and scenario.seeds == 1 and scenario.required
    assert scenario.limits == {"planar_error": 0.2, "yaw_error": 0.1}
    assert found.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_vary_makes_all_combinations(write):
    entry = {
        "name": "s", "commands": [{"at": 0.5}],
        "vary": {"commands.0.vx": [0.1, -0.2], "terrain.kind": ["rough", "flat"], "terrain.friction": [0.3]},
    }  # fmt: skip
    scenarios = load_set(write(scenarios=[entry])).scenarios
    assert [s.name for s in scenarios] == [
        "s vx=0.1 kind=rough friction=0.3", "s vx=0.1 kind=flat friction=0.3",
        "s vx=-0.2 kind=rough friction=0.3", "s vx=-0.2 kind=flat friction=0.3",
    ]  # fmt: skip
    assert [(s.commands[0].vx, s.terrain.kind) for s in scenarios] == [
        (0.1, "rough"), (0.1, "flat"), (-0.2, "rough"), (-0.2, "flat")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "version 2 is not supported"),
        ({"scenario": []}, "unknown entry 'scenario'; did you mean 'scenarios'?"),
        ({"scenarios": []}, "expected a list with at least one scenario"),
        ({"scenarios": [{"group": "x"}]}, "scenarios[0]: expected a mapping with a name"),
        ({"scenarios": [{"name": "a"}, {"name": "a"}]}, "two scenarios have the name 'a'"),
        ({"scenarios": [{"name": "a", "duration": "long"}]}, "'a': duration: expected a finite number, got 'long'"),
        ({"scenarios": [{"name": "a", "duration": 0}]}, "scenario 'a': duration: 0 is not between 0.5 and 600 s"),
        ({"scenarios": [{"name": "a", "duration": float("nan")}]}, "expected a finite number"),
        ({"scenarios": [{"name": "a", "physics": {"timestep": 0.0003}}]}, "0.002 s is no multiple of 0.0003 s"),
        ({"scenarios": [{"name": "a", "seeds": 1.5}]}, "seeds: expected a whole number, got 1.5"),
        ({"scenarios": [{"name": "a", "required": 1}]}, "required: expected true or false, got 1"),
        ({"scenarios": [{"name": "a", "terrain": {"kind": "ice"}}]}, "terrain: kind: 'ice' is none of flat, slope"),
        ({"scenarios": [{"name": "a", "terrain": {"frictoin": 1}}]}, "did you mean 'friction'?"),
        ({"scenarios": [{"name": "a", "terrain": 3}]}, "terrain: expected a mapping, got 3"),
        ({"scenarios": [{"name": "a", "commands": {"vx": 1}}]}, "commands: expected a list"),
        ({"scenarios": [{"name": "a", "commands": [{"vx": 1}]}]}, "commands[0]: missing entry 'at'"),
        ({"scenarios": [{"name": "a", "vary": {"terrain.friction": 1}}]}, "vary: expected lists"),
        ({"scenarios": [{"name": "a", "vary": {"commands.0.vx": [1]}}]}, "vary: commands.0.vx leads to nothing"),
        ({"robot": 3}, "name and robot must be words"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(write, changes, words):
    with pytest.raises(ScenarioError) as error:
        load_set(write(**changes))
    assert words in str(error.value) and "set.yaml" in str(error.value)


@pytest.mark.parametrize("text", ["- 1", "a: [", "x: !!python/object/apply:os.system [ls]", "\x00"])
def test_files_that_are_no_scenarios(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=r"bad\.yaml"):
        load_set(str(path))


def test_unknown_set_lists_ours():
    with pytest.raises(ScenarioError, match="neither a file nor one of ours: .*go2_quick"):
        load_set("nonsense")


def test_a_limit_must_be_of_a_score(write):
    scenarios = load_set(write(scenarios=[{"name": "a", "limits": {"planar_eror": 1}}])).scenarios
    with pytest.raises(ScenarioError, match="'planar_eror' is no score; known: survived"):
        check_limits(scenarios)


@pytest.mark.parametrize("path", sorted(SETS_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_sets_are_well_formed(path):
    found = load_set(path.stem)
    check_limits(found.scenarios)
    assert found.name == path.stem and all(scenario.group for scenario in found.scenarios)
