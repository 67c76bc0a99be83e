"""Run the simulated robot as its users do: its own process, the real DDS, the loopback interface."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class SimProcess:
    """The command line of robot_sim, started and on the network."""

    def __init__(self, *args):
        command = [sys.executable, "-m", "sim2real_checks.robot_sim", *map(str, args)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.output = self.process.stdout.readline()
        assert "on DDS domain" in self.output, self.output

    def stop(self, number=signal.SIGTERM):
        """Signal it and return its exit status and output."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=15)
        return self.process.returncode, self.output + rest


@pytest.fixture
def start_sim():
    started = []

    def start(*args):
        started.append(SimProcess(*args))
        return started[-1]

    yield start
    for sim in started:
        if sim.process.poll() is None:
            sim.process.kill()
            sim.process.wait()


def wait_for(condition, timeout=10.0):
    """Poll until `condition()` is true; return its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)
    return value


@pytest.fixture(scope="module")
def sim_process(request, tmp_path_factory):
    """A robot with a control socket in a process of its own, on the module's DOMAIN."""
    path = tmp_path_factory.mktemp("sim") / "control"
    process = SimProcess(
        "--domain-id", request.module.DOMAIN, "--control", path, "--no-noise", "--builtin-mode", ""
    )  # fmt: skip
    process.path = path
    yield process
    assert process.process.poll() is None, "it lived through everything"
    status, output = process.stop()
    assert status == 0 and not path.exists() and "Traceback" not in output, output


@pytest.fixture(name="wait_for")
def wait_for_fixture():
    return wait_for


@pytest.fixture(scope="module")
def sim_with_control(request, tmp_path_factory):
    """A robot with a control socket, perfect sensors and no built-in controller, on the module's DOMAIN.

    It runs in a thread of the test's process: DDS then hands its samples over directly, so that a busy computer, which
    drops packets between processes, loses none.
    """
    from sim2real_checks.robot_sim import RobotSim, SensorNoise, SimConfig
    from sim2real_checks.robot_sim.control import SimControl

    path = tmp_path_factory.mktemp("sim") / "control"
    config = SimConfig(domain_id=request.module.DOMAIN, control=path, noise=SensorNoise.none(), builtin_mode="")
    with RobotSim(config).running(), SimControl(path, timeout=10.0) as control:
        yield control
    assert not path.exists()


@pytest.fixture
def control(sim_with_control):
    """Its control socket; faults are cleared before and after each test."""
    sim_with_control.clear()
    yield sim_with_control
    sim_with_control.clear()
