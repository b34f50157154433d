package market

import (
	"sync"

	"tote/server/market/meter"
	"tote/server/proto"
)

// Meters is how the market's time goes. A shard counts in its own, and shows a copy now and then.
type Meters struct {
	Turns    meter.Histogram // times of turns
	Commands meter.Histogram // taken in a turn
	Decided  meter.Histogram // times from a request's arrival to its receipt or refusal
	Released meter.Histogram // times from a batch to its delivery: until it was durable
}

// metersEvery is how often a shard shows its meters: copying them takes about as long as a stake.
const metersEvery = 100 * proto.Millisecond

// metersShown are what others may see.
type metersShown struct {
	mu     sync.Mutex
	meters Meters
	at     proto.Time
}

// show shows the shard's meters, if that was not done lately.
func (s *Shard) show() {
	if s.now < s.shown.at+metersEvery {
		return
	}
	s.shown.at = s.now
	s.shown.mu.Lock()
	s.shown.meters = s.meters
	s.shown.mu.Unlock()
}

// Meters adds up what the shards have shown: it is a second old at most.
func (m *Market) Meters() (sum Meters) {
	for _, s := range m.shards {
		s.shown.mu.Lock()
		of := s.shown.meters
		s.shown.mu.Unlock()
		sum.Turns.Merge(&of.Turns)
		sum.Commands.Merge(&of.Commands)
		sum.Decided.Merge(&of.Decided)
		sum.Released.Merge(&of.Released)
	}
	return sum
}
