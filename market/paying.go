package market

import (
	"slices"

	"tote/server/proto"
)

// paying is the way of a pool's money back to those who staked. The record that ends stakes is appended at once and decides
// everything; who gets what is then worked out stake by stake, in slices, so that a pool of millions does not stop its shard. A
// replica runs the same steps to the end. Nothing of it is in the journal: after a crash the record is applied again, whole.
//
//	record ─▶ reckon: what each winning outcome divides ─▶ count remainders, a digit per walk ─▶ pay each stake
//	                                                       (where units are left over)
//
// While it runs the pool has its final state already; stakes that it has not come to are still open tickets of their owners.
type paying struct {
	pool     *pool
	n, at    int        // it walks over the stakes that there were when it began; next
	result   result     // what all that it ends have in common
	outcomes uint64     // whose stakes it ends, a bit each
	deadline proto.Time // when the pool locked, if it has; those that arrived later are ended
	late     bool       // by this paying; else by one before
	won      uint64     // outcomes that share, a bit each
	of       [proto.OutcomesMax]uint8
	shares   []share
	counts   bool         // this walk counts; else it pays
	due      proto.Amount // and not paid yet
}

// Steps of paying, and how many a turn does: some 2000 stakes paid, about a millisecond. Looking at a stake without ending it costs
// an eighth of ending it.
const (
	lookCost = 1
	payCost  = 8
	turnCost = 2048 * payCost
)

// newPaying ends the stakes on some outcomes: all that are not ended yet.
func (p *pool) newPaying(outcomes uint64, state proto.PredictionState) *paying {
	return &paying{pool: p, n: p.stakes.len(), result: result{pool: p.id, state: state}, outcomes: outcomes &^ p.withdrawn, deadline: p.locked}
}

// refunds pays stakes on some outcomes back.
func (p *pool) refunds(outcomes uint64, reason proto.RefundReason) *paying {
	y := p.newPaying(outcomes, proto.PredictionRefunded)
	y.result.reason = reason
	for o, on := range p.outcomes {
		if y.outcomes>>o&1 != 0 {
			y.due += on.staked
		}
	}
	return y
}

// payouts pays the winners; all other stakes are lost.
func (p *pool) payouts(r *reckoning) *paying {
	y := p.newPaying(allOutcomes, proto.PredictionLost)
	y.won, y.of, y.shares, y.due = r.won, r.of, r.shares, r.paid
	for i := range y.shares {
		y.counts = y.counts || y.shares[i].counts != nil
	}
	return y
}

const allOutcomes = 1<<proto.OutcomesMax - 1

// ends reports whether a stake is one that this paying ends.
func (y *paying) ends(s stake) bool {
	return y.outcomes>>s.outcome()&1 != 0 && (y.deadline != 0 && y.pool.arrived(s) > y.deadline) == y.late
}

// step goes on until budget is spent, and passes on how stakes end. It reports whether all are paid, and then is not to be called
// again.
func (y *paying) step(budget *int, end func(result)) (over bool) {
	for y.counts || y.at < y.n {
		switch {
		case *budget <= 0:
			return false
		case y.at == y.n:
			y.nextWalk()
		case !y.ends(y.pool.stakes.at(y.at)):
			*budget -= lookCost
			y.at++
		case y.counts:
			y.count(y.at)
			*budget -= lookCost
			y.at++
		case y.pool.soldOut(y.at):
			*budget -= lookCost
			y.at++
		default:
			r := y.end(y.at)
			y.due -= r.payout
			end(r)
			*budget -= payCost
			y.at++
		}
	}
	assert(y.due == 0, "a pool pays what is due, to the last unit")
	y.pool.payingDone()
	return true
}

func (y *paying) count(i int) {
	s := y.pool.stakes.at(i)
	if o := s.outcome(); y.won>>o&1 != 0 {
		y.shares[y.of[o]].count(y.measure(i, s))
	}
}

// nextWalk ends a walk that counted.
func (y *paying) nextWalk() {
	y.counts = false
	for i := range y.shares {
		if y.shares[i].choose() {
			y.counts = true
		}
	}
	y.at = 0
}

// end is how one stake ends.
func (y *paying) end(i int) result {
	s, r := y.pool.stakes.at(i), y.result
	r.account, r.seq, r.outcome, r.amount = s.account(), y.pool.seq(s), s.outcome(), s.amount()
	if y.pool.dynamic != nil {
		return y.endDynamic(i, r)
	}
	switch {
	case r.state == proto.PredictionRefunded:
		r.payout = r.amount
	case y.won>>r.outcome&1 != 0:
		r.state, r.payout = proto.PredictionWon, y.shares[y.of[r.outcome]].pay(r.amount)
	}
	return r
}

// payingsLive is what a shard pays, one after another. Its accounts are paid at once; other shards get the results of one slice, and
// say so when they have paid them, before the next slice is due. So no shard's inbox fills faster than it is emptied.
type payingsLive struct {
	queue []*paying
	owed  int    // shards that have not said yet that they have paid
	to    []bool // shards that this slice went to
}

// ready reports whether the next slice is due.
func (l *payingsLive) ready() bool { return len(l.queue) > 0 && l.owed == 0 }

// payOut does a turn's part of what there is to pay.
func (s *Shard) payOut() {
	pays := &s.payings
	if !pays.ready() {
		return
	}
	for budget := turnCost; budget > 0 && len(pays.queue) > 0; {
		if pays.queue[0].step(&budget, s.sendResult) {
			pays.queue = slices.Delete(pays.queue, 0, 1)
		}
	}
	for i, to := range s.market.shards {
		if pays.to[i] {
			pays.to[i] = false
			pays.owed++
			s.write(to, &letter{kind: letterSlice, from: uint16(s.index)})
		}
	}
}

// sendResult lets the account's shard know how a stake ended.
func (s *Shard) sendResult(r result) {
	to := s.market.shardOfAccount(r.account)
	s.payings.to[to.index] = s.payings.to[to.index] || to != s
	s.write(to, &letter{kind: letterResult, account: r.account, seq: r.seq, pool: r.pool, outcome: r.outcome, amount: r.amount,
		payout: r.payout, state: r.state, reason: r.reason})
}
