"""Channels to a robot. The SDK and DDS are imported only when a transport is opened."""

from __future__ import annotations

from nfpo_deploy.transport.base import Transport, TransportStatistics
from robots.loader import RobotSpec

__all__ = ["Transport", "TransportStatistics", "open_transport"]


def open_transport(spec: RobotSpec, interface: str, domain_id: int = 0) -> Transport:
    """Open the channel that the robot's message family needs.

    Args:
        spec: the robot.
        interface: network interface wired to the robot; `lo` for the simulated robot on this computer.
        domain_id: DDS domain; a real robot uses 0.

    Raises: TransportError: missing or unknown interface (lists those that exist), Cyclone DDS other than
        0.10.x, bad
            domain id, message family without a transport.
    """
    from nfpo_deploy.transport.unitree import UnitreeTransport

    return UnitreeTransport(spec, interface, domain_id)
