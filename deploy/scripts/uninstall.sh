#!/bin/sh
# Ends fleetpool's agent on this host and takes away all that install.sh has put there.
#
#   uninstall.sh [--user] [--dry-run]
#
# `fleetpool undeploy` runs this over ssh, and revokes the identity that was here.
[ -n "${over_ssh-}" ] || . "$(dirname "$0")/common.sh"

for_user= dry_run=
for argument; do
    case $argument in
        --user) for_user=yes ;;
        --dry-run) dry_run=yes ;;
        *) fail "there is no option $argument: see the head of $0" ;;
    esac
done
find_places
run_as=$(agent_user)

remove() {
    for path; do
        [ -e "$path" ] || [ -L "$path" ] || continue
        did "removed $path"
        [ -n "$dry_run" ] || rm -rf "$path" || fail "cannot remove $path"
    done
}

if is_active; then
    did 'agent stopped'
    [ -n "$dry_run" ] || stop_agent
fi
if [ -n "$systemd" ]; then
    for each in $unit $spawner_unit; do
        [ -e "$units/$each" ] || continue
        [ -n "$dry_run" ] || $control disable --now --quiet $each 2>/dev/null
        remove "$units/$each"
        [ -n "$dry_run" ] || { $control daemon-reload; $control reset-failed $each 2>/dev/null; }
    done
fi
made_user=
[ ! -e "$conf/user.made" ] || made_user=yes
# The name only where it is ours: anybody may have put another fleetpool there.
case $(readlink "$bin" 2>/dev/null) in "$lib"/*) remove "$bin" ;; esac
# The configuration of a user is in the same folder.
if [ -n "$root" ]; then remove "$lib" "$state" "$conf"; else remove "$lib" "$state" "$conf/agent.conf"; fi
if [ -n "$made_user" ] && id "$run_as" >/dev/null 2>&1; then
    did "removed the user $run_as"
    if [ -z "$dry_run" ]; then
        # Somebody of its may be about to be gone.
        tries=0
        until userdel "$run_as" 2>/dev/null || deluser "$run_as" 2>/dev/null; do
            tries=$((tries + 1))
            [ $tries -lt 50 ] || fail "cannot remove the user $run_as: something of it still runs"
            sleep 0.1
        done
    fi
fi
# Folders that were made for it, where nothing else is in them.
if [ -z "$root" ] && [ -z "$dry_run" ]; then
    for folder in "$conf" "$(dirname "$lib")" "$(dirname "$bin")" "$(dirname "$state")" "$units/default.target.wants" "$units" \
        "$(dirname "$units")" "$HOME/.local" "$(dirname "$conf")"; do
        rmdir "$folder" 2>/dev/null
    done
fi
word "done $changes"
