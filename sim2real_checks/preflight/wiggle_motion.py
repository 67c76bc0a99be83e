"""What `nfpo preflight --wiggle` asks of one joint after another, and what they answered. Pure: no clock, no wire.

A turn of a joint: stiffness grows from zero, the target goes out and back along a raised cosine, first away from the
nearer mechanical stop, then the other way, and stiffness fades again. All other joints are held
softly where they rest.

A joint whose encoder has the wrong sign, or is another one's, is driven to a wrong pose by any stiffness. Therefore it
grows slowly, and the gate is given limits closely around the rest pose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nfpo_deploy.types import RobotState
from robots.loader import Gains, RobotSpec

STIFFNESS = 50.0
"""N·m/rad; below a Go2's stand gain of 60. A blocked joint is pushed with 5 N·m: a leg moves, the trunk does not."""
HELD = 10.0
"""N·m/rad of all other joints: enough for legs that hang to stay where they are."""
YIELDING_STIFFNESS, YIELDING_DAMPING = 5.0, 1.0
"""Of the other joints of the leg: they give way where the ground holds the foot."""
REACH = 0.1
"""rad, how far a target goes."""
LEAST_REACH = 0.05
"""rad; where the range leaves less, that direction is left out."""
LEAD_S = 1.0
"""Until the first turn; the joints are held more and more. One whose encoder is not its own runs away here already."""
FADE_S = 0.4
HOLD_S = 0.2
STROKE_S = 1.5
REFERENCE_S = 0.1
"""Before a stroke, in which the joints are measured that it is compared with."""
APEX_S = 0.08
"""On either side of the turning point: the target has done at least 94 % of its way."""
CORRIDOR = 0.3
"""rad from its rest that any joint may leave it; beyond, the gate trips."""
MOST_SPEED = 2.0
"""rad/s; a stroke has 0.2."""
MOST_TILT = 0.35
"""rad; a robot that lies or hangs is flatter."""
MOST_TORQUE = 0.25
"""Part of the motors' torque limits."""
MOST_COMMAND_RATE = 1.0
"""rad/s."""
STAND_S = 0.5
SAME_POSE = 0.1
"""rad by which the joints may have moved since the rest pose was measured."""


def cautious(spec: RobotSpec, rest: np.ndarray) -> RobotSpec:
    """The robot as the gate shall treat it: no limit is wider than the robot's own, and both poses are where it rests.

    "Standing up" and "sitting down" thus mean to stay, without stiffness. `rest` is (N,) rad.
    """
    safety, damping = spec.safety, spec.damp_gains.damping
    centre = centre_of(spec, rest)
    limits = replace(
        safety,
        tilt=min(safety.tilt, MOST_TILT),
        torque_fraction=min(safety.torque_fraction, MOST_TORQUE),
        command_rate=min(safety.command_rate, MOST_COMMAND_RATE),
        start_pose_tolerance=min(safety.start_pose_tolerance, SAME_POSE),
        pose_tolerance=min(safety.pose_tolerance, SAME_POSE),
        stand_duration=min(safety.stand_duration, STAND_S),
    )
    none = np.zeros(spec.num_joints)
    stiffness = np.minimum(spec.max_gains.stiffness, STIFFNESS)
    return replace(
        spec,
        position_lower=np.maximum(spec.position_lower, centre - CORRIDOR),
        position_upper=np.minimum(spec.position_upper, centre + CORRIDOR),
        velocity_limit=np.minimum(spec.velocity_limit, MOST_SPEED / safety.joint_velocity),
        default_pose=centre,
        crouch_pose=centre,
        stand_gains=Gains(none, damping),
        damp_gains=Gains(none, damping),
        max_gains=Gains(stiffness, np.minimum(spec.max_gains.damping, damping)),
        safety=limits,
    )


def centre_of(spec: RobotSpec, rest: np.ndarray) -> np.ndarray:
    """(N,) rad: the rest pose moved into the range of targets, because folded legs lie on their stops."""
    margin = spec.safety.joint_position_margin
    return np.clip(rest, spec.position_lower + margin, spec.position_upper - margin)


@dataclass(frozen=True)
class Stroke:
    """One way out of a joint, and what was seen at its turning point against just before it."""

    joint: int
    expected: float
    """rad that the gate's target moved."""
    moved: np.ndarray
    """(N,) rad that each joint moved."""
    torque: float
    """N·m by which the joint's estimated torque changed."""
    turned: float
    """rad that the trunk turned."""


@dataclass(frozen=True)
class Turn:
    """When a joint's turn begins, s, and how far its target goes in each stroke, rad."""

    joint: int
    begin: float
    reaches: tuple[float, ...]

    @property
    def length(self) -> float:
        return 2 * FADE_S + len(self.reaches) * (HOLD_S + STROKE_S)

    def stroke_at(self, time: float) -> tuple[int, float]:
        """Which stroke `time` belongs to, and the s since that one began; negative while it is held before."""
        period = HOLD_S + STROKE_S
        since = time - self.begin - FADE_S
        index = min(max(0, math.floor(since / period)), len(self.reaches) - 1)
        return index, since - index * period - HOLD_S


class Motion:
    """Targets over time, and the strokes that have been measured.

    Attributes:
        strokes: finished ones, in order.
        turns: one for each joint, in joint order.
        duration: s until the last turn is over.
    """

    def __init__(self, spec: RobotSpec, rest: np.ndarray) -> None:
        """Plan for a robot that rests with joints at `rest`, (N,) rad."""
        self._centre = centre_of(spec, rest)
        self._stiffness = np.minimum(spec.max_gains.stiffness, STIFFNESS)
        self._damping = spec.damp_gains.damping
        self._rest_of_leg = [_rest_of_leg(spec, joint) for joint in range(spec.num_joints)]
        self.strokes: list[Stroke] = []
        self.turns: list[Turn] = []
        self.duration = LEAD_S
        for joint in range(spec.num_joints):
            turn = Turn(joint, self.duration, _reaches(spec, self._centre, joint))
            self.turns.append(turn)
            self.duration += turn.length
        self._before: list[_Sample] = []
        self._apex: list[_Sample] = []

    def turn_at(self, time: float) -> Turn | None:
        """The turn under way `time` s after the start; None before the first and after the last."""
        return next((turn for turn in self.turns if turn.begin <= time < turn.begin + turn.length), None)

    def target(self, time: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Targets rad, stiffness N·m/rad and damping N·m·s/rad, all (N,), `time` s after the start."""
        q, damping = self._centre.copy(), self._damping.copy()
        stiffness = np.minimum(self._stiffness, HELD * min(1.0, max(0.0, time / LEAD_S)))
        turn = self.turn_at(time)
        if turn is not None:
            j, since = turn.joint, time - turn.begin
            weight = min(1.0, since / FADE_S, (turn.length - since) / FADE_S)
            stiffness[j] += weight * (self._stiffness[j] - stiffness[j])
            leg = list(self._rest_of_leg[j])
            stiffness[leg] += weight * (YIELDING_STIFFNESS - stiffness[leg])
            damping[leg] += weight * (YIELDING_DAMPING - damping[leg])
            index, stroke = turn.stroke_at(time)
            if turn.reaches and 0.0 <= stroke <= STROKE_S:
                q[j] += turn.reaches[index] * 0.5 * (1.0 - math.cos(2.0 * math.pi * stroke / STROKE_S))
        return q, stiffness, damping

    def observe(self, time: float, state: RobotState, sent_q: np.ndarray) -> None:
        """Take a state that came `time` s after the start, and the targets, (N,) rad, that were sent then."""
        turn = self.turn_at(time)
        if turn is None or not turn.reaches:
            return
        _, stroke = turn.stroke_at(time)
        sample = _Sample(state.q, sent_q, state.tau_est, state.quat_wxyz)
        if -REFERENCE_S <= stroke < 0.0:
            self._before.append(sample)
        elif abs(stroke - 0.5 * STROKE_S) <= APEX_S:
            self._apex.append(sample)
        elif stroke > 0.5 * STROKE_S + APEX_S and self._before and self._apex:
            self.strokes.append(_stroke(turn.joint, self._before, self._apex))
            self._before, self._apex = [], []


@dataclass(frozen=True)
class _Sample:
    q: np.ndarray
    sent_q: np.ndarray
    tau_est: np.ndarray
    quat_wxyz: np.ndarray


def _reaches(spec: RobotSpec, centre: np.ndarray, joint: int) -> tuple[float, ...]:
    """Signed reaches of a joint's strokes, the direction with more room first."""
    margin = spec.safety.joint_position_margin
    up = min(REACH, float(spec.position_upper[joint] - margin - centre[joint]))
    down = min(REACH, float(centre[joint] - spec.position_lower[joint] - margin))
    order = (up, -down) if up >= down else (-down, up)
    return tuple(reach for reach in order if abs(reach) >= LEAST_REACH)


def _rest_of_leg(spec: RobotSpec, joint: int) -> tuple[int, ...]:
    chains = [foot.joint_indices for foot in spec.feet if joint in foot.joint_indices]
    return tuple(other for chain in chains for other in chain if other != joint)


def _stroke(joint: int, before: list[_Sample], apex: list[_Sample]) -> Stroke:
    def change(name: str) -> np.ndarray:
        return np.mean([getattr(one, name) for one in apex], axis=0) - np.mean(
            [getattr(one, name) for one in before], axis=0
        )

    # Half of the angle between two unit quaternions is the angle between them as vectors of four.
    product = abs(float(before[-1].quat_wxyz @ apex[-1].quat_wxyz))
    return Stroke(
        joint, float(change("sent_q")[joint]), change("q"), float(change("tau_est")[joint]),
        2.0 * math.acos(min(1.0, product)),
    )  # fmt: skip
