package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tote/server/proto"
	"tote/server/proto/control"
)

// fixtures are the games that a scenario is played in, opened for it and closed after it.
type fixtures struct {
	desk      *control.Client
	croupiers []*croupier
	venues    []Venue
}

// openFixtures opens the scenario's games with their first pools.
func openFixtures(ctx context.Context, desk *control.Client, s *Scenario) (*fixtures, error) {
	f := &fixtures{desk: desk}
	for class, weights := range s.weights() {
		g := &s.Games[class]
		for k, weight := range weights {
			name := g.Name
			if g.Count > 1 {
				name = fmt.Sprint(g.Name, " ", k+1)
			}
			game, err := desk.OpenGame(ctx, proto.GameOpening{Name: name, Teams: [2]string{"Home", "Away"}, Interval: proto.Time(time.Duration(g.Interval).Microseconds())})
			if err != nil {
				return f, fmt.Errorf("open game %s: %w", name, err)
			}
			c := &croupier{desk: desk, game: game.Game, every: time.Duration(g.Turnover), labels: g.Labels}
			f.croupiers = append(f.croupiers, c)
			f.venues = append(f.venues, Venue{Game: game.Game, Weight: weight, Class: class})
			if _, err := desk.PostEvent(ctx, game.Game, proto.Event{Kind: "kickoff"}); err != nil {
				return f, fmt.Errorf("kick off %s: %w", name, err)
			}
			for range max(1, g.Pools) {
				if err := c.open(ctx); err != nil {
					return f, err
				}
			}
		}
	}
	return f, nil
}

// turn turns pools over until ctx is done. The games do so at different times.
func (f *fixtures) turn(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var all sync.WaitGroup
	wrong := make([]error, len(f.croupiers))
	for i, c := range f.croupiers {
		if c.every == 0 {
			continue
		}
		all.Go(func() { // ends with ctx
			offset := time.NewTimer(c.every * time.Duration(i) / time.Duration(len(f.croupiers)))
			defer offset.Stop()
			select {
			case <-ctx.Done():
				return
			case <-offset.C:
			}
			if wrong[i] = c.turn(ctx); wrong[i] != nil {
				end()
			}
		})
	}
	<-ctx.Done()
	all.Wait()
	return errors.Join(wrong...)
}

// close returns what is staked and ends the games.
func (f *fixtures) close(ctx context.Context) error {
	var wrong []error
	for _, c := range f.croupiers {
		for _, pool := range c.pools {
			_, err := f.desk.Void(ctx, pool, "the run is over")
			wrong = append(wrong, err)
		}
		_, err := f.desk.PostEvent(ctx, c.game, proto.Event{Kind: "end"})
		wrong = append(wrong, err)
	}
	if err := errors.Join(wrong...); err != nil {
		return fmt.Errorf("close the scenario's games: %w", err)
	}
	return nil
}

// croupier opens pools and, when they turn over, locks and settles the oldest.
type croupier struct {
	patience time.Duration // with a server that stands still; 0: deedPatience
	desk     *control.Client
	game     proto.GameID
	every    time.Duration
	labels   []string // nil: home, draw, away
	opened   int
	pools    []proto.PoolID // open ones, oldest first
}

func (c *croupier) open(ctx context.Context) error {
	c.opened++
	if c.labels == nil {
		c.labels = []string{"Home", "Draw", "Away"}
	}
	answer, err := c.desk.OpenPool(ctx, c.game, proto.PoolOpening{Question: fmt.Sprintf("Question %d", c.opened), Labels: c.labels})
	if err != nil {
		return fmt.Errorf("open a pool: %w", err)
	}
	c.pools = append(c.pools, answer.Pool)
	return nil
}

// turn goes on until ctx is done.
func (c *croupier) turn(ctx context.Context) error {
	every := time.NewTicker(c.every)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		// The deed is finished even when ctx ends meanwhile: a locked pool is not left behind. The new pool comes first, so that there is always
		// one to stake on.
		if err := c.replace(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
}

// deedPatience is longer than an operators' listener waits for its market.
const deedPatience = 30 * time.Second

// replace opens a pool and ends the oldest.
func (c *croupier) replace(ctx context.Context) error {
	ctx, end := context.WithTimeout(ctx, cmp.Or(c.patience, deedPatience))
	defer end()
	if err := c.open(ctx); err != nil {
		return err
	}
	oldest := c.pools[0]
	c.pools = c.pools[1:]
	if _, err := c.desk.Lock(ctx, oldest, 0); err != nil {
		return fmt.Errorf("lock a pool: %w", err)
	}
	if _, err := c.desk.Settle(ctx, oldest, proto.Outcome(c.opened%len(c.labels))); err != nil {
		return fmt.Errorf("settle a pool: %w", err)
	}
	return nil
}
