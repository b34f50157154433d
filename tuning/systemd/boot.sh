#!/bin/sh
# Boots a real systemd, as the first process of namespaces of its own over this host's files, and has it run the server from its
# units: boot.sh BINARY. It shows what no test with a part of systemd can: that the server works inside its sandbox, that sockets and
# watchdog do what they are for, and that an apply nobody confirms is reverted by a transient service. Needs root, overlayfs and cgroup2; nothing
# outlives it, and the host's own settings cannot be written from inside.
set -eu
if [ "${2:-}" != inside ]; then
	binary=$(realpath "$1") out=$(mktemp -d)
	BINARY=$binary OUT=$out timeout 180 unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child sh "$0" "$binary" inside >"$out/console" 2>&1 || true
	if [ ! -e "$out/passed" ]; then
		cat "$out/console" "$out/log" >&2 || true
		rm -rf "$out"
		exit 1
	fi
	sed -n 's/^= //p' "$out/log"
	rm -rf "$out"
	exit
fi

mount --make-rprivate /
over=$(mktemp -d)
mount -t tmpfs tmpfs "$over"
mkdir "$over/upper" "$over/work" "$over/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$over/upper,workdir=$over/work" "$over/root"
cd "$over/root"
install -m 755 "$BINARY" usr/bin/tote-server
mkdir -p etc/tote
printf '[serve]\nguest-credits = 7\n' >etc/tote/server.toml
usr/bin/tote-server tune unit --write usr/lib/systemd/system --binary /usr/bin/tote-server --config-file /etc/tote/server.toml --connections 5000
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mkdir tmp/out
mount --bind "$OUT" tmp/out
mount -t tmpfs tmpfs dev
for device in null zero full random urandom tty; do
	mknod -m 666 "dev/$device" c "$(stat -c '0x%t' /dev/$device)" "$(stat -c '0x%T' /dev/$device)"
done
mknod -m 600 dev/console c 5 1
mkdir dev/shm dev/pts dev/mqueue dev/hugepages
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t mqueue mqueue dev/mqueue
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
rm -f etc/machine-id
echo 0123456789abcdef0123456789abcdef >etc/machine-id
cat >etc/systemd/system/probe.service <<'UNIT'
[Service]
Type=oneshot
TimeoutStartSec=3min
ExecStart=/bin/sh /usr/local/sbin/probe
UNIT
mkdir -p etc/systemd/system/multi-user.target.wants
ln -s ../probe.service etc/systemd/system/multi-user.target.wants/probe.service
cat >usr/local/sbin/probe <<'PROBE'
exec >/tmp/out/log 2>&1
trap 'systemctl poweroff --force --force' EXIT
set -eux
show() { systemctl show --property "$1" --value tote.service; }

systemctl start tote.socket tote-admin.socket
test "$(show ActiveState)" = inactive
tote-server ctl health
test "$(show ActiveState) $(show StatusText)" = "active serving"
echo "= the first knock at a socket starts the server, which says when it is ready"

pid=$(show MainPID)
grep -q 'Seccomp:.2' /proc/$pid/status
grep -q 'CapEff:.0000000000000000' /proc/$pid/status
test "$(stat -c %u /proc/$pid)" != 0
test -d /var/lib/private/tote
echo "= it serves without privileges, behind filters of system calls, as a user made for it"

install -m 755 /usr/bin/tote-server /usr/bin/newer && mv /usr/bin/newer /usr/bin/tote-server
systemctl reload tote.service
heir=$(show MainPID)
test "$heir" != "$pid"
test ! -e "/proc/$pid"
test "$(readlink /proc/$heir/exe)" = /usr/bin/tote-server
test "$(show ActiveState) $(show StatusText) $(show NRestarts)" = "active serving 0"
tote-server ctl health
printf '#!/bin/sh\nexit 5\n' >/usr/bin/broken && chmod 755 /usr/bin/broken
mv /usr/bin/tote-server /usr/bin/good && mv /usr/bin/broken /usr/bin/tote-server
! /usr/bin/good upgrade
mv /usr/bin/good /usr/bin/tote-server
test "$(show MainPID) $(show ActiveState)" = "$heir active"
pid=$heir
echo "= reload has another process take over, which systemd knows; one that does not start changes nothing"

tote-server tune apply --connections 20000 --confirm 4s
systemctl is-active 'tote-tune-guard-*'
test ! -e /etc/security/limits.d/99-tote.conf
for try in $(seq 100); do
	test -e /var/lib/tote-tune || break
	sleep 0.2
done
test ! -e /var/lib/tote-tune
echo "= what nobody confirms is reverted by a transient service"

tote-server tune apply --connections 20000
test "$(show LimitNOFILE)" = 65536
tote-server tune revert
test "$(show LimitNOFILE)" = 16384
echo "= apply and revert reach the running systemd"

tote-server tune vip add 10.77.0.0/28 --device lo --lasting
tote-server tune vip list | grep -q 'at every boot; room'
ip address flush dev lo to 10.77.0.0/28
systemctl start tote-vip.service
test "$(ip -o address show dev lo to 10.77.0.0/28 | wc -l)" = 14
echo "= ranges of addresses come back at boot"

kill -STOP "$pid"
for try in $(seq 120); do
	test "$(show NRestarts)" = 0 || break
	sleep 0.5
done
test "$(show NRestarts)" = 1
tote-server ctl health
test "$(show MainPID)" != "$pid"
echo "= the watchdog replaces a server that stands"

systemctl stop tote.socket tote-admin.socket tote.service
test "$(show Result) $(show ActiveState)" = "success inactive"
echo "= it stops when it is told to"
touch /tmp/out/passed
PROBE
mkdir before
pivot_root . before
cd /
umount -l /before
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=0
