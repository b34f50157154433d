package comparator

import (
	"fmt"
	"math/bits"
	"slices"

	"tote/server/bench/peer"
	"tote/server/proto"
)

// takeout is what the house keeps of a gross pool.
func takeout(gross proto.Amount, basisPoints uint16) proto.Amount {
	return share(gross, proto.Amount(basisPoints), 10_000)
}

// share is whole × part / of, rounded down; part is at most of.
func share(whole, part, of proto.Amount) proto.Amount {
	high, low := bits.Mul64(uint64(whole), uint64(part))
	quotient, _ := bits.Div64(high, low, uint64(of))
	return proto.Amount(quotient)
}

// ending is a prediction with its end.
type ending struct {
	account *account
	proto.Prediction
}

// ends divides a pool: net × stake / won for each stake on the winner; if there is none, all stakes are returned.
func (p *pool) ends(winner proto.Outcome) (ended []ending, m proto.Settled) {
	for _, o := range p.Image.Odds {
		m.Gross += o.Staked
	}
	won := p.Image.Odds[winner].Staked
	m.Winners = []proto.Outcome{winner}
	if won == 0 {
		m.Refunded, m.Reason = true, proto.RefundNoWinner
		return p.returned(), m
	}
	m.Takeout = takeout(m.Gross, p.Image.Takeout)
	net := m.Gross - m.Takeout
	for _, t := range p.tickets {
		e := p.ending(t)
		if e.State = proto.PredictionLost; t.outcome == winner {
			e.State, e.Payout = proto.PredictionWon, share(net, t.amount, won)
		}
		m.Paid += e.Payout
		ended = append(ended, e)
	}
	m.Multiplier, m.Breakage = proto.NewMultiplier(net, won), net-m.Paid
	return ended, m
}

// returned are all stakes, refunded.
func (p *pool) returned() (ended []ending) {
	for _, t := range p.tickets {
		e := p.ending(t)
		e.State, e.Payout = proto.PredictionRefunded, t.amount
		ended = append(ended, e)
	}
	return ended
}

func (p *pool) ending(t ticket) ending {
	t.account.mu.Lock()
	defer t.account.mu.Unlock()
	i := slices.IndexFunc(t.account.predictions, func(l proto.Prediction) bool { return l.Prediction == t.prediction })
	if i < 0 {
		panic(fmt.Sprintf("comparator: account %d lacks its open prediction %d", t.account.id, t.prediction))
	}
	return ending{account: t.account, Prediction: t.account.predictions[i]}
}

// lock closes a pool to stakes.
func (s *Server) lock(g *game, id proto.PoolID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.pool(id)
	switch {
	case p == nil:
		return peer.Refused(proto.RefusedPoolUnknown)
	case p.Image.State != proto.PoolOpen:
		return peer.Refused(closed[p.Image.State])
	case p.busy:
		return peer.Refused(proto.RefusedBusy)
	}
	at := peer.Now()
	p.busy = true
	g.close(p)
	p.busy = false
	if err := s.books.putPool(p); err != nil {
		return err
	}
	g.broadcast(&proto.Locked{T: peer.Now(), Game: g.id, Seq: g.next(), Pool: id, At: at, Counts: p.counts, Odds: p.odds()})
	return nil
}

// settle ends a locked pool and pays.
func (s *Server) settle(g *game, id proto.PoolID, winner proto.Outcome) error {
	p, err := g.begin(id, proto.PoolLocked)
	switch {
	case err != nil:
		return err
	case int(winner) >= len(p.Image.Labels):
		g.mu.Lock()
		defer g.mu.Unlock()
		p.busy = false
		return peer.Refused(proto.RefusedWinners)
	}
	ended, m := p.ends(winner)
	over := p.Image
	over.State, over.Winners, over.Refunded = proto.PoolSettled, m.Winners, m.Refunded
	return s.finish(g, p, over, ended, m.Takeout+m.Breakage, m.Reason, func(now proto.Time, seq uint64) proto.Message {
		m.T, m.Game, m.Seq, m.Pool = now, g.id, seq, id
		return &m
	})
}

// void ends a pool and returns all stakes.
func (s *Server) void(g *game, id proto.PoolID, reason string) error {
	p, err := g.begin(id, proto.PoolOpen, proto.PoolLocked)
	if err != nil {
		return err
	}
	over := p.Image
	over.State = proto.PoolVoided
	return s.finish(g, p, over, p.returned(), 0, proto.RefundVoid, func(now proto.Time, seq uint64) proto.Message {
		return &proto.Voided{T: now, Game: g.id, Seq: seq, Pool: id, Reason: reason}
	})
}

// begin begins the end of a pool: nobody else changes it any more, and its game goes on meanwhile.
func (g *game) begin(id proto.PoolID, from ...proto.PoolState) (*pool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.pool(id)
	switch {
	case p == nil:
		return nil, peer.Refused(proto.RefusedPoolUnknown)
	case p.busy:
		return nil, peer.Refused(proto.RefusedBusy)
	case !slices.Contains(from, p.Image.State):
		if p.Image.State == proto.PoolOpen {
			return nil, peer.Refused(proto.RefusedPoolOpen)
		}
		return nil, peer.Refused(closed[p.Image.State])
	}
	p.busy = true
	g.close(p)
	return p, nil
}

// finish writes the end of a pool, tells it, and pays.
func (s *Server) finish(g *game, p *pool, over proto.Pool, ended []ending, house proto.Amount, reason proto.RefundReason, say func(proto.Time, uint64) proto.Message) error {
	if err := s.books.finish(&pool{Image: over, StakeMin: p.StakeMin, StakeMax: p.StakeMax}, ended, house); err != nil {
		return err
	}
	g.mu.Lock()
	p.Image, p.busy, p.tickets, p.backed = over, false, nil, nil
	g.broadcast(say(peer.Now(), g.next()))
	g.mu.Unlock()
	for i := range ended {
		ended[i].account.end(&ended[i].Prediction, reason)
	}
	return nil
}
