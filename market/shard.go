package market

import (
	"math"
	"sync/atomic"

	"tote/server/proto"
)

// Shard owns a part of the accounts and of the games. A turn takes everything that has arrived, decides,
// appends, writes to the other shards, and speaks:
//
//	inbox ─▶ commands, letters ─▶ decide ─▶ journal.Append
//	                                 ├─▶ letters to other shards, after the records they tell of
//	                                 └─▶ batch ─▶ unsaid ─▶ Deliver, once durable
//
// Owner of every field but inbox, delivered, told and shown: the goroutine in run.
type Shard struct {
	book
	market *Market
	config Config
	index  int
	inbox  inbox

	now    proto.Time // of this turn; never falls
	seen   proto.Seq  // last record appended here or seen by a writer of letters to here
	spoke  proto.Time // the last turn that said something, if only an empty batch
	agenda agenda

	turns    uint64                                   // so far
	hearings []*hearing                               // of games here
	heard    proto.Seq                                // numbers them
	fences   []fence                                  // of games elsewhere
	queueing map[proto.GameID]map[proto.AccountID]int // stakes that wait for the account's stake before them in a pool of the game

	payings payingsLive // what ended stakes bring
	batch   *Batch      // what this turn says
	unsaid  []pending   // what earlier turns said and is not durable yet, in order
	spare   []*Batch    // emptied, to be filled again
	letters [][]letter  // written this turn, by shard
	records []byte      // of the command in hand, for Append
	count   int         // of them

	idle     []*live   // of accounts that needed one for a moment
	commands []Command // spare slices for the inbox
	incoming []letter

	meters Meters
	shown  metersShown // a copy

	delivered atomic.Uint64 // batches; anybody may read it
	told      atomic.Uint64 // what this shard has to tell of records up to here, it has told or posted; read by all
	through   proto.Seq     // all shards have told all accounts here of records up to here; never 0, which clients are not told: the first one comes before all accounts or opens one

	questions map[uint64]*question // asked of other shards and not answered by all
	asked     uint64
}

// pending is a batch that waits for record need to be durable.
type pending struct {
	need  proto.Seq
	batch *Batch
}

func newShard(c Config, m *Market, index int, seen proto.Seq) *Shard {
	s := &Shard{
		book: newBook(), market: m, config: c, index: index, inbox: newInbox(), seen: seen,
		batch: &Batch{}, letters: make([][]letter, c.Shards), questions: map[uint64]*question{},
		payings: payingsLive{to: make([]bool, c.Shards)}, queueing: map[proto.GameID]map[proto.AccountID]int{}, through: max(1, seen),
	}
	s.told.Store(uint64(seen))
	return s
}

// turn does what there is to do at now, and returns when to look again at the latest.
func (s *Shard) turn(now proto.Time) (next proto.Time) {
	s.now = max(s.now, now)
	s.turns++
	for _, h := range s.hearings {
		s.lookAtLoops(h, s.turns)
	}
	others := s.othersTold() // before the swap: the letters that tell of it are in the inbox
	var seen proto.Seq
	s.commands, s.incoming, seen = s.inbox.swap(s.commands, s.incoming)
	s.seen = max(s.seen, seen)
	if len(s.commands) > 0 {
		s.meters.Commands.Add(uint64(len(s.commands)))
	}
	for i := range s.incoming {
		s.open(&s.incoming[i])
	}
	for i := range s.commands {
		s.command(&s.commands[i])
	}
	s.incoming, s.commands = reuse(s.incoming), reuse(s.commands)
	s.keepAppointments()
	s.adjudicate()
	s.answerFences()
	s.payOut()
	s.post()
	s.through = max(1, min(others, s.tellsNoMore()))
	s.speak()
	s.show()
	if next = s.spoke + beat; len(s.agenda) > 0 {
		next = min(next, s.agenda[0].at)
	}
	if s.payings.ready() {
		next = s.now
	}
	return s.nextLook(next)
}

// othersTold is the record up to which all other shards have posted all letters that tell of records.
func (s *Shard) othersTold() proto.Seq {
	told := uint64(math.MaxInt64)
	for _, other := range s.market.shards {
		if other != s {
			told = min(told, other.told.Load())
		}
	}
	return proto.Seq(told)
}

// tellsNoMore says up to which record nothing is left to tell by this shard. What it appends later has a higher number than all
// that is durable; while it pays in slices, there is something to tell of an old record.
func (s *Shard) tellsNoMore() proto.Seq {
	if len(s.payings.queue) == 0 {
		s.told.Store(max(uint64(s.seen), s.market.durable.Load()))
	}
	return proto.Seq(s.told.Load())
}

func (s *Shard) command(c *Command) {
	switch {
	case c.Kind < accountCommands:
		s.accountCommand(c)
	case c.Kind < gameCommands:
		s.gameCommand(c)
	default:
		s.letIn(c)
	}
}

func (s *Shard) open(l *letter) {
	switch l.kind {
	case letterDecide:
		s.decide(l)
	case letterQuote:
		s.quote(l)
	case letterVerdict:
		s.verdict(l)
	case letterResult:
		s.result(l)
	case letterSlice:
		s.write(s.market.shards[l.from], &letter{kind: letterPaid})
	case letterPaid:
		s.payings.owed--
	case letterHear:
		s.fences = append(s.fences, fence{from: l.from, game: l.game, at: l.arrived, number: l.seq})
	case letterHeard:
		s.wasHeard(l)
	case letterErrand:
		s.openErrand(l.errand)
	case letterAdmit:
		s.admit(l)
	case letterMember:
		s.membership(l)
	case letterEvict:
		s.evict(l.errand)
	case letterQuestion:
		s.questionStands(l)
	case letterAsk:
		s.answer(l.asking)
	case letterAnswered:
		s.answered(l.asking)
	case letterMissed:
		s.tellMissed(l.missed)
	}
}

func (s *Shard) keepAppointments() {
	for {
		a, ok := s.agenda.due(s.now)
		if !ok {
			return
		}
		switch a.kind {
		case publishGame:
			s.publish(a.game, a.at)
		case lockPool:
			s.lockInTime(a.pool)
		case voidPool:
			s.voidUnsettled(a.pool)
		case settleClaim:
			s.settleClaim(a.pool)
		case archiveGame:
			s.archive(a.game)
		}
	}
}

// record encodes a record of the command in hand.
func (s *Shard) record(r record) {
	s.records = r.append(s.records)
	s.count++
}

// commit appends the records of the command in hand, as one, and returns the first one's number.
func (s *Shard) commit() proto.Seq {
	first := proto.Seq(s.config.Journal.Append(s.records, s.count))
	s.seen = max(s.seen, first+proto.Seq(s.count)-1)
	s.records, s.count = s.records[:0], 0
	return first
}

// write puts a letter into the outbox to a shard; a letter to oneself is opened at once.
func (s *Shard) write(to *Shard, l *letter) {
	if to == s {
		s.open(l)
		return
	}
	s.letters[to.index] = append(s.letters[to.index], *l)
}

// post sends the letters of this turn.
func (s *Shard) post() {
	for i, letters := range s.letters {
		if len(letters) == 0 {
			continue
		}
		s.market.shards[i].inbox.post(letters, s.seen)
		s.letters[i] = reuse(letters)
	}
}

// speak delivers what has become durable, this turn's batch included if nothing that it may tell of is
// still on its way.
func (s *Shard) speak() {
	if len(s.batch.Outs) > 0 || s.now >= s.spoke+beat {
		s.batch.Shard, s.batch.Now, s.spoke = s.index, s.now, s.now
		s.unsaid = append(s.unsaid, pending{need: s.seen, batch: s.batch})
		s.batch = s.blank()
	}
	durable := proto.Seq(s.market.durable.Load())
	said := 0
	for _, p := range s.unsaid {
		if p.need > durable {
			break
		}
		if len(p.batch.Outs) > 0 {
			s.meters.Released.AddTime(int64(s.now - p.batch.Now))
		}
		s.config.Deliver(p.batch)
		s.delivered.Add(1)
		p.batch.Outs = reuse(p.batch.Outs)
		s.spare = append(s.spare, p.batch)
		said++
	}
	if said > 0 {
		n := copy(s.unsaid, s.unsaid[said:])
		clear(s.unsaid[n:])
		s.unsaid = s.unsaid[:n]
	}
}

// keptMax is the length up to which an emptied slice is kept to be filled again. One that a settlement has made
// larger is given to the collector: the next may be long in coming.
const keptMax = 1 << 12

// reuse empties a slice, and drops what its values point at.
func reuse[T any](s []T) []T {
	if cap(s) > keptMax {
		return nil
	}
	clear(s)
	return s[:0]
}

// blank takes an empty batch.
func (s *Shard) blank() *Batch {
	if n := len(s.spare); n > 0 {
		b := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return b
	}
	return &Batch{}
}

// reply answers the session that asked.
func (s *Shard) reply(c *Command, m proto.Message) {
	s.batch.Outs = append(s.batch.Outs, Out{Kind: OutMessage, To: c.From, Message: m})
}

// refuse answers the session that asked.
func (s *Shard) refuse(c *Command, why proto.Refusal) {
	s.batch.Outs = append(s.batch.Outs, Out{Kind: OutRefused, To: c.From, Refused: proto.Refused{ID: c.ID, T: s.now, Reason: why}})
}

// answerDesk answers an operator.
func (s *Shard) answerDesk(c *Command, a *proto.Answer) {
	s.batch.Outs = append(s.batch.Outs, Out{Kind: OutAnswer, To: c.From, Answer: a})
}

// broadcast speaks to everybody in the game. m has just been numbered.
func (s *Shard) broadcast(g *game, m proto.Message) {
	s.batch.Outs = append(s.batch.Outs, Out{Kind: OutMessage, Game: g.id, Seq: g.board.seq, Message: m})
}
