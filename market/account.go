package market

import (
	"slices"
	"unicode/utf8"

	"tote/server/proto"
)

// live is what an account has only while the server lives: nothing here is in the journal.
type live struct {
	sessions []Session // who receives the private lane
	attached bool      // a session was, in this life of the server: it may come back and resume
	n        uint64    // last private number
	lane     []private // the last laneMax of them, see keep
	held     proto.Amount
	paced    proto.Time // see fast
	holds    []hold     // stakes in decision
	refused  []refusedStake
	asked    proto.Time // a question, last
	joining  int        // circles that decide whether the account joins
}

// hold is a stake that its pool's shard decides right now, or after another one of the account: in each pool they are decided
// one after another, so that each is asked with what the ones before it came to. Its amount cannot be staked twice. Holds are
// never journaled: after a crash, an undecided stake was never made.
type hold struct {
	refusedStake
	asked   bool   // its pool's shard; else it waits for another stake of the account there
	repeats uint32 // of the same request meanwhile: each is owed an answer
	from    Session
}

// refusedStake is a request and the refusal it got, for the request's repetition.
type refusedStake struct {
	request proto.RequestID
	pool    proto.PoolID
	outcome proto.Outcome
	sell    bool
	amount  proto.Amount // of a stake
	shares  proto.Shares // of a sale
	limit   int64
	arrived proto.Time
	reason  proto.Refusal
	locked  proto.Time // by which it came too late
}

// refusedMax is how many refused stakes an account remembers, until the server restarts.
const refusedMax = 8

// lives takes a live for an account that has none.
func (s *Shard) lives(a *account) *live {
	if a.live == nil {
		if n := len(s.idle); n > 0 {
			a.live, s.idle = s.idle[n-1], s.idle[:n-1]
		} else {
			a.live = &live{}
		}
	}
	return a.live
}

// rest takes it back where nothing is lost with it.
func (s *Shard) rest(a *account) {
	if l := a.live; l != nil && !l.attached && len(l.holds) == 0 && len(l.refused) == 0 && l.joining == 0 && l.asked == 0 {
		a.live = nil
		if len(s.idle) < keptMax {
			s.idle = append(s.idle, l)
		}
	}
}

// free is what the account can stake.
func (a *account) free() proto.Amount {
	if a.live == nil {
		return a.balance
	}
	return a.balance - a.live.held
}

func (s *Shard) accountCommand(c *Command) {
	if c.Kind == OpenAccount {
		s.openAccount(c)
		return
	}
	a := s.accounts[c.Account]
	if a == nil {
		if c.Kind != Detach {
			s.refuse(c, proto.RefusedAccountUnknown)
		}
		return
	}
	switch c.Kind {
	case Stake, Sell:
		s.stake(c, a)
	case Attach:
		s.attach(c, a)
	case Detach:
		if live := a.live; live != nil {
			live.sessions = slices.DeleteFunc(live.sessions, func(session Session) bool { return session == c.From })
		}
	case Deposit, Withdraw:
		s.transfer(c, a)
	case ShowAccount:
		s.showAccount(c, a)
	case ShowPredictions:
		s.showPredictions(c, a)
	case ShowFriends:
		s.showFriends(c, a)
	case Follow:
		s.follow(c, a)
	case Unfollow:
		s.unfollow(c, a)
	case Quote:
		s.askQuote(c, a)
	case Ask, Resolve, Challenge, Report, ShowQuestions:
		s.inquire(c, a)
	case CreateCircle, JoinCircle, LeaveCircle, RemoveMember, ShowCircles, ShowCircle, EnterRoom:
		s.circleCommand(c, a)
	default:
		assert(false, "an account's command is known")
	}
}

func validText(text string) bool { return text != "" && len(text) <= textMax && utf8.ValidString(text) }

func (s *Shard) openAccount(c *Command) {
	opening := c.Args.(*proto.AccountOpening)
	switch {
	case s.accounts[c.Account] != nil:
		s.refuse(c, proto.RefusedAccountExists)
		return
	case !validText(opening.Name):
		s.refuse(c, proto.RefusedTextInvalid)
		return
	case opening.Deposit != 0 && !opening.Deposit.Valid():
		s.refuse(c, proto.RefusedAmountInvalid)
		return
	}
	seq := s.decideAccount(rare(recordAccountOpened, s.now, uint64(c.Account), opening))
	a := s.accounts[c.Account]
	if c.Attach {
		s.attach(c, a)
		return
	}
	s.answerDesk(c, &proto.Answer{Account: a.id, Balance: a.balance, Seq: seq})
}

// decideAccount appends a record and applies it.
func (s *Shard) decideAccount(r record) proto.Seq {
	s.record(r)
	seq := s.commit()
	s.applied(s.applyAccount(seq, &r))
	return seq
}

func (s *Shard) attach(c *Command, a *account) {
	if a.live != nil && len(a.live.sessions) >= s.config.Connections && !slices.Contains(a.live.sessions, c.From) {
		s.refuse(c, proto.RefusedConnectionsMany)
		return
	}
	live := s.lives(a)
	live.attached = true
	if !slices.Contains(live.sessions, c.From) {
		live.sessions = append(live.sessions, c.From)
	}
	resumed := c.Epoch == s.config.Epoch && live.keeps(c.N)
	misses := !resumed && c.Since != 0
	welcome := &proto.Welcome{ID: c.ID, T: s.now, Epoch: s.config.Epoch, Account: a.id, Name: a.name, Balance: a.free(),
		N: live.n, Resumed: resumed, Missed: misses, Durability: s.config.Durability}
	if !resumed && !misses {
		welcome.Since = s.through // else what follows is not told yet
	}
	s.reply(c, welcome)
	switch {
	case resumed:
		s.resume(c.From, live, c.N)
	case misses: // what is told of records after seen, the session hears itself
		s.market.archive.inbox.post([]letter{{kind: letterMissed, missed: &missed{to: c.From, account: a.id, since: c.Since, need: s.seen}}}, 0)
	}
}

func (s *Shard) transfer(c *Command, a *account) {
	change := c.Amount
	switch {
	case !c.Amount.Valid():
		s.refuse(c, proto.RefusedAmountInvalid)
		return
	case c.Kind == Withdraw && c.Amount > a.free():
		s.refuse(c, proto.RefusedFundsShort)
		return
	case c.Kind == Withdraw:
		change = -change
	case c.Amount > proto.AmountMax-a.balance:
		s.refuse(c, proto.RefusedBalanceFull)
		return
	}
	seq := s.decideAccount(record{kind: recordDeposited, time: s.now, id: uint64(a.id), amount: change})
	s.tell(a, private{kind: privateBalance, prediction: seq, amount: change})
	s.answerDesk(c, &proto.Answer{Account: a.id, Balance: a.free(), Seq: seq})
}

// stake holds the money for a stake and asks the pool's shard. What is refused here is refused before
// anything changed.
func (s *Shard) stake(c *Command, a *account) {
	live := s.lives(a)
	asked := refusedStake{request: c.ID, pool: c.Pool, outcome: c.Outcome, amount: c.Amount, limit: c.Limit, arrived: c.Arrived}
	if c.Kind == Sell {
		asked.sell, asked.amount, asked.shares = true, 0, c.Shares
	}
	if s.repeated(&asked, a) {
		s.answerOperator(c.From, a, asked.request, proto.RefusedRequestReused, 0)
		return
	}
	if c.From.Loop() != DeskLoop && s.fast(live, c.Arrived) { // not remembered: it may be sent again
		s.refuseStake(a, &asked, proto.RefusedStakesFast)
		return
	}
	if asked.reason = a.refusal(&asked); asked.reason != proto.Accepted {
		live.remember(asked)
		s.refuseStake(a, &asked, asked.reason)
		s.answerOperator(c.From, a, asked.request, asked.reason, 0)
		return
	}
	if !asked.sell {
		live.held += asked.amount
	}
	waits := slices.ContainsFunc(live.holds, func(h hold) bool { return h.pool == asked.pool })
	live.holds = append(live.holds, hold{refusedStake: asked, asked: !waits, from: c.From})
	if waits {
		s.queue(a, asked.pool, 1)
	} else {
		s.askPool(a, &asked)
	}
}

// askPool lets the pool's shard decide a stake that is held.
func (s *Shard) askPool(a *account, asked *refusedStake) {
	l := a.letter(asked)
	s.write(s.market.shardOfGame(asked.pool.Game()), &l)
}

// letter asks for a stake or a sale, with what the pool wants to know of the account.
func (a *account) letter(asked *refusedStake) letter {
	l := letter{kind: letterDecide, sell: asked.sell, account: a.id, pool: asked.pool, outcome: asked.outcome, request: asked.request,
		amount: asked.amount, shares: asked.shares, limit: asked.limit, arrived: asked.arrived, circles: a.circles()}
	if asked.sell {
		l.selling = a.offer(newPlace(asked.pool, asked.outcome), asked.shares)
	}
	l.staked, l.backs = a.position(asked.pool)
	return l
}

// fast reports whether an account stakes faster than it may by the arrival of its requests, and counts its request if not. It may
// save up two seconds' worth. This is the generic cell rate algorithm (ITU-T I.371): paced is when an account that stakes
// at the very rate would make its next stake.
func (s *Shard) fast(live *live, arrived proto.Time) bool {
	if s.config.StakesPerSecond == 0 {
		return false
	}
	each := proto.Second / proto.Time(s.config.StakesPerSecond)
	if live.paced-arrived > 2*proto.Second-each {
		return true
	}
	live.paced = max(live.paced, arrived) + each
	return false
}

// refusal is the account's side of the rules.
func (a *account) refusal(asked *refusedStake) proto.Refusal {
	switch {
	case asked.sell && !asked.shares.Valid():
		return proto.RefusedSharesInvalid
	case asked.sell && len(a.live.holds) < ticketsOpenMax:
		return proto.Accepted
	case !asked.sell && !asked.amount.Valid():
		return proto.RefusedAmountInvalid
	case len(a.tickets)+len(a.live.holds) >= ticketsOpenMax:
		return proto.RefusedTicketsMany
	case asked.amount > a.free():
		return proto.RefusedFundsShort
	}
	return proto.Accepted
}

// repeated answers a request whose id the account has used before: the same stake gets the first answer,
// another one is refused.
func (s *Shard) repeated(asked *refusedStake, a *account) bool {
	if t := a.requested(asked.request); t != nil {
		if !asked.sell && t.on == newPlace(asked.pool, asked.outcome) && t.amount == asked.amount {
			s.receipt(a, t, asked.arrived, 0)
		} else {
			s.refuseStake(a, asked, proto.RefusedRequestReused)
		}
		return true
	}
	if sold := a.sold(asked.request); sold != nil {
		if asked.sell && sold.on == newPlace(asked.pool, asked.outcome) && sold.shares == asked.shares {
			s.receiptOfSale(a, sold, asked.arrived)
		} else {
			s.refuseStake(a, asked, proto.RefusedRequestReused)
		}
		return true
	}
	for i := range a.live.holds {
		h := &a.live.holds[i]
		if h.request != asked.request {
			continue
		}
		if h.same(asked) {
			h.repeats++
		} else {
			s.refuseStake(a, asked, proto.RefusedRequestReused)
		}
		return true
	}
	for i := range a.live.refused {
		r := &a.live.refused[i]
		if r.request != asked.request {
			continue
		}
		if r.same(asked) {
			s.refuseStake(a, r, r.reason)
		} else {
			s.refuseStake(a, asked, proto.RefusedRequestReused)
		}
		return true
	}
	return false
}

func (r *refusedStake) same(other *refusedStake) bool {
	return r.pool == other.pool && r.outcome == other.outcome && r.amount == other.amount && r.sell == other.sell &&
		r.shares == other.shares
}

// remember keeps a refusal for the request's repetition.
func (l *live) remember(r refusedStake) {
	if len(l.refused) == refusedMax {
		l.refused = slices.Delete(l.refused, 0, 1)
	}
	l.refused = append(l.refused, r)
}

// verdict ends a hold, and lets the next one in the same pool be decided.
func (s *Shard) verdict(l *letter) {
	a := s.accounts[l.account]
	live := a.live
	i := slices.IndexFunc(live.holds, func(h hold) bool { return h.request == l.request })
	assert(i >= 0, "a verdict is about a hold")
	h := live.holds[i]
	live.holds = slices.Delete(live.holds, i, i+1)
	if !h.sell {
		live.held -= h.amount
	}
	s.tellVerdict(a, &h, l)
	s.answerOperator(h.from, a, h.request, l.refusal, l.seq)
	s.askNext(a, h.pool)
	s.rest(a)
}

// tellVerdict turns what was held into a ticket, or remembers why not.
func (s *Shard) tellVerdict(a *account, h *hold, l *letter) {
	if l.refusal != proto.Accepted {
		h.reason, h.locked = l.refusal, l.locked
		a.live.remember(h.refusedStake)
		for range 1 + h.repeats {
			s.refuseStake(a, &h.refusedStake, l.refusal)
		}
		return
	}
	if h.sell {
		sold := sale{seq: l.seq, request: h.request, on: newPlace(h.pool, h.outcome), shares: h.shares, cash: l.amount}
		a.sell(sold, a.offer(sold.on, sold.shares).parts)
		for range 1 + h.repeats {
			s.receiptOfSale(a, &sold, h.arrived)
		}
		return
	}
	t := ticket{seq: l.seq, request: h.request, on: newPlace(h.pool, h.outcome), amount: h.amount}
	if l.shares > 0 {
		a.buy(t, l.shares)
	} else {
		a.pay(t)
	}
	for range 1 + h.repeats {
		s.receipt(a, &t, h.arrived, l.locked)
	}
}

// answerOperator answers an operator who has staked for the account, and hears nothing of its private lane.
func (s *Shard) answerOperator(to Session, a *account, id proto.RequestID, refusal proto.Refusal, seq proto.Seq) {
	c := Command{From: to, ID: id}
	switch {
	case to.Loop() != DeskLoop:
	case refusal != proto.Accepted:
		s.refuse(&c, refusal)
	default:
		s.answerDesk(&c, &proto.Answer{Account: a.id, Balance: a.free(), Seq: seq})
	}
}

// askNext lets the pool decide the account's next stake that waits for it.
func (s *Shard) askNext(a *account, in proto.PoolID) {
	for i := range a.live.holds {
		if h := &a.live.holds[i]; h.pool == in {
			assert(!h.asked, "one stake of an account is decided by a pool at a time")
			h.asked = true
			s.queue(a, in, -1)
			asked := h.refusedStake // holds may change while it is decided
			s.askPool(a, &asked)
			return
		}
	}
}

// receipt tells the account that its prediction stands.
func (s *Shard) receipt(a *account, t *ticket, arrived, locks proto.Time) {
	p := private{kind: privateReceipt, id: t.request, prediction: t.seq, pool: t.on.pool(), outcome: t.on.outcome(),
		amount: t.amount, lag: lag(s.now, arrived), locks: locks}
	if h := a.holding(t.seq); h != nil {
		p.value = int64(h.bought)
	}
	s.tell(a, p)
}

// receiptOfSale tells the account that its shares are sold.
func (s *Shard) receiptOfSale(a *account, sold *sale, arrived proto.Time) {
	s.tell(a, private{kind: privateSold, id: sold.request, prediction: sold.seq, pool: sold.on.pool(), outcome: sold.on.outcome(),
		amount: sold.cash, value: int64(sold.shares), lag: lag(s.now, arrived)})
}

// refuseStake tells the account that its prediction does not stand.
func (s *Shard) refuseStake(a *account, asked *refusedStake, why proto.Refusal) {
	s.tell(a, private{kind: privateRefused, id: asked.request, refusal: why, lag: lag(s.now, asked.arrived), value: int64(asked.locked)})
}

// result pays what an ended stake brought, and tells of money.
func (s *Shard) result(l *letter) {
	a := s.accounts[l.account]
	_, ended := a.end(result{account: l.account, seq: l.seq, pool: l.pool, outcome: l.outcome, amount: l.amount, payout: l.payout, state: l.state, reason: l.reason})
	assert(ended, "a result is about an open ticket")
	p := private{prediction: l.seq, pool: l.pool, outcome: l.outcome, amount: l.amount, value: int64(l.payout), reason: l.reason}
	switch l.state {
	case proto.PredictionWon:
		p.kind = privatePayout
	case proto.PredictionRefunded:
		p.kind = privateRefund
	default:
		return // of a loss, the broadcast tells
	}
	s.tell(a, p)
}

func (s *Shard) showAccount(c *Command, a *account) {
	m := &proto.Account{ID: c.ID, T: s.now, Account: a.id, Name: a.name, Balance: a.free(), Held: a.balance - a.free(),
		Following: slices.Clone(a.following())}
	for i := range a.tickets {
		m.Staked += a.cost(&a.tickets[i])
	}
	if a.live != nil {
		m.N = a.live.n
	}
	s.reply(c, m)
}

func (s *Shard) showPredictions(c *Command, a *account) {
	m := &proto.Predictions{ID: c.ID, T: s.now, Predictions: a.predictions()}
	if a.live != nil {
		m.N = a.live.n
	}
	s.reply(c, m)
}
