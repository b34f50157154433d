#!/bin/busybox sh
# The guest's first process. Its root is a folder of the host (hostfs), where /out is for what it finds.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o size=90% tmp /tmp # the journal is here: a sync costs nothing
ip link set lo up

. /plan # N, STAKES, DURATION, INTERVAL, RATE, POOLS, TURNOVER, FLAGS, BENCH, ROUNDS

# What a host for so many must allow. Server and players are both here: two sockets for each connection.
knob() { echo "$2" >"/proc/sys/$1" && echo "$1 = $2" >>/out/sysctl; }
knob fs/nr_open $((N + 100000))
knob fs/file-max $((2 * N + 200000))
knob net/core/somaxconn 65535
knob net/ipv4/tcp_max_syn_backlog 65535
knob net/ipv4/ip_local_port_range "1024 65535"
pages=$(awk '/MemTotal/ {print int($2 / 4)}' /proc/meminfo)
knob net/ipv4/tcp_mem "$((pages / 2)) $((pages * 3 / 4)) $((pages * 7 / 8))"
ulimit -n $((N + 100000))

# Meters, a line every few seconds: seconds, TCP sockets, and in kB what the kernel itself has, of it slabs, what
# processes have, files in memory, and what is free.
meter() {
	sockets=$(awk '/^TCP:/ {print $3}' /proc/net/sockstat)
	awk -v at="$(cut -d' ' -f1 /proc/uptime)" -v sockets="$sockets" '{m[$1] = $2} END {
		print at, sockets, m["MemTotal:"] - m["MemFree:"] - m["Buffers:"] - m["Cached:"] - m["AnonPages:"], m["Slab:"], m["AnonPages:"], m["Cached:"], m["MemFree:"]
	}' /proc/meminfo
}
meter >/out/meters
(while sleep 5; do meter; done >>/out/meters) &

if [ -n "$BENCH" ]; then
	TOTE_ENGINE_CLIENTS=$N /bin/engine.test -test.run '^$' -test.bench "$BENCH" -test.benchtime "$ROUNDS" -test.timeout 0 >/out/report.txt 2>/out/progress.txt
else
	/bin/batch /bin/server bench smoke --users "$N" --connect-rate "$RATE" --stakes "$STAKES" --interval "$INTERVAL" --duration "$DURATION" \
		--pools "$POOLS" --turnover "$TURNOVER" $FLAGS --json /out/report.json >/out/report.txt 2>/out/progress.txt
fi
echo $? >/out/status
dmesg | grep -iE 'tcp|out of memory|oom|killed|drop' | tail -n 20 >/out/kernel.txt
poweroff -f
