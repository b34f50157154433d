package market

import (
	"slices"

	"tote/server/proto"
)

// board is how a game shows its odds: collected, and published at most once per interval. The first change
// after a quiet interval is published in the turn that made it; later ones wait for the interval to pass. The
// shard that owns the game is the only one who publishes, so two distributions in one interval cannot be.
type board struct {
	seq       uint64     // of the last broadcast; the number of a lifetime of the server
	published proto.Time // last distribution
	due       proto.Time // next distribution; 0: nothing has changed
	stakes    uint64     // and sales, in this life of the server
	pace      proto.Time // the host cannot carry more than one distribution in so long; 0: it can
}

// next numbers a broadcast.
func (b *board) next() uint64 {
	b.seq++
	return b.seq
}

// change marks a pool to be published, and returns its game.
func (s *Shard) change(p *pool) *game {
	p.changed = true
	g := s.games[p.id.Game()]
	if g.board.due == 0 {
		g.board.due = max(s.now, g.board.published+g.interval())
		s.agenda.add(appointment{at: g.board.due, kind: publishGame, game: g.id})
	}
	return g
}

// interval is the batching interval in force.
func (g *game) interval() proto.Time { return max(g.opening.Interval, g.board.pace) }

// setPace stretches the interval, or lets it be as it was opened, and tells everybody.
func (s *Shard) setPace(g *game, every proto.Time) {
	before := g.interval()
	if g.board.pace = min(every, intervalMax); g.interval() != before {
		s.showGame(g)
	}
}

// publish broadcasts the odds of each pool that changed since the last time.
func (s *Shard) publish(id proto.GameID, due proto.Time) {
	g := s.games[id]
	if g == nil || g.board.due != due {
		return
	}
	g.board.due, g.board.published = 0, s.now
	s.showStakes(g)
	for _, p := range g.pools {
		if !p.changed {
			continue
		}
		p.changed = false
		s.broadcast(g, &proto.Odds{T: s.now, Game: id, Seq: g.board.next(), Pool: p.id, Counts: s.seen, Odds: p.odds(), Carried: p.carried})
	}
}

// odds are what stands on each outcome.
func (p *pool) odds() []proto.Odd {
	if p.dynamic != nil {
		return p.dynamicOdds()
	}
	net := p.net()
	odds := make([]proto.Odd, len(p.outcomes))
	for i, on := range p.outcomes {
		odds[i] = proto.Odd{Staked: on.staked, Backers: on.backers, Multiplier: proto.NewMultiplier(net, on.staked)}
	}
	return odds
}

func (p *pool) show() proto.Pool {
	shown := proto.Pool{Pool: p.id, Kind: p.opening.Kind, Variant: p.variant(), Question: p.opening.Question, Labels: p.opening.Labels,
		State: p.state, LocksAt: p.opening.LocksAt, Takeout: p.opening.Takeout, Odds: p.odds(), Winners: slices.Clone(p.winners),
		Unit: p.opening.Unit, AccountMax: p.opening.AccountMax, Carried: p.carried, Refunded: p.ended.Refunded, CarriedTo: p.ended.CarriedTo,
		Asked: p.showAsked()}
	for o := range p.outcomes {
		if p.withdrawn>>o&1 != 0 {
			shown.Withdrawn = append(shown.Withdrawn, proto.Outcome(o))
		}
	}
	return shown
}

// showPools shows what all may see, or all that there is.
func (g *game) showPools(hidden bool) []proto.Pool {
	pools := make([]proto.Pool, 0, len(g.pools))
	for _, p := range g.pools {
		if hidden || !p.hidden() {
			pools = append(pools, p.show())
		}
	}
	return pools
}

func (g *game) show() proto.Game {
	show := proto.Game{Game: g.id, Name: g.opening.Name, State: g.state, Teams: g.opening.Teams, Score: g.score, Minute: g.minute,
		Interval: g.interval(), Circle: g.circle}
	if g.circle != 0 {
		show.Parent = g.id.Main()
	}
	return show
}

// showGame tells all loops of a game's state, whether or not anybody has joined it.
func (s *Shard) showGame(g *game) {
	s.broadcast(g, &proto.GameChanged{T: s.now, Seq: g.board.next(), Game: g.show()})
}

// announce shows all games and puts their deadlines on the agenda, before the first turn.
func (s *Shard) announce() {
	s.now = s.config.Now()
	for _, id := range sortedKeys(s.games) {
		g := s.games[id]
		s.showGame(g)
		if g.state == proto.GameEnded {
			s.agenda.add(appointment{at: s.now + s.config.ArchiveAfter, kind: archiveGame, game: id})
		}
		for _, p := range g.pools {
			switch {
			case (p.unlocked() || p.state == proto.PoolProposed) && p.opening.LocksAt != 0:
				s.agenda.add(appointment{at: p.opening.LocksAt, kind: lockPool, pool: p.id})
			case p.undecided():
				s.agenda.add(appointment{at: p.voidAt(s.config.VoidAfter), kind: voidPool, pool: p.id})
			case p.state == proto.PoolClaimed:
				s.agenda.add(appointment{at: p.inquiry.Until, kind: settleClaim, pool: p.id})
			}
		}
	}
}
