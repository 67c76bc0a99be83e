"""The battery: what its charge means in volts."""

from __future__ import annotations

from robots.loader import RobotSpec

# The straight line from empty to full is a rough stand-in for the discharge curve of a lithium cell.
_CELL_EMPTY, _CELL_FULL = 3.2, 4.2
_CELL_MOST = 4.25
"""V; `identity.voltage` in robot.yaml ends at this for each cell."""


def cells(spec: RobotSpec) -> int:
    """Cells in series."""
    return round(spec.voltage_range[1] / _CELL_MOST)


def cell_voltage(soc: float) -> float:
    """V of one cell at a charge of `soc` %."""
    return _CELL_EMPTY + (_CELL_FULL - _CELL_EMPTY) * soc / 100
