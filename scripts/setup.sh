#!/usr/bin/env bash
# Make the environment ready: system packages, Cyclone DDS 0.10, virtual environment, Python packages, the
# colcon build of ros2_ws. Both make targets call it; run again, it finds everything done within a second.
#
#   scripts/setup.sh walk    what the simulated robot and the ROS 2 graph need; no torch
#   scripts/setup.sh test    everything: training and the developer's tools too
#
#   NFPO_PYTHON      interpreter for the environment (3.10 to 3.13)
#   NFPO_VENV        where the environment lies (default .venv)
#   CYCLONEDDS_HOME  prefix of a Cyclone DDS 0.10.x of your own
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

LEVEL="${1:-}"
case $LEVEL in
  walk) EXTRAS="sim,ros,web" ;;
  test) EXTRAS="train,sim,ros,web,dev" ;;
  *)
    echo "usage: scripts/setup.sh walk|test" >&2
    exit 2
    ;;
esac
[ "$(uname -s)" = Linux ] || fail "this is $(uname -s); Linux is needed (on Windows: WSL 2, elsewhere: a virtual machine)."
# The ROS 2 wheels exist for x86_64 alone.
[ "$(uname -m)" = x86_64 ] || fail "this is $(uname -m), for which no ROS 2 wheels are published. Install ROS 2 itself" \
  "and follow docs/deploy_on_robot.md, section 'On an ARM computer'."

VENV="${NFPO_VENV:-$ROOT/.venv}"
case $VENV in /*) ;; *) VENV="$ROOT/$VENV" ;; esac
LOG="$VENV/setup.log"
STAMPS="$VENV/nfpo"
export VIRTUAL_ENV="$VENV"
# Set by the environment itself, so that programs find the library there; it is not a prefix of the user's own.
[ "${CYCLONEDDS_HOME:-}" != "$VENV/cyclonedds" ] || unset CYCLONEDDS_HOME
# A prefix of the user's own is remembered, so that it need not be exported again in every shell.
remembered="$(cat "$STAMPS/cyclonedds" 2>/dev/null || true)"
if [ -z "${CYCLONEDDS_HOME:-}" ] && [ -n "$remembered" ] && [ "$remembered" != /usr ] && cyclonedds_usable "$remembered"; then
  export CYCLONEDDS_HOME="$remembered"
fi

# A sourced ROS installation must not leak another rclpy into the environment.
if [ -n "${ROS_DISTRO:-}" ]; then
  say "note: the sourced ROS 2 '$ROS_DISTRO' is not used here; docs/launching.md says how to run on it"
fi
unset PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH COLCON_PREFIX_PATH CMAKE_PREFIX_PATH

# Two set-ups at a time would undo each other; the second one waits and then finds the work done.
exec 9<"$ROOT/pyproject.toml"
if command -v flock >/dev/null 2>&1 && ! flock -n 9; then
  say "another set-up of this clone is running; waiting for it"
  flock 9
fi

packages_digest() {
  printf '%s\n' "$ROOT" "$VENV" "$1" "${CYCLONEDDS_HOME:-}" |
    digest pyproject.toml scripts/setup.sh scripts/lib.sh scripts/constraints.txt
}

stamped() { [ -f "$STAMPS/$1" ] && [ "$(cat "$STAMPS/$1")" = "$2" ]; }
stamp() { mkdir -p "$STAMPS" && printf '%s\n' "$2" >"$STAMPS/$1"; }

environment_runs() { [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c 'import pip' 2>/dev/null; }

# "test" holds all of "walk".
packages_ready() {
  environment_runs || return 1
  stamped packages-test "$(packages_digest test)" ||
    { [ "$LEVEL" = walk ] && stamped packages-walk "$(packages_digest walk)"; }
}

# Ours to rebuild only when an earlier set-up marked it.
check_environment_folder() {
  [ -f "$STAMPS/root" ] && return 0
  [ -z "$(ls -A "$VENV" 2>/dev/null)" ] || environment_runs ||
    fail "$VENV exists but holds no working virtual environment, and no earlier set-up made it." \
      "Move it away, or set NFPO_VENV to another folder."
}

make_environment() {
  local python=$1 log
  if environment_runs && [ "$(cat "$STAMPS/root" 2>/dev/null || echo "$ROOT")" = "$ROOT" ]; then
    python_supported "$(python_version "$VENV/bin/python")" || fail "$VENV holds Python" \
      "$(python_version "$VENV/bin/python"); one of $SUPPORTED_PYTHONS is needed. Remove that folder, or set NFPO_VENV to another."
    return 0
  fi
  log="$(cat "$LOG")"
  rm -rf "$VENV" && mkdir -p "$STAMPS"
  printf '%s\n' "$ROOT" >"$STAMPS/root"
  printf '%s\n' "$log" >"$LOG"
  # Built for the environment that is gone, and perhaps for another Python.
  rm -rf ros2_ws/build ros2_ws/install
  run_step "virtual environment with Python $(python_version "$python")" "Is the disk full?" \
    "$python" -m venv "$VENV"
  run_step "newest pip" "Check the network, or a proxy in pip's configuration." \
    "$VENV/bin/python" -m pip install --no-input -U pip
}

# The binding keeps the path of the library that it was built against. A wheel from pip's cache would point into
# the environment where it was first built, hence the build without cache whenever the path is not ours.
install_cyclonedds() {
  local source prefix="$VENV/cyclonedds" built="$STAMPS/cyclonedds" flags="" found
  source="$(find_cyclonedds)"
  link_cyclonedds "$source" "$prefix"
  # The binding prefers a library on the system's path, of whatever release, unless this variable names one.
  "$VENV/bin/python" - "$prefix" <<'PYTHON'
import sys
import sysconfig
from pathlib import Path

line = f"import os; os.environ.setdefault('CYCLONEDDS_HOME', {sys.argv[1]!r})"
Path(sysconfig.get_path("purelib"), "nfpo_cyclonedds.pth").write_text(line + "\n")
PYTHON
  printf '%s\n' "$source" >"$built"
  found="$("$VENV/bin/python" -c 'from cyclonedds.__library__ import library_path as p; print(p)' 2>/dev/null || true)"
  if [ "$found" = "$prefix/lib/libddsc.so" ] && [ "$(cat "$built" 2>/dev/null || echo "$source")" = "$source" ]; then
    return 0
  fi
  # Python 3.13 renamed the one private function that this release calls; without this it builds but cannot load.
  [ "$(python_version "$VENV/bin/python")" = 3.13 ] && flags="-D_Py_IsFinalizing=Py_IsFinalizing"
  run_step "Cyclone DDS $CYCLONEDDS_RELEASE binding, from source (about 30 s)" \
    "The compiler's message above says what it lacks." \
    env CYCLONEDDS_HOME="$prefix" CFLAGS="${CFLAGS:-} $flags" "$VENV/bin/python" -m pip install --no-input \
    --no-cache-dir --no-deps --force-reinstall --no-binary cyclonedds "cyclonedds==$CYCLONEDDS_RELEASE"
}

install_packages() {
  local time="1 to 3 minutes, 0.4 GB"
  [ "$LEVEL" = test ] && time="2 to 10 minutes; torch alone is 0.2 to 3 GB"
  run_step "nfpo[$EXTRAS] ($time the first time)" "Check the network and run the same command again: it goes on." \
    env CYCLONEDDS_HOME="$VENV/cyclonedds" PIP_NO_BINARY=cyclonedds "$VENV/bin/python" -m pip install --no-input \
    -c scripts/constraints.txt -e ".[$EXTRAS]"
  run_step "check that the parts load" "Remove $VENV and run the same command again." \
    "$VENV/bin/python" -c 'import cyclonedds.internal, mujoco, onnxruntime, rclpy, unitree_sdk2py'
}

trap 'say; say "interrupted; the same command goes on from here"; exit 130' INT TERM
trap stop_ticker EXIT

if ! packages_ready; then
  say "Setting up nfpo in $VENV (log: $LOG)"
  PYTHON="$(find_python)"
  check_environment_folder
  environment_runs || { mkdir -p "$STAMPS" && printf '%s\n' "$ROOT" >"$STAMPS/root"; }
  : >>"$LOG"
  say "[1/4] system packages"
  ensure_system_packages "$PYTHON"
  say "[2/4] virtual environment"
  make_environment "$PYTHON"
  say "[3/4] Python packages"
  install_cyclonedds
  install_packages
  stamp root "$ROOT"
  stamp "packages-$LEVEL" "$(packages_digest "$LEVEL")"
  say "[4/4] ROS 2 workspace"
fi
# It keeps account of what has changed by itself.
run_step "ros2_ws (a second when nothing has changed, else about a minute)" \
  "Try again after: rm -rf ros2_ws/build ros2_ws/install" ros2_ws/build.sh
