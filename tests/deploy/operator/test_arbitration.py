"""Who drives: priorities, silence, and the zero that ends a drive."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfpo_deploy.errors import SafetyError
from nfpo_deploy.operator.arbitration import SOURCE_TIMEOUT_S, SOURCES, Arbiter, parse_sources
from nfpo_deploy.operator.speeds import Speeds, lowered
from nfpo_deploy.types import VelocityCommand

ZERO = VelocityCommand(0.0, 0.0, 0.0)
AHEAD = VelocityCommand(0.3, 0.0, 0.0)
BACK = VelocityCommand(-0.3, 0.0, 0.0)
TURN = VelocityCommand(0.0, 0.0, 0.5)


class Table:
    def __init__(self, sources: tuple[str, ...] = SOURCES) -> None:
        self.arbiter = Arbiter(sources, Speeds())
        self.now = 5.0

    def say(self, source: str, velocity: VelocityCommand, active: bool | None = None) -> bool:
        return self.arbiter.observe(source, velocity, round(self.now * 1e9), active)

    def decide(self, up: bool = True, alone: bool = True) -> VelocityCommand | None:
        return self.arbiter.decide(round(self.now * 1e9), up, alone)

    def pass_time(self, seconds: float = SOURCE_TIMEOUT_S + 0.01) -> None:
        self.now += seconds


@pytest.fixture
def table() -> Table:
    return Table()


def test_nobody_is_silence(table: Table) -> None:
    assert table.decide() is None


def test_the_remote_with_its_deadman_held_wins_even_standing_still(table: Table) -> None:
    table.say("web", AHEAD)
    table.say("keyboard", TURN)
    table.say("remote", ZERO, active=True)
    assert table.decide() == ZERO
    table.say("remote", BACK, active=True)
    assert table.decide() == BACK
    table.say("remote", ZERO, active=False)
    assert table.decide() == TURN, "keyboard before web"
    table.say("keyboard", ZERO)
    assert table.decide() == AHEAD


def test_an_idle_source_with_priority_blocks_nobody(table: Table) -> None:
    for source in SOURCES[:-1]:
        table.say(source, ZERO, active=False)
    table.say("autonomy", TURN)
    assert table.decide() == TURN


def test_who_drove_last_and_is_still_there_holds_the_robot_in_place(table: Table) -> None:
    table.say("web", AHEAD)
    assert table.decide() == AHEAD
    for _ in range(50):
        table.pass_time(0.1)
        table.say("web", ZERO)
        assert table.decide() == ZERO


@pytest.mark.parametrize("bystander", ["remote", "keyboard"])
def test_a_lost_driver_is_silence_even_beside_a_connected_bystander(table: Table, bystander: str) -> None:
    table.say("web", AHEAD)
    table.say(bystander, ZERO, active=False)
    assert table.decide() == AHEAD
    table.pass_time()
    table.say(bystander, ZERO, active=False)
    assert table.decide() == ZERO, "one zero, so that it stops before the last velocity expires"
    for _ in range(30):
        table.pass_time(0.05)
        table.say(bystander, ZERO, active=False)
        assert table.decide() is None
    table.say(bystander, TURN, active=True)
    assert table.decide() == TURN, "taking over takes a deadman"


def test_charge_ends_when_the_robot_is_no_longer_up(table: Table) -> None:
    table.say("web", AHEAD)
    table.decide()
    table.pass_time()
    table.say("remote", ZERO, active=False)
    table.decide()
    assert table.decide() is None
    assert table.decide(up=False) is None
    assert table.decide() == ZERO, "up again, and the remote is there"


def test_beside_another_publisher_only_a_held_deadman_speaks(table: Table) -> None:
    table.say("remote", ZERO, active=False)
    assert table.decide(alone=False) is None
    table.say("remote", AHEAD, active=True)
    assert table.decide(alone=False) == AHEAD
    table.say("remote", ZERO, active=False)
    assert table.decide(alone=False) == ZERO and table.decide(alone=False) is None


def test_when_another_publisher_is_gone_no_bystander_stands_in_for_it(table: Table) -> None:
    for _ in range(20):
        table.pass_time(0.05)
        table.say("remote", ZERO, active=False)
        assert table.decide(alone=False) is None
    table.pass_time(0.05)
    table.say("remote", ZERO, active=False)
    assert table.decide(alone=True) is None
    table.say("remote", ZERO, active=True)
    assert table.decide() == ZERO and table.arbiter.in_charge == "remote"


def test_nothing_idle_is_published_while_the_robot_is_down(table: Table) -> None:
    table.say("remote", ZERO, active=False)
    assert table.decide(up=False) is None


def test_a_button_takes_charge(table: Table) -> None:
    table.say("web", AHEAD)
    table.decide()
    table.pass_time()
    table.say("remote", ZERO, active=False)
    assert table.decide() == ZERO and table.decide() is None
    table.arbiter.take_charge("remote")
    assert table.decide() == ZERO


def test_speeds_bound_every_source(table: Table) -> None:
    table.say("autonomy", VelocityCommand(9.0, -9.0, 9.0))
    assert table.decide() == VelocityCommand(0.6, -0.3, 0.8)
    assert lowered(Speeds(), {"vx": (-0.1, 0.2), "vy": (-0.4, 0.05), "wz": (-1.0, 1.0)}) == Speeds(0.2, 0.1, 0.05, 0.8)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_source_that_says_nonsense_is_not_there(table: Table, value: float) -> None:
    assert not table.say("web", VelocityCommand(0.1, value, 0.0))
    assert table.decide() is None


def test_sources_can_be_left_out(table: Table) -> None:
    table = Table(parse_sources(" remote ,autonomy"))
    assert not table.say("web", AHEAD) and table.decide() is None
    assert parse_sources("web,remote") == ("remote", "web"), "the priority is not the user's order"


@pytest.mark.parametrize("text", ["", " , ", "remote,joystick"])
def test_wrong_sources_are_named(text: str) -> None:
    with pytest.raises(SafetyError, match="expected some of remote, keyboard, web, autonomy"):
        parse_sources(text)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_protections_cannot_be_switched_off(value: float) -> None:
    with pytest.raises(SafetyError, match="timeout"):
        Arbiter(SOURCES, Speeds(), value)
    with pytest.raises(SafetyError, match="forward"):
        Speeds(forward=value)


EVENT = st.tuples(
    st.sampled_from(SOURCES),
    st.floats(allow_nan=True, allow_infinity=True, width=32),
    st.sampled_from([None, True, False]),
    st.floats(0.0, 0.5),
)


@given(st.lists(EVENT, max_size=40), st.booleans(), st.booleans())
def test_motion_always_comes_from_a_fresh_active_source(events: list, up: bool, alone: bool) -> None:
    table = Table()
    said: dict[str, tuple[float, bool]] = {}
    for source, vx, active, wait in events:
        if table.say(source, VelocityCommand(vx, 0.0, 0.0), active):
            said[source] = (table.now, active if active is not None else vx != 0.0)
        table.pass_time(wait)
        out = table.decide(up, alone)
        if out is not None and out.vx != 0.0:
            assert any(table.now - at <= SOURCE_TIMEOUT_S + 1e-6 and meant for at, meant in said.values())
            assert -0.4 <= out.vx <= 0.6
