#!/usr/bin/env bash
# Run the tests: first on all cores, then one by one those whose whole graph runs in real time (`alone`).
# Arguments go to pytest:  scripts/test.sh tests/deploy -k gate          NFPO_SLOW=1 adds what takes minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

chosen="${NFPO_SLOW:+slow or not slow}"
chosen="${chosen:-not slow}"
NOTHING_CHOSEN=5

run() {
  status=0
  scripts/run python -m pytest "$@" || status=$?
}

# One more than there are cores: many tests wait for processes of their own.
run -n "$(($(nproc) + 1))" --dist loadfile -m "($chosen) and not alone" "$@"
first=$status
run -m "($chosen) and alone" "$@"
# A choice may lie wholly in one of the two parts.
if [ "$first" -eq $NOTHING_CHOSEN ]; then
  exit "$status"
fi
[ "$status" -ne $NOTHING_CHOSEN ] || status=0
exit $((first > status ? first : status))
