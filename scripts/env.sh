# Source this file to work in the project's environment:  source scripts/env.sh
# It puts the virtual environment first; the messages built in ros2_ws are linked into it.

_nfpo_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export NFPO_VENV="${NFPO_VENV:-$_nfpo_root/.venv}"

# A sourced ROS installation brings an rclpy of another release, which must not mix with the wheels' one.
unset PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH COLCON_PREFIX_PATH CMAKE_PREFIX_PATH
export VIRTUAL_ENV="$NFPO_VENV"
case ":$PATH:" in
  *":$NFPO_VENV/bin:"*) ;;
  *) export PATH="$NFPO_VENV/bin:$PATH" ;;
esac

# ROS 2 traffic stays on this host unless the user says otherwise.
export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
unset _nfpo_root
