package tuning

import "math/bits"

// knob is a setting of the kernel.
//
//	value now ──holds──▶ connections that it allows       below what is wanted: the host is not ready
//	value now ──wanted─▶ value that it should have        another one: the plan has a line
type knob struct {
	key    string
	scope  Scope
	role   role
	holds  func(now []uint64) uint64             // nil: it bounds the pace or the cost, not the number
	wanted func(w sizing, now []uint64) []uint64 // now itself where it is good as it is
	reason string
	bites  []string // the kernel's counters that rise when it does
}

// Scope is whose setting a knob is.
type Scope string

const (
	ScopeNamespace Scope = "network namespace" // each has its own
	ScopeHost      Scope = "host"              // one for all; a container does not see it or may not change it
	ScopeBoot      Scope = "boot"              // on the kernel's command line
	ScopeProcess   Scope = "process"           // inherited from who started it
)

type role int

const (
	everyone role = iota
	servers
	generators
)

// sizing is what formulas are computed from.
type sizing struct {
	connections uint64
	memory      uint64 // bytes
}

// Where the numbers come from. Per connection: 2.4 kB in the server, its account included, and 4.1 kB in the kernel for an
// idle socket, both measured (make scale); 1.5 kB for the collector. A broadcast to everybody has a page of TCP memory under
// way for each.
const (
	page             = 4096
	memoryBase       = 256 << 20 // the kernel, the binary, the page cache of the journal
	memoryIdle       = 8 << 10   // of a connection
	memoryConnection = memoryIdle + page

	descriptorsKept = 256     // of the process, for the store, listeners, epoll, and newcomers
	descriptorsRest = 1 << 20 // of the host, for everybody else

	backlogMin, backlogMax   = 4096, 65535 // who waits longer than the latter takes has gone
	socketMin, socketMax     = 128 << 10, 256 << 10
	many                     = 500_000 // from here on, leftovers of dead clients are worth a shorter memory
	portsPerAddress          = 65535 - 1024 + 1
	tcpMemoryShare           = 4 // the kernel's queues may take a quarter of the memory
	pagesIn, pagesOfOneFrame = 2, 1
)

// descriptorsWanted: after a cut of the network everybody comes back while the dead connections are still open.
func (s sizing) descriptorsWanted() uint64 { return powerAbove(2 * s.connections) }

// Descriptors is LimitNOFILE for what is wanted.
func Descriptors(w Want) (uint64, error) {
	return sizing{connections: uint64(w.Connections)}.descriptorsWanted(), w.check()
}

// backlog: an eighth of all at the door at once.
func (s sizing) backlog() uint64 {
	return min(max(powerAbove(s.connections/8), backlogMin), backlogMax)
}

// socket is the most that one socket may pin: twice the memory, over all connections.
func (s sizing) socket() uint64 {
	return min(max(powerBelow(2*s.memory/s.connections), socketMin), socketMax)
}

// tcpPages is the most that all sockets may queue: three pages a connection, but no more than the memory's share, and
// never less than one.
func (s sizing) tcpPages() uint64 {
	return max(min(powerAbove(pagesIn*s.connections)/2*3, s.memory/tcpMemoryShare/page), pagesOfOneFrame*s.connections)
}

func powerAbove(n uint64) uint64 { return 1 << bits.Len64(max(n, 1)-1) }
func powerBelow(n uint64) uint64 { return 1 << (bits.Len64(max(n, 1)) - 1) }

var knobs = []knob{
	{key: "fs.nr_open", scope: ScopeHost,
		holds:  less(descriptorsKept),
		wanted: atLeast(sizing.descriptorsWanted),
		reason: "caps LimitNOFILE of any one process; each connection is a descriptor, and twice as many are there while everybody reconnects"},
	{key: "fs.file-max", scope: ScopeHost,
		holds:  less(descriptorsKept),
		wanted: atLeast(func(s sizing) uint64 { return s.descriptorsWanted() + descriptorsRest }),
		reason: "descriptors of all processes together"},
	{key: "fs.epoll.max_user_watches", scope: ScopeHost,
		holds:  less(descriptorsKept),
		wanted: atLeast(func(s sizing) uint64 { return s.descriptorsWanted() }),
		reason: "each connection is watched by an epoll, and this caps a user's watches"},
	{key: "net.core.somaxconn", scope: ScopeNamespace, role: servers,
		wanted: atLeast(sizing.backlog), bites: []string{"ListenOverflows", "ListenDrops"},
		reason: "a connect storm overflows the accept queue; read when the server starts to listen"},
	{key: "net.ipv4.tcp_max_syn_backlog", scope: ScopeNamespace, role: servers,
		wanted: atLeast(sizing.backlog), bites: []string{"SyncookiesSent", "SyncookiesFailed", "TCPReqQFullDoCookies"},
		reason: "and, before it, the queue of handshakes"},
	{key: "net.ipv4.tcp_syncookies", scope: ScopeNamespace, role: servers,
		wanted: exactly(1), bites: []string{"SyncookiesRecv"},
		reason: "beyond that queue cookies keep the door open; 0 would drop newcomers"},
	{key: "net.ipv4.tcp_mem", scope: ScopeHost,
		holds: func(now []uint64) uint64 { return now[2] / pagesOfOneFrame },
		wanted: func(s sizing, now []uint64) []uint64 {
			if now[2] >= pagesIn*s.connections {
				return now
			}
			most := s.tcpPages()
			return []uint64{most / 3 * 2, most / 6 * 5, most}
		},
		bites:  []string{"TCPMemoryPressures", "TCPAbortOnMemory"},
		reason: "pages, not bytes: one queued byte costs a page per socket and direction, and a broadcast to N holds N pages"},
	{key: "net.ipv4.tcp_rmem", scope: ScopeNamespace,
		wanted: socketBuffers(func(s sizing) uint64 { return s.socket() / 8 }), bites: []string{"TCPRcvQDrop", "PruneCalled"},
		reason: "least, first and most bytes of a socket's receive buffer: limits what a hostile sender pins. Bulk transfers of other services get 128 to 256 KiB per round trip"},
	{key: "net.ipv4.tcp_wmem", scope: ScopeNamespace,
		wanted: socketBuffers(func(sizing) uint64 { return 16 << 10 }), bites: []string{"TCPWqueueTooBig"},
		reason: "the same for sending: bounds how stale a slow reader is; a page or an image of a game must fit. The server sets its own sockets lower still"},
	{key: "net.ipv4.tcp_fin_timeout", scope: ScopeNamespace,
		wanted: func(s sizing, now []uint64) []uint64 {
			if s.connections < many || now[0] <= 30 {
				return now
			}
			return []uint64{30}
		},
		bites:  []string{"TCPAbortOnTimeout"},
		reason: "seconds that a half-closed connection of a process that has let go is kept (FIN_WAIT_2; not TIME_WAIT)"},
	{key: "net.ipv4.tcp_slow_start_after_idle", scope: ScopeNamespace, role: servers,
		wanted: leave,
		reason: "left as it is: frames are smaller than the first window; 0 helps only images larger than 14 kB on long lines"},
	{key: "net.ipv4.tcp_tw_reuse", scope: ScopeNamespace, role: generators,
		wanted: exactly(1), bites: []string{"TWRecycled"},
		reason: "only for connections that go out: a generator that reconnects uses a port again after a second instead of a minute"},
	{key: "net.ipv4.ip_local_port_range", scope: ScopeNamespace, role: generators,
		wanted: func(_ sizing, now []uint64) []uint64 {
			if now[0] <= 1024 && now[1] >= 65535 {
				return now
			}
			return []uint64{1024, 65535}
		},
		reason: "64,512 ports for each source address and server; a server needs none. Take more source addresses (server tune vip) for more"},
	{key: "net.core.netdev_max_backlog", scope: ScopeHost,
		wanted: atLeast(func(s sizing) uint64 {
			if s.connections < many {
				return 5000
			}
			return 10_000
		}),
		reason: "packets that wait for a core; more than this only adds delay. Column 2 of /proc/net/softnet_stat counts drops"},
	{key: "net.netfilter.nf_conntrack_max", scope: ScopeHost,
		holds:  func(now []uint64) uint64 { return now[0] },
		wanted: atLeast(func(s sizing) uint64 { return 2 * s.connections }),
		reason: "a full table drops silently. Better: no tracking of the server's port (nft add rule ip raw prerouting tcp dport 8080 notrack, and the same for output with sport)"},
	{key: "vm.overcommit_memory", scope: ScopeHost,
		wanted: func(_ sizing, now []uint64) []uint64 {
			if now[0] == 2 {
				return []uint64{0}
			}
			return now
		},
		reason: "0 is right: nothing here forks. 2 would refuse the heap's reservations"},
	{key: "net.ipv4.tcp_ehash_entries", scope: ScopeBoot,
		wanted: atLeast(func(s sizing) uint64 { return powerBelow(s.connections / 2) }),
		reason: "buckets of the table of connections: longer chains make each packet dearer. Set thash_entries= on the kernel's command line and reboot"},
}

func atLeast(of func(sizing) uint64) func(sizing, []uint64) []uint64 {
	return func(s sizing, now []uint64) []uint64 { return []uint64{max(now[0], of(s))} }
}

func exactly(n uint64) func(sizing, []uint64) []uint64 {
	return func(sizing, []uint64) []uint64 { return []uint64{n} }
}

func leave(_ sizing, now []uint64) []uint64 { return now }

// socketBuffers leaves what pins no more than it would set.
func socketBuffers(first func(sizing) uint64) func(sizing, []uint64) []uint64 {
	return func(s sizing, now []uint64) []uint64 {
		if now[1] <= first(s) && now[2] <= s.socket() && now[2] >= socketMin {
			return now
		}
		return []uint64{page, first(s), s.socket()}
	}
}

// less is the connections of a limit that counts other things too.
func less(others uint64) func([]uint64) uint64 {
	return func(now []uint64) uint64 { return now[0] - min(now[0], others) }
}

// memoryHolds is how many connections so much memory carries.
func memoryHolds(memory uint64) uint64 { return (memory - min(memory, memoryBase)) / memoryConnection }
