#!/usr/bin/env bash
# Operating on many directories at once: how many entries each has, tagged with its name.
set -euo pipefail
fleetpool map -k --tag 'ls -A {} | wc -l' ::: "$@"
