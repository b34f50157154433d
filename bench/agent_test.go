package bench

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hire starts an agent, which ends with the test.
func hire(t *testing.T, a *Agent) (address string, leave func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx, l) }()
	leave = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(leave)
	return l.Addr().String(), leave
}

// dealt is brief, over agents.
func dealt(target string, agents ...string) Plan {
	plan := brief(target)
	plan.Agents, plan.Secret, plan.Workers = agents, "s3cret", 0
	plan.patience.word, plan.patience.silence = 20*time.Millisecond, 20*time.Second
	return plan
}

// agentOf has the patience that the plan's coordinator has.
func agentOf(plan Plan) *Agent {
	return &Agent{Secret: "s3cret", Workers: 1, patience: plan.patience}
}

// Two agents, whose clocks are far off, play as one generator: each promise is judged over all their players, nothing is broken, and times over
// two clocks are right.
func TestAgentsPlayAsOne(t *testing.T) {
	t.Parallel()
	h := &house{plant: honest}
	target := h.open(t)
	early, late := agentOf(dealt("")), agentOf(dealt(""))
	early.skew, late.skew, late.Workers = 3*time.Hour, -90*time.Second, 2
	one, _ := hire(t, early)
	two, _ := hire(t, late)
	way := plug(t, two, 20*time.Millisecond) // by which the ways there and back differ: half of it is the error that nobody can see
	plan := dealt(target, one, way.address)
	plan.During = h.match
	report, err := Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	kept(t, report)
	if s := report.Stakes; s.Planned == 0 || s.Sent != s.Receipts+s.Late || report.Connections.Joined != 30 || report.Conditions.Workers != 3 {
		t.Errorf("%+v, %+v", s, report.Connections)
	}
	const minute = int64(time.Minute / time.Microsecond)
	for name, times := range map[string]Times{"odds": report.Latency.Odds, "other broadcasts": report.Latency.Lifecycle, "spread": report.Latency.Spread} {
		if times.Count == 0 || times.Mean <= 1 || times.Max > minute {
			t.Errorf("%s, over clocks that are minutes and hours off: %+v", name, times)
		}
	}
	for i, want := range []struct {
		users, workers int
		ahead          time.Duration
	}{{10, 1, early.skew}, {20, 2, late.skew}} {
		a := report.Agents[i]
		wrong := (time.Duration(a.ClockAhead*1000) - want.ahead).Abs()
		if a.Users != want.users || a.Workers != want.workers || a.Died != "" || a.Frames == 0 || a.ClockError <= 0 || wrong > time.Duration(a.ClockError*1000)+time.Microsecond {
			t.Errorf("agent %d: %+v", i, a)
		}
	}
	if least := float64((way.back / 2).Microseconds()); report.Agents[1].ClockError < least || report.Clocks.Spread < least || report.Clocks.Published < least {
		t.Errorf("the errors are less than half of the way's: %+v, %+v", report.Agents[1], report.Clocks)
	}
	if c := report.Clocks; c == nil || c.ServerError <= 0 || c.Published <= c.ServerError || c.Spread < report.Agents[0].ClockError {
		t.Errorf("%+v", c)
	}
	if report.Delivered.Frames != report.Agents[0].Frames+report.Agents[1].Frames {
		t.Errorf("%d frames in all, %+v", report.Delivered.Frames, report.Agents)
	}
}

// What no agent can see alone, the coordinator finds in the sum.
func TestAgentsFindWhatIsPlanted(t *testing.T) {
	for _, row := range []struct {
		plant plant
		finds string
	}{
		{oddsOff, promises[checkOdds]},
		{differentOdds, promises[checkSame]},
		{skipTail, promises[checkTail]},
		{losePayout, promises[checkTickets]},
		{closeOne, "closed by the server: 1013 server is full"},
	} {
		t.Run(string(row.plant), func(t *testing.T) {
			t.Parallel()
			h := &house{plant: row.plant}
			target := h.open(t)
			one, _ := hire(t, agentOf(dealt("")))
			two, _ := hire(t, agentOf(dealt("")))
			plan := dealt(target, one, two)
			plan.During = h.match
			if row.plant == oddsOff {
				plan.During = func(ctx context.Context) error { return h.stakesCome(ctx, 4*plantFrom) }
			}
			report, err := Run(t.Context(), plan)
			if err != nil {
				t.Fatal(err)
			}
			if err := report.Failed(); err == nil || !strings.Contains(err.Error(), row.finds) {
				t.Errorf("want %q, got %v", row.finds, err)
			}
		})
	}
}

// cable is a way to an agent that can be pulled: then nothing comes through any more, and no end of it either.
type cable struct {
	address string
	back    time.Duration // how much longer the way back is
	pulled  atomic.Bool
}

func plug(t *testing.T, to string, back time.Duration) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{address: l.Addr().String(), back: back}
	var all sync.WaitGroup
	ctx, end := context.WithCancel(context.Background())
	carry := func(from, to net.Conn, longer time.Duration) {
		b := make([]byte, 64<<10)
		for {
			n, err := from.Read(b)
			time.Sleep(longer)
			for c.pulled.Load() {
				if ctx.Err() != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
			if _, failed := to.Write(b[:n]); err != nil || failed != nil {
				to.Close()
				return
			}
		}
	}
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			context.AfterFunc(ctx, func() { near.Close(); far.Close() })
			all.Go(func() { carry(near, far, 0) })
			all.Go(func() { carry(far, near, c.back) })
		}
	})
	t.Cleanup(func() {
		end()
		l.Close()
		all.Wait()
	})
	return c
}

// An agent dies, by its own end or because its cable is pulled: the others play on, the report says who, when and with how much of the load, and the
// run has failed for that and for nothing else.
func TestAgentDies(t *testing.T) {
	for _, row := range []struct {
		name string
		says string
		pull bool
	}{
		{"ends", "it was stopped", false},
		{"falls silent", "nothing was heard of it for ", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := &house{plant: honest}
			target := h.open(t)
			base := dealt("")
			if row.pull {
				base.patience.silence = 4 * time.Second
			}
			one, _ := hire(t, agentOf(base))
			two, leave := hire(t, agentOf(base))
			way := plug(t, two, 0)
			plan := dealt(target, one, way.address)
			plan.patience = base.patience
			plan.During = func(ctx context.Context) error {
				if err := h.stakesCome(ctx, 2*plantFrom); err != nil {
					return err
				}
				if row.pull {
					way.pulled.Store(true)
				} else {
					leave()
				}
				// Its players are gone, as the agent ends its part too; the others' stakes go on.
				if err := h.await(ctx, func() bool { return h.there == 15 }); err != nil {
					return err
				}
				h.mu.Lock()
				stakes := h.stakes
				h.mu.Unlock()
				return h.stakesCome(ctx, stakes+2*plantFrom)
			}
			report, err := Run(t.Context(), plan)
			if err != nil {
				t.Fatal(err)
			}
			dead := report.Agents[1]
			if report.Agents[0].Died != "" || !strings.Contains(dead.Died, row.says) || dead.DiedAt <= 0 || dead.Share != 0.5 {
				t.Errorf("%+v", report.Agents)
			}
			failed := report.Failed()
			if failed == nil || !strings.Contains(failed.Error(), "and with it 15 users, 50 % of the load") || strings.Contains(failed.Error(), "\n") {
				t.Errorf("%v", failed)
			}
			var text bytes.Buffer
			if report.WriteText(&text); !strings.Contains(text.String(), "  DIED  agent "+way.address) {
				t.Errorf("%s", &text)
			}
		})
	}
}

func TestAllAgentsDie(t *testing.T) {
	t.Parallel()
	h := &house{plant: honest}
	target := h.open(t)
	one, leave := hire(t, agentOf(dealt("")))
	plan := dealt(target, one)
	plan.During = func(ctx context.Context) error {
		defer leave()
		if err := h.stakesCome(ctx, plantFrom); err != nil {
			return err
		}
		leave()
		<-ctx.Done()
		return nil
	}
	report, err := Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Failed(); err == nil || report.Unfinished != "all agents died" {
		t.Errorf("%q, %v", report.Unfinished, err)
	}
}

// A coordinator that is gone takes its run with it, and the agent is free for the next one.
func TestCoordinatorDies(t *testing.T) {
	t.Parallel()
	h := &house{plant: honest}
	plan := dealt(h.open(t)).withDefaults()
	a := agentOf(plan)
	address, _ := hire(t, a)
	r := &remote{address: address, deal: deal{Workers: 1}}
	if err := r.call(t.Context(), plan.Secret); err != nil {
		t.Fatal(err)
	}
	plan.Workers = 1
	watch := stopwatch{from: time.Now()}
	if err := r.brief(t.Context(), &plan, watch); err != nil {
		t.Fatal(err)
	}
	if err := r.line.say(word{Start: watch.now() + int64(r.clock.ahead)}); err != nil {
		t.Fatal(err)
	}
	if err := h.await(t.Context(), func() bool { return h.there == plan.Users }); err != nil {
		t.Fatal(err)
	}
	second := &remote{address: address, deal: deal{Workers: 1}}
	if err := second.call(t.Context(), plan.Secret); err != nil {
		t.Fatal(err)
	}
	if err := second.brief(t.Context(), &plan, watch); err == nil || !strings.Contains(err.Error(), "it plays in another run") {
		t.Error(err)
	}
	r.hangUp()
	if err := h.await(t.Context(), func() bool { return h.there == 0 }); err != nil {
		t.Fatal(err)
	}
	plan = dealt(plan.Target, address)
	plan.Duration = 100 * time.Millisecond
	report, err := Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Failed(); err != nil {
		t.Error(err)
	}
}

// An agent that is ready before the others is not impatient: its coordinator says nothing until all are.
func TestAgentWaitsForTheStart(t *testing.T) {
	t.Parallel()
	plan := dealt((&house{plant: honest}).open(t)).withDefaults()
	plan.patience.silence = 50 * time.Millisecond
	address, _ := hire(t, agentOf(plan))
	r := &remote{address: address, deal: deal{Workers: 1}}
	if err := r.call(t.Context(), plan.Secret); err != nil {
		t.Fatal(err)
	}
	defer r.hangUp()
	plan.Workers = 1
	if err := r.brief(t.Context(), &plan, stopwatch{from: time.Now()}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * plan.patience.silence)
	if err := r.line.say(word{Clock: &exchange{Sent: 1}}); err != nil {
		t.Fatal(err)
	}
	for {
		w, err := r.line.hear()
		if err != nil {
			t.Fatal(err)
		}
		if w.Clock != nil && w.Clock.Sent == 1 {
			return
		}
	}
}

func TestRunOverAgentsSaysInOneLineWhyThereIsNone(t *testing.T) {
	t.Parallel()
	target := (&house{plant: honest}).open(t)
	good, _ := hire(t, agentOf(dealt("")))
	cramped := agentOf(dealt(""))
	cramped.Secret = "other"
	other, _ := hire(t, cramped)
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	go func() {
		if conn, err := mute.Accept(); err == nil {
			io.WriteString(conn, "SSH-2.0-OpenSSH\r\n")
			conn.Close()
		}
	}()
	for _, row := range []struct {
		name   string
		change func(*Plan)
		want   string
	}{
		{"nobody there", func(p *Plan) { p.Agents = []string{good, "127.0.0.1:1"} }, "agent 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused: start `server bench agent` there"},
		{"another secret", func(p *Plan) { p.Agents = []string{good, other} }, "agent " + other + ": the secrets differ"},
		{"somebody else", func(p *Plan) { p.Agents = []string{mute.Addr().String()} }, "no word of ours"},
		{"too many for its descriptors", func(p *Plan) { p.Agents, p.Users = []string{good}, 15_000_000 }, "agent " + good + ": 15000000 users need 15000064 descriptors"},
		{"with tokens", func(p *Plan) { p.Agents, p.Tokens = []string{good}, func(int) string { return "" } }, "players of agents are guests"},
	} {
		t.Run(row.name, func(t *testing.T) {
			plan := dealt(target)
			row.change(&plan)
			_, err := Run(t.Context(), plan)
			if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("want %q, got %v", row.want, err)
			}
		})
	}
}

func TestAgentIsNotOpenToAll(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Agent{}).Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "anybody could start a load: set a secret") {
		t.Error(err)
	}
}

// Every player falls to one agent, and each agent's are numbered from 0 without a gap.
func TestDeal(t *testing.T) {
	const users = 100
	workers := []int{1, 3, 2}
	dealt, all, first := map[int]bool{}, 6, 0
	for _, n := range workers {
		d := deal{First: first, Workers: n}
		places := map[int]bool{}
		for i := range users {
			if w := i % all; w >= first && w < first+n {
				dealt[i], places[d.place(i, all)] = true, true
			}
		}
		if len(places) != d.users(users, all) {
			t.Errorf("%+v: %d places for %d users", d, len(places), d.users(users, all))
		}
		for at := range places {
			if at < 0 || at >= len(places)+n { // the last round may have gaps
				t.Errorf("%+v: place %d of %d", d, at, len(places))
			}
		}
		first += n
	}
	if len(dealt) != users || (deal{}).users(users, all) != users || (deal{}).place(7, all) != 7 {
		t.Errorf("%d dealt", len(dealt))
	}
}
