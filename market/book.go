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
	circles  map[proto.CircleID]*circle

	// Σ accounts + Σ unsettled pools + house = deposits − withdrawals, where one book holds all.
	house       proto.Amount // takeout of settled pools
	deposits    proto.Amount
	withdrawals proto.Amount
}

// account is a player's money and predictions.
type account struct {
	id      proto.AccountID
	name    string
	balance proto.Amount   // ≥ 0
	tickets []ticket       // open ones, by sequence number
	closed  []closedTicket // the last closedMax, by sequence number
	trades  *trades        // in dynamic pools; nil for most
	ties    *ties          // nil: none
	live    *live          // nil in a replica
}

// ties are whom an account follows and the circles that it is in.
type ties struct {
	following []proto.Friend
	circles   *[]proto.CircleName // by id, never changed in place; nil: none
}

func (a *account) following() []proto.Friend {
	if a.ties == nil {
		return nil
	}
	return a.ties.following
}

func (a *account) circles() *[]proto.CircleName {
	if a.ties == nil {
		return nil
	}
	return a.ties.circles
}

// tie changes the account's ties; where none are left, it has none.
func (a *account) tie(change func(*ties)) {
	if a.ties == nil {
		a.ties = &ties{}
	}
	if change(a.ties); len(a.ties.following) == 0 && a.ties.circles == nil {
		a.ties = nil
	}
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
	pools    []*pool        // pools[n-1] has the id NewPoolID(id, n)
	circle   proto.CircleID // whose room it is; 0: it is none
	rooms    []*game        // in it, rooms[n-1] with the id NewRoomID(id, n)
	programs []*rules.Program
	asks     int      // opening.Templates and programs from here on open pools; see applyTemplates
	hearing  *hearing // of the live shard; nil: nothing waits
	board    board    // of the live shard
}

// pool is a question of a game.
type pool struct {
	id        proto.PoolID
	opening   poolOpening
	state     proto.PoolState
	locked    proto.Time   // stakes that arrived later do not count; 0 while open
	gross     proto.Amount // of the stakes that count
	carried   proto.Amount // from earlier pools
	latest    proto.Time   // arrival of a stake
	outcomes  []standing
	dynamic   *dynamic       // of a dynamic pool
	stakes    stakes         // none once settled or voided
	first     proto.Seq      // of the record that opened it; stakes count from here
	opened    proto.Time     // of that record
	circle    proto.CircleID // of its game
	inquiry   *inquiry       // nil: no player has asked it
	withdrawn uint64         // outcomes, a bit each
	winners   []proto.Outcome
	ended     ending
	paid      proto.Amount
	payings   int  // under way; 0 between two records of a replica
	changed   bool // since the last distribution; of the live shard
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
	reason  proto.RefundReason // of a refund
	amount  proto.Amount
	payout  proto.Amount // what the account gets back in all
}

func newBook() book {
	return book{accounts: map[proto.AccountID]*account{}, games: map[proto.GameID]*game{}, circles: map[proto.CircleID]*circle{}}
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
		a.tie(func(t *ties) { t.following = append(t.following, proto.Friend{Account: r.other, Name: r.name}) })
	case recordUnfollowed:
		a.tie(func(t *ties) {
			t.following = slices.DeleteFunc(t.following, func(f proto.Friend) bool { return f.Account == r.other })
		})
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
		return b.addPool(seq, p)
	case recordAsked:
		var body askedOpening
		if err := r.read(&body); err != nil {
			return err
		}
		p := &pool{id: proto.PoolID(r.id), first: seq, opened: r.time, opening: body.poolOpening, inquiry: &body.Inquiry}
		if !p.inquiry.Shown {
			p.state = proto.PoolProposed
		}
		return b.addPool(seq, p)
	case recordRoomOpened:
		return b.openRoom(seq, r)
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
		b.removeGame(proto.GameID(r.id))
	default:
		return b.applyPool(seq, r, pay)
	}
	return nil
}

// addPool makes a pool the next one of its game.
func (b *book) addPool(seq proto.Seq, p *pool) error {
	g := b.games[p.id.Game()]
	if g == nil || p.id != proto.NewPoolID(g.id, uint32(len(g.pools)+1)) {
		return fmt.Errorf("apply record %d: pool %d does not follow the pools of its game", seq, p.id)
	}
	p.outcomes = make([]standing, len(p.opening.Labels))
	if p.opening.Kind == proto.KindDynamic {
		seeded := false
		if p.dynamic, seeded = newDynamic(&p.opening.PoolOpening); !seeded {
			return fmt.Errorf("apply record %d: pool %d cannot be seeded", seq, p.id)
		}
		p.gross = p.dynamic.Total
		b.house -= p.gross
	}
	g.pools = append(g.pools, p)
	return g.ready(p)
}

// ready gives a pool what it has of its game.
func (g *game) ready(p *pool) (err error) {
	if p.circle = g.circle; p.inquiry != nil {
		if p.inquiry.program, err = p.inquiry.compile(g, len(p.opening.Labels)); err != nil {
			return fmt.Errorf("open pool %d: %w", p.id, err)
		}
	}
	return nil
}

// addGame compiles what the game has of rules, and adds it; a room, to the game that it is in.
func (b *book) addGame(g *game) error {
	programs, err := compile(&g.opening)
	if err != nil {
		return fmt.Errorf("open game %d: %w", g.id, err)
	}
	g.programs = programs
	for _, p := range g.pools {
		if err := g.ready(p); err != nil {
			return err
		}
	}
	if g.circle != 0 {
		in := b.games[g.id.Main()]
		if in == nil {
			return fmt.Errorf("open game %d: there is no game %d that it is a room of", g.id, g.id.Main())
		}
		in.rooms = append(in.rooms, g)
	}
	b.games[g.id] = g
	return nil
}

func (b *book) removeGame(id proto.GameID) {
	if in := b.games[id.Main()]; in != nil {
		in.rooms = slices.DeleteFunc(in.rooms, func(room *game) bool { return room.id == id })
	}
	delete(b.games, id)
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
		p.lock(locking.At, pay)
	case recordSettled:
		var settlement proto.Settlement
		if err := r.read(&settlement); err != nil {
			return err
		}
		b.settle(p, settlement.Winners, pay)
	case recordVoided:
		if p.inquiry != nil {
			var voiding proto.Voiding
			if err := r.read(&voiding); err != nil {
				return err
			}
			p.inquiry.Reason = voiding.Reason
		}
		p.state = proto.PoolVoided
		b.passOn(p, p.carried)
		if p.dynamic != nil {
			b.house += p.refundDynamic(pay)
			break
		}
		p.pay(p.refunds(allOutcomes, proto.RefundVoid), pay)
	case recordWithdrawn:
		var withdrawal proto.OutcomeWithdrawal
		if err := r.read(&withdrawal); err != nil {
			return err
		}
		p.withdraw(withdrawal.Outcome, pay)
	case recordApproved, recordReported, recordClaimed, recordChallenged:
		return p.applyInquiry(seq, r)
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
	p.keep(newStake(proto.AccountID(r.id), r.outcome, r.amount, uint32(after), r.arrived-p.opened))
	p.count(r.outcome, r.amount, backs)
}

// keep adds a stake to the list.
func (p *pool) keep(s stake) {
	p.stakes.add(s)
	p.latest = max(p.latest, p.arrived(s))
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
