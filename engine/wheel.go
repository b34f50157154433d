package engine

import "tote/server/proto"

// wheel wakes sessions at a tick. Each session is in one bucket at most, at the earliest tick at which
// something could be due; hearing from it moves nothing, it is looked at when its bucket comes and put where it
// belongs then. So a million sessions cost what is due, and no allocation.
type wheel struct {
	buckets [wheelBuckets]*session // heads of lists
}

// wheelBuckets is the horizon: what is due later is looked at once on the way.
const wheelBuckets = 1024

// set moves a session to the bucket of a tick that is after l.tick.
func (w *wheel) set(s *session, due uint32) {
	w.remove(s)
	now := s.loop.tick
	due = min(max(due, now+1), now+wheelBuckets-1)
	b := int16(due % wheelBuckets)
	head := w.buckets[b]
	s.bucket, s.next = b, head
	if head != nil {
		head.previous = s
	}
	w.buckets[b] = s
}

// sooner moves a session to the bucket of a tick if its own comes later.
func (w *wheel) sooner(s *session, due uint32) {
	now := s.loop.tick
	if s.bucket < 0 || (uint32(s.bucket)-now)%wheelBuckets > due-now {
		w.set(s, due)
	}
}

func (w *wheel) remove(s *session) {
	if s.bucket < 0 {
		return
	}
	if s.previous != nil {
		s.previous.next = s.next
	} else {
		w.buckets[s.bucket] = s.next
	}
	if s.next != nil {
		s.next.previous = s.previous
	}
	s.next, s.previous, s.bucket = nil, nil, -1
}

// pop takes a session out of the bucket of a tick; nil: it is empty.
func (w *wheel) pop(tick uint32) *session {
	s := w.buckets[tick%wheelBuckets]
	if s != nil {
		w.remove(s)
	}
	return s
}

// advance brings the loop to a tick and wakes all whose bucket has come.
func (l *loop) advance(now uint32) {
	for l.tick < now {
		l.tick++
		for s := l.wheel.pop(l.tick); s != nil; s = l.wheel.pop(l.tick) {
			l.due(s) // never sets s to this tick again
		}
	}
}

// due does what a session's time has come for, and sets the next time.
func (l *loop) due(s *session) {
	messageTicks := ticks(l.engine.limits.MessageTime)
	switch {
	case s.state == closing:
		l.dueClosing(s)
	case s.parser != nil && l.tick-s.parser.since >= messageTicks:
		l.counts.Stalled++
		l.close(s, proto.ClosePolicy)
	case s.state == securing && l.tick >= s.deadline:
		l.insecure(s, InsecureLate)
	case s.state == handshaking && l.tick >= s.deadline:
		l.answerHTTP(s, answerTimeout)
	case s.account == 0 && l.tick >= s.deadline:
		l.close(s, proto.CloseHelloMissed)
	case s.account == 0:
		l.wheel.set(s, s.deadline)
	default:
		l.dueIdle(s)
	}
	if s.parser != nil && s.state == open {
		l.wheel.sooner(s, s.parser.since+messageTicks)
	}
}

// dueClosing waits for what is unsent and for the client's end, but not for ever.
func (l *loop) dueClosing(s *session) {
	if l.tick >= s.deadline {
		l.cut(s)
		return
	}
	l.shut(s)
	l.wheel.set(s, min(l.tick+2, s.deadline))
}

// dueIdle pings a quiet client, and closes it if not a byte has come since. Nobody is closed who was not pinged.
func (l *loop) dueIdle(s *session) {
	ping := l.pingAfter(s)
	switch {
	case s.pinged && l.tick >= s.deadline:
		l.close(s, proto.CloseIdle)
	case s.pinged:
		l.wheel.set(s, s.deadline)
	case l.tick-s.heard >= ping:
		b := l.out(s)
		b.B = l.appendPing(b.B)
		s.pinged = true
		s.deadline = l.tick + l.idleTicks - ping
		l.wheel.set(s, s.deadline)
	default:
		l.wheel.set(s, s.heard+ping)
	}
}

// pingAfter is half of the idle time less a share of its own for each session, so that clients who came
// together are not pinged together.
func (l *loop) pingAfter(s *session) uint32 {
	half := l.idleTicks / 2
	spread := half/4 + 1
	return half - (s.slot*2654435761>>16)%spread // Knuth's multiplicative hash
}
