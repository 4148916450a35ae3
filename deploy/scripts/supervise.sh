#!/bin/sh
# Keeps an agent and its spawner running where there is no systemd. Arguments: the program, the agent's configuration, the folder of its
# identity, the file that says which process this is, and a log.
bin=$1 conf=$2 identity=$3 pid_file=$4 log=$5
exec >>"$log" 2>&1
cd "$(dirname "$pid_file")" || exit 1
agent=
# This process, and the agent while it runs.
tell() { echo "$$ $agent" >"$pid_file.new" && mv -f "$pid_file.new" "$pid_file"; }
tell
# What commands run below: it stays when the agent is replaced.
(
    spawner=
    trap 'trap "" TERM; [ -z "$spawner" ] || { kill -TERM "$spawner" && wait "$spawner"; }; exit 0' TERM
    trap '' INT HUP
    while :; do
        "$bin" --identity "$identity" spawner &
        spawner=$!
        wait "$spawner"
        spawner=
        sleep 1 &
        wait $!
    done
) &
spawner_keeper=$!
finish() {
    trap - TERM INT HUP
    [ -z "$agent" ] || { kill -TERM "$agent" && wait "$agent"; } 2>/dev/null
    { kill -TERM "$spawner_keeper" && wait "$spawner_keeper"; } 2>/dev/null
    rm -f "$pid_file"
    exit 0
}
trap finish TERM INT HUP
while :; do
    # A log of this size is begun anew.
    [ "$(wc -c <"$log")" -lt 16000000 ] || : >"$log"
    arguments=$(sed -n 's/^FLEETPOOL_AGENT_ARGS=//p' "$conf")
    # Words without blanks in them: they were checked when they were written.
    # shellcheck disable=SC2086
    "$bin" --identity "$identity" agent --with-spawner $arguments &
    agent=$!
    tell
    wait "$agent"
    status=$?
    agent=
    tell
    # One that was told to end is replaced.
    [ $status -eq 0 ] && continue
    sleep 2 &
    wait $!
done
