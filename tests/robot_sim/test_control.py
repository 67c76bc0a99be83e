"""The control socket: answers, refusals, rubbish, and the robot that lives through it; simulator in its own process."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("unitree_sdk2py")

from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowState_

from nfpo_deploy.errors import NfpoError
from nfpo_deploy.transport.codec import GO_LOW_STATE
from nfpo_deploy.transport.dds import DdsParticipant
from sim2real_checks.robot_sim import SimConfig, SimConfigError
from sim2real_checks.robot_sim.control import (
    ControlError,
    ControlRefusedError,
    ControlServer,
    ControlTimeoutError,
    SimControl,
)
from sim2real_checks.robot_sim.faults import FAULTS

DOMAIN = 33
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sim(sim_process):
    return sim_process


@pytest.fixture
def raw(sim):
    """A socket with an address, connected to the simulator."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.bind("")
        client.connect(str(sim.path))
        client.settimeout(20)
        yield client


def ask(raw, datagram):
    raw.send(datagram)
    return json.loads(raw.recv(65536))


def run_cli(*args):
    command = [sys.executable, "-m", "sim2real_checks.robot_sim.control", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_answer_to_a_plain_datagram(raw):
    before = time.monotonic_ns()
    answer = ask(raw, b'{"fault": "freeze", "duration": 0.05}')
    assert answer["ok"] is True and before < answer["applied_ns"] < time.monotonic_ns()
    assert answer["active"] == ["freeze"] and answer["sim_time"] >= 0 and "id" not in answer
    answer = ask(raw, b'{"fault": "clear", "id": "mine"}')
    assert (answer["ok"], answer["active"], answer["id"]) == (True, [], "mine") and answer["applied_ns"] > before


@pytest.mark.parametrize(
    ("datagram", "named"),
    [
        (b"", "JSON"), (b"\xff\xfe", "JSON"), (b"{", "JSON"), (b"[" * 60000, "RecursionError"), (b"17", "JSON object"),
        (b"{}", "known: lose,"), (b'{"fault": "melt"}', "unknown fault 'melt'; known: lose,"),
        (b'{"fault": "delay"}', "seconds is missing"), (b'{"fault": "delay", "seconds": NaN}', "bad seconds"),
        (b'{"fault": "delay", "seconds": 1e999}', "bad seconds"), (b'{"fault": "freeze", "x": 1}', "unknown parameter"),
        (b'{"fault": "clear", "duration": 1}', "takes no parameters"),
        (b'{"fault": "\\ud800"}', "unknown fault"), (b'{"fault": "nan", "field": ["q"]}', "bad field"),
    ],
)  # fmt: skip
def test_refusals_name_what_is_wrong(raw, datagram, named):
    answer = ask(raw, datagram)
    assert answer["ok"] is False and named in answer["error"]


def test_simulator_survives_any_datagram(sim, raw):
    rng = random.Random(5)
    names = sorted({name for kind in FAULTS.values() for name in kind.parameters})
    values = ["null", "true", "1e308", "-1", "0", "99999999999999999999", '"q"', "[]", "{}", '"FL_hip_joint"', "0.5"]
    harmless = [name for name in FAULTS if name not in ("hang", "foreign_controller")]

    def almost_valid():
        pairs = [f'"{rng.choice([*names, "duration", "id"])}": {rng.choice(values)}' for _ in range(rng.randrange(4))]
        return f'{{"fault": "{rng.choice(harmless)}"{"".join(", " + pair for pair in pairs)}}}'.encode()

    def broken():
        datagram = bytearray(almost_valid())
        for _ in range(rng.randrange(1, 6)):
            datagram[rng.randrange(len(datagram))] = rng.randrange(256)
        return bytes(datagram)

    kinds = (almost_valid, broken, lambda: rng.randbytes(rng.randrange(2000)), lambda: b"{" * rng.randrange(5000))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
        nameless.connect(str(sim.path))
        for i in range(3000):
            sender = nameless if i % 3 == 0 else raw
            sender.send(kinds[i % len(kinds)]())
            if i % 2:  # half of the answers are never fetched, so that its buffer fills up
                with contextlib.suppress(BlockingIOError):
                    json.loads(raw.recv(65536, socket.MSG_DONTWAIT))
    raw.close()
    with SimControl(sim.path, timeout=60) as control:
        assert control.request("clear")["active"] == []
    assert sim.process.poll() is None


def test_a_client_that_left_is_no_trouble(sim):
    for _ in range(20):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        client.bind("")
        client.sendto(b'{"fault": "voltage", "volts": 20}', str(sim.path))
        client.close()
    with SimControl(sim.path, timeout=20) as control:
        assert control.request("freeze", 0.1)["active"] == ["voltage", "freeze"]
        control.clear()


def test_the_effect_reaches_another_process(sim):
    participant = DdsParticipant("lo", DOMAIN)
    reader = participant.reader("rt/lowstate", LowState_, depth=64)
    with SimControl(sim.path, timeout=20) as control:
        applied_ns = control.send("voltage", volts=3.5)
        assert isinstance(applied_ns, int)
        deadline = time.monotonic() + 20
        while not any(GO_LOW_STATE.decode(sample)["power_v"] == 3.5 for sample in reader.take()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        control.clear()
    participant.close()


def test_client_errors(sim, tmp_path):
    with SimControl(sim.path, timeout=20) as control:
        with pytest.raises(ControlRefusedError, match="unknown fault 'melt'; known: lose,") as caught:
            control.send("melt")
        assert isinstance(caught.value, NfpoError)
        with pytest.raises(ControlRefusedError, match="duration must be above 0"):
            control.send("freeze", duration=0)
    with pytest.raises(ControlError, match="no simulator listens"):
        SimControl(tmp_path / "nobody")
    for timeout in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ControlError, match="timeout must be above zero"):
            SimControl(sim.path, timeout=timeout)


def test_client_gives_up_in_time_and_ignores_late_answers(tmp_path):
    path = tmp_path / "deaf"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(path))
        control = SimControl(path, timeout=0.2)
        begin = time.monotonic()
        with pytest.raises(ControlTimeoutError, match="'freeze' within 0.2 s"):
            control.send("freeze")
        assert 0.15 < time.monotonic() - begin < 5
        _, address = deaf.recvfrom(65536)
        deaf.sendto(b'{"ok": true, "applied_ns": 1, "id": 1}', address)
        deaf.sendto(b'{"ok": true, "applied_ns": 2, "id": 2}', address)
        assert control.send("freeze") == 2
    path.unlink()
    with pytest.raises(ControlError, match="is gone"):
        control.send("freeze")
    control.close()


def test_socket_of_a_killed_simulator_is_replaced_and_one_in_use_is_not(tmp_path):
    path = tmp_path / "control"
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    stale.bind(str(path))
    with pytest.raises(ControlError, match="another program listens"):
        ControlServer(path, None)
    stale.close()
    server = ControlServer(path, None)
    assert path.stat().st_mode & 0o777 == 0o600, "nobody else may push the robot"
    server.close()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(ControlError, match="exists and is no socket"):
        ControlServer(path, None)
    assert path.read_text() == "precious"
    with pytest.raises(ControlError, match="No such file"):
        ControlServer(tmp_path / "missing" / "control", None)


def test_impossible_paths_are_refused():
    with pytest.raises(SimConfigError, match="control must be a path of at most 107 bytes"):
        SimConfig(control=Path("/tmp/" + "x" * 103))
    result = subprocess.run(
        [sys.executable, "-m", "sim2real_checks.robot_sim", "--domain-id", str(DOMAIN + 100), "--control", os.devnull],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2 and "is no socket" in result.stderr and "Traceback" not in result.stderr


def test_command_line(sim):
    result = run_cli(sim.path, "heat", "joint=FL_hip_joint", "temperature=70", "duration=0.2")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["active"] == ["heat"]
    assert run_cli(sim.path, "remote", "buttons=L2+B", "duration=0.1").returncode == 0
    assert json.loads(run_cli(sim.path, "clear").stdout)["active"] == []
    for args, named in (
        ((sim.path, "melt"), "unknown fault"), ((sim.path, "freeze", "0.5"), "NAME=VALUE"),
        ((sim.path, "freeze", "duration=long"), "duration must be"), (("/nowhere", "freeze"), "no simulator"),
    ):  # fmt: skip
        result = run_cli(*args)
        assert result.returncode == 2 and named in result.stderr and "Traceback" not in result.stderr
    result = run_cli("--help")
    assert result.returncode == 0 and all(f"  {name}: " in result.stdout for name in FAULTS)
