package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tote/server/market"
	"tote/server/proto"
)

// What a delivered distribution costs the server, all in (from Deliver to the sockets; sequence numbers, budgets,
// slices and counts on), in both ways, against bare write(2)s: one loop in Go over a list of descriptors, raw
// system calls of the same bytes to the same sockets on the same thread, and nothing else. The three take turns,
// burst by burst, so that they share what else the machine does; the ratios are of bursts of one round. Clients
// are a process of their own. Targets: 1.08 by write, 0.95 by io_uring.
func BenchmarkDelivered(b *testing.B) {
	n := clients(b)
	e, m := serve(b, Config{Loops: 1})
	m.announce(3)
	c := newCrowd(b, e, n)
	frame := appendMessage(nil, proto.JSON, threeOdds)
	batch := market.Batch{Outs: []market.Out{{Game: 3, Message: threeOdds}}}
	var fds []int
	var r *ring
	onLoop(e, 0, func(l *loop) {
		r = l.ring
		for _, sub := range l.rooms[3].subs {
			fds = append(fds, sub.session.fd)
		}
	})
	bursts := []*burst{
		{name: "bare", deliver: func() {
			onLoop(e, 0, func(*loop) {
				for _, fd := range fds {
					if rawWrite(fd, frame) != len(frame) {
						b.Error("a socket is full")
					}
				}
			})
		}},
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
			total += n * len(frame)
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
// read and turn.
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
	e, m := serve(b, Config{Loops: 1, Broadcast: way, Limits: Limits{Requests: 1 << 30}, Now: func() proto.Time {
		now := time.Now()
		if measuring {
			away = append(away, float64(now.Sub(looked).Microseconds()))
		}
		looked = now
		return proto.Time(now.UnixMicro())
	}})
	m.announce(3)
	c := newCrowd(b, e, n)
	asker := greeted(b, e, 12)
	if err := asker.conn.SetDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		outs := []market.Out{{Game: 3, Message: threeOdds}}
		frame := len(appendMessage(nil, proto.JSON, threeOdds))
		for total := n * frame; ; total += n * frame {
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
	request := text(`{"type":"time","id":1,"sent":1}`)
	var waits []float64
	for b.Loop() {
		time.Sleep(time.Duration(1+len(waits)%7) * time.Millisecond) // at any moment of a broadcast
		began := time.Now()
		asker.write(request)
		asker.frame()
		waits = append(waits, float64(time.Since(began).Microseconds()))
	}
	close(stop)
	<-stopped
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(quantile(waits, 0.5), "p50-µs")
	b.ReportMetric(quantile(waits, 0.99), "p99-µs")
	b.ReportMetric(quantile(away, 0.5), "away-p50-µs")
	b.ReportMetric(quantile(away, 0.99), "away-p99-µs")
	b.Logf("%d clients, %d requests, the longest waited %.1f ms", n, len(waits), quantile(waits, 1)/1000)
}

// What it costs the server to shake hands: accept, Enroll, upgrade, and what gnet and the kernel do for them; the
// clients' ends are in another process, and hello, join and their answers are in it too.
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
