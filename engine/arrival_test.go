package engine

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tote/server/market"
	"tote/server/proto"
)

// instant is a journal that is durable at once.
type instant struct {
	mu     sync.Mutex
	seq    uint64
	market *market.Market
}

func (j *instant) Append(_ []byte, n int) (first uint64) {
	j.mu.Lock()
	first = j.seq + 1
	j.seq += uint64(n)
	seq := j.seq
	j.mu.Unlock()
	j.market.Durable(seq)
	return first
}

// house is an engine with a real market.
type house struct {
	*Engine
	market  *market.Market
	answers chan *proto.Answer // to operators
}

func newHouse(t testing.TB, loops int) *house {
	t.Helper()
	h := &house{answers: make(chan *proto.Answer, 16)}
	journal := &instant{}
	m, err := market.New(market.Config{
		Shards: 2, Epoch: 1, Durability: "never", Journal: journal,
		Now:    func() proto.Time { return proto.Time(time.Now().UnixMicro()) },
		Passed: func(at proto.Time) bool { return h.Passed(at) },
		Deliver: func(b *market.Batch) {
			h.Deliver(b)
			for i := range b.Outs {
				if o := &b.Outs[i]; o.Kind == market.OutAnswer {
					h.answers <- o.Answer
				}
			}
		},
	}, market.NewReplica())
	if err != nil {
		t.Fatal(err)
	}
	h.market, journal.market = m, m
	e, err := New(Config{Listen: "127.0.0.1:0", Loops: loops, Secret: secret, GuestCredits: 1000, Log: slog.New(slog.DiscardHandler)}, m)
	if err != nil {
		t.Fatal(err)
	}
	h.Engine = e
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	m.Start()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		m.Stop()
	})
	return h
}

// operate does what an operator wants.
func (h *house) operate(t testing.TB, c market.Command) *proto.Answer {
	t.Helper()
	h.post(t, c)
	a := <-h.answers
	if a.Refusal != proto.Accepted {
		t.Fatalf("refused: %s", a.Refusal.Code())
	}
	return a
}

func (h *house) post(t testing.TB, c market.Command) {
	t.Helper()
	c.From = market.NewSession(market.DeskLoop, 1, 1)
	if !h.market.Submit(&c) {
		t.Fatal("busy")
	}
}

// What reached the host before a moment counts, and what reached it afterwards does not, though busy loops read both when the moment
// is long past and its lock was posted before.
func TestArrivalDecides(t *testing.T) {
	const players = 12
	h := newHouse(t, 3)
	game := h.operate(t, market.Command{Kind: market.OpenGame, Game: h.market.NextGame(), Args: &proto.GameOpening{Name: "Argentina v France"}}).Game
	pool := h.operate(t, market.Command{Kind: market.OpenPool, Game: game, Args: &proto.PoolOpening{Question: "Who scores next?", Labels: []string{"A", "B"}}}).Pool
	var clients [players]*client
	for i := range clients {
		clients[i] = upgraded(t, h.Engine)
		clients[i].ask(`{"type":"hello","id":1,"guest":"player %d"}`, i)
		clients[i].expect("welcome", 1)
	}

	release := make(chan struct{})
	for _, l := range h.loops {
		busy := make(chan struct{})
		l.inbox.call(func() { close(busy); <-release })
		<-busy
	}
	stake := func(c *client) { c.ask(`{"type":"stake","id":2,"pool":%d,"outcome":0,"amount":10}`, pool) }
	for _, c := range clients[:players/2] {
		stake(c)
	}
	time.Sleep(60 * time.Millisecond) // some jiffies
	at := proto.Time(time.Now().UnixMicro())
	h.post(t, market.Command{Kind: market.LockPool, Pool: pool, Args: &proto.Locking{At: at}})
	for _, c := range clients[players/2:] {
		stake(c)
	}
	time.Sleep(60 * time.Millisecond)
	if len(h.answers) > 0 {
		t.Error("locked before the loops have read what had arrived")
	}
	close(release)
	for i, c := range clients {
		got := c.message()
		if early := i < players/2; early != (got.Type == "receipt") || !early && got.Code != proto.RefusedPoolLocked.Code() {
			t.Errorf("player %d, who staked early (%v), got %s", i, early, got.raw)
		}
	}
	if locked := <-h.answers; len(locked.Locked) != 1 {
		t.Errorf("the operator got %+v", locked)
	}
	if n := h.market.Overdue(); n != 0 {
		t.Errorf("%d hearings are overdue", n)
	}
}

// A time passes soon though nothing happens, and passes for good when the engine has ended.
func TestPassed(t *testing.T) {
	m := newTestMarket()
	e, stop := serveWith(t, Config{Loops: 3}, m)
	for range 100 {
		at := proto.Time(time.Now().UnixMicro())
		eventually(t, "the time has passed", func() bool { return e.Passed(at) })
	}
	if e.Passed(proto.Time(time.Now().UnixMicro()) + proto.Hour) {
		t.Error("an hour has passed")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !e.Passed(proto.Time(time.Now().UnixMicro()) + proto.Hour) {
		t.Error("what might a loop that has ended still submit?")
	}
}

// Nothing is submitted that arrived by a time which was said to have passed, while clients stake and broadcasts go out.
func TestNothingComesFromThePast(t *testing.T) {
	e, m := serve(t, Config{Loops: 2, Limits: Limits{Requests: 1 << 30, Frames: 1 << 30}})
	m.announce(3)
	var clients []*client
	for i := range 12 {
		clients = append(clients, joined(t, e, proto.AccountID(100+i), 3))
	}
	stop := make(chan struct{})
	var staking sync.WaitGroup
	for _, c := range clients {
		staking.Go(func() {
			for id := 10; ; id++ {
				select {
				case <-stop:
					return
				default:
				}
				c.ask(`{"type":"stake","id":%d,"pool":196609,"outcome":0,"amount":10}`, id)
				for c.message().Type != "receipt" {
				}
			}
		})
	}
	for range 100 {
		at := proto.Time(time.Now().UnixMicro())
		m.odds(3, 1)
		eventually(t, "the time has passed", func() bool { return e.Passed(at) })
		m.mu.Lock()
		m.commands = m.commands[:0]
		m.mu.Unlock()
		m.await(t, "stake", func(c *market.Command) bool { return c.Kind == market.Stake })
		m.mu.Lock()
		for _, c := range m.commands {
			if c.Kind == market.Stake && c.Arrived <= at {
				t.Errorf("a stake arrived %d µs before a time that had passed when it was submitted", at-c.Arrived)
			}
		}
		m.mu.Unlock()
	}
	close(stop)
	staking.Wait()
}

// How long an event takes with its hearing, by a loop that sleeps and by a loop that is always away for the time that a slice takes, and how
// long what needs no hearing: a pool that opens.
func BenchmarkHearing(b *testing.B) {
	for _, busy := range []bool{false, true} {
		b.Run(map[bool]string{false: "asleep", true: "busy"}[busy], func(b *testing.B) {
			h := newHouse(b, 1)
			game := h.operate(b, market.Command{Kind: market.OpenGame, Game: h.market.NextGame(), Args: &proto.GameOpening{Name: "Argentina v France"}}).Game
			stop := make(chan struct{})
			if busy {
				for _, l := range h.loops {
					var again func()
					again = func() {
						select {
						case <-stop:
						default:
							for began := time.Now(); time.Since(began) < 400*time.Microsecond; {
							}
							l.inbox.call(again)
						}
					}
					l.inbox.call(again)
				}
			}
			waits := map[string][]float64{}
			do := func(name string, c market.Command) {
				began := time.Now()
				h.operate(b, c)
				waits[name] = append(waits[name], float64(time.Since(began).Microseconds()))
			}
			for b.Loop() {
				do("event", market.Command{Kind: market.PostEvent, Game: game, Args: &proto.Event{Kind: "corner"}})
				do("pool", market.Command{Kind: market.OpenPool, Game: game, Args: &proto.PoolOpening{Question: "?", Labels: []string{"A", "B"}}})
			}
			close(stop)
			b.ReportMetric(0, "ns/op")
			for name, of := range waits {
				b.ReportMetric(quantile(of, 0.5), name+"-p50-µs")
				b.ReportMetric(quantile(of, 0.99), name+"-p99-µs")
			}
		})
	}
}

// How far each stamp that can be had is from when a request left its sender on the same host, while the only loop broadcasts to as many as
// fit, without a pause. The kernel's own stamp, which a look at the unread socket gets, is 3 µs behind that in the median.
//
//	read      the clock when it is read
//	info      the clock less TCP_INFO's time since the last data: jiffies
//	stamp     what the server takes: read, corrected by info where the loop was away for long
//	kernel    SO_TIMESTAMPNS by a peek at the socket between two slices; where there was nothing to peek at, read
//
// And what each costs, timed where it happens. Target: less than 0.05 of what a request costs.
func BenchmarkArrival(b *testing.B) {
	n := clientsMost(b) - 20
	var mu sync.Mutex // of the loop and of who reads the clock elsewhere
	var asker *session
	var stamped int64
	peeks, peeking := 0, time.Duration(0)
	peek := func() {
		if asker == nil || stamped != 0 {
			return
		}
		began := time.Now()
		at, ok := peekStamp(asker.fd())
		peeking += time.Since(began)
		peeks++
		if ok {
			stamped = at
		}
	}
	e, m := serve(b, Config{Loops: 1, Limits: Limits{Requests: 1 << 30, IdleTime: time.Hour}, Now: func() proto.Time {
		mu.Lock()
		defer mu.Unlock()
		peek()
		return proto.Time(time.Now().UnixMicro())
	}})
	m.announce(3)
	c := newCrowd(b, e, n)
	errs := map[string][]float64{}
	infos, informing := 0, time.Duration(0)
	onLoop(e, 0, func(l *loop) {
		heard := l.heard
		l.heard = func(s *session, kind event, message []byte) {
			mu.Lock()
			defer mu.Unlock()
			var r proto.Request
			if s.variant.codec().Parse(&r, message) == proto.Accepted && r.Type == proto.RequestTime {
				if asker != s {
					asker = s
					_ = unix.SetsockoptInt(s.fd(), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
				} else {
					now := proto.Time(time.Now().UnixMicro())
					began := time.Now()
					age := sinceData(s.fd())
					informing += time.Since(began)
					infos++
					note := func(name string, at proto.Time) { errs[name] = append(errs[name], float64(at-r.Sent)) }
					note("read", now)
					note("info", now-age)
					note("stamp", l.arrived)
					if stamped != 0 {
						note("kernel", proto.Time(stamped/1000))
						note("kernel, peeked", proto.Time(stamped/1000))
					} else {
						note("kernel", now)
					}
				}
				stamped = 0
			}
			mu.Unlock()
			heard(s, kind, message)
			mu.Lock()
		}
	})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		frame := len(appendMessage(nil, proto.JSON, threeOdds))
		for total := frame; ; total += frame {
			select {
			case <-stop:
				return
			default:
			}
			e.Deliver(&market.Batch{Outs: []market.Out{{Game: 3, Message: threeOdds}}})
			c.await(total)
		}
	}()
	for b.Loop() {
		ask(b, e, 1500)
	}
	close(stop)
	<-stopped
	b.ReportMetric(0, "ns/op")
	for _, name := range []string{"read", "info", "stamp", "kernel", "kernel, peeked"} {
		of := errs[name]
		b.Logf("%-15s %5d requests: %6.0f µs at the least, then %6.0f %6.0f %6.0f %6.0f (p1, p50, p99, the most)", name, len(of),
			quantile(of, 0), quantile(of, 0.01), quantile(of, 0.5), quantile(of, 0.99), quantile(of, 1))
	}
	b.Logf("TCP_INFO took %v, a peek %v", informing/time.Duration(max(1, infos)), peeking/time.Duration(max(1, peeks)))
}

// peekStamp is the kernel's stamp of what lies unread in a socket, in nanoseconds.
func peekStamp(fd int) (ns int64, ok bool) {
	var one [1]byte
	var control [64]byte
	part := unix.Iovec{Base: &one[0], Len: 1}
	header := unix.Msghdr{Iov: &part, Iovlen: 1, Control: &control[0], Controllen: uint64(len(control))}
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&header)), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if errno != 0 || int(n) != 1 || header.Controllen == 0 {
		return 0, false
	}
	return kernelStamp(control[:]), true
}
