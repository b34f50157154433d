package bench

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"tote/server/proto/control"
	"tote/server/tuning"
)

// watch looks at the server's processes, at the host and at the admin listener once a second, beside the run. What cannot be read, because
// it is another host's or not ours to see, stays zero.
//
//	/proc/PID ──┐
//	/proc/net ──┼─▶ Look, a second each ─▶ Run, when the run is over
//	/metrics  ──┘
//
// Owner: its goroutine, until done is closed.
type watch struct {
	pids      []int
	base      time.Time
	desk      *control.Client // nil: none
	elsewhere bool            // the server is on another host, and only its metrics are to be seen
	done      chan struct{}

	looks   []Look
	threads map[int]*Thread
	page    uint64
}

// Look is what the meters showed at one time. Counters are since the server's or the host's start; of two looks the difference counts.
type Look struct {
	At float64 `json:"at_s"`

	// The server's processes.
	CPU       float64 `json:"cpu_s"`
	Busiest   float64 `json:"busiest"` // share of a core that its busiest thread took since the look before
	Threads   int     `json:"threads"`
	RSS       uint64  `json:"rss"`
	PSS       uint64  `json:"pss,omitempty"` // each tenth look
	Files     uint64  `json:"files"`         // open descriptors, sockets included
	Switches  uint64  `json:"switches"`      // context switches of all threads
	DiskRead  uint64  `json:"disk_read"`
	DiskWrite uint64  `json:"disk_write"`

	// The host, in the server's network namespace.
	HostCPU float64           `json:"host_cpu_s"` // not idle
	Softirq float64           `json:"softirq_s"`
	Steal   float64           `json:"steal_s"` // taken by other guests of the machine
	Sockets uint64            `json:"tcp_sockets"`
	Orphans uint64            `json:"tcp_orphans"`
	Waits   uint64            `json:"tcp_time_wait"`
	Halves  uint64            `json:"tcp_syn_received"` // half open, in this process's network namespace
	Memory  uint64            `json:"tcp_memory"`       // bytes of all sockets' queues
	TCP     map[string]uint64 `json:"tcp"`              // see tcpCounters
	NetOut  uint64            `json:"net_out"`          // bytes of all interfaces
	NetIn   uint64            `json:"net_in"`

	// What the server says of itself.
	Metrics map[string]float64 `json:"metrics,omitempty"`
}

// Thread is what one of the server's threads has used since its start.
type Thread struct {
	Name string  `json:"name"`
	ID   int     `json:"id"`
	CPU  float64 `json:"cpu_s"`
}

// tcpCounters are those that the thesis watched, by their names in /proc/net/snmp and /proc/net/netstat.
var tcpCounters = []string{"CurrEstab", "PassiveOpens", "AttemptFails", "EstabResets", "OutSegs", "RetransSegs",
	"SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed", "TCPAbortOnMemory", "ListenOverflows", "ListenDrops", "TCPTimeouts"}

// watchedMetrics are the server's own that a timeline shows; of several labels, the greatest.
var watchedMetrics = []string{"server_inbox_depth", "server_journal_appended", "server_journal_durable", "server_journal_commits_total",
	"server_journal_commit_seconds_mean", "server_conflated_total", "server_spread_max_seconds", "go_goroutines", "go_memstats_heap_inuse_bytes"}

// watchEvery is how often; pssEvery how seldom that is read, because the kernel walks all pages for it.
const (
	watchEvery = time.Second
	pssEvery   = 10
)

// startWatch begins; it ends with ctx, and done is closed then.
func startWatch(ctx context.Context, base time.Time, pids []int, desk *control.Client, elsewhere bool) *watch {
	w := &watch{pids: pids, base: base, desk: desk, elsewhere: elsewhere, done: make(chan struct{}), threads: map[int]*Thread{}, page: uint64(os.Getpagesize())}
	go func() {
		defer close(w.done)
		every := time.NewTicker(watchEvery)
		defer every.Stop()
		for {
			w.look(ctx)
			select {
			case <-ctx.Done():
				return
			case <-every.C:
			}
		}
	}()
	return w
}

func (w *watch) look(ctx context.Context) {
	l := Look{At: time.Since(w.base).Seconds(), TCP: map[string]uint64{}}
	w.process(&l)
	if !w.elsewhere {
		w.host(&l)
	}
	w.metrics(ctx, &l)
	w.looks = append(w.looks, l)
}

func (w *watch) process(l *Look) {
	server := process{pids: w.pids}
	for _, pid := range server.family() {
		w.one(l, pid)
	}
	if len(w.looks)%pssEvery == 0 {
		l.PSS = server.pss()
	}
}

// one adds what one of the server's processes shows.
func (w *watch) one(l *Look, pid int) {
	dir := "/proc/" + strconv.Itoa(pid)
	tasks, err := os.ReadDir(dir + "/task")
	if err != nil {
		return // it has gone
	}
	span := l.At
	if n := len(w.looks); n > 0 {
		span -= w.looks[n-1].At
	}
	rss := uint64(0)
	for _, task := range tasks {
		id, _ := strconv.Atoi(task.Name())
		stat, err := os.ReadFile(dir + "/task/" + task.Name() + "/stat")
		if err != nil {
			continue
		}
		name, cpu, _ := readStat(stat)
		t := w.threads[id]
		if t == nil {
			t = &Thread{ID: id}
			w.threads[id] = t
		} else if span > 0 {
			l.Busiest = max(l.Busiest, (cpu.Seconds()-t.CPU)/span)
		}
		t.Name, t.CPU = name, cpu.Seconds()
		status, _ := os.ReadFile(dir + "/task/" + task.Name() + "/status")
		numbers := procNumbers(status)
		l.Switches += numbers["voluntary_ctxt_switches"] + numbers["nonvoluntary_ctxt_switches"]
		rss = max(rss, numbers["VmRSS"]<<10) // the same for all threads
	}
	l.RSS += rss
	l.Threads += len(tasks)
	if stat, err := os.ReadFile(dir + "/stat"); err == nil { // threads and children that have ended count too
		_, cpu, ended := readStat(stat)
		l.CPU += (cpu + ended).Seconds()
	}
	if info, err := os.Stat(dir + "/fd"); err == nil {
		l.Files += uint64(info.Size()) // since Linux 6.2 the number of descriptors
	}
	if io, err := os.ReadFile(dir + "/io"); err == nil {
		numbers := procNumbers(io)
		l.DiskRead, l.DiskWrite = l.DiskRead+numbers["read_bytes"], l.DiskWrite+numbers["write_bytes"]
	}
}

// readStat reads a process's or a thread's stat: its name, its CPU time, and that of the children that have ended and were waited for. proc(5):
// utime, stime, cutime and cstime are fields 14 to 17; the name, field 2 in parentheses, may hold anything.
func readStat(stat []byte) (name string, cpu, ended time.Duration) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", 0, 0
	}
	fields := strings.Fields(string(stat[end+1:]))
	for i, into := range []*time.Duration{&cpu, &cpu, &ended, &ended} {
		if at := 14 - 3 + i; at < len(fields) {
			ticks, _ := strconv.ParseInt(fields[at], 10, 64)
			*into += time.Duration(ticks) * tickOfProc
		}
	}
	return string(stat[open+1 : end]), cpu, ended
}

func (w *watch) host(l *Look) {
	net := "/proc/net"
	if len(w.pids) > 0 {
		net = "/proc/" + strconv.Itoa(w.pids[0]) + "/net" // of its namespace
	}
	if stat, err := os.ReadFile("/proc/stat"); err == nil {
		// proc(5): cpu user nice system idle iowait irq softirq steal …, in ticks.
		line, _, _ := strings.Cut(string(stat), "\n")
		for i, field := range strings.Fields(line) {
			ticks, _ := strconv.ParseUint(field, 10, 64)
			seconds := (time.Duration(ticks) * tickOfProc).Seconds()
			switch i {
			case 1, 2, 3, 6:
				l.HostCPU += seconds
			case 7:
				l.Softirq = seconds
				l.HostCPU += seconds
			case 8:
				l.Steal = seconds
			}
		}
	}
	if text, err := os.ReadFile(net + "/sockstat"); err == nil {
		for line := range strings.Lines(string(text)) {
			if words := strings.Fields(line); len(words) > 10 && words[0] == "TCP:" { // TCP: inuse N orphan N tw N alloc N mem N
				number := func(i int) uint64 { n, _ := strconv.ParseUint(words[i], 10, 64); return n }
				l.Sockets, l.Orphans, l.Waits, l.Memory = number(2), number(4), number(6), number(10)*w.page
			}
		}
	}
	if n, err := tuning.HalfOpen(); err == nil { // 0 where the kernel does not say
		l.Halves = uint64(n)
	}
	for _, file := range []string{"/snmp", "/netstat"} {
		text, _ := os.ReadFile(net + file)
		counters := procPairs(text)
		for _, name := range tcpCounters {
			if n, ok := counters[name]; ok {
				l.TCP[name] = n
			}
		}
	}
	if text, err := os.ReadFile(net + "/dev"); err == nil {
		for line := range strings.Lines(string(text)) {
			_, numbers, ok := strings.Cut(line, ":")
			if f := strings.Fields(numbers); ok && len(f) > 8 { // received bytes are the first column, sent bytes the ninth
				in, _ := strconv.ParseUint(f[0], 10, 64)
				out, _ := strconv.ParseUint(f[8], 10, 64)
				l.NetIn, l.NetOut = l.NetIn+in, l.NetOut+out
			}
		}
	}
}

// procPairs reads the TCP lines of /proc/net/snmp and netstat: a line of names, then one of numbers.
func procPairs(text []byte) map[string]uint64 {
	values := map[string]uint64{}
	var names []string
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "Tcp:" && words[0] != "TcpExt:" {
			continue
		}
		if names == nil {
			names = words
			continue
		}
		for i := 1; i < min(len(names), len(words)); i++ {
			values[names[i]], _ = strconv.ParseUint(words[i], 10, 64) // MaxConn is -1, and nobody's
		}
		names = nil
	}
	return values
}

func (w *watch) metrics(ctx context.Context, l *Look) {
	if w.desk == nil {
		return
	}
	ctx, end := context.WithTimeout(ctx, watchEvery/2) // a server that stands still must not stop the watch
	defer end()
	text, err := w.desk.Metrics(ctx)
	if err != nil {
		return
	}
	all := metrics(text)
	if w.elsewhere {
		l.CPU, l.RSS, l.Files = all["process_cpu_seconds_total"], uint64(all["process_resident_memory_bytes"]), uint64(all["process_open_fds"])
		l.Sockets, l.Waits = uint64(all[`server_kernel_tcp_sockets{state="established"}`]), uint64(all[`server_kernel_tcp_sockets{state="time_wait"}`])
		l.Orphans, l.Memory = uint64(all[`server_kernel_tcp_sockets{state="orphaned"}`]), uint64(all["server_kernel_tcp_memory_bytes"])
		l.NetIn, l.NetOut = uint64(all["server_received_bytes_total"]), uint64(all["server_sent_bytes_total"])
		for _, name := range tcpCounters {
			if n, ok := all[fmt.Sprintf("server_kernel_tcp_total{counter=%q}", name)]; ok {
				l.TCP[name] = uint64(n)
			}
		}
	}
	l.Metrics = map[string]float64{}
	for name, value := range all {
		name, _, _ = strings.Cut(name, "{")
		if slices.Contains(watchedMetrics, name) {
			l.Metrics[name] = max(l.Metrics[name], value)
		}
	}
}

// Watched is what the server and its host did from the beginning of play to its end.
type Watched struct {
	Seconds   float64           `json:"seconds"`
	Cores     float64           `json:"cores"`   // of the server
	Busiest   float64           `json:"busiest"` // the most that one thread took of a core in any second
	Threads   []Thread          `json:"threads"` // by CPU, most first
	HostCores float64           `json:"host_cores"`
	Softirq   float64           `json:"softirq"`  // of all CPU time that was not idle
	Steal     float64           `json:"steal"`    // cores taken by other guests
	Switches  float64           `json:"switches"` // per second
	RSSMax    uint64            `json:"rss_max"`
	PSSMax    uint64            `json:"pss_max"`
	FilesMax  uint64            `json:"files_max"`
	MemoryMax uint64            `json:"tcp_memory_max"`
	HalvesMax uint64            `json:"tcp_syn_received_max"`
	WaitsMax  uint64            `json:"tcp_time_wait_max"`
	OrphanMax uint64            `json:"tcp_orphans_max"`
	DiskWrite float64           `json:"disk_write"` // bytes per second
	NetOut    float64           `json:"net_out"`    // bytes per second
	TCP       map[string]uint64 `json:"tcp"`        // growth of the counters, and the last CurrEstab
}

// sum compares the looks from one time to another.
func (w *watch) sum(from, to time.Duration) *Watched {
	var looks []Look
	for _, l := range w.looks {
		if l.At >= from.Seconds()-watchEvery.Seconds() && l.At <= to.Seconds()+watchEvery.Seconds() {
			looks = append(looks, l)
		}
	}
	if len(looks) < 2 {
		return nil
	}
	a, b := looks[0], looks[0]
	for _, l := range looks {
		if l.CPU >= b.CPU { // of a process that was killed, later looks have nothing
			b = l
		}
	}
	span := b.At - a.At
	if span <= 0 {
		return nil
	}
	s := &Watched{
		Seconds: span, Cores: (b.CPU - a.CPU) / span, HostCores: (b.HostCPU - a.HostCPU) / span, Steal: (b.Steal - a.Steal) / span,
		Switches: float64(b.Switches-min(a.Switches, b.Switches)) / span, DiskWrite: float64(b.DiskWrite-min(a.DiskWrite, b.DiskWrite)) / span,
		NetOut: float64(b.NetOut-min(a.NetOut, b.NetOut)) / span, TCP: map[string]uint64{},
	}
	if busy := b.HostCPU - a.HostCPU; busy > 0 {
		s.Softirq = (b.Softirq - a.Softirq) / busy
	}
	for _, l := range looks[1:] {
		s.Busiest, s.RSSMax, s.PSSMax = max(s.Busiest, l.Busiest), max(s.RSSMax, l.RSS), max(s.PSSMax, l.PSS)
		s.FilesMax, s.MemoryMax = max(s.FilesMax, l.Files), max(s.MemoryMax, l.Memory)
		s.HalvesMax, s.WaitsMax, s.OrphanMax = max(s.HalvesMax, l.Halves), max(s.WaitsMax, l.Waits), max(s.OrphanMax, l.Orphans)
	}
	for _, name := range tcpCounters {
		s.TCP[name] = b.TCP[name] - min(a.TCP[name], b.TCP[name])
	}
	s.TCP["CurrEstab"] = b.TCP["CurrEstab"]
	for _, id := range slices.Sorted(maps.Keys(w.threads)) {
		s.Threads = append(s.Threads, *w.threads[id])
	}
	slices.SortStableFunc(s.Threads, func(a, b Thread) int {
		switch {
		case a.CPU > b.CPU:
			return -1
		case a.CPU < b.CPU:
			return 1
		}
		return 0
	})
	return s
}
