"""Remote bytes by their documented offsets; options that are refused."""

import struct
from pathlib import Path

import pytest

from sim2real_checks.robot_sim import Push, Remote, SensorNoise, SimConfig, SimConfigError
from sim2real_checks.robot_sim.remote import parse_remote_event

# Byte and bit of each button in LowState.wireless_remote, as Unitree's joystick structure has them.
BITS = {
    "R1": (2, 0), "L1": (2, 1), "Start": (2, 2), "Select": (2, 3), "R2": (2, 4), "L2": (2, 5), "F1": (2, 6),
    "A": (3, 0), "B": (3, 1), "X": (3, 2), "Y": (3, 3), "Up": (3, 4), "Right": (3, 5), "Down": (3, 6), "Left": (3, 7),
}  # fmt: skip


@pytest.mark.parametrize("button", BITS)
def test_button_sets_its_bit(button):
    frame = Remote(buttons=frozenset({button})).to_bytes()
    byte, bit = BITS[button]
    assert frame[byte] == 1 << bit
    assert frame[5 - byte] == 0


def test_stick_offsets():
    frame = Remote(lx=0.1, ly=0.2, rx=0.3, ry=0.4).to_bytes()
    assert len(frame) == 40
    values = {name: struct.unpack_from("<f", frame, offset)[0]
              for name, offset in (("lx", 4), ("rx", 8), ("ry", 12), ("l2", 16), ("ly", 20))}  # fmt: skip
    assert values == pytest.approx({"lx": 0.1, "rx": 0.3, "ry": 0.4, "l2": 0.0, "ly": 0.2})


def test_remote_events_are_parsed():
    event = parse_remote_event("3.5,L2+B,ly=-0.5")
    assert event.time == 3.5
    assert event.remote == Remote(ly=-0.5, buttons=frozenset({"L2", "B"}))
    assert parse_remote_event("6").remote == Remote()


@pytest.mark.parametrize("text", ["", "now", "1,Z", "1,lz=0.5", "1,lx=2", "1,lx=nan"])
def test_unreadable_remote_event_is_refused(text):
    with pytest.raises(ValueError, match=r"remote|button|stick"):
        parse_remote_event(text)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timestep": 0.002}, "timestep"),
        ({"timestep": 0.0007}, "timestep"),
        ({"timestep": 0.0}, "timestep"),
        ({"lowcmd_timeout": 0.0}, "lowcmd_timeout"),
        ({"lowcmd_timeout": -1.0}, "lowcmd_timeout"),
        ({"duration": 0.0}, "duration"),
        ({"command_latency": -0.01}, "command_latency"),
        ({"sensor_latency": float("nan")}, "sensor_latency"),
        ({"foot_friction": 0.0}, "foot_friction"),
        ({"motor_strength": float("inf")}, "motor_strength"),
        ({"initial_pose": "handstand"}, "initial_pose"),
        ({"battery_soc": 101}, "battery_soc"),
        ({"record_hz": 5000.0}, "record_hz"),
        ({"record": Path("run.txt")}, "record"),
        ({"noise": SensorNoise(q=-1.0)}, "noise.q"),
        ({"pushes": (Push(1.0, float("nan"), 0.0),)}, "pushes"),
        ({"builtin_mode": "sport"}, "builtin_mode"),
    ],
)
def test_option_out_of_range_is_refused_by_name(options, named):
    with pytest.raises(SimConfigError, match=f"^{named} must be"):
        SimConfig(**options)
