"""What a gate may send, judged from outside: a reference for what it may rely on, and every bound, block by block.

Nothing here asks the gate what it believes; only its public attributes and its commands are judged.
"""

from __future__ import annotations

import math

import numpy as np

from nfpo_deploy.types import GatePhase, Mode

MOTION = (Mode.STAND, Mode.READY, Mode.WALK, Mode.SIT)
FUTURE_NS = 2_000_000
NEVER = 2**62
OVERTAKEN_TICKS = 200
"""Steps back of the tick, in ms, that are surely packets which overtook each other."""
MESSAGES = 33
"""States after which a gate knows the tick of its robot."""


class BoundViolatedError(AssertionError):
    """A command that must not leave the gate."""


def numbers(value, n) -> bool:
    """Whether it is an (n,) array of finite numbers; nothing here is near the size that arithmetic does not survive."""
    if not isinstance(value, np.ndarray) or value.shape != (n,) or value.dtype.kind not in "fiu":
        return False
    value = value.astype(np.float64)
    return bool(float(value.dot(value)) < 1e280)


class Reference:
    """What the documented rules say of the three inputs: may they be relied on now?"""

    def __init__(self, spec, constants=()):
        """Rules of `spec`; `constants` are arrays that are known to be numbers, to save time."""
        self.spec, self.n = spec, spec.num_joints
        self.constants = {id(array): array for array in constants}
        self.max_dq = 10.0 * spec.velocity_limit
        self.q, self.dq = np.zeros(self.n), np.zeros(self.n)
        self.received = self.state_valid = self.state_ok = False
        self.tilt = 0.0
        self.tick, self.news = None, 0
        self.state = self.permit = self.command = None
        self.state_fresh = self.permit_fresh = self.command_fresh = 0
        self.permit_seq, self.permit_mode, self.permit_valid = -1, Mode.DAMP, False
        self.command_valid, self.command_seq = False, None

    def take_state(self, now, state) -> bool:
        """Whether the state is usable now; `q`, `dq` are then what the joints do, as far as anybody knows."""
        if state is None:
            return False
        if state is not self.state:
            self.state, self.state_valid = state, self._state_is_valid(now, state)
        return self.state_valid and now - self.state_fresh <= self.spec.safety.state_timeout * 1e9

    def _state_is_valid(self, now, state) -> bool:
        n = self.n
        fields = (("q", n), ("dq", n), ("tau_est", n), ("quat_wxyz", 4), ("gyro_b", 3), ("accel_b", 3))
        for name, size in fields:
            value = getattr(state, name)
            if id(value) not in self.constants and not numbers(value, size):
                return False
        norm2 = float((state.quat_wxyz**2).sum())
        plausible = np.abs(state.q).max() <= 4 * np.pi and not (np.abs(state.dq) > self.max_dq).any()
        if not (0.81 <= norm2 <= 1.21 and plausible and state.mode_machine in self.spec.mode_machines):
            return False
        if state.received_ns > now + FUTURE_NS:
            return False
        step = 1 if self.tick is None else (state.tick - self.tick + 2**31) % 2**32 - 2**31
        # The usual step of the tick, two, is known from this many messages on.
        overtaken = OVERTAKEN_TICKS if self.news >= MESSAGES else OVERTAKEN_TICKS // 2
        if -overtaken <= step < 0:
            return True  # overtaken: nothing of it is taken
        if self.tick is not None:
            self.news = self.news + 1 if step > 0 else self.news if step == 0 else 0
        self.tick = state.tick
        self.q, self.dq, self.received = state.q, state.dq, True
        x, y = float(state.quat_wxyz[1]), float(state.quat_wxyz[2])
        self.tilt = math.acos(max(-1.0, min(1.0, 1.0 - 2.0 * (x * x + y * y) / norm2)))
        if step != 0:
            self.state_fresh = state.received_ns
        return step >= 0

    def take_permit(self, now, permit, received_ns) -> bool:
        """Whether a motion permit holds now."""
        if permit is None or received_ns is None:
            return False
        if permit is not self.permit:
            self.permit, self.permit_valid = permit, self._permit_is_valid(now, permit, received_ns)
        age = now - self.permit_fresh
        return self.permit_valid and self.permit_mode in MOTION and age <= self.spec.safety.permit_timeout * 1e9

    def _permit_is_valid(self, now, permit, received_ns) -> bool:
        if permit.mode not in list(Mode) or received_ns > now + FUTURE_NS:
            return False
        moves = permit.mode in MOTION
        if moves and (
            permit.seq < self.permit_seq
            or 0 <= self.permit_seq < permit.seq - 1000 * self.spec.safety.permit_timeout
            or (permit.seq == self.permit_seq)
            and permit.mode != self.permit_mode
        ):
            return False
        if permit.seq != self.permit_seq:
            self.permit_fresh = received_ns
        self.permit_seq, self.permit_mode = permit.seq, Mode(permit.mode)
        return True

    def take_command(self, now, command, received_ns) -> bool:
        """Whether the joint command may be followed now, order apart: that depends on when the walk began."""
        if command is None or received_ns is None:
            return False
        if command is not self.command:
            self.command, self.command_valid = command, self._command_is_valid(now, command, received_ns)
            if command.seq != self.command_seq:
                self.command_seq, self.command_fresh = command.seq, received_ns
        return self.command_valid and now - self.command_fresh <= self.spec.safety.command_timeout * 1e9

    def _command_is_valid(self, now, command, received_ns) -> bool:
        spec, n = self.spec, self.n
        if not all(numbers(getattr(command, name), n) for name in ("q", "dq", "stiffness", "damping", "tau")):
            return False
        gains = (command.stiffness, spec.max_gains.stiffness), (command.damping, spec.max_gains.damping)
        if not all((gain >= 0).all() and (gain <= most).all() for gain, most in gains):
            return False
        age = received_ns - command.state_received_ns
        in_time = max(received_ns, command.state_received_ns) <= now + FUTURE_NS
        return (
            in_time
            and age <= spec.safety.command_timeout * 1e9
            and bool((np.abs(command.dq) <= spec.velocity_limit).all())
        )


class Judge:
    """Collects steps and checks them in blocks, each step against its predecessor as well."""

    FLAGS = (
        "usable", "received", "write", "tripped", "permitted", "commanded", "backwards", "outside", "senseless",
        "phase", "tilt", "reason",
    )  # fmt: skip

    def __init__(self, spec, block=1000):
        self.spec, self.block = spec, block
        n = spec.num_joints
        # Row 0 is the last one of the block before.
        self.out = np.zeros((block + 1, 5, n))
        self.q, self.dq = np.zeros((block + 1, n)), np.zeros((block + 1, n))
        self.now = np.zeros(block + 1, dtype=np.int64)
        self.flags = {name: np.zeros(block + 1) for name in self.FLAGS}
        self._columns = tuple(self.flags.values())
        self.i, self.steps, self.begun = 0, 0, False
        self._zeros = np.zeros(n)
        # Carried from block to block: stiffness and time when the gate last turned passive.
        self._fading = np.zeros(n)
        self._passive_since = NEVER

    def restart(self) -> None:
        """Forget what came before: the next step is the first of a new gate."""
        self.check()
        self.begun, self._fading, self._passive_since = False, self._zeros.copy(), NEVER
        self.out[0] = 0.0

    def record(
        self, now, out, reference, usable, gate, *, permitted, commanded, backwards, outside, senseless
    ) -> None:  # fmt: skip
        """Take one step; checks when the block is full."""
        self.i += 1
        i = self.i
        row = self.out[i]
        row[0], row[1], row[2], row[3], row[4] = out.q, out.dq, out.stiffness, out.damping, out.tau
        self.q[i] = reference.q
        # Of a state that is not usable the speed is not, either; the position is the best guess.
        self.dq[i] = reference.dq if usable else self._zeros
        self.now[i] = now
        values = (
            usable, reference.received, gate.write, gate.tripped, permitted, commanded, backwards, outside,
            senseless, int(gate.phase), reference.tilt, bool(gate.reason),
        )  # fmt: skip
        for column, value in zip(self._columns, values, strict=True):
            column[i] = value
        if i == self.block:
            self.check()

    def check(self) -> None:
        """Check the steps since the last block.

        Raises:
            BoundViolatedError: names the rule, the step and the joint.
        """
        if self.i == 0:
            return
        span = slice(1, self.i + 1)
        for rule, ok in self._rules(span):
            if not ok.all():
                where = tuple(int(k) for k in np.argwhere(~ok)[0])
                step = self.steps + where[0]
                row = {name: float(column[where[0] + 1]) for name, column in self.flags.items()}
                out = self.out[where[0] + 1].tolist()
                raise BoundViolatedError(f"{rule} at step {step}, element {where}: {out}, {row}")
        self.steps += self.i
        self.begun = True
        for array in (self.out, self.q, self.dq, self.now, *self._columns):
            array[0] = array[self.i]
        self.i = 0

    def _rules(self, span):
        """(name, array of bool) of every rule; the first axis is the step."""
        spec, safety = self.spec, self.spec.safety
        before = slice(0, span.stop - 1)
        q, dq, kp, kd, tau = (self.out[span, k] for k in range(5))
        q0, kp0 = self.out[before, 0], self.out[before, 2]
        flag = {name: column[span] for name, column in self.flags.items()}
        limit = safety.torque_fraction * spec.torque_limit
        lower, upper = (
            spec.position_lower + safety.joint_position_margin,
            spec.position_upper - safety.joint_position_margin,
        )
        active = flag["phase"] >= GatePhase.RAMPING
        active0 = (self.flags["phase"][before] >= GatePhase.RAMPING) & (self.begun | (np.arange(len(active)) > 0))
        dt = np.clip(np.diff(self.now[: span.stop]) * 1e-9, 0.0, 2.0 / 500.0)[:, None]
        step = safety.command_rate * dt + 1e-9

        yield "finite", np.isfinite(self.out[span]).all(axis=1)
        yield "stiffness", (kp >= 0.0) & (kp <= spec.max_gains.stiffness)
        yield "damping", (kd >= 0.0) & (kd <= spec.max_gains.damping)
        yield "target speed", np.abs(dq) <= spec.velocity_limit
        yield "feed-forward", np.abs(tau) <= limit + 1e-9
        yield "position", ((q >= lower - 1e-9) & (q <= upper + 1e-9)) | (kp == 0.0)
        torque = tau + kp * (q - self.q[span]) + kd * (dq - self.dq[span])
        yield "torque", (np.abs(torque) <= limit * (1.0 + 1e-6)) | (flag["received"] == 0)[:, None]
        yield "rate", (np.abs(q - q0) <= step) | ~(active & active0)[:, None]
        yield "silence before the first state", (~self.out[span].any(axis=(1, 2))) | (flag["write"] == 1)
        yield "first state", flag["write"] <= flag["received"]
        limp = ~self.out[span, 2:].any(axis=(1, 2))
        yield "zero torque", limp | (flag["phase"] != GatePhase.ZERO_TORQUE)
        yield "a trip is passive", ~active | (flag["tripped"] == 0)
        yield "a trip has its reason", (flag["reason"] == 1) | (flag["tripped"] == 0)
        yield "motion needs a state", (flag["usable"] == 1) | ~active
        yield "motion needs a permit", (flag["permitted"] == 1) | ~active
        yield "motion needs a clock", (flag["backwards"] == 0) | ~active
        yield "motion needs peace on the wire", (flag["outside"] == 0) | ~active
        yield "motion needs an upright trunk", (flag["tilt"] <= safety.tilt + 1e-9) | ~active
        gap = np.diff(self.now[: span.stop]) * 1e-9
        yield "motion ends with a pause", (gap <= safety.cycle_timeout + 1e-9) | ~(active & active0)
        yield "tracking needs a command", (flag["commanded"] == 1) | (flag["phase"] != GatePhase.TRACKING)
        yield from self._beginnings(span, active, active0, step, (lower, upper))
        yield from self._fading_rules(span, active, active0, kp0)

    def _beginnings(self, span, active, active0, step, bounds):
        """A start: at the measured pose, without stiffness, near the line from crouch to stand, slow."""
        spec, safety = self.spec, self.spec.safety
        starts = (active & ~active0)[:, None]
        measured = self.q[span]
        q, kp = self.out[span, 0], self.out[span, 2]
        yield "starts at the measured pose", (np.abs(q - np.clip(measured, *bounds)) <= step) | ~starts
        stiff = spec.stand_gains.stiffness * (2.0 / 500.0) / safety.blend_duration
        yield "starts without stiffness", (kp <= stiff + 1e-9) | ~starts
        slow = np.abs(self.dq[span]) <= safety.joint_velocity * spec.velocity_limit
        yield "starts slowly", slow | ~starts
        line = spec.default_pose - spec.crouch_pose
        part = np.clip((measured - spec.crouch_pose) @ line / (line @ line), 0.0, 1.0)[:, None]
        away = np.abs(measured - (spec.crouch_pose + part * line))
        yield "starts near the line", (away <= safety.start_pose_tolerance + 1e-9) | ~starts

    def _fading_rules(self, span, active, active0, kp0):
        """Once passive, stiffness only fades: never above the line from what it was to zero over `damp_ramp`."""
        safety, kp = self.spec.safety, self.out[span, 2]
        ok, limp = np.ones_like(kp, dtype=bool), np.ones(len(kp), dtype=bool)
        first = int(active.argmax()) if active.any() else len(active)
        if first and not active0[0]:
            self._apply_fading(0, first, kp, ok, limp, span, safety)
        for k in np.flatnonzero(~active & active0):
            self._note_fading(k, kp, kp0, active, ok, limp, span, safety)
        yield "stiffness fades", ok
        yield "damping follows the ramp", limp

    def _note_fading(self, k, kp, kp0, active, ok, limp, span, safety):
        self._fading, self._passive_since = kp0[k].copy(), int(self.now[span][k])
        rest = active[k:]
        end = k + (int(rest.argmax()) if rest.any() else len(rest))
        self._apply_fading(k, end, kp, ok, limp, span, safety)

    def _apply_fading(self, start, end, kp, ok, limp, span, safety):
        since = (self.now[span][start:end] - self._passive_since) * 1e-9
        weight = np.clip(1.0 - since / safety.damp_ramp, 0.0, 1.0)[:, None]
        ok[start:end] = kp[start:end] <= self._fading * weight + 1e-9
        over = since > safety.damp_ramp + safety.damp_duration + 1e-9
        # Of inputs that are no messages at all the gate knows nothing, not even that damping has lasted long enough.
        senseless = self.flags["senseless"][span][start:end] == 1
        limp[start:end] = ~over | senseless | (self.flags["phase"][span][start:end] == GatePhase.ZERO_TORQUE)
