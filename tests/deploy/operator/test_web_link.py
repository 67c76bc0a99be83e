"""Beats of browsers: which of them make the robot move, and how soon it stops when they do not come."""

from __future__ import annotations

import math

import pytest

from nfpo_deploy.operator.web_link import BEAT_TIMEOUT_S, ROUND_TRIP_S, WebLink
from nfpo_deploy.types import VelocityCommand

AHEAD = VelocityCommand(0.4, 0.0, 0.0)
STILL = VelocityCommand(0.0, 0.0, 0.0)


class Browser:
    """Statuses go out and beats come back ten times a second, `delay` seconds apart."""

    def __init__(self) -> None:
        self.link = WebLink()
        self.now = 50.0
        self.number = 0
        self.connect(1)

    def connect(self, page: int) -> None:
        self.link.connect(page)

    @property
    def ns(self) -> int:
        return round(self.now * 1e9)

    def tick(self) -> None:
        self.now += 0.1
        self.number += 1
        self.link.sent(self.number, self.ns)

    def beat(self, held: bool, page: int = 1, behind: int = 0, velocity: VelocityCommand = AHEAD) -> bool:
        return self.link.beat(page, self.number - behind, held, velocity, self.ns)

    def output(self):
        return self.link.output(self.ns)


@pytest.fixture
def browser() -> Browser:
    browser = Browser()
    browser.tick()
    browser.beat(held=False)
    browser.tick()
    return browser


def test_a_held_deadman_drives_and_a_released_one_stays_present(browser: Browser) -> None:
    assert browser.beat(held=True) and browser.output() == (True, AHEAD)
    browser.tick()
    assert browser.beat(held=False) and browser.output() == (True, None)


def test_a_page_that_falls_silent_is_gone(browser: Browser) -> None:
    browser.beat(held=True)
    browser.now += BEAT_TIMEOUT_S - 0.01
    assert browser.output() == (True, AHEAD)
    browser.now += 0.02
    assert browser.output() == (False, None)


def test_after_silence_the_deadman_must_be_pressed_anew(browser: Browser) -> None:
    browser.beat(held=True)
    for _ in range(5):
        browser.tick()
    assert browser.beat(held=True) and browser.output() == (True, None)
    browser.tick()
    browser.beat(held=False)
    browser.tick()
    browser.beat(held=True)
    assert browser.output() == (True, AHEAD)


def test_a_deadman_held_since_before_the_connection_does_not_count() -> None:
    browser = Browser()
    for _ in range(5):
        browser.tick()
        assert browser.beat(held=True)
        assert browser.output() == (True, None)


def test_beats_that_answer_the_past_do_not_count(browser: Browser) -> None:
    browser.beat(held=True)
    for _ in range(20):
        browser.tick()
        # A steady stream, but every message spent half a second on its way.
        assert not browser.beat(held=True, behind=5)
    assert browser.output() == (False, None)
    behind = int(ROUND_TRIP_S / 0.1) - 1
    assert browser.beat(held=False, behind=behind)


@pytest.mark.parametrize("echo", [-1, 10_000, 0])
def test_a_number_that_was_never_sent_is_no_answer(browser: Browser, echo: int) -> None:
    assert not browser.link.beat(1, echo, True, AHEAD, browser.ns)


def test_velocities_that_are_no_numbers_are_no_beat(browser: Browser) -> None:
    assert not browser.beat(held=True, velocity=VelocityCommand(math.nan, 0.0, 0.0))
    assert not browser.beat(held=True, page=7), "unknown page"


def test_the_first_to_hold_drives_until_it_lets_go(browser: Browser) -> None:
    browser.connect(2)
    browser.beat(held=False, page=2)
    back = VelocityCommand(-0.2, 0.0, 0.0)
    browser.tick()
    browser.beat(held=False, page=1)
    browser.beat(held=True, page=2, velocity=back)
    assert browser.output() == (True, back)
    browser.beat(held=True, page=1)
    assert browser.output() == (True, back)
    browser.beat(held=False, page=2)
    assert browser.output() == (True, AHEAD)
    browser.link.disconnect(1)
    assert browser.output() == (True, None)
    browser.link.disconnect(2)
    assert browser.output() == (False, None)
