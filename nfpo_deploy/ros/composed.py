"""All four nodes in one process: less CPU and latency, at the price that one crash takes all of them."""

from __future__ import annotations

import sys

from nfpo_deploy.ros.main import run_nodes
from nfpo_deploy.ros.policy_inference import PolicyInference
from nfpo_deploy.ros.safety_watchdog import SafetyWatchdog
from nfpo_deploy.ros.sdk_bridge import SdkBridge
from nfpo_deploy.ros.state_estimator import StateEstimatorNode


def main() -> None:
    """Entry point of the process."""
    sys.exit(run_nodes([SdkBridge, StateEstimatorNode, PolicyInference, SafetyWatchdog]))


if __name__ == "__main__":
    main()
