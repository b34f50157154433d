package market

import (
	"slices"

	"tote/server/proto"
)

// A quote is what a stake or a sale would come to if it were the next to be decided. It goes the way of one, through the same refusals
// but for those of money, and changes nothing.

// askQuote is the account's side.
func (s *Shard) askQuote(c *Command, a *account) {
	asked := refusedStake{request: c.ID, pool: c.Pool, outcome: c.Outcome, amount: c.Amount, arrived: c.Arrived}
	if asked.sell = c.Amount == 0; asked.sell {
		asked.shares = c.Shares
	}
	switch {
	case asked.sell && !asked.shares.Valid():
		s.refuse(c, proto.RefusedSharesInvalid)
		return
	case !asked.sell && !asked.amount.Valid():
		s.refuse(c, proto.RefusedAmountInvalid)
		return
	}
	l := a.letter(&asked)
	l.kind, l.errand = letterQuote, &errand{command: *c}
	s.write(s.market.shardOfGame(c.Pool.Game()), &l)
}

// quote is the pool's side.
func (s *Shard) quote(l *letter) {
	c, p := &l.errand.command, s.pool(l.pool)
	if refusal := p.refusal(l, s.seen); refusal != proto.Accepted {
		s.refuse(c, refusal)
		return
	}
	odd := p.after(l)
	q := &proto.Quote{ID: c.ID, T: s.now, Pool: l.pool, Outcome: l.outcome, Amount: l.amount, Shares: l.shares, Multiplier: odd.Multiplier,
		Price: odd.Price, Probability: odd.Probability, Counts: s.seen}
	if !l.sell {
		q.Payout = p.payoutAfter(l)
	}
	s.reply(c, q)
}

// after is how the letter's outcome would stand after what it asks for.
func (p *pool) after(l *letter) proto.Odd {
	on := p.outcomes[l.outcome]
	if p.dynamic != nil {
		d := p.dynamic.after(l)
		return d.odd(on, l.outcome, takeout(d.Total, p.opening.Takeout))
	}
	gross := p.gross + l.amount
	net := gross - takeout(gross, p.opening.Takeout) + p.carried
	return proto.Odd{Multiplier: proto.NewMultiplier(net, on.staked+l.amount)}
}

// with is a parimutuel pool as it would stand after a stake, for a look: without its stakes.
func (p *pool) with(l *letter) pool {
	next := pool{opening: p.opening, gross: p.gross + l.amount, carried: p.carried, outcomes: slices.Clone(p.outcomes)}
	next.outcomes[l.outcome].staked += l.amount
	return next
}

// payoutAfter is what the stake would bring if it were the last one and its outcome won.
func (p *pool) payoutAfter(l *letter) proto.Amount {
	if p.dynamic == nil {
		next := p.with(l)
		r := next.reckon([]proto.Outcome{l.outcome}, false)
		if r.Refunded {
			return l.amount
		}
		return r.shares[0].least(l.amount)
	}
	d := p.dynamic.after(l)
	payout := d.Pays(d.Prize(takeout(d.Total, p.opening.Takeout), l.outcome), l.outcome, l.shares)
	if d.Variant.ReturnsStakes() {
		payout += l.amount
	}
	return payout
}
