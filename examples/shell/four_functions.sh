#!/usr/bin/env bash
# Four different commands in one pool of four: the input is what the shell is to run.
set -euo pipefail
fleetpool map -j 4 -k sh -c '{}' <<'COMMANDS'
echo "Run task Lee-$$"; sleep 0.04; echo 'Task Lee runs 40 ms.'
echo "Run task Marlon-$$"; sleep 0.03; echo 'Task Marlon runs 30 ms.'
echo "Run task Allen-$$"; sleep 0.02; echo 'Task Allen runs 20 ms.'
echo "Run task Frank-$$"; sleep 0.01; echo 'Task Frank runs 10 ms.'
COMMANDS
echo 'All subprocesses done.'
