package market

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"tote/server/proto"
)

// Replica is a second copy of the whole market, made of nothing but committed records. Recovery builds it,
// the journal's follower keeps it up to date, snapshots are taken from it, and it keeps the books: after every
// record the money equation must hold.
//
// Owner: whoever calls it, one goroutine at a time. Totals alone may be read by all.
type Replica struct {
	book
	past
	seq        proto.Seq // last record applied
	lastGame   proto.GameID
	lastCircle proto.CircleID
	sum        sums // kept up record by record
	totals     [totals]atomic.Int64
	publishing atomic.Uint64         // totals published and, odd, one under way: who reads them meanwhile reads again
	records    bool                  // of games are kept in the views
	gaps       map[proto.GameID]bool // games that are played without being recorded; nil: nobody has said whether to
	heard      func(result)          // how stakes end; nil: nobody asks
}

// Totals are the sums of the money equation, Accounts + Pools + House = Deposits − Withdrawals, after record Seq.
type Totals struct {
	Seq         proto.Seq    `json:"seq"`
	Accounts    proto.Amount `json:"accounts"`
	Pools       proto.Amount `json:"pools"`
	House       proto.Amount `json:"house"`
	Deposits    proto.Amount `json:"deposits"`
	Withdrawals proto.Amount `json:"withdrawals"`
}

const totals = 6 // fields of Totals

// sums are where the money is.
type sums struct{ accounts, pools proto.Amount }

// NewReplica is an empty market.
func NewReplica() *Replica { return &Replica{book: newBook()} }

// Tell has the replica tell the views of what it applies from here on. Call it before Load.
func (r *Replica) Tell(views Views) { r.views = views }

// Load reads a snapshot into an empty replica.
func (r *Replica) Load(from io.Reader) error {
	if err := r.restore(bufio.NewReaderSize(from, 1<<16)); err != nil {
		return fmt.Errorf("load a snapshot: %w", err)
	}
	if err := r.Check(); err != nil {
		return fmt.Errorf("load a snapshot: %w", err)
	}
	r.sum = r.book.sum()
	r.publish()
	return nil
}

// Apply applies the next record.
func (r *Replica) Apply(seq uint64, b []byte) error {
	if seq != uint64(r.seq)+1 {
		return fmt.Errorf("apply record %d: the last one was %d", seq, r.seq)
	}
	var rec record
	if err := rec.decode(b); err != nil {
		return err
	}
	r.chain(b)
	if err := r.apply(proto.Seq(seq), &rec); err != nil {
		return err
	}
	if err := r.balanced(r.sum); err != nil {
		return fmt.Errorf("apply record %d: %w", seq, err)
	}
	r.seq = proto.Seq(seq)
	r.keep(r.seq, &rec, b)
	r.publish()
	return nil
}

// apply applies one record to both of its sides, and keeps the sums by what really moved.
func (r *Replica) apply(seq proto.Seq, rec *record) error {
	id := proto.AccountID(rec.id)
	switch {
	case rec.kind == recordStaked, rec.kind == recordBought:
		return r.applyStake(seq, rec)
	case rec.kind == recordSold:
		return r.applySale(seq, rec)
	case rec.ofAccount():
		balance := r.balanceOf(id)
		err := r.applyAccount(seq, rec)
		r.sum.accounts += r.balanceOf(id) - balance
		if err == nil {
			r.tellAccount(seq, rec, r.balanceOf(id)-balance)
		}
		return err
	case rec.ofCircle():
		return r.applyMembers(seq, rec)
	case rec.kind == recordGameOpened:
		r.lastGame = max(r.lastGame, proto.GameID(rec.id))
	case rec.kind == recordArchived:
		if g := r.games[proto.GameID(rec.id)]; g != nil {
			r.leave(g)
		}
	}
	var missing error
	touched, before := r.touched(rec)
	end := func(end result) {
		if err := r.end(seq, rec, end); err != nil {
			missing = err
		}
	}
	var over *pool
	err := r.applyGame(seq, rec, func(y *paying) {
		for budget := turnCost; !y.step(&budget, end); budget = turnCost {
		}
		over = y.pool
	})
	if rec.kind == recordPoolOpened && err == nil { // seeds
		touched[0] = r.pool(proto.PoolID(rec.id))
	}
	for _, p := range touched {
		if p != nil {
			r.sum.pools += p.held()
		}
	}
	r.sum.pools -= before
	if err != nil {
		return err
	}
	if rec.kind == recordRoomOpened {
		r.tellRoom(proto.GameID(rec.id), r.games[proto.GameID(rec.id)].circle)
	}
	if over != nil && over.done() {
		r.endPool(seq, rec.time, over)
	}
	return missing
}

// end ends one prediction, and tells of it.
func (r *Replica) end(seq proto.Seq, rec *record, end result) error {
	a := r.accounts[end.account]
	if a == nil {
		return fmt.Errorf("apply record %d: there is no account %d", seq, end.account)
	}
	i, ok := a.ticketOf(end.seq)
	if !ok {
		return fmt.Errorf("apply record %d: account %d lacks its prediction %d", seq, end.account, end.seq)
	}
	t, cost, shares := a.tickets[i], a.cost(&a.tickets[i]), a.sharesOf(&a.tickets[i])
	a.end(end)
	r.sum.accounts += end.payout
	if r.heard != nil {
		r.heard(end)
	}
	e := entry{kind: proto.EntryLoss, account: a.id, seq: seq, time: rec.time, change: end.payout, balance: a.balance,
		prediction: end.seq, state: end.state, on: t.on, amount: t.amount, request: t.request, arrived: rec.time, shares: shares}
	switch end.state {
	case proto.PredictionWon:
		e.kind = proto.EntryPayout
	case proto.PredictionRefunded:
		e.kind, e.reason = proto.EntryRefund, end.reason.String()
	}
	r.tell(e)
	if end.state != proto.PredictionRefunded || end.payout != cost {
		r.ended(a.id, end.pool.Game(), end.payout-cost, 1)
	}
	return nil
}

// tellAccount tells of a record of an account, if it is about money.
func (r *Replica) tellAccount(seq proto.Seq, rec *record, change proto.Amount) {
	a := r.accounts[proto.AccountID(rec.id)]
	e := entry{account: a.id, seq: seq, time: rec.time, change: change, balance: a.balance}
	switch {
	case rec.kind == recordAccountOpened:
		e.kind = proto.EntryOpened
		r.put(viewNames, rec.id, []byte(a.name))
	case rec.kind != recordDeposited:
		return
	case change > 0:
		e.kind = proto.EntryDeposit
	default:
		e.kind = proto.EntryWithdrawal
	}
	r.tell(e)
}

func (r *Replica) applyStake(seq proto.Seq, rec *record) error {
	a, p := r.accounts[proto.AccountID(rec.id)], r.pool(rec.pool)
	if a == nil || p == nil || p.done() || int(rec.outcome) >= len(p.outcomes) || a.balance < rec.amount ||
		(p.dynamic != nil) != (rec.kind == recordBought) || rec.kind == recordBought && !rec.shares.Valid() {
		return fmt.Errorf("apply stake %d: %d of account %d on outcome %d of pool %d is not possible", seq, rec.amount, rec.id,
			rec.outcome, rec.pool)
	}
	balance, gross := a.balance, p.gross
	_, backs := a.position(rec.pool)
	t := ticket{seq: seq, request: rec.request, on: newPlace(rec.pool, rec.outcome), amount: rec.amount}
	if p.dynamic != nil {
		p.buy(seq, rec, backs)
		a.buy(t, rec.shares)
	} else {
		p.take(seq, rec, backs)
		a.pay(t)
	}
	r.sum.accounts += a.balance - balance
	r.sum.pools += p.gross - gross
	r.tell(entry{kind: proto.EntryStake, account: a.id, seq: seq, time: rec.time, change: -rec.amount, balance: a.balance, prediction: seq,
		on: newPlace(rec.pool, rec.outcome), amount: rec.amount, request: rec.request, arrived: rec.arrived, shares: rec.shares})
	return nil
}

func (r *Replica) applySale(seq proto.Seq, rec *record) error {
	a, p := r.accounts[proto.AccountID(rec.id)], r.pool(rec.pool)
	on := newPlace(rec.pool, rec.outcome)
	var from *selling
	if a != nil {
		from = a.offer(on, rec.shares)
	}
	if a == nil || p == nil || p.done() || !p.buysBack() || rec.shares <= 0 || from.held < rec.shares || rec.amount > p.gross {
		return fmt.Errorf("apply sale %d: %d shares of account %d on outcome %d of pool %d for %d is not possible", seq, rec.shares, rec.id,
			rec.outcome, rec.pool, rec.amount)
	}
	p.sell(rec, from)
	cost, open := a.costOf(from.parts), len(a.tickets)
	a.sell(sale{seq: seq, request: rec.request, on: on, shares: rec.shares, cash: rec.amount}, from.parts)
	r.sum.accounts += rec.amount
	r.sum.pools -= rec.amount
	r.tell(entry{kind: proto.EntrySale, account: a.id, seq: seq, time: rec.time, change: rec.amount, balance: a.balance, prediction: seq,
		state: proto.PredictionSold, on: on, request: rec.request, arrived: rec.arrived, shares: rec.shares})
	r.ended(a.id, rec.pool.Game(), rec.amount-(cost-a.costOf(from.parts)), uint64(open-len(a.tickets)))
	return nil
}

func (r *Replica) balanceOf(id proto.AccountID) proto.Amount {
	if a := r.accounts[id]; a != nil {
		return a.balance
	}
	return 0
}

// touched are the pools whose money the record moves, and what they hold before.
func (r *Replica) touched(rec *record) (pools [2]*pool, held proto.Amount) {
	switch rec.kind {
	case recordLocked, recordSettled, recordVoided, recordWithdrawn:
		if p := r.pool(proto.PoolID(rec.id)); p != nil {
			pools = [2]*pool{p, r.heir(p)}
		}
	}
	for _, p := range pools {
		if p != nil {
			held += p.held()
		}
	}
	return pools, held
}

func (r *Replica) publish() {
	r.publishing.Add(1)
	for i, v := range [totals]int64{int64(r.seq), int64(r.sum.accounts), int64(r.sum.pools), int64(r.house), int64(r.deposits), int64(r.withdrawals)} {
		r.totals[i].Store(v)
	}
	r.publishing.Add(1)
}

// Totals may be called from any goroutine. They are of one record: sums of two would not balance, and look like lost money.
func (r *Replica) Totals() Totals {
	at := func(i int) proto.Amount { return proto.Amount(r.totals[i].Load()) }
	for {
		before := r.publishing.Load()
		t := Totals{proto.Seq(at(0)), at(1), at(2), at(3), at(4), at(5)}
		if before%2 == 0 && r.publishing.Load() == before {
			return t
		}
		runtime.Gosched()
	}
}

// Seq is the last record applied.
func (r *Replica) Seq() proto.Seq { return r.seq }

// Head is the head of the hash chain over all records applied, in hex: SHA-256 of the head before and the record, from 32
// zero bytes on.
func (r *Replica) Head() string { return hex.EncodeToString(r.head[:]) }

// Digest is equal for two replicas exactly if they hold the same, but for hash collisions.
func (r *Replica) Digest() uint64 { return r.book.digest() }

// Check audits the books from the ground: every sum is recomputed, every stake is matched with its
// ticket, and the money equation must hold.
func (r *Replica) Check() error { return r.book.check() }

func (b *book) check() error {
	open := 0
	for id, a := range b.accounts {
		if a.balance < 0 {
			return fmt.Errorf("audit: account %d has a balance of %d", id, a.balance)
		}
		if err := a.check(); err != nil {
			return err
		}
		open += len(a.tickets)
	}
	for _, g := range b.games {
		for _, p := range g.pools {
			n, err := b.checkPool(p)
			if err != nil {
				return err
			}
			open -= n
		}
	}
	if open != 0 {
		return fmt.Errorf("audit: there are %d more open tickets than stakes", open)
	}
	if err := b.checkCircles(); err != nil {
		return err
	}
	return b.balanced(b.sum())
}

// sum adds up from the ground.
func (b *book) sum() (s sums) {
	for _, a := range b.accounts {
		s.accounts += a.balance
	}
	for _, g := range b.games {
		for _, p := range g.pools {
			s.pools += p.held()
		}
	}
	return s
}

// balanced is the money equation.
func (b *book) balanced(s sums) error {
	if left, right := s.accounts+s.pools+b.house, b.deposits-b.withdrawals; left != right {
		return fmt.Errorf("audit: accounts %d + pools %d + house %d = %d, but deposits %d − withdrawals %d = %d",
			s.accounts, s.pools, b.house, left, b.deposits, b.withdrawals, right)
	}
	return nil
}

func (a *account) check() error {
	for i := range a.tickets {
		if i > 0 && a.tickets[i-1].seq >= a.tickets[i].seq {
			return fmt.Errorf("audit: account %d has ticket %d out of order", a.id, a.tickets[i].seq)
		}
	}
	for i := range a.closed {
		if i > 0 && a.closed[i-1].seq >= a.closed[i].seq {
			return fmt.Errorf("audit: account %d has closed ticket %d out of order", a.id, a.closed[i].seq)
		}
	}
	if len(a.closed) > closedMax {
		return fmt.Errorf("audit: account %d remembers %d closed tickets", a.id, len(a.closed))
	}
	return nil
}

// checkPool recomputes what stands on a pool and finds each of its stakes in an account. It returns how many there are.
func (b *book) checkPool(p *pool) (n int, err error) {
	if p.done() {
		return 0, nil
	}
	fresh := pool{outcomes: make([]standing, len(p.outcomes))}
	backed := map[proto.AccountID]uint64{}
	for i := range p.stakes.len() {
		s := p.stakes.at(i)
		if !p.counts(s) || p.soldOut(i) {
			continue
		}
		n++
		fresh.count(s.outcome(), s.amount(), backed[s.account()])
		backed[s.account()] |= 1 << s.outcome()
		if !b.holds(p, i, s) {
			return n, fmt.Errorf("audit: stake %d of pool %d is not among the open tickets of account %d", p.seq(s), p.id, s.account())
		}
	}
	if p.dynamic != nil {
		if err := p.checkDynamic(); err != nil {
			return n, err
		}
		for i := range fresh.outcomes {
			fresh.outcomes[i].staked = p.outcomes[i].staked
		}
	} else if fresh.gross != p.gross || p.carried < 0 {
		return n, fmt.Errorf("audit: pool %d counts %d and %d carried, its stakes sum to %d", p.id, p.gross, p.carried, fresh.gross)
	}
	for i, on := range p.outcomes {
		if fresh.outcomes[i] != on {
			return n, fmt.Errorf("audit: outcome %d of pool %d counts %v, its stakes give %v", i, p.id, on, fresh.outcomes[i])
		}
	}
	return n, nil
}

func (b *book) holds(p *pool, at int, s stake) bool {
	a := b.accounts[s.account()]
	if a == nil {
		return false
	}
	i, ok := a.ticketOf(p.seq(s))
	if h := a.holding(p.seq(s)); (h != nil) != (p.dynamic != nil) || h != nil && h.lot != p.dynamic.lots[at] {
		return false
	}
	return ok && a.tickets[i].on == newPlace(p.id, s.outcome()) && a.tickets[i].amount == s.amount()
}
