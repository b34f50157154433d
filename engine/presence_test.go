package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"tote/server/proto"
)

const looks = 100 * time.Millisecond

// told is who a message says is in the room, as "12:Ada".
func told(t *testing.T, raw string) []string {
	t.Helper()
	var m proto.PresenceChanged
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, p := range m.People {
		found = append(found, fmt.Sprintf("%d:%s", p.Account, p.Name))
	}
	return found
}

// until reads messages of a type until one says what is wanted.
func (c *client) until(kind string, right func(raw string) bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		m := c.message()
		if m.Type == kind && right(m.raw) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("no such %s; the last message is %s", kind, m.raw)
		}
	}
}

// Those in a small room are told who is there, whichever loops they are on, at once to who asks and soon to everybody; two windows of
// a player are one.
func TestPeople(t *testing.T) {
	e, m := serve(t, Config{Loops: 3, Limits: Limits{Presence: looks}})
	m.announce(3, 4)
	ada := joined(t, e, 12, 3)
	others := []*client{joined(t, e, 20, 3), joined(t, e, 14, 3), joined(t, e, 14, 3)}
	joined(t, e, 30, 4)

	ada.ask(`{"type":"presence","id":50,"game":3}`)
	reply := ada.message()
	for ; reply.ID != 50; reply = ada.message() {
	}
	want := []string{"12:Ada", "14:Ada", "20:Ada"}
	if got := told(t, reply.raw); !slices.Equal(got, want) || reply.Present != 4 {
		t.Errorf("%d connections of %v, want 4 of %v", reply.Present, got, want)
	}
	for _, c := range append(others, ada) {
		c.until("presence_changed", func(raw string) bool { return slices.Equal(told(t, raw), want) })
	}
	others[0].ask(`{"type":"leave","id":51,"game":3}`)
	others[1].conn.Close() // the other window stays
	ada.until("presence_changed", func(raw string) bool {
		return slices.Equal(told(t, raw), []string{"12:Ada", "14:Ada"}) && strings.Contains(raw, `"present":2`)
	})
}

// In a larger room nobody is told names; those who were, are told that it has grown. When it shrinks, names come back.
func TestRoomGrows(t *testing.T) {
	e, m := serve(t, Config{Loops: 2, Limits: Limits{Presence: looks}})
	m.announce(3)
	ada := joined(t, e, 12, 3)
	ada.until("presence_changed", func(raw string) bool { return len(told(t, raw)) == 1 })
	var all []*client
	for i := range proto.PeopleMax {
		all = append(all, joined(t, e, proto.AccountID(100+i), 3))
	}
	ada.until("presence_changed", func(raw string) bool {
		return !strings.Contains(raw, "people") && strings.Contains(raw, `"present":51`)
	})
	ada.ask(`{"type":"presence","id":50,"game":3}`)
	for r := ada.message(); r.ID != 50; r = ada.message() {
	}
	for _, c := range all[1:] {
		c.conn.Close()
	}
	ada.until("presence_changed", func(raw string) bool { return slices.Equal(told(t, raw), []string{"12:Ada", "100:Ada"}) })
}

// latencyOf is what the room is told of an account; 0: nothing yet.
func latencyOf(t *testing.T, raw string, a proto.AccountID) proto.Time {
	t.Helper()
	var m proto.PresenceChanged
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		t.Fatal(err)
	}
	for _, p := range m.People {
		if p.Account == a {
			return p.Latency
		}
	}
	return 0
}

// A latency is the time from a ping to its pong, by the loop's clock: whoever takes longer to answer is shown so. Pongs that nobody
// asked for, or that answer another ping, count for nothing.
func TestLatency(t *testing.T) {
	e, m := serve(t, Config{Loops: 1, Limits: Limits{Presence: looks}})
	m.announce(3)
	ada, liar, slow := joined(t, e, 12, 3), joined(t, e, 14, 3), joined(t, e, 16, 3)
	delays := map[*client]time.Duration{slow: 120 * time.Millisecond}
	for _, c := range []*client{ada, slow} {
		go func() {
			for {
				f, err := readFrame(c.r)
				if err != nil {
					return
				}
				if f.Header.OpCode == ws.OpPing {
					time.Sleep(delays[c])
					c.conn.Write(masked(ws.NewPongFrame(f.Payload)))
				}
			}
		}()
	}
	for _, payload := range [][]byte{nil, {0, 0, 0, 0}, []byte("abcd"), []byte("longer than a time")} {
		liar.write(masked(ws.NewPongFrame(payload)))
	}
	var last string
	for deadline := time.Now().Add(patience); ; {
		f := liar.frame() // and no ping is answered
		if f.Header.OpCode == ws.OpText {
			last = string(f.Payload)
			if strings.Contains(last, "presence_changed") && latencyOf(t, last, 12) > 0 && latencyOf(t, last, 16) > 0 {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no latencies; the last message is %s", last)
		}
	}
	if got := latencyOf(t, last, 16); got < 120*proto.Second/1000 {
		t.Errorf("who answers after 120 ms has a latency of %d µs", got)
	}
	if got := latencyOf(t, last, 14); got != 0 {
		t.Errorf("who never answered a ping has a latency of %d µs", got)
	}
	eventually(t, "latencies are counted", func() bool {
		h := e.Stats().Latencies
		var n uint64
		for _, bucket := range h.Buckets {
			n += bucket
		}
		return n >= 2 && h.Sum >= 120_000
	})
}

// Those in no small room are sampled in turns, which leaves nothing behind.
func TestSampledLatencies(t *testing.T) {
	e, _ := serve(t, Config{Loops: 1, Limits: Limits{Presence: looks}})
	const clients = 2*sampleMax + 3
	for i := range clients {
		c := greeted(t, e, proto.AccountID(100+i))
		go func() {
			for {
				f, err := readFrame(c.r)
				if err != nil {
					return
				}
				c.conn.Write(masked(ws.NewPongFrame(f.Payload)))
			}
		}()
	}
	eventually(t, "all have answered", func() bool {
		var n uint64
		for _, bucket := range e.Stats().Latencies.Buckets {
			n += bucket
		}
		return n >= clients
	})
	onLoop(e, 0, func(l *loop) {
		if len(l.people) > sampleMax {
			t.Errorf("%d sampled sessions are remembered", len(l.people))
		}
	})
}

// A new value weighs a quarter; what is answered twice counts once.
func TestLatencyIsSmoothed(t *testing.T) {
	e, _ := serve(t, Config{Loops: 1})
	onLoop(e, 0, func(l *loop) {
		s := &session{loop: l, slot: 7}
		l.people[7] = &person{}
		answer := func(took uint32, again bool) uint32 {
			p := l.people[7]
			l.now = 1 << 40 // beyond what four bytes hold
			if !again {
				p.asked, p.sent = true, uint32(l.now)-took
			}
			l.ponged(s, []byte{byte(p.sent), byte(p.sent >> 8), byte(p.sent >> 16), byte(p.sent >> 24)}, false)
			return p.latency
		}
		for _, row := range []struct {
			took  uint32
			again bool
			want  uint32
		}{{40_000, false, 40_000}, {80_000, false, 50_000}, {0, true, 50_000}, {50_000, false, 50_000}, {0, false, 37_500}} {
			if got := answer(row.took, row.again); got != row.want {
				t.Errorf("after %+v the latency is %d", row, got)
			}
		}
		delete(l.people, 7)
	})
}

// Somebody who does not read gets no list on top of the odds that wait, and the newest one when he reads again.
func TestPeopleAndSlowReaders(t *testing.T) {
	e, m := serve(t, Config{Loops: 1, Limits: Limits{Presence: looks}})
	m.announce(3)
	lazy := slow(t, e, 12, 3)
	lazy.until("presence_changed", func(raw string) bool { return len(told(t, raw)) == 1 })
	for range 300 {
		m.broadcast(3, bigOdds(3, 1))
	}
	eventually(t, "the kernel takes no more", func() bool { return unsent(e, m.last[12]) > 0 })
	for i := range 5 {
		c := joined(t, e, proto.AccountID(100+i), 3)
		c.until("presence_changed", func(raw string) bool { return len(told(t, raw)) == 2+i })
	}
	seen := 0
	lazy.until("presence_changed", func(raw string) bool { seen++; return len(told(t, raw)) == 6 })
	if seen >= 5 { // the kernel may take a little more now and then, and with it a list
		t.Errorf("%d lists reached who did not read, one for each change", seen)
	}
}
