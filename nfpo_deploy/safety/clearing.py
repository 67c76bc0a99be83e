"""Which policy's commands the bridge may follow: on hardware only those of a cleared one."""

from __future__ import annotations

from pathlib import Path

from nfpo_deploy.contract.clearance import check_clearance, policy_id
from nfpo_deploy.errors import ClearanceError
from robots.loader import RobotSpec

INTRUDER_MEMORY_NS = 1_000_000_000
"""Commands of a policy that is not cleared count as present for this long."""


class Clearing:
    """Judges once, when the bridge is set up, and then every command by the policy that made it.

    Attributes:
        missing: why nothing may move; empty when nothing.
        override: the operator's reason for doing without a clearance; empty when he does not.
        note: what to tell people.
    """

    def __init__(self, spec: RobotSpec, policy: Path | None, simulated: bool, override: str) -> None:
        """Look at the policy's clearance.

        Args:
            spec: the robot.
            policy: ONNX file; None when no policy runs.
            simulated: nothing needs a clearance.
            override: reason for doing without one; empty to insist.
        """
        self.missing = ""
        self._intruder, self._intruder_ns = 0, 0
        self.override = "" if simulated else override.strip()
        self._anything = simulated or bool(self.override)
        self._id: int | None = None
        if simulated:
            self.note = "clearance: not needed, the robot is simulated"
        elif self.override:
            self.note = f"clearance OVERRIDDEN: {self.override}"
        elif policy is None:
            self.note = "clearance: not needed, no policy runs; its commands would not be followed"
        else:
            self._check(spec, policy)

    def _check(self, spec: RobotSpec, policy: Path) -> None:
        try:
            clearance = check_clearance(policy, spec)
        except ClearanceError as error:
            self.missing = str(error)
            self.note = f"{error}. To run it all the same: clearance_override:='<your reason>'"
        else:
            self._id = policy_id(clearance.policy_sha256)
            self.note = f"policy {clearance.policy_sha256[:12]} {clearance.describe()}"

    def admits(self, command_policy_id: int, now_ns: int) -> bool:
        """Whether a command may be followed.

        Args:
            command_policy_id: first 8 bytes of the sha256 of the policy that made it.
            now_ns: CLOCK_MONOTONIC.
        """
        if self._anything or command_policy_id == self._id:
            return True
        self._intruder, self._intruder_ns = command_policy_id, now_ns
        return False

    def problem(self, now_ns: int) -> str:
        """Why the robot should not be up: no clearance, or another policy that wants to command it, too."""
        if self.missing or not self._intruder_ns or now_ns - self._intruder_ns > INTRUDER_MEMORY_NS:
            return self.missing
        cleared = "none" if self._id is None else f"{self._id:016x}"
        return f"policy {self._intruder:016x} sends joint commands, cleared is {cleared}: end the program that runs it"
