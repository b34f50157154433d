package engine

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tote/server/market"
	"tote/server/proto"
)

// How far the intervals between a game's distributions are from what they should be, for a hot game and fifty small ones
// that share a loop and all distribute at their intervals: the share of the interval by which 99 of 100 deviate
// at most. What is compared are the kernel's stamps of receiving, on sockets of a process of its own: some of the hot
// game's subscribers, and one of each small game's. Target: 0.1.
func BenchmarkCadence(b *testing.B) {
	for _, row := range []struct {
		interval time.Duration
		rounds   int
	}{{500 * time.Millisecond, 110}, {3 * time.Second, 25}} {
		b.Run(row.interval.String(), func(b *testing.B) { keepCadence(b, row.interval, row.rounds) })
	}
}

func keepCadence(b *testing.B, interval time.Duration, rounds int) {
	const (
		games  = 50
		few    = 80
		probes = 20 // of the hot game
		hot    = proto.GameID(3)
	)
	many := clientsMost(b)*4/5 - 200
	e, m := serve(b, Config{Loops: 1, Limits: Limits{IdleTime: time.Hour}}) // nothing but odds shall arrive, so no pings
	for g := range proto.GameID(games + 1) {
		m.announce(hot + g)
	}
	crowdAt(b, e.Addr(), e.Token(12), many, int(hot), 1)
	crowdAt(b, e.Addr(), e.Token(12), few*games, int(hot+1), games)
	for b.Loop() {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() { // as shards do: at most one distribution in an interval, counted from the last
			defer close(stopped)
			due := make([]time.Time, games+1)
			for i := range due {
				due[i] = time.Now().Add(interval * time.Duration(i*i%97) / 97)
			}
			for seq := uint64(2); ; seq++ {
				next := slices.MinFunc(due, time.Time.Compare)
				select {
				case <-stop:
					return
				case <-time.After(time.Until(next)):
				}
				for i := range due {
					if now := time.Now(); !due[i].After(now) {
						odds := *threeOdds
						odds.Game, odds.Seq = hot+proto.GameID(i), seq
						e.Deliver(&market.Batch{Outs: []market.Out{{Game: odds.Game, Seq: seq, Message: &odds}}})
						due[i] = now.Add(interval)
					}
				}
			}
		}()
		var ofHot, ofSmall []float64
		var probing sync.WaitGroup
		probing.Go(func() { ofHot = probe(b, e, fmt.Sprintf("%d %d 1", probes, hot), rounds, interval) })
		probing.Go(func() { ofSmall = probe(b, e, fmt.Sprintf("%d %d %d", games, hot+1, games), rounds, interval) })
		probing.Wait()
		close(stop)
		<-stopped
		for name, deviations := range map[string][]float64{"hot": ofHot, "small": ofSmall} {
			b.ReportMetric(quantile(deviations, 0.5), name+"-p50")
			b.ReportMetric(quantile(deviations, 0.99), name+"-p99")
			b.Logf("%s: of %d intervals of %v, half deviate by %.3f at most, 99 of 100 by %.3f, and all by %.3f", name, len(deviations), interval,
				quantile(deviations, 0.5), quantile(deviations, 0.99), quantile(deviations, 1))
		}
		b.ReportMetric(float64(e.Stats().SpreadMax)/1000, "spread-max-ms")
	}
	b.ReportMetric(0, "ns/op")
	b.Logf("%d subscribers of the hot game, %d of each of %d small ones", many, few, games)
}

// proberEnv makes the test binary a prober: "address token number first games rounds".
const proberEnv = "TOTE_ENGINE_PROBER"

// probe returns by which share of the interval each interval deviates.
func probe(t testing.TB, e *Engine, who string, rounds int, interval time.Duration) (deviations []float64) {
	t.Helper()
	out, err := answers(t, proberEnv, fmt.Sprintf("%s %s %s %d", e.Addr(), e.Token(12), who, rounds))
	if err != nil {
		t.Error(err)
		return nil
	}
	for line := range strings.Lines(out) {
		ns, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
		if err != nil {
			t.Error(err)
			return nil
		}
		deviation := ns/float64(interval) - 1
		deviations = append(deviations, max(deviation, -deviation))
	}
	return deviations
}

// beProber is the prober's process: it says how many nanoseconds lie between the arrivals of distributions.
func beProber(order string) error {
	words := strings.Fields(order)
	var n, first, games, rounds int
	if _, err := fmt.Sscan(strings.Join(words[2:], " "), &n, &first, &games, &rounds); err != nil {
		return err
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	errs := make(chan error, n)
	for i := range n {
		conn, err := enter(0, words[0], words[1], first+i%games)
		if err != nil {
			return err
		}
		go func() {
			errs <- stamps(conn.(*net.TCPConn), rounds, func(between int64) { mu.Lock(); fmt.Fprintln(out, between); mu.Unlock() })
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			return err
		}
	}
	return out.Flush()
}

// stamps tells the times between the kernel's stamps of what arrives.
func stamps(conn *net.TCPConn, rounds int, tell func(ns int64)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) }); err != nil {
		return err
	}
	last, buffer, control := int64(0), make([]byte, 4096), make([]byte, 64)
	for range rounds + 2 { // the first was under way
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			var n int
			n, _, _, _, failed = unix.Recvmsg(int(fd), buffer, control, 0)
			return n > 0 || failed != unix.EAGAIN
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return err
		}
		at := kernelStamp(control)
		if last != 0 {
			tell(at - last)
		}
		last = at
	}
	return nil
}

// kernelStamp reads the only control message that is asked for: header, seconds, nanoseconds.
func kernelStamp(control []byte) int64 {
	messages, err := unix.ParseSocketControlMessage(control[:unix.CmsgSpace(16)])
	if err != nil || len(messages) != 1 || messages[0].Header.Type != unix.SCM_TIMESTAMPNS {
		panic(fmt.Sprintf("no stamp in %x: %v", control, err))
	}
	var seconds, ns int64
	for i := range 8 {
		seconds |= int64(messages[0].Data[i]) << (8 * i)
		ns |= int64(messages[0].Data[8+i]) << (8 * i)
	}
	return seconds*1e9 + ns
}
