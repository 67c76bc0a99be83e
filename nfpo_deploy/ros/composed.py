"""All nodes in one process: less CPU and latency, at the price that one crash takes all of them."""

from __future__ import annotations

import sys

from nfpo_deploy.ros.main import run_nodes
from nfpo_deploy.ros.policy_inference import PolicyInference
from nfpo_deploy.ros.safety_watchdog import SafetyWatchdog
from nfpo_deploy.ros.sdk_bridge import SdkBridge
from nfpo_deploy.ros.state_estimator import StateEstimatorNode

NODES = (SdkBridge, StateEstimatorNode, PolicyInference, SafetyWatchdog)


def main() -> None:
    """Entry point of the process; `--without NAME` leaves a node out."""
    arguments, left_out = list(sys.argv), set()
    while "--without" in arguments:
        at = arguments.index("--without")
        left_out.update(arguments[at + 1 : at + 2])
        del arguments[at : at + 2]
    unknown = left_out - {node.NAME for node in NODES}
    if unknown:
        sys.exit(f"composed: --without {', '.join(sorted(unknown))}: no such node")
    sys.exit(run_nodes([node for node in NODES if node.NAME not in left_out], arguments))


if __name__ == "__main__":
    main()
