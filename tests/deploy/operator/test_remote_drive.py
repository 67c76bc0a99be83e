"""The wireless remote as an operator: bytes packed by hand here, as the wire facts state them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.operator.remote_drive import FROZEN_S, GAP_S, RemoteDrive
from nfpo_deploy.operator.requests import Request
from nfpo_deploy.operator.speeds import Speeds
from nfpo_deploy.types import VelocityCommand

SPEEDS = Speeds(forward=0.6, backward=0.4, sideways=0.3, turn=0.8)
# Byte 2 and 3 of the frame, bit 0 first.
BITS = {name: bit for bit, name in enumerate("R1 L1 Start Select R2 L2 F1 F2 A B X Y Up Right Down Left".split())}
STEP = 0.025
LINK_TIMEOUT = 0.5
GONE = bytes(40)


def frame(*buttons: str, lx: float = 0.0, ly: float = 0.0, rx: float = 0.0, ry: float = 0.0) -> bytes:
    data = bytearray(40)
    data[0:2] = b"\x55\x51"
    data[2:4] = sum(1 << BITS[name] for name in buttons).to_bytes(2, "little")
    for offset, value in ((4, lx), (8, rx), (12, ry), (20, ly)):
        data[offset : offset + 4] = struct.pack("<f", value)
    return bytes(data)


class Hand:
    """Steps a RemoteDrive 40 times a second, a new LowState at each step."""

    def __init__(self, **options: float) -> None:
        self.drive = RemoteDrive(SPEEDS, LINK_TIMEOUT, **options)
        self.now, self.tick = 10.0, 0
        self.requests: list[Request] = []
        self.notices: list[str] = []

    def step(self, data: bytes | None, new_tick: bool = True):
        self.now += STEP
        self.tick += 12 * new_tick
        out = self.drive.step(data, self.tick, round(self.now * 1e9))
        self.requests += out.requests
        if out.notice:
            self.notices.append(out.notice)
        return out

    def hold(self, data: bytes | None, seconds: float, **options):
        for _ in range(round(seconds / STEP)):
            out = self.step(data, **options)
        return out


@pytest.fixture
def hand() -> Hand:
    hand = Hand()
    hand.step(frame())
    return hand


@pytest.mark.parametrize(
    ("sticks", "velocity"),
    [
        ({"ly": 1.0}, (0.6, 0, 0)),
        ({"ly": -1.0}, (-0.4, 0, 0)),
        ({"lx": 1.0}, (0, -0.3, 0)),
        ({"lx": -1.0}, (0, 0.3, 0)),
        ({"rx": 1.0}, (0, 0, -0.8)),
        ({"rx": -1.0}, (0, 0, 0.8)),
        ({"ry": 1.0}, (0, 0, 0)),
        # 0.55 lies half-way between the dead zone of 0.1 and the stop.
        ({"ly": 0.55, "rx": -0.55}, (0.3, 0, 0.4)),
        ({"ly": 0.1, "lx": -0.1, "rx": 0.09}, (0, 0, 0)),
    ],
)
def test_sticks_drive_forward_left_and_turn_left(hand: Hand, sticks: dict, velocity: tuple) -> None:
    out = hand.step(frame("L1", **sticks))
    assert out.present and out.active
    assert (out.velocity.vx, out.velocity.vy, out.velocity.wz) == pytest.approx(velocity, abs=1e-6)


def test_without_the_deadman_nothing_moves_and_letting_go_stops_at_once(hand: Hand) -> None:
    assert not hand.step(frame(ly=1.0)).active
    assert hand.step(frame("L1", ly=1.0)).velocity.vx == pytest.approx(0.6)
    out = hand.step(frame(ly=1.0))
    assert out.present and not out.active and out.velocity == VelocityCommand(0, 0, 0)


def test_a_deadman_held_since_before_the_start_does_not_count() -> None:
    hand = Hand()
    assert not hand.hold(frame("L1", ly=1.0), 1.0).active
    hand.step(frame(ly=1.0))
    assert hand.step(frame("L1", ly=1.0)).active


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param({"data": GONE}, id="zeroed"),
        pytest.param({"data": None}, id="no state"),
        pytest.param({"data": frame("L1", ly=1.0), "new_tick": False}, id="frozen state"),
        pytest.param({"data": frame("L1", ly=float("nan"))}, id="not finite"),
        pytest.param({"data": frame("L1", ly=7.0)}, id="impossible"),
        pytest.param({"data": b"\x55\x51"}, id="too short"),
    ],
)
def test_a_lost_link_is_noticed_and_needs_a_fresh_press(hand: Hand, lost: dict) -> None:
    assert hand.hold(frame("L1", ly=1.0), 0.2).active
    assert not hand.hold(seconds=GAP_S + 2 * STEP, **lost).present
    hand.hold(seconds=LINK_TIMEOUT, **lost)
    out = hand.hold(frame("L1", ly=1.0), 0.5)
    assert out.present and not out.active, "the deadman was held all along"
    hand.step(frame())
    assert hand.step(frame("L1", ly=1.0)).active


def test_a_short_gap_costs_nothing(hand: Hand) -> None:
    hand.step(frame("L1", ly=1.0))
    hand.hold(GONE, GAP_S - STEP)
    assert hand.step(frame("L1", ly=1.0)).active


def test_a_remote_that_does_not_change_by_a_bit_loses_its_deadman(hand: Hand) -> None:
    assert hand.hold(frame("L1", ly=0.7), FROZEN_S - 2 * STEP).active
    assert not hand.hold(frame("L1", ly=0.7), 4 * STEP).active
    assert len(hand.notices) == 1 and "let go of L1" in hand.notices[0]
    assert not hand.step(frame("L1", ly=0.71)).active, "a change alone does not bring it back"
    hand.step(frame())
    assert hand.step(frame("L1", ly=0.71)).active


def test_a_hand_that_trembles_or_rests_is_not_frozen(hand: Hand) -> None:
    for i in range(round(3 * FROZEN_S / STEP)):
        assert hand.step(frame("L1", ly=0.7 + 0.001 * (i // 100 % 2))).active
    assert hand.hold(frame("L1"), 3 * FROZEN_S).active, "sticks at rest are allowed to be quiet"


@pytest.mark.parametrize(
    ("buttons", "request_"),
    [
        (["Start"], Request.STAND),
        (["A"], Request.WALK),
        (["X"], Request.READY),
        (["Down"], Request.SIT),
        (["Y"], Request.RESET),
        (["L2", "Select"], Request.DAMP),
        (["L2", "B"], Request.ESTOP),
    ],
)
def test_each_press_asks_once(hand: Hand, buttons: list[str], request_: Request) -> None:
    hand.hold(frame(*buttons), 3.0)
    assert hand.requests == [request_]
    hand.step(frame())
    hand.hold(frame("L1", *buttons), 1.0)
    assert hand.requests == [request_] * 2, "with the deadman held as well"


@pytest.mark.parametrize("buttons", [["L2", "A"], ["R1", "A"], ["R2", "Start"], ["B"], ["Select"], ["L2"], ["Up"]])
def test_buttons_with_a_meaning_elsewhere_ask_for_nothing(hand: Hand, buttons: list[str]) -> None:
    hand.hold(frame(*buttons), 1.0)
    assert not hand.requests


def test_several_requests_at_once_are_none(hand: Hand) -> None:
    hand.hold(frame("A", "X"), 0.5)
    assert not hand.requests and "several requests" in hand.notices[0]


def test_a_button_held_through_start_or_a_gap_is_no_press() -> None:
    hand = Hand()
    hand.hold(frame("A"), 0.5)
    hand.hold(GONE, 0.3)
    hand.hold(frame("A"), 0.5)
    assert not hand.requests


def test_the_emergency_stop_takes_the_deadman_away(hand: Hand) -> None:
    assert hand.step(frame("L1", ly=1.0)).active
    assert not hand.step(frame("L1", "L2", "B", ly=1.0)).active
    assert not hand.step(frame("L1", ly=1.0)).active, "until it was let go"
    assert hand.requests == [Request.ESTOP]


@pytest.mark.parametrize("options", [{"frozen_s": 0.0}, {"frozen_s": -1.0}, {"dead_zone": 1.0}, {"dead_zone": -0.1}])
def test_protections_cannot_be_switched_off(options: dict) -> None:
    with pytest.raises(SafetyError, match=next(iter(options))):
        RemoteDrive(SPEEDS, LINK_TIMEOUT, **options)
    with pytest.raises(SafetyError, match="link_timeout_s"):
        RemoteDrive(SPEEDS, 0.0)


@given(st.lists(st.binary(min_size=0, max_size=48) | st.binary(min_size=40, max_size=40), max_size=30))
def test_no_bytes_exceed_the_speeds_or_break_it(frames: list[bytes]) -> None:
    hand = Hand()
    for data in frames:
        out = hand.step(data)
        assert abs(out.velocity.vy) <= 0.3 and abs(out.velocity.wz) <= 0.8 and -0.4 <= out.velocity.vx <= 0.6
        assert out.active or out.velocity == VelocityCommand(0, 0, 0)
        assert not out.active or data[2] & 2, "moved without the deadman's bit"
