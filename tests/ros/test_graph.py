import re

import pytest
import rclpy
import yaml

from nfpo_deploy.errors import GraphError, PolicyError
from nfpo_deploy.graph import GUARDS, NODES, build_graph, resolve_policy
from nfpo_deploy.graph_arguments import GRAPHS, parse_arguments, show_arguments
from nfpo_deploy.ros.composed import NODES as NODE_TYPES
from nfpo_deploy.ros.profiles import discovery_environment
from robots.loader import ROBOTS_DIR, RobotSpecError, load_robot

SIM = {"sim": "true", "policy": "none"}
CONFIG = ROBOTS_DIR.parent / "ros2_ws" / "src" / "nfpo_deploy" / "config" / "go2_walk.yaml"


def build(**values):
    return build_graph("go2_walk", {**SIM, **values}, environment={})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sim": "perhaps"}, "sim must be true or false, got 'perhaps'"),
        ({"spread_cores": "all"}, "spread_cores must be true, false or auto, got 'all'"),
        ({"interface": "eth0"}, "interface:=eth0 with sim:=true"),
        ({"sim": "false"}, "interface is required for a real robot; this computer has"),
        ({"sim": "false", "interface": "nosuch0"}, "interface 'nosuch0' does not exist; this computer has"),
        ({"sim": "false", "interface": "lo", "video": "a.mp4"}, "video:=a.mp4 belongs to the simulator"),
        ({"domain_id": "42"}, "ros_domain_id and domain_id are both 42"),
        ({"ros_domain_id": "233"}, "ros_domain_id must be a whole number from 0 to 232, got '233'"),
        ({"domain_id": "one"}, "domain_id must be a whole number"),
        ({"realtime_priority": "99"}, "realtime_priority must be a whole number from 0 to 98"),
        ({"log_level": "loud"}, "log_level must be"),
        ({"params_file": "/nowhere/p.yaml"}, "params_file: no file at /nowhere/p.yaml"),
        ({"record": "/nowhere/r.npz"}, "record: folder /nowhere does not exist"),
        ({"sim_options": "--push '1"}, "sim_options"),
        ({"intreface": "lo"}, "unknown argument 'intreface' of go2_walk; did you mean 'interface'? Known: sim,"),
    ],
)
def test_refuses_bad_arguments(values, message):
    with pytest.raises(GraphError) as error:
        build(**values)
    assert message in str(error.value)


def test_refuses_unknown_robots_policies_and_middleware(tmp_path):
    with pytest.raises(RobotSpecError, match="unknown robot 'go9'"):
        build(robot="go9")
    with pytest.raises(PolicyError, match="no policy at .*/policies/gallop/policy.onnx; policies of go2"):
        build(policy="gallop")
    with pytest.raises(PolicyError, match="no policy at /nowhere/p.onnx"):
        resolve_policy("/nowhere/p.onnx", load_robot("go2"))
    with pytest.raises(PolicyError, match="File name too long"):
        resolve_policy("x" * 1000, load_robot("go2"))
    with pytest.raises(GraphError, match="second Cyclone DDS"):
        build_graph("go2_walk", SIM, environment={"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"})


@pytest.mark.parametrize("words", [["sim"], [":=true"], ["sim:=true", "sim:=false"], ["policy:=" + "x" * 5000]])
def test_refuses_malformed_words(words):
    with pytest.raises(GraphError):
        parse_arguments("go2_walk", words)


def test_every_argument_is_described_with_its_default():
    text = show_arguments("go2_walk")
    for argument in GRAPHS["go2_walk"]:
        pattern = rf"    '{argument.name}':\n        {re.escape(argument.description)}\n        \(default: '"
        assert re.search(pattern + re.escape(argument.default) + r"'\)", text)


def test_every_robot_folder_has_its_graph_and_its_launch_file():
    robots = [path.parent.name for path in ROBOTS_DIR.glob("*/robot.yaml")]
    installed = ROBOTS_DIR.parent / "ros2_ws" / "install" / "nfpo_deploy" / "share" / "nfpo_deploy" / "launch"
    assert set(GRAPHS) == {f"{robot}_walk" for robot in robots}
    assert {path.name for path in installed.iterdir()} == {f"{robot}_walk.launch.py" for robot in robots}
    for robot in robots:
        bridge = build_graph(f"{robot}_walk", SIM, environment={}).process("sdk_bridge")
        assert bridge.parameters["sdk_bridge"]["robot"] == robot


def test_simulated_graph_stays_on_this_host_and_stops_the_bridge_first():
    graph = build(domain_id="7", ros_domain_id="8", sim_options="--push '5,0.5,0'")
    assert [process.name for process in graph.processes][0] == "robot_sim"
    simulator = graph.process("robot_sim").arguments
    assert simulator[simulator.index("--interface") + 1] == "lo"
    assert simulator[simulator.index("--domain-id") + 1] == "7" and simulator[-2:] == ("--push", "5,0.5,0")
    assert graph.environment["ROS_DOMAIN_ID"] == "8"
    assert discovery_environment({}).items() <= graph.environment.items()
    ranks = {process.name: process.stop_rank for process in graph.processes}
    assert ranks.pop("sdk_bridge") < min(ranks.values())
    assert ranks["robot_sim"] == max(ranks.values())
    # What guards the robot stays until nothing commands it any more.
    assert all(ranks[name] > max(ranks[node] for node in ranks if node in NODES) for name in GUARDS)


def test_guards_are_two_for_the_same_robot_on_the_same_wire():
    graph = build(composed="true", domain_id="7")
    for rank, name in enumerate(GUARDS):
        words = graph.process(name).arguments
        options = dict(zip(words[::2], words[1::2], strict=True))
        assert options == {"--robot": "go2", "--interface": "lo", "--domain-id": "7", "--rank": str(rank)}


@pytest.mark.parametrize("composed", ["false", "true"])
def test_ros_reads_the_parameters_as_they_were_meant(composed):
    graph = build(composed=composed, robot="go2", domain_id="7", release_mode="no")
    process = graph.process("composed" if composed == "true" else "sdk_bridge")
    context = rclpy.Context()
    rclpy.init(context=context, args=["node", "--ros-args", *process.ros_arguments()], domain_id=25)
    try:
        node = rclpy.create_node("sdk_bridge", context=context, automatically_declare_parameters_from_overrides=True)
        values = {name: node.get_parameter(name).value for name in ("interface", "domain_id", "release_mode", "robot")}
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    assert values == {"interface": "lo", "domain_id": 7, "release_mode": False, "robot": "go2"}


def test_policy_none_leaves_its_node_out():
    others = {"robot_sim", "flight_recorder", "operator", *GUARDS}
    assert {process.name for process in build().processes} == {*NODES, *others} - {"policy_inference"}
    assert build(composed="true").process("composed").arguments == ("--without", "policy_inference")


def test_only_log_and_web_page_may_end_without_ending_the_graph():
    graph = build(web="true")
    assert {process.name for process in graph.processes if not process.vital} == {"flight_recorder", "web"}


def test_config_file_states_the_real_defaults():
    config = yaml.safe_load(CONFIG.read_text())
    by_argument = {"robot", "autostart", "interface", "domain_id", "release_mode", "restore_mode", "policy"}
    by_argument |= {"simulated", "clearance_override"}
    for node in NODE_TYPES:
        declared = {d.name: d.default for d in node.PARAMETERS if d.name not in by_argument}
        assert config.get(node.NAME, {"ros__parameters": {}})["ros__parameters"] == declared, node.NAME
