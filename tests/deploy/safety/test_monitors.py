"""Every monitor on both sides of its threshold, in every mode; the table of reactions is written out once more here."""

import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest

from nfpo_deploy.safety.monitors import MONITORS, Level
from nfpo_deploy.types import GatePhase, Mode
from robots.loader import load_robot
from robots.mjcf import build_model
from sim2real_checks.robot_sim.remote import Remote

SPEC = load_robot("go2")
SAFETY = SPEC.safety
NAN = math.nan
D, S, R, W, B, F = Mode.DAMP, Mode.STAND, Mode.READY, Mode.WALK, Mode.SIT, Mode.FAULT

# What follows in DAMP, STAND, READY, WALK, SIT: "F" fault, "E" emergency stop, "S" stop and sit, "s" stop and stand.
REACTIONS = {
    "remote_estop": "EEEEE",
    "state_age": "-FFFF", "state_values": "-FFFF", "gate": "-FFFF", "bridge_age": "-FFFF", "tilt": "-FFFF",
    "foreign_lowcmd": "-FFFF", "guard_active": "-FFFF", "obedience": "FFFFF", "height": "--FF-",
    "joint_position": "--FFF", "joint_velocity": "-FFFF", "joint_torque": "-FFFF",
    "command_age": "---F-", "command_values": "---F-", "transition": "-FF-F",
    "guards": "-SSSS", "bridge_ending": "-SSSS", "network": "-SSSS", "clearance": "-SSSS", "motor_temperature": "-SSSS",
    "battery": "-SSSS", "operator_gone": "--S--",
    "estimate_age": "---s-", "estimate_values": "---s-", "observation": "---s-", "policy_output": "---s-",
    "operator": "---s-", "state_rate": "---s-", "command_rate": "---s-", "bridge_rate": "---s-",
    "state_jitter": "-----", "estimate_jitter": "-----", "command_jitter": "-----", "loop_jitter": "-----",
    "inference": "-----", "watchdog_rate": "-----", "permit_delivery": "-----", "overruns": "-----",
    "wire_errors": "-----",
}  # fmt: skip
NEEDED = {
    "arm": "remote_estop state_age state_values gate bridge_age foreign_lowcmd guard_active obedience tilt "
    "joint_velocity guards bridge_ending network clearance motor_temperature battery",
}
NEEDED["walk"] = NEEDED["arm"] + (
    " joint_position joint_torque command_age command_values estimate_age estimate_values observation policy_output "
    "state_rate command_rate bridge_rate"
)


def at(index, value, base=0.0):
    array = np.array(base) * np.ones(SPEC.num_joints)
    array[index] = value
    return array


def rolled(angle):
    return {"quat_wxyz": np.array([math.cos(angle / 2), math.sin(angle / 2), 0.0, 0.0])}


def silence(stream, timeout):
    """Inside: as long as the timeout. Outside: longer than that, one tick of slack, and one to notice."""

    def provoke(dog, outside):
        dog.silent = {stream}
        dog.ticks(round(timeout * 100) + (3 if outside else 0))

    return provoke


def after(duration, attribute, **changes):
    """A condition that may last for `duration` s. Inside: exactly so long. Outside: one tick longer."""

    def provoke(dog, outside):
        setattr(dog, attribute, {**getattr(dog, attribute), **changes})
        # The first tick shows it, those after it show that it lasts.
        dog.ticks(1 + round(duration * 100) + outside)

    return provoke


def policy_says(timeout, **changes):
    """What the policy reports with its commands, at half the rate of the ticks."""

    def provoke(dog, outside):
        dog.policy_says = {**dog.policy_says, **changes}
        seq = dog.seq
        while dog.seq == seq:
            dog.tick()
        dog.ticks(round(timeout * 100) + (1 if outside else -1))

    return provoke


def at_once(attribute, inside, outside):
    """A value: each side for half a second."""

    def provoke(dog, beyond):
        setattr(dog, attribute, {**getattr(dog, attribute), **(outside if beyond else inside)})
        dog.ticks(50)

    return provoke


def lowest_pose(clearance):
    """Pose whose trunk is `clearance` m above its feet, level: on the way from crouch to stand."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        pose = SPEC.crouch_pose + middle * (SPEC.default_pose - SPEC.crouch_pose)
        low, high = (low, middle) if mujoco_height(pose, (1, 0, 0, 0)) > clearance else (middle, high)
    return pose


MODEL = build_model("go2", collision="full", timestep=0.001)
DATA = mujoco.MjData(MODEL)
JOINTS = [int(MODEL.joint(name).qposadr[0]) for name in SPEC.joint_names]
FEET = [MODEL.geom(foot.name).id for foot in SPEC.feet]


def mujoco_height(pose, quat):
    """Truth of the physics engine: trunk above the lowest point of the feet's spheres."""
    DATA.qpos[:7] = [0, 0, 0, *quat]
    DATA.qpos[JOINTS] = pose
    mujoco.mj_kinematics(MODEL, DATA)
    return -min(DATA.geom_xpos[foot][2] - MODEL.geom_size[foot][0] for foot in FEET)


def too_low(dog, outside):
    dog.state = {"q": lowest_pose(SAFETY.height - 0.005)}
    dog.ticks(1 + round(SAFETY.height_duration * 100) + outside)


def disobey(dog, outside):
    """TRACKING where the bridge may not; the wrong permit where it may."""
    mode = dog.watchdog.mode
    dog.status = {"permit_mode": R if mode is W else W, "phase": GatePhase.TRACKING}
    dog.ticks(round((SAFETY.permit_timeout + SAFETY.bridge_status_timeout) * 100) + (2 if outside else 0))


def foreign(dog, outside):
    dog.status = {"foreign_lowcmd": int(outside)}
    dog.ticks(2)


def slow_ramp(dog, outside):
    ramps = {S: SAFETY.stand_duration + SAFETY.pose_timeout, R: SAFETY.settle_duration, B: SAFETY.sit_duration}
    limit = ramps.get(dog.watchdog.mode, 1.0) / SAFETY.rate_stop + 1.0
    if dog.watchdog.mode is R:
        # The mode has lasted for a while before the ramp is seen: the age of the mode decides.
        dog.watchdog._mode_ns = dog.now
    if dog.watchdog.mode in ramps:
        dog.status = {"phase": GatePhase.RAMPING}
    # The mode may have lasted for 0.2 s before.
    dog.run(limit + (0.05 if outside else -0.25))


def operator_leaves(dog, outside):
    if dog.watchdog.mode is R:
        assert dog.watchdog.request("WALK", dog.now)[0]
        dog.run(0.5)
        assert dog.watchdog.request("READY", dog.now)[0]
        dog.run(0.1)
    dog.silent = {"operator"}
    if dog.watchdog.mode in (D, R):
        dog.run(SAFETY.operator_sit + (0.02 if outside else -0.02))
    else:
        # Walking and ramps end by other monitors long before.
        dog.run(1.5)


def operator_pauses(dog, outside):
    dog.silent = {"operator"}
    dog.run(SAFETY.operator_abandon + (0.02 if outside else -0.02))


def command_loss(dog, outside):
    """Too few commands, none of them late."""
    dog.command_every = 5 if outside else 3
    dog.run(1.3)


def lowstate_loss(dog, outside):
    dog.lowstates_per_tick = 2 if outside else 3
    dog.run(1.1)


def press(dog, outside):
    """The two buttons; inside: each alone, and both sticks."""
    if outside:
        dog.state = {"wireless_remote": Remote(buttons=frozenset({"L2", "B"})).to_bytes()}
        dog.ticks(1)
        return
    for buttons in ({"L2"}, {"B"}, {"L2", "A"}, {"R2", "B"}, {"L1", "B"}):
        dog.state = {"wireless_remote": Remote(ly=1.0, rx=-1.0, buttons=frozenset(buttons)).to_bytes()}
        dog.ticks(2)


TRIP = SAFETY.joint_trip_duration
OVER_SPEED = SAFETY.joint_velocity * SPEC.velocity_limit[2]
EDGES = {
    "remote_estop": press,
    "state_age": silence("state", SAFETY.state_timeout),
    "state_values": at_once("state", {"q": SPEC.default_pose}, {"q": at(3, NAN)}),
    "gate": at_once("status", {"reason": "x"}, {"tripped": True, "reason": "torque"}),
    "bridge_age": silence("status", SAFETY.bridge_status_timeout),
    "foreign_lowcmd": foreign,
    "guard_active": at_once("status", {"guard_active": False}, {"guard_active": True}),
    "obedience": disobey,
    "tilt": at_once("state", rolled(SAFETY.tilt - 1e-3), rolled(SAFETY.tilt + 1e-3)),
    "height": too_low,
    "joint_position": after(TRIP, "state", q=at(0, SPEC.position_upper[0] + 0.021, SPEC.default_pose)),
    "joint_velocity": after(TRIP, "state", dq=at(2, -OVER_SPEED - 0.01)),
    "joint_torque": after(SAFETY.torque_duration, "state", tau_est=at(0, SPEC.torque_limit[0])),
    "command_age": silence("command", SAFETY.command_timeout),
    "command_values": at_once("command", {"q": SPEC.default_pose}, {"q": at(1, NAN)}),
    "transition": slow_ramp,
    "guards": at_once("status", {"guards_alive": 1}, {"guards_alive": 0}),
    "bridge_ending": at_once("status", {}, {"stopping": True}),
    "network": at_once("status", {"network_problem": ""}, {"network_problem": "Cyclone DDS 11 at 10.0.0.7"}),
    "clearance": at_once(
        "status", {"clearance_override": "on the crane"}, {"clearance_problem": "there is no policy.clearance.json"}
    ),
    "motor_temperature": at_once(
        "state", {"temperature": at(4, SAFETY.motor_temperature, 40.0)},
        {"temperature": at(4, SAFETY.motor_temperature + 0.1, 40.0)},
    ),
    "battery": at_once("state", {"battery_soc": SAFETY.battery_soc}, {"battery_soc": SAFETY.battery_soc - 0.1}),
    "operator_gone": operator_leaves,
    "estimate_age": silence("estimate", SAFETY.estimate_timeout),
    "estimate_values": at_once(
        "estimate", {"lin_vel_std": np.array([0.1, SAFETY.estimate_std, 0.1])},
        {"lin_vel_std": np.array([0.1, SAFETY.estimate_std + 1e-3, 0.1])},
    ),
    "observation": policy_says(SAFETY.observation_timeout, observation_ok=False),
    "policy_output": policy_says(SAFETY.output_timeout, output_ok=False),
    "operator": operator_pauses,
    "state_rate": lowstate_loss,
    "command_rate": command_loss,
    "bridge_rate": at_once(
        "status", {"loop_rate": SAFETY.rate_stop * 500}, {"loop_rate": SAFETY.rate_stop * 500 - 0.1}
    ),
}  # fmt: skip
WORDS = {
    "remote_estop": "emergency stop by remote", "foreign_lowcmd": "LowCmds of another program",
    "guard_active": "a guard damps", "obedience": "disobedient bridge: TRACKING under a permit of",
    "height": "below 0.15 for 0.11 s", "guards": "0 of 2 guards alive", "network": "Cyclone DDS 11 at 10.0.0.7",
    "clearance": "there is no policy.clearance.json",
    "operator_gone": "no velocity command for", "policy_output": "policy output outside training",
    "bridge_ending": "the bridge is ending",
}  # fmt: skip


def expected_mode(name, mode):
    reaction = REACTIONS[name][list(Mode).index(mode)]
    if reaction in "EF":
        return F
    return {"-": mode, "s": R, "S": B}[reaction]


def test_the_table_here_is_complete():
    names = [monitor.name for monitor in MONITORS]
    assert len(set(names)) == len(names) and set(names) == set(REACTIONS)
    reacting = {name for name, reactions in REACTIONS.items() if reactions != "-----"}
    assert reacting == set(EDGES), "each one that reacts is provoked below"


@pytest.mark.parametrize("mode", [D, S, R, W, B])
@pytest.mark.parametrize("name", list(EDGES))
def test_inside_the_threshold_nothing_happens(dog, name, mode):
    dog.to(mode)
    EDGES[name](dog, False)
    assert dog.watchdog.mode is mode, dog.watchdog.reason


@pytest.mark.parametrize("mode", [D, S, R, W, B])
@pytest.mark.parametrize("name", list(EDGES))
def test_outside_the_threshold_the_reaction_is_that_of_the_mode(dog, name, mode):
    dog.to(mode)
    EDGES[name](dog, True)
    first = dog.permit.reason
    # A stop goes through READY while the bridge settles.
    dog.ticks(3)
    expected = expected_mode(name, mode)
    if name in ("state_rate", "bridge_rate", "command_rate") and mode is W:
        assert dog.watchdog.mode is R
    assert dog.watchdog.mode is expected, dog.watchdog.reason
    if expected is not mode:
        assert WORDS.get(name, name) in first and (name in first or name == "remote_estop"), first


@pytest.mark.parametrize("purpose", ["arm", "walk"])
@pytest.mark.parametrize("name", list(EDGES))
def test_what_is_wrong_refuses_what_needs_it(dog, name, purpose):
    """In DAMP and READY; a monitor that reacts by leaving that mode has refused in its own way."""
    dog.to(D if purpose == "arm" else R)
    EDGES[name](dog, True)
    ok, message = dog.watchdog.arm(dog.now) if purpose == "arm" else dog.watchdog.request("WALK", dog.now)
    if dog.watchdog.mode is not (D if purpose == "arm" else R) and not ok:
        return
    assert ok is (name not in NEEDED[purpose].split()), message
    if not ok:
        assert f"{name}: " in message


def test_one_guard_of_two_warns_and_refuses_arming_but_not_walking(dog):
    dog.to(R)
    dog.status = {"guards_alive": 1}
    dog.ticks(2)
    assert dog.row("guards").level is Level.WARN and dog.watchdog.mode is R
    assert dog.watchdog.request("WALK", dog.now)[0]
    assert dog.watchdog.request("DAMP", dog.now)[0]
    dog.ticks(2)
    ok, message = dog.watchdog.arm(dog.now)
    assert not ok and "guards: 1 of 2 guards alive" in message
    dog.status = {}
    dog.ticks(2)
    assert dog.watchdog.arm(dog.now)[0]


def test_foreign_commands_matter_for_a_second(dog):
    dog.status = {"foreign_lowcmd": 7}
    dog.to(D)
    assert dog.row("foreign_lowcmd").level is Level.OK, "an old count is no company"
    dog.status = {"foreign_lowcmd": 8}
    dog.run(0.9)
    ok, message = dog.watchdog.arm(dog.now)
    assert not ok and "1 LowCmds of another program" in message
    dog.run(0.2)
    assert dog.watchdog.arm(dog.now)[0]
    # A bridge that started anew counts from zero.
    dog.status = {"foreign_lowcmd": 2}
    dog.run(0.1)
    assert dog.row("foreign_lowcmd").level is Level.OK


# --- warnings ---

WARNINGS = {
    "tilt": at_once("state", rolled(0.69), rolled(0.71)),
    "motor_temperature": at_once(
        "state", {"temperature": at(0, SAFETY.motor_temperature_warning - 0.1, 40.0)},
        {"temperature": at(0, SAFETY.motor_temperature_warning, 40.0)},
    ),
    "battery": at_once(
        "state", {"battery_soc": SAFETY.battery_soc_warning}, {"battery_soc": SAFETY.battery_soc_warning - 0.1}
    ),
    "loop_jitter": at_once(
        "status", {"loop_jitter_p99_ms": SAFETY.loop_jitter_warning * 1e3},
        {"loop_jitter_p99_ms": SAFETY.loop_jitter_warning * 1e3 + 0.01},
    ),
    "permit_delivery": at_once(
        "status", {"permit_age": SAFETY.permit_timeout}, {"permit_age": SAFETY.permit_timeout + 1e-3}
    ),
    "inference": at_once("policy_says", {"inference_ms": 10.0}, {"inference_ms": 10.1}),
    "bridge_rate": at_once("status", {"loop_rate": 450.0}, {"loop_rate": 449.0}),
    "estimate_values": at_once(
        "estimate", {"lin_vel_std": np.full(3, 0.49)}, {"lin_vel_std": np.full(3, 0.51)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", [D, S, R, W, B])
@pytest.mark.parametrize("name", list(WARNINGS))
def test_warnings_warn_and_change_nothing(dog, name, mode):
    dog.to(mode)
    WARNINGS[name](dog, False)
    assert dog.row(name).level is Level.OK and dog.watchdog.mode is mode
    WARNINGS[name](dog, True)
    assert dog.row(name).level is Level.WARN and dog.watchdog.mode is mode


@pytest.mark.parametrize(
    ("name", "status"),
    [("overruns", "loop_overruns"), ("wire_errors", "lowstate_crc_errors"), ("wire_errors", "lowstate_lost")],
)
def test_counters_warn_by_what_was_added_within_a_second(dog, name, status):
    dog.to(W)
    limit = round((1 - SAFETY.rate_warning) * 500)
    dog.status = {status: limit - 1}
    dog.ticks(2)
    assert dog.row(name).level is Level.OK
    dog.status = {status: limit + 1}
    dog.ticks(2)
    assert dog.row(name).level is Level.WARN and str(limit + 1) in dog.row(name).message
    dog.run(1.1)
    assert dog.row(name).level is Level.OK and dog.watchdog.mode is W


@pytest.mark.parametrize(
    ("stream", "timeout"),
    [("state", SAFETY.state_timeout), ("estimate", SAFETY.estimate_timeout), ("command", SAFETY.command_timeout)],
)
def test_gaps_between_messages_warn_before_they_matter_and_are_forgotten(dog, stream, timeout):
    dog.to(W)
    name = f"{stream}_jitter"
    assert dog.row(name).level is Level.OK
    dog.silent = {stream}
    # The longest silence that is not yet stale, with the tick that ends it.
    dog.ticks(round(timeout * 100) - 1)
    dog.silent = set()
    dog.ticks(2)
    assert dog.row(name).level is Level.WARN and dog.watchdog.mode is W
    dog.run(1.1)
    assert dog.row(name).level is Level.OK


def test_own_delay_warns_and_is_not_taken_for_that_of_others(dog):
    """A watchdog that was not scheduled finds nothing new at first: nobody but itself was late."""
    dog.to(W)
    dog.now += 80_000_000
    dog.silent = {"state", "estimate", "command", "status", "operator"}
    assert dog.tick().mode is W
    dog.silent = set()
    assert dog.run(0.1).mode is W
    assert dog.row("watchdog_rate").level is Level.WARN


def test_silence_that_goes_on_after_an_own_delay_is_noticed(dog):
    dog.to(W)
    dog.now += 80_000_000
    dog.silent = {"state"}
    dog.tick()
    assert dog.tick().mode is F


# --- height, against the physics engine ---


@pytest.mark.parametrize("seed", range(5))
def test_height_is_that_of_the_physics_engine_in_any_pose(dog, seed):
    rng = np.random.default_rng(seed)
    quat = rng.normal(size=4)
    # A quaternion may be off by rounding: the height must not scale with it.
    quat *= (1.0 + 0.01 * seed) / np.linalg.norm(quat)
    pose = rng.uniform(SPEC.position_lower, SPEC.position_upper)
    dog.state = {"q": pose, "quat_wxyz": quat}
    dog.tick()
    truth = mujoco_height(pose, quat / np.linalg.norm(quat))
    assert dog.row("height").values["seen"].split() == [f"{truth:.6g}", "m"]


def test_threshold_lies_well_between_standing_and_folded_legs():
    standing, folded = (mujoco_height(pose, (1, 0, 0, 0)) for pose in (SPEC.default_pose, SPEC.crouch_pose))
    assert standing == pytest.approx(SPEC.base_height, abs=0.02)
    assert folded + 0.02 < SAFETY.height < standing - 0.1


def test_robot_on_its_back_has_no_height(dog):
    dog.state = {"quat_wxyz": np.array([0.0, 1.0, 0.0, 0.0])}
    dog.ticks(3)
    row = dog.row("height")
    assert row.level is Level.WARN and "trunk -0.2" in row.message


def test_deep_landings_are_no_collapse(dog):
    dog.to(W)
    low = {"q": lowest_pose(SAFETY.height - 0.01)}
    for _ in range(20):
        dog.state = low
        dog.ticks(round(SAFETY.height_duration * 100))
        dog.state = {}
        dog.tick()
    assert dog.watchdog.mode is W


def test_trunk_just_above_the_threshold_is_well(dog):
    dog.to(W)
    dog.state = {"q": lowest_pose(SAFETY.height + 0.005)}
    dog.run(2.0)
    assert dog.watchdog.mode is W and dog.row("height").level is Level.OK


def test_robot_spec_changes_the_threshold(spec, dog):
    """The numbers come from the spec: another one, another behaviour."""
    low = replace(spec, safety=replace(spec.safety, height=0.05, height_duration=0.3))
    rig = type(dog)(low)
    rig.to(W)
    rig.state = {"q": spec.crouch_pose}
    assert rig.run(1.0).mode is W
