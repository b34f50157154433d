package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"tote/server/proto"
	"tote/server/proto/control"
)

// upgrade is when a scenario has another process take over from the server, and over which times clients are told and come back.
type upgrade struct {
	At     Span `toml:"at"` // since play began
	Drain  Span `toml:"drain"`
	Spread Span `toml:"spread"`
}

// takeoverPatience is with a process that is to take over, beyond the time over which clients are told.
const takeoverPatience = time.Minute

// upgrades has the server make way for another process, again and again, until ctx is done. It returns what went wrong.
func (s *Scenario) upgrades(ctx context.Context, desk *control.Client) error {
	began := time.Now()
	for _, u := range s.Upgrades {
		at := time.NewTimer(time.Until(began.Add(time.Duration(u.At))))
		defer at.Stop()
		select {
		case <-ctx.Done():
			return nil
		case <-at.C:
		}
		// Once begun it is ended, also when the run is over: what follows needs a server.
		if err := takeOver(context.WithoutCancel(ctx), desk, u); err != nil {
			return fmt.Errorf("have another process take over %s after play began: %w", u.At, err)
		}
	}
	<-ctx.Done()
	return nil
}

func takeOver(ctx context.Context, desk *control.Client, u upgrade) error {
	heir, err := desk.Upgrade(ctx, control.Upgrade{Drain: proto.Time(time.Duration(u.Drain).Microseconds()), Spread: proto.Time(time.Duration(u.Spread).Microseconds())})
	if err != nil {
		return err
	}
	ctx, end := context.WithTimeout(ctx, time.Duration(u.Drain)+takeoverPatience)
	defer end()
	for {
		look, over := context.WithTimeout(ctx, time.Second) // between the two nobody answers
		now, err := desk.Process(look)
		over()
		if err == nil && now.PID == heir.PID {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("process %d does not serve", heir.PID), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// beside runs both until ctx is done; one that fails ends the other.
func beside(one, other func(ctx context.Context) error) func(ctx context.Context) error {
	if one == nil {
		return other
	}
	return func(ctx context.Context) error {
		ctx, end := context.WithCancel(ctx)
		defer end()
		var both sync.WaitGroup
		var wrong [2]error
		for i, f := range []func(context.Context) error{one, other} {
			both.Go(func() {
				if wrong[i] = f(ctx); wrong[i] != nil {
					end()
				}
			})
		}
		both.Wait()
		return errors.Join(wrong[:]...)
	}
}

// Ending is how the server ended while players were connected.
type Ending struct {
	Connections int     `json:"connections"`
	Took        float64 `json:"took_s"`          // from the signal until the process was gone
	Error       string  `json:"error,omitempty"` // "": in order
}

// wrong says what was not as it should be: who is connected is told when to come back, and nobody is cut.
func (e *Ending) wrong(told uint64) error {
	switch {
	case e.Error != "":
		return errors.New(e.Error)
	case told != uint64(e.Connections):
		return fmt.Errorf("of %d clients %d were told to go when the server stopped", e.Connections, told)
	}
	return nil
}

// life is when receipts came from one process of the server.
type life struct {
	First time.Duration `json:"first"` // since the run's start
	Last  time.Duration `json:"last"`
}

// lives are those of processes, by their epochs, which grow.
type lives map[uint64]life

// receipt notes one that came at a time.
func (l lives) receipt(epoch uint64, at time.Duration) { l.add(epoch, life{at, at}) }

func (l lives) add(epoch uint64, other life) {
	if known, ok := l[epoch]; ok {
		other.First, other.Last = min(known.First, other.First), max(known.Last, other.Last)
	}
	l[epoch] = other
}

// Takeover is how long nobody decided, as the players saw it: from the last receipt of one process to the first of the next.
type Takeover struct {
	At  float64 `json:"at_s"` // since the run's start
	Gap float64 `json:"gap_s"`
}

func (l lives) takeovers() (all []Takeover) {
	epochs := slices.Sorted(maps.Keys(l))
	for i := 1; i < len(epochs); i++ {
		last, first := l[epochs[i-1]].Last, l[epochs[i]].First
		all = append(all, Takeover{At: last.Seconds(), Gap: (first - last).Seconds()})
	}
	return all
}
