"""The battery: what its charge means in volts."""

from __future__ import annotations

# Go2's battery: 8 lithium cells in series, 28.8 V nominal (Unitree's data sheet). The straight line from
# empty to full is a rough stand-in for the discharge curve.
CELLS = 8
_CELL_EMPTY, _CELL_FULL = 3.2, 4.2


def cell_voltage(soc: float) -> float:
    """V of one cell at a charge of `soc` %."""
    return _CELL_EMPTY + (_CELL_FULL - _CELL_EMPTY) * soc / 100
