package market

import (
	"fmt"
	"math/bits"
	"slices"
	"sort"

	"tote/server/market/dpm"
	"tote/server/market/rules"
	"tote/server/proto"
)

// dynamic is what a dynamic pool has beside its stakes. The house seeds it, so its money is part of gross from the start:
// gross = Total, always.
//
//	stake ─▶ Buy: shares for money ─▶ record bought ─▶ lot beside the stake    │ holding beside the ticket
//	sell  ─▶ Sell: money for shares ─▶ record sold  ─▶ lots grow smaller, the oldest first │ holdings, too
//	settled: the prize, in proportion to the shares that are left
type dynamic struct {
	dpm.Pool
	seeds []proto.Shares // the house's; never sold
	lots  []lot          // one for each stake, in their order
}

// lot is what is left of a stake's shares.
type lot struct {
	shares proto.Shares
	cost   proto.Amount // of these shares; what was sold took its part of it along
}

// part is what a sale takes of one stake.
type part struct {
	seq    proto.Seq
	shares proto.Shares
}

// selling is what an account knows about a sale that its pool shall decide: the stakes that it would take from, the oldest first.
// Whoever holds the letter owns it.
type selling struct {
	held  proto.Shares // of the outcome, by the account
	parts []part       // as many as were asked for, or held
}

// newDynamic seeds a pool; false where the house cannot open such a one.
func newDynamic(o *proto.PoolOpening) (*dynamic, bool) {
	if member, _ := rules.WrongKind(o); member != "" {
		return nil, false
	}
	variant, _ := dpm.VariantOf(o.Variant)
	pool, ok := dpm.Seeded(variant, o.Seeds)
	return &dynamic{Pool: pool, seeds: slices.Clone(pool.Shares)}, ok
}

// price finds what a trade comes to, and writes it into the letter: the shares of a stake, the money of a sale.
func (p *pool) price(l *letter) proto.Refusal {
	d := p.dynamic
	if l.sell {
		if l.shares > l.selling.held {
			return proto.RefusedSharesShort
		}
		l.amount = d.Sell(l.outcome, l.shares)
		switch {
		case l.amount <= 0:
			return proto.RefusedTradeSmall
		case int64(l.amount) < l.limit:
			return proto.RefusedLimitMissed
		}
		return proto.Accepted
	}
	var room bool
	l.shares, room = d.Buy(l.outcome, l.amount)
	switch {
	case !room:
		return proto.RefusedPoolFull
	case l.shares <= 0:
		return proto.RefusedTradeSmall
	case int64(l.shares) < l.limit:
		return proto.RefusedLimitMissed
	}
	return proto.Accepted
}

// sold is how many shares of an outcome players have.
func (d *dynamic) sold(on proto.Outcome) proto.Shares { return d.Shares[on] - d.seeds[on] }

// buysBack reports whether the pool takes shares back.
func (p *pool) buysBack() bool { return p.dynamic != nil && p.dynamic.Variant.BuysBack() }

// buy adds an accepted stake with its shares.
func (p *pool) buy(seq proto.Seq, r *record, backs uint64) {
	p.take(seq, r, backs)
	p.dynamic.Bought(r.outcome, r.amount, r.shares)
	p.dynamic.lots = append(p.dynamic.lots, lot{shares: r.shares, cost: r.amount})
}

// sell takes an accepted sale from the lots. An account that has no share left backs the outcome no longer.
func (p *pool) sell(r *record, from *selling) {
	on := &p.outcomes[r.outcome]
	for _, part := range from.parts {
		l := &p.dynamic.lots[p.stakeOf(part.seq)]
		on.staked -= l.sell(part.shares)
	}
	if r.shares == from.held {
		on.backers--
	}
	p.dynamic.Sold(r.outcome, r.amount, r.shares)
	p.gross -= r.amount
}

// sell takes shares from a lot, and their part of its cost, rounded up: what is left is never worth more than it was.
func (l *lot) sell(shares proto.Shares) (cost proto.Amount) {
	left := portion(l.cost, l.shares-shares, l.shares)
	cost = l.cost - left
	l.shares, l.cost = l.shares-shares, left
	return cost
}

// portion is amount × of / all, rounded down; of is at most all.
func portion[T ~int64](amount proto.Amount, of, all T) proto.Amount {
	high, low := bits.Mul64(uint64(amount), uint64(of))
	q, _ := bits.Div64(high, low, uint64(all))
	return proto.Amount(q)
}

// stakeOf finds a stake's place by its sequence number.
func (p *pool) stakeOf(seq proto.Seq) int {
	after := uint32(seq - p.first)
	i := sort.Search(p.stakes.len(), func(i int) bool { return p.stakes.at(i).after() >= after })
	assert(i < p.stakes.len() && p.stakes.at(i).after() == after, "a sale takes from the pool's stakes")
	return i
}

// reckonDynamic divides the prize of each winner among its shares, the house's seeds included. What falls to the players' shares
// together is rounded down to a unit, and divided among them by the exact rule; the rest is the house's.
func (p *pool) reckonDynamic(winners []proto.Outcome) (r reckoning) {
	d := p.dynamic
	r.Takeout = takeout(p.gross, p.opening.Takeout)
	prize := d.Prize(r.Takeout, winners...)
	for _, w := range winners {
		r.Dividends = append(r.Dividends, proto.Dividend{Outcome: w, PerShare: d.PayoffOf(prize, w)})
		players := d.sold(w)
		if players == 0 {
			continue
		}
		net := d.Pays(prize, w, players)
		r.won |= 1 << w
		r.of[w] = uint8(len(r.shares))
		r.shares = append(r.shares, newShare(net, proto.Amount(players)))
		if r.paid += net; d.Variant.ReturnsStakes() {
			r.paid += p.outcomes[w].staked
		}
	}
	r.Takeout = min(r.Takeout, p.gross-r.paid) // the losers' money may not be enough for it
	r.Breakage = p.gross - r.Takeout - r.paid
	return r
}

// refundDynamic gives back what the shares that are left have cost. Where sellers have left less than that in the pool, it is
// divided in proportion, by the exact rule. The house gets the rest, which is what its seeds have come to.
func (p *pool) refundDynamic(pay func(*paying)) (house proto.Amount) {
	y := p.refunds(allOutcomes, proto.RefundVoid)
	cost := y.due
	back := min(cost, p.gross)
	y.won, y.due, y.shares, y.counts = allOutcomes, back, []share{newShare(back, max(cost, 1))}, true // of[…] is 0 for all outcomes
	p.pay(y, pay)
	return p.gross - back
}

// undoDynamic takes back a purchase that arrived too late. Where the pool buys back, its shares go along the curve, so that it
// is never short of what the others' need; the cost is returned, or what they bring where that is less. What is due stays in the lot.
func (p *pool) undoDynamic(i int, s stake) proto.Amount {
	d, l, on := p.dynamic, &p.dynamic.lots[i], s.outcome()
	p.outcomes[on].staked -= l.cost
	if d.Variant.BuysBack() {
		l.cost = min(l.cost, d.Sell(on, l.shares))
		d.Sold(on, l.cost, l.shares)
	} else {
		d.Bought(on, -l.cost, -l.shares)
	}
	p.gross -= l.cost
	return l.cost
}

// measure is what a stake's share of the money goes by: its amount, or in a dynamic pool the shares that are left of it; for a
// refund, what they cost. 0 where all are sold, and then it has ended before.
func (y *paying) measure(i int, s stake) proto.Amount {
	d := y.pool.dynamic
	switch {
	case d == nil:
		return s.amount()
	case y.result.state == proto.PredictionRefunded:
		return d.lots[i].cost
	}
	return proto.Amount(d.lots[i].shares)
}

// soldOut reports whether a stake has ended by the sale of its shares.
func (p *pool) soldOut(i int) bool { return p.dynamic != nil && p.dynamic.lots[i].shares == 0 }

// endDynamic is how one stake of a dynamic pool ends. Its amount is the cost of the shares that are left.
func (y *paying) endDynamic(i int, r result) result {
	r.amount = y.pool.dynamic.lots[i].cost
	switch {
	case r.state == proto.PredictionRefunded:
		if r.payout = r.amount; !y.late {
			r.payout = y.shares[0].pay(r.amount)
		}
		r.amount = r.payout
	case y.won>>r.outcome&1 != 0:
		r.state, r.payout = proto.PredictionWon, y.shares[y.of[r.outcome]].pay(proto.Amount(y.pool.dynamic.lots[i].shares))
		if y.pool.dynamic.Variant.ReturnsStakes() {
			r.payout += r.amount
		}
	}
	return r
}

// odd is what an outcome of a dynamic pool shows. The multiplier is what one more unit would return, as long as it is small.
func (d *dynamic) odd(on standing, o proto.Outcome, takeout proto.Amount) proto.Odd {
	price, payoff := d.Price(o), d.Payoff(o, takeout)
	if d.Variant.ReturnsStakes() {
		payoff = min(payoff+price, proto.MillionthsMax)
	}
	return proto.Odd{Staked: on.staked, Backers: on.backers, Price: price, Probability: d.Probability(o),
		Multiplier: proto.NewMultiplier(proto.Amount(payoff), proto.Amount(price))}
}

func (p *pool) dynamicOdds() []proto.Odd {
	odds := make([]proto.Odd, len(p.outcomes))
	takeout := takeout(p.gross, p.opening.Takeout)
	for i, on := range p.outcomes {
		odds[i] = p.dynamic.odd(on, proto.Outcome(i), takeout)
	}
	return odds
}

func (p *pool) variant() string {
	if p.dynamic == nil {
		return ""
	}
	return p.dynamic.Variant.String()
}

// kindRefusal is what stands in the way of a pool of its kind.
func kindRefusal(o *proto.PoolOpening) proto.Refusal {
	switch member, _ := rules.WrongKind(o); member {
	case "":
		return proto.Accepted
	case "kind", "variant", "outcomes":
		return proto.RefusedSeeds
	}
	return proto.RefusedPoolDynamic
}

// after is a copy, without its stakes, in which the priced trade is done.
func (d *dynamic) after(l *letter) *dynamic {
	next := &dynamic{Pool: dpm.Pool{Variant: d.Variant, Total: d.Total, Money: slices.Clone(d.Money), Shares: slices.Clone(d.Shares)}}
	if l.sell {
		next.Sold(l.outcome, l.amount, l.shares)
	} else {
		next.Bought(l.outcome, l.amount, l.shares)
	}
	return next
}

// check audits a dynamic pool: its shares are the seeds and what is left of the stakes, the cost of these stands on the
// outcomes, and its money is what its curve needs: K = T²/Q has not fallen since it was seeded.
func (p *pool) checkDynamic() error {
	d := p.dynamic
	if d.Total != p.gross || len(d.lots) != p.stakes.len() {
		return fmt.Errorf("audit: dynamic pool %d has %d of %d, and %d lots for %d stakes", p.id, d.Total, p.gross, len(d.lots), p.stakes.len())
	}
	left, cost := slices.Clone(d.seeds), make([]proto.Amount, len(d.seeds))
	for i := range d.lots {
		s := p.stakes.at(i)
		if !p.counts(s) {
			continue
		}
		o := s.outcome()
		left[o] += d.lots[i].shares
		cost[o] += d.lots[i].cost
	}
	for o := range left {
		if left[o] != d.Shares[o] || cost[o] != p.outcomes[o].staked {
			return fmt.Errorf("audit: outcome %d of dynamic pool %d counts %d shares that cost %d, its lots have %d for %d",
				o, p.id, d.Shares[o], p.outcomes[o].staked, left[o], cost[o])
		}
	}
	if seeded, ok := newDynamic(&p.opening.PoolOpening); !ok || !d.Covers(&seeded.Pool) {
		return fmt.Errorf("audit: dynamic pool %d holds %d, less than its shares need", p.id, d.Total)
	}
	return nil
}
