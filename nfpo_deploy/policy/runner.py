"""One control tick of a policy: state and command to joint command. The same code runs in tests, simulation, robot."""

from __future__ import annotations

import time

import numpy as np

from nfpo_deploy.command.joint_targets import joint_targets
from nfpo_deploy.observation.builder import ObservationBuilder
from nfpo_deploy.observation.gait import GaitClock
from nfpo_deploy.observation.terms import ObservationInput
from nfpo_deploy.policy.onnx_policy import OnnxPolicy
from nfpo_deploy.types import JointCommand, StateEstimate, VelocityCommand
from robots import RobotSpec

RANGE_MARGIN = 0.25
"""An observation may exceed the training range by this part of its width before `observation_ok` turns false."""
SATURATED_PART = 0.5
"""Share of the joints whose action may lie beyond the clip of training. Where it is more, `output_ok` turns false and
the answer is not followed: half of all joints driven to their farthest targets throw a robot over within the 50 ms
that anybody needs to notice."""


class PolicyRunner:
    """Keeps what a policy remembers between ticks: history, last action, gait phase.

    Attributes:
        steps: ticks since the last reset, those that failed included.
    """

    def __init__(self, policy: OnnxPolicy, spec: RobotSpec) -> None:
        manifest = policy.manifest
        self.policy, self.spec, self.manifest = policy, spec, manifest
        # Row i of `to_robot` is the policy's index of the robot's joint i; `to_policy` is the inverse.
        self._to_robot = manifest.joint_order(spec)
        self._to_policy = np.argsort(self._to_robot)
        n = len(manifest.joint_names)
        self.builder = ObservationBuilder(manifest.terms, n)
        period = manifest.gait_period_s or 1.0
        self.clock = GaitClock(period, 1.0 / manifest.control_rate_hz)
        width = manifest.observation_high - manifest.observation_low
        self._low = manifest.observation_low - RANGE_MARGIN * width
        self._high = manifest.observation_high + RANGE_MARGIN * width
        self._stiffness = manifest.stiffness[self._to_robot]
        self._damping = manifest.damping[self._to_robot]
        self._zeros = np.zeros(n)
        self._seq = 0
        self.reset()

    def reset(self) -> None:
        """Forget the past: call before the policy takes over."""
        self.builder.reset()
        self.clock.reset()
        self.last_action = np.zeros(len(self.manifest.joint_names))
        self._target = self.manifest.default_pose
        self.last_observation = np.zeros(self.manifest.observation_size, dtype=np.float32)
        self.observation_ok = True
        self.output_ok = True
        self.inference_ms = 0.0
        self.steps = 0

    def step(self, estimate: StateEstimate, command: VelocityCommand, noise: np.ndarray | None = None) -> JointCommand:
        """Observe, infer and map to joint targets; the last targets again where the output is saturated.

        Args:
            estimate: newest state estimate.
            command: velocity command within the policy's ranges.
            noise: (N,) draw of N(0, I) to sample the policy; None for its deterministic action.

        Raises:
            ObservationError: a value of the estimate is not finite.
            PolicyError: the network's output is not finite.
        """
        start = time.perf_counter()
        self.steps += 1
        observation = self._observe(estimate, command)
        action = self.policy(observation, noise)
        self.last_observation = observation
        self.observation_ok = bool(np.all((observation >= self._low) & (observation <= self._high)))
        beyond = np.abs(action) > self.manifest.action_clip
        self.output_ok = bool(beyond.mean() <= SATURATED_PART)
        self.last_action = np.clip(action, -self.manifest.action_clip, self.manifest.action_clip)
        if self.output_ok:
            self._target = joint_targets(self.last_action, self.manifest.default_pose, self.manifest.action_scale)
        self._seq += 1
        self.inference_ms = (time.perf_counter() - start) * 1e3
        return JointCommand(
            seq=self._seq,
            state_tick=estimate.tick,
            state_received_ns=estimate.received_ns,
            q=self._target[self._to_robot],
            dq=self._zeros,
            stiffness=self._stiffness,
            damping=self._damping,
            tau=self._zeros,
        )

    def _observe(self, estimate: StateEstimate, command: VelocityCommand) -> np.ndarray:
        twist = command.as_array()[None]
        inputs = ObservationInput(
            quat_wxyz=estimate.quat_wxyz[None],
            ang_vel_b=estimate.ang_vel_b[None],
            lin_vel_b=estimate.lin_vel_b[None],
            command=twist,
            q=estimate.q[self._to_policy][None],
            dq=estimate.dq[self._to_policy][None],
            last_action=self.last_action[None],
            gait_phase=self.clock.advance(twist),
            default_pose=self.manifest.default_pose,
        )
        return self.builder.build(inputs)[0]
