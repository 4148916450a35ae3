#!/bin/sh
# Puts another version of fleetpool in the place of the one that install.sh has installed, and goes back if its agent does not stay.
# What runs here goes on, where the new version can go on with it (`fleetpool spawner --check`); otherwise it is
# ended: `fleetpool drain HOST` first.
#
#   upgrade.sh [--user] [--dry-run] [--live] PROGRAM     a newer fleetpool; with --live only if nothing is ended by it
#   upgrade.sh [--user] --back                           to the version that was here before
#
# `fleetpool upgrade` runs this over ssh, host by host, first with --live, then after draining, and goes back if it is not heard of again.
[ -n "${over_ssh-}" ] || . "$(dirname "$0")/common.sh"

for_user= dry_run= back= live= source=
for argument; do
    case $argument in
        --user) for_user=yes ;;
        --dry-run) dry_run=yes ;;
        --back) back=yes ;;
        --live) live=yes ;;
        -*) fail "there is no option $argument: see the head of $0" ;;
        *) source=$argument ;;
    esac
done
find_places
[ -e "$conf/agent.conf" ] && [ -n "$(current)" ] || fail "there is no agent installed here: install.sh, or \`fleetpool deploy\`, does that"
before=$(current)
if [ -n "$back" ]; then
    program=$(readlink "$lib/previous") || fail "there is no version before this one"
    [ -x "$lib/$program" ] || fail "the version before this one is gone"
else
    if [ -z "${over_ssh-}" ]; then
        [ -n "$source" ] || fail "name the program to install"
        program_of_file "$source"
    fi
    check_platform
    take_program
fi
# Whether what runs here can go on, as it is found at first.
start=start_agent
if [ "$program" != "$before" ] && [ -z "$dry_run" ] && goes_on "$lib/$program"; then start=replace_agent; fi
if [ "$program" != "$before" ] && [ -z "$dry_run" ] && [ -n "$live" ] && [ $start != replace_agent ]; then
    word drain
    word "done 0"
    exit
fi
if [ "$program" != "$before" ]; then
    did "from $(short "$before") to $(short "$program")"
    if [ -z "$dry_run" ]; then
        switch_to "$program"
        $start
        # A program that cannot even start ends at once.
        sleep 1
        if ! is_active; then
            switch_to "$before"
            $start
            fail "the agent of version $(short "$program") does not stay: version $(short "$before") is back"
        fi
    fi
fi
# Two versions are kept, this one and the one to go back to.
if [ -z "$dry_run" ]; then
    for old in "$lib"/*; do
        case $(basename "$old") in
            "$program" | "$before" | previous | supervise) ;;
            *) rm -f "$old" ;;
        esac
    done
fi
word "done $changes"
