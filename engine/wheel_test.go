package engine

import (
	"math/rand/v2"
	"testing"

	"tote/server/proto"
)

// The wheel wakes every session at its tick, or at the horizon if that is nearer; a map is its naive twin.
func TestWheel(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		l := &loop{tick: uint32(random.IntN(1 << 20))}
		due := map[*session]uint32{}
		var all []*session
		for range 50 {
			all = append(all, &session{loop: l, bucket: -1})
		}
		for range 5000 {
			s := all[random.IntN(len(all))]
			switch random.IntN(3) {
			case 0:
				in := random.Uint32N(1 << (1 + random.IntN(12)))
				l.wheel.set(s, l.tick+in)
				due[s] = l.tick + min(max(in, 1), wheelBuckets-1)
			case 1:
				l.wheel.remove(s)
				delete(due, s)
			case 2:
				l.tick++
				woken := 0
				for s := l.wheel.pop(l.tick); s != nil; s = l.wheel.pop(l.tick) {
					if due[s] != l.tick {
						t.Fatalf("seed %d: woken at %d instead of %d", seed, l.tick, due[s])
					}
					delete(due, s)
					woken++
				}
				for _, at := range due {
					if at == l.tick {
						t.Fatalf("seed %d: one was forgotten at %d, where %d woke", seed, at, woken)
					}
				}
			}
		}
	}
}

// Those who came together are not pinged together, and nobody waits longer than half of the idle time.
func TestPingsAreSpread(t *testing.T) {
	l := &loop{idleTicks: 900}
	when := map[uint32]int{}
	for slot := range uint32(10_000) {
		when[l.pingAfter(&session{slot: slot})]++
	}
	for after, n := range when {
		if after > 450 || after < 450-450/4-1 || n > 200 {
			t.Errorf("%d of 10,000 are pinged after %d ticks of 900", n, after)
		}
	}
}

// Ticks that come late, several in one turn, do not end a connection before its close frame is written.
func TestLateTicks(t *testing.T) {
	e, _ := serve(t, Config{Loops: 1})
	c := greeted(t, e, 12)
	onLoop(e, 0, func(l *loop) {
		l.close(l.places[0].session, proto.CloseIdle)
		l.advance(l.tick + 3)
	})
	c.expectClose(proto.CloseIdle)
}
