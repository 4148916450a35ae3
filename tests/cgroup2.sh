#!/bin/sh
# Cgroups of the kernel's second interface, on a kernel that has them: User-Mode Linux (Debian's package user-mode-linux), which sees
# this machine's files, read only, and nothing else of it. `make test-cgroup2`; half a minute.
#
#   tests/cgroup2.sh PROGRAM [LINUX]    the fleetpool to test, the kernel [linux.uml]
#
# Started as the first process there, it is the test.
set -u

if [ $$ -ne 1 ]; then
    kernel=$(command -v "${2:-linux.uml}") || { echo "install user-mode-linux" >&2; exit 1; }
    said=$(mktemp) && trap 'rm -f "$said"' EXIT
    timeout 180 "$kernel" mem=700M rootfstype=hostfs rootflags=/ ro init="$(realpath "$0")" FLEETPOOL="$(realpath "$1")" \
        con=null con0=null,fd:1 quiet </dev/null 2>/dev/null >"$said"
    sed -n '/^== /,$p' "$said" | tr -d '\r'
    grep -q '^== passed' "$said"
    exit
fi

PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH TMPDIR=/run
exec >/dev/console 2>/dev/null </dev/null
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t tmpfs tmp /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
leave() { sync; echo o >/proc/sysrq-trigger; sleep 60; }
fail() { echo "== FAILED: $*"; tail -n 20 /run/test/*.log; leave; }
# is WHAT EXPECTED FOUND
is() { if [ "$2" = "$3" ]; then echo "== $1: $3"; else fail "$1: expected [$2], found [$3]"; fi; }
until_true() { tries=0; until eval "$2"; do tries=$((tries + 1)); [ $tries -lt 200 ] || fail "waited in vain: $1"; sleep 0.1; done; }

echo "== Linux $(uname -r), controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
folder=/run/test root=/sys/fs/cgroup unit=/sys/fs/cgroup/unit.service
mkdir $folder && chmod 755 $folder
export HOME=$folder XDG_CONFIG_HOME=$folder FLEETPOOL_IDENTITY=$folder/identity
# As systemd delegates a unit to its user.
echo '+memory +pids' >$root/cgroup.subtree_control
mkdir $unit && chown 1:1 $unit $unit/cgroup.procs $unit/cgroup.subtree_control $unit/cgroup.threads
mkdir $folder/a1 && chown 1:1 $folder/a1
as_user='setpriv --reuid=1 --regid=1 --clear-groups -- env FLEETPOOL_IDENTITY=/run/test/a1'

"$FLEETPOOL" init --name test >$folder/init.log
"$FLEETPOOL" coordinator --listen 127.0.0.1:7700 2>$folder/coordinator.log &
until_true 'the coordinator' 'grep -q "listens on" $folder/coordinator.log'
export FLEETPOOL_CLUSTER=127.0.0.1:7700
"$FLEETPOOL" token create >$folder/token && chmod 644 $folder/token
sh -c 'echo 0 >"$0/cgroup.procs"; exec "$@"' $unit $as_user "$FLEETPOOL" spawner 2>$folder/spawner.log &
spawner=$!
agent() { exec $as_user "$FLEETPOOL" agent --coordinator $FLEETPOOL_CLUSTER --name a1 --slots 2 --token-file $folder/token "$@"; }
agent --with-spawner --task-pids 50 --task-memory 64M 2>$folder/agent.log &
agent=$!
fact() { "$FLEETPOOL" hosts --json | sed -n "s/.*\"$1\": \"\\(.*\\)\".*/\\1/p"; }
until_true 'the host is up' '[ "$(fact state)" = up ]'
is containment 'cgroup v2' "$(fact containment)"
is limits '50 processes a task, 0.1 GiB a task, 0.5 GiB for all tasks' "$(fact limits)"

map() { "$FLEETPOOL" map -j "$1" --no-tag --shell "$2" ::: $3; }
# outcomes HOW MANY SCRIPT INPUTS: in the order of the inputs.
outcomes() {
    "$FLEETPOOL" map -j "$1" --json -k --shell "$2" ::: $3 | sed 's/.*"outcome":"\([a-z_]*\)".*/\1/' | tr '\n' ' '
}
is 'leaves of two slots' 2 "$(map 2 'sleep 0.5; cat /proc/self/cgroup; : {}' '1 2' | grep -c '^0::/unit.service/fleetpool-[0-9a-f]*/[0-9]*$')"

hog='python3 -c "b\"x\" * 300_000_000"'
outcomes 1 'until [ -e /run/test/go ]; do sleep 0.1; done; kill -KILL $$; : {}' 1 >$folder/neighbour &
neighbour=$!
until_true 'the neighbour runs' '"$FLEETPOOL" hosts --json | grep -q "\"running\": 1"'
is 'a hog, and one that is a child' 'done out_of_memory out_of_memory done ' \
    "$(outcomes 1 "case {} in b) exec $hog;; c) $hog; exit \$?;; esac" 'a b c d')"
: >$folder/go
wait $neighbour
is 'who was killed by somebody else' 'failed ' "$(cat $folder/neighbour)"

"$FLEETPOOL" map -j 1 --json --timeout 4s --shell 'f() { f | f & }; f; sleep 1000; : {}' ::: 1 >$folder/bomb &
bomb=$!
until_true 'a fork bomb is held' 'cat $unit/fleetpool-*/*/pids.events | grep -q "^max [1-9]"'
is 'processes of a fork bomb, and its keeper' 51 "$(cat $unit/fleetpool-*/*/pids.current | sort -n | tail -n 1)"
is 'a task beside it' well "$(map 1 'echo well; : {}' 1)"
wait $bomb

kill $agent && wait $agent
kill $spawner && wait $spawner
is 'cgroups that are left' '' "$(ls -d $unit/*/ 2>/dev/null)$(cat $unit/cgroup.subtree_control)"

# Beside its agent a spawner cannot have any: it says so, and goes on.
sh -c 'echo 0 >"$0/cgroup.procs"; exec sleep 1000' $unit &
sh -c 'echo 0 >"$0/cgroup.procs"; exec "$@"' $unit $as_user "$FLEETPOOL" agent --coordinator $FLEETPOOL_CLUSTER --name a1 --slots 2 --task-pids 50 2>$folder/beside.log &
until_true 'the host is up' '[ "$(fact containment)" = subreaper ]'
is 'an option that is not held' 1 "$(grep -c -e '--task-pids is not held on this host: .*unit of its own' $folder/beside.log)"
is 'cgroups that are left' '' "$(ls -d $unit/*/ 2>/dev/null)"
echo '== passed'
leave
