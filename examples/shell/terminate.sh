#!/usr/bin/env bash
# The first failure ends what runs, now: an hour of sleep is over in a moment, and nothing of it is left.
set -uo pipefail
fleetpool map -j 2 --halt now,fail=1 sh -c '{}' ::: 'sleep 3600' 'sleep 0.2; exit 3'
echo "ended with status $?"
