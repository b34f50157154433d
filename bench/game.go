package bench

import (
	"encoding/json"
	"fmt"
	"slices"

	"tote/server/proto"
)

// game is what a worker's players know of a game. They all hear the same broadcasts, so the first one to hear
// a broadcast reads it for all: ten thousand players cost one decoding.
//
// Owner: the worker.
type game struct {
	course
	known    bool   // an image has come
	seq      uint64 // the newest broadcast that any player has heard
	state    proto.GameState
	interval proto.Time
	present  int // players of this worker
	pools    map[proto.PoolID]pool
	open     []pool // those that take stakes
}

// pool is a question of a game.
type pool struct {
	id       proto.PoolID
	outcomes int
	state    proto.PoolState
	winners  []proto.Outcome // when settled
	refunded bool            // settled with nobody on the winner
	odds     []proto.Odd     // the newest
	oddsSeq  uint64          // the broadcast that brought them
	counts   proto.Seq       // the last record that they include
}

// lost says whether the pool is settled and the ticket worth nothing.
func (p *pool) lost(t ticket) bool {
	return p.state == proto.PoolSettled && !p.refunded && !slices.Contains(p.winners, t.outcome)
}

// image begins anew from what a player got on joining.
func (g *game) image(m *proto.Joined) {
	g.known, g.seq, g.state, g.interval = true, m.Seq, m.Game.State, m.Game.Interval
	g.pools = make(map[proto.PoolID]pool, len(m.Pools))
	for i := range m.Pools {
		g.show(&m.Pools[i])
	}
	g.sort()
}

func (g *game) show(p *proto.Pool) {
	g.pools[p.Pool] = pool{id: p.Pool, outcomes: len(p.Labels), state: p.State, winners: p.Winners, odds: p.Odds}
}

// sort lists the open pools, in the order of their ids so that the same seed makes the same choices.
func (g *game) sort() {
	g.open = g.open[:0]
	for _, p := range g.pools {
		if p.state == proto.PoolOpen && p.outcomes > 0 {
			g.open = append(g.open, p)
		}
	}
	slices.SortFunc(g.open, func(a, b pool) int { return int(a.id) - int(b.id) })
}

// learn takes in a broadcast that no player had heard before.
func (g *game) learn(kind string, seq uint64, text []byte) error {
	g.seq = seq
	switch kind {
	case "odds":
		var m proto.Odds
		return g.change(text, &m, func() proto.PoolID { return m.Pool }, func(p *pool) { p.odds, p.oddsSeq, p.counts = m.Odds, seq, m.Counts })
	case "locked":
		var m proto.Locked
		return g.change(text, &m, func() proto.PoolID { return m.Pool }, func(p *pool) { p.state, p.odds = proto.PoolLocked, m.Odds })
	case "settled":
		var m proto.Settled
		return g.change(text, &m, func() proto.PoolID { return m.Pool }, func(p *pool) {
			p.state, p.winners, p.refunded = proto.PoolSettled, m.Winners, m.Refunded
		})
	case "voided":
		var m proto.Voided
		return g.change(text, &m, func() proto.PoolID { return m.Pool }, func(p *pool) { p.state = proto.PoolVoided })
	case "pool":
		var m proto.PoolChanged
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		g.show(&m.Pool)
		g.sort()
	case "opened":
		var m proto.Opened
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		g.show(&m.Pool)
		g.sort()
	case "game":
		var m proto.GameChanged
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		g.state, g.interval = m.Game.State, m.Game.Interval
	}
	return nil
}

// change reads a message about one pool and lets it change that pool.
func (g *game) change(text []byte, m any, id func() proto.PoolID, do func(*pool)) error {
	if err := json.Unmarshal(text, m); err != nil {
		return err
	}
	p, ok := g.pools[id()]
	if !ok {
		return fmt.Errorf("pool %d was never shown", id())
	}
	before := p.state
	do(&p)
	g.pools[p.id] = p
	if p.state != before {
		g.sort()
	}
	return nil
}
