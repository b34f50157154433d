package market

import (
	"slices"
	"unicode/utf8"

	"tote/server/market/rules"
	"tote/server/proto"
)

// decide is the pool's side of a stake.
func (s *Shard) decide(l *letter) {
	if s.parks(l) {
		return
	}
	p := s.pool(l.pool)
	verdict := letter{kind: letterVerdict, account: l.account, request: l.request, refusal: p.refusal(l, s.seen)}
	if verdict.refusal == proto.Accepted || verdict.refusal == proto.RefusedPoolLocked {
		verdict.locked = p.lockTime()
	}
	if verdict.refusal == proto.Accepted {
		r := record{kind: recordStaked, time: s.now, id: uint64(l.account), pool: l.pool, request: l.request,
			arrived: l.arrived, amount: l.amount, shares: l.shares, outcome: l.outcome}
		switch {
		case l.sell:
			r.kind = recordSold
		case p.dynamic != nil:
			r.kind = recordBought
		}
		s.record(r)
		verdict.seq, verdict.amount, verdict.shares = s.commit(), l.amount, l.shares
		switch r.kind {
		case recordSold:
			p.sell(&r, l.selling)
		case recordBought:
			p.buy(verdict.seq, &r, l.backs)
		default:
			p.take(verdict.seq, &r, l.backs)
		}
		s.change(p).board.stakes++
	}
	s.write(s.market.shardOfAccount(l.account), &verdict)
}

// refusal is the pool's side of the rules. The arrival at the host decides, not the time at which the
// shard gets to it. seen is the last record that the shard knows of.
func (p *pool) refusal(l *letter, seen proto.Seq) proto.Refusal {
	switch {
	case p == nil:
		return proto.RefusedPoolUnknown
	case p.closedTo(l) != proto.Accepted:
		return p.closedTo(l)
	case l.sell && !p.buysBack():
		return proto.RefusedPoolUnsold
	case p.state == proto.PoolSettled:
		return proto.RefusedPoolSettled
	case p.state == proto.PoolVoided:
		return proto.RefusedPoolVoided
	case p.state == proto.PoolLocked, p.opening.LocksAt != 0 && l.arrived > p.opening.LocksAt:
		return proto.RefusedPoolLocked
	case int(l.outcome) >= len(p.outcomes):
		return proto.RefusedOutcomeUnknown
	case p.withdrawn>>l.outcome&1 != 0:
		return proto.RefusedOutcomeWithdrawn
	case l.sell:
		return p.price(l)
	case l.amount < p.opening.StakeMin:
		return proto.RefusedStakeSmall
	case p.opening.StakeMax != 0 && l.amount > p.opening.StakeMax:
		return proto.RefusedStakeLarge
	case p.opening.Unit != 0 && l.amount%p.opening.Unit != 0:
		return proto.RefusedStakeUnits
	case p.opening.AccountMax != 0 && l.staked+l.amount > p.opening.AccountMax:
		return proto.RefusedAccountFull
	case p.opening.LateSpan != 0 && l.arrived > p.opening.LocksAt-p.opening.LateSpan && l.staked+l.amount > p.opening.LateMax:
		return proto.RefusedLateFull
	case l.amount > proto.AmountMax-p.gross-p.carried, seen-p.first >= stakeSeqMax:
		return proto.RefusedPoolFull
	case p.dynamic != nil:
		return p.price(l)
	case l.limit > 0 && int64(p.after(l).Multiplier) < l.limit:
		return proto.RefusedLimitMissed
	}
	return proto.Accepted
}

// lockTime is when a locked pool stopped to take stakes, or when it will.
func (p *pool) lockTime() proto.Time {
	if p.locked != 0 {
		return p.locked
	}
	return p.opening.LocksAt
}

func (s *Shard) gameCommand(c *Command) {
	if c.Kind == OpenGame {
		s.openGame(c)
		return
	}
	g := s.games[c.game()]
	if g == nil && (c.Kind == Pace || c.Kind == Seal) {
		return // archived meanwhile; nobody waits for an answer
	}
	if g == nil {
		s.refuse(c, c.unknown())
		return
	}
	switch c.Kind {
	case Join, ShowPools:
		s.showTo(c, g)
	case ShowInquiries:
		s.showQuestions(c, g)
	case Pace:
		s.setPace(g, c.Every)
	case Seal:
		s.tellSeal(g, c.Args.(*seal))
	default:
		s.hear(g, matter{command: *c, at: s.momentOf(c)})
	}
}

// operate does what an operator wants of a game. at is the moment by which stakes were judged, if it has one.
func (s *Shard) operate(c *Command, g *game, at proto.Time) {
	switch c.Kind {
	case OpenPool:
		s.openPool(c, g)
	case PostEvent:
		s.postEvent(c, g, at)
	case SetTemplates:
		s.setTemplates(c, g)
	default:
		s.poolCommand(c, g, at)
	}
}

// poolCommand is what an operator does to a pool by hand.
func (s *Shard) poolCommand(c *Command, g *game, at proto.Time) {
	p := s.pool(c.Pool)
	if p == nil {
		s.refuse(c, proto.RefusedPoolUnknown)
		return
	}
	var plan plan
	var refusal proto.Refusal
	switch c.Kind {
	case LockPool:
		refusal = planLock(&plan, p, at)
	case SettlePool:
		refusal = planSettle(&plan, p, c.Args.(*proto.Settlement))
	case WithdrawOutcome:
		refusal = planWithdraw(&plan, p, c.Args.(*proto.OutcomeWithdrawal))
	case VoidPool:
		refusal = planVoid(&plan, p, c.Args.(*proto.Voiding))
	case ApprovePool:
		refusal = planApprove(&plan, g, p)
	default:
		assert(false, "a game's command is known")
	}
	if refusal != proto.Accepted {
		s.refuse(c, refusal)
		return
	}
	answer := s.carryOut(&plan)
	answer.Pool = p.id
	s.answerDesk(c, answer)
}

// over says what stands in the way of ending or locking a pool.
func (p *pool) over() proto.Refusal {
	switch p.state {
	case proto.PoolSettled:
		return proto.RefusedPoolSettled
	case proto.PoolVoided:
		return proto.RefusedPoolVoided
	}
	return proto.Accepted
}

func planLock(to *plan, p *pool, at proto.Time) proto.Refusal {
	if refusal := p.over(); refusal != proto.Accepted {
		return refusal
	}
	switch p.state {
	case proto.PoolLocked, proto.PoolClaimed:
		return proto.RefusedPoolLocked
	case proto.PoolProposed:
		return proto.RefusedPoolProposed
	}
	to.lock(p, at)
	return proto.Accepted
}

// past is a time that an operator or a feed named: not in the future, and now where none was named.
func (s *Shard) past(at proto.Time) proto.Time {
	if at <= 0 || at > s.now {
		return s.now
	}
	return at
}

func planSettle(to *plan, p *pool, c *proto.Settlement) proto.Refusal {
	if refusal := p.over(); refusal != proto.Accepted {
		return refusal
	}
	switch {
	case p.unlocked():
		return proto.RefusedPoolOpen
	case p.state == proto.PoolProposed:
		return proto.RefusedPoolProposed
	case len(c.Winners) == 0:
		return proto.RefusedWinners
	}
	var named uint64
	for _, w := range c.Winners {
		switch {
		case int(w) >= len(p.outcomes), named>>w&1 != 0:
			return proto.RefusedWinners
		case p.withdrawn>>w&1 != 0:
			return proto.RefusedOutcomeWithdrawn
		}
		named |= 1 << w
	}
	to.settle(p, c.Winners...)
	return proto.Accepted
}

func planWithdraw(to *plan, p *pool, w *proto.OutcomeWithdrawal) proto.Refusal {
	if refusal := p.over(); refusal != proto.Accepted {
		return refusal
	}
	switch {
	case p.dynamic != nil:
		return proto.RefusedPoolDynamic
	case p.state == proto.PoolProposed:
		return proto.RefusedPoolProposed
	case int(w.Outcome) >= len(p.outcomes):
		return proto.RefusedOutcomeUnknown
	case p.withdrawn>>w.Outcome&1 != 0:
		return proto.RefusedOutcomeWithdrawn
	}
	to.withdraw(p, w.Outcome)
	return proto.Accepted
}

func planVoid(to *plan, p *pool, c *proto.Voiding) proto.Refusal {
	if refusal := p.over(); refusal != proto.Accepted {
		return refusal
	}
	if !validText(c.Reason) {
		return proto.RefusedTextInvalid
	}
	to.void(p, c.Reason)
	return proto.Accepted
}

func (s *Shard) openGame(c *Command) {
	opening := *c.Args.(*proto.GameOpening)
	if opening.Interval == 0 {
		opening.Interval = s.config.Interval
	}
	if refusal := gameRefusal(&opening); refusal != proto.Accepted {
		s.refuse(c, refusal)
		return
	}
	if s.games[c.Game] != nil {
		s.refuse(c, proto.RefusedGameExists)
		return
	}
	if _, err := compile(&opening); err != nil {
		s.answerDesk(c, &proto.Answer{Refusal: proto.RefusedTemplate, Detail: err.Error()})
		return
	}
	r := rare(recordGameOpened, s.now, uint64(c.Game), &opening)
	s.record(r)
	seq := s.commit()
	s.applied(s.applyGame(seq, &r, nil))
	g := s.games[c.Game]
	s.showGame(g)
	s.answerDesk(c, &proto.Answer{Game: g.id, Seq: seq})
}

// applied asserts that a record which the shard itself decided applies.
func (s *Shard) applied(err error) { assert(err == nil, "a decided record applies") }

func gameRefusal(o *proto.GameOpening) proto.Refusal {
	switch {
	case !validText(o.Name), slices.ContainsFunc(o.Teams[:], func(t string) bool { return t != "" && !validText(t) }),
		len(o.Shortlist) > shortlistMax, slices.ContainsFunc(o.Shortlist, func(p string) bool { return !validText(p) }),
		len(o.Templates) > templatesMax:
		return proto.RefusedTextInvalid
	case o.Interval < intervalMin || o.Interval > intervalMax:
		return proto.RefusedIntervalShort
	}
	return proto.Accepted
}

func (s *Shard) openPool(c *Command, g *game) {
	opening := *c.Args.(*proto.PoolOpening)
	switch refusal := s.openingRefusal(g, &opening); refusal {
	case proto.Accepted:
	case proto.RefusedRules, proto.RefusedSeeds, proto.RefusedPoolDynamic:
		s.answerDesk(c, &proto.Answer{Refusal: refusal, Detail: wrongRules(&opening)})
		return
	default:
		s.refuse(c, refusal)
		return
	}
	var plan plan
	plan.open(g, poolOpening{PoolOpening: opening, Template: -1, Minute: g.minute, Score: g.score})
	answer := s.carryOut(&plan)
	answer.Pool = answer.Opened[0]
	s.answerDesk(c, answer)
}

func (s *Shard) openingRefusal(g *game, o *proto.PoolOpening) proto.Refusal {
	switch {
	case g.state == proto.GameEnded:
		return proto.RefusedGameEnded
	case len(g.pools) >= proto.PoolsMax:
		return proto.RefusedPoolsMany
	case len(o.Labels) < proto.OutcomesMin || len(o.Labels) > proto.OutcomesMax:
		return proto.RefusedOutcomesCount
	case !validText(o.Question), slices.ContainsFunc(o.Labels, func(l string) bool { return !validText(l) }):
		return proto.RefusedTextInvalid
	case !limitsFit(o.Takeout, o.StakeMin, o.StakeMax), outOfRange(&o.Rules),
		o.CarryTo != 0 && (o.CarryTo.Game() != g.id || o.CarryTo <= proto.NewPoolID(g.id, uint32(len(g.pools)+1))),
		o.LateSpan != 0 && o.LocksAt == 0:
		return proto.RefusedRules
	case o.LocksAt != 0 && o.LocksAt <= s.now:
		return proto.RefusedLockPast
	}
	return kindRefusal(o)
}

// limitsFit reports whether takeout and the limits of one stake are in range; amounts of 0 are no limits.
func limitsFit(takeout uint16, least, most proto.Amount) bool {
	return takeout <= takeoutMax && limit(least) && limit(most) && (most == 0 || least <= most)
}

func limit(a proto.Amount) bool { return a == 0 || a.Valid() }

func outOfRange(r *proto.Rules) bool {
	member, _ := rules.Wrong(r)
	return member != ""
}

// wrongRules says what is wrong with a pool's rules, or with what its kind wants of it, if anything is.
func wrongRules(o *proto.PoolOpening) string {
	member, want := rules.Wrong(&o.Rules)
	if member == "" {
		member, want = rules.WrongKind(o)
	}
	if member == "" {
		return ""
	}
	return member + ": expected " + want
}

func eventRefusal(g *game, e *proto.Event) proto.Refusal {
	switch {
	case e.Number != 0 && e.Number <= g.events: // before all else: the feed shall know that it is done
		return proto.RefusedEventRepeated
	case g.state == proto.GameEnded:
		return proto.RefusedGameEnded
	case g.circle != 0:
		return proto.RefusedRoomEvent
	case e.Kind == "" || len(e.Kind) > kindMax || !utf8.ValidString(e.Kind), e.Team > 2,
		len(e.Player) > textMax || !utf8.ValidString(e.Player):
		return proto.RefusedEventInvalid
	}
	return proto.Accepted
}
