#!/usr/bin/env bash
# Build the ROS 2 workspace: with a sourced ROS installation as any colcon workspace, otherwise against the ROS
# wheels of a virtual environment (VIRTUAL_ENV, or .venv beside this workspace). Does nothing when nothing changed.
#   ros2_ws/build.sh [--force]
set -euo pipefail
workspace=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$workspace")
force=${1:-}
if [[ -n $force && $force != --force ]]; then
  echo "build.sh: unknown argument '$force'; the only one is --force" >&2
  exit 2
fi
cd "$workspace"

if [[ -n ${ROS_DISTRO:-} && -n ${AMENT_PREFIX_PATH:-} ]] && command -v colcon >/dev/null; then
  wheels=false
  python=$(command -v python3)
  flavour="ROS $ROS_DISTRO at $AMENT_PREFIX_PATH"
else
  wheels=true
  environment=${VIRTUAL_ENV:-$repository/.venv}
  python=$environment/bin/python
  if [[ ! -x $python ]]; then
    echo "build.sh: no ROS installation is sourced and there is no virtual environment at $environment." >&2
    echo "Either 'source /opt/ros/<distribution>/setup.bash', or run 'make setup' first." >&2
    exit 1
  fi
  flavour="wheels in $environment: $("$python" - <<'PYTHON'
import importlib.metadata

found = {d.name: d.version for d in importlib.metadata.distributions()}
print(*(f"{name}={found[name]}" for name in sorted(found) if name.startswith("ros-")))
PYTHON
)"
fi

folder_of() { if [[ -d src/$1 ]]; then echo "src/$1"; else echo "wheels_only/$1"; fi; }
contents() { find "$@" -type f -not -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum; }

fingerprint() {
  {
    echo "$flavour"
    contents "$(folder_of "$1")" tools build.sh
    # Python sources are installed as links: their names matter here, their contents do not.
    if [[ $1 == nfpo_deploy ]]; then
      (cd "$repository" && find nfpo_deploy robots sim2real_checks -type f -not -path '*/__pycache__/*' | sort)
    fi
  } | sha256sum | cut -d' ' -f1
}

colcon_build() {
  local arguments=(build --symlink-install --event-handlers console_stderr+ --paths "$(folder_of "$1")"
    --cmake-args -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release)
  if $wheels; then
    # AMENT_PREFIX_PATH is where rosidl looks up the type supports; colcon's warning that the environment holds
    # no setup scripts is true and harmless.
    PYTHONWARNINGS=ignore PATH=$environment/bin:$PATH CMAKE_PREFIX_PATH=$environment AMENT_PREFIX_PATH=$environment \
      "$python" -m colcon "${arguments[@]}" \
      "-DCMAKE_PROJECT_INCLUDE=$workspace/tools/drop_missing_include_folders.cmake" \
      "-DPython3_EXECUTABLE=$python" 2> >(grep -v "doesn't contain any 'local_setup" >&2)
  else
    colcon "${arguments[@]}"
  fi
}

# A stamp is written last and removed first, so that a build that was cut off is done again.
build_package() {
  local package=$1 stamp=build/.fingerprint_$1 wanted
  wanted=$(fingerprint "$package")
  if [[ -z $force && -f $stamp && -d install/$package && $(<"$stamp") == "$wanted" ]]; then
    echo "$package is up to date"
    return
  fi
  # CMake remembers the paths of whatever ROS it found first; a package this small is built afresh.
  rm -rf "$stamp" "build/$package" "install/$package"
  colcon_build "$package"
  echo "$wanted" > "$stamp"
}

mkdir -p build
exec 9> build/.lock
flock 9 # two builds at once would remove each other's files

build_package nfpo_msgs
if $wheels; then
  build_package tf2_msgs
  "$python" tools/link_interfaces.py install nfpo_msgs tf2_msgs
fi
build_package nfpo_deploy
