package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Agent plays a share of a run's players on its host, for a coordinator elsewhere: one run at a time.
//
//	            words                 phases             frames
//	coordinator ◀────▶ Agent.conduct ───────▶ crew ◀────────────▶ server
//	                         ▲                 │
//	                         └──── tallies ────┘
type Agent struct {
	Secret  string       // that coordinators must have; empty: any of them may come
	Sources []netip.Addr // see Plan
	Workers int          // event loops, 0: one for each CPU
	Log     *slog.Logger

	turn     chan struct{} // holds one while a run goes on; made by Serve
	skew     time.Duration
	patience patience
}

// strangerMax bounds the time in which a coordinator proves that it has the secret, taskMax that until it has a task, turnMax that until a task has
// its turn.
const (
	strangerMax = 5 * time.Second
	taskMax     = 30 * time.Second
	// A coordinator may call for its next run before we have heard that it has hung up on the last one.
	turnMax = 2 * time.Second
)

// checkOpen refuses to listen where strangers could have this host play against anybody.
func (a *Agent) checkOpen(address net.Addr) error {
	if at, ok := address.(*net.TCPAddr); a.Secret == "" && ok && !at.IP.IsLoopback() {
		return fmt.Errorf("on %s anybody could start a load: set a secret (--token-file, or SERVER_AGENT_TOKEN), or listen on 127.0.0.1", address)
	}
	return nil
}

// Serve plays for whoever calls, until ctx is done.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	if err := errors.Join(a.checkOpen(l.Addr()), checkSources(a.Sources)); err != nil {
		l.Close()
		return err
	}
	a.log().Info("waiting for coordinators", "on", l.Addr().String())
	a.turn = make(chan struct{}, 1)
	var all sync.WaitGroup
	defer all.Wait()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept a coordinator: %w", err)
		}
		all.Go(func() { // ends with the run, or with ctx
			defer conn.Close()
			if err := a.answer(ctx, conn); err != nil {
				a.log().Warn("a coordinator's call has ended", "from", conn.RemoteAddr(), "err", err)
			}
		})
	}
}

func (a *Agent) log() *slog.Logger {
	if a.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return a.Log
}

func (a *Agent) workers() int {
	if a.Workers > 0 {
		return a.Workers
	}
	return runtime.GOMAXPROCS(0)
}

// answer is one coordinator's call.
func (a *Agent) answer(ctx context.Context, conn net.Conn) error {
	l := newLine(conn)
	conn.SetReadDeadline(time.Now().Add(strangerMax))
	f := facts{CPUs: runtime.NumCPU(), Workers: a.workers(), Kernel: kernelName()}
	f.Host, _ = os.Hostname()
	if err := l.receive(a.Secret, f); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(taskMax))
	w, err := l.hear()
	if err != nil {
		return fmt.Errorf("wait for a task: %w", err)
	}
	if w.Task == nil {
		return errors.New("it has no task")
	}
	conn.SetReadDeadline(time.Time{})
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-time.After(turnMax):
		return l.say(word{Refused: "it plays in another run; wait for its end"})
	case <-ctx.Done():
		return nil
	}
	run, err := a.prepare(ctx, w.Task, l)
	if err != nil {
		return l.say(word{Refused: err.Error()})
	}
	return run.conduct(ctx)
}

func kernelName() string {
	var kernel unix.Utsname
	if unix.Uname(&kernel) != nil {
		return ""
	}
	return unix.ByteSliceToString(kernel.Sysname[:]) + " " + unix.ByteSliceToString(kernel.Release[:])
}

// agentRun is a run as an agent has a part in it.
//
// Owner of every field below: the goroutine in conduct.
type agentRun struct {
	line    *line
	log     *slog.Logger
	plan    Plan
	users   int
	crew    *crew
	watch   stopwatch
	start   int64        // of the run, by the watch
	started bool         // … has come
	server  atomic.Int64 // see worker
	phase   phase        // the last that was ordered
	own     process
	gauges  []gauge
	sum     *tally // since the last word
	tails   []*tail
	heardAt time.Time
}

// prepare makes everything ready, and refuses what would end in faults.
func (a *Agent) prepare(ctx context.Context, t *task, l *line) (*agentRun, error) {
	r := &agentRun{line: l, log: a.log(), plan: t.Plan, watch: stopwatch{from: time.Now(), skew: a.skew}, own: process{pids: []int{ownPID}, alone: true}}
	r.plan.deal, r.plan.Sources, r.plan.patience, r.plan.Log = t.Deal, a.Sources, a.patience, r.log
	if t.Deal.First < 0 || t.Deal.Workers < 1 || t.Deal.First+t.Deal.Workers > t.Plan.Workers {
		return nil, fmt.Errorf("a deal of %d workers from %d, of %d", t.Deal.Workers, t.Deal.First, t.Plan.Workers)
	}
	r.plan = r.plan.withDefaults()
	if err := r.plan.check(); err != nil {
		return nil, err
	}
	r.users = t.Deal.users(r.plan.Users, r.plan.Workers)
	target, err := resolve(ctx, r.plan.Target, r.plan.Through, r.plan.Trust)
	if err != nil {
		return nil, err
	}
	if err := r.plan.checkPorts(target); err != nil {
		return nil, err
	}
	if err := checkDescriptors(r.users); err != nil {
		return nil, err
	}
	for _, url := range target.urls() {
		if err := target.knock(ctx, url); err != nil {
			return nil, err
		}
	}
	if r.crew, err = newCrew(&r.plan, target, &r.server); err != nil {
		return nil, err
	}
	r.gauges, r.sum = make([]gauge, len(r.crew.workers)), newTally(0, r.plan.classes())
	return r, nil
}

var errBereft = errors.New("the coordinator has gone, and the run with it")

// conduct does what the coordinator says until that hangs up, or until nothing is heard of it. Hanging up is left to the coordinator: words of its
// that we had not read would take our last one with them.
func (r *agentRun) conduct(ctx context.Context) error {
	defer r.end()
	if err := r.line.say(word{Ready: true}); err != nil {
		return err
	}
	r.log.Info("a run begins", "coordinator", r.line.conn.RemoteAddr(), "target", r.plan.Target, "users", r.users, "of", r.plan.Users)
	words, over := make(chan heard), make(chan struct{})
	defer close(over)
	go r.line.follow(0, r.watch, words, over) // ends with the connection, which is closed after conduct
	r.heardAt = time.Now()
	tick := time.NewTicker(r.plan.patience.word)
	defer tick.Stop()
	begin := time.NewTimer(farFuture)
	defer begin.Stop()
	for {
		select {
		case h := <-words:
			if h.err != nil && r.over() {
				return nil // it has heard all that there was, and so hung up
			}
			if h.err != nil {
				return fmt.Errorf("%w: %w", errBereft, h.err)
			}
			r.heardAt = time.Now()
			if err := r.obey(h.word, h.at, begin); err != nil {
				return fmt.Errorf("%w: %w", errBereft, err)
			}
		case <-begin.C:
			r.started = true
			r.crew.start(r.watch.at(r.start))
			if r.phase != phaseConnect {
				r.crew.order(r.phase)
			}
		case t := <-r.crew.tallies:
			r.take(t)
			if r.over() {
				r.log.Info("the run is over")
				if err := r.report(); err != nil {
					return fmt.Errorf("%w: %w", errBereft, err)
				}
			}
		case <-tick.C:
			patience := r.plan.patience.silence
			if r.start == 0 { // others may not be ready yet
				patience = taskMax
			}
			if time.Since(r.heardAt) > patience {
				return fmt.Errorf("nothing was heard of the coordinator for %s: the run is over", patience)
			}
			if r.over() {
				continue
			}
			if err := r.report(); err != nil {
				return fmt.Errorf("%w: %w", errBereft, err)
			}
		case <-ctx.Done():
			r.line.say(word{Refused: "it was stopped"})
			return nil
		}
	}
}

func (r *agentRun) obey(w word, at int64, begin *time.Timer) error {
	switch {
	case r.over():
		// What has crossed our last word needs no answer.
	case w.Clock != nil:
		w.Clock.Received = at
		if w.Clock.Ahead != 0 && r.start != 0 {
			r.server.Store((r.start + w.Clock.Ahead) / 1000)
		}
		w.Clock.Answered = r.watch.now()
		return r.line.say(word{Clock: w.Clock})
	case w.Start != 0 && r.start == 0:
		r.start = w.Start
		begin.Reset(time.Until(r.watch.at(w.Start)))
	case w.Phase > r.phase && w.Phase <= phaseStop:
		r.phase = w.Phase
		if r.started {
			r.crew.order(w.Phase)
		}
	}
	return nil
}

// take adds a worker's tally to the next word.
func (r *agentRun) take(t *tally) {
	r.sum.add(t)
	r.gauges[t.worker] = t.gauge
	if t.tail != nil {
		r.tails = append(r.tails, t.tail)
	}
	r.crew.giveBack(t)
}

// over says whether all workers have ended.
func (r *agentRun) over() bool { return len(r.tails) == len(r.crew.workers) }

// report says what was counted since the last time.
func (r *agentRun) report() error {
	r.own.sample(r.watch.from)
	var tails []*tail
	if r.over() {
		tails = r.tails
	}
	r.sum.gauge = gauge{}
	for _, g := range r.gauges {
		r.sum.gauge.add(g)
		r.sum.gauge.at += g.at / time.Duration(len(r.gauges))
	}
	err := r.line.say(word{Tally: lineOf(r.sum, tails, r.own.last.cpu)})
	r.sum.clear()
	return err
}

// end lets the players go, whatever has ended the run.
func (r *agentRun) end() {
	if !r.started {
		r.crew.close()
		return
	}
	if r.over() {
		return
	}
	if r.phase < phaseFarewell {
		r.crew.order(phaseFarewell)
	}
	patience := time.After(r.plan.patience.farewell)
	stopped := r.phase == phaseStop
	for left := len(r.crew.workers) - len(r.tails); left > 0; {
		select {
		case t := <-r.crew.tallies:
			r.gauges[t.worker] = t.gauge
			if t.tail != nil {
				left--
			}
			r.crew.giveBack(t)
		case <-patience:
			if !stopped {
				r.crew.order(phaseStop)
			}
			stopped = true
		}
		open := 0
		for _, g := range r.gauges {
			open += g.open
		}
		if open == 0 && !stopped {
			r.crew.order(phaseStop)
			stopped = true
		}
	}
}
