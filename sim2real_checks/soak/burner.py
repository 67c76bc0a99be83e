"""A program that takes all the time it gets, as training, a compiler or a browser does: `python -m …soak.burner`."""

from __future__ import annotations

import ctypes
import os
import signal

import numpy as np

from nfpo_deploy.realtime import drop_priority

PR_SET_PDEATHSIG = 1


def burn() -> None:
    """Compute until killed, by turns in the interpreter and in NumPy."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Who starts us may have taken a real-time priority, and programs inherit it.
    drop_priority()
    matrix = np.random.default_rng(os.getpid()).standard_normal((96, 96))
    while True:
        total = 0
        for i in range(50_000):
            total += i % 7
        for _ in range(50):
            matrix = np.tanh(matrix @ matrix.T * (1.0 / (total + 1)))


if __name__ == "__main__":
    burn()
