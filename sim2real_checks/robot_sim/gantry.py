"""The gantry: an elastic rope from a fixed point above that holds a robot at its model's `gantry` site, or lets it go.

A humanoid cannot stand by its motors' springs alone, so it starts in a gantry and is lowered until it balances itself.
"""

from __future__ import annotations

import mujoco
import numpy as np

SITE = "gantry"
"""Site in a robot's model where a gantry holds it; a model without one stands by itself."""
CLEARANCE = 0.05
"""m between the soles of the default pose and the floor when the robot is hung up."""
ROPE = 1.0
"""m from the fixed point down to the robot when it is hung up."""
# A band that gives way by a few centimetres under a humanoid and neither rings (a third of critical damping for 35 kg)
# nor holds back a robot that stands below it: it only pulls.
_STIFFNESS = 5000.0
_DAMPING = 300.0
_SWING_DAMPING = 60.0
WINCH_SPEED = 0.2
"""m/s at which the rope grows longer or shorter."""


class Gantry:
    """Holds one robot. Call `hang` once where the robot shall hang, then `apply` before each step.

    Attributes:
        holding: whether the robot hangs on the rope now; a slack rope counts.
    """

    def __init__(self, model: mujoco.MjModel, base: int) -> None:
        """Prepare for the robot whose root body is `base`; its model needs the site `gantry`."""
        self._model = model
        self._site = int(model.site(SITE).id)
        self._body = int(model.site_bodyid[self._site])
        self._base = base
        self._anchor = np.zeros(3)
        self._hung = self._slack = self._target = 0.0
        self.holding = False

    @staticmethod
    def fits(model: mujoco.MjModel) -> bool:
        """Whether a model has the site."""
        return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, SITE) >= 0

    def hang(self, data: mujoco.MjData) -> None:
        """Put the fixed point above the robot where it is, and tighten the rope until it carries the weight there."""
        weight = float(-self._model.opt.gravity[2]) * float(self._model.body_subtreemass[self._base])
        self._anchor = data.site_xpos[self._site] + (0.0, 0.0, ROPE)
        self._hung = self._slack = self._target = ROPE - weight / _STIFFNESS
        self.holding = True

    def hold(self, data: mujoco.MjData, lower: float) -> None:
        """Hold the robot `lower` m below where it was hung up; one that was let go is hooked on and winched up."""
        if not self.holding:
            self._slack = float(np.linalg.norm(self._anchor - data.site_xpos[self._site]))
        self._target = self._hung + lower
        self.holding = True

    def let_go(self, data: mujoco.MjData) -> None:
        """Take the rope off."""
        self.holding = False
        data.xfrc_applied[self._body] = 0.0

    def apply(self, data: mujoco.MjData) -> None:
        """Pull on the robot during the next step, as the state of the last one asks for."""
        if not self.holding:
            return
        step = WINCH_SPEED * self._model.opt.timestep
        self._slack += min(step, max(-step, self._target - self._slack))
        hook = data.site_xpos[self._site]
        rope = self._anchor - hook
        length = float(np.linalg.norm(rope))
        force = np.zeros(3)
        if length > self._slack:
            along = rope / length
            velocity = self._velocity(data)
            outwards = -float(velocity @ along)
            tension = max(0.0, _STIFFNESS * (length - self._slack) + _DAMPING * outwards)
            force = tension * along - _SWING_DAMPING * (velocity + outwards * along)
        data.xfrc_applied[self._body, :3] = force
        data.xfrc_applied[self._body, 3:] = np.cross(hook - data.xipos[self._body], force)

    def _velocity(self, data: mujoco.MjData) -> np.ndarray:
        """(3,) m/s of the hook in the world."""
        twist = np.empty(6)
        mujoco.mj_objectVelocity(self._model, data, mujoco.mjtObj.mjOBJ_SITE, self._site, twist, 0)
        return twist[3:]
