"""A real participant of Cyclone DDS 11 on the topics of the robot: our processes live, are heard and say what it is.

It is installed from PyPI beside the environment, never into it, and runs in a process of its own.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytest.importorskip("unitree_sdk2py")

DOMAIN = 38
FOREIGN = "11.0.1"
# On loopback 0.10 and 11 find each other only where both refrain from multicast.
PEER_CONFIG = """<CycloneDDS><Domain Id="any"><General><AllowMulticast>false</AllowMulticast>
<Interfaces><NetworkInterface name="lo"/></Interfaces></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>30</MaxAutoParticipantIndex>
<Peers><Peer Address="127.0.0.1"/></Peers></Discovery></Domain></CycloneDDS>"""

PEER = """
    import sys, time, cyclonedds
    from cyclonedds.domain import DomainParticipant
    from cyclonedds.pub import DataWriter
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic
    from unitree_sdk2py.idl.default import unitree_go_msg_dds__LowCmd_, unitree_go_msg_dds__LowState_
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, LowState_

    assert sys.argv[2] in cyclonedds.__file__, cyclonedds.__file__
    participant = DomainParticipant(int(sys.argv[1]))
    topics = [Topic(participant, "rt/lowcmd", LowCmd_), Topic(participant, "rt/lowstate", LowState_)]
    writers = [DataWriter(participant, topic) for topic in topics]
    readers = [DataReader(participant, topic) for topic in topics]
    messages = [unitree_go_msg_dds__LowCmd_(), unitree_go_msg_dds__LowState_()]
    print("on", flush=True)
    while True:
        for writer, message in zip(writers, messages):
            writer.write(message)
        for reader in readers:
            reader.take(20)
        time.sleep(0.02)
"""


@pytest.fixture(scope="session")
def foreign_package():
    """Folder of Cyclone DDS 11, kept between runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "nfpo-tests"
    target = cache / f"cyclonedds-{FOREIGN}-python{sys.version_info[0]}.{sys.version_info[1]}"
    if not (target / "cyclonedds").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target]
        installed = subprocess.run([*command, f"cyclonedds=={FOREIGN}"], capture_output=True, text=True)
        if installed.returncode:
            pytest.skip(f"cannot install cyclonedds {FOREIGN} from PyPI: {installed.stderr.strip()[-300:]}")
    return target


@pytest.fixture
def peer(computer, foreign_package):
    """Starts the foreign participant; returns its process once it is on the network."""

    def start():
        environment = {key: value for key, value in os.environ.items() if key != "CYCLONEDDS_HOME"}
        environment |= {"PYTHONPATH": str(foreign_package), "CYCLONEDDS_URI": PEER_CONFIG}
        process = computer.start("-c", textwrap.dedent(PEER), DOMAIN, foreign_package, env=environment)
        assert process.stdout.readline().strip() == "on"
        return process

    return start


def check_all_live(probe, sim):
    """The foreign program's commands were seen, and states still come."""
    probe.until(lambda report: report["foreign"] > 5)
    reports = probe.during(3.0)
    assert sum(report["states"] for report in reports) > 100
    assert sim.poll() is None


def test_ours_survive_a_foreign_participant_that_joins(computer, peer, start_sim, stop_sim, Probe):
    sim = start_sim(computer, "lo", DOMAIN)
    probe = Probe(computer, "lo", DOMAIN)
    reports = probe.until(lambda report: report["states"] > 10)
    assert reports[-1]["foreign_dds"] == "" and reports[-1]["foreign"] == 0
    stranger = peer()
    reports = probe.until(lambda report: report["foreign_dds"])
    assert f"Cyclone DDS {FOREIGN}" in reports[-1]["foreign_dds"]
    check_all_live(probe, sim)
    stranger.terminate()
    stranger.wait()
    assert probe.stop() == 0 and "bad CRC" in stop_sim(sim)


def test_ours_survive_a_foreign_participant_that_was_there_before(computer, peer, start_sim, Probe):
    # The simulator first: it refuses to start beside another publisher of rt/lowstate. On loopback a participant that
    # was there first is not heard by the listener for versions (docs/wire.md), only its commands are.
    sim = start_sim(computer, "lo", DOMAIN)
    peer()
    probe = Probe(computer, "lo", DOMAIN)
    check_all_live(probe, sim)
    assert probe.stop() == 0


UNPROTECTED = """
    import contextlib, sys, time
    from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_

    from nfpo_deploy.transport import dds

    dds._without_type_information = lambda data_type: contextlib.nullcontext()
    participant = dds.DdsParticipant("lo", int(sys.argv[1]))
    reader = participant.reader("rt/lowcmd", LowCmd_)
    print("on", flush=True)
    time.sleep(30)
"""


def test_without_the_protection_the_process_dies(computer, peer):
    """The control: type information is what kills, and this peer is one that does."""
    victim = computer.start("-c", textwrap.dedent(UNPROTECTED), DOMAIN)
    assert victim.stdout.readline().strip() == "on"
    peer()
    deadline = time.monotonic() + 25
    while victim.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert victim.poll() == -signal.SIGSEGV
