package market

import (
	"math/bits"

	"tote/server/proto"
)

// How stakes end, record by record: with their pool, settled or voided; or before it, where an outcome is withdrawn, or a lock shows that
// they arrived too late. What stands on the pool changes at once; paying pays.

// settle ends every stake of the pool.
func (b *book) settle(p *pool, winners []proto.Outcome, pay func(*paying)) {
	r := p.reckon(winners, b.heir(p) != nil)
	p.winners, p.state, p.paid, p.ended = winners, proto.PoolSettled, r.paid, r.ending
	b.house += r.Takeout + r.Breakage - r.Minus
	if r.Refunded {
		b.passOn(p, p.carried)
		p.pay(p.refunds(allOutcomes, r.Reason), pay)
		return
	}
	b.passOn(p, r.CarriedOn)
	p.pay(p.payouts(&r), pay)
}

// heir is the pool to which money goes that this one cannot pay out: the one that its rules name, else the next one of the same
// template or, opened by hand, the next so opened. It has to come later, not be over, and have room.
func (b *book) heir(p *pool) *pool {
	if p.opening.NoWinner != proto.NoWinnerCarry {
		return nil
	}
	fits := func(q *pool) bool {
		return q != nil && !q.done() && q.dynamic == nil && p.gross+p.carried <= proto.AmountMax-q.gross-q.carried
	}
	if to := p.opening.CarryTo; to != 0 {
		if q := b.pool(to); fits(q) {
			return q
		}
		return nil
	}
	g := b.games[p.id.Game()]
	for _, q := range g.pools[uint64(p.id)%(proto.PoolsMax+1):] {
		if g.asksAlike(p, q) && fits(q) {
			return q
		}
	}
	return nil
}

// asksAlike reports whether two pools were opened by templates of one name, or both by hand.
func (g *game) asksAlike(p, q *pool) bool {
	if p.opening.Template < 0 || q.opening.Template < 0 {
		return p.opening.Template < 0 && q.opening.Template < 0 && q.inquiry == nil
	}
	return g.opening.Templates[p.opening.Template].Name == g.opening.Templates[q.opening.Template].Name
}

// passOn gives money to the heir or, where there is none, to the house.
func (b *book) passOn(p *pool, amount proto.Amount) {
	if amount == 0 {
		return
	}
	heir := b.heir(p)
	if heir == nil {
		b.house += amount
		return
	}
	heir.carried += amount
	p.ended.CarriedOn, p.ended.CarriedTo = amount, heir.id
}

// lock closes the pool to stakes that arrive after at, and refunds those that did and were accepted before this was known.
func (p *pool) lock(at proto.Time, pay func(*paying)) {
	p.state, p.locked = proto.PoolLocked, at
	if p.latest <= at {
		return
	}
	y := p.newPaying(allOutcomes, proto.PredictionRefunded)
	y.late, y.result.reason = true, proto.RefundLate
	type backing struct {
		account proto.AccountID
		outcome proto.Outcome
	}
	gone := map[backing]bool{}
	for i := p.stakes.len() - 1; i >= 0; i-- { // the last first: a dynamic pool goes back as it came
		if s := p.stakes.at(i); y.ends(s) && !p.soldOut(i) {
			y.due += p.undo(i, s)
			gone[backing{s.account(), s.outcome()}] = true
		}
	}
	for i := range p.stakes.len() {
		if s := p.stakes.at(i); p.counts(s) && !p.soldOut(i) {
			delete(gone, backing{s.account(), s.outcome()})
		}
	}
	for b := range gone {
		p.outcomes[b.outcome].backers--
	}
	p.pay(y, pay)
}

// undo takes back a stake that should not have been accepted, and returns what is paid for it.
func (p *pool) undo(i int, s stake) proto.Amount {
	if p.dynamic != nil {
		return p.undoDynamic(i, s)
	}
	p.gross -= s.amount()
	p.outcomes[s.outcome()].staked -= s.amount()
	return s.amount()
}

// withdraw takes an outcome out of the pool.
func (p *pool) withdraw(o proto.Outcome, pay func(*paying)) {
	y := p.refunds(1<<o, proto.RefundWithdrawn)
	p.withdrawn |= 1 << o
	p.gross -= p.outcomes[o].staked
	p.outcomes[o] = standing{}
	p.pay(y, pay)
}

// counts reports whether a stake stands: its outcome was not withdrawn, and it did not arrive after the lock.
func (p *pool) counts(s stake) bool {
	return p.withdrawn>>s.outcome()&1 == 0 && (p.locked == 0 || p.arrived(s) <= p.locked)
}

// left is how many outcomes have not been withdrawn.
func (p *pool) left() int { return len(p.outcomes) - bits.OnesCount64(p.withdrawn) }

// held is the money in the pool.
func (p *pool) held() proto.Amount {
	if p.done() {
		return 0
	}
	return p.gross + p.carried
}

// pay counts what is being paid.
func (p *pool) pay(y *paying, pay func(*paying)) {
	p.payings++
	pay(y)
}

// payingDone ends a paying, and drops what nobody needs any more.
func (p *pool) payingDone() {
	if p.payings--; p.payings == 0 && p.done() {
		p.stakes = stakes{}
		if p.dynamic != nil {
			p.dynamic.lots = nil
		}
	}
}

// done reports whether the pool's money is decided. It may still be being paid.
func (p *pool) done() bool { return p.state == proto.PoolSettled || p.state == proto.PoolVoided }
