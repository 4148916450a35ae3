# The yard: a network and mounts of its own, and all hosts of one fleet in it. Runs in namespaces that were made for it, so that
# nothing of this machine is changed, and ends with its stdin, the owner's end of which the kernel closes whatever becomes of
# the owner. It is the first of its processes, so that the kernel ends all others with it, however it ends.
#
# The owner writes one request a line, and is answered with what it prints and a last line `.end STATUS`.
#
#   /mnt/HOST/upper   what differs on the host's root from this machine's
#   /mnt/HOST/own     folders that are the host's alone
#   /mnt/HOST/init    its first process, as the yard counts; /mnt/HOST/machine_pid as this machine does
#   /mnt/machine      this machine's /proc: the yard has one of its own
#   /mnt/groups       control groups, of which each host with a systemd has its own: fleet-YARD-HOST
#   /mnt/keys         the head's key
set -u
umask 022
host_script=$1
# Folders that begin empty.
OWN='root home opt usr/local srv tmp var/tmp work etc/systemd/system etc/ssh etc/sudoers.d'

fail() { echo "$*"; return 1; }

# The network: `br0` has everything, `br1` what only the jump host reaches.
lay_out() {
    mount --make-rprivate / && mount -t tmpfs -o mode=755 yard /mnt || return 1
    mkdir /mnt/machine && mount --bind /proc /mnt/machine && mount -t proc proc /proc || return 1
    read -r yard _ </mnt/machine/self/stat
    mkdir -p /mnt/groups/systemd /mnt/groups/unified || return 1
    mount -t cgroup -o none,name=systemd cgroup /mnt/groups/systemd && mount -t cgroup2 cgroup2 /mnt/groups/unified || return 1
    sweep
    ip link set lo up
    for bridge in br0 br1; do
        ip link add $bridge type bridge && ip link set $bridge up || return 1
    done
    nft -f - <<'NFT' || return 1
table bridge fleet {
    set no_udp { type ifname; }
    set cut { type ifname; }
    chain forward {
        type filter hook forward priority 0
        iifname @cut drop
        oifname @cut drop
        iifname @no_udp ip protocol udp drop
        oifname @no_udp ip protocol udp drop
        jump loss
    }
    chain loss {
    }
}
NFT
    mkdir /mnt/keys && ssh-keygen -q -t ed25519 -N '' -C head -f /mnt/keys/id_ed25519
    : >/mnt/hosts
    : >/mnt/known_hosts
}

# make HOST ADDRESS BRIDGE [OPTION ...]: a host that was never booted. Options: systemd.
make() {
    name=$1 address=$2 bridge=$3
    shift 3
    disk=/mnt/$name
    mkdir "$disk" && mount -t tmpfs -o mode=755,size=2g "$name" "$disk" || return 1
    mkdir "$disk/upper" "$disk/work" "$disk/root"
    for folder in $OWN; do
        mkdir -p "$disk/own/$folder"
        echo "$folder"
    done >"$disk/own.list"
    : >"$disk/files"
    mkdir "$disk/own/usr/local/bin" "$disk/own/usr/local/lib"
    chmod 700 "$disk/own/root"
    chmod 1777 "$disk/own/tmp" "$disk/own/var/tmp"
    chmod 755 "$disk/own/etc/sudoers.d"
    echo "$address" >"$disk/address"
    echo "$bridge" >"$disk/bridge"
    echo "$*" >"$disk/options"
    etc=$disk/upper/etc
    mkdir -p "$etc"
    cp -a /etc/passwd /etc/group /etc/shadow /etc/gshadow "$etc/"
    touch "$etc/subuid" "$etc/subgid"
    sed -i '/^ada:/d' "$etc/passwd" "$etc/group" "$etc/shadow" "$etc/gshadow"
    echo 'ada:x:1815:1815:Ada:/home/ada:/bin/bash' >>"$etc/passwd"
    echo 'ada:x:1815:' >>"$etc/group"
    echo 'ada:!::' >>"$etc/gshadow"
    sed -i 's/^root:[^:]*/root:*/' "$etc/shadow"
    echo 'ada:*:19000:0:99999:7:::' >>"$etc/shadow"
    case $* in *systemd*)
        mkdir "$disk/own/etc/systemd/system/multi-user.target.wants"
        ln -s /lib/systemd/system/ssh.service "$disk/own/etc/systemd/system/multi-user.target.wants/"
        ;;
    esac
    echo "$name" >"$etc/hostname"
    cat /proc/sys/kernel/random/uuid | tr -d - >"$etc/machine-id"
    echo 'ada ALL=(ALL) NOPASSWD: ALL' >"$disk/own/etc/sudoers.d/ada"
    chmod 440 "$disk/own/etc/sudoers.d/ada"
    for home in root home/ada; do
        mkdir -p "$disk/own/$home/.ssh"
        chmod 700 "$disk/own/$home/.ssh"
        cp /mnt/keys/id_ed25519.pub "$disk/own/$home/.ssh/authorized_keys"
    done
    chown -R 1815:1815 "$disk/own/home/ada"
    new_host_key "$name"
    known "$name" >>/mnt/known_hosts
    echo "$address $name" >>/mnt/hosts
    sshd_config "$name" ''
}

new_host_key() {
    key=/mnt/$1/own/etc/ssh/ssh_host_ed25519_key
    rm -f "$key" "$key.pub"
    ssh-keygen -q -t ed25519 -N '' -C "$1" -f "$key"
}

known() { echo "$1 $(cut -d' ' -f1,2 "/mnt/$1/own/etc/ssh/ssh_host_ed25519_key.pub")"; }

# sshd_config HOST LINES
sshd_config() {
    pam=no
    grep -q systemd "/mnt/$1/options" && pam=yes
    cat >"/mnt/$1/own/etc/ssh/sshd_config" <<CONFIG
$2
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM $pam
UseDNS no
PrintMotd no
Subsystem sftp /usr/lib/openssh/sftp-server
CONFIG
}

# What every host knows of the others, and the head of logging in to them. HOST ... are behind the jump host.
acquaint() {
    { echo 'Host *'; echo '    IdentityFile ~/.ssh/id_ed25519'; } >/mnt/ssh_config
    for name; do printf 'Host %s\n    ProxyJump jump\n' "$name"; done >/mnt/jumps
    for disk in /mnt/*/upper; do
        { echo '127.0.0.1 localhost'; cat /mnt/hosts; } >"$disk/etc/hosts"
        echo 'hosts: files' | cat - /etc/nsswitch.conf | awk '!/^hosts:/ || !seen++' >"$disk/etc/nsswitch.conf"
    done
    for home in root home/ada; do
        ssh=/mnt/head/own/$home/.ssh
        cp /mnt/keys/id_ed25519 /mnt/keys/id_ed25519.pub /mnt/known_hosts "$ssh/"
        cat /mnt/jumps /mnt/ssh_config >"$ssh/config"
    done
    chown -R 1815:1815 /mnt/head/own/home/ada
}

# boot HOST: starts it. Its first process is the only child that `unshare` has.
boot() {
    name=$1 disk=/mnt/$1
    # Known before: what stands behind `&` is to have one child.
    address=$(cat "$disk/address") options=$(cat "$disk/options")
    rm -f "$disk/machine_pid"
    groups=
    case $options in *systemd*) groups=$(enclose "$name") ;; esac
    {
        # Nothing is started here before that, which would be taken for the host's first process.
        for group in $groups; do echo 0 >"$group/cgroup.procs"; done
        exec unshare --fork --kill-child=KILL --pid --mount --uts --ipc --net --cgroup --propagation private \
            bash "$host_script" "$name" "$address" "$options"
    } </dev/null >"$disk/console" 2>&1 &
    unshare=$!
    echo $unshare >"$disk/unshare"
    init=
    until init=$(cat "/proc/$unshare/task/$unshare/children" 2>/dev/null) && [ -n "$init" ]; do
        kill -0 $unshare 2>/dev/null || fail "$name does not start: $(cat "$disk/console")" || return 1
    done
    init=${init%% *}
    echo "$init" >"$disk/init"
    plug "$name" "$(cat "$disk/bridge")" eth0 || fail "$name does not start: $(cat "$disk/console")" || return 1
    [ "$name" != jump ] || plug jump br1 eth1
}

# enclose HOST: makes control groups of its own, and names them. A systemd takes all groups that it sees for its own, and waits until
# nothing is left in them.
enclose() {
    for hierarchy in /mnt/groups/*; do
        mkdir -p "$hierarchy/fleet-$yard-$1" && echo "$hierarchy/fleet-$yard-$1"
    done
}

# What yards that are gone have left of such.
sweep() {
    for group in /mnt/groups/*/fleet-*; do
        owner=${group##*/fleet-}
        [ ! -d "$group" ] || [ -d "/mnt/machine/${owner%%-*}" ] || find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
    done
}

# lend HOST FILE PLACE: a file of this machine, from the next start on.
lend() { echo "$2 ${3#/}" >>"/mnt/$1/files"; }

# plug HOST BRIDGE DEVICE
plug() {
    port=$1-${3#eth}
    ip link add "$port" type veth peer name "$3" netns "$(cat "/mnt/$1/init")" && ip link set "$port" master "$2" up
}

# state HOST: `up` when its sshd listens, `starting`, or `dead` and why. Nothing here waits for long: the owner may be gone.
state() {
    disk=/mnt/$1
    if ! kill -0 "$(cat "$disk/unshare")" 2>/dev/null; then
        echo dead
        cat "$disk/console"
    # While systemd has not started everything, only root may log in.
    elif grep -q ':0016 .* 0A ' "/proc/$(cat "$disk/init")/net/tcp" 2>/dev/null && [ ! -e "/proc/$(cat "$disk/init")/root/run/nologin" ]; then
        echo up
    else
        echo starting
    fi
}

# Without a last packet: the network is gone before anything there could say goodbye.
power_off() {
    for port in "$1-0" "$1-1"; do ip link del "$port" 2>/dev/null; done
    kill -KILL "$(cat "/mnt/$1/init")"
    wait "$(cat "/mnt/$1/unshare")" 2>/dev/null
    rm -f "/mnt/$1/init" "/mnt/$1/machine_pid"
}

# machine_pid HOST: nothing where it is off.
machine_pid() { cat "/mnt/$1/machine_pid" 2>/dev/null; return 0; }

cut_off() { gather cut "$1"; }
heal() { scatter cut "$1"; }
drop_udp() { gather no_udp "$1"; }
pass_udp() { scatter no_udp "$1"; }

# gather SET HOST, scatter SET HOST: whether or not it is in there.
gather() { nft add element bridge fleet "$1" "{ $2-0, $2-1 }"; }
scatter() { gather "$1" "$2" && nft delete element bridge fleet "$1" "{ $2-0, $2-1 }"; }

# loss HOST PERCENT: all such rules are written anew, in one step. ARP passes, since it waits a second before it tries again.
loss() {
    echo "$2" >"/mnt/$1/loss"
    {
        echo 'flush chain bridge fleet loss'
        for disk in /mnt/*/loss; do
            disk=${disk%/loss}
            host=${disk#/mnt/}
            for side in iifname oifname; do
                echo "add rule bridge fleet loss $side { $host-0, $host-1 } ether type ip numgen random mod 100 < $(cat "$disk/loss") drop"
            done
        done
    } | nft -f -
}

# No byte more than is taken now.
fill_disk() { mount -o remount,size="$(df --output=used -k "/mnt/$1" | tail -1 | tr -d ' ')k" "/mnt/$1"; }
free_disk() { mount -o remount,size=2g "/mnt/$1"; }

# All that is on the host and not on every machine, one a line: path, kind, mode, owner, size or target, and what files hold.
# What is in memory is there while the host is up. Left out: what logins and boots alone leave, and the backups that the system's
# own tools make of /etc/passwd and its like.
listing() {
    disk=/mnt/$1
    list "$disk/upper" '' && list "$disk/own" '' || return 1
    [ -e "$disk/init" ] || return 0
    root=/proc/$(cat "$disk/init")/root
    list "$root/run" run/ && list "$root/dev/shm" dev/shm/
}

# list FOLDER PREFIX
list() {
    cd "$1" || return 1
    find . -mindepth 1 -type d -printf "$2%P %y %m %U:%G\n" -o -type f -printf "$2%P %y %m %U:%G %s " -exec sh -c 'md5sum <"$1"' - {} \; \
        -o -printf "$2%P %y %m %U:%G %l\n" | while read -r path rest; do
        case $path in
            etc/*- | etc/.pwd.lock | var/log/* | var/lib/systemd/* | var/lib/sudo/* | *tmp/systemd-private-*) continue ;;
            run/boot_id | run/sshd* | run/sudo* | run/lock | run/utmp | run/motd*) continue ;;
            run/systemd* | run/user* | run/log* | run/udev* | run/dbus* | run/credentials* | run/initctl | run/mount* | run/shm) continue ;;
        esac
        # A folder that everybody has is copied when something in it changes, and stays.
        case $rest in d*) [ "$1" = "$disk/upper" ] && [ -d "/$path" ] && continue ;; esac
        echo "/$path $rest"
    done
    cd /
}

lay_out || exit 1
echo .ready 2>/dev/null
while read -r request; do
    eval "$request" </dev/null
    echo ".end $?" 2>/dev/null || break
done
