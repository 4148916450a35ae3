# Becomes an agent for one run, on a host that needs no more than a shell. Its caller, at the other end of this script's
# stdin and stdout, has set:
#
#   name      what the host is called in the fleet
#   program   the hash of the program that is the agent
#   size      the program's size, in bytes
#   platform  what the program runs on, as `uname -sm` says it
#   verb      the word that makes the program an agent
#
# The program is kept in the user's cache by its hash, and is asked for only where it is not there yet:
#
#   -> fleetpool:need     <- the program's bytes     -> fleetpool:ready     from here on the agent speaks
#
# Each such word stands on a line of its own, so that whatever else a login prints is not taken for it.
umask 077

fail() {
    echo "fleetpool: $*" >&2
    exit 1
}

host_platform=$(uname -sm)
[ "$host_platform" = "$platform" ] ||
    fail "this host is $host_platform and the program is made for $platform: start it from a machine like this host"
[ -n "${HOME:-}" ] || fail "there is no home folder to keep the program in"

folder=${XDG_CACHE_HOME:-$HOME/.cache}/fleetpool/bin
file=$folder/$program

is_here() {
    [ -x "$file" ] && [ "$(wc -c <"$file")" -eq "$size" ]
}

# Durable and in one step: whoever finds the file finds all of it, also after a power cut.
take_in() {
    mkdir -p "$folder" || fail "cannot make $folder"
    # Of this host alone: a home may be that of many.
    own=part.$(uname -n)
    for part in "$folder"/*."$own".*; do
        kill -0 "${part##*.}" 2>/dev/null || rm -f "$part"
    done
    part=$file.$own.$$
    trap 'rm -f "$part"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '\nfleetpool:need\n'
    head -c "$size" >"$part" || fail "cannot write the program to $folder: $(df -Ph "$folder" | awk 'NR == 2 { print $4 " free on " $6 }')"
    [ "$(wc -c <"$part")" -eq "$size" ] || fail "the connection broke while the program was sent"
    chmod 700 "$part"
    sync "$part" 2>/dev/null || sync
    mv -f "$part" "$file" || fail "cannot put the program into $folder"
    trap - EXIT HUP INT TERM
    # A few versions are kept, those used last.
    ls -t "$folder" | tail -n +5 | while read -r old; do rm -f "$folder/$old"; done
}

if is_here; then touch -c "$file"; else take_in; fi
printf '\nfleetpool:ready\n'
exec "$file" "$verb" "$name" "$program"
