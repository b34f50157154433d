#!/usr/bin/env bash
# Holds N connections in one process: bench/scale/run.sh [N], which is `make scale` and `make scale N=1000000`.
#
# A process may open only so many descriptors as the host's administrator lets it, often 20,000, and a bench has no
# business to change the host. So server and players run in a kernel of their own: User-Mode Linux, an ordinary
# process, from Debian's package. Packages are unpacked into a cache; nothing is installed, but for a C compiler where there is none.
#
# The guest has one CPU and stops at every system call to serve it in another process, which costs 10 to 20 µs. So it is
# good for three questions: does the server hold N, is anything lost, what does a connection cost in memory. For
# microseconds and for rates run `server bench smoke` on the host.
#
# The guest's kernel has its defaults. `server tune` makes it ready, adds the addresses that players come through, and takes everything back
# at the end (guest.sh).
#
# The exit status is 0 if the guest said so: tune check has told what was missing and was content after apply; every distribution reached every
# player, every stake has its one receipt, the accounts and the odds agree with the receipts; revert left not a byte different. What a run left
# is in CACHE/out.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# The run. Each can be set in the environment.
N=${1:-${N:-100000}}
if [ "$N" -le 200000 ]; then
	: "${STAKES:=500}"   # per second, over all players
	: "${INTERVAL:=30s}" # between two distributions: written and read, a frame costs this guest 33 µs, so 3 pools of 100,000 take it 10 s
	: "${DURATION:=5m}"  # from when everyone is in the game
	: "${POOLS:=3}" "${TURNOVER:=60s}"
	: "${ADDRESSES:=10.77.0.1-10.77.0.4}" # to connect to and from; each pair has the default 28,232 ports
	: "${BOOT:=}"                         # more words for the kernel's command line
else
	: "${STAKES:=10}" "${INTERVAL:=60s}" "${DURATION:=4m}" "${POOLS:=1}" "${TURNOVER:=0s}" "${ADDRESSES:=10.77.0.1-10.77.0.8}"
	: "${BOOT:=thash_entries=524288}" # tune check wants it, and no apply can do it
fi
: "${RATE:=1000}" # new players per second; fewer when a thousand are at the door
# The pings and heartbeats of an idle connection are for networks that lose it; here they would be most of the load.
# UML maps each page of a process by itself, and a process of the host may have 65,530 mappings: a Go heap that grows page by
# page took 55,000 for 100,000 connections. Locked memory is taken 4 MiB at a time, in one piece: 7,200 for a million.
: "${FLAGS:=--lock-memory --serve=--lock-memory --serve=--heartbeat=30m --serve=--idle=1h}"

# Or, instead, one of the engine's benchmarks with N clients: BENCH=Delivered bench/scale/run.sh 100000.
: "${BENCH:=}"
: "${ROUNDS:=20x}"

# Where it runs.
: "${MEMORY:=$((2 + (N * 13 + 999999) / 1000000))G}" # of the guest; the host gives only what is touched
: "${CPU:=$(($(nproc) - 1))}"                       # of the host: the guest's processes take turns, and one CPU switches fastest
: "${PATIENCE:=7200}"                               # seconds until the guest is killed
: "${CACHE:=${TMPDIR:-/tmp}/tote-scale}"
: "${GO:=go}"
: "${SERVER:=}" # a static binary; empty: built from here

# guest makes the cache: kernel, busybox, and two helpers in C.
guest() {
	mkdir -p "$CACHE/packages"
	if [ ! -x "$CACHE/kernel" ] || [ ! -x "$CACHE/busybox" ]; then
		(
			cd "$CACHE/packages"
			download() { apt-get download -q -o APT::Sandbox::User=root user-mode-linux busybox-static; }
			ls user-mode-linux_*.deb busybox-static_*.deb >/dev/null 2>&1 || download || { apt-get update -qq && download; }
			for package in *.deb; do dpkg -x "$package" unpacked; done
			mv unpacked/bin/busybox ../busybox
			mv unpacked/usr/bin/linux.uml ../kernel
			rm -rf unpacked
		)
	fi
	command -v gcc >/dev/null || apt-get install -y -qq --no-install-recommends gcc libc6-dev
	gcc -O2 -Wall -shared -fPIC -o "$CACHE/xstate.so" "$here/xstate.c" -ldl
	gcc -O2 -Wall -static -o "$CACHE/batch" "$here/batch.c"
}

# furnish makes the guest's root folder.
furnish() {
	mkdir -p "$root"/{bin,proc,sys,tmp,dev,out} "$root"/etc/{sysctl.d,security/limits.d,pam.d} "$root/var/lib"
	echo guest >"$root/etc/hostname"
	printf 'somebody has been here before\n' >"$root/etc/sysctl.d/README"
	printf '# ours comes in its place, and goes again\nkernel.panic = 0\n' >"$root/etc/sysctl.d/99-tote.conf"
	cp "$CACHE/busybox" "$CACHE/batch" "$root/bin/"
	cp "$here/guest.sh" "$root/init"
	chmod +x "$root/init"
	if [ -n "$SERVER" ]; then
		cp "$SERVER" "$root/bin/server"
	else
		(cd "$here/../.." && CGO_ENABLED=0 "$GO" build -o "$root/bin/server" .)
	fi
	[ -z "$BENCH" ] || (cd "$here/../.." && CGO_ENABLED=0 "$GO" test -c -o "$root/bin/engine.test" ./engine)
	printf '%s="%s"\n' N "$N" ADDRESSES "$ADDRESSES" STAKES "$STAKES" INTERVAL "$INTERVAL" DURATION "$DURATION" RATE "$RATE" POOLS "$POOLS" TURNOVER "$TURNOVER" FLAGS "$FLAGS" \
		BENCH "$BENCH" ROUNDS "$ROUNDS" >"$root/plan"
}

# boot runs the guest to its end. The guest's memory is a sparse file, best in memory.
boot() {
	local memory=$CACHE
	[ -d /dev/shm ] && memory=/dev/shm
	TMPDIR=$memory LD_PRELOAD=$CACHE/xstate.so taskset -c "$CPU" timeout -s KILL "$PATIENCE" \
		"$CACHE/kernel" "mem=$MEMORY" uml_dir="$CACHE" umid="guest.$$" rootfstype=hostfs rootflags="$root" rw init=/init \
		con0=null,fd:1 con=null ssl=null quiet cgroup_disable=memory $BOOT </dev/null >"$out/console.txt" 2>&1 &
	group=$! # of processes: timeout leads it
	wait "$group" || true
	group=
}

# show prints the report, and from the meters what the kernel held when it had the most sockets.
show() {
	cat "$out/tune.txt" 2>/dev/null || true
	echo
	cat "$out/report.txt" 2>/dev/null || true
	[ -s "$out/meters" ] || return 0
	awk 'NR == 1 { sockets = $2; kernel = $3; slab = $4; least = $7 }
		$2 >= most { most = $2; held = $3; slabs = $4; processes = $5; files = $6 }
		$7 < least { least = $7 }
		END {
			if (most == sockets) exit
			pairs = (most - sockets) / 2
			printf "kernel: %.0f bytes per connection, both ends of it together (%.0f in slabs), at %d sockets\n",
				(held - kernel) * 1024 / pairs, (slabs - slab) * 1024 / pairs, most
			printf "guest: then %.2f GiB of processes, %.2f GiB of the kernel, %.2f GiB of files; %.2f GiB free at the least\n",
				processes / 2^20, held / 2^20, files / 2^20, least / 2^20
		}' "$out/meters"
}

began=$SECONDS
out=$CACHE/out
guest
rm -rf "$out"
mkdir "$out"
root=$(mktemp -d "$CACHE/root.XXXXXX")
group=
trap '[ -z "$group" ] || kill -KILL -- "-$group"; rm -rf "$root"' EXIT
trap 'exit 130' INT TERM
furnish
boot
cp -r "$root/out/." "$out/"
show
echo "wall time: $((SECONDS - began)) s"
if [ ! -s "$out/status" ]; then
	echo "run.sh: the guest ended before the run did; its last words:" >&2
	tail -q -n 5 "$out/console.txt" "$out/progress.txt" "$out/kernel.txt" >&2 2>/dev/null || true
	exit 1
fi
status=$(cat "$out/status")
[ "$status" = 0 ] || tail -n 5 "$out/progress.txt" >&2
exit "$status"
