#!/usr/bin/env bash
# Four messages, three slots: the fourth begins when one of the first three has ended.
set -euo pipefail
fleetpool map -j 3 --line-buffer 'echo message: {}; sleep 0.3; echo end' ::: 'hello 0' 'hello 1' 'hello 2' 'hello 3'
echo 'Sub-process(es) done.'
