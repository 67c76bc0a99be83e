"""What every node process does: start nodes, serve them on a slow thread, stop them in order."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

# Threads of the numerical libraries would fight over the few cores that the loops need.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402

from nfpo_deploy.graph import AT_ONCE  # noqa: E402
from nfpo_deploy.realtime import adopt_priority, take_core  # noqa: E402

if TYPE_CHECKING:
    from nfpo_deploy.ros.node_base import LoopNode

SPIN_PERIOD_S = 0.2
COLLECT_PERIOD_S = 5.0
THREAD_SWITCH_S = 0.0005


class Stop:
    """Set by SIGINT, SIGTERM and SIGHUP; `hurry` by a second SIGINT or SIGUSR1.

    A second SIGTERM or SIGHUP is no hurry: at a shutdown the system and the launcher both send one.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.hurry = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.hurry = self.hurry or number == AT_ONCE or (number == signal.SIGINT == self.signal)
        self.signal = number


def run_nodes(node_types: Sequence[type[LoopNode]], arguments: list[str] | None = None, lower_by: int = 0) -> int:
    """Run nodes in this process until SIGINT, SIGTERM, SIGHUP or the failure of one of them.

    Nodes are stopped in the order given; put the bridge first, so that the robot is damped while the others
    still run.

    Args:
        node_types: what to run.
        arguments: of the command line; None for the process's own.
        lower_by: how far the real-time priority is below the graph's.

    Returns:
        Exit status: 0 after a requested stop, 1 when a node could not start or its loop failed.
    """
    take_core(node_types[0].NAME if len(node_types) == 1 else "")
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, AT_ONCE):
        signal.signal(number, stop)
    # rclpy's own handlers would invalidate the context at once, while the bridge still has to damp and report.
    rclpy.init(args=sys.argv if arguments is None else arguments, signal_handler_options=SignalHandlerOptions.NO)
    # With several loops in one process, none may hold the interpreter for 5 ms.
    sys.setswitchinterval(THREAD_SWITCH_S)
    nodes = [node_type() for node_type in node_types]
    for node in nodes:
        node.hurry = lambda: stop.hurry
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    try:
        if not all(_started(node, node.trigger_configure) for node in nodes):
            return 1
        # Before any loop runs: it shall know no other rhythm.
        if scheduling := adopt_priority(lower_by):
            nodes[0].get_logger().info(scheduling)
        if not all(_started(node, node.trigger_activate) for node in nodes):
            return 1
        _serve(executor, nodes, stop)
        return _failed(nodes)
    finally:
        for node in nodes:
            node.trigger_shutdown()
        for node in nodes:
            executor.remove_node(node)
            node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()


def _started(node: LoopNode, transition: Callable[[], TransitionCallbackReturn]) -> bool:
    if not node.get_parameter("autostart").value or transition() == TransitionCallbackReturn.SUCCESS:
        return True
    print(node.failure or f"{node.NAME} did not start", file=sys.stderr, flush=True)
    return False


def _serve(executor: SingleThreadedExecutor, nodes: list[LoopNode], stop: Stop) -> None:
    # Collecting garbage stops every thread: freeze what start-up made, and collect the little that follows at
    # moments of our own choice.
    gc.collect()
    gc.freeze()
    gc.disable()
    collect_at = time.monotonic() + COLLECT_PERIOD_S
    while not stop.signal and not any(node.failure for node in nodes if node.loop_failed):
        executor.spin_once(timeout_sec=SPIN_PERIOD_S)
        if time.monotonic() > collect_at:
            gc.collect()
            collect_at = time.monotonic() + COLLECT_PERIOD_S


def _failed(nodes: list[LoopNode]) -> int:
    failures = [node.failure for node in nodes if node.loop_failed]
    for failure in failures:
        print(failure, file=sys.stderr, flush=True)
    return 1 if failures else 0
