package engine

import (
	"slices"

	"tote/server/market"
	"tote/server/proto"
)

// newest is the last odds of a pool, for those who were spared them.
type newest struct {
	number uint64
	pool   proto.PoolID
	cast   *broadcast
	part   int // of cast
}

// remember keeps the newest odds of each open pool.
func (r *room) remember(b *broadcast, first uint64) {
	for i, p := range b.parts {
		if p.pool != 0 {
			r.newest = slices.DeleteFunc(r.newest, func(n newest) bool { return n.pool == p.pool })
		}
		if p.odds {
			r.newest = append(r.newest, newest{first + uint64(i), p.pool, b, i})
		}
	}
}

// spare lets a slow consumer go without a broadcast: latest wins.
func (l *loop) spare(s *session, sub *subscriber, q queued) {
	sub.lost = sub.lost || !sub.asked && !q.spares()
	l.watch(s)
}

// watch has catchUpAll look after a session.
func (l *loop) watch(s *session) {
	if !s.behind {
		s.behind = true
		l.behind = append(l.behind, s)
	}
}

// catchUp tells a subscriber that was spared only odds how many it missed before number upto, and the newest of them.
func (l *loop) catchUp(s *session, r *room, sub *subscriber, upto uint64) {
	for i := range r.newest {
		n := &r.newest[i]
		if n.number < sub.next {
			continue
		}
		if n.number >= upto {
			break
		}
		l.tellConflated(s, r, n.number-sub.next)
		b := l.out(s)
		b.B = append(b.B, n.cast.frame(n.part, n.cast.formFor(s))...)
		l.counts.FramesOut++
		sub.next = n.number + 1
	}
	l.tellConflated(s, r, upto-sub.next)
	sub.next = upto
}

// tellConflated says that n messages of the game were spared.
func (l *loop) tellConflated(s *session, r *room, n uint64) {
	if n == 0 {
		return
	}
	l.counts.Conflated += n
	l.conflated = proto.Conflated{T: l.now, Game: r.game.Game, N: n}
	b := l.out(s)
	b.B = appendMessage(b.B, s.variant.codec(), &l.conflated)
	l.counts.FramesOut++
}

// reimage asks the market for an image for a subscriber that was spared more than odds. A busy market is asked
// again by catchUpAll.
func (l *loop) reimage(s *session, r *room, sub *subscriber) {
	request := proto.Request{Game: r.game.Game}
	sub.asked = l.submit(s, &request, market.Join) == proto.Accepted
	if sub.asked {
		l.counts.Reimaged++
	}
	l.watch(s)
}

// catchUpAll looks after the sessions that were spared something: the next broadcast may be long in coming.
func (l *loop) catchUpAll() {
	l.behind = slices.DeleteFunc(l.behind, func(s *session) bool {
		if s.state == open && l.isBehind(s) {
			return false
		}
		s.behind = false
		return true
	})
}

// isBehind brings a session up to date where its socket is empty, and reports whether something is still missing.
func (l *loop) isBehind(s *session) (missing bool) {
	if s.backlog() > 0 {
		return true
	}
	for _, m := range s.games {
		r, sub := m.room, &m.room.subs[m.at]
		switch {
		case sub.asked || sub.next < r.next && len(r.queue) > 0:
			missing = true
		case sub.lost:
			l.reimage(s, r, sub)
			missing = true
		case sub.next < r.next:
			l.catchUp(s, r, sub, r.next)
		}
	}
	return missing
}
