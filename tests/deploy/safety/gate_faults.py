"""Every kind of bad input: each fault changes what the adversary has just made for the next cycle of the gate."""

from __future__ import annotations

import numpy as np

from nfpo_deploy.types import JointCommand, Mode, RobotState, SafetyPermit

N = 12
NAN, INF = float("nan"), float("inf")
NASTY = (
    NAN, INF, -INF, 0.0, -0.0, 5e-324, -1e-310, 2.2e-308, 1e-30, 0.3, -0.7, 1.0, -3.0, 9.0, -14.0, 30.0, -100.0, 1e4,
    -1e9, 1e30, -1e100, 1e160, -1.7e308,
)  # fmt: skip
STATE_FIELDS = ("q", "dq", "tau_est", "quat_wxyz", "gyro_b", "accel_b")
COMMAND_FIELDS = ("q", "dq", "stiffness", "damping", "tau")
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])


def new(cls, **values):
    """A frozen message without the cost of its constructor."""
    message = object.__new__(cls)
    message.__dict__.update(values)
    return message


def with_state(adversary, **changes):
    state = adversary.state
    if type(state) is RobotState:
        adversary.state = new(RobotState, **{**state.__dict__, **changes})


def with_command(adversary, fresh=True, **changes):
    if adversary.command is not None:
        if fresh:
            adversary.command = adversary.make_command()
            adversary.command_ns = adversary.now
        adversary.command = new(JointCommand, **{**adversary.command.__dict__, **changes})


def spoiled(adversary, array, value=None):
    """Copy with one, several or all elements replaced; or of another length, shape or type."""
    rng = adversary.random
    value = rng.choice(NASTY) if value is None else value
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim != 1:
        return array
    kind = rng.random()
    result = array.copy()
    if kind < 0.8 and len(array):
        if rng.random() < 0.2:
            result[:] = value
        else:
            result[rng.randrange(len(array))] = value
        return result
    return rng.choice(
        (
            np.append(array, value), array[:-1], array[:, None], np.empty(0), value, None, list(array),
            array.astype(np.float32), array.astype(object), np.array(["x"] * len(array)),
        )
    )  # fmt: skip


def spoil_state(a):
    field = a.random.choice(STATE_FIELDS)
    if type(a.state) is RobotState:
        with_state(a, **{field: spoiled(a, getattr(a.state, field))})


def spoil_command(a):
    field = a.random.choice(COMMAND_FIELDS)
    if a.command is not None:
        with_command(a, **{field: spoiled(a, getattr(a.command, field))})


def no_state(a):
    a.state = None


def silent_state(a):
    a.state = a.reference.state


def frozen_state(a):
    if a.reference.tick is not None:
        with_state(a, tick=a.reference.tick)


def overtaken_state(a):
    with_state(a, tick=(a.state.tick - a.random.randrange(1, 60)) % 2**32 if type(a.state) is RobotState else 0)


def restarted_robot(a):
    """The tick falls by far more than packets overtake each other, once."""
    if type(a.state) is RobotState and a.reference.tick is not None and a.random.random() < 0.2:
        a.tick_offset -= 10**5
        with_state(a, tick=(a.state.tick - 10**5) % 2**32)


def future_state(a):
    with_state(a, received_ns=a.now + a.random.choice((1_000_000, 3_000_000, 10**9, 2**62)))


def late_state(a):
    with_state(a, received_ns=a.now - a.random.choice((5_000_000, 15_000_000, 30_000_000, 10**9, a.now)))


def creeping_state(a):
    """Each state is new, and a little later than the one before."""
    a.tick_offset -= 1


def other_robot(a):
    with_state(a, mode_machine=a.random.choice((1, 5, -1, 255)))


def tilted(a):
    angle = a.random.choice((0.9, 1.01, 1.5, 3.1)) / 2
    with_state(a, quat_wxyz=np.array([np.cos(angle), 0.0, np.sin(angle), 0.0]))


def bad_quaternion(a):
    with_state(a, quat_wxyz=UPRIGHT * a.random.choice((0.0, 0.5, 0.89, 1.2, 1e-320, 1e80)))


def thrown_joints(a):
    """Joints anywhere within and beyond their range, at any speed."""
    spec = a.spec
    a.q = a.draw.uniform(spec.position_lower - 0.3, spec.position_upper + 0.3)
    a.dq = a.draw.uniform(-1.1, 1.1, N) * spec.velocity_limit
    with_state(a, q=a.q, dq=a.dq)


def over_position(a):
    q = a.q.copy()
    q[a.random.randrange(N)] += a.random.choice((-4.0, 4.0))
    with_state(a, q=q)


def over_speed(a):
    dq = a.dq.copy()
    dq[a.random.randrange(N)] = a.random.choice((-1.0, 1.0, 5.0, 20.0)) * 30.0
    with_state(a, dq=dq)


def saturated(a):
    tau = np.zeros(N)
    tau[a.random.randrange(N)] = a.random.choice((-46.0, 46.0, 1e30))
    with_state(a, tau_est=tau)


def blocked(a):
    """The joints stay where they are, whatever is asked."""
    a.q = a.reference.q.copy() if a.reference.received else a.q
    a.dq = np.zeros(N)
    with_state(a, q=a.q, dq=a.dq)


def sagging(a):
    """From now on one joint stays behind by more than it may after a stand-up, and by less than saturates it."""
    if a.sag is None:
        a.sag = np.zeros(N)
        a.sag[a.random.choice((0, 1, 3, 4))] = a.random.choice((-0.37, 0.37))


def senseless_state(a):
    a.state = a.random.choice(("a state", 7, [], {}, object()))


def no_permit(a):
    a.permit = None if a.random.random() < 0.5 else a.permit
    a.permit_ns = None if a.permit is not None else a.permit_ns


def silent_permit(a):
    a.permit, a.permit_ns = a.reference.permit or a.permit, a.reference.permit_fresh or a.permit_ns


def repeated_permit(a):
    if a.reference.permit is not None:
        a.permit, a.permit_ns = SafetyPermit(a.reference.permit_seq, a.reference.permit_mode), a.now


def permit_out_of_order(a):
    mode = a.permit.mode if a.permit is not None else Mode.WALK
    a.permit, a.permit_ns = SafetyPermit(a.seq - a.random.randrange(1, 10**6), mode), a.now


def two_permits(a):
    a.permit, a.permit_ns = SafetyPermit(a.reference.permit_seq, a.random.choice(list(Mode))), a.now


def unknown_mode(a):
    a.permit, a.permit_ns = SafetyPermit(a.seq + 1, a.random.choice((6, 17, -1, 255))), a.now
    a.seq += 1


def future_permit(a):
    a.seq += 1
    a.permit, a.permit_ns = SafetyPermit(a.seq, a.random.choice(list(Mode))), a.now + a.random.choice((10**6, 10**9))


def jumping_permit(a):
    a.seq += a.random.choice((1, 10**6, 2**31))
    a.permit, a.permit_ns = SafetyPermit(a.seq, a.random.choice(list(Mode))), a.now


def no_command(a):
    a.command = None


def silent_command(a):
    a.command, a.command_ns = a.reference.command, a.reference.command_fresh or None


def repeated_command(a):
    with_command(a, fresh=False)
    a.command_ns = a.now


def command_out_of_order(a):
    with_command(a, seq=a.seq - a.random.randrange(1, 1000))


def future_command(a):
    with_command(a, state_received_ns=a.now + a.random.choice((10**6, 10**9)))


def command_of_an_old_state(a):
    with_command(a, state_received_ns=a.now - a.random.choice((50_000_000, 70_000_000, 10**10)))


def gains_beyond(a):
    field = a.random.choice(("stiffness", "damping"))
    value = a.random.choice((-1e-320, -1.0, 101.0, 1e30))
    with_command(a, **{field: spoiled(a, np.ones(N), value)})


def too_fast(a):
    """A little beyond, and otherwise in order, so that nothing else refuses it."""
    dq = np.zeros(N)
    joint = a.k % N
    dq[joint] = a.random.choice((-1.05, 1.05)) * a.spec.velocity_limit[joint]
    with_command(a, dq=dq)


def clock_back(a):
    a.now = a.last_now - a.random.choice((1, 1_000_000, 10**9))


def clock_stops(a):
    a.now = a.last_now + a.random.choice((0, 0, 1, 1000))


def pause(a):
    a.now = a.last_now + a.random.choice((41_000_000, 150_000_000, 10**10))
    a.state = a.make_state()


def pause_within_the_timeout(a):
    a.now = a.last_now + a.random.choice((10_000_000, 30_000_000, 39_000_000))
    a.state = a.make_state()


def company(a):
    a.outside = "another program commands the motors"


def nothing(a):
    """A day without a fault."""


FAULTS = (
    spoil_state, spoil_state, spoil_command, spoil_command, no_state, silent_state, frozen_state, overtaken_state,
    restarted_robot, future_state, late_state, creeping_state, other_robot, tilted, bad_quaternion, thrown_joints,
    over_position, over_speed, saturated, blocked, sagging, senseless_state, no_permit, silent_permit, repeated_permit,
    permit_out_of_order, two_permits, unknown_mode, future_permit, jumping_permit, no_command, silent_command,
    repeated_command, command_out_of_order, future_command, command_of_an_old_state, gains_beyond, too_fast,
    clock_back, clock_stops, pause, pause_within_the_timeout, company, nothing,
)  # fmt: skip
