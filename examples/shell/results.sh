#!/usr/bin/env bash
# Results in the order of the inputs (-k), whichever ends first.
set -euo pipefail
seq 0 9 | fleetpool map -j 4 -k 'sleep 0.0$((9 - {})); echo "::: done hello {}"'
echo 'Sub-process(es) done.'
