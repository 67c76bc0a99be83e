#!/usr/bin/env bash
# Run the tests: first on all cores, then those of single ROS nodes beside each other (`bench`), then one by one those
# whose whole graph runs in real time (`alone`).
# Arguments go to pytest:  scripts/test.sh tests/deploy -k gate          NFPO_SLOW=1 adds what takes minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

chosen="${NFPO_SLOW:+slow or not slow}"
chosen="${chosen:-not slow}"
NOTHING_CHOSEN=5

# A test that hangs inside a library hears no signal, so pytest-timeout cannot end it: say where, and end the part.
hang=()
[ -n "${NFPO_SLOW:-}" ] || hang=(-o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true)

failed=0
nothing=$NOTHING_CHOSEN

run() {
  status=0
  scripts/run python -m pytest "${hang[@]}" "$@" || status=$?
  # A choice may lie wholly in one of the parts.
  [ "$status" -eq $NOTHING_CHOSEN ] && return
  nothing=0
  [ "$status" -eq 0 ] || failed=$status
}

# One more than there are cores: many tests wait for processes of their own.
run -n "$(($(nproc) + 1))" --dist loadfile -m "($chosen) and not alone and not bench" "$@"
run -n 3 --dist loadfile -m "($chosen) and bench" "$@"
run -m "($chosen) and alone" "$@"
exit $((failed ? failed : nothing))
