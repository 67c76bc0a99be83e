"""Faults of robot, wire, ROS graph, policy and operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nfpo_deploy.operator.arbitration import SOURCE_TIMEOUT_S
from nfpo_deploy.transport.identity import CONSECUTIVE
from nfpo_deploy.types import Mode
from sim2real_checks.faults.catalogue import (
    ACTIVE,
    ALL,
    ANY_JOINT,
    UP,
    Expect,
    Fault,
    Injection,
    React,
    in_modes,
)

STATE_HZ = 500.0
PARTING_S = SOURCE_TIMEOUT_S + 1.0 / 20.0
"""Where all sources of velocities are silent, the operator node says zero once more before it is silent, too: after
its timeout, when it publishes next."""
UNPLUGGED_S = 0.5
"""How long the cable is out."""
STATE_LOST = Expect(React.DAMP, "bridge", "state_timeout", ("gate",))
SEEN_AT_ONCE = Expect(React.DAMP, "bridge", by=("gate",))
FAULTED = Expect(React.DAMP, "watchdog", by=("watchdog", "gate"))
SITS = Expect(React.SIT, "watchdog", by=("watchdog",))
NOTHING, UNMOVED = Expect(React.ANY), Expect(React.NONE)
OTHER_ROBOT = Expect(React.DAMP, "bridge", CONSECUTIVE / STATE_HZ, ("gate",))
"""One LowState proves nothing."""
HOT, EMPTY = 90, 5
"""°C and %; beyond the thresholds of every robot."""
FALLEN = 1.3
"""rad that a lying orientation adds: more than every tilt that is permitted."""


def robot_faults() -> Iterator[Fault]:
    """Every fault that is not one of a process."""
    yield from _wire()
    yield from _sensors()
    yield from _body()
    yield from _machine()
    yield from _ros()
    yield from _policy()
    yield from _operator()


def _sim(fault: str, **options: Any) -> Injection:
    return Injection("sim", fault, options)


def _wire() -> Iterator[Fault]:
    """LowStates that do not arrive, or not as they were sent."""
    lost: Mapping[str, Injection] = {
        "lowstate lost": _sim("lose"),
        "lowstate frozen": _sim("freeze"),
        "lowstate with a wrong checksum": _sim("bad_crc"),
        "lowstate corrupted": _sim("corrupt"),
        "lowstate cut short": _sim("truncate"),
        "lowstate 100 ms late": _sim("delay", seconds=0.1),
    }
    for name, injection in lost.items():
        quick = (Mode.WALK,) if name == "lowstate frozen" else ()
        yield Fault(name, "wire", (injection,), in_modes(ACTIVE, STATE_LOST), honest_state=False, quick=quick)
    mild = {
        "lowstate lost by a third": _sim("lose_some", p=0.33),
        "lowstate 10 ms late": _sim("delay", seconds=0.01),
        "lowstate pairs swapped": _sim("reorder", window=2),
        "lowstate shuffled": _sim("reorder", window=10),
        "lowstate twice": _sim("duplicate"),
    }
    for name, injection in mild.items():
        yield Fault(name, "wire", (injection,), in_modes(ACTIVE, NOTHING), honest_state=False)
    cable = (_sim("lose", duration=UNPLUGGED_S), _sim("lowcmd_loss", p=1.0, duration=UNPLUGGED_S))
    back = Expect(React.DAMP, "bridge", UNPLUGGED_S, ("gate",))
    yield Fault(
        "cable out and in again",
        "wire",
        cable,
        in_modes(ACTIVE, back),
        honest_state=False,
        continuous=False,
        observe=3.0,
    )
    yield Fault(
        "lowcmd 50 ms late", "wire", (_sim("lowcmd_delay", seconds=0.05),), in_modes(ACTIVE, NOTHING), observe=3.0
    )
    yield Fault(
        "lowcmd lost by half", "wire", (_sim("lowcmd_loss", p=0.5),), in_modes(ACTIVE, NOTHING), continuous=False
    )


def _sensors() -> Iterator[Fault]:
    """LowStates whose content lies."""
    for field in ("q", "dq", "tau_est", "quaternion", "gyroscope"):
        quick = (Mode.READY,) if field == "q" else ()
        yield Fault(
            f"nan in {field}",
            "sensor",
            (_sim("nan", field=field),),
            in_modes(ACTIVE, STATE_LOST),
            honest_state=False,
            quick=quick,
        )
    yield Fault(
        "tilt reported",
        "sensor",
        (_sim("tilt_lie", angle=FALLEN),),
        in_modes(ACTIVE, SEEN_AT_ONCE),
        honest_state=False,
        quick=(Mode.READY,),
    )
    for name, injection in {
        "another robot": _sim("wrong_robot"),
        "another voltage": _sim("voltage", volts=58.0),
    }.items():
        yield Fault(name, "sensor", (injection,), in_modes(ALL, OTHER_ROBOT) | {Mode.DAMP: UNMOVED}, honest_state=False)
    odd = {
        "one joint angle off, once": _sim("spike", joint=ANY_JOINT, offset=2.0),
        "clock ahead by a second": _sim("clock_jump", n=1000),
        "clock back by a second": _sim("clock_jump", n=-1000),
        "gyroscope off by 5 rad/s": _sim("gyro_bias", z=5.0),
    }
    for name, injection in odd.items():
        yield Fault(name, "sensor", (injection,), in_modes(ACTIVE, NOTHING), honest_state=False)
    weary = {
        "hot motor": _sim("heat", joint=ANY_JOINT, temperature=HOT),
        "empty battery": _sim("battery", soc=EMPTY),
    }
    for name, injection in weary.items():
        quick = (Mode.READY,) if name == "hot motor" else ()
        # Standing comes first, then the way down: about five seconds.
        yield Fault(
            name,
            "sensor",
            (injection,),
            {**in_modes((Mode.STAND, Mode.READY, Mode.WALK), SITS), Mode.SIT: NOTHING},
            observe=5.0,
            ends_lying=True,
            quick=quick,
        )


def _body() -> Iterator[Fault]:
    """What happens to the robot itself. It may fall, but then it must be damped."""
    fallen = Expect(React.DAMP, "bridge", by=("gate", "watchdog"), onset="tilt")
    for name, speed in {"pushed over sideways": {"vy": 3.0}, "pushed forward": {"vx": 2.5}}.items():
        yield Fault(name, "body", (_sim("push", **speed),), in_modes(UP, fallen), observe=3.0)
    hurt = {
        "dropped": _sim("drop", height=0.3),
        "lifted": _sim("lift", height=0.3),
        "joint blocked": _sim("block_joint", joint=ANY_JOINT),
        "motor weak": _sim("weak_motor", joint=ANY_JOINT, factor=0.3),
        "motor limp": _sim("limp_motor", joint=ANY_JOINT),
        "motor runs away": _sim("runaway_motor", joint=ANY_JOINT, torque=23.0),
        "motor runs away backwards": _sim("runaway_motor", joint=ANY_JOINT, torque=-23.0),
    }
    for name, injection in hurt.items():
        yield Fault(name, "body", (injection,), in_modes(ACTIVE, NOTHING), observe=4.0)


def _machine() -> Iterator[Fault]:
    """The robot as a machine: its remote, its computer, and other programs on its network."""
    pressed = (_sim("remote", buttons="L2+B", duration=0.3),)
    yield Fault(
        "emergency stop on the remote",
        "remote",
        pressed,
        in_modes(ACTIVE, FAULTED),
        ends_lying=True,
        quick=(Mode.WALK,),
    )
    yield Fault("remote lost", "remote", (_sim("remote", connected=False),), in_modes(UP, NOTHING))
    yield Fault(
        "robot hangs",
        "wire",
        (_sim("hang", duration=1.0),),
        in_modes(ACTIVE, STATE_LOST),
        witness="wire",
        continuous=False,
        honest_state=False,
    )
    conflict = in_modes(ACTIVE, SEEN_AT_ONCE) | {Mode.DAMP: UNMOVED}
    yield Fault(
        "foreign controller",
        "wire",
        (_sim("foreign_controller", duration=0.5),),
        conflict,
        observe=3.0,
        quick=(Mode.READY,),
    )
    yield Fault("second bridge", "ros", (Injection("second_bridge"),), in_modes(UP, UNMOVED), observe=0.5)


def _ros() -> Iterator[Fault]:
    """Somebody else on the ROS domain."""
    refused = {Mode.READY: UNMOVED, Mode.WALK: SEEN_AT_ONCE}
    for what in ("nan", "wrong length", "huge gains", "old seq", "future", "wrong joints"):
        quick = (Mode.WALK,) if what == "nan" else ()
        injection = Injection("joint_command", what)
        yield Fault(f"joint command: {what}", "ros", (injection,), refused, quick=quick)
    yield Fault(
        "joint command: out of range", "ros", (Injection("joint_command", "out of range"),), in_modes(UP, NOTHING)
    )
    for what in ("old seq", "higher seq"):
        expect = in_modes(ACTIVE, Expect(React.DAMP, by=("gate", "watchdog"))) | {Mode.DAMP: UNMOVED}
        yield Fault(f"second watchdog: {what}", "ros", (Injection("permit", what),), expect)
    for what in ("nan", "inf", "huge"):
        yield Fault(f"velocity: {what}", "ros", (Injection("velocity", what),), in_modes(UP, NOTHING))


def _policy() -> Iterator[Fault]:
    """A policy that goes wrong while it walks."""
    wrong = {
        "nan": Expect(React.DAMP, by=("gate", "watchdog")),
        "saturated": Expect(React.STAND, by=("watchdog", "gate")),
    }
    for what, expect in wrong.items():
        yield Fault(
            f"policy answers {what}", "policy", (Injection("fast"),), {Mode.WALK: expect}, policy=what, observe=4.0
        )
    late = Injection("saboteur", "policy_inference", {"fault": "hold_gil", "seconds": 0.03})
    yield Fault("policy 30 ms late", "policy", (late,), {Mode.WALK: NOTHING})


def _operator() -> Iterator[Fault]:
    """The operator stops the robot, or has gone."""
    yield Fault(
        "emergency stop by service",
        "operator",
        (Injection("service", "estop"),),
        in_modes(ACTIVE, FAULTED),
        ends_lying=True,
        quick=(Mode.WALK,),
    )
    yield Fault("mode damp asked for", "operator", (Injection("service", "damp"),), in_modes(ACTIVE, FAULTED))
    silent = Expect(React.STAND, "watchdog", "operator_abandon", by=("watchdog",), delay=PARTING_S)
    yield Fault("operator silent", "operator", (Injection("silence"),), {Mode.WALK: silent}, observe=4.0)
    yield Fault(
        "operator gone for good",
        "operator",
        (Injection("silence"),),
        {Mode.WALK: silent},
        observe=16.0,
        ends_lying=True,
    )
