#!/usr/bin/env bash
# Holds N connections in one process: bench/scale/run.sh [N], which is `make scale` and `make scale N=1000000`. With OUTSIDE=1, `make scale-rate`,
# it holds them at a rate.
#
# A process may open only so many descriptors as the host's administrator lets it, often 20,000, and a bench has no
# business to change the host (but for one number, for a million: mappings). So server and players run in a kernel of their own: User-Mode Linux, an ordinary
# process, from Debian's package. Packages are unpacked into a cache; nothing is installed, but for a C compiler and patchelf where there are none.
#
# The guest has one CPU and stops at every system call to serve it in another process, which costs 7 µs (not at a look
# at the clock: clock.c). So it is good for three questions: does the server hold N, is anything lost, what does a connection cost in memory. For
# microseconds run `server bench smoke` on the host.
#
# With OUTSIDE=1 only the server is in the guest. The players are agents on the host, each a process with its own descriptors, on the other CPUs;
# a tap device in a network namespace of the run's own joins them. What comes and goes there costs no system calls of the guest's processes, and
# a broadcast one for a slice of players (io_uring), and it is interrupted for many packets at a time (moderate.c), so the guest's CPU is enough for the rate
# too. It takes root, two CPUs, and a host that has nothing else to do.
#
#	host:  coordinator ─ agents ═══ tap ═══ vec0 ─ server  :guest
#
# The guest's kernel has its defaults. `server tune` makes it ready, adds the addresses that players come through, and takes everything back
# at the end (guest.sh).
#
# The exit status is 0 if the guest said so: tune check has told what was missing and was content after apply; every distribution reached every
# player, every stake has its one receipt, the accounts and the odds agree with the receipts; revert left not a byte different. With OUTSIDE=1 also:
# the stakes and the distributions came at the rate that they should, and what the server left passes its audit. What a run left is in CACHE/out.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# The run. Each can be set in the environment.
N=${1:-${N:-100000}}
: "${OUTSIDE:=}"
if [ -n "$OUTSIDE" ]; then
	: "${STAKES:=6700}" "${INTERVAL:=3s}" "${DURATION:=3m}" "${POOLS:=1}" "${TURNOVER:=0s}" "${ADDRESSES:=}"
	: "${BOOT:=vec0:transport=tap,ifname=tote0,depth=128}" # more words for the kernel's command line
	: "${FLAGS:=--lock-memory --heartbeat=30m --idle=1h --durability=interval=1s}" # of the server
elif [ "$N" -le 200000 ]; then
	: "${STAKES:=500}"   # per second, over all players
	: "${INTERVAL:=30s}" # between two distributions: written and read, a frame costs this guest 26 µs, so 3 pools of 100,000 take it 8 s
	: "${DURATION:=5m}"  # from when everyone is in the game
	: "${POOLS:=3}" "${TURNOVER:=60s}"
	: "${ADDRESSES:=10.77.0.1-10.77.0.4}" # to connect to and from; each pair has the default 28,232 ports
	: "${BOOT:=}"
else
	: "${STAKES:=10}" "${INTERVAL:=60s}" "${DURATION:=4m}" "${POOLS:=1}" "${TURNOVER:=0s}" "${RATE:=2000}"
	# connect(2) takes every other port first, and looks at all of those before it takes another: 8 addresses have 903,000, after which 250 come in a second.
	: "${ADDRESSES:=10.77.0.1-10.77.0.12}"
	: "${BOOT:=thash_entries=524288}" # tune check wants it, and no apply can do it
fi
: "${RATE:=1000}" # new players per second; fewer when a thousand are at the door
# The pings and heartbeats of an idle connection are for networks that lose it; here they would be most of the load.
# UML maps pages of a process one by one where they do not follow each other in its memory, and a process of the host may have 65,530 mappings: a Go
# heap that grows page by page took 55,000 for 100,000 connections. Locked memory is taken 4 MiB at a time: the players of a million take 66,000 (mappings).
: "${FLAGS:=--lock-memory --serve=--lock-memory --serve=--heartbeat=30m --serve=--idle=1h}"
: "${AGENTS:=$((N / 17000 + 1))}" # with OUTSIDE=1; one has the descriptors for 17,000 players

# Or, instead, one of the engine's benchmarks with N clients: BENCH=Delivered bench/scale/run.sh 100000. With OUTSIDE=1 its clients are on the host.
: "${BENCH:=}"
# Or a scenario, RATE and DURATION long: SCENARIO=football RATE=120 bench/scale/run.sh 24000.
: "${SCENARIO:=}"
: "${ROUNDS:=20x}"

# Where it runs.
: "${MEMORY:=$((2 + (N * 13 + 999999) / 1000000))G}" # of the guest; the host gives only what is touched
: "${CPU:=$(($(nproc) - 1))}"                       # of the host: the guest's processes take turns, and one CPU switches fastest
: "${STEER=1}"                                       # with OUTSIDE=1; empty: what the guest sends is taken in by its own CPU
: "${PATIENCE:=7200}"                               # seconds until the guest is killed
: "${CACHE:=${TMPDIR:-/tmp}/tote-scale}"
: "${GO:=go}"
: "${RELEASE:=forky}" # of Debian, that the kernel is from: 6.16 was the first that takes system calls by seccomp, in two thirds of the time
: "${SERVER:=}" # a static binary; empty: built from here

# With OUTSIDE=1: the guest's address, in a network where players come from the lower half; where it finds who starts a benchmark's helpers; and its
# operators' token.
inner=10.77.255.1
helpers=10.77.0.1:9000
secret=of-this-run-alone

# guest makes the cache: kernel, busybox, and three helpers in C.
guest() {
	mkdir -p "$CACHE"
	local missing=
	command -v gcc >/dev/null || missing="gcc libc6-dev"
	command -v patchelf >/dev/null || missing="$missing patchelf"
	install() { apt-get install -y -qq --no-install-recommends $missing; }
	[ -z "$missing" ] || install || { apt-get update -qq && install; }
	if [ ! -x "$CACHE/kernel-$RELEASE" ] || [ ! -x "$CACHE/busybox" ]; then unpack; fi
	gcc -O2 -Wall -shared -fPIC -o "$CACHE/clock.so" "$here/clock.c" -ldl
	gcc -O2 -Wall -shared -fPIC -o "$CACHE/moderate.so" "$here/moderate.c" -ldl -pthread
	gcc -O2 -Wall -static -o "$CACHE/batch" "$here/batch.c"
}

# unpack gets the packages of RELEASE, which need not be the host's: the kernel finds the C library that it was made for beside itself.
unpack() (
	mkdir -p "$CACHE/packages"/{lists,archives}/partial
	cd "$CACHE/packages"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $RELEASE main" >sources.list
	release() {
		apt-get -q -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$PWD/lists" -o Dir::Cache="$PWD" "$@"
	}
	release update
	release download user-mode-linux libc6 busybox-static
	for package in *.deb; do dpkg -x "$package" "../$RELEASE"; done
	local library=$CACHE/$RELEASE/usr/lib/x86_64-linux-gnu
	patchelf --set-interpreter "$library/ld-linux-x86-64.so.2" --set-rpath "$library" --output kernel "../$RELEASE/usr/bin/linux.uml"
	cp "../$RELEASE/usr/bin/busybox" ../busybox
	mv kernel "../kernel-$RELEASE"
	rm -rf "../$RELEASE"/usr/{bin,lib/uml,share} "$CACHE/packages"
)

# build makes what runs in the guest.
build() {
	if [ -z "$SERVER" ]; then
		SERVER=$CACHE/server
		(cd "$here/../.." && CGO_ENABLED=0 "$GO" build -o "$SERVER" .)
	fi
	[ -z "$BENCH" ] || (cd "$here/../.." && CGO_ENABLED=0 "$GO" test -c -o "$CACHE/engine.test" ./engine)
}

# network makes the device that joins host and guest. It is gone when the run is, with the namespace.
network() {
	ip link set lo up
	ip tuntap add dev tote0 mode tap vnet_hdr
	ip link set tote0 txqueuelen 20000 # of the host's 1,000 a burst would lose some
	ip address add 10.77.0.1/16 dev tote0
	ip route add local 10.77.0.0/17 dev lo
	ip link set tote0 up
	# What the guest sends is taken in by the other CPUs: else the one that runs the guest does it, in the guest's write.
	mount -t sysfs sysfs /sys
	[ -z "$STEER" ] || [ "$(nproc --all)" -gt 32 ] || printf '%x' $(((1 << $(nproc --all)) - 1 & ~(1 << CPU))) >/sys/class/net/tote0/queues/rx-0/rps_cpus
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
	cp "$SERVER" "$root/bin/server"
	[ -z "$BENCH" ] || cp "$CACHE/engine.test" "$root/bin/"
	printf '%s="%s"\n' N "$N" ADDRESSES "$ADDRESSES" STAKES "$STAKES" INTERVAL "$INTERVAL" DURATION "$DURATION" RATE "$RATE" POOLS "$POOLS" TURNOVER "$TURNOVER" FLAGS "$FLAGS" \
		BENCH "$BENCH" ROUNDS "$ROUNDS" SCENARIO "$SCENARIO" OUTSIDE "$OUTSIDE" GUEST "$inner" HELPERS "${OUTSIDE:+$helpers}" SECRET "$secret" >"$root/plan"
}

# mappings lets processes of the host have as many as the guest's will need, if they have not, until the run ends. The guest would wait for ever.
mappings() {
	local limit=/proc/sys/vm/max_map_count need=$((N / 8)) have
	have=$(cat "$limit")
	[ "$have" -lt "$need" ] || return 0
	if ! echo "$need" 2>/dev/null >"$limit"; then
		echo "run.sh: with $N players a process has more than the $have mappings that it may have: run it as root, which raises vm.max_map_count for the time, or raise it to $need" >&2
		exit 1
	fi
	mapped=$have
}

# boot starts the guest. The guest's memory is a sparse file, best in memory.
boot() {
	local memory=$CACHE
	[ -d /dev/shm ] && memory=/dev/shm
	TMPDIR=$memory LD_PRELOAD=$CACHE/moderate.so${clock:+:$clock} taskset -c "$CPU" timeout -s KILL "$PATIENCE" \
		"$CACHE/kernel-$RELEASE" "mem=$MEMORY" uml_dir="$CACHE" umid="guest.$$" seccomp=auto rootfstype=hostfs rootflags="$root" rw init=/init \
		con0=null,fd:1 con=null ssl=null quiet cgroup_disable=memory selinux=0 apparmor=0 $BOOT </dev/null >"$out/console.txt" 2>&1 &
	kernel=$!
}

# end kills the guest, which leads a session of its own and says who it is.
end() { kill -KILL "$(cat "$CACHE/guest.$$/pid" 2>/dev/null || echo "$kernel")" || true; }

# agency starts the helpers of a benchmark, on the other CPUs, when it asks for them.
agency() {
	TOTE_ENGINE_AGENCY=$helpers taskset -c "$others" "$CACHE/engine.test" >"$out/helpers.txt" 2>&1 &
	agents+=($!)
}

# play has agents play on the guest's server, on the other CPUs, and a coordinator count.
play() {
	local all= each=$((120 / AGENTS))
	[ "$each" -gt 0 ] || { echo "run.sh: at most 120 agents" >&2; return 1; }
	until [ -e "$root/out/serving" ]; do
		sleep 1
		kill -0 "$kernel" 2>/dev/null || return 1
	done
	for ((a = 0; a < AGENTS; a++)); do # 28,232 ports for each address
		taskset -c "$others" env GOGC=400 "$CACHE/batch" "$SERVER" bench agent --listen "127.0.0.1:$((9100 + a))" --from "10.77.$((a * each + 1)).1-10.77.$((a * each + 1)).8" \
			>"$out/agent-$a.txt" 2>&1 &
		agents+=($!)
		all=$all,127.0.0.1:$((9100 + a))
	done
	for ((a = 0; a < AGENTS; a++)); do
		until grep -q 'waiting for coordinators' "$out/agent-$a.txt"; do
			sleep 0.2
			kill -0 "${agents[$a]}" || return 1
		done
	done
	cat >"$out/scenario.toml" <<-END
		about = "$N players from outside on one game, $STAKES stakes/s, distributions every $INTERVAL"
		users = $N
		rate = "$RATE/s"
		duration = "$DURATION"
		[[games]]
		name = "Scale"
		count = 1
		pools = $POOLS
		interval = "$INTERVAL"
		turnover = "$TURNOVER"
		[players]
		stakes = "$STAKES/s"
	END
	taskset -c "$others" "$SERVER" bench run "$out/scenario.toml" --target "ws://$inner:8080/ws" --admin "http://$inner:8081" --token "$secret" --alone \
		--agents "${all#,}" --no-limit --json "$out/report.json" >"$out/report.txt" 2>"$out/progress.txt"
}

# seconds says how many a span has that is written as in 500ms, 3s or 1m.
seconds() { echo "$1" | sed 's/ms$/ 0.001/; s/s$/ 1/; s/m$/ 60/' | awk '{print $1 * $2}'; }

# enough holds the run against what it was to show: coming too late, or to some only, breaks no promise of the server's.
enough() {
	awk -v players="$N" -v interval="$(seconds "$INTERVAL")" -v pools="$POOLS" '
		/^  "[a-z]+":/ { part = $1 }
		part ~ /"(conditions|connections|stakes|delivered)"/ { gsub(/[",:]/, ""); value[part " " $1] = $2 }
		function of(part, name) { return value["\"" part "\": " name] }
		END {
			answered = of("stakes", "receipts") + of("stakes", "late"); due = of("conditions", "played_s") / interval * pools
			if (of("connections", "joined") < players) wrong = wrong sprintf("; %d of %d players were in the game", of("connections", "joined"), players)
			if (answered < 0.99 * of("stakes", "planned") || !answered) wrong = wrong sprintf("; %d stakes were answered, %d were planned", answered, of("stakes", "planned"))
			if (of("delivered", "broadcasts") < 0.95 * due) wrong = wrong sprintf("; %d distributions came, %d were due", of("delivered", "broadcasts"), due)
			if (of("delivered", "conflated") > 0) wrong = wrong sprintf("; %d times a player got no distribution but the next one", of("delivered", "conflated"))
			if (wrong) { print "run.sh: " substr(wrong, 3); exit 1 }
		}' "$out/report.json"
}

# show prints the report, and from the meters what the kernel held when it had the most sockets.
show() {
	cat "$out/tune.txt" 2>/dev/null || true
	echo
	cat "$out/report.txt" 2>/dev/null || true
	[ -s "$out/meters" ] || return 0
	awk -v ends=$((OUTSIDE ? 1 : 2)) -v all="$N" 'NR == 1 { sockets = $2; kernel = $3; slab = $4; least = $7 }
		!alone { alone = $8 } # before anybody comes
		!come && $2 >= sockets + all { come = $8 }
		$2 > most || $2 == most && $3 < held { most = $2; held = $3; slabs = $4; processes = $5; files = $6 } # between two distributions
		$2 >= all { server = $8 }
		$7 < least { least = $7 }
		END {
			if (most == sockets) exit
			connections = (most - sockets) / ends
			printf "kernel: %.0f bytes per connection, %s (%.0f in slabs), at %d sockets\n", (held - kernel) * 1024 / connections,
				ends == 2 ? "both ends of it together" : "the server\047s end of it", (slabs - slab) * 1024 / connections, most
			if (ends == 1 && server) printf "server: %.0f bytes of RSS per connection when all had come, %.0f with all tickets at the end\n",
				(come - alone) * 1024 / connections, (server - alone) * 1024 / connections
			printf "guest: then %.2f GiB of processes, %.2f GiB of the kernel, %.2f GiB of files; %.2f GiB free at the least\n",
				processes / 2^20, held / 2^20, files / 2^20, least / 2^20
		}' "$out/meters"
}

began=$SECONDS
out=$CACHE/out
if [ -z "${JOINED:-}" ]; then
	guest
	build
	[ -z "$OUTSIDE" ] || SERVER=$SERVER JOINED=1 exec unshare --net --mount "$0" "$N"
else
	network
fi
# The counter must be what the host's clock goes by.
clock=
grep -qx tsc /sys/devices/system/clocksource/clocksource0/current_clocksource 2>/dev/null && clock=$CACHE/clock.so
rm -rf "$out"
mkdir "$out"
root=$(mktemp -d "$CACHE/root.XXXXXX")
kernel= agents=() mapped=
trap '[ -z "$kernel" ] || end; [ -z "${agents[*]-}" ] || kill "${agents[@]}"; rm -rf "$root" "$CACHE/guest.$$"; [ -z "$mapped" ] || echo "$mapped" >/proc/sys/vm/max_map_count' EXIT
trap 'exit 130' INT TERM
others=$(seq 0 $(($(nproc --all) - 1)) | grep -vx "$CPU" | paste -sd ,) || others=$CPU
mappings
furnish
[ -z "$OUTSIDE" ] || [ -z "$BENCH" ] || agency
boot
failed=0
if [ -n "$OUTSIDE" ] && [ -z "$BENCH" ]; then
	play || failed=$?
	touch "$root/out/enough"
fi
wait "$kernel" || true
kernel=
cp -r "$root/out/." "$out/"
show
echo "wall time: $((SECONDS - began)) s"
if [ ! -s "$out/status" ]; then
	echo "run.sh: the guest ended before the run did; its last words:" >&2
	tail -q -n 5 "$out/console.txt" "$out/progress.txt" "$out/kernel.txt" >&2 2>/dev/null || true
	exit 1
fi
[ -z "$OUTSIDE" ] || [ -n "$BENCH" ] || enough || failed=1
status=$(cat "$out/status")
[ "$failed" = 0 ] || status=$failed
[ "$status" = 0 ] || tail -n 5 "$out/progress.txt" >&2
exit "$status"
