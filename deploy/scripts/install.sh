#!/bin/sh
# Installs fleetpool's agent on this host and starts it; again, changes what is not as it should be, and says so.
#
#   install.sh --coordinator ADDR [OPTION ...] [PROGRAM]
#
#   --coordinator ADDR   where the coordinator is: HOST:PORT
#   --token-file FILE    a join token, needed the first time (`fleetpool token create`)
#   --name NAME          the host's name in the fleet [its hostname]
#   --slots N            tasks at once [one a processor]
#   --label K=V          a label to be selected by (repeatable)
#   --task-pids N        processes and threads that a task may have [15 % of what the kernel allows]
#   --task-memory SIZE   memory that a task may take (512M, 2G) [what is not reserved for the host, all tasks together]
#   --run-as USER        who the agent and its tasks are, made where it is missing [fleetpool]
#   --user               for this user alone, without root
#   --dry-run            only say what would be done
#   PROGRAM              the fleetpool to install [the one on the PATH]
#
# `fleetpool deploy` runs this over ssh: it brings the program, and certifies the key that is made here.
[ -n "${over_ssh-}" ] || . "$(dirname "$0")/common.sh"

name=$(uname -n) slots= labels= pids= memory= run_as=fleetpool for_user= dry_run= coordinator= token_file= enrol= source=
need() { [ $# -ge 2 ] || fail "$1 needs a value"; }
while [ $# -gt 0 ]; do
    case $1 in
        --coordinator) need "$@"; coordinator=$2; shift ;;
        --token-file) need "$@"; token_file=$2; shift ;;
        --name) need "$@"; name=$2; shift ;;
        --slots) need "$@"; slots=$2; shift ;;
        --label) need "$@"; labels="$labels --label $2"; shift ;;
        --task-pids) need "$@"; pids=$2; shift ;;
        --task-memory) need "$@"; memory=$2; shift ;;
        --run-as) need "$@"; run_as=$2; shift ;;
        --user) for_user=yes ;;
        --dry-run) dry_run=yes ;;
        # Over ssh: the key is to be certified anew.
        --enrol) enrol=yes ;;
        -*) fail "there is no option $1: see the head of $0" ;;
        *) source=$1 ;;
    esac
    shift
done
[ -n "$coordinator" ] || fail "--coordinator ADDR says where the coordinator is"
for value in "$coordinator" "$name" "$slots" "$pids" "$memory" "$run_as"; do
    case $value in *[[:space:]]*) fail "\`$value\` has a blank in it" ;; esac
done
find_places
if [ -z "${over_ssh-}" ]; then
    here=$(dirname "$0")
    supervise=$(cat "$here/supervise.sh")
    system_unit=$(cat "$here/../systemd/fleetpool-agent.service")
    user_unit=$(cat "$here/../systemd/fleetpool-agent.user.service")
    system_spawner_unit=$(cat "$here/../systemd/fleetpool-spawner.service")
    user_spawner_unit=$(cat "$here/../systemd/fleetpool-spawner.user.service")
fi
[ -n "$root" ] || run_as=$(id -un)
if [ -z "${over_ssh-}" ]; then
    [ -n "$source" ] || source=$(command -v fleetpool) || fail "name the program to install"
    program_of_file "$source"
fi
check_platform
check_room

# unit_text UNIT
unit_text() {
    case $root$1 in
        yes$unit) text=$system_unit ;;
        yes*) text=$system_spawner_unit ;;
        $unit) text=$user_unit ;;
        *) text=$user_spawner_unit ;;
    esac
    printf '%s\n' "$text" | sed "s,@USER@,$run_as,; s,@BIN@,$bin,; s,@CONF@,$conf,; s,@STATE@,$state,"
}

make_user() {
    if [ -z "$root" ] || id "$run_as" >/dev/null 2>&1; then return; fi
    did "user $run_as"
    [ -z "$dry_run" ] || return 0
    if command -v useradd >/dev/null; then
        useradd --system --user-group --home-dir "$state" --no-create-home --shell /usr/sbin/nologin \
            --comment 'fleetpool agent' "$run_as"
    else
        adduser -S -D -H -h "$state" -s /sbin/nologin "$run_as"
    fi || fail "cannot make the user $run_as: make it, or name another with --run-as"
    : >"$conf/user.made"
}

make_folders() {
    [ -z "$dry_run" ] || return 0
    mkdir -p "$conf" "$state" || fail "cannot make $conf and $state"
}

own_state() {
    [ -z "$dry_run" ] || return 0
    chmod 700 "$state"
    [ -z "$root" ] || chown "$run_as" "$state"
}

is_of_cluster() { [ "$(cat "$identity/ca.pem" 2>/dev/null)" = "$ca" ]; }

# The identity that waits is made beside the one there may be, and takes its place whole.
certify() {
    did "identity $name"
    [ -z "$dry_run" ] || return 0
    new=$state/enrol
    rm -rf "$new"
    request=$(as "$run_as" "$lib/$program" identity request --out "$new") || fail "cannot make a key in $state"
    # What ran under the identity that was here may be said to have ended.
    ended=
    if [ -e "$identity/cert.pem" ] && is_of_cluster && grep -q -- "--name $name\( \|\$\)" "$conf/agent.conf"; then
        stop_agent
        ended=' ended'
    fi
    word "csr$ended"
    printf '%s\n' "$request"
    answer= ends=0
    while [ $ends -lt 2 ]; do
        IFS= read -r line || fail "the connection broke before the key was certified"
        case $line in
            '-----END '*) ends=$((ends + 1)) ;;
            refused) rm -rf "$new"; fail "the coordinator did not certify the key" ;;
        esac
        answer="$answer$line
"
    done
    printf %s "$answer" | as "$run_as" "$lib/$program" identity accept --out "$new" || fail "the certificate is not for this host's key"
    as "$run_as" mkdir -p "$identity"
    for part in key ca cert; do mv -f "$new/$part.pem" "$identity/$part.pem"; done
    rm -rf "$new"
    sync
}

enrol() {
    if [ -n "${over_ssh-}" ]; then
        # Of this cluster, and with months to live.
        if [ -n "$enrol" ] || ! is_of_cluster || [ -z "$(find "$identity/cert.pem" -mtime -180 2>/dev/null)" ]; then
            certify
        fi
    elif [ ! -e "$identity/cert.pem" ]; then
        [ -n "$token_file" ] || fail "this host has no identity yet: --token-file names a join token (\`fleetpool token create\`)"
        did "identity $name, when it starts"
        [ -n "$dry_run" ] || as "$run_as" sh -c 'umask 077; cat >"$1/token"' - "$state" <"$token_file"
        arguments="$arguments --token-file $state/token"
    fi
}

make_folders
make_user
own_state
restart= other=
installed=$(current)
if [ -n "$installed" ] && [ "$installed" != "$program" ] && [ -x "$lib/$installed" ]; then
    # To put another in its place would end what runs on it: that is upgrade.sh's, and drains first.
    word "other $(short "$installed")"
    other=yes
    program=$installed
else
    take_program
    [ -n "$installed" ] || [ -n "$dry_run" ] || switch_to "$program"
fi
# A host that does not reach the coordinator by itself is reached from there: over ssh its caller says by which address.
if ! "$lib/$program" agent --coordinator "$coordinator" --check 2>/dev/null && [ -x "$lib/$program" ]; then
    if [ -n "${over_ssh-}" ]; then
        word unreachable
        IFS= read -r answer || fail "the connection broke"
        case $answer in
            'by '*) coordinator=${answer#by } labels="$labels --tunnelled" ;;
        esac
    else
        word "note $coordinator cannot be reached from here by TCP"
    fi
fi
arguments="--coordinator $coordinator --name $name${slots:+ --slots $slots}${pids:+ --task-pids $pids}${memory:+ --task-memory $memory}$labels"
enrol
if printf 'FLEETPOOL_AGENT_USER=%s\nFLEETPOOL_AGENT_ARGS=%s\n' "$run_as" "$arguments" | write "$conf/agent.conf" 644; then
    did configuration
    restart=yes
fi
anew=
if [ -n "$systemd" ]; then
    for each in $spawner_unit $unit; do
        # Those of this version are not for another one.
        if [ -z "$other" ] && unit_text $each | write "$units/$each" 644; then
            did "unit $each"
            anew=yes
        fi
    done
elif [ -z "$other" ] && printf '%s\n' "$supervise" | write "$lib/supervise" 755; then
    did supervisor
    anew=yes
fi
[ $changes -eq 0 ] || restart=yes
if [ -n "$restart" ] || ! is_active; then
    did 'agent started'
    if [ -n "$dry_run" ]; then
        :
    elif [ -z "$anew" ] && goes_on "$lib/$program"; then
        # What runs here need not end for it.
        replace_agent
    else
        start_agent
    fi
fi
if [ -z "$root" ] && [ -n "$systemd" ] && [ "$(loginctl show-user "$run_as" -p Linger --value 2>/dev/null)" != yes ]; then
    if [ -n "$dry_run" ] || loginctl enable-linger 2>/dev/null; then
        did 'linger, so that it runs without a login'
    else
        word "note the agent ends with the last login of $run_as: an administrator may \`loginctl enable-linger $run_as\`"
    fi
fi
[ -n "$systemd" ] || word 'note there is no systemd here: the agent does not start by itself after a boot'
word "done $changes"
