package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// remote is an agent as its coordinator sees it.
//
// Owner of every field below the line: the goroutine in Run. The line is read by the goroutine in follow from then on.
type remote struct {
	number  int
	address string
	line    *line

	facts   *facts
	deal    deal
	users   int
	clock   clock
	start   time.Duration // what clock.ahead was when its instants began to count
	heardAt time.Time
	done    bool   // its last tally has come
	died    string // why; empty: it has not
	diedAt  time.Duration

	cpu      time.Duration // of its process
	sum      *tally        // of what is judged by agent
	from, to part
}

// part is what an agent had counted at one moment.
type part struct {
	at        time.Duration
	cpu, busy time.Duration
}

// heard is a word of an agent.
type heard struct {
	from int
	word
	at  int64 // by the stopwatch
	err error
}

// startLead is the time from the order to start until the start: enough for it to arrive everywhere.
const startLead = time.Second

// muster finds the agents, deals the players out and learns how the clocks stand. Each agent that cannot play is a line of the error.
func (r *run) muster(ctx context.Context, t *target) error {
	r.remotes = make([]*remote, len(r.plan.Agents))
	for i, address := range r.plan.Agents {
		r.remotes[i] = &remote{number: i, address: address, sum: newTally(i, 0)}
	}
	err := r.eachRemote(func(a *remote) error { return a.call(ctx, r.plan.Secret) })
	if err == nil {
		r.plan.Workers = 0
		for _, a := range r.remotes {
			a.deal = deal{First: r.plan.Workers, Workers: a.facts.Workers}
			r.plan.Workers += a.facts.Workers
		}
		err = r.eachRemote(func(a *remote) error {
			a.users = a.deal.users(r.plan.Users, r.plan.Workers)
			return a.brief(ctx, &r.plan, r.stopwatch)
		})
	}
	r.gauges = make([]gauge, len(r.remotes))
	if err == nil {
		r.timekeeper = &timekeeper{target: t, watch: r.stopwatch}
		for range exchanges {
			told, failed := r.timekeeper.ask(ctx)
			if failed != nil {
				err = failed
				break
			}
			r.readServer(told)
		}
	}
	if err != nil {
		for _, a := range r.remotes {
			a.hangUp()
		}
		if r.timekeeper != nil {
			r.timekeeper.close()
		}
	}
	return err
}

// eachRemote does something with all agents at once.
func (r *run) eachRemote(do func(a *remote) error) error {
	wrong := make([]error, len(r.remotes))
	var all sync.WaitGroup
	for i, a := range r.remotes {
		all.Go(func() { // ends with do
			if err := do(a); err != nil {
				wrong[i] = fmt.Errorf("agent %s: %w", a.address, err)
			}
		})
	}
	all.Wait()
	return errors.Join(wrong...)
}

func (a *remote) call(ctx context.Context, secret string) error {
	dialer := net.Dialer{Timeout: strangerMax}
	conn, err := dialer.DialContext(ctx, "tcp", a.address)
	if err != nil {
		return fmt.Errorf("%w: start `server bench agent` there, or name another --agents", err)
	}
	a.line = newLine(conn)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetReadDeadline(time.Now().Add(strangerMax))
	a.facts, err = a.line.introduce(secret)
	return err
}

// brief tells the agent what to do, waits until it is ready, and compares clocks.
func (a *remote) brief(ctx context.Context, plan *Plan, watch stopwatch) error {
	defer context.AfterFunc(ctx, func() { a.line.conn.Close() })()
	a.line.conn.SetReadDeadline(time.Now().Add(taskMax))
	if err := a.line.say(word{Task: &task{Plan: *plan, Deal: a.deal}}); err != nil {
		return err
	}
	for left := exchanges; left > 0; {
		w, err := a.line.hear()
		switch {
		case err != nil:
			return err
		case w.Refused != "":
			return errors.New(w.Refused)
		case w.Clock != nil:
			back := watch.now()
			a.clock.hear(w.Clock.Sent, w.Clock.Received, w.Clock.Answered, back, watch.since(back))
			if left--; left == 0 {
				continue
			}
		case !w.Ready:
			continue // an empty tally
		}
		if err := a.line.say(word{Clock: &exchange{Sent: watch.now()}}); err != nil {
			return err
		}
	}
	a.line.conn.SetReadDeadline(time.Time{})
	return nil
}

func (a *remote) hangUp() {
	if a.line != nil {
		a.line.conn.Close()
	}
}

// begin orders the common start, and begins to listen.
func (r *run) begin(ctx context.Context) {
	at := r.stopwatch.now() + int64(startLead)
	r.base = r.stopwatch.at(at)
	r.heard = make(chan heard)
	for _, a := range r.remotes {
		a.heardAt, a.start = time.Now(), a.clock.ahead
		go a.line.follow(a.number, r.stopwatch, r.heard, r.over) // ends with the connection
		r.tell(a, word{Start: at + int64(a.clock.ahead)})
	}
	r.beat = time.NewTicker(r.plan.patience.word)
	r.keepInTouch()
	r.readings = make(chan reading)
	go r.timekeeper.follow(ctx, r.plan.patience.word, r.readings) // ends with ctx
}

// tell says a word to an agent that lives. That it cannot be said shows in what is heard.
func (r *run) tell(a *remote, w word) {
	if a.died == "" && !a.done {
		a.line.say(w)
	}
}

// keepInTouch finds out who has fallen silent, and says something to all the others: how the clocks stand, and as a sign of life.
func (r *run) keepInTouch() {
	for _, a := range r.remotes {
		if quiet := time.Since(a.heardAt); quiet > r.plan.patience.silence && a.died == "" && !a.done {
			r.mourn(a, fmt.Sprintf("nothing was heard of it for %s", quiet.Round(100*time.Millisecond)))
		}
		r.tell(a, word{Clock: &exchange{Sent: r.stopwatch.now(), Ahead: int64(r.clock.ahead - a.clock.ahead)}})
	}
}

// hear takes in a word of an agent.
func (r *run) hear(h heard) {
	a := r.remotes[h.from]
	if a.died != "" || a.done {
		return
	}
	a.heardAt = time.Now()
	switch {
	case h.err != nil:
		r.mourn(a, "its connection has ended: "+h.err.Error())
	case h.Refused != "":
		r.mourn(a, h.Refused)
	case h.Clock != nil:
		a.clock.hear(h.Clock.Sent, h.Clock.Received, h.Clock.Answered, h.at, r.stopwatch.since(h.at))
	case h.Tally != nil:
		t, tails, err := h.Tally.tally(a.number, r.plan.classes(), a.start-a.clock.ahead)
		if err != nil {
			r.mourn(a, "what it says cannot be: "+err.Error())
			return
		}
		a.cpu = h.Tally.CPU
		a.sum.busy += t.busy
		a.sum.frames += t.frames
		for _, m := range [...]meter{meterSendLag, meterReceiveLag} {
			a.sum.times[m].Merge(t.times[m])
		}
		a.done = len(tails) > 0
		r.tails = append(r.tails, tails...)
		r.take(t)
	}
}

// mourn goes on without an agent. When it was heard for the last time counts as the time of its death.
func (r *run) mourn(a *remote, why string) {
	a.died, a.diedAt = why, a.heardAt.Sub(r.base)
	a.hangUp()
	g := &r.gauges[a.number]
	*g = gauge{at: g.at, came: g.came, gone: a.users - g.came}
	r.plan.Log.Error("an agent died; the run goes on with the others", "agent", a.address, "why", why, "users", a.users, "of", r.plan.Users)
}

// living is how many agents are neither dead nor done.
func (r *run) living() (n int) {
	for _, a := range r.remotes {
		if a.died == "" && !a.done {
			n++
		}
	}
	return n
}

// bereft says whether all agents are dead.
func (r *run) bereft() bool {
	for _, a := range r.remotes {
		if a.died == "" {
			return false
		}
	}
	return len(r.remotes) > 0
}

func (r *run) readServer(told reading) {
	r.clock.hear(told.sent, told.told, told.told, told.back, r.stopwatch.since(told.back))
}

// markRemotes notes what each agent has counted by now.
func (r *run) markRemotes(where func(a *remote) *part) {
	for _, a := range r.remotes {
		*where(a) = part{at: r.gauges[a.number].at, cpu: a.cpu, busy: a.sum.busy}
	}
}

// dismiss lets all agents go.
func (r *run) dismiss() {
	if r.beat != nil {
		r.beat.Stop()
	}
	for _, a := range r.remotes {
		a.hangUp()
	}
}

// parts are the agents' parts in the run.
func (r *run) parts() (all []AgentPart) {
	for _, a := range r.remotes {
		span := a.to.at - a.from.at
		all = append(all, AgentPart{
			Address: a.address, Host: a.facts.Host, Kernel: a.facts.Kernel, CPUs: a.facts.CPUs, Workers: a.facts.Workers, Users: a.users,
			Share: float64(a.users) / float64(r.plan.Users), Frames: a.sum.frames,
			ClockAhead: micros(a.clock.ahead), ClockError: micros(a.clock.worst),
			Cores: share(a.to.cpu-a.from.cpu, span), Busy: share(a.to.busy-a.from.busy, span*time.Duration(a.facts.Workers)),
			SendLag: timesOf(a.sum.times[meterSendLag]).P99, ReceiveLag: timesOf(a.sum.times[meterReceiveLag]).P99,
			Died: a.died, DiedAt: max(0, a.diedAt.Seconds()),
		})
	}
	return all
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// clocks are the errors of times over several hosts: a publish time is the server's and its reading an agent's; the first and the last
// reader of a broadcast may be with the two agents whose clocks are known the least.
func (r *run) clocks() *Clocks {
	var most, second time.Duration
	for _, a := range r.remotes {
		switch e := a.clock.worst; {
		case e > most:
			most, second = e, most
		case e > second:
			second = e
		}
	}
	return &Clocks{ServerAhead: micros(r.clock.ahead), ServerError: micros(r.clock.worst), Published: micros(r.clock.worst + most), Spread: micros(most + second)}
}
