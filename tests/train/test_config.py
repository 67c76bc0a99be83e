"""Configurations: strict on names and types, stable in their hash."""

import pytest

from nfpo_train.commands import parse_overrides
from nfpo_train.config import ConfigError, config_from_dict, load_task
from nfpo_train.envs.rewards import REWARDS


def test_shipped_task_round_trips_and_uses_known_rewards():
    cfg = load_task("go2_walk")
    assert config_from_dict(cfg.to_dict()) == cfg
    assert config_from_dict(cfg.to_dict()).sha256() == cfg.sha256()
    assert set(cfg.env.rewards) <= set(REWARDS)
    assert load_task("go2_walk", {"seed": 2}).sha256() != cfg.sha256()


def test_iterations_cover_the_steps():
    cfg = load_task("go2_walk", {"total_steps": 512 * 24 * 10 + 1})
    assert cfg.iterations == 11


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"env.num_env": 5}, "unknown entries \\['num_env'\\]"),
        ({"env.num_envs": "many"}, "expected int"),
        ({"env.num_envs": 1.5}, "expected int"),
        ({"policy": "diffusion"}, "diffusion"),
        ({"env.control_dt": 0.013}, "not a multiple"),
        ({"algorithm.schedule": "cosine"}, "cosine"),
        ({"env.commands": 3}, "expected a mapping"),
        ({"env.commands.vx": 1.0}, "expected a list"),
    ],
)
def test_mistakes_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_task("go2_walk", overrides)


def test_unknown_task_lists_the_known():
    with pytest.raises(ConfigError, match="go2_walk"):
        load_task("go3_fly")


def test_override_strings_become_typed_values():
    assert parse_overrides(["a.b=3e-4", "c=2", "d=[1, 2]", "e=word"]) == {"a.b": 3e-4, "c": 2, "d": [1, 2], "e": "word"}
    with pytest.raises(ConfigError, match="dotted.name=value"):
        parse_overrides(["nonsense"])
