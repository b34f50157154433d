package bench

import (
	"fmt"
	"slices"
	"time"

	"tote/server/proto"
)

// check is one promise of the protocol, judged again and again during a run.
type check uint8

const (
	checkReply check = iota
	checkSeq
	checkTail
	checkSame
	checkPrivate
	checkEcho
	checkBalance
	checkPayout
	checkAccount
	checkTickets
	checkOdds
	checks
)

var promises = [checks]string{
	checkReply:   "every request gets exactly one reply",
	checkSeq:     "no broadcast is missing in a row",
	checkTail:    "no player misses the last broadcasts",
	checkSame:    "a broadcast is the same for all players",
	checkPrivate: "no private message is missing in a row",
	checkEcho:    "a receipt names the stake it is for",
	checkBalance: "each balance is credits − stakes + payouts",
	checkPayout:  "a payout or refund belongs to a receipt",
	checkAccount: "accounts agree at the end",
	checkTickets: "all receipts are there at the end, none twice",
	checkOdds:    "the odds count every receipt once",
}

// verdict counts how often a promise was kept and broken.
type verdict struct {
	passed, failed uint64
	example        string // of the first failure
}

func (v *verdict) judge(kept bool, example func() string) {
	if kept {
		v.passed++
	} else {
		v.fail(example())
	}
}

func (v *verdict) fail(example string) {
	if v.failed == 0 {
		v.example = example
	}
	v.failed++
}

func (v *verdict) add(other verdict) {
	if v.failed == 0 {
		v.example = other.example
	}
	v.passed += other.passed
	v.failed += other.failed
}

// beginAudit lets the player ask for its account at the given time. A request still under way by now is lost.
func (w *worker) beginAudit(p *player, at time.Duration) {
	if p.fd == unset || p.stage <= stageUpgrading {
		return
	}
	if p.asked != proto.RequestNone {
		w.tally.checks[checkReply].fail(p.says(fmt.Sprintf("no reply to request %d, of type %s", p.id, p.asked)))
		p.asked = proto.RequestNone
	}
	w.rest(p)
	if p.stage == stageGreeting {
		p.audited = true // it has no account
		return
	}
	p.stage, p.due = stageAuditing, at
	w.timers.set(p)
}

// auditAccount compares the account as the server has it with the player's own books.
func (w *worker) auditAccount(p *player, text []byte) {
	m, ok := decode[proto.Account](w, p, text)
	if !ok {
		return
	}
	staked := proto.Amount(0)
	for _, t := range p.tickets {
		staked += t.amount
	}
	kept := m.Account == p.account && m.N == p.n && m.Balance == p.balance && m.Held == 0 && m.Staked == staked
	w.tally.checks[checkAccount].judge(kept, func() string {
		return p.says(fmt.Sprintf("expected n %d, balance %d, held 0, staked %d: %s", p.n, p.balance, staked, quoted(text)))
	})
	w.ask(p, proto.Request{Type: proto.RequestPredictions}, w.now)
}

// auditPredictions compares the predictions as the server has them with the receipts held. A player that is
// not at the end but has come back, or had an account before the run, adopts what it finds and goes on.
func (w *worker) auditPredictions(p *player, text []byte) {
	m, ok := decode[proto.Predictions](w, p, text)
	if !ok {
		return
	}
	auditing := p.stage == stageAuditing
	if p.booked {
		fault := p.compare(m.Predictions, auditing)
		w.tally.checks[checkTickets].judge(fault == "", func() string { return p.says(fault) })
	}
	if auditing {
		p.audited = true
		if p.departing {
			w.part(p)
		}
		return
	}
	p.adopt(m.Predictions)
	p.booked = true
	w.enterGame(p)
}

// compare finds a receipt that the server has lost, changed or doubled. Of those held, all are open once the
// payouts have come, which settled says; a stake that was under way when a connection broke may have been accepted.
func (p *player) compare(listed []proto.Prediction, settled bool) (fault string) {
	held := make(map[proto.Seq]ticket, len(p.tickets))
	for _, t := range p.tickets {
		held[t.prediction] = t
	}
	seen := make(map[proto.Seq]bool, len(listed))
	for _, l := range listed {
		if seen[l.Prediction] {
			return fmt.Sprintf("prediction %d is listed twice", l.Prediction)
		}
		seen[l.Prediction] = true
		t, isHeld := held[l.Prediction]
		delete(held, l.Prediction)
		switch {
		case isHeld && t != ticketOf(l):
			return fmt.Sprintf("the receipt of prediction %d says %+v, the list says %+v", l.Prediction, t, l)
		case isHeld && settled && l.State != proto.PredictionOpen:
			return fmt.Sprintf("prediction %d is %s, and no payout, refund or settlement told so", l.Prediction, l.State)
		case !isHeld && l.State == proto.PredictionOpen && l.ID != p.ticket.id:
			return fmt.Sprintf("prediction %d is open, and there was no receipt for it", l.Prediction)
		}
	}
	for _, t := range p.tickets {
		if _, missing := held[t.prediction]; missing {
			return fmt.Sprintf("the receipt of prediction %d is held, the list lacks it", t.prediction)
		}
	}
	return ""
}

func ticketOf(l proto.Prediction) ticket {
	return ticket{prediction: l.Prediction, id: l.ID, pool: l.Pool, outcome: l.Outcome, amount: l.Amount}
}

// adopt takes the open predictions over.
func (p *player) adopt(listed []proto.Prediction) {
	p.tickets = p.tickets[:0]
	for _, l := range listed {
		if l.State == proto.PredictionOpen {
			p.tickets = append(p.tickets, ticketOf(l))
		}
	}
}

// tail is what a worker knows only at the end.
type tail struct {
	seqs  map[course]map[uint64]int // how many players stand at which broadcast
	pools map[proto.PoolID]standing
}

// standing is a pool as its last odds have it and as the receipts do.
type standing struct {
	seq  uint64 // the broadcast that the odds are as new as
	over bool   // settled or voided: the receipts are gone
	odds []proto.Odd
	held [proto.OutcomesMax]proto.Odd // staked and backers, by these players' receipts
}

// sumUp makes the tail, while the players are still in their games.
func (w *worker) sumUp() *tail {
	t := &tail{seqs: map[course]map[uint64]int{}, pools: map[proto.PoolID]standing{}}
	for _, g := range w.games {
		t.seqs[g.course] = map[uint64]int{}
		for _, p := range g.pools {
			over := p.state == proto.PoolSettled || p.state == proto.PoolVoided
			t.pools[p.id] = standing{seq: g.seq, over: over, odds: p.odds}
		}
	}
	for i := range w.players {
		p := &w.players[i]
		if p.game != nil && p.stage >= stagePlaying && p.manner == mannerUsual {
			if t.seqs[p.game.course] == nil { // of a process that has made way for another
				t.seqs[p.game.course] = map[uint64]int{}
			}
			t.seqs[p.game.course][p.seq]++
		}
		for j, held := range p.tickets {
			s := t.pools[held.pool]
			s.held[held.outcome].Staked += held.amount
			if !p.backs(held, p.tickets[:j]) {
				s.held[held.outcome].Backers++
			}
			t.pools[held.pool] = s
		}
	}
	return t
}

func (p *player) backs(one ticket, among []ticket) bool {
	return slices.ContainsFunc(among, func(t ticket) bool { return t.pool == one.pool && t.outcome == one.outcome })
}
