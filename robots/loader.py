"""Load and validate a robot folder: `robots/<name>/robot.yaml` into a frozen `RobotSpec`."""

from __future__ import annotations

import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robots.untrusted import UntrustedError, load_yaml, read_bounded

ROBOTS_DIR = Path(__file__).resolve().parent
SCHEMA = 1
MESSAGE_FAMILIES = ("unitree_go", "unitree_hg")
MOTOR_SLOTS = {"unitree_go": 20, "unitree_hg": 35}
AXES = ("x", "y", "z")
FOOT_SIGNS = {"end": {"front": 1, "middle": 0, "rear": -1}, "side": {"left": 1, "right": -1}}


class RobotSpecError(ValueError):
    """A robot folder is missing, malformed or self-contradictory; the message names the entry and the remedy."""


@dataclass(frozen=True)
class Gains:
    """PD gains, one value for each joint: stiffness N·m/rad, damping N·m·s/rad, both (N,)."""

    stiffness: np.ndarray
    damping: np.ndarray


@dataclass(frozen=True)
class Foot:
    """A foot: its MJCF site name and the indices (into joint order) of the chain from base to foot.

    Signs of its place in base_link: `end` +1 front, 0 middle, -1 rear (x); `side` +1 left, -1 right (y).
    """

    name: str
    joint_indices: tuple[int, ...]
    end: int
    side: int


@dataclass(frozen=True)
class LegGeometry:
    """Three-joint leg, m. `hip` is |x|, |y|, z of the hip joint in base_link; the rest as in robot.yaml."""

    hip: np.ndarray
    hip_offset: float
    thigh: float
    calf: float
    foot_offset_x: float
    foot_radius: float


@dataclass(frozen=True)
class LegChain:
    """Leg of J revolute joints, as the left one has it; the right one is its mirror image. m and unit vectors.

    The frame of each joint's link lies at the joint, in the frame of the link before; the first in base_link.
    """

    offset: np.ndarray
    """(J, 3) m."""
    turn: np.ndarray
    """(J, 4) unit quaternions wxyz, fixed turn of the link's frame where the joint is at zero."""
    axis: np.ndarray
    """(J, 3), of the joint in the link's own frame."""
    sole: np.ndarray
    """(3,) m, place of the foot's site in the last link."""
    foot_radius: float
    """m from that site down to the ground under a level foot."""


@dataclass(frozen=True)
class SafetyLimits:
    """Thresholds of the safety layer, SI units; robot.yaml gives the reason for each."""

    tilt: float
    state_timeout: float
    command_timeout: float
    permit_timeout: float
    bridge_status_timeout: float
    operator_timeout: float
    operator_abandon: float
    operator_sit: float
    cycle_timeout: float
    guard_timeout: float
    guard_status_timeout: float
    estimate_timeout: float
    estimate_std: float
    observation_timeout: float
    output_timeout: float
    height: float
    height_duration: float
    joint_velocity: float
    joint_position_margin: float
    joint_trip_duration: float
    torque_fraction: float
    torque_duration: float
    command_rate: float
    motor_temperature: float
    motor_temperature_warning: float
    battery_soc: float
    battery_soc_warning: float
    rate_warning: float
    rate_stop: float
    loop_jitter_warning: float
    damp_ramp: float
    damp_duration: float
    stand_duration: float
    sit_duration: float
    settle_duration: float
    start_pose_tolerance: float
    pose_tolerance: float
    pose_timeout: float
    blend_duration: float


@dataclass(frozen=True)
class RobotSpec:
    """Everything the stack knows of a robot. Arrays are in joint order (SDK motor order), shape (N,), SI units."""

    name: str
    folder: Path
    model_path: Path
    message_family: str
    motor_mode: np.ndarray
    """(N,) mode of a motor that obeys; a joint without its own `mode` has the robot's `motor_mode`."""
    joint_names: tuple[str, ...]
    motor_index: np.ndarray
    position_lower: np.ndarray
    position_upper: np.ndarray
    velocity_limit: np.ndarray
    torque_limit: np.ndarray
    armature: float
    joint_damping: float
    joint_friction: float
    default_pose: np.ndarray
    crouch_pose: np.ndarray
    stand_gains: Gains
    damp_gains: Gains
    max_gains: Gains
    imu_site: str
    imu_position: np.ndarray
    feet: tuple[Foot, ...]
    leg_geometry: LegGeometry | None
    """None for a robot whose legs do not all have three joints."""
    leg_chain: LegChain | None
    """None for a robot that has a `leg_geometry`."""
    mass: float
    """kg, of the whole robot."""
    base_height: float
    """m, of base_link above the ground in the default pose."""
    voltage_range: tuple[float, float]
    """V, what the robot's battery can have."""
    mode_machines: tuple[int, ...]
    """Values of LowState's mode_machine that this robot reports."""
    safety: SafetyLimits
    sha256: str

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)

    @property
    def num_motor_slots(self) -> int:
        return MOTOR_SLOTS[self.message_family]

    @property
    def joint_names_crc(self) -> int:
        """CRC-32 of the joint names: messages carry it so that two joint orders never mix."""
        return zlib.crc32(",".join(self.joint_names).encode())

    @property
    def model_sha256(self) -> str:
        """sha256 of the MJCF file, stored in every policy trained on it."""
        return hashlib.sha256(self.model_path.read_bytes()).hexdigest()


def available_robots() -> list[str]:
    """Names of the robot folders that hold a robot.yaml."""
    return sorted(path.parent.name for path in ROBOTS_DIR.glob("*/robot.yaml"))


def load_robot(name: str) -> RobotSpec:
    """Load `robots/<name>/robot.yaml`.

    Raises:
        RobotSpecError: unknown name, bad YAML, missing or contradictory entries.
    """
    robots = available_robots()
    if name not in robots:  # never a path: a name that is in the list cannot lead elsewhere
        raise RobotSpecError(f"unknown robot {name!r}; available: {', '.join(robots)}")
    spec = load_robot_file(ROBOTS_DIR / name / "robot.yaml")
    if spec.name != name:
        raise RobotSpecError(f"name: {spec.name!r} differs from its folder {name!r}")
    return spec


def load_robot_file(path: Path) -> RobotSpec:
    """Load one robot.yaml; same errors as `load_robot`."""
    try:
        raw = read_bounded(path)
        data = load_yaml(raw)
    except OSError as error:
        raise RobotSpecError(f"cannot read {path}: {error.strerror or error}") from error
    except UntrustedError as error:
        raise RobotSpecError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise RobotSpecError(f"{path}: expected a mapping at the top, got {type(data).__name__}")
    try:
        return _build(data, path, hashlib.sha256(raw).hexdigest())
    except KeyError as error:
        raise RobotSpecError(f"{path}: missing entry {error.args[0]!r}") from error
    except (IndexError, OverflowError, TypeError, ValueError) as error:
        raise RobotSpecError(f"{path}: {error}") from error


def _build(data: dict[str, Any], path: Path, sha256: str) -> RobotSpec:
    if data["schema"] != SCHEMA:
        raise RobotSpecError(f"schema {data['schema']!r} is not supported; this version reads {SCHEMA}")
    family = data["message_family"]
    if family not in MESSAGE_FAMILIES:
        raise RobotSpecError(f"message_family {family!r} is not one of {MESSAGE_FAMILIES}")
    joints = data["joints"]
    names = tuple(str(joint["name"]) for joint in joints)
    if len(set(names)) != len(names):
        raise RobotSpecError(f"duplicate joint names in {names}")
    n = len(names)
    if not names:
        raise RobotSpecError("joints: a robot needs at least one joint")
    motors = np.array([_whole(joint["motor"], "joints.motor") for joint in joints])
    if len(set(motors.tolist())) != n or motors.min() < 0 or motors.max() >= MOTOR_SLOTS[family]:
        raise RobotSpecError(f"motor indices {motors.tolist()} must be distinct and in 0..{MOTOR_SLOTS[family] - 1}")
    ranges = [_vector(joint["position"], 2, "joints.position") for joint in joints]
    lower, upper = (_frozen(column) for column in np.array(ranges).T.copy())
    if np.any(lower >= upper):
        raise RobotSpecError(f"position range is empty for {names[int(np.argmax(lower >= upper))]}")
    feet = tuple(_foot(foot, names) for foot in data["feet"])
    poses = {key: _pose(data["poses"][key], names, lower, upper, key) for key in ("default", "crouch")}
    gains = {key: _gains(data["gains"][key], n, key) for key in ("stand", "damp", "max")}
    dynamics = data["joint_dynamics"]
    model_path = path.parent / data["model"]
    if not model_path.is_file():
        raise RobotSpecError(f"model file {model_path} does not exist")
    return RobotSpec(
        name=str(data["name"]),
        folder=path.parent,
        model_path=model_path,
        message_family=family,
        motor_mode=_motor_modes(data, joints),
        joint_names=names,
        motor_index=_frozen(motors),
        position_lower=lower,
        position_upper=upper,
        velocity_limit=_positive([joint["velocity"] for joint in joints], n, "joints.velocity"),
        torque_limit=_positive([joint["torque"] for joint in joints], n, "joints.torque"),
        armature=_number(dynamics, "armature", "joint_dynamics"),
        joint_damping=_number(dynamics, "damping", "joint_dynamics"),
        joint_friction=_number(dynamics, "friction", "joint_dynamics"),
        default_pose=poses["default"],
        crouch_pose=poses["crouch"],
        stand_gains=gains["stand"],
        damp_gains=gains["damp"],
        max_gains=gains["max"],
        imu_site=str(data["imu"]["site"]),
        imu_position=_vector(data["imu"]["position"], 3, "imu.position"),
        feet=feet,
        leg_geometry=_leg_geometry(data["leg_geometry"]) if _three_joints(feet) else None,
        leg_chain=None if _three_joints(feet) else _leg_chain(data["leg_chain"], feet),
        mass=_number(data["body"], "mass", "body", above_zero=True),
        base_height=_number(data["body"], "base_height", "body", above_zero=True),
        voltage_range=_range(data["identity"]["voltage"], "identity.voltage"),
        mode_machines=_mode_machines(data["identity"]["mode_machine"]),
        safety=_safety(data["safety"]),
        sha256=sha256,
    )


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _vector(values: Any, n: int, what: str) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    if array.shape != (n,) or not np.all(np.isfinite(array)):
        raise RobotSpecError(f"{what}: expected {n} finite numbers, got {values!r}")
    return _frozen(array)


def _positive(values: Any, n: int, what: str) -> np.ndarray:
    array = _vector(values, n, what)
    if np.any(array <= 0):
        raise RobotSpecError(f"{what}: every value must be above zero, got {values!r}")
    return array


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise RobotSpecError(f"{what}: expected a whole number, got {value!r}")
    return value


def _motor_modes(data: dict[str, Any], joints: list[dict[str, Any]]) -> np.ndarray:
    modes = [_whole(joint.get("mode", data["motor_mode"]), "motor_mode") for joint in joints]
    if not all(0 < mode < 256 for mode in modes):
        raise RobotSpecError(f"motor_mode: {modes} must be in 1..255; 0 is a motor that is off")
    return _frozen(np.array(modes))


def _number(data: dict[str, Any], key: str, where: str, above_zero: bool = False) -> float:
    value = float(data[key])
    if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        raise RobotSpecError(
            f"{where}.{key}: must be finite and {'above' if above_zero else 'at least'} zero, got {value}"
        )
    return value


def _pose(values: Any, names: tuple[str, ...], lower: np.ndarray, upper: np.ndarray, key: str) -> np.ndarray:
    pose = _vector(values, len(names), f"poses.{key}")
    bad = (pose < lower) | (pose > upper)
    if np.any(bad):
        i = int(np.argmax(bad))
        raise RobotSpecError(f"poses.{key}: {names[i]} = {pose[i]} lies outside [{lower[i]}, {upper[i]}]")
    return pose


def _gains(data: dict[str, Any], n: int, key: str) -> Gains:
    arrays = {}
    for part in ("stiffness", "damping"):
        value = data[part]
        arrays[part] = _vector(value if isinstance(value, list) else [value] * n, n, f"gains.{key}.{part}")
        if np.any(arrays[part] < 0):
            raise RobotSpecError(f"gains.{key}.{part}: negative gain in {value!r}")
    if key != "max" and np.any(arrays["damping"] == 0):
        raise RobotSpecError(f"gains.{key}.damping: every joint needs damping above zero")
    return Gains(arrays["stiffness"], arrays["damping"])


def _foot(data: dict[str, Any], names: tuple[str, ...]) -> Foot:
    unknown = [joint for joint in data["joints"] if joint not in names]
    if unknown:
        raise RobotSpecError(f"foot {data['name']!r} names unknown joints {unknown}; known: {list(names)}")
    for key, signs in FOOT_SIGNS.items():
        if data[key] not in signs:
            raise RobotSpecError(f"foot {data['name']!r}: {key} {data[key]!r} is not one of {list(signs)}")
    chain = tuple(names.index(joint) for joint in data["joints"])
    return Foot(str(data["name"]), chain, FOOT_SIGNS["end"][data["end"]], FOOT_SIGNS["side"][data["side"]])


def _three_joints(feet: tuple[Foot, ...]) -> bool:
    return all(len(foot.joint_indices) == 3 for foot in feet)


def _leg_chain(data: dict[str, Any], feet: tuple[Foot, ...]) -> LegChain:
    links = data["links"]
    unequal = [foot.name for foot in feet if len(foot.joint_indices) != len(links)]
    if unequal:
        raise RobotSpecError(
            f"leg_chain.links: {len(links)} links, but feet {unequal} hang on another number of joints"
        )
    offset = np.array([_vector(link["offset"], 3, "leg_chain.links.offset") for link in links])
    turn = np.array([_vector(link.get("turn", [1, 0, 0, 0]), 4, "leg_chain.links.turn") for link in links])
    norm = np.linalg.norm(turn, axis=1, keepdims=True)
    if np.any(np.abs(norm - 1.0) > 1e-3):
        raise RobotSpecError(f"leg_chain.links.turn: {turn.tolist()} must be unit quaternions, wxyz")
    axes = [link["axis"] for link in links]
    if any(axis not in AXES for axis in axes):
        raise RobotSpecError(f"leg_chain.links.axis: {axes} must be of {list(AXES)}")
    axis = np.eye(3)[[AXES.index(name) for name in axes]]
    sole = _vector(data["sole"], 3, "leg_chain.sole")
    return LegChain(
        _frozen(offset), _frozen(turn / norm), _frozen(axis), sole, _number(data, "foot_radius", "leg_chain")
    )


def _leg_geometry(data: dict[str, Any]) -> LegGeometry:
    lengths = {key: _number(data, key, "leg_geometry", above_zero=True) for key in ("thigh", "calf")}
    lengths |= {key: _number(data, key, "leg_geometry") for key in ("hip_offset", "foot_radius")}
    offset = float(_vector([data["foot_offset_x"]], 1, "leg_geometry.foot_offset_x")[0])
    return LegGeometry(hip=_vector(data["hip"], 3, "leg_geometry.hip"), foot_offset_x=offset, **lengths)


def _range(values: Any, what: str) -> tuple[float, float]:
    low, high = (float(value) for value in _vector(values, 2, what))
    if low >= high:
        raise RobotSpecError(f"{what}: expected [lower, upper], got {values!r}")
    return low, high


def _mode_machines(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not values:
        raise RobotSpecError(f"identity.mode_machine: expected a list of whole numbers, got {values!r}")
    return tuple(_whole(value, "identity.mode_machine") for value in values)


def _safety(data: dict[str, Any]) -> SafetyLimits:
    fields = SafetyLimits.__dataclass_fields__
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise RobotSpecError(f"safety: unknown entries {unknown}; known: {sorted(fields)}")
    values = {key: float(data[key]) for key in fields}
    for key, value in values.items():
        # Zero or negative would switch a protection off, which no configuration may do.
        if not math.isfinite(value) or value <= 0:
            raise RobotSpecError(f"safety.{key}: must be a finite number above zero, got {value}")
    limits = SafetyLimits(**values)
    if limits.guard_timeout <= limits.cycle_timeout:
        raise RobotSpecError(
            f"safety.guard_timeout ({limits.guard_timeout}) must be above cycle_timeout ({limits.cycle_timeout}): a "
            "bridge that resumes must damp before the guard could have taken over"
        )
    return limits
