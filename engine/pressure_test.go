package engine

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tote/server/market"
	"tote/server/proto"
	"tote/server/proto/control"
)

// bigOdds are as large as odds get, so that a reader who stops is soon full.
func bigOdds(g proto.GameID, n uint32) func(seq uint64) proto.Message {
	return func(seq uint64) proto.Message {
		m := &proto.Odds{T: 7, Game: g, Seq: seq, Pool: proto.NewPoolID(g, n), Counts: proto.Seq(seq)}
		for range proto.OutcomesMax {
			m.Odds = append(m.Odds, proto.Odd{Staked: proto.AmountMax, Backers: 1 << 31, Multiplier: 1 << 50})
		}
		return m
	}
}

// slow is a client in a game who does not read for now. Its kernel keeps little for it, and says so from the
// first packet: a window that shrinks later makes the kernel drop what is on its way, and with it
// acknowledgements.
func slow(t *testing.T, e *Engine, a proto.AccountID, g proto.GameID) *client {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
		return errors.Join(err, failed)
	}}
	return dialWith(t, e.Addr().String(), d).upgrade().greet(e, a).join(g)
}

// unsent is what the only loop keeps for a session.
func unsent(e *Engine, name market.Session) (n int) {
	onLoop(e, 0, func(l *loop) { n = l.find(name).backlog() })
	return n
}

// A client that stops reading is spared odds, costs no more than one distribution, and harms nobody. When it
// reads again it is told how many it missed, each time before its seq jumps, and gets the newest odds of every
// pool, though no more are to come.
func TestSlowConsumerOdds(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	m.announce(3)
	fast, lazy := joined(t, e, 12, 3), slow(t, e, 14, 3)
	const rounds, pools = 300, 3
	for i := range rounds {
		m.broadcast(3, bigOdds(3, uint32(i%pools)))
		if i%50 == 7 { // several of one game make one buffer
			m.broadcast(3, bigOdds(3, 1), bigOdds(3, 2))
		}
		for fast.expect("odds", 0).Seq != m.seq[3] { // nobody who reads is spared anything, nor waits
		}
	}
	if n := unsent(e, m.last[14]); n == 0 || n > 16<<10 {
		t.Errorf("%d bytes are kept for a client that does not read", n)
	}
	at, missed, newest := uint64(1), uint64(0), map[string]uint64{}
	for at < m.seq[3] {
		switch got := lazy.message(); got.Type {
		case "conflated":
			if missed > 0 {
				t.Fatalf("told twice: %s", got.raw)
			}
			missed = got.Conflated
		case "odds":
			if got.Seq != at+1+missed {
				t.Fatalf("seq %d after %d, told of %d", got.Seq, at, missed)
			}
			at, missed, newest[string(got.Pool)] = got.Seq, 0, got.Seq
		default:
			t.Fatalf("got %s", got.raw)
		}
	}
	if len(newest) != pools {
		t.Errorf("odds of %d pools came", len(newest))
	}
	for pool, seq := range newest {
		if seq+pools < m.seq[3] {
			t.Errorf("the newest odds of pool %s are %d of %d", pool, seq, m.seq[3])
		}
	}
	eventually(t, "conflation is counted", func() bool { return e.Stats().Conflated > rounds/2 })
	m.odds(3, 1)
	lazy.expect("odds", 0)
	fast.expect("odds", 0)
}

// A client that never reads costs at most 64 kB, in user space and in the kernel together, however large the odds
// are; the kernel's share is what it counts for the socket itself, bookkeeping included. It is 34 to 43 kB mostly; where the kernel's
// last segment has grown beyond, the client is closed. The session keeps one distribution.
func TestNeverReads(t *testing.T) {
	for _, row := range []struct {
		name string
		odds func(seq uint64) proto.Message
	}{
		{"three outcomes", func(seq uint64) proto.Message { odds := *threeOdds; odds.Seq = seq; return &odds }},
		{"64 outcomes", bigOdds(3, 1)},
	} {
		t.Run(row.name, func(t *testing.T) {
			e, m := serve(t, Config{Loops: 1})
			m.announce(3)
			fast, _ := joined(t, e, 12, 3), joined(t, e, 14, 3)
			taken := uint32(0)
			takes := func() (more bool) {
				onLoop(e, 0, func(l *loop) {
					if s := l.find(m.last[14]); s != nil { // not closed yet
						before := taken
						taken = acknowledged(s.fd())
						more = taken != before || !s.behind
					}
				})
				return more
			}
			broadcast := func() {
				for range 100 {
					m.broadcast(3, row.odds)
					for fast.expect("odds", 0).Seq != m.seq[3] {
					}
				}
			}
			for takes() { // its own kernel takes megabytes before it closes the window
				broadcast()
			}
			var kept, kernel int
			var named []control.Consumer
			onLoop(e, 0, func(l *loop) {
				l.closeStuck()
				l.closeStuck()
				l.ticks()
				named = e.Slowest()
				if s := l.find(m.last[14]); s != nil {
					kept = s.backlog()
					kernel = kernelKeeps(s.fd())
				}
			})
			t.Logf("the session keeps %d bytes, the kernel %d", kept, kernel)
			if kept > 0 && (len(named) != 1 || named[0].Backlog != kept || named[0].Address != "127.0.0.1") {
				t.Errorf("the slowest consumers are %+v; one has left %d bytes", named, kept)
			}
			if kept > 8<<10 || kept+kernel > 64<<10 {
				t.Errorf("the session keeps %d bytes and the kernel %d for a client that never reads", kept, kernel)
			}
		})
	}
}

// A client who takes nothing is closed when it costs 64 kB in all, private messages and the kernel's share included, long before its lane
// is full; one who takes something, however little, is not.
func TestStuck(t *testing.T) {
	e, m := serve(t, Config{Loops: 1, Limits: Limits{LaneBytes: 1 << 20, CloseTime: patience}})
	stuck, sluggish := slow(t, e, 14, 3), slow(t, e, 12, 3)
	for n := range uint64(3000) {
		m.tell(m.last[14], &proto.Payout{T: 7, N: n + 1})
		m.tell(m.last[12], &proto.Payout{T: 7, N: n + 1})
	}
	cost := func(a proto.AccountID) (all int) {
		onLoop(e, 0, func(l *loop) {
			if s := l.find(m.last[a]); s != nil {
				all = s.backlog() + kernelKeeps(s.fd())
			}
		})
		return all
	}
	look := func() { onLoop(e, 0, (*loop).closeStuck) }
	eventually(t, "both cost more than they may", func() bool { return min(cost(12), cost(14)) > 2*stuckMax })
	taken := func(a proto.AccountID) (n uint32) {
		onLoop(e, 0, func(l *loop) {
			l.looked = l.tick // this test looks, not the clock
			n = acknowledged(l.find(m.last[a]).fd())
		})
		return n
	}
	eventually(t, "his kernel has taken all that it will", func() bool {
		before := taken(14)
		time.Sleep(50 * time.Millisecond)
		return taken(14) == before
	})
	look()
	for before := taken(12); taken(12) == before; {
		sluggish.message()
	}
	look()
	if got := cost(14); got != 0 {
		t.Errorf("a client who takes nothing still costs %d bytes", got)
	}
	if cost(12) <= stuckMax {
		t.Fatal("a client who takes little is closed, or has taken much")
	}
	if n := e.Stats().Closes[proto.CloseSlow]; n > 1 {
		t.Errorf("%d were closed", n)
	}
	for {
		if f := stuck.frame(); f.Header.OpCode == cl {
			if got := closeBody(uint16(proto.CloseSlow), proto.CloseSlow.Reason()); string(f.Payload) != got {
				t.Errorf("closed with %q", f.Payload)
			}
			break
		}
	}
}

// Of all loops' consumers the worst are named, the worst first.
func TestTheWorstAreNamed(t *testing.T) {
	e := &Engine{}
	for i := range 3 {
		l := &loop{}
		for j := range slowMax {
			l.published.slow = append(l.published.slow, control.Consumer{Backlog: 1 + j*3 + i})
		}
		e.loops = append(e.loops, l)
	}
	got := e.Slowest()
	for i := range got {
		if want := 3*slowMax - i; got[i].Backlog != want {
			t.Errorf("number %d has left %d, want %d", i, got[i].Backlog, want)
		}
	}
	if len(got) != slowMax {
		t.Errorf("%d are named", len(got))
	}
}

// A client that was spared more than odds gets a new image, unasked, and goes on from there.
func TestSlowConsumerLifecycle(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	m.announce(3)
	lazy, fast := slow(t, e, 14, 3), joined(t, e, 12, 3)
	for i := range 200 {
		m.broadcast(3, bigOdds(3, uint32(i)))
		fast.expect("odds", 0)
	}
	m.locked(3, 1)
	fast.expect("locked", 0)
	at, missed := uint64(1), uint64(0)
	for {
		got := lazy.message()
		if got.Type == "joined" {
			if got.ID != 0 || got.Seq != m.seq[3] || at+missed != got.Seq {
				t.Fatalf("the image is %s, after %d and told of %d", got.raw, at, missed)
			}
			break
		}
		if got.Type == "conflated" {
			missed += got.Conflated
			continue
		}
		if got.Seq != at+1+missed {
			t.Fatalf("%s after %d, told of %d", got.raw, at, missed)
		}
		at, missed = got.Seq, 0
	}
	m.await(t, "join for an image", func(c *market.Command) bool { return c.Kind == market.Join && c.ID == 0 && c.From == m.last[14] })
	m.odds(3, 1)
	if got := lazy.expect("odds", 0); got.Seq != m.seq[3] {
		t.Fatalf("after the image came %s", got.raw)
	}
	onLoop(e, 0, func(l *loop) { l.ticks() })
	onLoop(e, 0, func(l *loop) {
		if len(l.behind) > 0 {
			t.Errorf("%d are watched still", len(l.behind))
		}
	})
}

// While the image is awaited nothing else is sent; who leaves meanwhile does not get it.
func TestImageForOneWhoLeft(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	m.announce(3)
	c := joined(t, e, 12, 3)
	m.mu.Lock()
	m.mute = true
	m.mu.Unlock()
	onLoop(e, 0, func(l *loop) {
		r := l.rooms[3]
		r.subs[0].lost = true // as if its socket had been full
		l.watch(r.subs[0].session)
		r.next++
		l.catchUpAll()
	})
	image := m.await(t, "join for an image", func(c *market.Command) bool { return c.Kind == market.Join && c.ID == 0 })
	m.odds(3, 1)
	c.ask(`{"type":"leave","id":5,"game":3}`)
	c.expect("left", 5)
	m.mu.Lock()
	m.mute = false
	m.answer(&image)
	m.mu.Unlock()
	c.sync()
	onLoop(e, 0, func(l *loop) {
		if n := len(l.rooms[3].subs); n != 0 {
			t.Errorf("%d are in the game", n)
		}
	})
	c.ask(`{"type":"time","id":6}`)
	c.expect("time", 6)
}

// The private lane skips nothing: it fills up to its limit, and then the session is closed, with the code that
// says why, behind what was said before. Others are not harmed.
func TestPrivateLaneFull(t *testing.T) {
	e, m := serve(t, Config{Loops: 1, Limits: Limits{LaneBytes: 64 << 10, CloseTime: patience}})
	m.announce(3)
	lazy, fast := slow(t, e, 14, 3), joined(t, e, 12, 3)
	session := m.last[14]
	const all = 20_000
	for i := range all {
		m.tell(session, &proto.Payout{T: 7, N: uint64(i + 1)})
	}
	m.await(t, "detach", func(c *market.Command) bool { return c.Kind == market.Detach && c.From == session })
	m.odds(3, 1)
	fast.expect("odds", 0)
	n := 0
	for {
		f := lazy.frame()
		if f.Header.OpCode == cl {
			if got := closeBody(uint16(proto.CloseSlow), proto.CloseSlow.Reason()); string(f.Payload) != got {
				t.Errorf("closed with %q", f.Payload)
			}
			break
		}
		n++
		if !strings.Contains(string(f.Payload), fmt.Sprintf(`"n":%d,`, n)) {
			t.Fatalf("message %d is %s", n, f.Payload)
		}
	}
	if n == 0 || n == all {
		t.Errorf("%d of %d messages came before the close", n, all)
	}
	lazy.expectEnd()
	eventually(t, "the close is counted", func() bool { return e.Stats().Closes[proto.CloseSlow] == 1 })
}

// A flood of pings by one who does not read the pongs ends in the same way.
func TestPingFlood(t *testing.T) {
	e, m := serve(t, Config{Loops: 1, Limits: Limits{LaneBytes: 16 << 10, Frames: 1 << 30}})
	m.announce(3)
	c := slow(t, e, 14, 3)
	flood := frames(fr(ping, true, strings.Repeat("p", 125)))
	go func() {
		for {
			if _, err := c.conn.Write(flood); err != nil {
				return
			}
		}
	}()
	m.await(t, "detach", func(c *market.Command) bool { return c.Kind == market.Detach })
	eventually(t, "the close is counted", func() bool { return e.Stats().Closes[proto.CloseSlow] == 1 })
}

// A subscriber that a write finds dead leaves when the loop reads again, and the others get theirs.
func TestDeadSubscriber(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	m.announce(3)
	var all []*client
	for i := range 2 * sliceMax {
		all = append(all, joined(t, e, proto.AccountID(100+i), 3))
	}
	onLoop(e, 0, func(l *loop) { // within one turn: the loop cannot read the resets before it writes
		for i := 0; i < len(all); i += 2 {
			_ = all[i].conn.SetLinger(0)
			_ = all[i].conn.Close()
		}
		b := (&delivery{}).broadcast(e, []market.Out{{Game: 3, Message: &proto.Happened{T: 7, Game: 3, Seq: 2}}})
		l.cast(b)
		for len(l.active) > 0 {
			l.distribute()
			if err := checkLoop(l); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := 1; i < len(all); i += 2 {
		all[i].expect("event", 0)
	}
	eventually(t, "the dead have left", func() bool { return e.door.inside() == sliceMax })
	onLoop(e, 0, func(l *loop) {
		if n := len(l.rooms[3].subs); n != sliceMax {
			t.Errorf("%d subscribers are left of %d", n, sliceMax)
		}
		if err := checkLoop(l); err != nil {
			t.Error(err)
		}
	})
}

// When broadcasts come faster than they can be distributed, all are spared odds together, and nothing else.
func TestRoomConflates(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	m.announce(3)
	c := joined(t, e, 12, 3)
	onLoop(e, 0, func(l *loop) {
		for range 100 {
			m.odds(3, 1)
			m.odds(3, 2)
		}
		m.locked(3, 3)
		m.odds(3, 1)
	})
	at, missed, locked := uint64(1), uint64(0), 0
	for at < 203 {
		switch got := c.message(); got.Type {
		case "conflated":
			missed = got.Conflated
		default:
			if got.Seq != at+1+missed {
				t.Fatalf("%s after %d, told of %d", got.raw, at, missed)
			}
			at, missed = got.Seq, 0
			if got.Type == "locked" {
				locked++
			}
		}
	}
	if locked != 1 {
		t.Errorf("locked came %d times", locked)
	}
	eventually(t, "conflation is counted", func() bool { return e.Stats().Conflated > 150 })
}

// While nobody asks slices are long; after a request comes a short one.
func TestSlicesAreLongWhileNobodyAsks(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	m.announce(3)
	for i := range 2*sliceCalm + sliceMax + 1 {
		joined(t, e, proto.AccountID(100+i), 3)
	}
	onLoop(e, 0, func(l *loop) {
		l.cast((&delivery{}).broadcast(e, []market.Out{{Game: 3, Seq: 2, Message: &proto.Happened{T: 7, Game: 3, Seq: 2}}}))
		for _, slice := range []struct {
			asked bool
			want  int // visited in all
		}{{false, sliceCalm}, {true, sliceCalm + sliceMax}, {false, sliceCalm + sliceMax + sliceCalm}} {
			l.asked = slice.asked
			l.distribute()
			if got := l.rooms[3].visited; got != slice.want {
				t.Errorf("asked: %v; %d were visited, want %d", slice.asked, got, slice.want)
			}
		}
	})
}

// Odds that have waited for long are spared all together when newer ones of the pool are there, and not before.
func TestRoomSparesOldOdds(t *testing.T) {
	for _, row := range []struct {
		name   string
		pools  []proto.PoolID // of the odds that wait
		waited proto.Time     // by the first
		want   []uint64       // seqs that come; what is missing is told
	}{
		{"newer odds are there", []proto.PoolID{1, 1}, oddsWait, []uint64{3}},
		{"only the newest comes", []proto.PoolID{1, 1, 1}, oddsWait, []uint64{4}},
		{"they have not waited for long", []proto.PoolID{1, 1}, oddsWait / 2, []uint64{2, 3}},
		{"the newer odds are another pool's", []proto.PoolID{1, 2}, oddsWait, []uint64{2, 3}},
		{"there are no newer ones", []proto.PoolID{1}, oddsWait, []uint64{2}},
	} {
		t.Run(row.name, func(t *testing.T) {
			e, m := serve(t, Config{Loops: 1})
			m.announce(3)
			c := joined(t, e, 12, 3)
			onLoop(e, 0, func(l *loop) {
				for i, pool := range row.pools {
					l.cast((&delivery{}).broadcast(e, []market.Out{{Game: 3, Seq: uint64(2 + i), Message: &proto.Odds{T: 7, Game: 3, Seq: uint64(2 + i), Pool: pool}}}))
				}
				for i := range l.rooms[3].queue {
					l.rooms[3].queue[i].at -= row.waited
				}
			})
			at, missed := uint64(1), uint64(0)
			for _, want := range row.want {
				got := c.message()
				if got.Type == "conflated" {
					missed = got.Conflated
					got = c.message()
				}
				if got.Seq != want || got.Seq != at+1+missed {
					t.Fatalf("%s after %d, told of %d; want %d", got.raw, at, missed, want)
				}
				at, missed = got.Seq, 0
			}
		})
	}
}

// A hot game does not keep a small one waiting: after one slice of the one comes the other.
func TestRoomsTakeTurns(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	m.announce(3, 4)
	for i := range 3 * sliceMax {
		joined(t, e, proto.AccountID(100+i), 3)
	}
	small := joined(t, e, 12, 4)
	onLoop(e, 0, func(l *loop) {
		for _, g := range []proto.GameID{3, 4} {
			l.cast((&delivery{}).broadcast(e, []market.Out{{Game: g, Message: &proto.Happened{T: 7, Game: g, Seq: 2}}}))
		}
		l.asked = true
		l.distribute()
		if hot := l.rooms[3]; hot.visited != sliceMax || len(l.rooms[4].queue) != 1 {
			t.Errorf("after one slice the hot game has reached %d", hot.visited)
		}
		l.asked = true
		l.distribute()
		if len(l.rooms[4].queue) != 0 {
			t.Error("after two slices the small game still waits")
		}
	})
	small.expect("event", 0)
}
