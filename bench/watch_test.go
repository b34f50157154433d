package bench

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestReadStat(t *testing.T) {
	// A name may have spaces and parentheses; utime 150 and stime 50 are 2 s.
	name, cpu, ended := readStat([]byte("42 (a (b) c) S 1 42 42 0 -1 4194560 9 0 0 0 150 50 30 7 20 0 9 0 100 1 2"))
	if name != "a (b) c" || cpu != 2*time.Second || ended != 370*time.Millisecond {
		t.Errorf("%q, %s, %s", name, cpu, ended)
	}
	if name, cpu, _ := readStat([]byte("no stat")); name != "" || cpu != 0 {
		t.Errorf("%q, %s", name, cpu)
	}
}

func TestProcPairs(t *testing.T) {
	got := procPairs([]byte("Ip: Forwarding\nIp: 1\nTcp: MaxConn CurrEstab RetransSegs\nTcp: -1 12 7\nTcpExt: ListenDrops TCPTimeouts\nTcpExt: 3 4\n"))
	if got["CurrEstab"] != 12 || got["RetransSegs"] != 7 || got["ListenDrops"] != 3 || got["TCPTimeouts"] != 4 || got["Forwarding"] != 0 {
		t.Errorf("%v", got)
	}
}

func TestMetrics(t *testing.T) {
	got := metrics("# HELP a b\n# TYPE a gauge\na 1\nb{c=\"d e\",f=\"g\"} 2e+06\n\nbroken\n")
	if len(got) != 2 || got["a"] != 1 || got[`b{c="d e",f="g"}`] != 2e6 {
		t.Errorf("%v", got)
	}
}

// Of what the meters show at each second, the sum is what happened between play's beginning and its end, also where the server has died.
func TestWatchedSums(t *testing.T) {
	w := &watch{pids: []int{1}, looks: []Look{
		{At: 0, CPU: 1, HostCPU: 100, Softirq: 10, Switches: 500, NetOut: 1000, RSS: 5, TCP: map[string]uint64{"ListenDrops": 3}},
		{At: 10, CPU: 3, HostCPU: 104, Softirq: 11, Switches: 700, NetOut: 3000, RSS: 9, Busiest: 0.5, TCP: map[string]uint64{"ListenDrops": 4, "CurrEstab": 8}},
		{At: 20, CPU: 6, HostCPU: 110, Softirq: 12, Switches: 900, NetOut: 9000, RSS: 7, Busiest: 0.25, TCP: map[string]uint64{"ListenDrops": 4, "CurrEstab": 9}},
		{At: 21},
	}}
	s := w.sum(0, 20*time.Second)
	if s == nil || s.Seconds != 20 || s.Cores != 0.25 || s.HostCores != 0.5 || s.Softirq != 0.2 || s.Switches != 20 || s.NetOut != 400 || s.RSSMax != 9 ||
		s.Busiest != 0.5 || s.TCP["ListenDrops"] != 1 || s.TCP["CurrEstab"] != 9 {
		t.Errorf("%+v", s)
	}
	if s := w.sum(30*time.Second, 40*time.Second); s != nil {
		t.Errorf("nothing was looked at, and it sums to %+v", s)
	}
}

// A client that never finishes its handshake is counted while it lasts: TCP_DEFER_ACCEPT keeps a connection half open until its first byte.
func TestHalfOpen(t *testing.T) {
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30) })
		return errors.Join(failed, err)
	}}
	l, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	seen := Look{TCP: map[string]uint64{}}
	(&watch{}).host(&seen)
	if n := seen.Halves; n < 3 {
		t.Errorf("%d connections are half open, want 3 at least", n)
	}
}
