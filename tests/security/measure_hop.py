"""Measure one hop between two ROS processes: `python tests/security/measure_hop.py`, with the transport of the caller.

An 800-byte best-effort message at 500 Hz for 8 s. The subscriber runs in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time

MESSAGES, PERIOD_S = 4000, 0.002


def publish() -> None:
    """Send MESSAGES with the time in the first number."""
    from std_msgs.msg import UInt64MultiArray

    node = _node("hop_publisher")
    publisher = node.create_publisher(UInt64MultiArray, "hop", _qos())
    message = UInt64MultiArray(data=[0] * 100)
    while publisher.get_subscription_count() == 0:
        time.sleep(0.1)
    time.sleep(0.5)
    used, start = time.process_time(), time.monotonic()
    for i in range(MESSAGES):
        time.sleep(max(0.0, start + i * PERIOD_S - time.monotonic()))
        message.data[0] = time.monotonic_ns()
        publisher.publish(message)
    print(f"publisher: {(time.process_time() - used) / (time.monotonic() - start):.3f} cores")


def subscribe() -> None:
    """Receive for as long as messages come; print the delays."""
    import rclpy
    from std_msgs.msg import UInt64MultiArray

    node, delays = _node("hop_subscriber"), []
    node.create_subscription(
        UInt64MultiArray, "hop", lambda message: delays.append(time.monotonic_ns() - message.data[0]), _qos()
    )
    used = start = 0.0
    while len(delays) < 0.95 * MESSAGES and not (start and time.monotonic() - start > 1.5 * MESSAGES * PERIOD_S):
        rclpy.spin_once(node, timeout_sec=0.5)
        if delays and not start:
            used, start = time.process_time(), time.monotonic()
    delays.sort()
    median, late = delays[len(delays) // 2] / 1e3, delays[int(0.99 * len(delays))] / 1e3
    cores = (time.process_time() - used) / (time.monotonic() - start)
    print(f"subscriber: {len(delays)} messages, median {median:.0f} µs, 99 % {late:.0f} µs, {cores:.3f} cores")


def _node(name: str):
    import rclpy

    rclpy.init()
    return rclpy.create_node(name)


def _qos():
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


if __name__ == "__main__":
    if sys.argv[1:] == ["subscribe"]:
        subscribe()
    else:
        with subprocess.Popen([sys.executable, __file__, "subscribe"]):
            publish()
