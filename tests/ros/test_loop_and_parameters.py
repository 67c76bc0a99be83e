import math
import time

import numpy as np
import pytest

from nfpo_deploy.errors import ParameterError
from nfpo_deploy.ros.loop import RateLoop, Samples
from nfpo_deploy.ros.parameters import Declaration, above_zero, integer_between, not_empty


def test_late_loop_skips_periods_and_keeps_its_grid():
    loop = RateLoop(100.0)
    start = loop.wait()
    loop.wait()
    time.sleep(0.045)
    late = loop.wait()
    after = loop.wait()
    assert loop.overruns >= 3
    assert late - start >= 45_000_000
    # The next wake-up is a multiple of the period after the start, not after the late one, and there is no burst.
    assert after - late > 1_000_000
    phase = (after - start) % loop.period_ns
    assert min(phase, loop.period_ns - phase) < 5_000_000


def test_rate_is_kept_on_average():
    loop = RateLoop(200.0)
    start = time.monotonic()
    for _ in range(40):
        loop.wait()
    assert time.monotonic() - start == pytest.approx(0.2, abs=0.05)
    rate, jitter = loop.statistics()
    assert rate == pytest.approx(200, rel=0.2) and jitter >= 0


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(ValueError, match="above zero"):
        RateLoop(rate)


def test_samples_forget_the_oldest():
    samples = Samples(3)
    assert math.isnan(samples.percentile(50))
    for value in (100.0, 1.0, 2.0, 3.0):
        samples.add(value)
    assert sorted(samples.array()) == [1, 2, 3] and samples.percentile(50) == np.median([1, 2, 3])


RATE = Declaration("rate_hz", 500.0, "rate of the loop, Hz", above_zero)


@pytest.mark.parametrize(
    ("declaration", "value", "message"),
    [
        (RATE, 0.0, "rate_hz: expected a number above zero, got 0.0: rate of the loop, Hz"),
        (RATE, math.nan, "expected a finite number"),
        (RATE, "fast", "expected float, got 'fast'"),
        (RATE, True, "expected float, got True"),
        (Declaration("domain_id", 0, "", integer_between(0, 232)), 233, "expected 0 to 232, got 233"),
        (Declaration("domain_id", 0, "", integer_between(0, 232)), 1.0, "expected int"),
        (Declaration("robot", "go2", "", not_empty), " ", "expected a name"),
        (Declaration("autostart", True, ""), 1, "expected bool"),
        (RATE, None, "expected float, got None"),
    ],
)
def test_bad_parameters_are_named(declaration, value, message):
    with pytest.raises(ParameterError) as error:
        declaration.validated(value)
    assert message in str(error.value)


def test_an_integer_passes_for_a_float():
    assert RATE.validated(250) == 250.0 and isinstance(RATE.validated(250), float)
