package engine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tote/server/market"
	"tote/server/proto"
)

// What a delivered distribution costs the server, all in (from Deliver to the sockets; sequence numbers, budgets,
// slices and counts on), in both ways, against bare write(2)s: one loop in Go over a list of descriptors, raw
// system calls of the same bytes to the same sockets on the same thread, and nothing else. The three take turns,
// burst by burst, so that they share what else the machine does; the ratios are of bursts of one round. Clients
// are a process of their own. Targets: 1.08 by write, 0.95 by io_uring. A fourth way are bare writes that pause for a bell and a look
// at epoll as often as the loop does: what those cost more, reading requests in between costs, and readers who fall asleep meanwhile.
func BenchmarkDelivered(b *testing.B) {
	n := clients(b)
	e, m := serve(b, Config{Loops: 1, Limits: Limits{IdleTime: time.Hour, Heartbeat: time.Hour}}) // the crowd answers no pings
	m.announce(3)
	c := newCrowd(b, e, n)
	frame := appendMessage(nil, proto.JSON, threeOdds)
	batch := market.Batch{Outs: []market.Out{{Game: 3, Message: threeOdds}}}
	var fds []int
	var r *ring
	onLoop(e, 0, func(l *loop) {
		r = l.ring
		for _, sub := range l.rooms[3].subs {
			fds = append(fds, sub.session.fd())
		}
	})
	bare := func(pause func()) func() { // before as many as a slice
		return func() {
			e.loops[0].inbox.call(func() {
				for i, fd := range fds {
					if i%sliceCalm == 0 {
						pause()
					}
					if rawWrite(fd, frame) != len(frame) {
						b.Error("a socket is full")
					}
				}
			})
		}
	}
	bursts := []*burst{
		{name: "bare", deliver: bare(func() {})},
		{name: "paused", deliver: bare(pausing(b, e.loops[0]))},
		{name: "write", deliver: func() {
			onLoop(e, 0, func(l *loop) { l.ring = nil })
			e.Deliver(&batch)
		}},
	}
	if r != nil {
		bursts = append(bursts, &burst{name: "uring", deliver: func() {
			onLoop(e, 0, func(l *loop) { l.ring = r })
			e.Deliver(&batch)
		}})
	}
	b.Cleanup(func() { onLoop(e, 0, func(l *loop) { l.ring = r }) })
	total, rounds := 0, 0
	for b.Loop() {
		for i := range bursts {
			u := bursts[(i+rounds)%len(bursts)]
			deferred, began := softirqs(), cpu(b)
			u.deliver()
			total += len(frame)
			c.await(total)
			u.cpu = append(u.cpu, float64(cpu(b)-began)/float64(n))
			u.deferred += float64(softirqs()-deferred) / float64(n)
		}
		rounds++
	}
	b.ReportMetric(0, "ns/op")
	for _, u := range bursts {
		b.ReportMetric(quantile(u.cpu, 0.5), u.name+"-ns/frame")
		if u == bursts[0] {
			continue
		}
		ratios := slices.Clone(u.cpu)
		for i := range ratios {
			ratios[i] /= bursts[0].cpu[i]
		}
		b.ReportMetric(quantile(ratios, 0.5), u.name+"-ratio")
		b.Logf("%s: %.3f of bare writes in the median of %d rounds; quartiles %.3f and %.3f, extremes %.3f and %.3f", u.name,
			quantile(ratios, 0.5), rounds, quantile(ratios, 0.25), quantile(ratios, 0.75), quantile(ratios, 0), quantile(ratios, 1))
	}
	for _, u := range bursts {
		b.Logf("%s: the kernel's threads for deferred interrupts took %.0f ns per frame meanwhile, for all processes", u.name, u.deferred/float64(rounds))
	}
	b.Logf("%d clients, frames of %d bytes", n, len(frame))
}

// pausing returns what a loop does between two slices: it rings a bell, has epoll report it, and silences it.
func pausing(b *testing.B, l *loop) func() {
	bell, err := newBell()
	epoll, err2 := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err := errors.Join(err, err2, unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, bell.inside, &unix.EpollEvent{Events: unix.EPOLLIN})); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = errors.Join(bell.close(), unix.Close(epoll)) })
	events := make([]unix.EpollEvent, 8)
	return func() {
		bell.sound()
		if n, err := unix.EpollWait(epoll, events, 0); n != 1 {
			b.Errorf("%d bells, %v", n, err)
		}
		l.silence(bell.inside)
		runtime.Gosched()
	}
}

// burst is one frame to everybody, in one way.
type burst struct {
	name     string
	deliver  func()
	cpu      []float64 // ns per frame, by round
	deferred float64   // ns per frame, summed
}

func quantile(of []float64, q float64) float64 {
	return slices.Sorted(slices.Values(of))[int(q*float64(len(of)-1))]
}

// softirqs is what ksoftirqd has had of all processors: work of the network that a burst may leave to it. 0 where
// it cannot be seen.
func softirqs() (all time.Duration) {
	if kernelThreads == nil {
		kernelThreads = []string{}
		names, _ := filepath.Glob("/proc/[0-9]*/comm")
		for _, name := range names {
			if comm, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(comm), "ksoftirqd/") {
				kernelThreads = append(kernelThreads, filepath.Dir(name)+"/schedstat")
			}
		}
	}
	for _, name := range kernelThreads {
		stat, _ := os.ReadFile(name)
		ran, _, _ := strings.Cut(string(stat), " ")
		ns, _ := strconv.ParseInt(ran, 10, 64)
		all += time.Duration(ns)
	}
	return all
}

var kernelThreads []string

// How long a request waits that meets a broadcast to as many as fit, in slices and all at once, and how long the
// loop is away from its sockets meanwhile: from one look at the clock to the next, of which there is one for each
// read and turn. The asker is a process of its own, before the crowd in priority, and asks another process in turns that only echoes, with blocking reads
// and writes: what that one takes is the machine's, whose processors are busy with the server and its clients. Target: 5 ms in
// the 99th percentile, to 50,000.
func BenchmarkRequestMeetsBroadcast(b *testing.B) {
	for _, row := range []struct {
		name, way string
		sliced    bool
	}{{"uring", BroadcastAuto, true}, {"write", BroadcastWrite, true}, {"at once", BroadcastWrite, false}} {
		b.Run(row.name, func(b *testing.B) { meetBroadcasts(b, row.way, row.sliced) })
	}
}

func meetBroadcasts(b *testing.B, way string, sliced bool) {
	n := clientsMost(b)
	var looked time.Time // the only loop's
	var away []float64
	measuring := false
	e, m := serve(b, Config{Loops: 1, Broadcast: way, Limits: Limits{Requests: 1 << 30, IdleTime: time.Hour}, Now: func() proto.Time {
		now := time.Now()
		if measuring {
			away = append(away, float64(now.Sub(looked).Microseconds()))
		}
		looked = now
		return proto.Time(now.UnixMicro())
	}})
	m.announce(3)
	c := newCrowd(b, e, n)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		outs := []market.Out{{Game: 3, Message: threeOdds}}
		frame := len(appendMessage(nil, proto.JSON, threeOdds))
		for total := frame; ; total += frame {
			select {
			case <-stop:
				return
			default:
			}
			onLoop(e, 0, func(l *loop) {
				measuring = true
				looked = time.Now()
				l.cast((&delivery{}).broadcast(e, outs))
				for !sliced && len(l.active) > 0 {
					l.distribute()
				}
			})
			for busy := true; busy; {
				time.Sleep(5 * time.Millisecond)
				onLoop(e, 0, func(l *loop) { busy = len(l.active) > 0; measuring = busy })
			}
			c.await(total)
		}
	}()
	var waits, echoes []float64
	for b.Loop() {
		n := 1000
		if !sliced {
			n = 100
		}
		asked, echoed := ask(b, e, n)
		waits, echoes = append(waits, asked...), append(echoes, echoed...)
	}
	close(stop)
	<-stopped
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(quantile(waits, 0.5), "p50-µs")
	b.ReportMetric(quantile(waits, 0.99), "p99-µs")
	b.ReportMetric(quantile(echoes, 0.5), "echo-p50-µs")
	b.ReportMetric(quantile(echoes, 0.99), "echo-p99-µs")
	b.ReportMetric(quantile(away, 0.5), "away-p50-µs")
	b.ReportMetric(quantile(away, 0.99), "away-p99-µs")
	b.Logf("%d clients, %d requests, the longest waited %.1f ms, the longest echo %.1f ms", n, len(waits), quantile(waits, 1)/1000,
		quantile(echoes, 1)/1000)
}

// askerEnv makes the test binary one that asks, as "address token number", or, as "echo", one that echoes.
const askerEnv = "TOTE_ENGINE_ASKER"

// ask asks the engine and a process that echoes, n times each, and returns how long the answers took, in µs.
func ask(t testing.TB, e *Engine, n int) (asked, echoed []float64) {
	t.Helper()
	out, err := answers(t, askerEnv, fmt.Sprintf("%s %s %d", e.Addr(), e.Token(12), n))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		var ours, bare float64
		if _, err := fmt.Sscan(line, &ours, &bare); err != nil {
			t.Fatal(err)
		}
		asked, echoed = append(asked, ours), append(echoed, bare)
	}
	if len(asked) != n {
		t.Fatalf("%d of %d requests were answered", len(asked), n)
	}
	return asked, echoed
}

// beAsker is the asker's process, and the echo's.
func beAsker(order string) error {
	runtime.LockOSThread()
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1}, 0) // before the crowd, if it may: as on a machine of its own
	if order == "echo" {
		return echo()
	}
	words := strings.Fields(order)
	n, err := strconv.Atoi(words[2])
	if err != nil {
		return err
	}
	other, err := spawn(askerEnv, "echo")
	if err != nil {
		return err
	}
	var at string
	if _, err := fmt.Fscan(other.out, &at); err != nil {
		return err
	}
	ours, err := blocking(words[0])
	bare, err2 := blocking(at)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	buffer := make([]byte, 4096)
	exchange := func(fd int, said []byte, until string) error {
		if _, err := unix.Write(fd, said); err != nil {
			return err
		}
		for got := ""; !strings.Contains(got, until); {
			n, err := unix.Read(fd, buffer)
			if n <= 0 {
				return fmt.Errorf("%q and then nothing: %w", got, err)
			}
			got += string(buffer[:n])
		}
		return nil
	}
	hello := text(fmt.Sprintf(`{"type":"hello","id":1,"token":%q}`, words[1]))
	if err := exchange(ours, append([]byte(upgradeRequest), hello...), `"welcome"`); err != nil {
		return err
	}
	var waits [][2]time.Duration
	for i := range n {
		var wait [2]time.Duration
		for j, fd := range []int{ours, bare} {
			time.Sleep(time.Duration(1+i%7) * time.Millisecond) // at any moment of a broadcast
			request := text(fmt.Sprintf(`{"type":"time","id":7,"sent":%d}`, time.Now().UnixMicro()))
			began := time.Now()
			if err := exchange(fd, request, []string{`"id":7`, string(request)}[j]); err != nil {
				return err
			}
			wait[j] = time.Since(began)
		}
		waits = append(waits, wait)
	}
	for _, wait := range waits {
		fmt.Println(wait[0].Microseconds(), wait[1].Microseconds())
	}
	return errors.Join(unix.Close(bare), other.wait())
}

// blocking connects with a socket that blocks its thread, which no scheduler but the kernel's wakes.
func blocking(address string) (fd int, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		return 0, err
	}
	fd, err = unix.Dup(int(file.Fd())) // Fd has made it blocking, for both
	return fd, errors.Join(err, file.Close(), conn.Close())
}

func echo() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	fd, buffer := int(file.Fd()), make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buffer)
		if n <= 0 {
			return err
		}
		if _, err := unix.Write(fd, buffer[:n]); err != nil {
			return err
		}
	}
}

// What it costs the server to let a client in, hello and join and their answers included; the clients' ends are in another
// process.
func BenchmarkEntering(b *testing.B) {
	n := clients(b)
	e, m := serve(b, Config{Loops: 1})
	m.announce(3)
	for range b.N {
		began := cpu(b)
		c := newCrowd(b, e, n)
		b.ReportMetric(float64(cpu(b)-began)/float64(n)/1000, "µs/conn")
		m.forget()
		c.leave()
		eventually(b, "all have left", func() bool { return e.door.inside() == 0 })
	}
	b.ReportMetric(0, "ns/op")
}

// What it costs the server to shake hands, from accept to the upgrade's answer, and beside it, in turns, what the kernel
// takes of it in any case: accept, a read of the same request and a write of the same answer, one connection after the other.
// Target: 25 µs.
func BenchmarkHandshake(b *testing.B) {
	const n = 2000
	e, _ := serve(b, Config{Loops: 1, Limits: Limits{Admissions: 1 << 20}}) // as fast as they come, as the other one has it
	bare, closeBare := acceptBare(b)
	doors := []struct {
		name    string
		address net.Addr
		left    func()
		µs      []float64
	}{
		{name: "ours", address: e.Addr(), left: func() {
			eventually(b, "all have left", func() bool { return e.door.inside() == 0 })
			onLoop(e, 0, func(*loop) {})
		}},
		{name: "bare", address: bare, left: closeBare},
	}
	for b.Loop() {
		for i := range doors {
			d := &doors[i]
			began := cpu(b)
			c := crowdAt(b, d.address, "-", n, 3, 1)
			d.µs = append(d.µs, float64(cpu(b)-began)/float64(n)/1000)
			c.leave()
			d.left()
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, d := range doors {
		b.ReportMetric(quantile(d.µs, 0.5), d.name+"-µs/conn")
		b.Logf("%s: %.1f µs in the median of %d rounds of %d; quartiles %.1f and %.1f", d.name, quantile(d.µs, 0.5), len(d.µs), n,
			quantile(d.µs, 0.25), quantile(d.µs, 0.75))
	}
}

// acceptBare answers upgrades on one thread with nothing but accept, read and write, and closes nothing until it is told.
func acceptBare(b *testing.B) (_ net.Addr, closeAll func()) {
	answer := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: tote.json\r\n\r\n")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	file, err := l.(*net.TCPListener).File() // a copy, which may block
	if err := errors.Join(err, unix.SetNonblock(int(file.Fd()), false)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Shutdown(int(file.Fd()), unix.SHUT_RD); l.Close(); file.Close() })
	var kept []int // of the thread, and of closeAll when nobody comes any more
	go func() {
		runtime.LockOSThread()
		request := make([]byte, 1024)
		for {
			fd, _, err := unix.Accept4(int(file.Fd()), unix.SOCK_CLOEXEC)
			if err != nil {
				return // shut down
			}
			kept = append(kept, fd)
			unix.Read(fd, request)
			unix.Write(fd, answer)
		}
	}()
	return l.Addr(), func() {
		for _, fd := range kept {
			unix.Close(fd)
		}
		kept = kept[:0]
	}
}
