package engine

import (
	"slices"
	"unsafe"

	"tote/server/proto"
)

// room is a game on one loop: who has joined, and what they are to be told.
//
// Messages of the game are numbered by the loop in the order in which it gets them, which is that of the game's
// seq. Each subscriber keeps the number that it gets next, and this is all there is to joining in the middle,
// to leaving, and to being slow:
//
//	number   …  40   41   42   43   44   45       next (of the room)
//	                 └─ queue: not distributed ─┘  │
//	joined with an image that includes 43 ─▶ next = 44: gets 44, 45, not 41…43 again
//	could not take 41…43                  ─▶ next = 41: is told "conflated", and the newest odds
//
// A broadcast is distributed in slices. Meanwhile newcomers are appended, where the broadcast under way does
// not get, and whoever leaves leaves a hole, so that nobody changes places; holes are filled when the broadcast
// is out.
type room struct {
	game       proto.Game
	attendance *attendance // over all loops
	endedAt    proto.Time  // 0: not ended
	shard      int         // that the game lives on
	seq        uint64      // of the last message of the market
	heard      proto.Time  // last broadcast or heartbeat
	stale      bool        // the last heartbeat said so
	spent      proto.Time  // writing to its subscribers, since the last weighing
	cost       float64     // see load

	subs  []subscriber
	holes []int // in subs

	next   uint64   // number of the next message to come
	queue  []queued // the first is being distributed if underway
	newest []newest // odds of each open pool, by number

	mustered bool   // this loop has put down its part of the attendance
	told     uint32 // version of the attendance that subscribers here were told
	untold   bool   // but for some

	underway bool
	began    proto.Time // of the first
	start    int        // the place that the first began with
	visited  int        // places that the first has been to
	limit    int        // places that it goes to: newcomers stand behind
	sent     uint64     // bytes, in the slice under way
}

// subscriber is a session in a room, with all that delivering to it needs where nothing stands in the way: two of
// them are a cache line, they lie in the order in which they are visited, and the session itself, which does not,
// is left alone.
type subscriber struct {
	session *session // nil: a hole
	next    uint64   // number of the message that it gets next
	fd      int32    // of the session
	slot    uint32   // of the session
	variant variant  // of the session
	lost    bool     // was spared more than odds: only an image helps
	asked   bool     // for that image; nothing is sent before it
	tls     bool     // of the session
	told    uint32   // version of the attendance
}

const _ = uint(32 - unsafe.Sizeof(subscriber{}))

type queued struct {
	*broadcast
	first uint64     // number of its first message
	at    proto.Time // when it came
}

// Where a room cannot keep up, all subscribers together are spared broadcasts that are only odds: while more than queueMax wait, and those
// that have waited for oddsWait when newer odds are there.
const (
	queueMax = 4
	oddsWait = proto.Second
)

// cast takes a broadcast from the market. It is distributed in slices, later.
func (l *loop) cast(b *broadcast) {
	r := l.rooms[b.game]
	if b.changed != nil {
		r = l.list(b.changed)
	}
	if r == nil {
		return // nobody has joined a game that was never announced
	}
	if b.happened != nil {
		r.game.Minute, r.game.Score = b.happened.Minute, b.happened.Score
	}
	first := r.next
	r.shard, r.seq = b.shard, b.seq
	r.next += uint64(len(b.parts))
	r.remember(b, first)
	l.enqueue(r, queued{broadcast: b, first: first})
}

// enqueue has a broadcast distributed, if there is anybody to get it.
func (l *loop) enqueue(r *room, q queued) {
	r.heard = l.now
	if len(r.subs) == 0 {
		return
	}
	q.at = l.now
	r.queue = append(r.queue, q)
	if len(r.queue) == 1 {
		l.active = append(l.active, r)
	}
}

// distribute writes one slice of broadcasts, the rooms taking turns, so that a game with a hundred thousand
// subscribers makes a game with ten wait for one slice and no more.
func (l *loop) distribute() {
	budget := sliceCalm
	if l.asked {
		budget, l.asked = sliceMax, false
	}
	for budget > 0 && len(l.active) > 0 {
		r := l.active[0]
		began := l.engine.config.Now()
		if l.sliced != 0 {
			l.between += max(0, began-l.sliced)
		}
		budget -= max(1, l.slice(r, budget))
		l.sliced = l.engine.config.Now()
		r.spent += max(0, l.sliced-began)
		copy(l.active, l.active[1:])
		l.active = l.active[:len(l.active)-1]
		if len(r.queue) > 0 {
			l.active = append(l.active, r)
		}
	}
	if len(l.active) == 0 {
		l.sliced = 0
	}
}

// slice goes on with the room's first broadcast, to at most budget subscribers, and returns to how many.
func (l *loop) slice(r *room, budget int) (n int) {
	if !r.underway {
		l.begin(r)
	}
	q := r.queue[0]
	for ; n < budget && r.visited < r.limit; n++ {
		at := r.start + r.visited
		if at >= r.limit {
			at -= r.limit
		}
		r.visited++
		if sub := &r.subs[at]; sub.session != nil {
			l.offer(r, sub, q)
		}
	}
	l.dispatch()
	l.resetSealed()
	r.attendance.sent.Add(r.sent)
	r.sent = 0
	if r.visited == r.limit {
		l.finish(r)
	}
	return n
}

// begin starts the next broadcast with another subscriber than the last one, so that nobody is always last.
func (l *loop) begin(r *room) {
	for r.overtaken(l.now) {
		r.pop() // everybody is behind now, and gets the newest odds with the next broadcast
	}
	r.underway, r.began, r.visited, r.limit = true, l.now, 0, len(r.subs)
	r.start = (r.start + sliceMax) % max(1, r.limit)
}

// spares reports whether a broadcast is nothing but odds.
func (b *broadcast) spares() bool {
	for i := range b.parts {
		if !b.parts[i].odds {
			return false
		}
	}
	return true
}

// overtaken reports whether the first broadcast is to be spared everybody.
func (r *room) overtaken(now proto.Time) bool {
	q := r.queue[0]
	switch {
	case len(r.queue) == 1 || !q.spares():
		return false
	case len(r.queue) > queueMax:
		return true
	case now-q.at < oddsWait:
		return false
	}
	return !slices.ContainsFunc(r.newest, func(n newest) bool { return n.cast == q.broadcast })
}

func (r *room) pop() {
	n := copy(r.queue, r.queue[1:])
	r.queue[n] = queued{}
	r.queue = r.queue[:n]
}

func (l *loop) finish(r *room) {
	r.pop()
	r.underway = false
	spread := uint64(max(0, l.engine.config.Now()-r.began))
	l.counts.Broadcasts++
	l.counts.SpreadSum += spread
	l.counts.Spreads.AddTime(int64(spread))
	l.counts.SpreadMax = max(l.counts.SpreadMax, spread)
	r.fill()
}

// offer writes a broadcast to a subscriber if it is due and its socket has taken all that came before.
func (l *loop) offer(r *room, sub *subscriber, q queued) {
	if sub.next != q.first || sub.lost || sub.asked || sub.tls || sub.variant.deflates() || l.busy.has(sub.slot) {
		l.consider(r, sub, q)
		return
	}
	sub.next += uint64(len(q.parts))
	l.counts.FramesOut += uint64(len(q.parts))
	l.counts.Delivered++
	p := q.forms[sub.variant]
	r.sent += uint64(len(p))
	l.post(sub.session, sub.fd, p, nil)
}

// consider is offer where something may stand in the way.
func (l *loop) consider(r *room, sub *subscriber, q queued) {
	s := sub.session
	if s.pending == nil && s.backlog() == 0 {
		l.busy.clear(sub.slot)
	}
	switch {
	case sub.next > q.first: // in its image
		return
	case sub.asked || s.backlog() > 0:
		l.spare(s, sub, q)
		return
	case sub.lost:
		l.reimage(s, r, sub)
		return
	case sub.next < q.first:
		l.catchUp(s, r, sub, q.first)
	}
	sub.next = q.first + uint64(len(q.parts))
	l.counts.FramesOut += uint64(len(q.parts))
	l.counts.Delivered++
	p := q.framesFor(s)
	r.sent += uint64(len(p))
	if s.pending != nil {
		s.pending.B = append(s.pending.B, p...)
		return
	}
	if sub.tls {
		p = l.sealShared(s, p)
	}
	l.post(s, sub.fd, p, nil)
}

// joined subscribes the session and shows it the game. From here on it gets what comes after the image:
// broadcasts that are still queued came before it from the same shard.
func (l *loop) joined(s *session, m *proto.Joined) {
	r := l.rooms[m.Game.Game]
	if r == nil {
		r = l.list(&m.Game)
	}
	i := s.in(r)
	switch {
	case i < 0 && m.ID == 0:
		return // asked for by reimage; left meanwhile
	case i < 0 && len(s.games) >= l.engine.limits.Joins:
		l.refuse(s, m.ID, proto.RefusedJoinsMany)
		return
	case i < 0:
		i = l.subscribe(s, r)
	case m.ID == 0:
		l.tellConflated(s, r, r.next-r.subs[s.games[i].at].next)
	}
	sub := &r.subs[s.games[i].at]
	sub.next, sub.lost, sub.asked = r.next, false, false
	image := *m // the market's must not change
	image.Game.Present = int(r.attendance.present.Load())
	l.tell(s, &image)
}

// left answers leave. A join that is not answered yet has not joined.
func (l *loop) left(s *session, r *proto.Request) proto.Refusal {
	i := s.in(l.rooms[r.Game])
	if i < 0 {
		return proto.RefusedGameNotJoined
	}
	l.unsubscribe(s, i)
	l.tell(s, &proto.Left{ID: r.ID, T: l.now, Game: r.Game})
	return proto.Accepted
}

// in returns which of the session's memberships is the room's, or -1.
func (s *session) in(r *room) int {
	return slices.IndexFunc(s.games, func(m membership) bool { return m.room == r })
}

// subscribe returns the new membership.
func (l *loop) subscribe(s *session, r *room) int {
	r.subs = append(r.subs, subscriber{session: s, fd: s.descriptor, slot: s.slot, variant: s.variant, tls: s.tls != nil})
	r.attendance.present.Add(1)
	s.games = append(s.games, membership{r, len(r.subs) - 1})
	r.untold = true
	l.muster(r)
	return len(s.games) - 1
}

func (l *loop) unsubscribe(s *session, i int) {
	m := s.games[i]
	last := len(s.games) - 1
	s.games[i] = s.games[last]
	s.games[last] = membership{}
	s.games = s.games[:last]

	m.room.subs[m.at] = subscriber{}
	m.room.attendance.present.Add(-1)
	m.room.holes = append(m.room.holes, m.at)
	if !m.room.underway {
		m.room.fill()
	}
	if !l.draining {
		l.muster(m.room)
	}
}

// fill puts the last subscribers into the holes.
func (r *room) fill() {
	for _, hole := range r.holes {
		for len(r.subs) > 0 && r.subs[len(r.subs)-1].session == nil {
			r.subs = r.subs[:len(r.subs)-1]
		}
		last := len(r.subs) - 1
		if hole >= last {
			continue // cut off already
		}
		sub := r.subs[last]
		r.subs[hole], r.subs[last] = sub, subscriber{}
		r.subs = r.subs[:last]
		sub.session.games[sub.session.in(r)].at = hole
	}
	r.holes = r.holes[:0]
}
