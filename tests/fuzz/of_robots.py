"""Parsers of what a user writes: robot folders, parameters, launch arguments, scripts, configurations."""

from __future__ import annotations

import json
import random
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from nfpo_deploy.contract.params_file import check_params_file
from nfpo_deploy.errors import NfpoError
from nfpo_deploy.graph import ROS_NODES, build_graph
from nfpo_deploy.graph_arguments import parse_arguments
from nfpo_train.commands import parse_overrides
from nfpo_train.config import ConfigError, config_from_dict, load_task
from nfpo_train.plots import read_metrics
from robots.loader import ROBOTS_DIR, RobotSpecError, load_robot_file
from robots.untrusted import UntrustedError, load_json, load_yaml
from sim2real_checks.robot_sim.__main__ import _parse_push
from sim2real_checks.robot_sim.remote import parse_remote_event
from sim2real_checks.validation.judge import check_limits
from sim2real_checks.validation.scenario import SETS_DIR, ScenarioError, load_set
from sim2real_checks.walk.script import Segment
from tests.fuzz.mutations import mutate_bytes, mutate_tree, scalar, value
from tests.fuzz.parser import Parser

REPO = ROBOTS_DIR.parent
GO2 = ROBOTS_DIR / "go2"
SCENARIOS = SETS_DIR / "go2_quick.yaml"
PARAMETERS = REPO / "ros2_ws/src/nfpo_deploy/config/go2_walk.yaml"
CONFIG = GO2 / "policies/walk/config.yaml"


class _Dumper(yaml.SafeDumper):
    """Writes copies instead of aliases, which our readers refuse."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(tree: Any) -> bytes:
    """YAML text of any tree of plain values."""
    return yaml.dump(tree, Dumper=_Dumper, allow_unicode=True).encode(errors="replace")


@lru_cache
def _tree(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def mutated_yaml(rng: random.Random, path: Path) -> bytes:
    """A shipped YAML file, damaged as a tree or as text."""
    if rng.random() < 0.75:
        return to_yaml(mutate_tree(rng, _tree(path)))
    return mutate_bytes(rng, path.read_bytes(), YAML_TRICKS)


YAML_TRICKS = (
    b"a: &a [1]\nb: [*a, *a]\n", b"!!python/object/apply:os.system [ls]", b"? {a: b}\n: c", b"[" * 50, b"<<: {a: 1}",
    b"2001-13-40", b"0b2", b"--- \n---\n", b"\xef\xbb\xbf", b"%YAML 9.9\n---", b"!!set {a}", b"=", b".inf", b"1:2:3",
)  # fmt: skip


def run_robot(data: bytes, scratch: Path) -> None:
    """robot.yaml beside the model that it names."""
    if not (scratch / "go2.xml").exists():
        shutil.copy(GO2 / "go2.xml", scratch)
    (scratch / "robot.yaml").write_bytes(data)
    load_robot_file(scratch / "robot.yaml")


def run_parameters(data: bytes, scratch: Path) -> None:
    """A parameter file of the graph's nodes."""
    (scratch / "p.yaml").write_bytes(data)
    check_params_file(scratch / "p.yaml", ROS_NODES)


def run_scenarios(data: bytes, scratch: Path) -> None:
    """A set of scenarios, with its limits."""
    (scratch / "s.yaml").write_bytes(data)
    check_limits(load_set(str(scratch / "s.yaml")).scenarios)


LAUNCH = [
    ["sim:=true"],
    ["sim:=true", "policy:=walk", "domain_id:=3", "ros_domain_id:=7", "realtime_priority:=0", "log_level:=warn"],
    ["interface:=lo", "policy:=none"],
    ["sim:=true", "sim_options:=--push 5,0.5,0", f"params_file:={PARAMETERS}", "composed:=true"],
]


def generate_launch(rng: random.Random) -> bytes:
    """Words of a launch, one a line."""
    words = list(rng.choice(LAUNCH))
    for _ in range(rng.choice((1, 2))):
        name = (
            rng.choice(words).partition(":=")[0]
            if rng.random() < 0.7
            else rng.choice(("params_file", "policy", "record"))
        )
        new = f"{name}:={scalar(rng)}" if rng.random() < 0.8 else str(scalar(rng))
        words[rng.randrange(len(words))] = new.replace("\n", " ")
    text = "\n".join(words).encode(errors="replace")
    return mutate_bytes(rng, text) if rng.random() < 0.3 else text


def run_launch(data: bytes, scratch: Path) -> None:
    """Arguments as `nfpo launch` takes them; nothing is started."""
    words = data.decode(errors="surrogateescape").split("\n")
    build_graph("go2_walk", parse_arguments("go2_walk", words), {})


def run_script(data: bytes, scratch: Path) -> None:
    """Events of the simulator's command line, segments of a walk."""
    text = data.decode(errors="replace")
    parse_remote_event(text.partition("|")[0])
    _parse_push(text.partition("|")[2] or "1,2,3")
    parts = text.partition("|")[2].split(",")
    Segment("x", *(float(part) for part in parts[:4]))


def generate_script(rng: random.Random) -> bytes:
    """An event and a push."""
    seed = rng.choice((b"3,L2+B|5,0.5,0", b"5,ly=0.5|1,0,0", b"6|0,0,0", b"1,A+B+X,rx=-1,ry=1e-3|1e3,-1,inf"))
    return mutate_bytes(rng, seed, (b"nan", b"1e999", b",,,", b"=", b"+"))


def run_config(data: bytes, scratch: Path) -> None:
    """A training configuration, as a checkpoint or a task file holds it."""
    config_from_dict(load_yaml(data))


def generate_override(rng: random.Random) -> bytes:
    """A word after --set."""
    name = rng.choice(
        ("env.num_envs", "algorithm.actor_hidden", "seed", "env", "env.commands.vx", "policy", "flow.x.y")
    )
    return f"{name}={json.dumps(value(rng)) if rng.random() < 0.7 else scalar(rng)}".encode(errors="replace")


def run_override(data: bytes, scratch: Path) -> None:
    """--set of nfpo train."""
    load_task("go2_walk", parse_overrides([data.decode(errors="replace")]))


METRICS = [{"iteration": i, "steps": i * 100, "Episode/return": 1.5, "Loss/entropy": -2.0} for i in range(1, 6)]


def generate_metrics(rng: random.Random) -> bytes:
    """metrics.jsonl with damaged rows."""
    rows = [json.dumps(mutate_tree(rng, row) if rng.random() < 0.5 else row).encode() for row in METRICS]
    text = b"\n".join(rows)
    return mutate_bytes(rng, text) if rng.random() < 0.4 else text


def run_metrics(data: bytes, scratch: Path) -> None:
    """Learning curves of a run folder."""
    (scratch / "metrics.jsonl").write_bytes(data)
    read_metrics(scratch)


JSON_SEEDS = (GO2 / "policies/walk/evaluation.json", GO2 / "policies/walk/curves.json")


def generate_json(rng: random.Random) -> bytes:
    """A shipped report, damaged."""
    raw = rng.choice(JSON_SEEDS).read_bytes()[:20_000]
    return mutate_bytes(rng, raw, (b"[" * 2000, b'{"a":' * 2000, b"1" * 5000, b"1e999", b"NaN", b'"\\ud800"'))


PARSERS = (
    Parser(
        "robot.yaml", ("robots/loader.py",), lambda rng: mutated_yaml(rng, GO2 / "robot.yaml"), run_robot,
        (RobotSpecError,), lambda: [(GO2 / "robot.yaml").read_bytes()],
    ),
    Parser(
        "YAML", ("robots/untrusted.py",), lambda rng: mutated_yaml(rng, rng.choice((GO2 / "robot.yaml", CONFIG))),
        lambda data, _: load_yaml(data) and None, (UntrustedError,), lambda: [CONFIG.read_bytes(), b""],
    ),
    Parser(
        "JSON", ("robots/untrusted.py",), generate_json, lambda data, _: load_json(data) and None, (UntrustedError,),
        lambda: [path.read_bytes() for path in JSON_SEEDS],
    ),
    Parser(
        "node parameters", ("nfpo_deploy/contract/params_file.py",), lambda rng: mutated_yaml(rng, PARAMETERS),
        run_parameters, (NfpoError,), lambda: [PARAMETERS.read_bytes()],
    ),
    Parser(
        "scenarios", ("sim2real_checks/validation/scenario.py",), lambda rng: mutated_yaml(rng, SCENARIOS),
        run_scenarios, (ScenarioError,), lambda: [SCENARIOS.read_bytes()],
    ),
    Parser(
        "launch arguments", (), generate_launch, run_launch, (NfpoError, RobotSpecError),
        lambda: ["\n".join(words).encode() for words in LAUNCH],
    ),
    Parser(
        "scripts", (), generate_script, run_script, (NfpoError, ValueError), lambda: [b"3,L2+B|5,0.5,0"],
    ),
    Parser(
        "training configuration", ("nfpo_train/config.py",), lambda rng: mutated_yaml(rng, CONFIG), run_config,
        (ConfigError, UntrustedError), lambda: [CONFIG.read_bytes()],
    ),
    Parser(
        "training overrides", ("nfpo_train/commands.py",), generate_override, run_override, (ConfigError,),
        lambda: [b"seed=3", b"env.num_envs=16"],
    ),
    Parser(
        "training metrics", ("nfpo_train/plots.py",), generate_metrics, run_metrics, (NfpoError,),
        lambda: ["\n".join(json.dumps(row) for row in METRICS).encode()],
    ),
)  # fmt: skip
