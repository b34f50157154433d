package bench

import (
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tote/server/proto"
)

// meter is something measured as a distribution of times.
type meter uint8

const (
	meterHandshake  meter = iota // from the planned arrival to the end of the WebSocket handshake
	meterReceipt                 // from the planned stake to its receipt or refusal
	meterOdds                    // from the publish time of odds to their reading
	meterLifecycle               // … of other broadcasts
	meterSeen                    // from the planned stake to the odds that count it
	meterReply                   // from the planned time of another request to its reply
	meterReturn                  // from when a player who was away wants to be back until it is
	meterAway                    // from when the server tells a player to come back until it is in a game again
	meterSpread                  // from the first to the last reader of one broadcast
	meterSendLag                 // from the planned stake to its sending: the generator's own delay
	meterReceiveLag              // from the kernel's receipt to the reading: the generator's own delay
	meters
)

// Range and precision of the histograms.
const (
	timeMax = 2 * time.Minute // longer is recorded as this
	digits  = 3
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, timeMax.Microseconds(), digits)
}

// tally is what a worker has counted since its last one.
//
// Owner: the worker, until it hands the tally over; then Run, until it gives it back empty.
type tally struct {
	worker      int
	frames      uint64 // messages of any type
	bytes       uint64
	conflated   uint64
	pings       uint64
	heartbeats  uint64
	stale       uint64 // of the heartbeats
	unknown     uint64
	asides      uint64 // neither asked for nor numbered
	stakes      stakeCounts
	deeds       deedCounts
	connections connectionCounts
	lives       lives
	checks      [checks]verdict
	faults      map[string]*Fault
	times       [meters]*hdrhistogram.Histogram
	classes     []classTimes            // none where there is one class of venues at most
	second      *hdrhistogram.Histogram // of receipts and replies, since the last moment; only in the results
	deliveries  map[distribution]*delivery
	busy, turn  time.Duration // at work in all, and the longest turn of the loop
	gauge       gauge
	tail        *tail // only in the last one

	newest   distribution // the last that was delivered: usually the next delivery is of the same one
	delivery *delivery
}

// stakeCounts follows the plan to its receipts.
type stakeCounts struct {
	Planned  uint64 `json:"planned"`
	Unplaced uint64 `json:"unplaced"` // no pool was open, or the money was gone
	Missed   uint64 `json:"missed"`   // until the end all players waited for receipts
	Sent     uint64 `json:"sent"`
	Receipts uint64 `json:"receipts"`
	Late     uint64 `json:"late"` // refused because the pool had just been locked
	Payouts  uint64 `json:"payouts"`
	Refunds  uint64 `json:"refunds"`
}

func (s *stakeCounts) add(o stakeCounts) {
	s.Planned += o.Planned
	s.Unplaced += o.Unplaced
	s.Missed += o.Missed
	s.Sent += o.Sent
	s.Receipts += o.Receipts
	s.Late += o.Late
	s.Payouts += o.Payouts
	s.Refunds += o.Refunds
}

// deedCounts follows requests other than stakes.
type deedCounts struct {
	Planned  uint64 `json:"planned"`
	Answered uint64 `json:"answered"`
}

// classMeters are what is measured by class.
var classMeters = [...]meter{meterReceipt, meterSeen, meterOdds}

type classTimes [len(classMeters)]*hdrhistogram.Histogram

func newClassTimes() (c classTimes) {
	for i := range c {
		c[i] = newHistogram()
	}
	return c
}

type connectionCounts struct {
	Attempts uint64 `json:"attempts"`
	Made     uint64 `json:"made"`
	Lost     uint64 `json:"lost"`
	Returned uint64 `json:"returned"`
	Recalled uint64 `json:"recalled"` // told by the server when to come back
	Dropped  uint64 `json:"dropped"`  // by the players themselves, as the plan wanted
	Shed     uint64 `json:"shed"`     // slow readers that the server has closed
}

func (c *connectionCounts) add(o connectionCounts) {
	c.Attempts += o.Attempts
	c.Made += o.Made
	c.Lost += o.Lost
	c.Returned += o.Returned
	c.Recalled += o.Recalled
	c.Dropped += o.Dropped
	c.Shed += o.Shed
}

// gauge is how a worker's players stand at one moment.
type gauge struct {
	at       time.Duration // of one worker's, since the run's start
	open     int           // connections
	joined   int           // in a game
	came     int           // were in a game at least once
	waiting  int           // for a reply
	audited  int
	away     int           // without a connection, and coming back
	ready    int           // for the server's end
	gone     int           // for good, without having been in a game
	interval time.Duration // the longest batching interval of their games
}

func (g *gauge) add(o gauge) {
	g.open += o.open
	g.joined += o.joined
	g.came += o.came
	g.waiting += o.waiting
	g.audited += o.audited
	g.away += o.away
	g.ready += o.ready
	g.gone += o.gone
	g.interval = max(g.interval, o.interval)
}

// gauge counts the players anew each time: nothing can drift.
func (w *worker) gauge() (g gauge) {
	g.at = w.now
	for i := range w.players {
		p := &w.players[i]
		g.gone += int(count(p.stage == stageGone && !p.came))
		g.came += int(count(p.came))
		g.away += int(count(p.stage == stageAway && p.timer != unset))
		if p.fd == unset {
			continue
		}
		g.open++
		g.joined += int(count(p.stage >= stagePlaying && (p.game != nil || w.plan.Aloof)))
		g.waiting += int(count(p.asked != proto.RequestNone))
		g.audited += int(count(p.audited))
	}
	if w.tail != nil {
		g.ready = len(w.players)
	}
	for _, game := range w.games {
		g.interval = max(g.interval, time.Duration(game.interval)*time.Microsecond)
	}
	return g
}

// Fault is a kind of error, how often it came, and one of them.
type Fault struct {
	Kind    string `json:"kind"`
	Count   uint64 `json:"count"`
	Example string `json:"example,omitempty"`
}

// faultsMax bounds the kinds; a server that invents new ones all the time ends up under "others".
const faultsMax = 64

func (t *tally) fault(kind, example string) { t.faulty(kind, example, 1) }

func (t *tally) faulty(kind, example string, times uint64) {
	if t.faults[kind] == nil && len(t.faults) >= faultsMax {
		kind = "others"
	}
	if t.faults[kind] == nil {
		t.faults[kind] = &Fault{Kind: kind, Example: example}
	}
	t.faults[kind].Count += times
}

// distribution names a broadcast.
type distribution struct {
	game course
	seq  uint64
}

// course is a game for as long as one process serves it: the next one numbers its broadcasts anew.
type course struct {
	epoch uint64
	game  proto.GameID
}

// delivery is what became of one.
type delivery struct {
	first, last time.Duration // of its readers
	readers     int
	sum         uint32 // of its text
}

func newTally(worker, classes int) *tally {
	t := &tally{worker: worker, faults: map[string]*Fault{}, deliveries: map[distribution]*delivery{}, lives: lives{}}
	for m := range t.times {
		if meter(m) != meterSpread {
			t.times[m] = newHistogram()
		}
	}
	for range classes {
		t.classes = append(t.classes, newClassTimes())
	}
	return t
}

func (t *tally) record(m meter, d time.Duration) { recordIn(t.times[m], d) }

// measure records what is also measured by class.
func (t *tally) measure(class uint8, m meter, d time.Duration) {
	recordIn(t.times[m], d)
	if int(class) < len(t.classes) {
		recordIn(t.classes[class][slices.Index(classMeters[:], m)], d)
	}
}

// recordIn counts a time. Less than a microsecond counts as one: clocks are no better.
func recordIn(h *hdrhistogram.Histogram, d time.Duration) {
	err := h.RecordValue(min(max(d, time.Microsecond), timeMax).Microseconds())
	assert(err == nil, "a time within the range is recorded")
}

func (t *tally) deliver(d distribution, now time.Duration, sum uint32) {
	if t.delivery == nil || d != t.newest {
		t.newest, t.delivery = d, t.deliveries[d]
		if t.delivery == nil {
			t.delivery = &delivery{first: now, sum: sum}
			t.deliveries[d] = t.delivery
		}
	}
	t.delivery.last = now
	t.delivery.readers++
	t.checks[checkSame].judge(sum == t.delivery.sum, func() string { return d.differs() })
}

// clear empties the tally for its next use.
func (t *tally) clear() {
	clear(t.faults)
	clear(t.deliveries)
	clear(t.lives)
	for _, h := range t.times {
		if h != nil && h.TotalCount() > 0 {
			h.Reset()
		}
	}
	for i := range t.classes {
		for _, h := range t.classes[i] {
			if h.TotalCount() > 0 {
				h.Reset()
			}
		}
	}
	*t = tally{worker: t.worker, faults: t.faults, times: t.times, classes: t.classes, deliveries: t.deliveries, lives: t.lives}
}

// add takes in what another tally has counted, but for its gauge and its tail, and returns the kinds of fault that are new.
func (t *tally) add(o *tally) (news []string) {
	t.frames += o.frames
	t.bytes += o.bytes
	t.conflated += o.conflated
	t.pings += o.pings
	t.heartbeats += o.heartbeats
	t.stale += o.stale
	t.unknown += o.unknown
	t.asides += o.asides
	t.busy += o.busy
	t.turn = max(t.turn, o.turn)
	t.stakes.add(o.stakes)
	t.deeds.Planned += o.deeds.Planned
	t.deeds.Answered += o.deeds.Answered
	t.connections.add(o.connections)
	for epoch, one := range o.lives {
		t.lives.add(epoch, one)
	}
	for c := range t.checks {
		t.checks[c].add(o.checks[c])
	}
	for kind, f := range o.faults {
		if t.faults[kind] == nil {
			news = append(news, kind)
		}
		t.faulty(kind, f.Example, f.Count)
	}
	for m, h := range o.times {
		if h != nil && h.TotalCount() > 0 {
			dropped := t.times[m].Merge(h)
			assert(dropped == 0, "histograms of one range merge")
		}
	}
	for i := range o.classes {
		for j, h := range o.classes[i] {
			if h.TotalCount() > 0 {
				t.classes[i][j].Merge(h)
			}
		}
	}
	for d, part := range o.deliveries {
		whole := t.deliveries[d]
		if whole == nil {
			t.deliveries[d] = part // the other tally forgets it
			continue
		}
		whole.first, whole.last = min(whole.first, part.first), max(whole.last, part.last)
		whole.readers += part.readers
		if whole.sum != part.sum {
			t.checks[checkSame].fail(d.differs())
		}
	}
	return news
}

// results is the sum of all tallies; its deliveries are of broadcasts that may still find readers.
//
// Owner: Run.
type results struct {
	tally
	past       map[course]uint64 // the newest broadcast of each game that is no longer among the deliveries
	broadcasts uint64
}

// spreadOpen is how long the last reader of a broadcast is waited for. It bounds the table of deliveries,
// and is longer than patience.tail, so that finish knows the age of those that it asks about.
const spreadOpen = 3 * time.Minute

func newResults(classes int) *results {
	r := &results{tally: *newTally(-1, classes), past: map[course]uint64{}}
	r.times[meterSpread], r.second = newHistogram(), newHistogram()
	return r
}

// add takes in a tally and returns the kinds of fault that are new.
func (r *results) add(t *tally, now time.Duration) (news []string) {
	news = r.tally.add(t)
	for _, m := range [...]meter{meterReceipt, meterReply} {
		if t.times[m].TotalCount() > 0 {
			r.second.Merge(t.times[m])
		}
	}
	for d, whole := range r.deliveries {
		if whole.first < now-spreadOpen {
			r.close(d, whole)
		}
	}
	return news
}

func (d distribution) differs() string {
	return fmt.Sprintf("broadcast %d of game %d came with different texts", d.seq, d.game.game)
}

// close measures the spread of a broadcast that nobody will read any more.
func (r *results) close(d distribution, whole *delivery) {
	delete(r.deliveries, d)
	r.past[d.game] = max(r.past[d.game], d.seq)
	r.broadcasts++
	if whole.readers > 1 {
		r.record(meterSpread, whole.last-whole.first)
	}
}

// finish judges what is known only at the end: who lacks a broadcast that others had before the given time, and
// whether odds and receipts agree. Where receipts are missing, because those who held them died, the odds must count those that are left.
func (r *results) finish(tails []*tail, before time.Duration, audited, alone, missing bool) {
	for d, whole := range r.deliveries {
		if whole.first <= before {
			r.past[d.game] = max(r.past[d.game], d.seq)
		}
	}
	for _, t := range tails {
		for game, seqs := range t.seqs {
			for seq, players := range seqs {
				r.checks[checkTail].passed += uint64(players)
				if seq < r.past[game] {
					r.checks[checkTail].passed -= uint64(players)
					r.checks[checkTail].fail(fmt.Sprintf("%d players stand at broadcast %d of game %d, others had %d", players, seq, game.game, r.past[game]))
				}
			}
		}
	}
	for d, whole := range r.deliveries {
		r.close(d, whole)
	}
	if audited && alone {
		r.balanceOdds(tails, missing)
	}
}

// balanceOdds compares each pool's last odds with the receipts that all players hold for it.
func (r *results) balanceOdds(tails []*tail, missing bool) {
	pools := map[proto.PoolID]standing{}
	for _, t := range tails {
		for id, part := range t.pools {
			whole := pools[id]
			if part.odds != nil && part.seq >= whole.seq {
				whole.seq, whole.odds, whole.over = part.seq, part.odds, part.over
			}
			for i, held := range part.held {
				whole.held[i].Staked += held.Staked
				whole.held[i].Backers += held.Backers
			}
			pools[id] = whole
		}
	}
	for id, p := range pools {
		if p.over {
			continue // its receipts were given back
		}
		for i, odd := range p.odds {
			held := p.held[i]
			kept := odd.Staked == held.Staked && odd.Backers == held.Backers || missing && odd.Staked >= held.Staked && odd.Backers >= held.Backers
			r.checks[checkOdds].judge(kept, func() string {
				return fmt.Sprintf("pool %d, outcome %d: the odds say %d units by %d, the receipts %d by %d",
					id, i, odd.Staked, odd.Backers, held.Staked, held.Backers)
			})
		}
	}
}
