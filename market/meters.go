package market

import (
	"maps"
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
	stakes map[proto.GameID]uint64 // as of each game's last distribution
}

// showStakes shows how many stakes a game has had. It is told as often as odds are: whoever stakes changes them.
func (s *Shard) showStakes(g *game) {
	s.shown.mu.Lock()
	defer s.shown.mu.Unlock()
	if s.shown.stakes == nil {
		s.shown.stakes = map[proto.GameID]uint64{}
	}
	s.shown.stakes[g.id] = g.board.stakes
}

func (s *Shard) forgetStakes(id proto.GameID) {
	s.shown.mu.Lock()
	defer s.shown.mu.Unlock()
	delete(s.shown.stakes, id)
}

// Stakes are the stakes and sales of each game that is in memory, in this life of the server, as of its last distribution.
func (m *Market) Stakes() map[proto.GameID]uint64 {
	all := map[proto.GameID]uint64{}
	for _, s := range m.shards {
		s.shown.mu.Lock()
		maps.Copy(all, s.shown.stakes)
		s.shown.mu.Unlock()
	}
	return all
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
