"""Command line of the simulated robot: `python -m sim2real_checks.robot_sim`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nfpo_deploy import realtime
from nfpo_deploy.errors import NfpoError
from nfpo_deploy.realtime import adopt_priority, drop_priority, take_core
from robots.loader import RobotSpecError
from sim2real_checks.robot_sim.config import Push, SensorNoise, SimConfig, SimConfigError
from sim2real_checks.robot_sim.remote import parse_remote_event
from sim2real_checks.robot_sim.sim import RobotSim, SimSummary

_EXAMPLES = """A MuJoCo robot that speaks the Unitree protocol over DDS. It ends on Ctrl-C or SIGTERM.

Examples:
  python -m sim2real_checks.robot_sim                                  a Go2 on domain 0 of the loopback
  interface python -m sim2real_checks.robot_sim --record run.npz --video run.mp4 log the truth, make a video
  at the end python -m sim2real_checks.robot_sim --push 5,0.5,0 --push 10,0,-0.5  push it at 5 s and 10 s
  python -m sim2real_checks.robot_sim --remote 3,L2+B --remote 4       press L2 and B for one second python -m
  sim2real_checks.robot_sim --builtin-mode "" --no-noise     nothing to release first, perfect sensors
"""


@dataclass
class Arguments:
    """Options of the command line."""

    robot: str = "go2"
    """Robot folder."""
    interface: str = "lo"
    """Network interface to appear on."""
    domain_id: int = 0
    """DDS domain; real robots use 0."""
    duration: float | None = None
    """Stop after this many seconds."""
    timestep: float = 0.001
    """Physics step, s."""
    initial_pose: str = "crouch"
    """crouch (on the belly) or default (standing)."""
    builtin_mode: str = "normal"
    """Built-in controller active at start; LowCmd is ignored until a client releases it. "" for none."""
    lowcmd_timeout: float | None = None
    """Motors go limp this many seconds after the last LowCmd; without it the last command persists."""
    command_latency: float = 0.0
    """s from LowCmd to the motors."""
    sensor_latency: float = 0.0
    """s from the physics to LowState."""
    noise: bool = True
    """Sensor noise."""
    seed: int = 0
    """Of the noise."""
    foot_friction: float = 0.8
    """Sliding friction of the feet."""
    payload: float = 0.0
    """kg added to the base."""
    motor_strength: float = 1.0
    """Torque made for each N·m asked for."""
    battery_soc: int = 90
    """%."""
    gantry: Literal["auto", "hold", "free"] = "auto"
    """Whether a gantry holds the robot from the start; auto: where its model has a place for one."""
    gantry_release: float | None = None
    """The gantry lets go after this many seconds."""
    mode_machine: int | None = None
    """Variant that the robot says it is (unitree_hg); without it the first one of its robot.yaml."""
    push: Annotated[list[str], tyro.conf.arg(metavar="T,VX,VY"), tyro.conf.UseAppendAction] = field(
        default_factory=list
    )
    """At time T (s) add VX, VY (m/s, world frame) to the base's velocity; may be repeated."""
    remote: Annotated[list[str], tyro.conf.arg(metavar="T[,KEYS][,STICK=V]"), tyro.conf.UseAppendAction] = field(
        default_factory=list
    )
    """From time T (s) on, hold these keys (A+B) and sticks (lx, ly, rx, ry); may be repeated."""
    record: Path | None = None
    """Ground-truth log, .npz or .csv."""
    record_hz: float = 200.0
    """Rows per second in the log."""
    control: Path | None = None
    """Socket that takes requests for faults while it runs: docs/robot_sim.md."""
    video: Path | None = None
    """Render an .mp4 of the run when it has ended."""
    picture: Path | None = None
    """Render a strip of pictures (.png) when it has ended."""


def main(argv: list[str] | None = None) -> int:
    """Run until stopped. Exit status: 0 after an orderly end, 2 for a bad option or an unusable channel."""
    arguments = tyro.cli(Arguments, args=argv, prog="python -m sim2real_checks.robot_sim", description=_EXAMPLES)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    os.environ.setdefault(realtime.VARIABLE, realtime.DEFAULT_PRIORITY)
    take_core("robot_sim")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            config = _config(arguments, Path(scratch))
            sim = RobotSim(config)
        except (NfpoError, RobotSpecError, SimConfigError, ValueError) as error:
            print(f"robot_sim: {error}", file=sys.stderr)
            return 2
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sim.stop())
        # Above everything that controls it: a real robot never waits for its controller's computer.
        adopt_priority(lower_by=-3, endless=True)
        try:
            summary = sim.run()
        except NfpoError as error:
            print(f"robot_sim: {error}", file=sys.stderr)
            return 2
        drop_priority()
        _report(summary)
        _render(config, arguments)
    return 0


def _config(arguments: Arguments, scratch: Path) -> SimConfig:
    record = arguments.record
    if record is None and (arguments.video or arguments.picture):
        record = scratch / "record.npz"
    direct = ("robot", "interface", "domain_id", "duration", "timestep", "initial_pose", "builtin_mode",
              "lowcmd_timeout", "command_latency", "sensor_latency", "seed", "foot_friction", "payload",
              "motor_strength", "battery_soc", "record_hz", "control", "gantry", "gantry_release",
              "mode_machine")  # fmt: skip
    return SimConfig(
        **{name: getattr(arguments, name) for name in direct},
        noise=SensorNoise() if arguments.noise else SensorNoise.none(),
        pushes=tuple(_parse_push(text) for text in arguments.push),
        remote_events=tuple(parse_remote_event(text) for text in arguments.remote),
        record=record,
    )


def _parse_push(text: str) -> Push:
    try:
        time, vx, vy = (float(part) for part in text.split(","))
    except ValueError as error:
        raise SimConfigError(f"push must be T,VX,VY (s, m/s, m/s); got {text!r}") from error
    return Push(time, vx, vy)


def _report(summary: SimSummary) -> None:
    print(
        f"robot_sim: {summary.sim_time:.1f} s simulated in {summary.wall_time:.1f} s (real-time factor "
        f"{summary.real_time_factor:.3f}, worst lag {summary.max_lag * 1000:.1f} ms, {summary.slips} slips, "
        f"{summary.cpu_load:.2f} cores)\nrobot_sim: LowCmd: {summary.lowcmd_count} obeyed, "
        f"{summary.lowcmd_crc_errors} bad CRC, {summary.lowcmd_malformed} malformed, "
        f"{summary.lowcmd_ignored} ignored",
        flush=True,
    )


def _render(config: SimConfig, arguments: Arguments) -> None:
    if not (arguments.video or arguments.picture):
        return
    # A process of its own: the renderer's GL library must be chosen before MuJoCo is imported.
    command = [sys.executable, "-m", "sim2real_checks.robot_sim.render", str(config.record)]
    for option, path in (("--video", arguments.video), ("--strip", arguments.picture)):
        command += [option, str(path)] if path else []
    if subprocess.run(command, check=False).returncode != 0:
        print("robot_sim: no pictures; the run itself is not affected", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
