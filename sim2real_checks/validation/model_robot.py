"""The robot of another MJCF file, made ready for scenarios.

The robot stays the file's: masses, inertias, shapes, joint ranges, armature, damping, dry friction, torque limits and
softness of contacts. The world is the scenario's: laws, ground and friction under the feet. Parts are found by name and
checked by place. What drives the joints becomes a plain torque motor, since the motors' own control is simulated
outside of MuJoCo; sensors are replaced by those that `Plant` reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from nfpo_deploy.state.kinematics import LegKinematics
from robots.loader import Foot, RobotSpec
from robots.mjcf import ModelOptions, add_floor, set_options
from sim2real_checks.validation.model_file import ModelError, compile_model, parse_model

REACH = 0.03
"""m, a foot may lie so far from where robot.yaml's leg geometry puts it."""
BEND = 0.3
"""rad, by which each joint is bent in turn to see that: a name of another joint or a wrong sign shows."""
TOUCH_MARGIN = 0.002
"""m, by which a touch sensor reaches beyond its foot, so that it sees all of the foot's contacts."""
WORLD = "world"
MOST_SHOWN = 40
"""Names of joints in a message."""
_LAWS = (
    "impratio", "tolerance", "ls_tolerance", "noslip_tolerance", "noslip_iterations", "ccd_tolerance", "ccd_iterations",
    "gravity", "wind", "density", "viscosity", "jacobian", "disableflags", "enableflags", "disableactuator",
)  # fmt: skip
_GEOM_DEFAULTS = (
    "contype", "conaffinity", "condim", "priority", "friction", "solmix", "solref", "solimp", "margin", "gap", "group",
    "density",
)  # fmt: skip
_JOINT_DEFAULTS = ("armature", "frictionloss", "stiffness")
_JOINT_TRANSMISSIONS = (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT)


@dataclass(frozen=True)
class _FoundFoot:
    """A foot in the file: its geom, and centre and bounding radius in the frame of the geom's body, m."""

    foot: Foot
    geom: str
    centre: np.ndarray
    radius: float


def build_other_spec(spec: RobotSpec, path: Path, choice: ModelOptions) -> mujoco.MjSpec:
    """As `robots.mjcf.build_spec`, for the robot of another file.

    Args:
        spec: the robot that the file describes.
        path: MJCF file.
        choice: the world: solver options and friction; the collision variant is the file's own.

    Raises:
        ModelError: the file cannot be read, or is not a model of this robot; the message names part and remedy.
    """
    world = parse_model(path)
    _name_parts(world)
    base = _check_joints(world, spec, path)
    _check_actuators(world, spec, path)
    _leave_only_robot(world, base)
    model = compile_model(world, path)
    feet = _find_feet(model, spec, path)
    _set_motors(world, _torque_limits(model, spec, path))
    _set_feet(world, feet, choice.foot_friction)
    _set_sensors(world, spec, base)
    _set_world(world, choice)
    return world


def motor_limits(model: mujoco.MjModel, spec: RobotSpec) -> np.ndarray:
    """(N,) N·m, the largest torque of each motor of a model from `build_other_spec`, in joint order."""
    by_joint = {int(model.actuator_trnid[i, 0]): float(model.actuator_ctrlrange[i, 1]) for i in range(model.nu)}
    return np.array([by_joint[model.joint(name).id] for name in spec.joint_names])


def _name_parts(world: mujoco.MjSpec) -> None:
    """Give a name to bodies and geoms that have none: specification and compiled model share nothing else."""
    for kind, parts in (("body", world.bodies), ("geom", world.geoms)):
        for i, part in enumerate(parts):
            part.name = part.name or f"unnamed_{kind}_{i}"


def _check_joints(world: mujoco.MjSpec, spec: RobotSpec, path: Path) -> str:
    """All joints are there, on one free base; returns the base's name."""
    joints = {joint.name: joint for joint in world.joints}
    missing = [name for name in spec.joint_names if name not in joints]
    if missing:
        has = ", ".join(sorted(name for name in joints if name)[:MOST_SHOWN]) or "none with a name"
        raise ModelError(
            f"{path}: no joint {missing[0]!r}, and {len(missing)} of {spec.num_joints} joints of {spec.name} are "
            f"missing; it has {has}: name them as in {spec.folder.name}/robot.yaml"
        )
    free = [joint for joint in world.joints if joint.type == mujoco.mjtJoint.mjJNT_FREE]
    if len(free) != 1:
        raise ModelError(
            f"{path}: {len(free)} free joints, expected one: that of the robot's base, and no other loose bodies"
        )
    base = str(free[0].parent.name)
    for name in spec.joint_names:
        if joints[name].type != mujoco.mjtJoint.mjJNT_HINGE:
            raise ModelError(f"{path}: joint {name!r} is no hinge: {spec.name}'s joints turn about one axis")
        root = _root(joints[name].parent)
        if root != base:
            raise ModelError(
                f"{path}: joint {name!r} hangs on {root!r}, not on {base!r}, which has the free joint: one robot a file"
            )
    return base


def _root(body: Any) -> str:
    """Name of the body directly in the world that a body hangs on."""
    while body.parent.name != WORLD:
        body = body.parent
    return str(body.name)


def _check_actuators(world: mujoco.MjSpec, spec: RobotSpec, path: Path) -> None:
    """One actuator on each joint of the robot, and none elsewhere."""
    driven: dict[str, str] = {}
    for actuator in world.actuators:
        what = f"{path}: actuator {actuator.name!r}"
        if actuator.trntype not in _JOINT_TRANSMISSIONS:
            raise ModelError(f"{what} drives {actuator.target!r}, which is no joint: only motors of joints are known")
        if actuator.target not in spec.joint_names:
            raise ModelError(
                f"{what} drives {actuator.target!r}, which is no joint of {spec.name}: remove the actuator; the joint "
                "may stay, with nothing that drives it"
            )
        if actuator.target in driven:
            raise ModelError(f"{what} and {driven[actuator.target]!r} both drive {actuator.target!r}: leave one")
        # Only newer releases of MuJoCo know these two.
        if getattr(actuator, "armature", 0.0) or np.any(getattr(actuator, "damping", 0.0)):
            raise ModelError(f"{what} has an armature or damping of its own: write them into {actuator.target!r}")
        driven[actuator.target] = actuator.name
    lacking = [name for name in spec.joint_names if name not in driven]
    if lacking:
        raise ModelError(
            f"{path}: nothing drives joint {lacking[0]!r} ({len(lacking)} of {spec.num_joints}): add "
            f'<motor joint="{lacking[0]}"/> to <actuator>'
        )


def _leave_only_robot(world: mujoco.MjSpec, base: str) -> None:
    """Take away ground, other bodies, keyframes and sensors."""
    for part in [*world.keys, *world.sensors]:
        world.delete(part)
    ground = [geom for geom in world.geoms if geom.parent.name == WORLD]
    names = {geom.name for geom in ground}
    for pair in list(world.pairs):
        if names & {pair.geomname1, pair.geomname2}:
            world.delete(pair)
    for geom in ground:
        world.delete(geom)
    for body in [one for one in world.bodies if one.name not in (WORLD, base) and one.parent.name == WORLD]:
        world.delete(body)


def _find_feet(model: mujoco.MjModel, spec: RobotSpec, path: Path) -> list[_FoundFoot]:
    """Geoms of the feet, by name or else by place: where robot.yaml puts them whichever joint is bent."""
    bent = spec.default_pose + BEND * np.eye(spec.num_joints)
    poses = [spec.default_pose, *np.clip(bent, spec.position_lower, spec.position_upper)]
    kinematics, still = LegKinematics(spec), np.zeros(spec.num_joints)
    expected = np.array([kinematics.forward(pose, still).position for pose in poses])
    actual = np.array([_geoms_in_base(model, spec, pose) for pose in poses])
    solid = (model.geom_contype | model.geom_conaffinity) & 1
    found = []
    for i, foot in enumerate(spec.feet):
        joint = spec.joint_names[foot.joint_indices[-1]]
        carrier = int(model.joint(joint).bodyid[0])
        candidates = [g for g in np.flatnonzero(solid).tolist() if _hangs_on(model, int(model.geom_bodyid[g]), carrier)]
        if not candidates:
            raise ModelError(
                f"{path}: foot {foot.name!r}: nothing behind joint {joint!r} can touch the ground: give the foot a "
                "geom with contype or conaffinity 1; pairs do not count"
            )
        gaps = np.linalg.norm(actual[:, candidates] - expected[:, None, i], axis=2).max(axis=0)
        names = [model.geom(g).name in (foot.name, foot.name.removesuffix("_foot")) for g in candidates]
        pick = names.index(True) if True in names else int(np.argmin(gaps))
        geom = candidates[pick]
        if gaps[pick] > REACH:
            raise ModelError(
                f"{path}: foot {foot.name!r}: {model.geom(geom).name!r} lies {gaps[pick]:.3f} m from where the legs of "
                f"robot.yaml put it, at most {REACH:g} m is expected: joints have the names of others, another axis or "
                "another zero, or it is another robot"
            )
        found.append(
            _FoundFoot(foot, model.geom(geom).name, model.geom_pos[geom].copy(), float(model.geom_rbound[geom]))
        )
    return found


def _geoms_in_base(model: mujoco.MjModel, spec: RobotSpec, pose: np.ndarray) -> np.ndarray:
    """(G, 3) m, centres of all geoms in the base's frame at a pose (N,) rad."""
    data = mujoco.MjData(model)
    free = int(np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)[0])
    start = int(model.jnt_qposadr[free])
    data.qpos[start : start + 7] = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    data.qpos[[int(model.joint(name).qposadr[0]) for name in spec.joint_names]] = pose
    mujoco.mj_kinematics(model, data)
    return data.geom_xpos.copy()


def _hangs_on(model: mujoco.MjModel, body: int, carrier: int) -> bool:
    while body not in (0, carrier):
        body = int(model.body_parentid[body])
    return body == carrier


def _torque_limits(model: mujoco.MjModel, spec: RobotSpec, path: Path) -> dict[str, float]:
    """N·m by joint: what the file's actuators can do, and robot.yaml's limit where that is less."""
    limits = {}
    for i in range(model.nu):
        joint = int(model.actuator_trnid[i, 0])
        bounds = [np.inf]
        if model.actuator_forcelimited[i]:
            bounds.append(float(np.abs(model.actuator_forcerange[i]).min()))
        # What a servo takes is no torque, so that its range says nothing here.
        plain = not model.actuator_biastype[i] and not model.actuator_dyntype[i] and not model.actuator_gaintype[i]
        if plain and model.actuator_ctrllimited[i]:
            force = model.actuator_gainprm[i, 0] * model.actuator_ctrlrange[i]
            bounds.append(float(np.abs(force).min()))
        limit = abs(float(model.actuator_gear[i, 0])) * min(bounds)
        if model.jnt_actfrclimited[joint]:
            limit = min(limit, float(np.abs(model.jnt_actfrcrange[joint]).min()))
        if not limit > 0.0:
            raise ModelError(
                f"{path}: the actuator of {model.joint(joint).name!r} can make no torque one way or the other: give it "
                "a ctrlrange or forcerange on both sides of zero"
            )
        name = model.joint(joint).name
        limits[name] = min(limit, float(spec.torque_limit[spec.joint_names.index(name)]))
    return limits


def _set_motors(world: mujoco.MjSpec, limits: dict[str, float]) -> None:
    for actuator in list(world.actuators):
        world.delete(actuator)
    for joint, limit in limits.items():
        motor = world.add_actuator(
            name=f"{joint}_motor", target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT, gear=[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        )
        motor.set_to_motor()
        motor.ctrllimited, motor.ctrlrange, motor.forcelimited = 1, [-limit, limit], 0


def _set_feet(world: mujoco.MjSpec, feet: list[_FoundFoot], friction: float) -> None:
    """Give feet their names, the sites that `Plant` reads, and the scenario's friction."""
    for one in feet:
        name, geom = one.foot.name, world.geom(one.geom)
        _free_name((other for other in world.geoms if other.name != one.geom), name)
        _free_name(world.sites, name)
        geom.name = name
        # The ground's coefficient is larger at times and would win over that of a foot without priority.
        geom.priority, geom.condim = max(1, int(geom.priority)), max(3, int(geom.condim))
        geom.friction = [friction, *geom.friction[1:]]
        geom.parent.add_site(
            name=name, type=mujoco.mjtGeom.mjGEOM_SPHERE, pos=one.centre, size=[one.radius + TOUCH_MARGIN] * 3, group=5
        )
        world.add_sensor(
            name=f"{name.removesuffix('_foot')}_touch", type=mujoco.mjtSensor.mjSENS_TOUCH,
            objtype=mujoco.mjtObj.mjOBJ_SITE, objname=name,
        )  # fmt: skip


def _set_sensors(world: mujoco.MjSpec, spec: RobotSpec, base: str) -> None:
    """The IMU, at the file's own site where the base has one of that name, else where robot.yaml puts it."""
    name = spec.imu_site
    site = world.site(name)
    if site is None or site.parent.name != base:
        _free_name(world.sites, name)
        world.body(base).add_site(name=name, pos=spec.imu_position, size=[0.01] * 3, group=5)
    for part, kind in (
        ("quat", mujoco.mjtSensor.mjSENS_FRAMEQUAT), ("gyro", mujoco.mjtSensor.mjSENS_GYRO),
        ("acc", mujoco.mjtSensor.mjSENS_ACCELEROMETER),
    ):  # fmt: skip
        world.add_sensor(name=f"{name}_{part}", type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=name)


def _set_world(world: mujoco.MjSpec, choice: ModelOptions) -> None:
    """The scenario's laws and floor, free of what the file says of its own world."""
    plain = mujoco.MjSpec()
    for name in _LAWS:
        setattr(world.option, name, getattr(plain.option, name))
    world.memory = plain.memory
    # What is added from now on, such as the ground, would take the file's defaults.
    for name in _GEOM_DEFAULTS:
        setattr(world.default.geom, name, getattr(plain.default.geom, name))
    for name in _JOINT_DEFAULTS:
        setattr(world.default.joint, name, getattr(plain.default.joint, name))
    set_options(world, choice)
    add_floor(world, choice.floor_friction)


def _free_name(parts: Iterable[Any], name: str) -> None:
    """Take a name from the part that has it."""
    for part in parts:
        if part.name == name:
            part.name = f"file_{name}"
