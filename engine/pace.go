package engine

import (
	"maps"
	"slices"

	"tote/server/market"
	"tote/server/proto"
)

// When the loops cannot carry all distributions, intervals stretch: the games with the greatest demand first, until what
// they all ask for fits, so that small games keep their cadence (max-min fairness). Subscribers are
// told the interval in force by the market, whose clock it is.
//
// The demand of a game is the share of a loop's time that distributing to its subscribers takes, at the interval with
// which it was opened; of several loops, the busiest counts. What the loop and its host do between two slices is part of that time:
// a loop that has a third of a CPU, or requests to read after each slice, carries so much less.

const (
	// paceEvery is how often demand is looked at, and paceKeep the weight of what was there before.
	paceEvery = 3 * proto.Second
	paceKeep  = 0.9

	// paceShare of a loop's time may go by with distributing.
	paceShare = 0.6

	// paceStep is the smallest change of an interval that is worth telling.
	paceStep = 0.1
)

// load is what a room costs its loop.
type load struct {
	game     proto.GameID
	interval proto.Time // in force
	cost     float64    // µs of the loop's time in an interval, averaged: it stays the same when the interval stretches
}

// weigh ends a period of the loop's rooms, and shows their loads.
func (l *loop) weigh() {
	period := float64(l.now - l.weighed)
	if period < float64(paceEvery) {
		return
	}
	l.weighed = l.now
	l.published.mu.Lock()
	defer l.published.mu.Unlock()
	l.published.loads = l.published.loads[:0]
	var spent proto.Time
	for _, r := range l.catalogue {
		spent += r.spent
	}
	slowed := float64(spent+l.between) / float64(max(1, spent))
	l.between = 0
	for _, r := range l.catalogue {
		r.cost = paceKeep*r.cost + (1-paceKeep)*float64(r.spent)*slowed/period*float64(r.game.Interval)
		r.spent = 0
		if r.cost > 0 {
			l.published.loads = append(l.published.loads, load{game: r.game.Game, interval: r.game.Interval, cost: r.cost})
		}
	}
}

// pacer decides about intervals. Owner: the goroutine of ticks.
type pacer struct {
	looked proto.Time
	games  map[proto.GameID]paced
}

// paced is a game whose interval is or was stretched.
type paced struct {
	nominal proto.Time // the interval that it was opened with
	pace    proto.Time // that was asked for; 0: none
}

// pace looks at the loads of all loops, and asks the market for other intervals where it has to.
func (e *Engine) pace() {
	now := e.config.Now()
	if now-e.pacer.looked < paceEvery {
		return
	}
	e.pacer.looked = now
	var loops [][]load
	for _, l := range e.loops {
		l.published.mu.Lock()
		loops = append(loops, slices.Clone(l.published.loads))
		l.published.mu.Unlock()
	}
	for game, every := range e.pacer.decide(loops) {
		e.market.Submit(&market.Command{Kind: market.Pace, Game: game, Every: every, Arrived: now}) // if the shard is busy, the next look asks again
	}
}

// decide returns the games whose interval must change, with the new one; 0: as it was opened.
func (p *pacer) decide(loops [][]load) map[proto.GameID]proto.Time {
	if p.games == nil {
		p.games = map[proto.GameID]paced{}
	}
	wanted := map[proto.GameID]float64{} // the greatest stretch that a loop asks for
	for _, loads := range loops {
		p.stretch(loads, wanted)
	}
	changes := map[proto.GameID]proto.Time{}
	for game, factor := range wanted {
		g := p.games[game]
		pace := proto.Time(float64(g.nominal) * factor)
		if factor == 1 {
			pace = 0
		}
		before, after := max(g.pace, g.nominal), max(pace, g.nominal)
		if (pace == 0) == (g.pace == 0) && abs(float64(after-before)) <= paceStep*float64(before) {
			continue
		}
		g.pace = pace
		p.games[game] = g
		changes[game] = pace
	}
	maps.DeleteFunc(p.games, func(game proto.GameID, _ paced) bool { _, ok := wanted[game]; return !ok }) // over
	return changes
}

func abs(x float64) float64 { return max(x, -x) }

// stretch raises wanted to what one loop needs: no game may take more than a level at which all fit.
func (p *pacer) stretch(loads []load, wanted map[proto.GameID]float64) {
	demands := make([]float64, len(loads))
	for i, load := range loads {
		g, known := p.games[load.game]
		if !known {
			g = paced{nominal: load.interval}
			p.games[load.game] = g
		}
		demands[i] = load.cost / float64(max(g.nominal, 1))
	}
	if len(loads) == 0 {
		return
	}
	level := fit(demands, paceShare)
	for i, load := range loads {
		wanted[load.game] = max(wanted[load.game], max(1, demands[i]/level))
	}
}

// fit returns the level at which demands, none above it, sum to the capacity: the greatest demand if all fit.
func fit(demands []float64, capacity float64) float64 {
	sorted := slices.Sorted(slices.Values(demands))
	left := capacity
	for i, demand := range sorted {
		share := left / float64(len(sorted)-i)
		if demand > share {
			return share
		}
		left -= demand
	}
	return max(capacity, sorted[len(sorted)-1])
}
