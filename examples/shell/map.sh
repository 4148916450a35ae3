#!/usr/bin/env bash
# map over range(8).
set -euo pipefail
seq 0 7 | fleetpool map -j 2 -k 'echo $(( {} * {} ))'
