package market

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"time"

	"tote/server/proto"
)

// archive answers what is asked of the past: statements, ended predictions, ended games and pools, ladders. It reads the
// views, on a goroutine of its own, so that a long list keeps no shard from its turn.
//
//	journal ─▶ follower ─▶ replica ─▶ views ──────────┐
//	                          └─▶ ledgers, ladders ───┤
//	command, or a shard's letter ─▶ inbox ─▶ waiting ─┴▶ answer ─▶ Deliver, or back to the shard
//	                                (until the views reach what the asker may have been told)
//
// Owner of every field but inbox and replica: the goroutine in run.
type archive struct {
	market  *Market
	replica *Replica // its ledgers, ladders and Totals
	inbox   inbox

	now     proto.Time
	waiting []lookup
	batch   *Batch
	ranked  map[proto.GameID]*ranking // ladders in their order; 0: over all games

	commands []Command
	letters  []letter
}

// lookup is a question to the archive.
type lookup struct {
	command Command
	circles *[]proto.CircleName // that the asker is in, or is asking about
	missed  *missed             // else it is the command
	need    proto.Seq           // the views must reach this first
	until   proto.Time          // but no longer than until then
	came    proto.Time
	head    uint64 // the account's last entry when this was looked at first; 0: not yet
}

// missed asks for what an account was told while a session was away, and comes back as the answer. Whoever holds it owns it.
type missed struct {
	to      Session
	account proto.AccountID
	since   proto.Seq // all records up to here had been told
	need    proto.Seq // what was told later than up to here, the session hears itself
	pages   []*proto.Missed
}

const (
	archiveInboxMax = 4096               // a tenth of a second's work, and what it says of it fits into memory
	archiveWait     = proto.Second       // for the views to know what the asker knows; then the reply says how far they are
	archiveBatch    = 32                 // answers delivered together
	missedMax       = 1000               // entries sent unasked
	scanMax         = 4 * proto.PageMax  // entries looked at for one page
	pageBytes       = 1 << 16            // of a page of pools, whose texts may be long
	rankedMax       = 64                 // ladders kept in their order
	roomsFrom       = proto.GamesMax + 1 // ids of games below are no rooms
	rankedFor       = proto.Second       // at least; and ten times as long as it took to put it in order
)

func newArchive(m *Market, r *Replica) *archive {
	a := &archive{market: m, replica: r, inbox: newInbox(), batch: &Batch{Shard: len(m.shards)}, ranked: map[proto.GameID]*ranking{}}
	a.inbox.max = archiveInboxMax
	return a
}

// Viewed tells the market that the views reach seq. The follower calls it, on the goroutine that applies records to the
// replica, with seq never falling.
func (m *Market) Viewed(uint64) {
	for _, s := range m.archive.replica.takeSeals() {
		m.Submit(&Command{Kind: Seal, Pool: s.pool, Args: &s})
	}
	m.archive.inbox.rouse()
}

// run answers whenever there is something to answer, until the market stops.
func (a *archive) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := a.turn(a.market.config.Now())
		timer.Reset(time.Duration(max(next-a.market.config.Now(), 0)) * time.Microsecond)
		select {
		case <-a.inbox.wake:
		case <-timer.C:
		case <-a.market.stop:
			return
		}
	}
}

// turn answers what can be answered at now, and returns when to look again at the latest.
func (a *archive) turn(now proto.Time) (next proto.Time) {
	a.now = max(a.now, now)
	a.commands, a.letters, _ = a.inbox.swap(a.commands, a.letters)
	durable := proto.Seq(a.market.durable.Load()) // read after them: nobody was told more when he asked
	for i := range a.letters {
		if m := a.letters[i].missed; m != nil {
			a.waiting = append(a.waiting, lookup{missed: m, need: m.need, until: math.MaxInt64, came: a.now}) // until it is all there
			continue
		}
		e := a.letters[i].errand
		a.waiting = append(a.waiting, lookup{command: e.command, circles: e.circles, need: durable, until: a.now + archiveWait, came: a.now})
	}
	for i := range a.commands {
		a.waiting = append(a.waiting, lookup{command: a.commands[i], need: durable, until: a.now + archiveWait, came: a.now})
	}
	a.letters, a.commands = reuse(a.letters), reuse(a.commands)
	next = a.now + proto.Hour
	left := a.waiting[:0]
	for i := range a.waiting {
		q := &a.waiting[i]
		if reached := a.reached(); reached >= q.need || a.now >= q.until {
			if a.answer(q, reached) {
				continue
			}
			// Its account's last entry is told, and not in the views yet; or it was forgotten.
			q.need, q.until = reached+1, min(q.until, a.now+archiveWait)
		}
		next = min(next, q.until)
		left = append(left, *q)
	}
	clear(a.waiting[len(left):])
	a.waiting = left
	a.say(1)
	return next
}

func (a *archive) reached() proto.Seq { return proto.Seq(a.market.config.Views.Reached()) }

// say delivers what there is to say, if it is enough.
func (a *archive) say(enough int) {
	if len(a.batch.Outs) >= enough {
		a.batch.Now = a.now
		a.market.config.Deliver(a.batch)
		a.batch.Outs = reuse(a.batch.Outs)
	}
}

// answer answers a lookup; it returns false where that has to wait for the views.
func (a *archive) answer(q *lookup, reached proto.Seq) bool {
	c := &q.command
	var m proto.Message
	var refusal proto.Refusal
	switch {
	case q.missed != nil:
		return a.answerMissed(q)
	case c.Kind == ShowStatement, c.Kind == ShowHistory:
		list, next, found := a.entries(q, c.Account, pageOf(c), c.Kind == ShowHistory)
		switch {
		case found == notYet && a.now < q.until:
			return false
		case found == notYet && !a.forgotten(reached):
			refusal = proto.RefusedBusy
		case found == nowhere:
			refusal = proto.RefusedPage
		case found == broken:
			refusal = proto.RefusedPast
		case q.head == 0:
			refusal = proto.RefusedAccountUnknown
		case c.Kind == ShowHistory:
			m = &proto.History{ID: c.ID, T: a.now, Counts: reached, Entries: list, More: next != 0, Next: next}
		default:
			m = &proto.Statement{ID: c.ID, T: a.now, Counts: reached, Entries: list, More: next != 0, Next: next}
		}
	case len(a.waiting) > archiveInboxMax:
		refusal = proto.RefusedBusy // what shards pass on is not bounded by the inbox
	case !a.admits(c.Game, q.circles):
		refusal = proto.RefusedCircleForeign
	case c.Kind == ShowArchive:
		archived, err := a.archived(c, reached)
		if m = archived; err != nil {
			refusal = proto.RefusedPast
		}
	case c.Kind == ShowLeaders:
		m = a.leaders(c, reached)
	default:
		assert(false, "a question of the past is known")
	}
	if refusal != proto.Accepted {
		a.batch.Outs = append(a.batch.Outs, Out{Kind: OutRefused, To: c.From, Refused: proto.Refused{ID: c.ID, T: a.now, Reason: refusal}})
	} else {
		a.batch.Outs = append(a.batch.Outs, Out{Kind: OutMessage, To: c.From, Message: m})
	}
	a.report(q, refusal)
	a.say(archiveBatch)
	return true
}

// Answered is what is told of an answer about the past, before whoever asked has it.
type Answered struct {
	About       string // "statement", "history", "archive", "leaders"; "missed": what a session was away from
	To          Session
	Account     proto.AccountID // 0: nobody's, or an operator's question about a game
	Refusal     proto.Refusal
	Came, Ended proto.Time // when it reached the archive; it may have waited there for the views
}

var abouts = map[CommandKind]string{ShowStatement: "statement", ShowHistory: "history", ShowArchive: "archive", ShowLeaders: "leaders"}

// report tells of an answer, if somebody wants to know.
func (a *archive) report(q *lookup, refusal proto.Refusal) {
	if a.market.config.Answered == nil {
		return
	}
	told := Answered{About: abouts[q.command.Kind], To: q.command.From, Account: q.command.Account, Refusal: refusal, Came: q.came, Ended: a.market.config.Now()}
	if q.missed != nil {
		told.About, told.To, told.Account = "missed", q.missed.to, q.missed.account
	}
	a.market.config.Answered(told)
}

// admits reports whether somebody in these circles may see the game.
func (a *archive) admits(game proto.GameID, circles *[]proto.CircleName) (admitted bool) {
	if game == game.Main() {
		return true
	}
	_ = a.market.config.Views.Read(viewRooms, binary.BigEndian.AppendUint64(nil, uint64(game)), func(of []byte) []byte {
		admitted = in(circles, proto.CircleID(binary.BigEndian.Uint64(of)))
		return nil
	})
	return admitted
}

func (l *ledger) lastEntry() uint64 {
	if l == nil {
		return 0
	}
	return l.last.Load()
}

// pageOf is the page that a command asks for.
func pageOf(c *Command) proto.Page {
	page := *c.Args.(*proto.Page)
	if page.Limit <= 0 || page.Limit > proto.PageMax {
		page.Limit = proto.PageMax
	}
	return page
}

// forgotten reports whether the views have all that was told, so that what is not there will never be: the server was once
// started with its history forgotten.
func (a *archive) forgotten(reached proto.Seq) bool { return a.replica.Totals().Seq <= reached }

// found says whether a chain could be read.
type found uint8

const (
	whole   found = iota
	notYet        // its end is told, but the views do not have it yet
	nowhere       // there is no such entry of this account
	broken        // the views cannot be read
)

// entries reads a page of an account's chain. What is looked at for one page is bounded, also where only what ended predictions is
// wanted; next is the last entry looked at, if there are more.
func (a *archive) entries(q *lookup, account proto.AccountID, page proto.Page, ends bool) (list []proto.Entry, next uint64, f found) {
	list = []proto.Entry{}
	if q.head == 0 {
		q.head = a.replica.ledgers.at(account).lastEntry()
	}
	if q.head == 0 {
		return list, 0, whole
	}
	at := q.head
	f = notYet
	if page.Before != 0 {
		at, f = page.Before, nowhere
	}
	var scanned int
	var last uint64
	err := a.chain(at, func(e *entry) bool {
		if e.account != account {
			f = nowhere
			return false
		}
		f = whole
		switch {
		case e.number == page.Before:
			return true
		case e.number <= page.After:
			return false
		case len(list) == page.Limit || scanned == scanMax:
			next = last
			return false
		}
		scanned++
		last = e.number
		if !ends || e.kind.Ends() {
			list = append(list, e.show())
		}
		return true
	})
	if err != nil {
		f = broken
	}
	return list, next, f
}

// chain walks along an account's entries from at backwards.
func (a *archive) chain(at uint64, each func(*entry) bool) error {
	var e entry
	var failed error
	key := binary.BigEndian.AppendUint64(nil, at)
	err := a.market.config.Views.Read(viewEntries, key, func(value []byte) []byte {
		if failed = e.decode(at, value); failed != nil || !each(&e) || e.before == 0 {
			return nil
		}
		at = e.before
		binary.BigEndian.PutUint64(key, at)
		return key
	})
	return cmp.Or(err, failed)
}

// answerMissed collects what was told while a session was away, and sends it back to the account's shard, so that it is said
// after its welcome.
func (a *archive) answerMissed(q *lookup) bool {
	m := q.missed
	if q.head == 0 {
		q.head = a.replica.ledgers.at(m.account).lastEntry()
	}
	list := []proto.Entry{}
	more, found := false, false
	err := a.chain(q.head, func(e *entry) bool {
		found = true
		switch {
		case e.seq <= m.since:
			return false
		case len(list) == missedMax:
			more = true
			return false
		}
		list = append(list, e.show())
		return true
	})
	if err == nil && !found && !(a.now >= q.until && a.forgotten(a.reached())) {
		return false
	}
	slices.Reverse(list)
	for {
		n := min(len(list), proto.PageMax)
		page := &proto.Missed{T: a.now, Entries: slices.Clip(list[:n])}
		if len(m.pages) == 0 && more {
			page.More, page.Next = true, list[0].Entry
		}
		m.pages = append(m.pages, page)
		if list = list[n:]; len(list) == 0 {
			page.Last = true
			if err == nil && found { // what the views had is here, and the rest has been told since the session came
				page.Since = m.need
			}
			break
		}
	}
	a.report(q, proto.Accepted)
	a.market.shardOfAccount(m.account).inbox.post([]letter{{kind: letterMissed, account: m.account, missed: m}}, 0)
	return true
}

// archived lists games that have left memory, or one game and the pools of it that have ended.
func (a *archive) archived(c *Command, reached proto.Seq) (m *proto.Archive, err error) {
	page := pageOf(c)
	m = &proto.Archive{ID: c.ID, T: a.now, Counts: reached, Games: []proto.PastGame{}, Pools: []proto.PastPool{}}
	var before []byte
	if page.Before != 0 {
		before = binary.BigEndian.AppendUint64(nil, page.Before)
	}
	views, size := a.market.config.Views, 0
	full := func(value []byte, have int) bool {
		size += len(value)
		if m.More = have > 0 && (have == page.Limit || size > pageBytes); m.More {
			return true
		}
		return false
	}
	if c.Game == 0 {
		if before == nil || page.Before > uint64(roomsFrom) {
			before = binary.BigEndian.AppendUint64(nil, uint64(roomsFrom))
		}
		err = views.Range(viewGames, nil, before, func(_, value []byte) bool {
			if full(value, len(m.Games)) {
				return false
			}
			m.Games = read(m.Games, value)
			m.Next = uint64(m.Games[len(m.Games)-1].Game.Game)
			return true
		})
	} else {
		one := views.Read(viewGames, binary.BigEndian.AppendUint64(nil, uint64(c.Game)), func(value []byte) []byte {
			m.Games = read(m.Games, value)
			return nil
		})
		prefix := binary.BigEndian.AppendUint64(nil, uint64(proto.NewPoolID(c.Game, 0)))[:6] // all but the pool's number
		err = errors.Join(one, views.Range(viewPools, prefix, before, func(_, value []byte) bool {
			if full(value, len(m.Pools)) {
				return false
			}
			m.Pools = read(m.Pools, value)
			m.Next = uint64(m.Pools[len(m.Pools)-1].Pool.Pool)
			return true
		}))
	}
	if !m.More {
		m.Next = 0
	}
	return m, err
}

// read appends what a value has in JSON.
func read[T any](list []T, value []byte) []T {
	var v T
	err := json.Unmarshal(value, &v)
	assert(err == nil, "what was kept of the past can be read")
	return append(list, v)
}

// leaders shows a ladder: a game's or all, of everybody or of some accounts alone.
func (a *archive) leaders(c *Command, reached proto.Seq) *proto.Leaders {
	r := a.ranking(c.Game, reached)
	if members, ok := c.Args.([]proto.Friend); ok {
		r = r.among(members)
	}
	m := &proto.Leaders{ID: c.ID, T: a.now, Game: c.Game, Counts: r.counts, Players: len(r.rows), Leaders: r.leaders()}
	if own, ok := r.find(c.Account); ok {
		m.Own = r.leader(own)
		m.Own.Name = a.name(m.Own.Account)
	}
	for i := range m.Leaders {
		m.Leaders[i].Name = a.name(m.Leaders[i].Account)
	}
	if len(m.Leaders) == 0 && c.Game != 0 && c.Circle == 0 {
		a.leadersThen(m, c.Account)
	}
	return m
}

// leadersThen shows what was kept of the ladder of a game that has left memory.
func (a *archive) leadersThen(m *proto.Leaders, account proto.AccountID) {
	_ = a.market.config.Views.Read(viewLeaders, binary.BigEndian.AppendUint64(nil, uint64(m.Game)), func(value []byte) []byte {
		then := read[proto.Leaders](nil, value)[0]
		m.Players, m.Leaders = then.Players, then.Leaders
		return nil
	})
	for i := range m.Leaders {
		l := &m.Leaders[i]
		if l.Name = a.name(l.Account); l.Account == account {
			m.Own = *l
		}
	}
}

func (a *archive) name(of proto.AccountID) (name string) {
	_ = a.market.config.Views.Read(viewNames, binary.BigEndian.AppendUint64(nil, uint64(of)), func(value []byte) []byte {
		name = string(value)
		return nil
	})
	return name
}

// ranking puts a ladder in its order, unless it was done lately. All that the views have reached is in it, and perhaps more.
func (a *archive) ranking(game proto.GameID, reached proto.Seq) *ranking {
	r := a.ranked[game]
	if r != nil && (r.counts == reached || a.now < r.until) {
		return r
	}
	began := a.market.config.Now()
	r = &ranking{}
	if game == 0 {
		r = newRanking(a.replica.ledgers.all())
	} else if l := a.replica.ladder(game); l != nil {
		r = newRanking(l.all())
	}
	took := a.market.config.Now() - began
	r.counts, r.until = reached, a.now+max(rankedFor, 10*took)
	if len(a.ranked) >= rankedMax {
		clear(a.ranked)
	}
	a.ranked[game] = r
	return r
}
