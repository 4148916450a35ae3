# A host's first process: lays out its root, starts sshd, and from then on only buries the dead. Arguments: its name, its address
# and its options.
set -eu
name=$1 address=$2 options=$3
disk=/mnt/$name
hostname "$name"
umask 022
read -r machine_pid _ </mnt/machine/self/stat
echo "$machine_pid" >"$disk/machine_pid"

mount -t overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$name" "$disk/root"
cd "$disk/root"
while read -r folder; do
    mkdir -p "$folder"
    mount --bind "$disk/own/$folder" "$folder"
done <"$disk/own.list"
while read -r file place; do
    [ -e "$place" ] || : >"$place"
    mount --bind -o ro "$file" "$place"
done <"$disk/files"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 run run
mkdir run/sshd run/lock
mount -t tmpfs -o mode=755 dev dev
for node in null zero full random urandom tty; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
# Each start of a host is another one, also where the kernel is not.
cat /proc/sys/kernel/random/uuid >run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id

until ip link show eth0 >/dev/null 2>&1; do sleep 0.01; done
ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up
if [ "$name" = jump ]; then
    until ip link show eth1 >/dev/null 2>&1; do sleep 0.01; done
    ip addr add 10.78.0.2/24 dev eth1
    ip link set eth1 up
fi

pivot_root . mnt
cd /
umount -l /mnt
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

case $options in
*systemd*)
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    exec env -i container=fleet PATH="$PATH" /lib/systemd/systemd --log-target=console
    ;;
esac

/usr/sbin/sshd -D -E /var/log/sshd.log &
# Whoever is left without a parent becomes a child of this process. No test sleeps for as long as it does.
while :; do
    sleep 2147483647 &
    wait $! || :
done
