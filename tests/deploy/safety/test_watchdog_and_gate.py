"""Watchdog and gate together on one simulated clock: no false trip on the legal ways, and how fast a fault damps."""

from collections import deque

import numpy as np
import pytest

from nfpo_deploy.safety.watchdog import Watchdog
from nfpo_deploy.types import BridgeStatus, GatePhase, Mode, StateEstimate, VelocityCommand
from sim2real_checks.robot_sim.remote import Remote

NS = 1_000_000_000


class Pair:
    """Gate at 500 Hz, watchdog at `rate_hz`, reports at 50 Hz; everything between them takes `delay` s."""

    def __init__(self, rig, spec, rate_hz=100.0, delay=0.003, phase=0.0):
        self.rig, self.spec = rig, spec
        self.watchdog = Watchdog(spec, rate_hz)
        self.rig.send_permit = False
        self.period, self.delay = round(NS / rate_hz), round(delay * NS)
        self.next_tick = rig.now + round(phase * self.period)
        self.permits, self.statuses, self.states, self.commands = deque(), deque(), deque(), deque()
        self.lost: set[str] = set()
        self.stopping = False
        self.modes = [Mode.DAMP]
        self.messages = set()
        self.out = None

    def run(self, seconds):
        end = self.rig.now + round(seconds * NS)
        while self.rig.now < end:
            self.cycle()

    def until(self, mode, seconds=10.0):
        end = self.rig.now + round(seconds * NS)
        while self.watchdog.mode is not mode:
            assert self.rig.now < end, (self.watchdog.mode, self.watchdog.reason)
            self.cycle()

    def cycle(self):
        rig, gate = self.rig, self.rig.gate
        if self.permits and self.permits[0][0] <= rig.now:
            _, rig.permit = self.permits.popleft()
            rig.permit_ns = rig.now
        self.out = rig.step(Mode.DAMP)
        arrives = rig.now + self.delay
        if "state" not in self.lost:
            self.states.append((arrives, rig.last_state))
        if rig.tick % 10 == 0:
            self.commands.append((arrives, rig.command))
            status = BridgeStatus(
                gate.phase, rig.permit.mode if rig.permit else Mode.DAMP, gate.reason, gate.tripped,
                gate.stand_reached, gate.sit_reached, 0.0, 0.0, 0.0, lowstate_count=rig.tick, loop_rate=500.0,
                guards_alive=2, stopping=self.stopping,
            )  # fmt: skip
            if "status" not in self.lost:
                self.statuses.append((arrives, status))
        if rig.now >= self.next_tick:
            self.next_tick += self.period
            self.tick()

    def tick(self):
        now, dog = self.rig.now, self.watchdog
        if (state := newest(self.states, now)) is not None:
            dog.observe_state(state, now)
            still, ones = np.zeros(3), np.ones(4)
            estimate = StateEstimate(
                state.tick, now, state.quat_wxyz, still, still, still, still, ones, state.q, state.dq
            )
            dog.observe_estimate(estimate, now)
        if (status := newest(self.statuses, now)) is not None:
            dog.observe_bridge_status(status, now)
        if (command := newest(self.commands, now)) is not None:
            dog.observe_command(command, now)
        dog.observe_operator(VelocityCommand(0.1, 0.0, 0.0), now)
        permit = dog.tick(now)
        self.permits.append((now + self.delay, permit))
        if permit.mode is not self.modes[-1]:
            self.modes.append(permit.mode)
        row = next(r for r in dog.diagnostics(now) if r.name == "obedience")
        self.messages.add(row.message.split(" for ")[0])

    def request(self, name):
        ok, message = self.watchdog.request(name, self.rig.now)
        assert ok, message

    def stand(self):
        self.run(0.3)
        ok, message = self.watchdog.arm(self.rig.now)
        assert ok, message
        self.request("STAND")
        self.until(Mode.READY)


def newest(queue, now):
    value = None
    while queue and queue[0][0] <= now:
        value = queue.popleft()[1]
    return value


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.03])
@pytest.mark.parametrize("rate_hz", [50.0, 100.0])
def test_no_false_trip_on_any_legal_way(rig, spec, rate_hz, delay):
    """Requests at random times, through every legal change of mode, several times each."""
    rng = np.random.default_rng(round(rate_hz + 1e4 * delay))
    pair = Pair(rig, spec, rate_hz, delay)
    for _ in range(2):
        pair.stand()
        for _ in range(2):
            pair.run(rng.uniform(0.0, 0.3))
            pair.request("WALK")
            pair.run(rng.uniform(0.0, 0.6))
            pair.request("READY")
            while not pair.watchdog.machine._settled:
                pair.cycle()
        pair.request("WALK")
        pair.run(rng.uniform(0.0, 0.6))
        pair.request("SIT")
        pair.until(Mode.DAMP)
        pair.run(rng.uniform(0.0, 0.4))
    # Cut short: sitting down while standing up, and damping from everywhere.
    pair.run(0.3)
    assert pair.watchdog.arm(rig.now)[0]
    pair.request("STAND")
    pair.run(rng.uniform(0.3, 2.0))
    pair.request("SIT")
    pair.until(Mode.DAMP)
    for walk in (False, True):
        pair.stand()
        if walk:
            pair.request("WALK")
            pair.run(0.2)
        pair.request("DAMP")
        pair.run(0.3)
    assert Mode.FAULT not in pair.modes and rig.gate.last_trip == "", (pair.watchdog.reason, rig.gate.last_trip)
    assert set(pair.modes) == set(Mode) - {Mode.FAULT}
    if delay:
        assert len(pair.messages) > 1, "the transients were seen, and forgiven"


@pytest.mark.parametrize("mode", [Mode.STAND, Mode.READY, Mode.WALK])
def test_bridge_that_ends_is_followed_down_not_opposed(rig, spec, mode):
    """What the bridge does when it is asked to end: it grants itself READY, SIT and DAMP."""
    pair = Pair(rig, spec)
    if mode is Mode.STAND:
        pair.run(0.3)
        assert pair.watchdog.arm(rig.now)[0]
        pair.request("STAND")
        pair.run(1.0)
    else:
        pair.stand()
    if mode is Mode.WALK:
        pair.request("WALK")
        pair.run(0.5)
    pair.stopping = True
    seq, gate = rig.permit.seq, rig.gate
    for _ in range(round(7.0 * 500)):
        settling = mode is Mode.WALK and not gate.stand_reached
        own = Mode.READY if gate.phase is GatePhase.TRACKING or settling else Mode.SIT
        if gate.sit_reached or gate.phase in (GatePhase.DAMPING, GatePhase.ZERO_TORQUE):
            own = Mode.DAMP
        elif rig.permit.mode is Mode.SIT:
            own = Mode.SIT
        seq += 1
        pair.permits.clear()
        rig.permit, rig.permit_ns = type(rig.permit)(seq, own, "the bridge is stopping"), rig.now
        pair.cycle()
    assert Mode.FAULT not in pair.modes and gate.last_trip == "", (pair.watchdog.reason, gate.last_trip)
    assert pair.modes[-2:] == [Mode.SIT, Mode.DAMP] and pair.watchdog.reason == "the bridge is ending"
    ok, message = pair.watchdog.arm(rig.now)
    assert not ok and "bridge_ending" in message


@pytest.mark.parametrize("delay", [0.001, 0.003])
@pytest.mark.parametrize("what", ["tilt", "state", "status", "remote"])
def test_reaction_from_the_declared_timeout_to_the_first_damping_command(rig, spec, what, delay):
    """At each phase of the watchdog's tick: at most 50 ms, of which none is spent by a queue."""
    safety = spec.safety
    timeout = {"state": safety.state_timeout, "status": safety.bridge_status_timeout}.get(what, 0.0)
    reactions = []
    pair = Pair(rig, spec, delay=delay)
    for k in range(12):
        pair.stand()
        pair.run(0.1 + k * 0.002)
        start = rig.now
        if what == "tilt":
            # Seen by the watchdog alone: the gate's own limit is out of the way.
            rig.gate._safety = type(safety)(**{**safety.__dict__, "tilt": 3.0})
            rig.state_changes = {"quat_wxyz": np.array([np.cos(0.6), np.sin(0.6), 0.0, 0.0])}
        elif what == "remote":
            rig.state_changes = {"wireless_remote": Remote(buttons=frozenset({"L2", "B"})).to_bytes()}
        else:
            pair.lost = {what}
        while rig.gate.phase is not GatePhase.DAMPING:
            pair.cycle()
            assert rig.now - start < NS
        reactions.append((rig.now - start) * 1e-9 - timeout)
        assert pair.watchdog.mode is Mode.FAULT and rig.gate.reason == "mode FAULT"
        rig.state_changes, pair.lost, rig.gate._safety = {}, set(), safety
        pair.run(1.2)
        ok, message = pair.watchdog.reset(rig.now)
        assert ok, message
    # Up to 10 ms until the next tick sees it, 10 ms of slack for streams, twice the delay, one cycle of the gate.
    assert max(reactions) <= 0.050, reactions
    assert max(reactions) <= 0.010 + (0.020 if timeout else 0.0) + 2 * delay + 0.006, reactions
