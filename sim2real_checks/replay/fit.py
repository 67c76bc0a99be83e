"""Parameters of motors and joints that make the simulator move as a recording did, and how certain they are.

Rolled out are single legs in the air, over windows of 0.2 s, on the recorded motion of their base (see `legs`). A
stance leg's motion depends on a ground that nobody measured; a swing leg's depends only on what is sought, on the
links' inertia and on what the IMU measured. That holds for a hanging robot and for a walking one, while rolling out
the whole body would mix errors of ground, height and velocity into the motors', and a base held in the air would be
wrong for every walking log. What the rollout cannot see: friction under load, and torque limits in stance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from robots.loader import RobotSpec
from sim2real_checks.replay.windows import Parameters, Windows, rollout
from sim2real_checks.validation.scenario import Actuation

NAMES = ("friction", "armature", "latency", "strength", "damping")
UNITS = {"friction": "N m", "armature": "kg m²", "latency": "s", "strength": "", "damping": "N m s/rad"}
LOW = Parameters(0.0, 0.0, -0.01, 0.3, 0.0)
HIGH = Parameters(3.0, 0.2, 0.06, 2.0, 2.0)
SCALE = Parameters(0.1, 0.005, 0.002, 0.05, 0.05)
"""A difference that matters, and the step of the solver's derivatives in units of 1/20 of it."""
WIDEST = Parameters(0.1, 0.004, 0.003, 0.08, 0.1)
"""Half width of the interval from which on a parameter counts as not identifiable from the log."""
SYSTEMATIC = Parameters(0.03, 0.0008, 0.0008, 0.03, 0.03)
"""By how much intervals are widened beyond what the bootstrap knows: errors that all windows share, such as encoder
offsets, biases of the IMU and smoothing, shifted planted parameters of simulated robots by up to two thirds of it."""
SIGMA_Q, SIGMA_DQ = 0.004, 0.3
"""rad, rad/s: errors of a rollout that count alike; larger ones count less and less (soft L1)."""
MAX_OFFSET, OFFSET_SCALE = 5.0, 0.1
"""N·m that a joint's motor may seem to add all the time: an encoder's offset times stiffness, a link's wrong weight."""
EVERY = 2
"""Rows of the grid between two residuals."""
BOOTSTRAP = 400
FEWEST_WINDOWS = 10
"""Fewer make a bootstrap's interval too narrow, so nothing counts as identified."""
CONFIDENCE, NORMAL = 0.95, 1.96


@dataclass(frozen=True)
class Estimate:
    """One parameter."""

    name: str
    unit: str
    nominal: float
    """The simulator's."""
    value: float
    low: float
    high: float
    """95 % interval by bootstrap over the windows, widened by `SYSTEMATIC`."""
    identifiable: bool

    @property
    def differs(self) -> bool:
        """Whether the nominal value lies outside the interval of an identifiable parameter."""
        return self.identifiable and not self.low <= self.nominal <= self.high


@dataclass(frozen=True)
class Fit:
    """What was found."""

    estimates: tuple[Estimate, ...]
    windows: int
    error_before: tuple[float, float]
    error_after: tuple[float, float]
    """RMS over all windows of the rollout's error of q in rad and dq in rad/s, with nominal and fitted parameters."""
    joint_errors: np.ndarray
    """(N, 2) RMS of q before and after, rad, in joint order; NaN for a joint without windows."""
    offset: np.ndarray
    """(N,) N·m that each motor seems to add all the time."""
    entangled: tuple[tuple[str, str, float], ...]
    """Pairs whose estimates depend on each other, with their correlation."""

    def parameters(self, spec: RobotSpec) -> Parameters:
        """The fitted values; nominal where a parameter was not fitted."""
        return replace(nominal_parameters(spec), **{one.name: one.value for one in self.estimates})


def nominal_parameters(spec: RobotSpec) -> Parameters:
    """The simulator's own: those of the robot's model, and what a scenario of `nfpo validate` has by default."""
    usual = Actuation()
    return Parameters(
        spec.joint_friction + usual.friction, spec.armature, usual.delay, usual.strength, spec.joint_damping
    )


def fit(
    windows: Windows, spec: RobotSpec, with_damping: bool = False, seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> Fit:  # fmt: skip
    """Fit the parameters to the windows.

    Args:
        windows: of the real recording.
        spec: whose model the simulator has.
        with_damping: fit viscous damping, too; it is hard to tell from latency.
        seed: of the bootstrap.
        progress: called after each step of the solver.
    """
    problem = _Problem(windows, spec, NAMES if with_damping else NAMES[:-1], progress)
    start = problem.start()
    solution = least_squares(
        problem.residuals, start, problem.jacobian, bounds=problem.bounds(), loss="soft_l1", xtol=1e-4, ftol=1e-6,
        max_nfev=30,
    )  # fmt: skip
    draws, deviation = problem.bootstrap(solution.x, seed)
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(draws, [tail, 100.0 - tail], axis=0)
    # Where no window knows anything of a parameter, all draws agree on it.
    best = solution.x[: len(problem.names)]
    low, high = np.minimum(low, best - NORMAL * deviation), np.maximum(high, best + NORMAL * deviation)
    nominal, found = nominal_parameters(spec), problem.parameters(solution.x)
    estimates = tuple(
        _estimate(name, nominal, found, float(low[i]), float(high[i]), len(windows) >= FEWEST_WINDOWS)
        for i, name in enumerate(problem.names)
    )
    offset = problem.offset(solution.x)
    before, joints_before = problem.errors(nominal, np.zeros_like(offset))
    after, joints_after = problem.errors(found, offset)
    return Fit(
        estimates, len(windows), before, after, np.stack([joints_before, joints_after], axis=1),
        offset, _entangled(draws, problem.names),
    )  # fmt: skip


def _estimate(name: str, nominal: Parameters, found: Parameters, low: float, high: float, enough: bool) -> Estimate:
    """With the bootstrap's interval from `low` to `high`, in units of `SCALE`; `enough` windows to believe it."""
    scale, more = getattr(SCALE, name), getattr(SYSTEMATIC, name)
    ends = (max(low * scale - more, getattr(LOW, name)), min(high * scale + more, getattr(HIGH, name)))
    wide = 0.5 * (ends[1] - ends[0]) > getattr(WIDEST, name)
    return Estimate(name, UNITS[name], getattr(nominal, name), getattr(found, name), *ends, enough and not wide)


def _entangled(draws: np.ndarray, names: tuple[str, ...]) -> tuple[tuple[str, str, float], ...]:
    with np.errstate(all="ignore"):
        correlation = np.corrcoef(draws.T)
    pairs = [(i, j) for i in range(len(names)) for j in range(i) if abs(correlation[i, j]) > 0.9]
    return tuple((names[j], names[i], float(correlation[i, j])) for i, j in pairs)


class _Problem:
    """Residuals of rollouts as a function of x: parameters in units of `SCALE`, then each joint's offset."""

    def __init__(
        self, windows: Windows, spec: RobotSpec, names: tuple[str, ...], progress: Callable[[], None]
    ) -> None:  # fmt: skip
        self.names = names
        self._windows, self._spec, self._progress = windows, spec, progress
        self._mask = windows.mask[::EVERY, None, :].astype(np.float64)
        self._legs = np.array([foot.joint_indices for foot in spec.feet])

    def start(self) -> np.ndarray:
        """(P + N,) nominal, moved off the bounds."""
        nominal = nominal_parameters(self._spec)
        x = np.array([getattr(nominal, name) / getattr(SCALE, name) for name in self.names])
        x = np.concatenate([x, np.zeros(self._spec.num_joints)])
        return np.clip(x, *(bound + sign for bound, sign in zip(self.bounds(), (0.05, -0.05), strict=True)))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        rest = np.full(self._spec.num_joints, MAX_OFFSET / OFFSET_SCALE)
        low, high = (
            np.array([getattr(bound, name) / getattr(SCALE, name) for name in self.names]) for bound in (LOW, HIGH)
        )
        return np.concatenate([low, -rest]), np.concatenate([high, rest])

    def parameters(self, x: np.ndarray) -> Parameters:
        values = dict(zip(NAMES, astuple(nominal_parameters(self._spec)), strict=True))
        values |= {name: float(x[i]) * getattr(SCALE, name) for i, name in enumerate(self.names)}
        return Parameters(**values)

    def offset(self, x: np.ndarray) -> np.ndarray:
        """(N,) N·m."""
        return x[len(self.names) :] * OFFSET_SCALE

    def residuals(self, x: np.ndarray) -> np.ndarray:
        """(R,) errors of q and dq in units of their sigmas."""
        return self._errors(self.parameters(x), self.offset(x)).reshape(-1)

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """(R, P + N) by central differences."""
        columns = np.zeros((len(x), self._mask.shape[0] * 6, len(self._windows)))
        for i in range(len(self.names)):
            columns[i] = self._slope(x, [i])
        for axis in range(3):
            # Legs do not feel each other, so one joint of every leg is moved at once.
            together = len(self.names) + self._legs[:, axis]
            slope = self._slope(x, list(together))
            for leg, column in enumerate(together):
                mine = self._windows.leg == leg
                columns[column][:, mine] = slope[:, mine]
        self._progress()
        return columns.reshape(len(x), -1).T

    def _slope(self, x: np.ndarray, entries: list[int]) -> np.ndarray:
        low, high = self.bounds()
        step = np.zeros_like(x)
        step[entries] = 0.05
        up, down = np.minimum(x + step, high), np.maximum(x - step, low)
        slope = (self.residuals(up) - self.residuals(down)) / (up - down)[entries[0]]
        return slope.reshape(-1, len(self._windows))

    def bootstrap(self, x: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Solutions (B, P) for windows drawn with replacement, each by one Gauss-Newton step from `x`.

        And (P,) standard deviations that residuals of one sigma would give, however well the windows agree.
        """
        count = len(self._windows)
        residuals, jacobian = self.residuals(x), self.jacobian(x)
        # How much soft L1 lets each residual count.
        weight = 1.0 / np.sqrt(1.0 + residuals**2)
        r = (np.sqrt(weight) * residuals).reshape(-1, count)
        J = (np.sqrt(weight)[:, None] * jacobian).reshape(-1, count, len(x))
        hessian = np.stack([J[:, w].T @ J[:, w] for w in range(count)])
        gradient = np.einsum("rwi,rw->wi", J, r)
        draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), BOOTSTRAP)
        tiny = 1e-6 * np.eye(len(x))
        H, g = np.tensordot(draws, hessian, axes=1) + tiny, draws @ gradient
        covariance = np.linalg.inv(hessian.sum(axis=0) + tiny)
        mean = covariance @ gradient.sum(axis=0)
        # The step of all windows together is what is left of the solver's own tolerance, and no uncertainty.
        solutions = x + mean - np.linalg.solve(H, g[:, :, None])[:, :, 0]
        count = len(self.names)
        return solutions[:, :count], np.sqrt(np.diag(covariance))[:count]

    def errors(self, p: Parameters, offset: np.ndarray) -> tuple[tuple[float, float], np.ndarray]:
        """RMS of q, rad, and dq, rad/s, over all windows; and (N,) RMS of q for each joint."""
        apart = self._errors(p, offset) * np.array([SIGMA_Q, SIGMA_DQ])[:, None, None, None]
        rows = np.broadcast_to(self._mask, apart.shape[1:])
        rms = np.sqrt((apart**2).sum(axis=(1, 2, 3)) / rows.sum())
        joints = np.full(self._spec.num_joints, np.nan)
        for joint in np.unique(self._windows.joints):
            mine = self._windows.joints == joint
            joints[joint] = np.sqrt((apart[0][:, mine] ** 2).sum() / rows[:, mine].sum())
        return (float(rms[0]), float(rms[1])), joints

    def _errors(self, p: Parameters, offset: np.ndarray) -> np.ndarray:
        """(2, K', 3, W) errors of q and dq in units of their sigmas, zero beyond a window's end."""
        q, dq = rollout(self._windows, p, offset)
        apart = np.stack([q[::EVERY] - self._windows.q[::EVERY], dq[::EVERY] - self._windows.dq[::EVERY]])
        return apart * self._mask / np.array([SIGMA_Q, SIGMA_DQ])[:, None, None, None]
