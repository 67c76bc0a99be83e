"""ROS 2 is on the loopback interface only, and still finds everybody who should be found."""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from nfpo_deploy.ros.profiles import PROFILE, PROFILE_VARIABLES, discovery_environment

# A node with a topic, a counter of what it hears on another, and a service.
NODE = """
import json, sys, time
import rclpy
from std_msgs.msg import UInt64
from std_srvs.srv import Trigger

name, other, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
contexts = [rclpy.Context() for _ in range(count)]
for context in contexts:
    rclpy.init(context=context)
nodes = [rclpy.create_node(f"{name}_{i}", context=context) for i, context in enumerate(contexts)]
node, heard, answers = nodes[0], [0], [0]
publisher = node.create_publisher(UInt64, f"/{name}", 1)
node.create_subscription(UInt64, f"/{other}", lambda m: heard.__setitem__(0, heard[0] + 1), 1)
node.create_service(Trigger, f"/{name}/ask", lambda request, response: response)
client = node.create_client(Trigger, f"/{other}/ask")
node.create_timer(0.02, lambda: publisher.publish(UInt64()))
future = None
executor = rclpy.executors.SingleThreadedExecutor(context=contexts[0])
executor.add_node(node)
last = 0.0
while True:
    executor.spin_once(timeout_sec=0.1)
    if future is None and client.service_is_ready():
        future = client.call_async(Trigger.Request())
    if future is not None and future.done():
        answers[0], future = answers[0] + 1, None
    if time.monotonic() - last > 0.3:
        last = time.monotonic()
        seen = [sorted(n.get_node_names()) for n in nodes]
        print(json.dumps({"heard": heard[0], "answers": answers[0], "seen": seen}), flush=True)
"""


def latest(program, condition, timeout=60.0):
    """Read reports until one fulfils the condition."""
    import time

    end = time.monotonic() + timeout
    while not condition(report := program.read(timeout)):
        assert time.monotonic() < end, json.dumps(report)[:500]
    return report


def mapped_shared_memory(pid: int) -> set[str]:
    words = Path(f"/proc/{pid}/maps").read_text().split()
    return {word for word in words if word.startswith("/dev/shm/") and "lttng" not in word}


# --- the environment ------------------------------------------------------------------------------


def test_by_default_the_profile_decides_and_its_file_exists():
    variables = discovery_environment({})
    assert variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SYSTEM_DEFAULT"
    assert variables["ROS_LOCALHOST_ONLY"] == "0"
    assert variables["FASTDDS_DEFAULT_PROFILES_FILE"] == str(PROFILE)
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in variables, "Kilted warns of it in every process"
    assert discovery_environment({"ROS_DISTRO": "jazzy"})["FASTRTPS_DEFAULT_PROFILES_FILE"] == str(PROFILE)
    assert PROFILE.is_file() and PROFILE.is_absolute()


@pytest.mark.parametrize("wish", ["LOCALHOST", "localhost", ""])
def test_what_sets_localhost_is_confined_too(wish):
    assert discovery_environment({"ROS_AUTOMATIC_DISCOVERY_RANGE": wish}) == discovery_environment({})


def test_a_confined_environment_stays_so():
    first = discovery_environment({"ROS_LOCALHOST_ONLY": "1", "ROS_DISCOVERY_SERVER": "10.0.0.1:11811"})
    assert discovery_environment(first) == first == discovery_environment({})


@pytest.mark.parametrize("wish", ["SUBNET", "OFF", "SYSTEM_DEFAULT"])
def test_who_asks_for_another_range_gets_it(wish):
    asked = {"ROS_AUTOMATIC_DISCOVERY_RANGE": wish}
    assert discovery_environment(asked) == asked


def test_a_profile_of_the_users_own_is_left_alone():
    for name in PROFILE_VARIABLES:
        assert discovery_environment({name: "/etc/mine.xml"}) == {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def test_other_middlewares_get_the_range_only():
    asked = {"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}
    assert discovery_environment(asked) == {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    assert discovery_environment(asked | {"ROS_DISTRO": "humble"})["ROS_LOCALHOST_ONLY"] == "1"


# --- what the kernel says -------------------------------------------------------------------------


def test_a_confined_node_has_loopback_sockets_only_and_no_shared_memory(run_program, tools):
    program = run_program(NODE, "a", "b", 2, env=tools.environment("confined"))
    program.read()
    sockets = tools.sockets_of(program.pid)
    assert len(sockets) >= 6 and all(s.loopback for s in sockets), sockets
    assert not {path for path in mapped_shared_memory(program.pid) if "fastdds" in path or "fastrtps" in path}


def test_without_the_profile_the_range_localhost_is_not_enough(run_program, tools):
    """Why the profile is there; when this fails, rmw_fastrtps has learnt to do without it."""
    program = run_program(NODE, "a", "b", 1, env=tools.environment("local"))
    program.read()
    assert any(s.address == "0.0.0.0" for s in tools.sockets_of(program.pid))


def test_sixteen_participants_find_each_other(run_program, tools):
    programs = [run_program(NODE, name, "none", 8, env=tools.environment("confined")) for name in ("a", "b")]
    expected = sorted(f"{name}_{i}" for name in ("a", "b") for i in range(8))
    for program in programs:
        latest(program, lambda report: all(seen == expected for seen in report["seen"]))


@pytest.mark.parametrize("tool", ["confined", "local"])
def test_a_tool_on_this_host_can_listen_speak_and_call(run_program, tools, tool):
    """ "local" is a `ros2` command in a terminal that knows nothing of the profile."""
    node = run_program(NODE, "node", "tool", 1, env=tools.environment("confined"))
    other = run_program(NODE, "tool", "node", 1, env=tools.environment(tool))
    for program in (node, other):
        latest(program, lambda report: report["heard"] > 20 and report["answers"] > 5)


def test_killed_processes_hurt_nobody(run_program, tools):
    """SIGKILL while publishing, again and again: the survivor hears each newcomer, as the first one."""
    survivor = run_program(NODE, "survivor", "talker", 1, env=tools.environment("confined"))
    before = set(os.listdir("/dev/shm"))
    for _ in range(6):
        heard = survivor.read()["heard"]
        talker = run_program(NODE, "talker", "survivor", 1, env=tools.environment("confined"))
        latest(survivor, lambda report, heard=heard: report["heard"] > heard + 10)
        latest(talker, lambda report: report["answers"] > 1)
        talker.kill()
    left = {name for name in set(os.listdir("/dev/shm")) - before if "fastdds" in name}
    assert not {f"/dev/shm/{name}" for name in left} & mapped_shared_memory(survivor.pid)


# --- the real graph -------------------------------------------------------------------------------


@pytest.fixture
def graph(ros_helpers, tools):
    graph = ros_helpers.RunningGraph(domain_id=str(tools.ROBOT_DOMAIN), ros_domain_id=str(tools.ROS_DOMAIN))
    yield graph
    graph.stop()


def test_the_graph_listens_on_the_loopback_interface_only(graph, ros_helpers, tools):
    """Every process of the graph. Cyclone DDS binds 0.0.0.0; test_two_hosts.py proves that it is deaf all the same."""
    client = ros_helpers.Client(tools.ROS_DOMAIN)
    try:
        client.wait(lambda: {"status", "estimate"} <= set(client.newest), timeout=90.0, what="the graph")
    finally:
        client.close()
    first = 7400 + 250 * tools.ROBOT_DOMAIN
    robot_ports = range(first, first + 250)
    checked = 0
    for process in graph.supervisor.graph.processes:
        for found in tools.sockets_of(graph.supervisor.process_id(process.name)):
            assert found.loopback or found.port in robot_ports, f"{process.name}: {found}"
            checked += 1
    assert checked >= 4 * len(graph.supervisor.graph.processes)
