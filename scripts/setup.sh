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
  walk) EXTRAS="sim,ros" ;;
  test) EXTRAS="train,sim,ros,dev" ;;
  *)
    echo "usage: scripts/setup.sh walk|test" >&2
    exit 2
    ;;
esac
[ "$(uname -s)" = Linux ] || fail "this is $(uname -s); Linux is needed (on Windows: WSL 2, elsewhere: a virtual machine)."

VENV="${NFPO_VENV:-$ROOT/.venv}"
case $VENV in /*) ;; *) VENV="$ROOT/$VENV" ;; esac
export NFPO_VENV="$VENV"
LOG="$VENV/setup.log"
STAMPS="$VENV/nfpo"

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
workspace_digest() { printf '%s\n' "$ROOT" "$VENV" | digest ros2_ws/src ros2_ws/build.sh; }

stamped() { [ -f "$STAMPS/$1" ] && [ "$(cat "$STAMPS/$1")" = "$2" ]; }
stamp() { mkdir -p "$STAMPS" && printf '%s\n' "$2" >"$STAMPS/$1"; }

environment_runs() { [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c 'import pip' 2>/dev/null; }

# "test" holds all of "walk".
packages_ready() {
  environment_runs || return 1
  stamped packages-test "$(packages_digest test)" ||
    { [ "$LEVEL" = walk ] && stamped packages-walk "$(packages_digest walk)"; }
}
workspace_ready() { [ -d ros2_ws/install ] && stamped workspace "$(workspace_digest)"; }

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
  run_step "virtual environment with Python $(python_version "$python")" "Is the disk full?" \
    "$python" -m venv "$VENV"
  run_step "newest pip" "Check the network, or a proxy in pip's configuration." \
    "$VENV/bin/python" -m pip install --no-input -U pip
}

# The binding keeps the path of the library that it was built against. A wheel from pip's cache would point into
# the environment where it was first built, hence the build without cache whenever the path is not ours.
install_cyclonedds() {
  local prefix="$VENV/cyclonedds" found
  link_cyclonedds "$(find_cyclonedds)" "$prefix"
  found="$("$VENV/bin/python" -c 'from cyclonedds.__library__ import library_path as p; print(p)' 2>/dev/null || true)"
  [ "$found" = "$prefix/lib/libddsc.so" ] && return 0
  run_step "Cyclone DDS $CYCLONEDDS_RELEASE binding, from source (about 30 s)" \
    "The compiler's message above says what it lacks." \
    env CYCLONEDDS_HOME="$prefix" "$VENV/bin/python" -m pip install --no-input --no-cache-dir --no-deps \
    --force-reinstall --no-binary cyclonedds "cyclonedds==$CYCLONEDDS_RELEASE"
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

if packages_ready && workspace_ready; then
  exit 0
fi
trap 'say; say "interrupted; the same command goes on from here"; exit 130' INT TERM
trap stop_ticker EXIT

say "Setting up nfpo in $VENV (log: $LOG)"
if ! packages_ready; then
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
fi
if ! workspace_ready; then
  say "[4/4] ROS 2 workspace"
  if [ -x ros2_ws/build.sh ]; then
    run_step "colcon build of ros2_ws (about 1 minute)" "Try: rm -rf ros2_ws/build ros2_ws/install, then again." \
      ros2_ws/build.sh
    stamp workspace "$(workspace_digest)"
  else
    say "      ros2_ws/build.sh is not there: left out"
  fi
fi
say "Ready."
