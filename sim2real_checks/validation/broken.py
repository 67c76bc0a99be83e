"""Policies and set-ups that are broken on purpose, each in a way that users break theirs: what validation must refuse.

A breakage changes the policy file (`edit`), or what runs around it (`tamper`).
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nfpo_deploy.types import JointCommand, StateEstimate, VelocityCommand
from sim2real_checks.validation.stack import DeployedStack

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Breakage:
    """One way to break a policy; either `edit` or `tamper` is given."""

    name: str
    what: str
    edit: Callable[[onnx.ModelProto], None] | None = None
    tamper: Callable[[DeployedStack], None] | None = None


def write_broken(breakage: Breakage, good: Path, folder: Path) -> Path:
    """Write the broken variant of a policy file; the good file itself where the breakage is around it."""
    import onnx

    if breakage.edit is None:
        return good
    model = onnx.load(str(good))
    breakage.edit(model)
    path = folder / f"{breakage.name.replace(' ', '_')}.onnx"
    onnx.save(model, str(path))
    return path


# Changes of the metadata.


def _entry(model: onnx.ModelProto, key: str) -> Any:
    return next(prop for prop in model.metadata_props if prop.key == key)


def _change(key: str, change: Callable[[list[str]], list[str]]) -> Callable[[onnx.ModelProto], None]:
    """Change a comma-separated list."""

    def edit(model: onnx.ModelProto) -> None:
        entry = _entry(model, key)
        entry.value = ",".join(change(entry.value.split(",")))

    return edit


def _swap(first: str, second: str) -> Callable[[list[str]], list[str]]:
    names = {first: second, second: first}
    return lambda words: [names.get(word, word) for word in words]


def _times(factor: float) -> Callable[[list[str]], list[str]]:
    return lambda words: [repr(float(word) * factor) for word in words]


def _ours(**changes: Any) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        entry = _entry(model, "nfpo")
        entry.value = json.dumps(json.loads(entry.value) | changes)

    return edit


def _more_crouched(words: list[str]) -> list[str]:
    """Thighs 0.25 rad further back: another repository's default pose."""
    return [repr(float(word) + (0.25 if i % 3 == 1 else 0.0)) for i, word in enumerate(words)]


# Changes of the network.


def _initializer(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), name))


def _without_normaliser(model: onnx.ModelProto) -> None:
    """The first two nodes subtract the mean of the observations and divide by their deviation."""
    names = [model.graph.node[0].input[1], model.graph.node[1].input[1]]
    _initializer(model, names[0], np.zeros_like)
    _initializer(model, names[1], np.ones_like)


def _untrained(model: onnx.ModelProto) -> None:
    """Every weight matrix drawn anew, as large as it was."""
    from onnx import numpy_helper

    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim == 2 and array.shape[0] > 1 and np.issubdtype(array.dtype, np.floating):
            _initializer(model, tensor.name, lambda old: random.normal(0.0, old.std() or 0.01, old.shape))


def _scaled_output(factors: Callable[[int], np.ndarray]) -> Callable[[onnx.ModelProto], None]:
    """Multiply the actions, entry by entry."""

    def edit(model: onnx.ModelProto) -> None:
        from onnx import helper, numpy_helper

        output = model.graph.output[0]
        n = output.type.tensor_type.shape.dim[-1].dim_value
        for node in model.graph.node:
            node.output[:] = ["unbroken" if name == output.name else name for name in node.output]
            node.input[:] = ["unbroken" if name == output.name else name for name in node.input]
        model.graph.initializer.append(numpy_helper.from_array(factors(n).astype(np.float32), "breaks"))
        model.graph.node.append(helper.make_node("Mul", ["unbroken", "breaks"], [output.name]))

    return edit


def _flipped(n: int) -> np.ndarray:
    factors = np.ones(n)
    factors[4] = -1.0
    return factors


# Changes of what runs around it.


def _around(
    change: Callable[[Callable[..., JointCommand], StateEstimate, VelocityCommand], JointCommand],
) -> Callable[[DeployedStack], None]:
    """Replace the policy's step."""

    def tamper(stack: DeployedStack) -> None:
        step = stack.runner.step
        stack.runner.step = lambda estimate, command, noise=None: change(step, estimate, command)  # type: ignore[method-assign]

    return tamper


def _stale(ticks: int) -> Callable[[DeployedStack], None]:
    def tamper(stack: DeployedStack) -> None:
        past: deque[StateEstimate] = deque(maxlen=ticks + 1)

        def change(
            step: Callable[..., JointCommand], estimate: StateEstimate, command: VelocityCommand
        ) -> JointCommand:
            past.append(estimate)
            old = past[0]
            # It looks fresh: whoever repeats old samples does not say so.
            return step(dataclasses.replace(old, tick=estimate.tick, received_ns=estimate.received_ns), command)

        _around(change)(stack)

    return tamper


def _nan_after(seconds: float) -> Callable[[DeployedStack], None]:
    def tamper(stack: DeployedStack) -> None:
        left = [round(seconds * stack.runner.manifest.control_rate_hz)]

        def change(
            step: Callable[..., JointCommand], estimate: StateEstimate, command: VelocityCommand
        ) -> JointCommand:
            left[0] -= bool(command.as_array().any())
            joint_command = step(estimate, command)
            bad = np.full_like(joint_command.q, np.nan)
            return dataclasses.replace(joint_command, q=bad) if left[0] < 0 else joint_command

        _around(change)(stack)

    return tamper


def _turned_imu(step: Callable[..., JointCommand], estimate: StateEstimate, command: VelocityCommand) -> JointCommand:
    """Gyro read in the frame of an IMU that is mounted upside down."""
    return step(dataclasses.replace(estimate, ang_vel_b=estimate.ang_vel_b * (1.0, -1.0, -1.0)), command)


def _degrees(step: Callable[..., JointCommand], estimate: StateEstimate, command: VelocityCommand) -> JointCommand:
    return step(dataclasses.replace(estimate, dq=np.degrees(estimate.dq)), command)


BREAKAGES = (
    Breakage("two joints swapped", "left and right thigh are exchanged in joint_names",
             _change("joint_names", _swap("FL_thigh_joint", "FR_thigh_joint"))),
    Breakage("sign flipped", "one joint's action has the wrong sign", _scaled_output(_flipped)),
    Breakage("stiff gains", "stiffness is 1.5 times that of training", _change("joint_stiffness", _times(1.5))),
    Breakage("soft gains", "stiffness is half of that of training", _change("joint_stiffness", _times(0.5))),
    Breakage("wrong default pose", "default_joint_pos is another repository's",
             _change("default_joint_pos", _more_crouched)),
    Breakage("large actions", "action_scale is twice that of training", _change("action_scale", _times(2.0))),
    Breakage("small actions", "action_scale is half of that of training", _change("action_scale", _times(0.5))),
    Breakage("terms reordered", "angular velocity and gravity are exchanged in observation_names",
             _change("observation_names", _swap("base_ang_vel", "projected_gravity"))),
    Breakage("wrong observation scale", "all observation scales are 1",
             _change("observation_terms_scale", lambda words: ["1.0"] * len(words))),
    Breakage("no normaliser", "the observation normaliser was not exported", _without_normaliser),
    Breakage("half the rate", "25 Hz instead of 50", _ours(control_rate_hz=25.0)),
    Breakage("wrong gait", "the gait's period is twice that of training", _ours(gait_period_s=1.0)),
    Breakage("untrained", "weights as before training", _untrained),
    Breakage("saturated", "actions a hundred times too large", _scaled_output(lambda n: np.full(n, 100.0))),
    Breakage("wrong robot", "made for another robot", _ours(robot="h1")),
    Breakage("old observations", "observations are 60 ms old", None, _stale(3)),
    Breakage("not a number", "the policy answers NaN from 2 s of walking on", None, _nan_after(2.0)),
    Breakage("IMU upside down", "the gyro is read in the wrong frame", None, _around(_turned_imu)),
    Breakage("degrees", "joint velocities in degrees", None, _around(_degrees)),
)  # fmt: skip
