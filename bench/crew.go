package bench

import (
	"sync/atomic"
	"time"
)

// crew is the workers of one process and what goes between them and their conductor, which is Run or an Agent.
//
// Owner: the conductor.
type crew struct {
	workers []*worker
	tallies chan *tally
	spares  []chan *tally
}

// newCrew makes the workers that the plan deals us; server is as of worker.
func newCrew(plan *Plan, t *target, server *atomic.Int64) (*crew, error) {
	first, n := plan.deal.First, plan.deal.Workers
	if n == 0 {
		n = plan.Workers
	}
	// Two tallies a worker: one is being filled while the other is being added.
	c := &crew{tallies: make(chan *tally, 2*n), spares: make([]chan *tally, n)}
	for i := range n {
		c.spares[i] = make(chan *tally, 2)
		c.spares[i] <- newTally(i, plan.classes())
		c.spares[i] <- newTally(i, plan.classes())
		w, err := newWorker(plan, t, first+i, server, c.tallies, c.spares[i])
		if err != nil {
			c.close()
			return nil, err
		}
		c.workers = append(c.workers, w)
	}
	return c, nil
}

// start lets the workers go; base is the run's start. Each ends after phaseStop, with a last tally.
func (c *crew) start(base time.Time) {
	for _, w := range c.workers {
		go w.run(base)
	}
}

// close gives back what workers have that were never started.
func (c *crew) close() {
	for _, w := range c.workers {
		w.close()
	}
}

func (c *crew) order(p phase) {
	for _, w := range c.workers {
		w.order(p)
	}
}

// giveBack empties a tally and gives it back to its worker.
func (c *crew) giveBack(t *tally) {
	t.clear()
	c.spares[t.worker] <- t
}
