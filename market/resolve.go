package market

import (
	"encoding/hex"
	"slices"

	"tote/server/market/rules"
	"tote/server/proto"
)

// The resolver turns an event into what it means for the pools of its game: which are voided, locked,
// settled, and which open. It plans first; the plan is one append to the journal, so that a crash leaves an event
// with all of its consequences or without any; then it is applied by the code that recovery uses.

// plan is a list of records to be appended together, and the pools that they concern.
type plan struct {
	steps []step
	fresh uint32 // pools that it opens
}

type step struct {
	kind recordKind
	id   uint64
	body any
}

func (p *plan) lock(on *pool, at proto.Time) {
	p.steps = append(p.steps, step{recordLocked, uint64(on.id), &proto.Locking{At: at}})
}

func (p *plan) settle(on *pool, winners ...proto.Outcome) {
	p.steps = append(p.steps, step{recordSettled, uint64(on.id), &proto.Settlement{Winners: winners}})
}

// withdraw takes out an outcome, and voids a pool that is no question any more.
func (p *plan) withdraw(on *pool, o proto.Outcome) {
	p.steps = append(p.steps, step{recordWithdrawn, uint64(on.id), &proto.OutcomeWithdrawal{Outcome: o}})
	if on.left() <= proto.OutcomesMin {
		p.void(on, "fewer than two outcomes are left")
	}
}

func (p *plan) void(on *pool, reason string) {
	p.steps = append(p.steps, step{recordVoided, uint64(on.id), &proto.Voiding{Reason: reason}})
}

func (p *plan) open(g *game, o poolOpening) {
	p.fresh++
	id := proto.NewPoolID(g.id, uint32(len(g.pools))+p.fresh)
	p.steps = append(p.steps, step{recordPoolOpened, uint64(id), &o})
}

// postEvent resolves an event.
func (s *Shard) postEvent(c *Command, g *game, at proto.Time) {
	e := *c.Args.(*proto.Event)
	if refusal := eventRefusal(g, &e); refusal != proto.Accepted {
		s.refuse(c, refusal)
		return
	}
	e.At = at
	plan := &plan{}
	s.resolve(plan, g, &e)
	for _, room := range g.rooms {
		s.resolve(plan, room, &e)
	}
	answer := s.carryOut(plan)
	answer.Game = g.id
	s.answerDesk(c, answer)
}

func (s *Shard) resolve(plan *plan, g *game, e *proto.Event) {
	plan.steps, plan.fresh = append(plan.steps, step{recordHappened, uint64(g.id), e}), 0
	var last []step // settlements that may carry money to a pool that this event opens
	after := rules.State{Minute: e.Minute, Score: e.Score}
	for _, p := range g.pools {
		if !p.done() {
			last = g.resolvePool(plan, p, e, after, last)
		}
	}
	for i, program := range g.programs[g.asks:] {
		question, labels, ok := program.Opens(e, after)
		if !ok || len(g.pools)+int(plan.fresh) >= proto.PoolsMax {
			continue
		}
		plan.open(g, poolOpening{PoolOpening: program.Pool(question, labels), Template: g.asks + i, Minute: e.Minute, Score: e.Score})
	}
	plan.steps = append(plan.steps, last...)
}

// resolvePool asks a pool's rules, if it has any. The end of a game locks what players have asked; a question whose answer comes
// before its approval is none any more. A settlement that has to wait for what the event opens goes to last.
func (g *game) resolvePool(plan *plan, p *pool, e *proto.Event, after rules.State, last []step) []step {
	var won, voids, locks bool
	var winner proto.Outcome
	if program := g.program(p); program != nil {
		opened := rules.State{Minute: p.opening.Minute, Score: p.opening.Score}
		winner, won = program.Winner(e, after, opened)
		voids, locks = program.Voids(e, after, opened), program.Locks(e, after, opened)
	}
	locks = locks || p.inquiry != nil && e.Kind == "end"
	switch {
	case p.state == proto.PoolProposed && (voids || won || locks):
		plan.void(p, "its time was over before it was approved")
	case p.state == proto.PoolProposed:
	case voids:
		plan.void(p, "by the rules of the question")
	case won && p.withdrawn>>winner&1 != 0:
		plan.void(p, "the winning outcome was withdrawn")
	case won:
		if p.unlocked() {
			plan.lock(p, e.At)
		}
		plan.settle(p, winner)
		if end := len(plan.steps) - 1; p.opening.NoWinner == proto.NoWinnerCarry {
			last, plan.steps = append(last, plan.steps[end]), plan.steps[:end]
		}
	case p.unlocked() && locks:
		plan.lock(p, e.At)
	}
	return last
}

// program is the pool's rules; nil: it has none.
func (g *game) program(p *pool) *rules.Program {
	switch {
	case p.inquiry != nil:
		return p.inquiry.program
	case p.opening.Template >= 0:
		return g.programs[p.opening.Template]
	}
	return nil
}

// carryOut appends a plan and applies it, record by record, telling the games and the accounts.
func (s *Shard) carryOut(p *plan) *proto.Answer {
	records := make([]record, len(p.steps))
	for i, step := range p.steps {
		records[i] = rare(step.kind, s.now, step.id, step.body)
		s.record(records[i])
	}
	first := s.commit()
	answer := &proto.Answer{Seq: first}
	var moved []*game
	for i := range records {
		g := s.games[records[i].game()]
		before := g.state
		s.applied(s.applyGame(first+proto.Seq(i), &records[i], s.pays))
		s.tellGame(g, p.steps[i].body, &records[i], answer)
		if g.state != before {
			moved = append(moved, g)
		}
	}
	for _, g := range moved { // told last: when a game has ended, so have its questions
		s.showGame(g)
		if g.state == proto.GameEnded {
			s.agenda.add(appointment{at: s.now + s.config.ArchiveAfter, kind: archiveGame, game: g.id})
		}
	}
	return answer
}

// game is the game that a record belongs to; 0: none.
func (r *record) game() proto.GameID {
	switch {
	case r.ofAccount(), r.ofCircle():
		return 0
	case r.kind == recordStaked, r.kind == recordBought, r.kind == recordSold:
		return r.pool.Game()
	case r.ofPool():
		return proto.PoolID(r.id).Game()
	}
	return proto.GameID(r.id)
}

// ofPool tells the records whose id is a pool's.
func (r *record) ofPool() bool {
	switch r.kind {
	case recordPoolOpened, recordLocked, recordSettled, recordVoided, recordWithdrawn,
		recordAsked, recordApproved, recordReported, recordClaimed, recordChallenged:
		return true
	}
	return false
}

// pays puts off what a record pays to the end of the turn and, where it is much, to the turns to come.
func (s *Shard) pays(y *paying) { s.payings.queue = append(s.payings.queue, y) }

// tellGame broadcasts what a record of the game has changed.
func (s *Shard) tellGame(g *game, body any, r *record, answer *proto.Answer) {
	if r.kind == recordHappened {
		s.tellEvent(g, body.(*proto.Event))
		return
	}
	pool := s.pool(proto.PoolID(r.id))
	switch r.kind {
	case recordAsked, recordApproved, recordReported, recordClaimed, recordChallenged:
		s.tellInquiry(g, pool, body, answer)
	case recordPoolOpened:
		answer.Opened = append(answer.Opened, pool.id)
		s.broadcast(g, &proto.Opened{T: s.now, Game: g.id, Seq: g.board.next(), Pool: pool.show()})
		if at := pool.opening.LocksAt; at != 0 {
			s.agenda.add(appointment{at: at, kind: lockPool, pool: pool.id})
		}
	case recordLocked:
		answer.Locked = append(answer.Locked, pool.id)
		pool.changed = false // these odds are the last
		s.broadcast(g, &proto.Locked{T: s.now, Game: g.id, Seq: g.board.next(), Pool: pool.id, At: pool.locked, Counts: s.seen, Odds: pool.odds()})
		s.agenda.add(appointment{at: s.now + s.config.VoidAfter, kind: voidPool, pool: pool.id})
	case recordSettled:
		answer.Settled = append(answer.Settled, pool.id)
		s.broadcast(g, pool.settledMessage(g, s.now))
		s.tellHeir(pool)
	case recordVoided:
		answer.Voided = append(answer.Voided, pool.id)
		pool.changed = false
		if pool.hidden() {
			break
		}
		s.broadcast(g, &proto.Voided{T: s.now, Game: g.id, Seq: g.board.next(), Pool: pool.id, Reason: body.(*proto.Voiding).Reason})
		s.tellHeir(pool)
	case recordWithdrawn:
		pool.changed = false
		s.broadcast(g, &proto.PoolChanged{T: s.now, Game: g.id, Seq: g.board.next(), Pool: pool.show()})
	}
	s.tellAsker(pool, body)
}

// tellHeir lets the pool that this one's money was carried to be published.
func (s *Shard) tellHeir(p *pool) {
	if heir := s.pool(p.ended.CarriedTo); heir != nil {
		s.change(heir)
	}
}

// tellSeal publishes the head of the hash chain at the record that ended a pool.
func (s *Shard) tellSeal(g *game, of *seal) {
	s.broadcast(g, &proto.Sealed{T: s.now, Game: g.id, Seq: g.board.next(), Pool: of.pool, Record: of.seq, Head: hex.EncodeToString(of.head[:])})
}

func (s *Shard) tellEvent(g *game, e *proto.Event) {
	s.broadcast(g, &proto.Happened{T: s.now, Game: g.id, Seq: g.board.next(), Kind: e.Kind, Minute: e.Minute, Team: e.Team,
		Player: e.Player, Score: e.Score})
}

func (p *pool) settledMessage(g *game, now proto.Time) *proto.Settled {
	e := &p.ended
	m := &proto.Settled{T: now, Game: g.id, Seq: g.board.next(), Pool: p.id, Winners: p.winners, Gross: p.gross, Takeout: e.Takeout, Paid: p.paid,
		Refunded: e.Refunded, Reason: e.Reason, Dividends: e.Dividends, Breakage: e.Breakage, Minus: e.Minus, Carried: p.carried,
		CarriedOn: e.CarriedOn, CarriedTo: e.CarriedTo}
	if len(e.Dividends) > 0 {
		m.Multiplier = e.Dividends[0].Multiplier
	}
	return m
}

// lockInTime locks a pool whose lock time has come.
func (s *Shard) lockInTime(id proto.PoolID) {
	if p := s.pool(id); p != nil {
		s.hear(s.games[id.Game()], matter{lock: id, at: p.opening.LocksAt})
	}
}

// lockDue locks it, unless something else has meanwhile.
func (s *Shard) lockDue(id proto.PoolID) {
	p := s.pool(id)
	var plan plan
	switch {
	case p == nil:
		return
	case p.unlocked():
		plan.lock(p, p.opening.LocksAt)
	case p.state == proto.PoolProposed:
		plan.void(p, "nobody approved it in time")
	default:
		return
	}
	s.carryOut(&plan)
}

// voidUnsettled returns the stakes of a pool that nobody settled.
func (s *Shard) voidUnsettled(id proto.PoolID) {
	p := s.pool(id)
	if p == nil || !p.undecided() || p.voidAt(s.config.VoidAfter) > s.now {
		return
	}
	var plan plan
	plan.void(p, "nobody settled it in time")
	s.carryOut(&plan)
}

// archive lets an ended game leave memory once all of its money is paid.
func (s *Shard) archive(id proto.GameID) {
	g := s.games[id]
	if g == nil {
		return
	}
	if len(g.rooms) > 0 || slices.ContainsFunc(g.pools, func(p *pool) bool { return !p.done() || p.payings > 0 }) {
		s.agenda.add(appointment{at: s.now + s.config.ArchiveAfter, kind: archiveGame, game: id})
		return
	}
	r := record{kind: recordArchived, time: s.now, id: uint64(id)}
	s.record(r)
	s.applied(s.applyGame(s.commit(), &r, nil))
	s.forgetStakes(id)
}
