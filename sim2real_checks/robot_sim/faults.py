"""The faults that a simulated robot can be given while it runs: names, parameters, and what each one does.

Pure: a request (a JSON object, already parsed) becomes a validated `Fault`. `lowstate_faults` says what it does to
LowStates, `injection` hands the others to the body, the motors and the command side.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nfpo_deploy.errors import NfpoError
from robots.loader import MESSAGE_FAMILIES, RobotSpec
from sim2real_checks.robot_sim.remote import BUTTONS, STICKS, Remote

CLEAR = "clear"
"""Request that ends all faults."""
MAX_DURATION_S = 86400.0
MAX_DELAY_S = 5.0
NAN_FIELDS = ("q", "dq", "tau_est", "quaternion", "gyroscope")
_WITHOUT = object()
_ENVELOPE = ("fault", "duration", "id")


class FaultError(NfpoError):
    """A request for a fault cannot be carried out; the message names the bad part and what is known."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a fault: `read` turns its JSON value into what the fault uses, or raises FaultError."""

    expects: str
    read: Callable[[Any, RobotSpec], Any]
    default: Any = _WITHOUT

    @property
    def required(self) -> bool:
        return self.default is _WITHOUT


Place = Literal["sensors", "firmware", "wire", "network", "body", "commands", "machine"]
"""Where a fault acts. A LowState passes sensors, firmware, wire and network in this order."""


@dataclass(frozen=True)
class FaultKind:
    """A fault that is known.

    Attributes:
        place: where it acts.
        effect: what it does, for people.
        parameters: by name.
        momentary: it happens once, so it has no duration.
        each: parameter that tells faults of this kind apart; with another value they act side by side.
        families: message families of the robots that can have it.
    """

    place: Place
    effect: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    momentary: bool = False
    each: str = ""
    families: tuple[str, ...] = MESSAGE_FAMILIES


@dataclass(frozen=True)
class Fault:
    """A validated request: `values` holds every parameter of its kind; joints are indices in joint order."""

    name: str
    values: Mapping[str, Any]
    duration: float | None = None
    """s; None until cleared."""

    @property
    def kind(self) -> FaultKind:
        return FAULTS[self.name]

    @property
    def key(self) -> tuple[str, Any]:
        """A new fault replaces the active one that has the same key."""
        return self.name, self.values.get(self.kind.each)


def _number(low: float, high: float, unit: str, default: Any = _WITHOUT) -> Parameter:
    expects = f"a number in {low:g}..{high:g}{unit and ' ' + unit}"

    def read(value: Any, _: RobotSpec) -> float:
        ok = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not ok:
            raise FaultError(f"expected {expects}")
        return float(value)

    return Parameter(expects, read, default)


def _integer(low: int, high: int, unit: str, default: Any = _WITHOUT, step: int = 1) -> Parameter:
    expects = f"a whole number in {low}..{high}{unit and ' ' + unit}{f', a multiple of {step}' if step > 1 else ''}"

    def read(value: Any, _: RobotSpec) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high or value % step:
            raise FaultError(f"expected {expects}")
        return value

    return Parameter(expects, read, default)


def _choice(*known: str, default: Any = _WITHOUT) -> Parameter:
    expects = f"one of {', '.join(known)}"

    def read(value: Any, _: RobotSpec) -> str:
        if not isinstance(value, str) or value not in known:
            raise FaultError(f"expected {expects}")
        return value

    return Parameter(expects, read, default)


def _joint(default: Any = _WITHOUT) -> Parameter:
    def read(value: Any, spec: RobotSpec) -> int:
        if not isinstance(value, str) or value not in spec.joint_names:
            raise FaultError(f"expected one of the joints {', '.join(spec.joint_names)}")
        return spec.joint_names.index(value)

    return Parameter("the name of a joint", read, default)


def _boolean(default: bool) -> Parameter:
    def read(value: Any, _: RobotSpec) -> bool:
        if not isinstance(value, bool):
            raise FaultError("expected true or false")
        return value

    return Parameter("true or false", read, default)


def _buttons() -> Parameter:
    expects = f"a list of buttons, or their names joined with +, of {', '.join(BUTTONS)}"

    def read(value: Any, _: RobotSpec) -> frozenset[str]:
        names = value.split("+") if isinstance(value, str) and value else value or []
        if not isinstance(names, list) or not all(isinstance(name, str) and name in BUTTONS for name in names):
            raise FaultError(f"expected {expects}")
        return frozenset(names)

    return Parameter(expects, read, frozenset())


_SEED = _integer(0, 2**63 - 1, "", 0)
_PROBABILITY = _number(0.0, 1.0, "")

FAULTS: dict[str, FaultKind] = {
    "lose": FaultKind("network", "no LowState is sent"),
    "lose_some": FaultKind("network", "each LowState is lost with probability p", {"p": _PROBABILITY, "seed": _SEED}),
    "delay": FaultKind(
        "network", "LowStates arrive this much later; those under way arrive together when it ends",
        {"seconds": _number(0.002, MAX_DELAY_S, "s")},
    ),
    "reorder": FaultKind(
        "network", "LowStates leave in the wrong order: pairs swapped (window 2), or shuffled in groups of `window`",
        {"window": _integer(2, 50, "LowStates", 2), "seed": _SEED},
    ),
    "duplicate": FaultKind("network", "each LowState is sent twice"),
    "freeze": FaultKind("firmware", "the last LowState, with its tick, is sent again and again"),
    "corrupt": FaultKind(
        "wire", "random bits are flipped after the checksum was made, so that it is wrong",
        {"bits": _integer(1, 1000, "bits", 3), "seed": _SEED},
    ),
    "bad_crc": FaultKind("wire", "the content is right, the checksum is not"),
    "truncate": FaultKind(
        "wire", "only the first bytes of each LowState are sent",
        # DDS pads a sample to whole 32-bit words.
        {"bytes": _integer(4, 1176, "bytes", 600, step=4)},
    ),
    "nan": FaultKind(
        "sensors", "a field is NaN, of one joint or of all; the checksum is right",
        {"field": _choice(*NAN_FIELDS), "joint": _joint(None)}, each="field",
    ),
    "wrong_robot": FaultKind("sensors", "another robot: motor slots that this one does not use are alive, 58 V"),
    "voltage": FaultKind(
        "sensors", "power_v shows this voltage", {"volts": _number(-1000.0, 1000.0, "V")}, families=("unitree_go",)
    ),
    "spike": FaultKind(
        "sensors", "one LowState with one joint angle far off",
        {"joint": _joint(), "offset": _number(-1e6, 1e6, "rad", 2.0)}, momentary=True,
    ),
    "swap_joints": FaultKind(
        "sensors", "LowState shows two joints in each other's place, as with their cables swapped",
        {"joint": _joint(), "other": _joint()},
    ),
    "flip_joint": FaultKind(
        "sensors", "LowState shows angle, speed and torque of a joint with the opposite sign", {"joint": _joint()},
        each="joint",
    ),
    "clock_jump": FaultKind(
        "sensors", "the tick is ahead by n (behind, if negative)", {"n": _integer(-(2**31), 2**31, "ms")}
    ),
    "tilt_lie": FaultKind(
        "sensors", "the orientation shows an additional tilt; gravity and rates stay true",
        {"angle": _number(-math.pi, math.pi, "rad"), "axis": _choice("roll", "pitch", default="roll")},
    ),
    "gyro_bias": FaultKind(
        "sensors", "the gyroscope shows an additional rate",
        {axis: _number(-100.0, 100.0, "rad/s", 0.0) for axis in ("x", "y", "z")},
    ),
    "heat": FaultKind(
        "sensors", "a motor is this hot", {"joint": _joint(), "temperature": _integer(-128, 127, "°C")}, each="joint"
    ),
    "battery": FaultKind(
        "sensors", "the battery has this charge, and the voltage that goes with it", {"soc": _integer(0, 100, "%")},
        families=("unitree_go",),
    ),
    "push": FaultKind(
        "body", "the base gets this much faster at once, world frame",
        {"vx": _number(-20.0, 20.0, "m/s", 0.0), "vy": _number(-20.0, 20.0, "m/s", 0.0)}, momentary=True,
    ),
    "drop": FaultKind(
        "body", "the robot is this much higher at once, and falls", {"height": _number(0.01, 5.0, "m", 0.3)},
        momentary=True,
    ),
    "lift": FaultKind("body", "somebody holds the base this much higher", {"height": _number(0.01, 2.0, "m", 0.3)}),
    "lay_down": FaultKind("body", "somebody folds the legs and lays the robot down on the spot", {}, momentary=True),
    "gantry": FaultKind(
        "body", "the gantry holds the robot, `lower` m below where it hung at the start, or lets it go (hold=false)",
        {"hold": _boolean(True), "lower": _number(-0.5, 1.0, "m", 0.0)}, momentary=True,
    ),
    "block_joint": FaultKind("body", "the joint cannot move", {"joint": _joint()}, each="joint"),
    "weak_motor": FaultKind(
        "body", "the motor makes this part of its torque", {"joint": _joint(), "factor": _number(0.0, 1.0, "")},
        each="joint",
    ),
    "limp_motor": FaultKind("body", "the motor makes no torque", {"joint": _joint()}, each="joint"),
    "runaway_motor": FaultKind(
        "body", "the motor adds this torque, within its limit, whatever it is told",
        {"joint": _joint(), "torque": _number(-1000.0, 1000.0, "N·m")}, each="joint",
    ),
    "lowcmd_delay": FaultKind(
        "commands", "the robot hears each LowCmd this much later", {"seconds": _number(0.001, MAX_DELAY_S, "s")}
    ),
    "lowcmd_loss": FaultKind(
        "commands", "the robot does not hear a LowCmd with probability p", {"p": _PROBABILITY, "seed": _SEED}
    ),
    "remote": FaultKind(
        "machine", "the wireless remote is in this state; not connected, all its bytes are zero",
        {
            "buttons": _buttons(), "connected": _boolean(True),
            **{stick: _number(-1.0, 1.0, "", 0.0) for stick in STICKS},
        },
    ),
    "hang": FaultKind("machine", "the whole robot stands still: no physics, no messages, no services"),
    "foreign_controller": FaultKind("machine", "another program sends LowCmds of a stand pose, 500 a second"),
}  # fmt: skip


def parse_fault(message: Any, spec: RobotSpec) -> Fault:
    """The fault that a request asks for.

    Args:
        message: {"fault": name, "duration": s, parameter: value, …}, with joints by name.
        spec: the robot that gets it.

    Raises:
        FaultError: no object, an unknown fault or parameter, a missing or bad value.
    """
    if not isinstance(message, dict):
        raise FaultError(
            f'expected a JSON object such as {{"fault": "freeze", "duration": 0.5}}, got {_short(message)}'
        )
    name = message.get("fault")
    if not isinstance(name, str) or name not in FAULTS:
        raise FaultError(f"unknown fault {_short(name)}; known: {', '.join((*FAULTS, CLEAR))}")
    kind = FAULTS[name]
    if spec.message_family not in kind.families:
        raise FaultError(f"{name}: the messages of a {spec.name} ({spec.message_family}) do not carry it")
    given = {key: value for key, value in message.items() if key not in _ENVELOPE}
    unknown = sorted(set(given) - set(kind.parameters))
    if unknown:
        raise FaultError(f"{name}: unknown parameter {_short(unknown[0])}; {describe_parameters(name)}")
    values = {key: _value(name, key, parameter, given, spec) for key, parameter in kind.parameters.items()}
    if name == "remote" and not values["connected"] and len(given) > 1:
        raise FaultError(f"remote: one that is not connected has no buttons and sticks, got {_short(sorted(given))}")
    return Fault(name, values, _duration(name, kind, message.get("duration")))


def describe_parameters(name: str) -> str:
    """The parameters of a fault for people."""
    kind = FAULTS[name]
    texts = [
        f"{key} ({parameter.expects}{'' if parameter.required else ', optional'})"
        for key, parameter in kind.parameters.items()
    ]
    texts += [] if kind.momentary else ["duration (s, optional)"]
    return f"it takes {', '.join(texts)}" if texts else "it takes no parameters"


def remote_of(values: Mapping[str, Any]) -> Remote:
    """The remote that a `remote` fault describes."""
    return Remote(**values)


def _value(name: str, key: str, parameter: Parameter, given: Mapping[str, Any], spec: RobotSpec) -> Any:
    if key not in given:
        if parameter.required:
            raise FaultError(f"{name}: {key} is missing; {describe_parameters(name)}")
        return parameter.default
    try:
        return parameter.read(given[key], spec)
    except FaultError as error:
        raise FaultError(f"{name}: bad {key} {_short(given[key])}: {error}") from error


def _duration(name: str, kind: FaultKind, value: Any) -> float | None:
    if value is None:
        return None
    if kind.momentary:
        raise FaultError(f"{name} happens once and has no duration, got {_short(value)}; leave it out")
    ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MAX_DURATION_S
    if not ok:
        raise FaultError(
            f"{name}: duration must be above 0 and at most {MAX_DURATION_S:g} s, got {_short(value)}; "
            "leave it out for a fault that lasts until it is cleared"
        )
    return float(value)


def _short(value: Any) -> str:
    return reprlib.repr(value)
