"""What the operator sees while the robot walks, as plain values for the analysis afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from nfpo_deploy.types import BridgeStatus, Mode
from sim2real_checks.walk.script import Segment


class SegmentRun(NamedTuple):
    """A segment that was driven, with its times on CLOCK_MONOTONIC, ns."""

    segment: Segment
    start_ns: int
    end_ns: int


class EstimateSample(NamedTuple):
    """State estimate of one tick: vx, vy (m/s) and wz (rad/s) in base_link."""

    tick: int
    vx: float
    vy: float
    wz: float


class StatusSample(NamedTuple):
    """A bridge status and when it arrived, CLOCK_MONOTONIC ns."""

    ns: int
    status: BridgeStatus


class PolicySample(NamedTuple):
    """A joint command as the operator saw it go by; `stamp_ns` is the policy node's clock."""

    ns: int
    stamp_ns: int
    seq: int
    inference_ms: float
    observation_ok: bool


class ModeChange(NamedTuple):
    """A mode that the watchdog entered, when the operator saw it, and the reason."""

    ns: int
    mode: Mode
    reason: str


class Finding(NamedTuple):
    """A row of /diagnostics that was not OK, the first time that it was seen so."""

    ns: int
    name: str
    level: str
    message: str


@dataclass
class RunLog:
    """Everything the operator saw. Lists are in order of arrival."""

    segments: list[SegmentRun] = field(default_factory=list)
    estimates: list[EstimateSample] = field(default_factory=list)
    statuses: list[StatusSample] = field(default_factory=list)
    policy: list[PolicySample] = field(default_factory=list)
    modes: list[ModeChange] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What kept the operator from doing the script, in words."""
    interrupted: bool = False
    """Whether somebody stopped the run on purpose."""
    driven_by_hand: bool = False
    """Whether somebody drove after the script; how that ends is no part of the verdict."""
    sat_down: bool = False
    """Whether the watchdog reported the end of the sit-down."""
    stood_ns: int = 0
    """When the robot had stood up, CLOCK_MONOTONIC ns; 0 for never."""
    sit_ns: int = 0
    """When the robot was asked to sit; 0 for never."""
