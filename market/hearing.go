package market

import (
	"slices"

	"tote/server/proto"
)

// hearing is what a game does before an event, a lock by hand or a lock time takes effect: the moment of each, E, decides about stakes
// by when they reached the host, not by when anybody got to them. So it waits until all that arrived by then is here, and what
// arrived later waits for it:
//
//	         loops: has all that arrived by E been submitted?      shards: has all of that been decided?
//	matter ─────────────── Config.Passed ──────────────────▶ letterHear ─▶ … ─▶ letterHeard ──▶ carried out
//	stakes, arrived ≤ E ─▶ decided as ever                                                            │
//	stakes, arrived > E ─▶ parked ───────────────────────────────────────────────────── decided ◀─────┘
//
// Loops submit to shards before they say that E has passed, so a shard that is asked afterwards has all of it in the inbox that it
// takes, or has had it before. The wait is bounded: after hearingMax the matter takes effect, and what comes later is late.
//
// A game and its rooms have one hearing, with one matter after another in the order in which they came. Nothing of it is in the
// journal: the records that follow say what was decided.
type hearing struct {
	game    *game
	matters []matter // the first is being heard
	parked  []letter // stakes that arrived after its moment, as they came
	passed  bool     // the loops have submitted what arrived by its moment
	from    uint64   // the turn whose inbox has all of that
	number  proto.Seq
	missing int        // shards that have not said yet that they are done with it
	until   proto.Time // then it is not waited for any longer
}

// matter is what waits for its moment to be judged.
type matter struct {
	command Command
	lock    proto.PoolID // its lock time has come; else command is to be done
	at      proto.Time   // the moment; 0: it is only to be done in its turn
}

const (
	hearingMax  = proto.Second
	hearingLook = 10 * proto.Millisecond // between two looks at what the loops have submitted, if none says so
)

// fence is another shard's question whether all is decided here that arrived by a moment.
type fence struct {
	from   uint16
	game   proto.GameID
	at     proto.Time
	number proto.Seq
}

// momentOf is the time by which stakes are judged, of what an operator does.
func (s *Shard) momentOf(c *Command) proto.Time {
	switch c.Kind {
	case PostEvent:
		return s.past(c.Args.(*proto.Event).At)
	case LockPool:
		return s.past(c.Args.(*proto.Locking).At)
	}
	return 0
}

// hear does an operator's command to a game, when all that it decides about is here.
func (s *Shard) hear(g *game, m matter) {
	main := s.games[g.id.Main()]
	h := main.hearing
	if h == nil && m.at == 0 {
		s.judge(&m)
		return
	}
	if h == nil {
		h = &hearing{game: main}
		main.hearing = h
		s.hearings = append(s.hearings, h)
	}
	if h.matters = append(h.matters, m); len(h.matters) == 1 {
		s.beginHearing(h)
	}
}

func (s *Shard) beginHearing(h *hearing) {
	s.heard++
	h.number, h.passed, h.missing, h.until = s.heard, false, 0, s.now+hearingMax
	if s.config.Passed == nil {
		s.askShards(h, s.turns)
	} else {
		s.lookAtLoops(h, s.turns+1)
	}
}

// lookAtLoops asks the shards, once the loops have submitted all. from is the next turn that takes its inbox.
func (s *Shard) lookAtLoops(h *hearing, from uint64) {
	if at := h.matters[0].at; !h.passed && (at == 0 || s.config.Passed(at)) {
		s.askShards(h, from)
	}
}

func (s *Shard) askShards(h *hearing, from uint64) {
	h.passed, h.from = true, from
	if h.matters[0].at == 0 {
		return
	}
	for _, to := range s.market.shards {
		if to != s {
			h.missing++
			s.write(to, &letter{kind: letterHear, from: uint16(s.index), game: h.game.id, arrived: h.matters[0].at, seq: h.number})
		}
	}
}

// answerFences tells other shards that nothing early is left here, when the turn's commands are done.
func (s *Shard) answerFences() {
	s.fences = slices.DeleteFunc(s.fences, func(f fence) bool {
		if s.early(f.game, f.at) {
			return false
		}
		s.write(s.market.shards[f.from], &letter{kind: letterHeard, game: f.game, seq: f.number})
		return true
	})
}

// early reports whether a stake that arrived by at waits here for the account's stake before it. Where that one arrived later, and
// only got here sooner by another connection, it is parked, and to wait for it would be to wait for ourselves.
func (s *Shard) early(game proto.GameID, at proto.Time) bool {
	for id := range s.queueing[game] {
		holds := s.accounts[id].live.holds
		for i := range holds {
			h := &holds[i]
			if h.asked || h.arrived > at || h.pool.Game().Main() != game {
				continue
			}
			before := slices.IndexFunc(holds, func(b hold) bool { return b.asked && b.pool == h.pool })
			if holds[before].arrived <= at {
				return true
			}
		}
	}
	return false
}

// queue counts the stakes of an account that wait for the one before them in a pool of the game.
func (s *Shard) queue(a *account, in proto.PoolID, change int) {
	game := in.Game().Main()
	accounts := s.queueing[game]
	if accounts == nil {
		accounts = map[proto.AccountID]int{}
		s.queueing[game] = accounts
	}
	if accounts[a.id] += change; accounts[a.id] == 0 {
		delete(accounts, a.id)
	}
	if len(accounts) == 0 {
		delete(s.queueing, game)
	}
}

// answered by another shard: it is done with what arrived by the moment.
func (s *Shard) wasHeard(l *letter) {
	if g := s.games[l.game]; g != nil && g.hearing != nil && g.hearing.number == l.seq {
		g.hearing.missing--
	}
}

// parks keeps a stake that is to be judged after what is being heard.
func (s *Shard) parks(l *letter) bool {
	if len(s.hearings) == 0 {
		return false
	}
	g := s.games[l.pool.Game().Main()]
	if g == nil || g.hearing == nil || l.arrived <= g.hearing.matters[0].at {
		return false
	}
	g.hearing.parked = append(g.hearing.parked, *l)
	return true
}

// adjudicate carries out what has been heard.
func (s *Shard) adjudicate() {
	s.hearings = slices.DeleteFunc(s.hearings, func(h *hearing) bool {
		for len(h.matters) > 0 && s.isHeard(h) {
			s.closeMatter(h)
		}
		return len(h.matters) == 0
	})
}

func (s *Shard) isHeard(h *hearing) bool {
	m := &h.matters[0]
	switch {
	case m.at == 0:
		return true
	case h.passed && h.from <= s.turns && h.missing == 0:
		return true
	case s.now < h.until:
		return false
	}
	s.market.overdue.Add(1)
	return true
}

// closeMatter does what the first matter says, and then judges what waited for that.
func (s *Shard) closeMatter(h *hearing) {
	m, parked := h.matters[0], h.parked
	h.matters, h.parked = slices.Delete(h.matters, 0, 1), nil
	if len(h.matters) > 0 {
		s.beginHearing(h)
	} else {
		h.game.hearing = nil
	}
	s.judge(&m)
	for i := range parked {
		s.decide(&parked[i])
	}
}

// judge carries a matter out. The game may have gone meanwhile.
func (s *Shard) judge(m *matter) {
	if m.lock != 0 {
		s.lockDue(m.lock)
		return
	}
	g := s.games[m.command.game()]
	if g == nil {
		s.refuse(&m.command, proto.RefusedGameUnknown)
		return
	}
	s.operate(&m.command, g, m.at)
}

// nextLook is when a hearing wants the shard to turn.
func (s *Shard) nextLook(next proto.Time) proto.Time {
	for _, h := range s.hearings {
		next = min(next, h.until)
		if !h.passed {
			next = min(next, s.now+hearingLook)
		} else if h.from > s.turns {
			next = s.now
		}
	}
	return next
}

// LoopsPassed lets shards look whether what they hear may take effect. Loops call it.
func (m *Market) LoopsPassed() {
	for _, s := range m.shards {
		s.inbox.rouse()
	}
}

// Overdue is how many matters took effect though it was not sure that all that had arrived before was judged.
func (m *Market) Overdue() uint64 { return m.overdue.Load() }
