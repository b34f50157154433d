// Package bench is the load and its meters: it plays thousands of bettors over real WebSocket
// connections and says what the server did to every one of them.
//
// `server bench` runs it from the shell, `make bench-smoke` against a server that it starts for the
// purpose, and `server serve --demo` for its simulated players. It speaks the wire only, as any client
// would. It never looks into a server: what it knows of one comes from sockets, from /proc and, in
// Smoke, from the admin listener.
//
//	        phase                        frames
//	Run ─────────────▶ worker 0..W-1 ◀────────────▶ server
//	 ▲                   │  epoll, its players, its timers
//	 └───────────────────┘
//	   tally, a few times a second: counters, histograms, checks, faults
//
// A worker owns its players and shares nothing. A tally changes hands: the worker fills it,
// Run adds it to the results and gives it back empty.
//
// On many hosts, an Agent on each has a crew of workers; Run, the coordinator, sends phases and gets tallies over a line.
//
// The load is an open loop. A stake's latency counts from the time it was planned for, so a server that
// stalls is charged for every stake it held up, also for those that could not even be sent.
package bench

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// phase is where a run stands. Run moves all workers from one to the next.
type phase uint8

const (
	phaseConnect  phase = iota // players arrive and join; thinkers stake already
	phasePlay                  // all who come have come: the planned stakes begin
	phaseDepart                // players say goodbye one after the other, with a Depart rate
	phaseQuiet                 // no new stakes; what is under way arrives
	phaseAudit                 // accounts and predictions are asked for and compared with what is held
	phaseFarewell              // close handshakes
	phaseStop
)

// Run plays the plan to its end, or until ctx is done, and reports. An error means that there was no
// run; what went wrong during one is in the report.
func Run(ctx context.Context, plan Plan) (*Report, error) {
	plan = plan.withDefaults()
	if err := plan.check(); err != nil {
		return nil, fmt.Errorf("plan a run: %w", err)
	}
	target, err := resolve(ctx, plan.Target, plan.Through, plan.Trust)
	if err != nil {
		return nil, err
	}
	if plan.Agents == nil {
		if err := plan.checkPorts(target); err != nil {
			return nil, err
		}
		if err := checkDescriptors(plan.Users); err != nil {
			return nil, err
		}
	}
	if !plan.Reconnect {
		for _, url := range target.urls() {
			if err := target.knock(ctx, url); err != nil {
				return nil, err
			}
		}
	}
	r := &run{plan: plan, base: time.Now(), results: newResults(plan.classes()), over: make(chan struct{})}
	defer close(r.over)
	r.stopwatch.from = r.base
	r.server.pids = plan.Server
	if plan.Agents == nil {
		r.own.pids, r.own.alone = []int{ownPID}, true
		if r.crew, err = newCrew(&r.plan, target, nil); err != nil {
			return nil, err
		}
		r.tallies, r.gauges = r.crew.tallies, make([]gauge, len(r.crew.workers))
	} else if err := r.muster(ctx, target); err != nil {
		return nil, err
	}
	if err := r.server.sample(r.base); err != nil {
		return nil, err
	}
	r.rssBefore, r.pssBefore = r.server.last, r.server.pss()
	beside, end := context.WithCancel(context.Background())
	if r.crew != nil {
		r.crew.start(r.base)
	} else {
		r.begin(beside)
	}
	elsewhere := plan.Server == nil && plan.Desk != nil && !target.here()
	r.watch = startWatch(beside, r.base, plan.Server, plan.Desk, elsewhere)
	r.conduct(ctx)
	end()
	r.dismiss()
	<-r.watch.done
	if plan.Live && plan.Progress != nil {
		fmt.Fprint(plan.Progress, "\r\x1b[K")
	}
	return r.report(), nil
}

// run is one run as its conductor sees it.
//
// Owner of every field below: the goroutine in Run.
type run struct {
	plan    Plan
	base    time.Time
	crew    *crew       // nil where there are agents
	tallies chan *tally // of the crew
	gauges  []gauge     // the last of each worker, or of each agent
	results *results

	// Of agents only.
	remotes    []*remote
	heard      chan heard
	beat       *time.Ticker
	stopwatch  stopwatch
	clock      clock // the server's
	timekeeper *timekeeper
	readings   chan reading
	over       chan struct{} // closed when nobody listens any more

	server, own process
	rssBefore   sample // of the server, before the first connection
	rssJoined   sample // … with everyone in the game and nothing said
	pssBefore   uint64
	pssJoined   uint64
	playFrom    mark
	playTo      mark
	parted      time.Duration
	joined      int // players who were in a game before play began
	tails       []*tail
	audited     bool      // everyone who was there at the end
	shown       time.Time // the last line of progress
	sampled     time.Time
	inhabited   time.Time // when somebody was connected
	timeline    []Moment
	watch       *watch
	stopped     bool // by ctx
	deserted    bool // every connection was lost
	ending      *Ending
}

// mark is what the meters showed at one moment.
type mark struct {
	at          time.Duration // since the run's start
	server, own time.Duration // CPU
	frames      uint64
	busy        time.Duration // of all workers
	stakes      stakeCounts
	deeds       deedCounts
}

func (r *run) mark() mark {
	r.server.sample(r.base) // an error shows as a process that does nothing; the server may be gone
	r.own.sample(r.base)
	// What was counted is as old as the last tallies are; those of the dead are not waited for.
	at, n := time.Duration(0), 0
	for i, g := range r.gauges {
		if r.remotes == nil || r.remotes[i].died == "" {
			at += g.at
			n++
		}
	}
	if n == 0 {
		at, n = time.Since(r.base), 1
	}
	return mark{
		at: at / time.Duration(n), server: r.server.last.cpu, own: r.ownCPU(),
		frames: r.results.frames, busy: r.results.busy, stakes: r.results.stakes, deeds: r.results.deeds,
	}
}

// conduct moves the workers through the phases.
func (r *run) conduct(ctx context.Context) {
	r.playFrom = r.mark()
	arrival := r.plan.arrival(r.plan.Users) + r.plan.Browse[1]
	r.await(ctx, arrival+r.plan.patience.join, func() bool { g := r.now(); return g.came+g.gone == r.plan.Users || r.overdue() })
	if r.plan.StakeRate > 0 { // with thinkers there is no quiet moment to measure
		r.await(ctx, r.plan.Settle, func() bool { return false })
	}
	r.mark()
	r.rssJoined, r.pssJoined = r.server.last, r.server.pss()

	r.joined = r.now().came
	r.enter(phasePlay)
	if !r.plan.FromStart {
		r.playFrom = r.mark()
		r.markRemotes(func(a *remote) *part { return &a.from })
	}
	r.play(ctx)
	r.playTo = r.mark()
	r.markRemotes(func(a *remote) *part { return &a.to })

	if r.plan.Depart > 0 && !r.stopped && !r.deserted {
		r.enter(phaseDepart)
		span := time.Duration(float64(r.plan.Users) / r.plan.Depart * float64(time.Second))
		r.await(ctx, span+r.plan.patience.quiet, func() bool { return r.now().open == 0 })
	}
	if !r.stopped && !r.deserted {
		r.enter(phaseQuiet)
		least := time.Now().Add(2*r.now().interval + r.plan.patience.tail + r.plan.back())
		r.await(ctx, r.plan.patience.quiet+2*r.now().interval, func() bool {
			return r.now().waiting == 0 && time.Now().After(least)
		})
	}
	// Whoever was beside the players may have noticed the server's end before them.
	r.deserted = r.deserted || r.plan.Depart == 0 && r.now().open == 0
	if !r.stopped && !r.deserted {
		r.enter(phaseAudit)
		r.await(ctx, r.plan.patience.audit, func() bool { g := r.now(); r.audited = g.audited >= g.open; return r.audited })
	}
	r.parted = time.Since(r.base)
	r.enter(phaseFarewell)
	if r.plan.Ending != nil {
		r.endServer()
	}
	r.await(context.Background(), r.plan.patience.farewell, func() bool { return r.now().open == 0 })
	r.stop()
}

// endServer ends the server when each worker has summed up what its players know.
func (r *run) endServer() {
	r.await(context.Background(), r.plan.patience.farewell, func() bool { return r.now().ready == r.plan.Users })
	r.ending = &Ending{Connections: r.now().open}
	began := time.Now()
	if err := r.plan.Ending(); err != nil {
		r.ending.Error = err.Error()
	}
	r.ending.Took = time.Since(began).Seconds()
}

// play lets the players play, with During beside them, until the plan's duration or During is over.
func (r *run) play(ctx context.Context) {
	beside, end := context.WithCancel(ctx)
	defer end()
	ended := make(chan error, 1)
	if r.plan.During != nil {
		go func() { ended <- r.plan.During(beside) }() // ends with beside, or before
	}
	span := r.plan.Duration
	switch {
	case span == 0:
		span = farFuture
	case r.plan.FromStart:
		span = max(0, span-time.Since(r.base))
	}
	running := r.plan.During != nil
	note := func(err error) {
		running = false
		if err != nil {
			r.results.fault("beside the players", err.Error())
		}
	}
	r.await(ctx, span, func() bool {
		select {
		case err := <-ended:
			note(err)
			return true
		default:
		}
		r.deserted = !r.plan.returns() && r.now().open+r.now().away == 0
		return r.deserted || r.overdue()
	})
	end()
	if running {
		note(<-ended)
	}
}

// overdue says whether nobody has been connected for so long that nobody is coming back.
func (r *run) overdue() bool {
	switch {
	case r.plan.Reconnect: // whoever asks for it may wait for ever, as the demo does
		return false
	case r.results.connections.Attempts == 0 || r.now().open > 0:
		r.inhabited = time.Now()
	case time.Since(r.inhabited) > r.plan.patience.desert:
		r.deserted = true
	}
	return r.deserted
}

// await adds up tallies until done says so, the time is over, or ctx is. It looks at done after each tally and each word.
func (r *run) await(ctx context.Context, span time.Duration, done func() bool) {
	over := time.NewTimer(span)
	defer over.Stop()
	var beat <-chan time.Time
	if r.beat != nil {
		beat = r.beat.C
	}
	for {
		select {
		case t := <-r.tallies:
			r.take(t)
			if done() {
				return
			}
		case h := <-r.heard:
			r.hear(h)
			if done() {
				return
			}
		case <-beat:
			r.keepInTouch()
			if done() {
				return
			}
		case told := <-r.readings:
			r.readServer(told)
		case <-over.C:
			return
		case <-ctx.Done():
			r.stopped = true
			return
		}
	}
}

// take adds a tally and gives it back empty, if it is the crew's.
func (r *run) take(t *tally) {
	r.gauges[t.worker] = t.gauge
	for _, kind := range r.results.add(t, time.Since(r.base)) {
		r.plan.Log.Warn("bench met a fault", "kind", kind, "example", r.results.faults[kind].Example)
	}
	if t.tail != nil {
		r.tails = append(r.tails, t.tail)
	}
	if r.crew != nil {
		r.crew.giveBack(t)
	}
	now := time.Now()
	if now.Sub(r.sampled) >= time.Second {
		r.moment(now)
		r.sampled = now
		r.server.sample(r.base) // a server that has gone shows in its connections
	}
	switch {
	case r.plan.Progress == nil:
	case r.plan.Live && now.Sub(r.shown) >= liveEvery:
		r.draw(now)
	case !r.plan.Live && now.Sub(r.shown) >= progressEvery:
		r.progress(now)
	}
}

const (
	progressEvery = 5 * time.Second
	liveEvery     = 500 * time.Millisecond
)

// draw draws the terminal's line anew: a bar of the time, and what the last second was like.
func (r *run) draw(now time.Time) {
	r.shown = now
	g, at := r.now(), now.Sub(r.base)
	span := r.plan.Duration
	if !r.plan.FromStart {
		span += r.plan.arrival(r.plan.Users)
	}
	const width = 20
	done := 0
	if span > 0 {
		done = int(min(width, width*at/span))
	}
	line := fmt.Sprintf("\r\x1b[K%s%s %s", strings.Repeat("█", done), strings.Repeat("░", width-done), at.Round(time.Second))
	if left := span - at; left > 0 {
		line += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	line += fmt.Sprintf(" │ %s on", grouped(g.open))
	if n := len(r.timeline); n > 1 {
		last, before := r.timeline[n-1], r.timeline[n-2]
		seconds := last.At - before.At
		line += fmt.Sprintf(" │ %.0f answers/s, p50 %s p99 %s ms │ %.0f frames/s │ CPU %.2f server, %.2f us", float64(last.Answered-before.Answered)/seconds,
			milliseconds(last.P50), milliseconds(last.P99), float64(last.Frames-before.Frames)/seconds,
			(last.ServerCPU-before.ServerCPU)/seconds, (last.OwnCPU-before.OwnCPU)/seconds)
	}
	if faults := len(r.results.faults); faults > 0 {
		line += fmt.Sprintf(" │ %d kinds of fault", faults)
	}
	fmt.Fprint(r.plan.Progress, line)
}

// moment notes what the last second was like.
func (r *run) moment(now time.Time) {
	g, res := r.now(), r.results
	m := Moment{
		At: now.Sub(r.base).Seconds(), Open: g.open, Joined: g.joined, Answered: res.stakes.answered() + res.deeds.Answered,
		Planned: res.stakes.Planned - res.stakes.Unplaced + res.deeds.Planned,
		Frames:  res.frames, Bytes: res.bytes, Conflated: res.conflated, Lost: res.connections.Lost,
		ServerCPU: r.server.last.cpu.Seconds(), RSS: r.server.last.rss, OwnCPU: r.ownCPU().Seconds(),
	}
	if h := res.second; h.TotalCount() > 0 {
		m.P50, m.P99, m.Max = h.ValueAtQuantile(50), h.ValueAtQuantile(99), h.Max()
		h.Reset()
	}
	r.own.sample(r.base)
	r.timeline = append(r.timeline, m)
}

func (r *run) progress(now time.Time) {
	r.shown = now
	g := r.now()
	fmt.Fprintf(r.plan.Progress, "%6s  %d connected, %d in a game, %d receipts, %d frames, %d kinds of fault\n",
		now.Sub(r.base).Round(time.Second), g.open, g.joined, r.results.stakes.Receipts, r.results.frames, len(r.results.faults))
}

// now is the sum of the workers' last gauges.
func (r *run) now() gauge {
	var sum gauge
	for _, g := range r.gauges {
		sum.add(g)
	}
	return sum
}

func (r *run) enter(p phase) {
	if r.crew != nil {
		r.crew.order(p)
	}
	for _, a := range r.remotes {
		r.tell(a, word{Phase: p})
	}
}

// stop ends the workers and takes their last tallies.
func (r *run) stop() {
	r.enter(phaseStop)
	r.await(context.Background(), farFuture, func() bool {
		if r.crew != nil {
			return len(r.tails) == len(r.crew.workers)
		}
		return r.living() == 0
	})
}

// ownCPU is what this process has used, or all agents.
func (r *run) ownCPU() time.Duration {
	cpu := r.own.last.cpu
	for _, a := range r.remotes {
		cpu += a.cpu
	}
	return cpu
}
