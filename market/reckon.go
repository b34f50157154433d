package market

import (
	"math/bits"

	"tote/server/proto"
)

// Reckoning is the arithmetic of a pool's end: from what stands on its outcomes, its rules and its winners to what each winning
// outcome divides. It looks at no stake.
//
//	gross ── takeout ──▶ house
//	  │
//	  ▼ + carried
//	 net ── one winner:            net ─────────────────────────────────▶ its backers
//	     ── dead heat, profit:     staked on it + an even part of profit ▶ each winner's backers
//	     ── dead heat, no profit:  net ─────────────────────────────────▶ all winning stakes
//	     ── nobody backed it:      ────────────────────────────────────▶ carried on, or all is refunded
//
// profit = net − what is staked on the winners. Under the exact rule what is divided is paid; under the dividend rule the rounding is
// the house's (breakage), and what a least dividend takes beyond it the house adds (minus pool).
type reckoning struct {
	ending
	paid   proto.Amount
	won    uint64                   // winners that anybody backed, a bit each
	of     [proto.OutcomesMax]uint8 // by winner: its share
	shares []share
}

// ending is what a pool's end came to, as it is told. gross + carried + minus = takeout + breakage + paid + carried on, unless
// refunded.
type ending struct {
	Refunded  bool               `json:"refunded,omitempty"`
	Reason    proto.RefundReason `json:"reason,omitempty"`
	Takeout   proto.Amount       `json:"takeout,omitempty"`
	Breakage  proto.Amount       `json:"breakage,omitempty"`
	Minus     proto.Amount       `json:"minus,omitempty"`
	CarriedOn proto.Amount       `json:"carried_on,omitempty"`
	CarriedTo proto.PoolID       `json:"carried_to,omitempty"`
	Dividends []proto.Dividend   `json:"dividends,omitempty"`
}

// takeout is the house's part of the gross pool, rounded down: floor(gross × bp / 10000).
func takeout(gross proto.Amount, bp uint16) proto.Amount {
	return scaled(gross, proto.Amount(bp), 10000)
}

// scaled is floor(a × b / c), which must fit.
func scaled(a, b, c proto.Amount) proto.Amount {
	high, low := bits.Mul64(uint64(a), uint64(b))
	q, _ := bits.Div64(high, low, uint64(c))
	return proto.Amount(q)
}

// net is what winners share.
func (p *pool) net() proto.Amount { return p.gross - takeout(p.gross, p.opening.Takeout) + p.carried }

// reckon works out the pool's end. carry says whether there is a pool to carry to where nobody backed the winners; what is carried
// does not pay takeout again: there, takeout is of that pool's own stakes.
func (p *pool) reckon(winners []proto.Outcome, carry bool) (r reckoning) {
	if p.dynamic != nil {
		return p.reckonDynamic(winners)
	}
	var sum proto.Amount // staked on winners
	for _, o := range winners {
		if staked := p.outcomes[o].staked; staked > 0 {
			r.won |= 1 << o
			sum += staked
		}
	}
	switch {
	case p.opening.OneSidedRefund && p.carried == 0 && p.backedOutcomes() == 1:
		r.won, r.Refunded, r.Reason = 0, true, proto.RefundOneSided
		return r
	case sum == 0 && carry:
		r.Takeout = takeout(p.gross, p.opening.Takeout)
		r.CarriedOn = p.net()
		return r
	case sum == 0 && p.gross > 0:
		r.Refunded, r.Reason = true, proto.RefundNoWinner
		return r
	case sum == 0: // nobody has staked; what was carried to here has nowhere to go
		r.Breakage = p.carried
		return r
	}
	r.Takeout = takeout(p.gross, p.opening.Takeout)
	r.divide(p, p.net(), sum)
	for _, o := range winners {
		if r.won>>o&1 != 0 {
			r.Dividends = append(r.Dividends, r.dividend(p, o))
		}
	}
	assert(p.gross+p.carried+r.Minus == r.Takeout+r.Breakage+r.paid, "a pool's end adds up")
	return r
}

func (p *pool) backedOutcomes() (n int) {
	for _, on := range p.outcomes {
		if on.staked > 0 {
			n++
		}
	}
	return n
}

// divide makes the shares.
func (r *reckoning) divide(p *pool, net, sum proto.Amount) {
	n := proto.Amount(bits.OnesCount64(r.won))
	profit := net - sum
	if n == 1 || profit < 0 {
		r.share(&p.opening.Rules, net, sum, p.opening.MinusMax)
		return // of is 0 for all
	}
	for o := range p.outcomes {
		if r.won>>o&1 == 0 {
			continue
		}
		part := profit / n
		if proto.Amount(len(r.shares)) < profit%n { // what cannot be split evenly goes to the first outcomes, a unit each
			part++
		}
		staked := p.outcomes[o].staked
		r.of[o] = uint8(len(r.shares))
		r.share(&p.opening.Rules, staked+part, staked, max(p.opening.MinusMax/n, min(p.opening.MinusMax, 1)))
	}
}

// share adds one: net to be divided between stakes of sum. The house adds no more than most, 0: whatever is missing.
func (r *reckoning) share(rules *proto.Rules, net, sum, most proto.Amount) {
	if rules.Payout == proto.PayoutExact {
		r.shares = append(r.shares, newShare(net, sum))
		r.paid += net
		return
	}
	step := max(rules.Break, 1)
	down := func(d proto.Amount) proto.Amount { return d - d%step }
	dividend := down(scaled(net, rules.Unit, sum))
	if least := rules.DividendMin; dividend < least {
		if affordable := scaled(net+most, rules.Unit, sum); most != 0 && affordable < least {
			least = down(affordable)
		}
		dividend = max(dividend, least)
	}
	r.shares = append(r.shares, share{unit: rules.Unit, dividend: dividend})
	paid := sum / rules.Unit * dividend
	r.paid += paid
	r.Breakage += max(net-paid, 0)
	r.Minus += max(paid-net, 0)
}

// dividend tells what a winner brings.
func (r *reckoning) dividend(p *pool, o proto.Outcome) proto.Dividend {
	d := &r.shares[r.of[o]]
	if d.unit != 0 {
		return proto.Dividend{Outcome: o, PerUnit: d.dividend, Multiplier: proto.NewMultiplier(d.dividend, d.unit)}
	}
	return proto.Dividend{Outcome: o, Multiplier: proto.NewMultiplier(d.net, d.sum)}
}
