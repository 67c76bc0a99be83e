"""Environment that keeps ROS 2 on this host. Imports no ROS: launchers use it before any process has started.

The discovery range LOCALHOST alone does not do it: rmw_fastrtps then adds a UDP transport of its own that binds
0.0.0.0 and the address of every interface, whatever a profile says. With the range SYSTEM_DEFAULT it adds none, and
the profile beside this file decides: one UDP transport, on 127.0.0.1 only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PROFILE = Path(__file__).with_name("fastdds_loopback.xml")
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Names in Fast DDS 3 (Kilted and newer) and in Fast DDS 2; Kilted warns in every process that sees the second."""
FAST_DDS_2 = ("humble", "iron", "jazzy")
RANGE_VARIABLE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
LOCAL, LEFT_TO_THE_PROFILE = "LOCALHOST", "SYSTEM_DEFAULT"


def discovery_environment(outer: Mapping[str, str]) -> dict[str, str]:
    """Variables that confine ROS 2 to this host, unless the user asked for more.

    A user asks for more with ROS_AUTOMATIC_DISCOVERY_RANGE other than LOCALHOST, or with a Fast DDS profile of his
    own; both are passed on as they are.

    Args:
        outer: environment of the caller. What this function returned before is recognised and returned again.

    Returns:
        Variables to set for every process of a graph and for every client of it that is ours.
    """
    names = PROFILE_VARIABLES if outer.get("ROS_DISTRO") in FAST_DDS_2 else PROFILE_VARIABLES[:1]
    confined = all(outer.get(name) == str(PROFILE) for name in names)
    wanted = LOCAL if confined else outer.get(RANGE_VARIABLE) or LOCAL
    if wanted.upper() != LOCAL:
        return {RANGE_VARIABLE: wanted}
    local = {RANGE_VARIABLE: LOCAL}
    if outer.get("ROS_DISTRO") == "humble":
        # Humble knows no discovery range.
        local["ROS_LOCALHOST_ONLY"] = outer.get("ROS_LOCALHOST_ONLY") or "1"
    if "fastrtps" not in (outer.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"):
        return local
    if not confined and any(outer.get(name) for name in PROFILE_VARIABLES):
        return local
    return {
        RANGE_VARIABLE: LEFT_TO_THE_PROFILE,
        # Where it is on, rmw_fastrtps adds its own transports again.
        "ROS_LOCALHOST_ONLY": "0",
        # A discovery server is somewhere else.
        "ROS_DISCOVERY_SERVER": "",
        **dict.fromkeys(names, str(PROFILE)),
    }
