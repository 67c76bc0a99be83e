"""Real-time scheduling for processes that must keep their rhythm on a busy computer.

A nice value is not enough: with autogroups (the default of desktop kernels) it counts only among the processes
of one session, so a training run in another terminal still takes half of the time.
"""

from __future__ import annotations

import os

VARIABLE = "NFPO_REALTIME_PRIORITY"
DEFAULT_PRIORITY = "10"
MAX_PRIORITY = 98


def adopt_priority(lower_by: int = 0) -> str:
    """Put this process under SCHED_FIFO at the priority that the environment variable asks for, 0 or unset for none.

    Call it before threads start: they inherit it. Asking without permission changes nothing.

    Args:
        lower_by: subtracted from the priority, which stays at least 1.

    Returns:
        What was done, in words; empty when nothing was asked for.
    """
    text = os.environ.get(VARIABLE, "0") or "0"
    if not text.isdigit() or int(text) > MAX_PRIORITY:
        return f"{VARIABLE}={text!r} ignored: expected 0 to {MAX_PRIORITY}"
    priority = int(text)
    if priority == 0:
        return ""
    priority = max(1, priority - lower_by)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return "no permission for real-time scheduling ('rtprio' in /etc/security/limits.conf); running without"
    return f"real-time scheduling with priority {priority}"


def drop_priority() -> None:
    """Return to the normal scheduler, before work that may take long."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
