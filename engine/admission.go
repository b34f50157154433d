package engine

import (
	"sync"
	"time"
)

// admission lets newcomers in at a bounded rate. Those who come faster wait in the kernel's queue, where they cost us nothing, instead of
// being refused and coming again: so when everybody comes back at once, after a restart or when a network comes back, those who are in
// keep their share of the loops.
//
// The acceptors share it.
type admission struct {
	each time.Duration // a newcomer's share of a second

	mu   sync.Mutex
	next time.Time // when the next one would be let in, were they to come evenly
}

const (
	// admissionsPerLoop is a newcomer each 0.5 ms: with handshake, hello, predictions, list of games and image it costs the server 0.13 ms, so a storm takes a
	// quarter of each loop, and a crowd of a million on 16 loops is in after half a minute.
	admissionsPerLoop = 2000

	// admissionBurst is how far newcomers may be ahead of their time, and admissionPause for how long the door is shut then: the shorter, the fewer
	// come in between two turns.
	admissionBurst = 20 * time.Millisecond
	admissionPause = 10 * time.Millisecond
)

func (a *admission) open(perSecond int) { a.each = time.Second / time.Duration(perSecond) }

// take takes the next place, and returns how far it is ahead of its time.
func (a *admission) take(now time.Time) (ahead time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ahead = a.next.Sub(now); ahead < 0 {
		a.next = now
	}
	a.next = a.next.Add(a.each)
	return ahead
}

// takes is how long it takes to let so many in.
func (a *admission) takes(clients int) time.Duration { return time.Duration(clients) * a.each }
