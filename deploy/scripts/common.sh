# What install.sh, upgrade.sh and uninstall.sh have in common: where things are, and how a word is said to whoever started them.
# POSIX sh, for hosts that have nothing more.
umask 022
PATH=$PATH:/usr/sbin:/sbin

fail() {
    echo "fleetpool: $*" >&2
    exit 1
}

# Over ssh each word stands on a line of its own behind this mark, so that whatever else a login prints is not taken for one.
if [ -n "${over_ssh-}" ]; then
    word() { printf '\nfleetpool:%s\n' "$*"; }
else
    word() { echo "$*"; }
fi

changes=0
# did WHAT: something was changed, or with --dry-run would be.
did() {
    changes=$((changes + 1))
    word "did $*"
}

# Where everything is. Root installs for the machine, anybody else, or root with --user, for themselves.
find_places() {
    if [ "$(id -u)" -eq 0 ] && [ -z "${for_user-}" ]; then
        root=yes
        lib=/usr/local/lib/fleetpool
        bin=/usr/local/bin/fleetpool
        conf=/etc/fleetpool
        state=/var/lib/fleetpool
        units=/etc/systemd/system
        control=systemctl
    else
        root=
        [ -n "${HOME:-}" ] || fail "there is no home folder to install to"
        lib=$HOME/.local/lib/fleetpool
        bin=$HOME/.local/bin/fleetpool
        conf=${XDG_CONFIG_HOME:-$HOME/.config}/fleetpool
        state=${XDG_STATE_HOME:-$HOME/.local/state}/fleetpool
        units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
        control='systemctl --user'
        # A login without a session of its own has no bus named in its environment.
        : "${XDG_RUNTIME_DIR:=/run/user/$(id -u)}"
        export XDG_RUNTIME_DIR
    fi
    identity=$state/agent
    log=$state/agent.log
    pid_file=$state/agent.pid
    unit=fleetpool-agent.service
    spawner_unit=fleetpool-spawner.service
    if [ -d /run/systemd/system ] && $control show-environment >/dev/null 2>&1; then
        systemd=yes
    else
        systemd=
    fi
}

# The user that the agent, and all that it runs, is.
agent_user() { sed -n 's/^FLEETPOOL_AGENT_USER=//p' "$conf/agent.conf" 2>/dev/null; }

# as USER COMMAND...: as that user, who may have no shell. `exec=exec as …` in a subshell leaves no shell behind.
as() {
    user=$1
    shift
    if [ "$user" = "$(id -un)" ]; then
        ${exec-} "$@"
    elif command -v setpriv >/dev/null; then
        ${exec-} setpriv --reuid="$user" --regid="$(id -gn "$user")" --init-groups -- \
            env HOME="$(eval echo "~$user")" USER="$user" LOGNAME="$user" "$@"
    else
        command=
        for argument; do
            command="$command '$(printf %s "$argument" | sed "s/'/'\\\\''/g")'"
        done
        ${exec-} su -s /bin/sh "$user" -c "$command"
    fi
}

# The agent's supervisor, where there is no systemd: alive, and no other process that has got its number.
supervisor() {
    pid=$(cut -d' ' -f1 "$pid_file" 2>/dev/null) && [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null &&
        tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q fleetpool/supervise && echo "$pid"
}

is_active() {
    if [ -n "$systemd" ]; then
        $control is-active --quiet $unit
    else
        agent=$(cut -d' ' -f2 "$pid_file" 2>/dev/null)
        [ -n "$(supervisor)" ] && [ -n "$agent" ] && kill -0 "$agent" 2>/dev/null
    fi
}

# goes_on PROGRAM: whether an agent of that program could take the place of the one that is here while its tasks run.
goes_on() { is_active && as "$(agent_user)" "$1" --identity "$identity" spawner --check 2>/dev/null; }

# Another agent in the place of the one that is here. What runs here goes on.
replace_agent() {
    if [ -n "$systemd" ]; then
        $control restart $unit || fail "$unit does not start: see journalctl -u $unit"
        return
    fi
    before=$(cut -d' ' -f2 "$pid_file")
    kill -TERM "$before" 2>/dev/null
    tries=0
    while [ $tries -lt 150 ]; do
        now=$(cut -d' ' -f2 "$pid_file" 2>/dev/null)
        [ -z "$now" ] || [ "$now" = "$before" ] || return 0
        tries=$((tries + 1))
        sleep 0.1
    done
}

# The agent and its spawner anew. What runs here is ended.
start_agent() {
    if [ -n "$systemd" ]; then
        $control daemon-reload
        for each in $spawner_unit $unit; do
            $control enable --quiet $each 2>/dev/null || $control enable $each >/dev/null
        done
        $control stop $unit 2>/dev/null
        $control restart $spawner_unit || fail "$spawner_unit does not start: see journalctl -u $spawner_unit"
        $control start $unit || fail "$unit does not start: see journalctl -u $unit"
    else
        stop_agent
        user=$(agent_user)
        # Away from the connection that it is started by.
        (exec=exec as "$user" setsid "$lib/supervise" "$bin" "$conf/agent.conf" "$identity" "$pid_file" "$log") </dev/null >/dev/null 2>&1 &
    fi
}

stop_agent() {
    if [ -n "$systemd" ]; then
        for each in $unit $spawner_unit; do
            ! $control is-active --quiet $each || $control stop $each
        done
        return
    fi
    pid=$(supervisor) || return 0
    kill -TERM "$pid" 2>/dev/null
    tries=0
    while kill -0 "$pid" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || { kill -KILL "$pid"; break; }
        sleep 0.1
    done
}

# Durable, and in one step: whoever finds the file finds all of it, also after a power cut.
settle() {
    sync "$1" 2>/dev/null || sync
    mv -f "$1" "$2" || fail "cannot write $2"
    sync "$(dirname "$2")" 2>/dev/null || :
}

# write FILE MODE: what comes by stdin, unless it is there already. Whether something was changed.
write() {
    text=$(cat)
    [ "$(cat "$1" 2>/dev/null)" != "$text" ] || return 1
    [ -z "${dry_run-}" ] || return 0
    mkdir -p "$(dirname "$1")" || fail "cannot make $(dirname "$1")"
    printf '%s\n' "$text" >"$1.new" || fail "cannot write $1: $(room "$1")"
    chmod "$2" "$1.new"
    settle "$1.new" "$1"
}

room() { df -Ph "$(dirname "$1")" 2>/dev/null | awk 'NR == 2 { print $4 " free on " $6 }'; }

# Before anything is changed: whether the program, where it is not here yet, finds room.
check_room() {
    [ ! -x "$lib/$program" ] || return 0
    place=$lib
    while [ ! -d "$place" ]; do place=$(dirname "$place"); done
    free=$(df -Pk "$place" 2>/dev/null | awk 'NR == 2 { print $4 }')
    # Where nobody can say, it is tried.
    [ -z "$free" ] || [ "$free" -ge $((size / 1024)) ] ||
        fail "cannot write the program to $lib: $(room "$place/."), and it takes $((size / 1048576 + 1))M"
}

check_platform() {
    host_platform=$(uname -sm)
    [ "$host_platform" = "$platform" ] ||
        fail "this host is $host_platform and the program is made for $platform: deploy from a machine like this host, or name a program for it with --program"
}

# Brings the program here, where it is not yet: $program is its hash; by hand $file is it.
take_program() {
    [ ! -x "$lib/$program" ] || [ "$(wc -c <"$lib/$program")" -ne "$size" ] || return 0
    did "program $(short "$program")"
    [ -z "${dry_run-}" ] || return 0
    mkdir -p "$lib" || fail "cannot make $lib"
    part=$lib/$program.part.$$
    trap 'rm -f "$part"' EXIT
    trap 'exit 1' HUP INT TERM
    if [ -n "${over_ssh-}" ]; then
        word need
        head -c "$size" >"$part"
    else
        cat "$file" >"$part"
    fi || fail "cannot write the program to $lib: $(room "$part")"
    [ "$(wc -c <"$part")" -eq "$size" ] || fail "the connection broke while the program was sent"
    chmod 755 "$part"
    # Before anything counts on it.
    "$part" --version >/dev/null || fail "the program does not run here"
    settle "$part" "$lib/$program"
    trap - EXIT HUP INT TERM
}

short() { printf %.12s "$1"; }

# What the name of the program leads to: a hash.
current() { basename "$(readlink "$bin" 2>/dev/null)"; }

# switch_to HASH: in one step; what there was can be gone back to.
switch_to() {
    mkdir -p "$(dirname "$bin")"
    if [ -n "$(current)" ] && [ "$(current)" != "$1" ]; then
        ln -sfn "$(current)" "$lib/previous"
    fi
    ln -sfn "$lib/$1" "$bin.new" && mv -f "$bin.new" "$bin" || fail "cannot write $bin"
}

# By hand: the file's hash is whatever names it well enough.
program_of_file() {
    [ -f "$1" ] || fail "there is no program $1"
    file=$1
    size=$(wc -c <"$file")
    size=$((size))
    program=$(sha256sum <"$file" | cut -d' ' -f1)
    platform=$(uname -sm)
}
