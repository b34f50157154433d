package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Contest plays one scenario on several servers in turn, each started anew for its bout. Each round begins with another one, and all of its bouts
// have one seed: what changes on the machine meanwhile, and what chance does, meets all of them, so that they are compared round by round.
//
//	round 1   ours        comparator  baseline
//	round 2   comparator  baseline    ours
//	round 3   baseline    ours        comparator
type Contest struct {
	Scenario *Scenario
	Rivals   []*Rival
	Rounds   int
	Stage    Stage // of all bouts; Target is empty

	// Told is told of each bout when it is over; nil: nobody is.
	Told func(b *Bout)
}

// Bout is one run of a contest.
type Bout struct {
	Round  int // from 1
	Rival  *Rival
	Report *Report // nil where there was no run
	Took   time.Duration
	// Wrong says why the bout does not count: the server did not start, it died, or it did not come to its end in time. Promises that it has
	// broken are in the report, and its numbers count.
	Wrong error
}

// Run plays all bouts. A server that fails loses that bout, and the others go on. The error is ctx's.
func (c *Contest) Run(ctx context.Context) ([]*Bout, error) {
	var bouts []*Bout
	for round := range c.Rounds {
		for i := range c.Rivals {
			b := &Bout{Round: round + 1, Rival: c.Rivals[(round+i)%len(c.Rivals)]}
			c.play(ctx, b)
			if ctx.Err() != nil {
				return bouts, ctx.Err()
			}
			bouts = append(bouts, b)
			if c.Told != nil {
				c.Told(b)
			}
		}
	}
	return bouts, nil
}

// play plays one bout.
func (c *Contest) play(ctx context.Context, b *Bout) {
	unix.Sync() // what the one before has left to write is not this one's
	began := time.Now()
	s, on := *c.Scenario, c.Stage
	s.Seed += uint64(b.Round)
	on.Rival = b.Rival
	within, end := context.WithTimeout(ctx, s.atMost())
	defer end()
	b.Report, b.Wrong = s.Run(within, on)
	b.Took = time.Since(began)
	switch r := b.Report; {
	case r == nil && within.Err() != nil:
		b.Wrong = fmt.Errorf("it did not come to its end within %s: %w", s.atMost().Round(time.Second), errors.Join(b.Wrong, within.Err()))
	case r == nil:
	case r.Stopped:
		b.Wrong = errors.Join(fmt.Errorf("it did not come to its end within %s", s.atMost().Round(time.Second)), b.Wrong)
	case r.Unfinished != "":
		b.Wrong = errors.Join(errors.New(r.Unfinished), b.Wrong)
	case r.Connections.Joined == 0:
		b.Wrong = errors.Join(errors.New("nobody got into a game"), b.Wrong)
	}
	if b.Report == nil {
		return
	}
	b.Report.Conditions.Round = b.Round
	for _, check := range b.Report.Checks {
		if check.Promise == auditStop && check.Failed > 0 {
			b.Wrong = errors.Join(b.Wrong, errors.New(check.Example))
		}
	}
}

// atMost is a time in which a run that stands still has ended by its own patience.
func (s *Scenario) atMost() time.Duration {
	p := patient.of(s.Users)
	most := time.Duration(s.Duration) + p.join + p.quiet + p.audit + p.farewell + 2*upPatience
	most += time.Duration(float64(s.Users) / float64(s.Rate) * float64(time.Second))
	if s.Depart > 0 {
		most += time.Duration(float64(s.Users) / float64(s.Depart) * float64(time.Second))
	}
	return most
}
