package engine

import (
	"slices"
	"sync/atomic"
	"time"

	"tote/server/market"
	"tote/server/proto"
)

// A heartbeat tells the subscribers of a game, who have not heard of it for a while, up to which broadcast it
// has come: so silence is never ambiguous, and a gap shows at once. It also tells when the market behind
// the game has stopped, which an open connection alone would hide.

// shardsMax is more than the cores of any host.
const shardsMax = 1024

// clocks are the times of the last batches, by shard; 0: none yet.
type clocks [shardsMax]atomic.Int64

func (c *clocks) hear(b *market.Batch) {
	assert(b.Shard < shardsMax, "a shard has a clock")
	c[b.Shard].Store(int64(b.Now))
}

// stale reports whether a room's shard was heard of once, but not lately: it, or the journal that it waits for,
// has stopped.
func (l *loop) stale(r *room) bool {
	at := proto.Time(l.engine.clocks[r.shard].Load())
	return at != 0 && l.now-at > span(l.engine.limits.StaleTime)
}

func span(d time.Duration) proto.Time { return proto.Time(d.Microseconds()) }

// listener is a session that asked for more heartbeats of a game than all get.
type listener struct {
	session market.Session
	game    proto.GameID
	every   proto.Time
	due     proto.Time
}

// beat looks, at each tick, for rooms that have been silent for too long.
func (l *loop) beat() {
	every := span(l.engine.limits.Heartbeat)
	for _, r := range l.catalogue {
		stale := l.stale(r)
		if len(r.subs) == 0 || len(r.queue) > 0 || stale == r.stale && l.now-r.heard < every {
			continue
		}
		r.stale = stale
		l.enqueue(r, queued{broadcast: l.heartbeats(r), first: r.next})
	}
	l.listeners = slices.DeleteFunc(l.listeners, func(a listener) bool { return !l.beatFor(a.session, a.game) })
	for i := range l.listeners {
		if a := &l.listeners[i]; l.now >= a.due {
			a.due = l.now + a.every
			if s, r := l.find(a.session), l.rooms[a.game]; l.now-r.heard >= a.every {
				l.tell(s, l.heartbeat(r, 0))
			}
		}
	}
}

// heartbeats is a heartbeat for a whole room: a broadcast without numbered messages, so that everybody who is up to date gets
// it, and nobody misses it. It is too short to compress.
func (l *loop) heartbeats(r *room) *broadcast {
	b := &broadcast{game: r.game.Game}
	for v := plain; v < variants; v += 2 {
		b.forms[v] = appendMessage(nil, v.codec(), l.heartbeat(r, 0))
		b.forms[v+1] = b.forms[v]
	}
	return b
}

// beatFor reports whether the session is still there, and in the game.
func (l *loop) beatFor(name market.Session, game proto.GameID) bool {
	s := l.find(name)
	return s != nil && s.in(l.rooms[game]) >= 0
}

func (l *loop) heartbeat(r *room, id proto.RequestID) *proto.Heartbeat {
	return &proto.Heartbeat{ID: id, T: l.now, Game: r.game.Game, Seq: r.seq, Interval: r.game.Interval,
		Stale: l.stale(r)}
}

// askedBeat answers with a heartbeat, and goes on so often as is asked for.
func (l *loop) askedBeat(s *session, q *proto.Request) proto.Refusal {
	r := l.rooms[q.Game]
	if r == nil || s.in(r) < 0 {
		return proto.RefusedGameNotJoined
	}
	l.listeners = slices.DeleteFunc(l.listeners, func(a listener) bool { return a.session == s.name() && a.game == q.Game })
	if q.Every > 0 {
		every := max(q.Every, span(l.engine.limits.Heartbeat)/5)
		l.listeners = append(l.listeners, listener{session: s.name(), game: q.Game, every: every, due: l.now + every})
	}
	l.tell(s, l.heartbeat(r, q.ID))
	return proto.Accepted
}
