package market

import (
	"fmt"
	"slices"

	"tote/server/market/rules"
	"tote/server/proto"
)

// book is what the journal's records add up to: the durable part of the market. A shard keeps the book of
// its own accounts and games; a Replica keeps the book of all. Only the apply methods change it, in both, so
// that what a shard does and what recovery does is one piece of code.
type book struct {
	accounts map[proto.AccountID]*account
	games    map[proto.GameID]*game

	// Σ accounts + Σ unsettled pools + house = deposits − withdrawals, where one book holds all.
	house       proto.Amount // takeout of settled pools
	deposits    proto.Amount
	withdrawals proto.Amount
}

// account is a player's money and predictions.
type account struct {
	id        proto.AccountID
	name      string
	balance   proto.Amount   // ≥ 0
	tickets   []ticket       // open ones, by sequence number
	closed    []closedTicket // the last closedMax, by sequence number
	following []proto.Friend
	live      *live // nil in a replica
}

// game is a live event.
type game struct {
	id       proto.GameID
	opening  proto.GameOpening
	state    proto.GameState
	minute   uint16
	score    [2]uint16
	events   uint32 // number of the last numbered event
	ended    proto.Time
	pools    []*pool // pools[n-1] has the id NewPoolID(id, n)
	programs []*rules.Program
	asks     int   // opening.Templates and programs from here on open pools; see applyTemplates
	board    board // of the live shard
}

// pool is a question of a game.
type pool struct {
	id       proto.PoolID
	opening  poolOpening
	state    proto.PoolState
	locked   proto.Time // stakes that arrived later do not count; 0 while open
	gross    proto.Amount
	outcomes []standing
	stakes   stakes     // none once settled or voided
	first    proto.Seq  // of the record that opened it; stakes count from here
	opened   proto.Time // of that record
	winners  []proto.Outcome
	paid     proto.Amount
	payings  int  // under way; 0 between two records of a replica
	changed  bool // since the last distribution; of the live shard
}

// standing is what stands on an outcome.
type standing struct {
	staked  proto.Amount
	backers uint32
}

// result ends one stake: the account's side of a settlement.
type result struct {
	account proto.AccountID
	seq     proto.Seq
	pool    proto.PoolID
	outcome proto.Outcome
	state   proto.PredictionState
	amount  proto.Amount
	payout  proto.Amount // what the account gets back in all
}

func newBook() book {
	return book{accounts: map[proto.AccountID]*account{}, games: map[proto.GameID]*game{}}
}

func (b *book) pool(id proto.PoolID) *pool {
	g := b.games[id.Game()]
	n := uint64(id) % (proto.PoolsMax + 1)
	if g == nil || n == 0 || n > uint64(len(g.pools)) {
		return nil
	}
	return g.pools[n-1]
}

// ofAccount tells the records of an account's shard from those of a game's.
func (r *record) ofAccount() bool {
	switch r.kind {
	case recordAccountOpened, recordDeposited, recordFollowed, recordUnfollowed:
		return true
	}
	return false
}

// applyAccount applies a record that an account's shard decided.
func (b *book) applyAccount(seq proto.Seq, r *record) error {
	id := proto.AccountID(r.id)
	a := b.accounts[id]
	if r.kind == recordAccountOpened {
		var opening proto.AccountOpening
		if err := r.read(&opening); err != nil {
			return err
		}
		if a != nil {
			return fmt.Errorf("apply record %d: account %d exists already", seq, id)
		}
		b.accounts[id] = &account{id: id, name: opening.Name, balance: opening.Deposit}
		b.deposits += opening.Deposit
		return nil
	}
	if a == nil {
		return fmt.Errorf("apply record %d: there is no account %d", seq, id)
	}
	switch r.kind {
	case recordDeposited:
		a.balance += r.amount
		if r.amount > 0 {
			b.deposits += r.amount
		} else {
			b.withdrawals -= r.amount
		}
	case recordFollowed:
		a.following = append(a.following, proto.Friend{Account: r.other, Name: r.name})
	case recordUnfollowed:
		a.following = slices.DeleteFunc(a.following, func(f proto.Friend) bool { return f.Account == r.other })
	}
	return nil
}

// applyGame applies a record that a game's shard decided, and passes on what it pays.
func (b *book) applyGame(seq proto.Seq, r *record, pay func(*paying)) error {
	switch r.kind {
	case recordGameOpened:
		g := &game{id: proto.GameID(r.id)}
		if err := r.read(&g.opening); err != nil {
			return err
		}
		return b.addGame(g)
	case recordPoolOpened:
		p := &pool{id: proto.PoolID(r.id), first: seq, opened: r.time}
		if err := r.read(&p.opening); err != nil {
			return err
		}
		g := b.games[p.id.Game()]
		if g == nil || p.id != proto.NewPoolID(g.id, uint32(len(g.pools)+1)) {
			return fmt.Errorf("apply record %d: pool %d does not follow the pools of its game", seq, p.id)
		}
		p.outcomes = make([]standing, len(p.opening.Labels))
		g.pools = append(g.pools, p)
	case recordHappened:
		var e proto.Event
		if err := r.read(&e); err != nil {
			return err
		}
		g := b.games[proto.GameID(r.id)]
		if g == nil {
			return fmt.Errorf("apply record %d: there is no game %d", seq, r.id)
		}
		g.happen(&e)
	case recordTemplatesSet:
		return b.applyTemplates(seq, r)
	case recordArchived:
		delete(b.games, proto.GameID(r.id))
	default:
		return b.applyPool(seq, r, pay)
	}
	return nil
}

// addGame compiles the game's templates and adds it.
func (b *book) addGame(g *game) error {
	programs, err := compile(&g.opening)
	if err != nil {
		return fmt.Errorf("open game %d: %w", g.id, err)
	}
	g.programs = programs
	b.games[g.id] = g
	return nil
}

func compile(opening *proto.GameOpening) ([]*rules.Program, error) {
	programs := make([]*rules.Program, len(opening.Templates))
	for i, t := range opening.Templates {
		p, err := rules.Compile(t, rules.Game{Teams: opening.Teams, Shortlist: opening.Shortlist})
		if err != nil {
			return nil, err
		}
		programs[i] = p
	}
	return programs, nil
}

func (b *book) applyPool(seq proto.Seq, r *record, pay func(*paying)) error {
	p := b.pool(proto.PoolID(r.id))
	if p == nil {
		return fmt.Errorf("apply record %d: there is no pool %d", seq, r.id)
	}
	switch r.kind {
	case recordLocked:
		var locking proto.Locking
		if err := r.read(&locking); err != nil {
			return err
		}
		p.state, p.locked = proto.PoolLocked, locking.At
	case recordSettled:
		var settlement proto.Settlement
		if err := r.read(&settlement); err != nil {
			return err
		}
		b.house += p.settle(settlement.Winners, pay)
	case recordVoided:
		p.state = proto.PoolVoided
		p.pay(p.refundAll(), pay)
	default:
		return fmt.Errorf("apply record %d: unknown kind %d; was this journal written by a newer server?", seq, r.kind)
	}
	return nil
}

// happen moves the game along. The kinds kickoff and end start and end it.
func (g *game) happen(e *proto.Event) {
	switch e.Kind {
	case "kickoff":
		g.state = proto.GameLive
	case "end":
		g.state, g.ended = proto.GameEnded, e.At
	}
	g.minute, g.score = e.Minute, e.Score
	g.events = max(g.events, e.Number)
}

// take adds an accepted stake. backs are the outcomes that the account has backed in this pool before.
func (p *pool) take(seq proto.Seq, r *record, backs uint64) {
	after := seq - p.first
	assert(after < 1<<32, "a stake is near its pool's opening")
	p.stakes.add(newStake(proto.AccountID(r.id), r.outcome, r.amount, uint32(after), r.arrived-p.opened))
	p.count(r.outcome, r.amount, backs)
}

// count adds a stake to what stands on the pool.
func (p *pool) count(o proto.Outcome, amount proto.Amount, backs uint64) {
	p.gross += amount
	on := &p.outcomes[o]
	on.staked += amount
	if backs&(1<<o) == 0 {
		on.backers++
	}
}

// net is what the winners share.
func (p *pool) net() proto.Amount { return p.gross - takeout(p.gross, p.opening.Takeout) }

// settle ends every stake of the pool and returns what the house keeps. Where nobody backed the winner,
// all stakes are refunded and the house keeps nothing.
func (p *pool) settle(winners []proto.Outcome, pay func(*paying)) (house proto.Amount) {
	winner := winners[0]
	p.winners, p.state = winners, proto.PoolSettled
	if p.outcomes[winner].staked == 0 {
		p.pay(p.refundAll(), pay)
		return 0
	}
	p.paid = p.net()
	p.pay(p.payWinners(winner, p.paid), pay)
	return p.gross - p.paid
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
	}
}

// done reports whether the pool's money is decided. It may still be being paid.
func (p *pool) done() bool { return p.state == proto.PoolSettled || p.state == proto.PoolVoided }

// refunded reports whether a settled pool had stakes but none on the winner.
func (p *pool) refunded() bool { return p.state == proto.PoolSettled && p.gross > 0 && p.paid == 0 }
