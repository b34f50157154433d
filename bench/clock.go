package bench

import (
	"context"
	"fmt"
	"time"

	"tote/server/proto"
)

// clock is another host's clock, as exchanges with it tell.
//
//	ours     sent ──────────────────────────── back
//	              ╲                         ╱
//	theirs          received ───── answered
//
// Theirs is ahead of ours by the difference of the middles, and wrong by half of the round trip at most, however unlike the two ways were
// (RFC 5905, section 8). Of all exchanges the one counts whose error is the least by now.
type clock struct {
	ahead time.Duration // of ours
	half  time.Duration // of the round trip that told
	at    time.Duration // by ours, since any start, when it did
	known bool
	worst time.Duration // the greatest error since forget
}

// clockDrift is how fast two clocks go apart: 50 ppm each, what a crystal is sold for. A disciplined clock is better.
const clockDrift = 1e-4

// hear takes in an exchange that ended now.
func (c *clock) hear(sent, received, answered, back int64, now time.Duration) {
	ahead, half := time.Duration((received-sent)/2+(answered-back)/2), time.Duration((back-sent-(answered-received))/2)
	if half < 0 || answered < received {
		return // one of the clocks was set meanwhile
	}
	agrees := (ahead - c.ahead).Abs() <= half+c.error(now) // or else one of the clocks was set since
	if !c.known || half <= c.error(now) || !agrees {
		c.ahead, c.half, c.at, c.known = ahead, half, now, true
	}
	c.worst = max(c.worst, c.error(now))
}

// error is how wrong ahead may be now.
func (c *clock) error(now time.Duration) time.Duration {
	return c.half + time.Duration(float64(now-c.at)*clockDrift)
}

// stopwatch is this process's clock for exchanges: once read from the host's, it goes on by itself, whatever is done to that one.
type stopwatch struct {
	from time.Time
	skew time.Duration // tests have some
}

// now is in ns since 1970.
func (s stopwatch) now() int64 { return s.from.Add(s.skew).UnixNano() + int64(time.Since(s.from)) }

// since is how long the stopwatch went until it showed ns, and at the instant when it did.
func (s stopwatch) since(ns int64) time.Duration {
	return time.Duration(ns - s.from.Add(s.skew).UnixNano())
}
func (s stopwatch) at(ns int64) time.Time { return s.from.Add(s.since(ns)) }

// exchanges is how many there are before a start: of so many the fastest is near the best that the way allows.
const exchanges = 8

// reading is what the server's clock said.
type reading struct {
	sent, told, back int64
}

// timekeeper asks the server for the time.
type timekeeper struct {
	target *target
	watch  stopwatch
	client *Client
}

func (s *timekeeper) ask(ctx context.Context) (r reading, err error) {
	if s.client == nil {
		if s.client, err = s.target.call(ctx, s.target.urls()[0]); err != nil {
			return r, err
		}
		s.client.Patience = watchEvery // a server that stands still tells no time
	}
	r.sent = s.watch.now()
	m, err := s.client.Ask(proto.Request{Type: proto.RequestTime, Sent: proto.Time(r.sent / 1000)})
	r.back = s.watch.now()
	if err != nil {
		s.close() // to be called anew: who says no hello is not kept for ever
		return r, err
	}
	told, ok := m.(*proto.Clock)
	if !ok {
		return r, fmt.Errorf("ask %s for the time: it says %s", s.target.raw, m.Type())
	}
	r.told = int64(told.T) * 1000
	return r, nil
}

// follow asks each second until ctx is done.
func (s *timekeeper) follow(ctx context.Context, every time.Duration, readings chan<- reading) {
	defer s.close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r, err := s.ask(ctx)
		if err != nil {
			continue // what is known gets older, and says so
		}
		select {
		case readings <- r:
		case <-ctx.Done():
			return
		}
	}
}

func (s *timekeeper) close() {
	if s.client != nil {
		s.client.Abort()
		s.client = nil
	}
}
