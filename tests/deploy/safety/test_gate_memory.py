"""The gate allocates nothing that lasts and nothing cyclic: no collector and no slow growth can stall it."""

import gc
import sys
import time
import tracemalloc

import numpy as np
import pytest

from nfpo_deploy.safety.gate import Gate
from nfpo_deploy.types import GatePhase, Mode, SafetyPermit
from tests.deploy.safety.conftest import GateRig

CYCLE = ((Mode.DAMP, 0.2), (Mode.STAND, 2.7), (Mode.READY, 0.1), (Mode.WALK, 4.0), (Mode.READY, 0.7), (Mode.SIT, 2.6),
         (Mode.DAMP, 6.3))  # fmt: skip


@pytest.fixture(scope="module")
def day(spec):
    """Inputs of one whole day, with faults in it: (state, permit, permit_ns, command, command_ns) of each cycle."""
    rig, inputs = GateRig(spec), []
    step = rig.gate.step

    def recorded(now, *rest):
        inputs.append(rest)
        return step(now, *rest)

    rig.gate.step = recorded
    for mode, seconds in CYCLE:
        rig.run(mode, seconds)
    assert not rig.gate.last_trip and rig.gate.phase is GatePhase.ZERO_TORQUE
    # An end of each kind: a fault that is found, and one that nobody foresaw.
    rig.run(Mode.DAMP, 0.3)
    rig.state_changes = {"q": np.full(rig.n, np.nan)}
    rig.run(Mode.STAND, 0.1)
    rig.state_changes = {}
    rig.run(Mode.DAMP, 0.3)
    inputs += [("a state", *inputs[-1][1:])] * 50
    return inputs, round(1e9 / 500)


class Days:
    """Plays that day again and again; the permits are made before, with a count that goes on."""

    def __init__(self, spec, day, gate_type=Gate):
        self.gate, (self.inputs, self.period) = gate_type(spec), day
        self.now, self.seq = 10**9, 0
        self.phases = set()

    def prepared(self):
        """Inputs of one day from now on, so that stepping makes nothing but what the gate makes."""
        shift = self.now - 5_000_000_000
        self.seq += 10**5
        result, permits, commands, states = [], {}, {}, {}
        for k, (state, permit, permit_ns, command, command_ns) in enumerate(self.inputs):
            now = 5_000_000_000 + (k + 1) * self.period
            if state is not None and not isinstance(state, str):
                state = states.setdefault(
                    id(state),
                    _moved(state, tick=state.tick + self.seq, received_ns=state.received_ns + shift),
                )
            if permit is not None:
                permit = permits.setdefault(id(permit), SafetyPermit(permit.seq + self.seq, permit.mode))
                permit_ns += shift
            if command is not None:
                command = commands.setdefault(
                    id(command),
                    _moved(command, seq=command.seq + self.seq, state_received_ns=command.state_received_ns + shift),
                )
                command_ns += shift
            result.append((now + shift, state, permit, permit_ns, command, command_ns))
        self.now += len(result) * self.period
        return result

    def play(self, inputs):
        step, gate, phases = self.gate.step, self.gate, self.phases
        for arguments in inputs:
            step(*arguments)
            phases.add(gate.phase)


def _moved(message, **changes):
    moved = object.__new__(type(message))
    moved.__dict__.update({**message.__dict__, **changes})
    return moved


def cyclic_garbage(days):
    """Objects that only the collector can free, after more than 10 000 steps without it."""
    inputs = days.prepared() + days.prepared()
    assert len(inputs) > 10_000
    gc.collect()
    gc.disable()
    try:
        days.play(inputs)
        return gc.collect()
    finally:
        gc.enable()


def block_growth(days):
    """Most blocks of memory that a day leaves behind, once the first is over."""
    growth = []
    days.play(days.prepared())
    for _ in range(3):
        inputs = days.prepared()
        gc.collect()
        before = sys.getallocatedblocks()
        days.play(inputs)
        growth.append(sys.getallocatedblocks() - before)
    return max(growth)


class Cyclic(Gate):
    def _send(self, setpoint, now_ns):
        knot = []
        knot.append(knot)
        return super()._send(setpoint, now_ns)


class Leaky(Gate):
    def _trip(self, problem, now_ns):
        self.__dict__.setdefault("trips", []).append((problem, now_ns, float(now_ns)))
        super()._trip(problem, now_ns)


def test_no_cyclic_garbage(spec, day):
    days = Days(spec, day)
    assert cyclic_garbage(days) == 0
    assert days.phases == set(GatePhase), "the whole path was taken"
    assert cyclic_garbage(Days(spec, day, Cyclic)) > 1000, "it would have been seen"


def test_number_of_memory_blocks_is_flat(spec, day):
    assert block_growth(Days(spec, day)) < 50
    assert block_growth(Days(spec, day, Leaky)) > 100, "it would have been seen"


def test_step_times_are_reported(spec, day, record_property):
    """No assertion on the clock of a shared machine; docs/safety.md quotes what a quiet one printed."""
    days, costs = Days(spec, day), []
    step, clock = days.gate.step, time.perf_counter_ns
    for _ in range(2):
        for arguments in days.prepared():
            started = clock()
            step(*arguments)
            costs.append(clock() - started)
    p50, p99, p9999 = np.percentile(costs, [50, 99, 99.99]) * 1e-3
    text = f"gate step: median {p50:.0f}, p99 {p99:.0f}, p99.99 {p9999:.0f}, worst {max(costs) * 1e-3:.0f} µs"
    record_property("gate step", text)
    print(text)
    assert len(costs) > 10_000


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_memory_is_flat_over_a_hundred_thousand_steps(spec, day):
    days, steps = Days(spec, day), 0
    days.play(days.prepared())
    tracemalloc.start()
    try:
        peaks = []
        while steps < 100_000:
            inputs = days.prepared()
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            days.play(inputs)
            steps += len(inputs)
            after, peak = tracemalloc.get_traced_memory()
            peaks.append(peak - before)
            # What the gate remembers of a day is its last reason: a line of text and a few numbers.
            assert after - before < 4_000, f"{after - before} bytes more after {steps} steps"
    finally:
        tracemalloc.stop()
    assert days.phases == set(GatePhase)
    # One cycle's temporaries and one command, at any time.
    assert max(peaks) < 16_000, peaks
