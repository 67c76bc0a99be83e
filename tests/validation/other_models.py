"""A Go2 as another author might write it, in degrees and with other names, for tests of `--model`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LEGS = {"FR": (1, -1), "FL": (1, 1), "RR": (-1, -1), "RL": (-1, 1)}
"""Signs of a leg's place, in x and y."""
MOTOR = '<motor name="{name}" joint="{joint}" ctrlrange="-{limit} {limit}"/>'
SERVO = '<position name="{name}" joint="{joint}" kp="200" kv="5" forcerange="-{limit} {limit}" ctrlrange="-3 3"/>'

LEG = """
<body pos="{x} {y} 0">
  <inertial mass="0.678" pos="{hx} {hy} 0" diaginertia="0.00048 0.00088 0.0006"/>
  <joint name="{leg}_hip_joint" axis="1 0 0" range="-60 60"/>
  <geom type="cylinder" size="0.046 0.02" pos="0 {side} 0" quat="1 1 0 0"/>
  <body pos="0 {offset} 0">
    <inertial mass="1.152" pos="-0.00374 {ty} -0.0327" diaginertia="0.0058 0.0058 0.001"/>
    <joint name="{leg}_thigh_joint" axis="0 1 0" range="-90 200"/>
    <geom type="box" size="0.017 0.012 0.1065" pos="0 0 -0.1065"/>
    <body name="{leg}_calf" pos="0 0 -0.213">
      <inertial mass="0.241352" pos="0.0063 0 -0.1414" diaginertia="0.00149 0.00146 0.000053"/>
      <joint name="{leg}_calf_joint" axis="0 1 0" range="-156 -48"/>
      <geom {foot} type="sphere" size="0.022" pos="-0.002 0 -0.213"/>
    </body>
  </body>
</body>"""

ROBOT = """
<mujoco model="another go2">
  <option gravity="0 0 -1" timestep="0.004"><flag contact="disable"/></option>
  <default>
    <geom solref="0.004 1" margin="0.001" priority="3"/>
    <joint armature="0.01" damping="0.1" frictionloss="0.2"/>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 1" pos="0 0 0.3"/>
    <body name="wall" pos="1 0 0"><geom type="box" size="0.1 2 1"/></body>
    <body name="trunk" pos="0 0 0.4">
      {root}
      <inertial mass="6.921" pos="0.021112 0 -0.005366" diaginertia="0.0245 0.0981 0.107"/>
      <geom type="box" size="0.188 0.047 0.057"/>
      {legs}
    </body>
    {more}
  </worldbody>
  <actuator>{actuators}</actuator>
  <keyframe><key qpos="{key}"/></keyframe>
</mujoco>
"""
JOINTS = tuple(f"{leg}_{part}_joint" for leg in LEGS for part in ("hip", "thigh", "calf"))


def go2(
    legs: Sequence[str] = tuple(LEGS), motors: Sequence[str] = JOINTS, actuator: str = MOTOR, more: str = "",
    feet: str = "", root: str = '<freejoint name="floating_base"/>',
) -> str:  # fmt: skip
    """MJCF text.

    Args:
        legs: their order in the file.
        motors: joints with an actuator, in their order.
        actuator: what it is made of, with {name}, {joint} and {limit} in N·m.
        more: bodies beside the robot.
        feet: attributes of the geoms of the feet, with {leg}.
        root: the free joint.
    """
    parts = []
    for leg in legs:
        front, left = LEGS[leg]
        parts.append(LEG.format(
            leg=leg, x=0.1934 * front, y=0.0465 * left, hx=-0.0054 * front, hy=0.00194 * left, side=0.08 * left,
            offset=0.0955 * left, ty=-0.0223 * left, foot=feet.format(leg=leg),
        ))  # fmt: skip
    actuators = [
        actuator.format(name=f"m{i}", joint=joint, limit=45.43 if "calf" in joint else 23.7)
        for i, joint in enumerate(motors)
    ]
    key = " ".join(["0 0 0.3 1 0 0 0", *["0 0.9 -1.8"] * len(legs)])
    return ROBOT.format(legs="".join(parts), actuators="".join(actuators), more=more, root=root, key=key)


def write(folder: Path, text: str, name: str = "robot.xml") -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_text(text)
    return path
