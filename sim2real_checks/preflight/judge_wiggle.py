"""What the wiggle says of joint order, signs and motors; pure functions of what was commanded and seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from nfpo_deploy.safety.limits import tilt_angle
from nfpo_deploy.types import RobotState
from robots.loader import RobotSpec
from sim2real_checks.preflight.finding import Finding, Result, skipped
from sim2real_checks.preflight.judge_robot import LEVEL, MOVING
from sim2real_checks.preflight.wiggle_motion import REACH, STIFFNESS, Stroke

ANSWERED = 0.2
"""Part of the commanded motion from which a joint has answered: weight, friction and ground take the rest."""
TOO_FAR = 1.5
"""Part of the commanded motion beyond which the encoder counts wrongly."""
STILL = 0.02
"""rad; ten times what an encoder's mean changes by itself."""
STRAYED = 1.5 * REACH
"""rad from its rest where no stroke leads a joint."""
WITH_IT = 0.5
"""Part of the joint's own motion by which others may move with it."""
LEG_WITH_IT = 2.5
"""The same within its leg where the ground holds the foot: a calf extends by folding thigh and hip, up to 1.7 times."""
TURNED = 0.1
"""rad of the trunk; the robot moved as a whole."""
DEAD = 0.25
"""Part of the torque that the missing motion asks for; a motor that makes less is not there."""
HOLDS = 1.5
"""N·m of a motor that holds something, at rest: the robot stands, or a program left it stiff."""
NEEDED = ("built-in controller", "accelerometer", "joints at rest")
"""Checks that must pass without a warning before anything moves."""
FREE = "hang the robot, or lay it so that this leg is free, and run this again"


class Kind(IntEnum):
    """What a stroke came to; where two strokes differ, the lower one counts."""

    CLEAN = 0
    COUPLED = 1
    FLIPPED = 2
    ELSEWHERE = 3
    SPREAD = 4
    TOO_FAR = 5
    MOVED = 6
    STUCK = 7
    DEAD = 8


@dataclass(frozen=True)
class Stop:
    """Why the wiggle ended early, in whose turn (None: before the first), and (N,) rad that joints were off rest."""

    reason: str
    joint: int | None
    moved: np.ndarray


def judge_wiggle(strokes: Sequence[Stroke], spec: RobotSpec, stop: Stop | None = None) -> list[Finding]:
    """One finding for each joint, in joint order; one for all where nothing moved at all."""
    if stop is None:
        return [_of_joint(joint, strokes, spec) for joint in range(spec.num_joints)]
    strayed = _strayed(stop)
    culprit = stop.joint if strayed is None else strayed
    if culprit is None:
        return [
            Finding("wiggle", Result.FAIL, f"nothing was moved: {stop.reason}", "put that right and run this again")
        ]
    findings = []
    for joint, name in enumerate(spec.joint_names):
        if joint == culprit:
            findings.append(judge_stop(stop, culprit, spec))
        elif stop.joint is not None and joint < stop.joint:
            findings.append(_of_joint(joint, strokes, spec))
        else:
            findings += skipped([f"wiggle {name}"], f"not proven: stopped for {spec.joint_names[culprit]}")
    return findings


def _of_joint(joint: int, strokes: Sequence[Stroke], spec: RobotSpec) -> Finding:
    return judge_joint(joint, [one for one in strokes if one.joint == joint], spec)


def _strayed(stop: Stop) -> int | None:
    """The joint that was farthest from its rest, farther than any stroke leads; None where none was."""
    worst = int(np.abs(stop.moved).argmax())
    return worst if abs(float(stop.moved[worst])) > STRAYED else None


def judge_joint(joint: int, strokes: Sequence[Stroke], spec: RobotSpec) -> Finding:
    """A joint by its strokes; one good one is enough, because the ground or a stop may be in the way of the other."""
    check = f"wiggle {spec.joint_names[joint]}"
    if not strokes:
        remedy = "its angle leaves no room to either side, or no state came: move the leg by hand and run this again"
        return Finding(check, Result.FAIL, "not measured", remedy)
    graded = [(kind_of(one, spec), one) for one in strokes]
    kind, stroke = min(graded, key=lambda pair: (pair[0], -float((pair[1].moved * np.sign(pair[1].expected)).max())))
    said, remedy = _words(kind, stroke, spec)
    own = float(stroke.moved[joint])
    measured = f"expected {stroke.expected:+.3f} rad, seen {own:+.3f}{said}"
    result = {Kind.CLEAN: Result.PASS, Kind.COUPLED: Result.WARN}.get(kind, Result.FAIL)
    values = {
        "kind": kind.name.lower(), "expected": stroke.expected, "moved": stroke.moved.tolist(),
        "torque": stroke.torque, "turned": stroke.turned,
    }  # fmt: skip
    return Finding(check, result, measured, remedy, values)


def kind_of(stroke: Stroke, spec: RobotSpec) -> Kind:
    """What one stroke shows."""
    joint, expected = stroke.joint, stroke.expected
    own = float(stroke.moved[joint])
    if abs(expected) < STILL:
        return Kind.STUCK  # the gate held the target back
    share = own / expected
    other = strongest_other(stroke)
    seen = abs(float(stroke.moved[other]))
    bound = STILL + WITH_IT * abs(own)
    if stroke.turned > TURNED:
        return Kind.MOVED
    if share >= ANSWERED:
        if share > TOO_FAR:
            return Kind.TOO_FAR
        if seen <= bound:
            return Kind.CLEAN
        outside = [i for i in _others(stroke) if not same_leg(i, joint, spec)]
        far = any(abs(float(stroke.moved[i])) > bound for i in outside)
        return Kind.SPREAD if far or seen > LEG_WITH_IT * abs(own) else Kind.COUPLED
    if share <= -ANSWERED:
        return Kind.FLIPPED
    if seen >= ANSWERED * abs(expected) and seen > 2.0 * abs(own):
        return Kind.ELSEWHERE
    missing = STIFFNESS * abs(expected - own)
    return Kind.DEAD if abs(stroke.torque) < DEAD * missing else Kind.STUCK


def judge_stop(stop: Stop, culprit: int, spec: RobotSpec) -> Finding:
    """The joint that ran away, or in whose turn the gate, a monitor or somebody ended it."""
    name, values = spec.joint_names[culprit], {"moved": stop.moved.tolist()}
    measured, remedy = f"stopped: {stop.reason}", "put that right and run this again"
    if _strayed(stop) == culprit:
        turn = "before the first turn" if stop.joint is None else f"in the turn of {spec.joint_names[stop.joint]}"
        measured = f"ran {float(stop.moved[culprit]):+.3f} rad away from its rest, {turn}; {measured}"
        remedy = (
            "if nobody touched the robot and no leg lies on another, its sign or the order of joints is wrong: compare "
            f"the cables with robots/{spec.name}/robot.yaml; do not start the robot"
        )
    return Finding(f"wiggle {name}", Result.FAIL, measured, remedy, values)


def strongest_other(stroke: Stroke) -> int:
    """The joint, other than the commanded one, that moved most."""
    return max(_others(stroke), key=lambda i: abs(float(stroke.moved[i])))


def moved_instead(stroke: Stroke) -> int:
    """The other joint that moved most in the commanded direction; where none did, the one that moved most."""
    share = {i: float(stroke.moved[i]) * np.sign(stroke.expected) for i in _others(stroke)}
    best = max(share, key=lambda i: share[i])
    return best if share[best] > STILL else strongest_other(stroke)


def same_leg(one: int, other: int, spec: RobotSpec) -> bool:
    """Whether two joints (indices) belong to one foot's chain."""
    return any(one in foot.joint_indices and other in foot.joint_indices for foot in spec.feet)


def reasons_against(findings: Sequence[Finding]) -> list[str]:
    """Why the robot may not be moved after the checks that only listen, one text for each; empty when it may."""
    return [
        f"{one.check}: {one.measured}"
        for one in findings
        if one.result is Result.FAIL or (one.check in NEEDED and one.result is not Result.PASS)
    ]


def judge_start(states: Sequence[RobotState], spec: RobotSpec) -> str:
    """Why a robot that showed these states may not be moved; empty when it lies or hangs limp and at rest."""
    last = states[-1]
    tilt = tilt_angle(last.quat_wxyz)
    if not tilt <= LEVEL:
        return f"tilt {tilt:.2f} rad, expected at most {LEVEL:g}: lay it on its belly or hang it level"
    speed = np.abs(np.mean([state.dq for state in states], axis=0))
    way = np.abs(last.q - states[0].q)
    i = int(np.maximum(speed / MOVING, way / STILL).argmax())
    if speed[i] > MOVING or way[i] > STILL:
        return f"{spec.joint_names[i]} moves, {speed[i]:.2f} rad/s and {way[i]:.3f} rad: let the robot come to rest"
    torque = np.abs(np.mean([state.tau_est for state in states], axis=0))
    i = int(torque.argmax())
    if torque[i] > HOLDS:
        return (
            f"{spec.joint_names[i]} makes {torque[i]:.1f} N·m, at most {HOLDS:g} where it lies or hangs: "
            "it stands, or a program left its motors stiff; lay it down, switch it off and on"
        )
    return ""


def _others(stroke: Stroke) -> list[int]:
    return [i for i in range(len(stroke.moved)) if i != stroke.joint]


def _words(kind: Kind, stroke: Stroke, spec: RobotSpec) -> tuple[str, str]:
    """What to add to the numbers, and what to do."""
    other = moved_instead(stroke) if kind is Kind.ELSEWHERE else strongest_other(stroke)
    name, moved = spec.joint_names[other], f"{float(stroke.moved[other]):+.3f} rad"
    table = f"robots/{spec.name}/robot.yaml"
    caught = f"; if the ground holds the leg: {FREE}" if same_leg(other, stroke.joint, spec) else ""
    return {
        Kind.CLEAN: ("", ""),
        Kind.COUPLED: (f"; {name} of the same leg moved with it by {moved}", f"the ground pushes back: {FREE}"),
        Kind.FLIPPED: (
            ": the other way",
            f"command and encoder have opposite signs: compare motor and firmware with {table}; do not start the robot",
        ),
        Kind.ELSEWHERE: (
            f"; {name} moved instead, by {moved}",
            f"the cables of the two are swapped, or {table} has another joint order; do not start the robot{caught}",
        ),
        Kind.SPREAD: (
            f"; {name} moved as well, by {moved}",
            f"one command reaches two motors, or the robot slid: {FREE}; if it stays, look at cables and {table}",
        ),
        Kind.TOO_FAR: (
            f": more than {TOO_FAR:g} times as far",
            f"the encoder counts wrongly, or this is another gear than that of {table}; do not start the robot",
        ),
        Kind.MOVED: (
            f"; the trunk turned by {stroke.turned:.2f} rad: the robot moved as a whole",
            f"keep hands off and let it rest; {FREE}",
        ),
        Kind.STUCK: (
            f" with {stroke.torque:+.1f} N·m: the motor pushes and the encoder shows no motion",
            f"is the leg caught under the robot? {FREE}; if it stays, encoder or gear is broken",
        ),
        Kind.DEAD: (
            f" with {stroke.torque:+.1f} N·m: the motor does not answer",
            "check its cable and fuse, and its state in the robot's app; switch the robot off and on",
        ),
    }[kind]  # fmt: skip
