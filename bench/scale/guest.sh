#!/bin/busybox sh
# The guest's first process: an operator on a fresh host with the kernel's defaults, who makes it ready for N connections, has players
# come through addresses that he adds, and takes everything back.
#
#	record ─▶ check says no ─▶ apply ─▶ check says yes ─▶ addresses ─▶ players ─▶ no addresses ─▶ revert ─▶ record: the same bytes?
#
# Where the players are outside (OUTSIDE), a server or a benchmark alone stands in the place of addresses and players.
#
# Its root is a folder of the host (hostfs), where /out is for what it finds.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o size=90% tmp /tmp # the journal is here: a sync costs nothing
ip link set lo up

. /plan # N, ADDRESSES, STAKES, DURATION, INTERVAL, RATE, POOLS, TURNOVER, FLAGS, BENCH, ROUNDS, SCENARIO, OUTSIDE, GUEST, HELPERS, SECRET

# Meters, a line every few seconds: seconds, TCP sockets, and in kB what the kernel itself has, of it slabs, what
# processes have, files in memory, what is free, and what the server has.
meter() {
	server=$(pidof server | awk '{print $NF}')
	sockets=$(awk '/^TCP:/ {print $9}' /proc/net/sockstat) # allocated: not all kernels count both ends as in use
	awk -v at="$(cut -d' ' -f1 /proc/uptime)" -v sockets="$sockets" '{m[$1] = $2} END {
		print at, sockets, m["MemTotal:"] - m["MemFree:"] - m["Buffers:"] - m["Cached:"] - m["AnonPages:"], m["Slab:"], m["AnonPages:"], m["Cached:"], m["MemFree:"], m["VmRSS:"] + 0
	}' /proc/meminfo $([ -z "$server" ] || echo "/proc/$server/status")
}
meter >/out/meters
(while sleep 5; do meter; done >>/out/meters) &

# record writes all that can be changed: the kernel's settings, addresses and routes, and each file, with owner, mode, inode and, but for
# directories, the time of its change. ns_last_pid is no setting but a count.
record() {
	find /proc/sys -type f -perm -200 ! -name ns_last_pid | sort | xargs head -v -c 65536 2>/tmp/unread
	ip address
	cat /proc/net/fib_trie
	find / -xdev -path /out -prune -o -type d -exec stat -c '%n %a %u:%g' {} + | sort
	find / -xdev -path /out -prune -o ! -type d -exec stat -c '%N %a %u:%g %i %s %y' {} + | sort
	find / -xdev -path /out -prune -o -type f -exec md5sum {} + | sort
}

# say keeps a line for the report; wrong is one that makes the run fail.
say() { echo "$*" >>/out/tune.txt; }
wrong() {
	say "WRONG: $*"
	failed=1
}

# join brings up vec0, through which players come from outside, and part takes it down.
join() {
	ip link set vec0 qlen 10000
	ip link set vec0 up
	ip address add "$GUEST/16" dev vec0
}
part() {
	ip address flush dev vec0
	ip link set vec0 down
	ip link set vec0 qlen 1000
}

# serve is for players from outside, until they have played. Then what the server leaves is audited.
serve() {
	/bin/batch /bin/server serve --listen "$GUEST:8080" --admin "$GUEST:8081" --admin-token "$SECRET" --data /tmp/data --guest-credits 1000000 \
		--per-address "$N" --address-handshakes "$N" $FLAGS >/out/server.txt 2>&1 &
	serving=$!
	until [ -e /tmp/data/addresses.json ] || ! [ -d /proc/$serving ]; do sleep 1; done
	meter >>/out/meters
	touch /out/serving
	until [ -e /out/enough ] || ! [ -d /proc/$serving ]; do sleep 1; done
	kill $serving
	wait $serving || wrong "the server stopped with $?: $(tail -n 1 /out/server.txt)"
	server audit --data /tmp/data >/out/audit.txt 2>&1 || wrong "audit: $(tail -n 1 /out/audit.txt)"
}

failed=0
[ -z "$OUTSIDE" ] || { ip link set vec0 up && ip link set vec0 down; } # it gets a queueing discipline, once and for all
record >/out/before
record >/out/again
cmp -s /out/before /out/again || wrong "the record changes by itself: $(diff /out/before /out/again | head -n 5)"

if server tune check --connections "$N" >/out/check-fresh.txt 2>&1; then
	wrong "check is content with a fresh kernel"
fi
say "with a fresh kernel, check for $N connections says:"
grep -A2 '^short' /out/check-fresh.txt | grep -v '^--' >>/out/tune.txt
grep '^absent' /out/check-fresh.txt >>/out/tune.txt
say "what apply will change:"
server tune plan --connections "$N" 2>&1 | grep '^[-+]' >>/out/tune.txt
server tune apply --connections "$N" >/out/apply.txt 2>&1 || wrong "apply: $(tail -n 1 /out/apply.txt)"
# What a login does (PAM), which a guest without logins has not got.
ulimit -n "$(awk '$1 == "root" && $3 == "nofile" {print $4}' /etc/security/limits.d/99-tote.conf)" || wrong "the limit of descriptors cannot be raised"
if server tune check --connections "$N" >/out/check-applied.txt 2>&1; then
	say "after it, check says: $(tail -n 1 /out/check-applied.txt)"
else
	wrong "check is not content with what apply has done: $(tail -n 2 /out/check-applied.txt)"
fi
record >/out/applied
cmp -s /out/before /out/applied && wrong "apply has changed nothing"
[ -n "$OUTSIDE" ] || server tune vip add "$ADDRESSES" --device lo >/out/vip.txt 2>&1 || wrong "vip add: $(cat /out/vip.txt)"
[ -n "$OUTSIDE" ] || say "$(server tune vip list)"

[ -z "$OUTSIDE" ] || join
if [ -n "$BENCH" ]; then
	TOTE_ENGINE_CLIENTS=$N TOTE_ENGINE_HELPERS=$HELPERS /bin/engine.test -test.run '^$' -test.bench "$BENCH" -test.benchtime "$ROUNDS" -test.timeout 0 >/out/report.txt 2>/out/progress.txt
elif [ -n "$OUTSIDE" ]; then
	serve
elif [ -n "$SCENARIO" ]; then
	/bin/batch /bin/server bench run "$SCENARIO" --users "$N" --rate "$RATE/s" --through "$ADDRESSES" --from "$ADDRESSES" --duration "$DURATION" \
		--serve=--heartbeat=30m --serve=--idle=1h --html /out/report.html --json /out/report.json --quiet >/out/report.txt 2>/out/progress.txt
else
	/bin/batch /bin/server bench smoke --users "$N" --through "$ADDRESSES" --connect-rate "$RATE" --stakes "$STAKES" --interval "$INTERVAL" \
		--duration "$DURATION" --pools "$POOLS" --turnover "$TURNOVER" $FLAGS --json /out/report.json >/out/report.txt 2>/out/progress.txt
fi
[ $? = 0 ] || failed=1
[ -z "$OUTSIDE" ] || part

[ -n "$OUTSIDE" ] || server tune vip remove "$ADDRESSES" --device lo >/out/vip.txt 2>&1 || wrong "vip remove: $(cat /out/vip.txt)"
server tune revert >/out/revert.txt 2>&1 || wrong "revert: $(tail -n 1 /out/revert.txt)"
record >/out/after
if cmp -s /out/before /out/after; then
	say "after revert nothing is different: $(grep -c '^==>' /out/after) settings, $(find / -xdev -path /out -prune -o ! -type d -print | wc -l) files, addresses and routes"
else
	wrong "revert leaves differences: $(diff /out/before /out/after | head -n 20)"
fi
echo $failed >/out/status
dmesg | grep -iE 'tcp|out of memory|oom|killed|drop' | tail -n 20 >/out/kernel.txt
poweroff -f
