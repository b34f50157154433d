package insight

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tcpCounters are those that tell of trouble between us and the network, by their names in /proc/net/snmp and /proc/net/netstat. What the
// kernel does not have is not shown.
var tcpCounters = []string{"ActiveOpens", "PassiveOpens", "AttemptFails", "EstabResets", "InSegs", "OutSegs", "RetransSegs", "InErrs", "OutRsts",
	"SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed", "TCPAbortOnMemory", "TCPAbortOnTimeout", "TCPMemoryPressures", "TCPTimeouts",
	"ListenOverflows", "ListenDrops", "TCPReqQFullDrop", "TCPRcvQDrop"}

// host shows the kernel's part: sockets of our network namespace, what it dropped, and the disk of the data. Where /proc does not say, the metric
// is missing, so that an alert on its absence can tell.
func (from Sources) host(show sink) {
	read := func(path string) string { text, _ := os.ReadFile(path); return string(text) }
	counters := pairs(read("/proc/net/snmp") + read("/proc/net/netstat"))
	for _, name := range tcpCounters {
		if n, ok := counters[name]; ok {
			show.number("kernel_tcp_total", "The kernel's TCP counters, by their names in /proc/net.", float64(n), "counter", name)
		}
	}
	const sockets = "TCP sockets in our network namespace."
	if n, ok := counters["CurrEstab"]; ok {
		show.number("kernel_tcp_sockets", sockets, float64(n), "state", "established")
	}
	if tcp := words(read("/proc/net/sockstat"), "TCP:"); tcp != nil {
		six := words(read("/proc/net/sockstat6"), "TCP6:")
		show.number("kernel_tcp_sockets", sockets, float64(tcp["orphan"]), "state", "orphaned")
		show.number("kernel_tcp_sockets", sockets, float64(tcp["tw"]), "state", "time_wait")
		show.number("kernel_tcp_sockets", sockets, float64(max(0, tcp["alloc"]-tcp["inuse"]-six["inuse"])), "state", "closed")
		show.number("kernel_tcp_memory_bytes", "What the kernel keeps in the queues of all TCP sockets.", float64(tcp["mem"]*int64(os.Getpagesize())))
	}
	if n, err := from.HalfOpen(); err == nil {
		show.number("kernel_tcp_sockets", sockets, float64(n), "state", "syn_received")
	}
	dropped, squeezed, found := softnet(read("/proc/net/softnet_stat"))
	if found {
		show.number("kernel_backlog_dropped_total", "Packets dropped because a core's backlog was full.", float64(dropped))
		show.number("kernel_backlog_squeezed_total", "Times that a core had more packets than time.", float64(squeezed))
	}
	var disk unix.Statfs_t
	if unix.Statfs(from.Data, &disk) == nil {
		show.number("disk_free_bytes", "Free on the disk of the data.", float64(disk.Bavail*uint64(disk.Bsize)))
		show.number("disk_bytes", "Size of the disk of the data.", float64(disk.Blocks*uint64(disk.Bsize)))
	}
}

// pairs reads the TCP lines of snmp and netstat: a line of names, then one of numbers.
func pairs(text string) map[string]uint64 {
	values := map[string]uint64{}
	var names []string
	for line := range strings.Lines(text) {
		row := strings.Fields(line)
		switch {
		case len(row) == 0 || row[0] != "Tcp:" && row[0] != "TcpExt:":
		case names == nil:
			names = row
		default:
			for i := 1; i < min(len(names), len(row)); i++ {
				if n, err := strconv.ParseUint(row[i], 10, 64); err == nil { // MaxConn is -1, and nobody's
					values[names[i]] = n
				}
			}
			names = nil
		}
	}
	return values
}

// words reads a line of sockstat: its head, then names and numbers in turns.
func words(text, head string) map[string]int64 {
	for line := range strings.Lines(text) {
		row := strings.Fields(line)
		if len(row) == 0 || row[0] != head {
			continue
		}
		values := map[string]int64{}
		for i := 1; i+1 < len(row); i += 2 {
			values[row[i]], _ = strconv.ParseInt(row[i+1], 10, 64)
		}
		return values
	}
	return nil
}

// softnet adds up columns 2 and 3 of softnet_stat, a line for each core, in hexadecimal.
func softnet(text string) (dropped, squeezed uint64, found bool) {
	for line := range strings.Lines(text) {
		row := strings.Fields(line)
		if len(row) < 3 {
			continue
		}
		d, err1 := strconv.ParseUint(row[1], 16, 64)
		s, err2 := strconv.ParseUint(row[2], 16, 64)
		if err1 == nil && err2 == nil {
			dropped, squeezed, found = dropped+d, squeezed+s, true
		}
	}
	return dropped, squeezed, found
}
