"""Another computer on the network: nothing of a simulated run reaches it, and nothing that it sends is heard."""

import json
import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

# Collects what arrives on the cable until its input ends: [protocol, source, destination, source port, port].
CAPTURE = """
import json, select, socket, struct, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
raw.bind((sys.argv[1], 0))
print(json.dumps("ready"), flush=True)
packets = []
while True:
    ready, _, _ = select.select([raw, sys.stdin], [], [])
    if sys.stdin in ready:
        break
    frame, address = raw.recvfrom(65535)
    # Outgoing frames are seen too; the kernel marks them.
    if address[2] == socket.PACKET_OUTGOING or frame[12:14] not in (b"\\x08\\x00", b"\\x86\\xdd"):
        continue
    if frame[12:14] == b"\\x86\\xdd":
        packets.append([frame[20], "ipv6", "ipv6", 0, 0])
        continue
    start = 14 + 4 * (frame[14] & 15)
    ports = struct.unpack("!HH", frame[start:start + 4]) if frame[23] in (6, 17) else (0, 0)
    packets.append([frame[23], socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34]), *ports])
print(json.dumps(packets), flush=True)
"""

# Knocks at ports, by unicast and multicast, then says how many UDP answers came back.
KNOCK = """
import json, socket, sys, time
target, ports = sys.argv[1], json.loads(sys.argv[2])
knocker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
knocker.setblocking(False)
# An RTPS header and an INFO_TS sub-message: the start of every discovery message.
message = b"RTPS\\x02\\x03\\x01\\x10" + bytes(range(12)) + b"\\x09\\x01\\x08\\x00" + bytes(8)
for port in ports:
    for address in (target, "239.255.0.1"):
        try:
            knocker.sendto(message, (address, port))
        except OSError:
            pass
time.sleep(2.0)
answers = 0
try:
    while True:
        knocker.recvfrom(65535)
        answers += 1
except ConnectionRefusedError:
    pass
except BlockingIOError:
    pass
print(json.dumps(answers), flush=True)
"""

ROS_NODE = """
import json, sys, time
import rclpy
rclpy.init()
node = rclpy.create_node(sys.argv[1])
while True:
    rclpy.spin_once(node, timeout_sec=0.3)
    print(json.dumps(sorted(node.get_node_names())), flush=True)
"""

# A participant on an interface, as the bridge has it; says how many readers and writers found it.
ROBOT = """
import json, sys, time
from nfpo_deploy.transport.dds import DdsParticipant
from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowState_
participant = DdsParticipant(sys.argv[1], int(sys.argv[2]))
make = participant.reader if sys.argv[3] == "reader" else participant.writer
end = make("rt/lowstate", LowState_)
while True:
    print(json.dumps(end.matched), flush=True)
    time.sleep(0.3)
"""


@pytest.fixture
def capture(two_hosts, run_program, tools):
    """Everything that the stranger receives, once it is asked for."""
    program = run_program(CAPTURE, "cable0", env=tools.environment("subnet"), prefix=two_hosts.prefix("stranger"))
    assert program.read() == "ready"

    def collect():
        program.tell("stop")
        return program.read()

    return collect


def from_robot_side(packets, two_hosts):
    """UDP and TCP packets that the stack's computer sent."""
    return [p for p in packets if p[0] in (6, 17) and p[1] == two_hosts.address("robot_side")]


def test_the_capture_sees_ros_that_is_not_confined(two_hosts, capture, run_program, tools):
    """The control: with the range SUBNET both hosts find each other, through the same cable and the same capture."""
    near = run_program(ROS_NODE, "near", env=tools.environment("subnet"), prefix=two_hosts.prefix("robot_side"))
    far = run_program(ROS_NODE, "far", env=tools.environment("subnet"), prefix=two_hosts.prefix("stranger"))
    near.read()
    tools.wait_for(lambda: far.read() == ["far", "near"], what="discovery over the cable")
    assert from_robot_side(capture(), two_hosts)


def test_nothing_of_a_simulated_run_leaves_the_host_or_answers(two_hosts, capture, run_program, tools, tmp_path):
    """The whole graph on one host; the other asks, listens, and hears nothing."""
    log = tmp_path / "graph.log"
    domains = [tools.ROBOT_DOMAIN, tools.ROS_DOMAIN]
    arguments = ["sim:=true", f"domain_id:={domains[0]}", f"ros_domain_id:={domains[1]}"]
    command = [
        *two_hosts.prefix("robot_side"),
        sys.executable,
        "-m",
        "nfpo_deploy.cli",
        "launch",
        "go2_walk",
        *arguments,
    ]
    # Without the confinement that the caller's environment would bring along: the graph must do it by itself.
    plain = tools.environment("local")
    plain.pop("ROS_DOMAIN_ID")
    with log.open("w") as output:
        graph = subprocess.Popen(command, env=plain, stdout=output, stderr=subprocess.STDOUT, cwd=tools.REPO)
    try:
        tools.wait_for(lambda: "released the robot's built-in controller" in log.read_text(), 120, "the graph")
        stranger = two_hosts.prefix("stranger")
        asking = tools.environment("subnet") | {"ROS_STATIC_PEERS": two_hosts.address("robot_side")}
        node = run_program(ROS_NODE, "far", env=asking, prefix=stranger)
        ports = [7400 + 250 * domain + i for domain in domains for i in range(60)]
        knock = run_program(KNOCK, two_hosts.address("robot_side"), json.dumps(ports), env=asking, prefix=stranger)
        answers = knock.read()
        seen = [node.read() for _ in range(10)]
    finally:
        graph.send_signal(signal.SIGINT)
        graph.wait(60)
    assert answers == 0
    assert all(names == ["far"] for names in seen)
    sent = from_robot_side(capture(), two_hosts)
    assert not sent, sent[:20]


def drops(program, tools):
    """Packets that the kernel dropped, by port of the sockets that are bound to 0.0.0.0."""
    return {s.port: s.drops for s in tools.sockets_of(program.pid) if s.address == "0.0.0.0"}


def test_the_robots_dds_on_the_loopback_interface_is_deaf_to_other_hosts(two_hosts, run_program, tools):
    """Cyclone DDS binds 0.0.0.0; what comes over the cable is dropped before it reaches the library."""
    environment, inside = tools.environment("confined"), two_hosts.prefix("robot_side")
    robot = run_program(ROBOT, "lo", tools.ROBOT_DOMAIN, "reader", env=environment, prefix=inside)
    robot.read()
    ports = json.dumps(sorted(drops(robot, tools)))
    assert run_program(KNOCK, "127.0.0.1", ports, env=environment, prefix=inside).read() == 0
    before = drops(robot, tools)
    assert before and set(before.values()) == {0}
    target = two_hosts.address("robot_side")
    far = run_program(KNOCK, target, ports, env=environment, prefix=two_hosts.prefix("stranger"))
    assert far.read() == 0
    after = drops(robot, tools)
    assert after.keys() == before.keys() and all(count >= 1 for count in after.values()), after


def test_the_robots_interface_is_heard_and_no_other(two_hosts, run_program, tools):
    """On the interface to a robot: the robot and this host's own processes are heard, another network is not."""
    environment, domain = tools.environment("confined"), tools.ROBOT_DOMAIN
    inside, outside = two_hosts.prefix("robot_side"), two_hosts.prefix("stranger")
    reader = run_program(ROBOT, "cable0", domain, "reader", env=environment, prefix=inside)
    own = run_program(ROBOT, "cable0", domain, "writer", env=environment, prefix=inside)
    run_program(ROBOT, "cable0", domain, "writer", env=environment, prefix=outside)
    tools.wait_for(lambda: reader.read() == 2, what="a writer on each host")
    # It shares the multicast ports, and a packet to one address reaches one socket only.
    own.kill()
    before = drops(reader, tools)
    assert len(before) >= 3 and set(before.values()) == {0}
    target = two_hosts.address("robot_side", "cable1")
    run_program(KNOCK, target, json.dumps(sorted(before)), env=environment, prefix=outside).read()
    after = drops(reader, tools)
    assert all(after[port] >= 1 for port in before), after
