package engine

import (
	"fmt"
	"time"

	"tote/server/proto"
)

// Farewell is how clients are parted from when the server ends, because it restarts or makes way for another. They are told in batches,
// and each is told when to come back, so that they do not come all at once; those who are not told yet are served as ever.
//
//	told, over Over       nobody there       come back, over Spread
//	├──────────────┤◀──────── Away ────────▶├──────────────────────┤
type Farewell struct {
	Over   time.Duration // they are told; 0: as fast as it goes without holding up those who are still served
	Away   time.Duration // from when the last is told until there is a server again, as far as anybody knows
	Spread time.Duration // the last one comes so long after the first; 0: as long as letting them in takes (Limits.Admissions)
}

// Part says how clients are to be parted from. It counts if it comes before the end of Run's context.
func (e *Engine) Part(how Farewell) { e.farewell = how }

// Parted is closed when Run has told everybody to come back: no client's request reaches the market from then on.
func (e *Engine) Parted() <-chan struct{} { return e.parted }

// drain parts from everybody and waits for the last to go.
func (e *Engine) drain() {
	inside := e.door.inside()
	if e.farewell.Spread == 0 {
		e.farewell.Spread = e.admission.takes(inside)
	}
	e.config.Log.Info("clients are told to come back", "connections", inside, "over", e.farewell.Over, "spread", e.farewell.Spread)
	e.parting.Add(len(e.loops))
	for _, l := range e.loops {
		l.inbox.call(func() { l.draining, l.drained = true, l.now })
	}
	e.parting.Wait()
	close(e.parted)
	limit := time.NewTimer(e.limits.DrainTime)
	defer limit.Stop()
	for e.door.inside() > 0 {
		select {
		case <-e.door.empty:
		case <-limit.C:
			e.config.Log.Warn("clients were cut when the time to drain was over", "connections", e.door.inside())
			return
		}
	}
}

// drain parts from some of the sessions: not from all in one turn, since each costs a write, and not before their time has come.
func (l *loop) drain() {
	how, since := &l.engine.farewell, l.now-l.drained
	l.partDue = len(l.places)
	if over := span(how.Over); since < over && len(l.places) > partingMax && l.counts.Connections > 0 {
		l.partDue = int(int64(len(l.places)) * int64(since) / int64(over))
	}
	end := min(l.partDue, l.parted+partingMax)
	for ; l.parted < end; l.parted++ {
		s := l.places[l.parted].session
		if s == nil {
			continue
		}
		// They are expected in the order in which they are told.
		back := span(how.Over) + span(how.Away) + span(how.Spread)*proto.Time(l.parted)/proto.Time(len(l.places))
		l.tellBack(s, max(0, back-since))
	}
	if l.parted == len(l.places) && !l.told {
		l.told = true
		l.engine.parting.Done()
	}
}

// tellBack ends a connection with the time after which its client is expected.
func (l *loop) tellBack(s *session, after proto.Time) {
	switch s.state {
	case handshaking:
		l.answerHTTP(s, fmt.Sprintf(answerRestart, (after+proto.Second-1)/proto.Second))
	case securing:
		l.insecure(s, InsecureEnding)
	case open:
		l.closeWith(s, proto.CloseRestart, proto.RestartReason(after))
	}
}
