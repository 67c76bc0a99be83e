"""What LowStates say of the link, and who else is on it; pure functions of what was heard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robots.loader import RobotSpec
from sim2real_checks.preflight.finding import Finding, Result
from sim2real_checks.preflight.listen import Commands, Heard, Peers, States

NOMINAL_HZ = 500.0
RATE_TOLERANCE = 0.02
LOST_FRACTION = 0.01
"""Share of LowStates that may be lost; the estimator takes single ones in its stride."""
JUMP_S = 0.5
"""The tick may run ahead of or behind this computer's clock by this much from one LowState to the next."""
DRIFT_PPM = 1000.0
"""Ten times what two quartz clocks differ by at worst; short measurements on a busy computer are not better."""
ROBOT_CONTROLLER = "192.168.123.161"
ROBOT_ADDRESSES = (ROBOT_CONTROLLER + ":", "192.168.123.18:")
ANNOUNCED_S = 35
"""A participant with default settings announces itself every 30 s."""


@dataclass(frozen=True)
class Timing:
    """Arrival and ticks of LowStates; times in s."""

    rate: float
    """Hz."""
    jitter_p99: float
    """99th percentile of |time between two states - its median|."""
    longest_gap: float
    lost: int
    repeated: int
    """States with the tick of the one before."""
    swapped: int
    """States that came after a newer one."""
    jumps: tuple[int, ...]
    """Steps of the tick that no time that passed explains."""
    drift_ppm: float
    """By how much the robot's tick runs faster than this computer's clock; NaN where it does not count in ms."""


def timing_of(states: States) -> Timing:
    """Measure at least three states.

    Raises:
        ValueError: fewer.
    """
    if len(states) < 3:
        raise ValueError(f"timing needs at least 3 states, got {len(states)}")
    time_s = (states.received_ns - states.received_ns[0]) * 1e-9
    gaps: np.ndarray = np.diff(time_s)
    steps: np.ndarray = np.diff(states.tick.astype(np.int64))
    usual = float(np.median(steps[steps > 0])) if np.any(steps > 0) else 1.0
    period = max(time_s[-1] / len(gaps), 1e-6)
    # How much more time the tick says has passed than this computer's clock does.
    excess = steps / usual * period - gaps
    jump = np.abs(excess) > JUMP_S
    swapped = int((~jump & (steps < 0)).sum())
    missing = int(np.maximum(0, np.round(steps / usual) - 1)[~jump].sum())
    return Timing(
        rate=float(1.0 / period),
        jitter_p99=float(np.percentile(np.abs(gaps - np.median(gaps)), 99)),
        longest_gap=float(gaps.max()),
        lost=max(0, missing - swapped),  # one that comes late fills the hole that it left
        repeated=int((steps == 0).sum()),
        swapped=swapped,
        jumps=tuple(int(step) for step in steps[jump & (steps != 0)]),
        drift_ppm=_drift_ppm(time_s, states.tick.astype(np.float64)),
    )


def _drift_ppm(time_s: np.ndarray, tick: np.ndarray) -> float:
    centred = time_s - time_s.mean()
    spread = float(centred @ centred)
    slope = float(centred @ (tick - tick.mean())) / spread if spread > 0 else 0.0
    # The unit of a real robot's tick is not documented; only milliseconds can be compared.
    return (slope / 1000.0 - 1.0) * 1e6 if 900.0 < slope < 1100.0 else float("nan")


def judge_low_state(heard: Heard, spec: RobotSpec, diagnosis: str) -> Finding:
    """Rate and gaps of LowStates; `diagnosis` is the remedy where none is valid."""
    states = heard.states
    if len(states) < 3:
        measured = f"{heard.came} came, {len(states)} valid" if heard.came else "nothing heard"
        remedy = "see checksums" if heard.came else diagnosis
        return Finding("LowState", Result.FAIL, measured, remedy, {"came": heard.came})
    timing = timing_of(states)
    measured = (
        f"{timing.rate:.1f} Hz, jitter p99 {timing.jitter_p99 * 1e3:.1f} ms, longest gap "
        f"{timing.longest_gap * 1e3:.1f} ms, lost {timing.lost}"
    )
    values = vars(timing) | {"came": heard.came}
    failures, warnings = _link_problems(timing, heard, spec)
    if failures or warnings:
        result = Result.FAIL if failures else Result.WARN
        return Finding("LowState", result, measured, "; ".join(failures + warnings), values)
    return Finding("LowState", Result.PASS, measured, values=values)


def _link_problems(timing: Timing, heard: Heard, spec: RobotSpec) -> tuple[list[str], list[str]]:
    """What fails and what warns, each with what to do."""
    failures, warnings = [], []
    if timing.repeated:
        failures.append(
            f"{timing.repeated} states repeat the tick before: the firmware hangs, or the network doubles packets"
        )
    elif timing.lost > LOST_FRACTION * len(heard.states):
        failures.append("states are lost: use a cable, not Wi-Fi; try another cable or port, end other traffic")
    elif abs(timing.rate / NOMINAL_HZ - 1.0) > RATE_TOLERANCE:
        failures.append(
            f"expected {NOMINAL_HZ:.0f} Hz within {RATE_TOLERANCE:.0%}: another robot, a slow simulator, or this "
            "computer is too busy"
        )
    elif timing.swapped:
        warnings.append(f"{timing.swapped} states came in the wrong order: use a cable straight to the robot")
    elif timing.lost:
        warnings.append("states are lost: check cable and port")
    limit = spec.safety.state_timeout
    if timing.longest_gap > limit and not timing.repeated:
        own = heard.longest_poll_s
        if own > 0.5 * timing.longest_gap:
            warnings.append(f"this computer did not look for {own * 1e3:.0f} ms: end other programs")
        else:
            failures.append(f"a gap above {limit * 1e3:.0f} ms stops the robot: check cable, port and other traffic")
    if timing.jitter_p99 > spec.safety.loop_jitter_warning:
        warnings.append(f"jitter above {spec.safety.loop_jitter_warning * 1e3:.0f} ms: end other programs and traffic")
    return failures, warnings


def judge_checksums(heard: Heard) -> Finding:
    """Wrong checksums, and states of a wrong size or with impossible numbers."""
    measured = f"{heard.crc_errors} wrong, {heard.malformed} malformed, of {heard.came} states"
    values = {"came": heard.came, "crc_errors": heard.crc_errors, "malformed": heard.malformed}
    if not heard.came:
        return Finding("checksums", Result.SKIP, "no LowState heard", values=values)
    if heard.malformed:
        remedy = "wrong size, NaN or no orientation: firmware or message version, or a broken sensor; restart the robot"
        return Finding("checksums", Result.FAIL, measured, remedy, values)
    if heard.crc_errors:
        remedy = "check the cable; if every state is wrong, something other than a Unitree robot sends"
        return Finding("checksums", Result.FAIL, measured, remedy, values)
    return Finding("checksums", Result.PASS, measured, values=values)


def judge_clock(states: States) -> Finding:
    """The robot's tick against this computer's monotonic clock."""
    if len(states) < 3:
        return Finding("clock", Result.SKIP, "no LowState heard")
    timing = timing_of(states)
    values = {"drift_ppm": timing.drift_ppm, "jumps": timing.jumps}
    if timing.jumps:
        measured = f"the tick jumps by {', '.join(map(str, timing.jumps[:3]))}"
        return Finding(
            "clock", Result.FAIL, measured, "the robot restarted, or two send at once; run this again", values
        )
    if not np.isfinite(timing.drift_ppm):
        measured = "the tick does not count milliseconds; it cannot be compared"
        remedy = "lost states are still found by its usual step; tell the project which robot this is"
        return Finding("clock", Result.WARN, measured, remedy, values)
    measured = f"robot {timing.drift_ppm:+.0f} ppm against this computer"
    if abs(timing.drift_ppm) > DRIFT_PPM:
        remedy = "a simulator that falls behind, or a busy computer; run this again with --seconds 20"
        return Finding("clock", Result.WARN, measured, remedy, values)
    return Finding("clock", Result.PASS, measured, values=values)


def judge_peers(peers: Peers) -> Finding:
    """Versions of all DDS participants that announced themselves."""
    kinds: dict[str, int] = {}
    for peer in peers.seen:
        kind = f"{peer.vendor} {peer.version}".strip()
        kinds[kind] = kinds.get(kind, 0) + 1
    listed = ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items())) or "none"
    measured = f"heard {listed}, this program included"
    values = {"seen": [peer.describe() for peer in peers.seen], "malformed": peers.malformed}
    values["unheard"] = [peer.describe() for peer in peers.unheard]
    if peers.problem:
        said, _, remedy = peers.problem.rpartition("; ")
        return Finding("DDS participants", Result.FAIL, said, remedy, values)
    if peers.others:
        named = "; ".join(peer.describe() for peer in peers.others[:3])
        remedy = "on a robot's network that is most often ROS 2 in its domain: set ROS_DOMAIN_ID to another one"
        return Finding("DDS participants", Result.WARN, f"{measured}: {named}", remedy, values)
    strangers = [peer for peer in peers.unheard if not any(own in peer.address for own in ROBOT_ADDRESSES)]
    if strangers:
        named = "; ".join(peer.describe() for peer in strangers[:3])
        remedy = f"their versions were not heard: run this again with --seconds {ANNOUNCED_S}"
        return Finding("DDS participants", Result.WARN, f"{measured}; also there: {named}", remedy, values)
    return Finding("DDS participants", Result.PASS, measured, values=values)


def judge_commands(commands: Commands, controller: str | None) -> Finding:
    """Who else commands the motors."""
    values = vars(commands)
    if commands.foreign:
        measured = f"{commands.foreign} LowCmds of {commands.by}"
        if controller and ROBOT_CONTROLLER in commands.address:
            remedy = "that is where the built-in controller runs; the bridge releases it and listens again"
            return Finding("motor commands", Result.WARN, measured, remedy, values)
        return Finding("motor commands", Result.FAIL, measured, "stop that program: the motors follow both", values)
    if commands.guard:
        measured = f"{commands.guard} LowCmds of a guard of this project, which is damping the robot"
        remedy = "end the launch that it belongs to, on whichever computer it runs"
        return Finding("motor commands", Result.FAIL, measured, remedy, values)
    if commands.silent:
        measured = f"none, but ready to send: {'; '.join(commands.silent[:3])}"
        return Finding(
            "motor commands", Result.WARN, measured, "stop that program unless it is the robot's own", values
        )
    return Finding("motor commands", Result.PASS, "nobody else publishes rt/lowcmd", values=values)


def judge_controller(controller: str | None, robot_heard: bool) -> Finding:
    """Whether the built-in controller is active."""
    values = {"active": controller}
    name = "built-in controller"
    if not robot_heard:
        return Finding(name, Result.SKIP, "no LowState heard")
    if controller is None:
        remedy = "a robot without motion switcher, or one that still boots: wait a minute; else release it with the app"
        return Finding(name, Result.WARN, "the motion switcher does not answer", remedy, values)
    if controller:
        remedy = "the launch releases it (release_mode:=true) and the legs go limp: robot lying or hanging"
        return Finding(name, Result.WARN, f"{controller!r} is active", remedy, values)
    return Finding(name, Result.PASS, "released", values=values)


def diagnose_silence(
    heard: Heard, interface: str, domain_id: int, loopback: bool, elsewhere: Sequence[int], robot_network: Sequence[str]
) -> str:
    """What to try, one step a line in this order, where no LowState was heard.

    Args:
        heard: what listening brought.
        interface: the one that was listened on.
        domain_id: and its DDS domain.
        loopback: whether the interface is the loopback.
        elsewhere: domains on the interface in which somebody announces himself.
        robot_network: interfaces with an address in the robot's network.
    """
    steps = []
    if heard.publishers:
        steps.append(
            f"a publisher is there and silent ({heard.publishers[0]}): check firewall and MTU, restart the robot"
        )
    elif any(peer.pid != str(os.getpid()) for peer in heard.peers.seen):
        steps.append("others speak DDS here and none sends rt/lowstate: still booting, or another robot family")
    if elsewhere:
        steps.append(
            f"somebody speaks DDS in domain {', '.join(map(str, elsewhere[:5]))}: try --domain-id {elsewhere[0]}"
        )
    others = [name for name in robot_network if name != interface]
    if others:
        steps.append(f"{others[0]} has an address in the robot's network: try --interface {others[0]}")
    if loopback:
        steps.append(f"start the simulated robot: nfpo sim --interface lo --domain-id {domain_id}")
    else:
        steps.append("ping 192.168.123.161; no answer: cable, address, robot switched on and booted (a minute)")
        steps.append("a firewall that drops UDP 7400 and above")
    if domain_id != 0 and 0 not in elsewhere:
        steps.append("a real robot uses --domain-id 0")
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
