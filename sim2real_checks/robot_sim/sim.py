"""The simulation loop: physics, motors and messages in one thread, paced to the wall clock."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from nfpo_deploy.errors import TransportError
from nfpo_deploy.transport.dds import DdsParticipant, RawWriter
from nfpo_deploy.transport.family import family_of
from robots.loader import RobotSpec, load_robot
from sim2real_checks.robot_sim.builtin import BuiltinController
from sim2real_checks.robot_sim.config import LOW_STATE_HZ, SimConfig
from sim2real_checks.robot_sim.control import ControlServer
from sim2real_checks.robot_sim.inbox import LowCmdInbox
from sim2real_checks.robot_sim.injection import FaultBoard
from sim2real_checks.robot_sim.messages import (
    LowStateBuilder,
    SecondaryImuBuilder,
    SportStateBuilder,
    wireless_controller,
)
from sim2real_checks.robot_sim.motors import MotorBank
from sim2real_checks.robot_sim.plant import Plant, Truth
from sim2real_checks.robot_sim.recorder import Recorder, row_dtype
from sim2real_checks.robot_sim.remote import Remote
from sim2real_checks.robot_sim.services import motion_switcher_server, sport_server

log = logging.getLogger("robot_sim")

SLOW_COPY_HZ = 20.0
"""Rate of rt/lf/lowstate; the robots' own is not documented."""
WIRELESS_HZ = 100.0
SERVICES_HZ = 50.0
WARMING_HZ = 10.0
DISCOVERY_S = 0.5
"""How long to look for another robot before appearing; discovery on one host takes some tens of ms."""
_RELEASE: tuple[float, ...] = ()
"""Among the events: the gantry lets go."""
MAX_LAG_S = 0.1
"""Beyond this lag the schedule slips: catching up would show clients a robot faster than real time."""


@dataclass(frozen=True)
class SimSummary:
    """How a run went."""

    sim_time: float
    wall_time: float
    real_time_factor: float
    """Simulated over wall time; below 1 the computer was too slow."""
    cpu_load: float
    """CPU time of this process over wall time, in cores."""
    max_lag: float
    """s, worst lateness of a step behind its schedule."""
    slips: int
    """How often the schedule was moved because the lag exceeded MAX_LAG_S."""
    lowcmd_count: int
    """LowCmds obeyed or queued."""
    lowcmd_crc_errors: int
    lowcmd_malformed: int
    """LowCmds dropped for their size or a non-finite number."""
    lowcmd_ignored: int
    """LowCmds that came while a built-in controller owned the motors."""


class RobotSim:
    """A simulated robot; `run()` blocks until `stop()`, the configured duration, or an error.

    Raises:
        SimConfigError: an impossible payload, or a gantry for a robot that has no place for one.
        RobotSpecError: unknown robot.
        TransportError: (from run) interface, domain or DDS version cannot be used, or a robot is there already.
    """

    def __init__(self, config: SimConfig) -> None:
        self.config = config
        self.spec: RobotSpec = load_robot(config.robot)
        self._family = family_of(self.spec)
        self.ready = threading.Event()
        """Set once the robot is on the network."""
        self.summary: SimSummary | None = None
        """Set when run() has ended."""
        self.remote = Remote()
        """State of the wireless remote; may be replaced at any time, from any thread."""
        self.truth: Truth
        """The newest state, replaced 500 times a second; may be read from any thread."""
        self._stop = threading.Event()
        self._plant = Plant(self.spec, config)
        self._motors = MotorBank(self.spec, config.motor_strength)
        self.truth = self._plant.truth()
        self._builtin = BuiltinController(self.spec, self._motors, config.builtin_mode, self._plant.q)
        self._lowcmd = LowCmdInbox(self.spec, config)
        self._faults = FaultBoard(self.spec, config, self._motors, self._plant, self._lowcmd)
        self._control: ControlServer | None = None
        self._events = _schedule(config)
        self._lowstate_ns = 0
        self._hung = 0.0
        self._max_lag = 0.0
        self._slips = 0

    def stop(self) -> None:
        """Ask run() to end; safe in a signal handler and from any thread."""
        self._stop.set()

    @contextlib.contextmanager
    def running(self) -> Iterator[RobotSim]:
        """Run in a thread for the duration of a `with` block; re-raises what ended the run."""
        failure: list[BaseException] = []

        def target() -> None:
            try:
                self.run()
            except BaseException as error:
                failure.append(error)
                self.ready.set()

        thread = threading.Thread(target=target, name="robot_sim", daemon=True)
        thread.start()
        self.ready.wait()
        try:
            if failure:
                raise failure[0]
            yield self
        finally:
            self.stop()
            thread.join()
        if failure:
            raise failure[0]

    def run(self) -> SimSummary:
        """Be a robot. Returns the summary; the record, if asked for, is complete then."""
        self._refuse_second_robot()
        config = self.config
        participant = DdsParticipant(config.interface, config.domain_id)
        recorder = None
        try:
            if config.control is not None:
                self._control = ControlServer(config.control, self._faults)
            recorder = self._open_recorder()
            self._open_channels(participant, recorder)
            log.info("%s on DDS domain %d, interface %s", config.robot, config.domain_id, config.interface)
            # A full collection over everything that was imported stops the robot for 30 ms, longer than clients of
            # LowState tolerate: leave it out of the collector's sight.
            gc.collect()
            gc.freeze()
            self.ready.set()
            return self._loop(recorder)
        finally:
            if self._control is not None:
                self._control.close()
            self._faults.close()
            participant.close()
            if recorder is not None:
                recorder.close()

    def _refuse_second_robot(self) -> None:
        """Two robots on one domain would mix their states, and one of them might be real."""
        probe = DdsParticipant(self.config.interface, self.config.domain_id)
        try:
            reader = probe.reader("rt/lowstate", self._family.low_state_type())
            deadline = time.monotonic() + DISCOVERY_S
            while time.monotonic() < deadline:
                if reader.matched:
                    raise TransportError(
                        f"a robot is already on DDS domain {self.config.domain_id} of interface "
                        f"{self.config.interface!r}; stop it, or choose another domain with --domain-id"
                    )
                time.sleep(0.02)
        finally:
            probe.close()

    def _open_channels(self, participant: DdsParticipant, recorder: Recorder | None) -> None:
        from unitree_sdk2py.idl.unitree_go.msg import dds_ as go
        from unitree_sdk2py.idl.unitree_hg.msg import dds_ as hg

        plant, builtin = self._plant, self._builtin
        self._low_state = LowStateBuilder(self.spec, self.config, plant, self._motors)
        self._sport_state = SportStateBuilder(self.spec, plant)
        self._low_state_writers: tuple[RawWriter, RawWriter] = (
            participant.writer("rt/lowstate", self._family.low_state_type()),
            participant.writer("rt/lf/lowstate", self._family.low_state_type()),
        )
        self._secondary_imu: tuple[SecondaryImuBuilder, RawWriter] | None = None
        if plant.secondary_imu() is not None:
            writer = participant.writer("rt/secondary_imu", hg.IMUState_)
            self._secondary_imu = SecondaryImuBuilder(self.config, plant), writer
        self._sport_writer = participant.writer("rt/sportmodestate", go.SportModeState_)
        self._wireless_writer = participant.writer("rt/wirelesscontroller", go.WirelessController_)
        self._lowcmd.open(participant, None if recorder is None else recorder.open_lowcmd_log(self.spec))
        self._servers = (
            motion_switcher_server(participant, builtin, plant),
            sport_server(participant, builtin, plant),
        )

    def _open_recorder(self) -> Recorder | None:
        if self.config.record is None:
            return None
        model = self._plant.model
        dtype = row_dtype(model.nq, model.nv, self.spec.num_joints, len(self.spec.feet))
        meta = {
            "robot": self.spec.name,
            "joint_names": list(self.spec.joint_names),
            "model_sha256": self.spec.model_sha256,
            "record_hz": self.config.record_hz,
            "config": {key: str(value) for key, value in asdict(self.config).items()},
        }
        return Recorder(self.config.record, dtype, meta)

    def _loop(self, recorder: Recorder | None) -> SimSummary:
        config, step = self.config, self.config.timestep
        every = {
            name: max(1, round(1.0 / (hz * step)))
            for name, hz in (
                ("low_state", LOW_STATE_HZ), ("slow", SLOW_COPY_HZ), ("sport", config.sport_state_hz),
                ("wireless", WIRELESS_HZ), ("services", SERVICES_HZ), ("warm", WARMING_HZ),
                ("record", config.record_hz),
            )
        }  # fmt: skip
        last = None if config.duration is None else round(config.duration / step)
        wall_start, cpu_start = time.monotonic(), time.process_time()
        origin = wall_start
        count = 0
        while not self._stop.is_set() and (last is None or count < last):
            if self._control is not None and count % every["low_state"] == 0:
                origin += self._take_faults(self._control)
            self._plant.begin()
            self._publish(count, every)
            if count % every["services"] == 0:
                self._serve()
            self._drive(count, every)
            torque = self._motors.step(self._plant.q, self._plant.dq)
            if recorder is not None and count % every["record"] == 0:
                self._record(recorder)
            self._plant.finish(torque)
            count += 1
            if config.real_time:
                origin = self._pace(origin, count * step)
        wall = time.monotonic() - wall_start - self._hung
        self.truth = self._plant.truth()
        self.summary = self._summarise(count * step, wall, time.process_time() - cpu_start)
        return self.summary

    def _take_faults(self, control: ControlServer) -> float:
        """Let faults begin and end. Returns the s that the robot stood still, which the schedule must not count."""
        self._faults.step()
        control.poll()
        if not self._faults.hanging:
            return 0.0
        begin = time.monotonic()
        while self._faults.hanging and not self._stop.is_set():
            # Its receiver goes on: what came last is obeyed when it wakes up, and the log has no hole.
            self._lowcmd.listen(self._plant.time, self._builtin.active, self._plant)
            control.poll()
            time.sleep(self.config.timestep)
        hung = time.monotonic() - begin
        self._hung += hung
        return hung

    def _publish(self, count: int, every: dict[str, int]) -> None:
        remote = self._faults.remote or self.remote
        if count % every["low_state"] == 0:
            sample = None
            self._low_state.mode_pr = self._lowcmd.mode_pr
            for sample in self._faults.stream.process(self._low_state.build(remote), self._plant.time):
                self._low_state_writers[0].write(sample)
                self._lowstate_ns = time.monotonic_ns()
            if sample is not None and count % every["slow"] == 0:
                self._low_state_writers[1].write(sample)
            self._publish_secondary_imu()
            self.truth = self._plant.truth()
        if count % every["sport"] == 0:
            self._sport_writer.write(self._sport_state.build(self._plant.truth(), self._builtin.sport_mode))
        if count % every["wireless"] == 0:
            self._wireless_writer.write(wireless_controller(remote))

    def _publish_secondary_imu(self) -> None:
        if self._secondary_imu is not None:
            builder, writer = self._secondary_imu
            sample = builder.build()
            if sample is not None:
                writer.write(sample)

    def _serve(self) -> None:
        for server in self._servers:
            server.poll()

    def _drive(self, count: int, every: dict[str, int]) -> None:
        """Everything that changes what the motors or the body will do in this step."""
        now = self._plant.time
        while self._events and self._events[0][0] <= now:
            _, action = self._events.popleft()
            if isinstance(action, Remote):
                self.remote = action
            elif action == _RELEASE:
                if self._plant.gantry is not None:
                    self._plant.gantry.let_go(self._plant.data)
            else:
                self._plant.push(*action)
        self._lowcmd.listen(now, self._builtin.active, self._plant)
        motor_cmd = self._lowcmd.due(now)
        if self._builtin.active:
            self._builtin.step(now)
        elif motor_cmd is not None:
            self._motors.command_slots(motor_cmd)
        elif self._lowcmd.timed_out(now):
            self._motors.off()
        if count % every["warm"] == 0:
            self._motors.warm(every["warm"] * self.config.timestep)

    def _record(self, recorder: Recorder) -> None:
        recorder.append(
            self._plant, self._motors, time.monotonic_ns(), lowstate_ns=self._lowstate_ns,
            lowcmd_ns=self._lowcmd.received_ns, lowcmd_count=self._lowcmd.count,
            lowcmd_crc_errors=self._lowcmd.crc_errors, builtin_active=self._builtin.active,
            fault=min(255, self._faults.count),
        )  # fmt: skip

    def _pace(self, origin: float, sim_time: float) -> float:
        """Sleep until the step is due; return the schedule's origin, moved where the lag is beyond repair."""
        late = time.monotonic() - (origin + sim_time)
        if late < 0:
            time.sleep(-late)
            return origin
        self._max_lag = max(self._max_lag, late)
        if late > MAX_LAG_S:
            self._slips += 1
            return origin + late
        return origin

    def _summarise(self, sim_time: float, wall: float, cpu: float) -> SimSummary:
        inbox = self._lowcmd
        wall = max(wall, 1e-9)
        return SimSummary(
            sim_time, wall, sim_time / wall, cpu / wall, self._max_lag, self._slips,
            inbox.count, inbox.crc_errors, inbox.malformed, inbox.ignored,
        )  # fmt: skip


def _schedule(config: SimConfig) -> deque:
    events: list[tuple[float, Remote | tuple[float, ...]]] = [
        *((event.time, event.remote) for event in config.remote_events),
        *((push.time, (push.vx, push.vy)) for push in config.pushes),
    ]
    if config.gantry_release is not None:
        events.append((config.gantry_release, _RELEASE))
    return deque(sorted(events, key=lambda event: event[0]))
