package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tote/server/proto"
)

// An allowance never lets more through than a list of all would, and to somebody who is alone not less.
func TestAllowance(t *testing.T) {
	m, now := newAllowance(10), proto.Time(5*proto.Second)
	count := func(key uint64, tries int) (n int) {
		for range tries {
			if m.take(key, 1, now) {
				n++
			}
		}
		return n
	}
	for _, row := range []struct {
		name  string
		later proto.Time
		want  int
	}{
		{"at once", 0, 10}, {"again", 0, 0}, {"a tenth of a second later", proto.Second / 10, 1},
		{"half a second later", proto.Second / 2, 5}, {"an hour later", 3600 * proto.Second, 10},
	} {
		now += row.later
		if got := count(7, 100); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
	if got := count(8, 100); got != 10 {
		t.Errorf("somebody else had %d", got)
	}
	if !m.take(9, 25, now) || m.take(9, 1, now+proto.Second) || !m.take(9, 1, now+2*proto.Second) {
		t.Error("who takes much at once does not pay it back")
	}
}

// In a crowd nobody gets more than he may, and whoever asks for little is not refused for those who ask for much.
func TestAllowanceCrowd(t *testing.T) {
	const limit, greedy = 200, 100
	m := newAllowance(limit)
	had, wronged := map[uint64]int{}, 0
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		key := r.Uint64N(greedy) // who ask a thousand times each
		if r.Uint64N(2) == 0 {
			key = greedy + r.Uint64N(50_000)
		}
		switch took := m.take(key, 1, proto.Second); {
		case took:
			had[key]++
		case key >= greedy && had[key] < 4:
			wronged++
		}
		if had[key] > limit {
			t.Fatalf("%d took %d", key, had[key])
		}
	}
	if wronged > 100 { // where both cells are greedy ones': 0.001 % of them
		t.Errorf("%d of 100,000 were refused for others", wronged)
	}
}

// Loops that count at once let no more through than one each.
func TestAllowanceLoops(t *testing.T) {
	m := newAllowance(10_000)
	var taken atomic.Int64
	var loops sync.WaitGroup
	for range 4 {
		loops.Go(func() {
			for range 10_000 {
				if m.take(7, 1, proto.Second) {
					taken.Add(1)
				}
			}
		})
	}
	loops.Wait()
	if n := taken.Load(); n < 10_000 || n > 10_000+4 {
		t.Errorf("%d were let through, of 10,000", taken.Load())
	}
}

// Requests over the limits of an account, an address and all are refused, whichever connection they come by.
func TestRequestAllowances(t *testing.T) {
	now := func() proto.Time { return 5 * proto.Second }
	for _, row := range []struct {
		name     string
		limits   Limits
		accounts [2]proto.AccountID // of two connections
		want     proto.Refusal
	}{
		{"account", Limits{AccountRequests: 4}, [2]proto.AccountID{12, 12}, proto.RefusedRequestsFast},
		{"another account", Limits{AccountRequests: 4}, [2]proto.AccountID{12, 14}, proto.Accepted},
		{"address", Limits{AddressRequests: 6}, [2]proto.AccountID{12, 14}, proto.RefusedRequestsFast}, // with two hellos
		{"all", Limits{AllRequests: 6}, [2]proto.AccountID{12, 14}, proto.RefusedBusy},
		{"loopback is free", Limits{}, [2]proto.AccountID{12, 12}, proto.Accepted},
	} {
		t.Run(row.name, func(t *testing.T) {
			e, _ := serve(t, Config{Now: now, Limits: row.limits})
			first, second := greeted(t, e, row.accounts[0]), greeted(t, e, row.accounts[1])
			for id := range proto.RequestID(2) {
				for _, c := range []*client{first, second} {
					c.ask(`{"type":"time","id":%d}`, 10+id)
					c.expect("time", 10+id)
				}
			}
			first.ask(`{"type":"time","id":20}`)
			if row.want == proto.Accepted {
				first.expect("time", 20)
				return
			}
			first.expectRefused(20, row.want)
		})
	}
}

// Who sends more bytes than he may is closed.
func TestByteAllowances(t *testing.T) {
	now := func() proto.Time { return 5 * proto.Second }
	for _, row := range []struct {
		name   string
		limits Limits
		want   proto.CloseCode
	}{
		{"account", Limits{AccountBytes: 10_000}, proto.ClosePolicy},
		{"address", Limits{AddressBytes: 10_000}, proto.ClosePolicy},
		{"all", Limits{AllBytes: 10_000}, proto.CloseTryLater},
	} {
		t.Run(row.name, func(t *testing.T) {
			e, _ := serve(t, Config{Now: now, Limits: row.limits})
			c := greeted(t, e, 12)
			long := text(fmt.Sprintf(`{"type":"time","id":2,"x":"%s"}`, strings.Repeat("x", 8000)))
			for range 2 { // a read that begins within the limit is taken whole
				c.write(long)
				c.expect("time", 2)
			}
			c.write(long)
			c.expectClose(row.want)
		})
	}
}

func BenchmarkAllowance(b *testing.B) {
	m := newAllowance(1 << 30)
	key, now := uint64(0), proto.Time(5*proto.Second)
	for b.Loop() {
		key, now = key+1, now+1
		if !m.take(key%100_000, 1, now) {
			b.Fatal("refused")
		}
	}
}

// Hellos of an account are counted over all connections, and whoever is refused may say hello again, until his time for it is over.
func TestHellosOfAnAccount(t *testing.T) {
	e, _ := serve(t, Config{Now: func() proto.Time { return 5 * proto.Second }, Limits: Limits{AccountHellos: 3, HelloTime: 500 * time.Millisecond}})
	for range 3 {
		greeted(t, e, 12)
	}
	fourth := upgraded(t, e)
	fourth.ask(`{"type":"hello","id":1,"token":%q}`, e.Token(12))
	fourth.expectRefused(1, proto.RefusedRequestsFast)
	fourth.greet(e, 14)
	unknown := upgraded(t, e)
	unknown.ask(`{"type":"hello","id":1,"token":%q}`, e.Token(13)) // whom the market does not know
	unknown.expectRefused(1, proto.RefusedAccountUnknown)
	unknown.expectClose(proto.CloseHelloMissed) // and not after half of IdleTime
}
