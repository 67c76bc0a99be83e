"""Build MuJoCo models from robot folders: floor, light, collision variant, actuator kind and solver options.

MuJoCo is imported inside the functions, because a robot's own computer runs without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from robots.loader import load_robot

if TYPE_CHECKING:
    import mujoco

# Meaning of geom groups in every robots/<name>/<name>.xml.
LOOK_GROUP = 2  # visible, never collides
COLLISION_GROUP = 3  # collides in both variants
FULL_COLLISION_GROUP = 4  # collides in the full variant only

_CHOICES = {
    "collision": ("simple", "full"),
    "actuators": ("torque", "position"),
    "cone": ("pyramidal", "elliptic"),
    "integrator": ("euler", "rk4", "implicit", "implicitfast"),
    "solver": ("cg", "newton", "pgs"),
}


@dataclass(frozen=True)
class ModelOptions:
    """Choices for `build_spec` and `build_model`, given there as keyword arguments.

    collision: "full" collides every part, with itself too; "simple" only feet and trunk, with the world only.
    floor: add a plane named `floor` at z = 0, with light and sky.
    timestep: s.
    actuators: "torque" takes N·m; "position" takes target angles in rad and applies
        `stiffness·(target - q) - damping·dq` bounded to the torque limits.
    stiffness, damping: N·m/rad and N·m·s/rad, a number or (N,) in actuator order; position actuators only.
    cone, integrator, solver, iterations, ls_iterations, impratio: MuJoCo's options of these names. `impratio`
        None means 100 for elliptic cones (as Unitree's own model has it, against slow slip) and 1 otherwise.
        Measured on Go2 at 5 ms under random targets: with pyramidal cones 8 iterations and 20 line-search
        steps give the converged result, while 4 and 8 err by up to 3 rad/s in one step; with elliptic cones
        fewer than 15 and 50 can throw the robot into the air. Lower caps hardly save time.
    foot_friction: sliding coefficient of the feet on anything (feet have priority, so the floor has no say).
    floor_friction: sliding coefficient of the floor; meets parts without priority (the larger one counts).
    looks: keep the geoms that are only there to be seen; without them training steps are cheaper.
    omit_sensors: names of sensors to leave out; accelerometers cost a pass over all bodies at each step.
    """

    collision: Literal["simple", "full"] = "full"
    floor: bool = True
    timestep: float = 0.001
    actuators: Literal["torque", "position"] = "torque"
    stiffness: float | Sequence[float] | np.ndarray | None = None
    damping: float | Sequence[float] | np.ndarray | None = None
    cone: Literal["pyramidal", "elliptic"] = "pyramidal"
    integrator: Literal["euler", "rk4", "implicit", "implicitfast"] = "implicitfast"
    solver: Literal["cg", "newton", "pgs"] = "newton"
    iterations: int = 100
    ls_iterations: int = 50
    impratio: float | None = None
    foot_friction: float = 0.8
    floor_friction: float = 0.8
    looks: bool = True
    omit_sensors: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name in ("timestep", "iterations", "ls_iterations", "foot_friction", "floor_friction"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"{name} must be finite and above zero, got {value!r}")
        if self.impratio is not None and not self.impratio > 0:
            raise ValueError(f"impratio must be above zero, got {self.impratio!r}")
        has_gains = (self.stiffness is not None, self.damping is not None)
        if has_gains != (self.actuators == "position",) * 2:
            raise ValueError(
                f"stiffness and damping go with actuators='position' and only with it; got actuators="
                f"{self.actuators!r}, stiffness={self.stiffness!r}, damping={self.damping!r}"
            )


def build_model(robot: str, **options: Any) -> mujoco.MjModel:
    """Compile the model of a robot folder; options and errors as in `build_spec`."""
    return build_spec(robot, **options).compile()


def build_spec(robot: str, **options: Any) -> mujoco.MjSpec:
    """Editable MuJoCo specification of a robot folder, to add terrain or payload before compiling.

    Args:
        robot: name of a folder in `robots/`.
        **options: the fields of `ModelOptions`.

    Raises:
        RobotSpecError (a ValueError): unknown robot; the message lists the available ones.
        TypeError: unknown option; the message lists the known ones.
        ValueError: an option out of its range, gains of the wrong length, an unknown sensor name.
    """
    import mujoco

    known = [field.name for field in fields(ModelOptions)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"unknown model options {unknown}; known: {known}")
    choice = ModelOptions(**options)
    robot_spec = load_robot(robot)
    spec = mujoco.MjSpec.from_file(str(robot_spec.model_path))
    set_options(spec, choice)
    _set_collisions(spec, choice, [foot.name for foot in robot_spec.feet])
    if choice.actuators == "position":
        _set_position_actuators(spec, choice)
    _omit_sensors(spec, choice.omit_sensors)
    if choice.floor:
        _add_scene(spec, choice.floor_friction)
    return spec


def set_options(spec: mujoco.MjSpec, choice: ModelOptions) -> None:
    """Give a specification the timestep, integrator, contact cone and solver of `choice`."""
    import mujoco

    option = spec.option
    option.timestep = choice.timestep
    option.cone = getattr(mujoco.mjtCone, f"mjCONE_{choice.cone.upper()}")
    option.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{choice.integrator.upper()}")
    option.solver = getattr(mujoco.mjtSolver, f"mjSOL_{choice.solver.upper()}")
    option.iterations = choice.iterations
    option.ls_iterations = choice.ls_iterations
    default_impratio = 100.0 if choice.cone == "elliptic" else 1.0
    option.impratio = default_impratio if choice.impratio is None else choice.impratio


def _set_collisions(spec: mujoco.MjSpec, choice: ModelOptions, feet: list[str]) -> None:
    """Choose the collision variant; `feet` are the names of the foot geoms."""
    simple = choice.collision == "simple"
    for geom in list(spec.geoms):
        if (simple and geom.group == FULL_COLLISION_GROUP) or (not choice.looks and geom.group == LOOK_GROUP):
            spec.delete(geom)
        elif simple and geom.group == COLLISION_GROUP:
            # Only the world has contype 1 then: the robot's parts meet the world and never each other.
            geom.contype, geom.conaffinity = 0, 1
    for name in feet:
        geom = spec.geom(name)
        if geom is None:
            raise ValueError(f"{spec.modelname}: foot {name!r} of robot.yaml has no geom in the model")
        geom.friction = [choice.foot_friction, *geom.friction[1:]]


def _set_position_actuators(spec: mujoco.MjSpec, choice: ModelOptions) -> None:
    """Turn each motor into a PD servo bounded to the motor's torque; keyframes command their own pose."""
    actuators = list(spec.actuators)
    stiffness = _gain_vector(choice.stiffness, len(actuators), "stiffness")
    damping = _gain_vector(choice.damping, len(actuators), "damping")
    for actuator, kp, kd in zip(actuators, stiffness, damping, strict=True):
        torque_range = np.array(actuator.ctrlrange)
        actuator.set_to_position(kp=kp, kv=kd)
        actuator.forcelimited, actuator.forcerange = 1, torque_range
        # Targets beyond the joint range are legitimate: near a limit they are how a policy asks for torque.
        actuator.ctrllimited, actuator.ctrlrange = 0, [0.0, 0.0]
    addresses = _joint_addresses(spec)
    targets = [addresses[actuator.target] for actuator in actuators]
    for key in spec.keys:
        key.ctrl = np.asarray(key.qpos)[targets]


def _joint_addresses(spec: mujoco.MjSpec) -> dict[str, int]:
    """Index of each joint's first number in qpos."""
    model = spec.copy().compile()
    return {model.joint(i).name: int(model.jnt_qposadr[i]) for i in range(model.njnt)}


def _gain_vector(value: Any, n: int, what: str) -> np.ndarray:
    """Gains (n,) from a number or n numbers; finite and not negative."""
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in ((), (n,)):
        raise ValueError(f"{what}: expected one number or {n} (actuator order), got shape {array.shape}")
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        raise ValueError(f"{what}: gains must be finite and not negative, got {value!r}")
    return np.broadcast_to(array, (n,))


def _omit_sensors(spec: mujoco.MjSpec, names: Sequence[str]) -> None:
    sensors = {sensor.name: sensor for sensor in spec.sensors}
    unknown = sorted(set(names) - set(sensors))
    if unknown:
        raise ValueError(f"omit_sensors: no sensors {unknown}; the model has {sorted(sensors)}")
    for name in set(names):
        spec.delete(sensors[name])


def add_floor(spec: mujoco.MjSpec, friction: float) -> mujoco.MjsGeom:
    """Add a plane named `floor` at z = 0 and return it; `friction` is its sliding coefficient."""
    import mujoco

    return spec.worldbody.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], condim=3, friction=[friction, 0.005, 0.0001],
        contype=1, conaffinity=1,
    )  # fmt: skip


def _add_scene(spec: mujoco.MjSpec, friction: float) -> None:
    """Floor, light, sky and a buffer large enough for off-screen pictures."""
    import mujoco

    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 720
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.35] * 3, [0.45] * 3
    spec.visual.quality.shadowsize = 4096
    # The shadow map covers this many metres; left to MuJoCo it is too wide and speckles the floor.
    spec.stat.extent, spec.stat.center = 2.0, [0.0, 0.0, 0.2]
    spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.55, 0.70, 0.85], rgb2=[0.95, 0.97, 1.0], width=256, height=1536,
    )  # fmt: skip
    spec.add_texture(
        name="floor", type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.74, 0.77, 0.80], rgb2=[0.66, 0.69, 0.73], width=300, height=300,
    )  # fmt: skip
    material = spec.add_material(name="floor", texrepeat=[1, 1], texuniform=True)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "floor"
    add_floor(spec, friction).material = "floor"
    # The light travels with the robot: MuJoCo draws shadows only near where the light points.
    free = mujoco.mjtJoint.mjJNT_FREE
    base = next(joint.parent for joint in spec.joints if joint.type == free)
    base.add_light(
        name="sun", mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM, type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=[-0.3, -0.24, 3.0], dir=[0.1, 0.08, -1.0],
        diffuse=[0.55] * 3, specular=[0.3] * 3, castshadow=True,
    )  # fmt: skip
    base.add_camera(
        name="track", mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM, pos=[0.75, -1.15, 0.45], fovy=40,
        xyaxes=[0.838, 0.546, 0, -0.170, 0.262, 0.950],
    )  # fmt: skip
