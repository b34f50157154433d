package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"tote/server/bench/model"
)

// Sweep finds the greatest throughput of a server of its own with 1, 2, … cores, loops or shards, for models of scalability to be fitted to. With
// cores it gets as many event loops and shards as cores, and no others than these; the generator may use all.
type Sweep struct {
	Vary    Varied        // VaryCores if empty
	To      int           // up to so many of what varies; 0: as many as the host has cores
	From    Rate          // the first rate that is tried, 0: 1000/s
	P99     time.Duration // a rate is held if 99 % of the receipts come within this; 0: 100 ms
	Steps   int           // bisections between the last rate that was held and the first that was not; 0: 3
	Text    io.Writer     // a line for each run; nil: none
	Reports []*Report     // the best run of each number of cores, filled in by Run
}

// Varied is what a sweep has more and more of.
type Varied string

const (
	VaryCores  Varied = "cores"
	VaryLoops  Varied = "loops"  // of all cores, with as many shards as serve has by itself
	VaryShards Varied = "shards" // likewise
)

// give has a server run with n of it.
func (v Varied) give(on *Stage, n int, flags []string) {
	switch v {
	case VaryLoops:
		on.Serve = []string{fmt.Sprint("--loops=", n)}
	case VaryShards:
		on.Serve = []string{fmt.Sprint("--shards=", n)}
	default:
		on.Cores = n
		on.Serve = []string{fmt.Sprint("--loops=", n), fmt.Sprint("--shards=", n)}
	}
	on.Serve = append(on.Serve, flags...)
}

// missedPart is the part of the planned stakes that may find all players waiting, for a rate to count as held.
const missedPart = 0.01

// doublingsMax bounds the search upwards: a thousand times the first rate.
const doublingsMax = 10

// Run sweeps; the scenario's stakes are replaced by the rates that are tried.
func (w *Sweep) Run(ctx context.Context, scenario *Scenario, on Stage) (*model.Data, error) {
	if w.To == 0 {
		w.To = runtime.NumCPU()
	}
	if w.From == 0 {
		w.From = 1000
	}
	if w.P99 == 0 {
		w.P99 = 100 * time.Millisecond
	}
	if w.Steps == 0 {
		w.Steps = 3
	}
	if on.Target != "" {
		return nil, errors.New("a sweep needs servers of its own: name no target")
	}
	if w.Vary == "" {
		w.Vary = VaryCores
	}
	if w.To < 2 || w.Vary == VaryCores && w.To > runtime.NumCPU() {
		return nil, fmt.Errorf("sweep up to %d %s: from 2 on, and of cores to the %d of this host", w.To, w.Vary, runtime.NumCPU())
	}
	data := &model.Data{}
	flags := on.Serve
	for n := 1; n <= w.To; n++ {
		w.Vary.give(&on, n, flags)
		best, err := w.climb(func(rate Rate) (*Report, error) { return w.try(ctx, *scenario, on, n, rate) })
		if err != nil {
			return nil, err
		}
		if best == nil {
			return nil, fmt.Errorf("with %d %s the server does not hold %.0f stakes/s: begin lower (--first)", n, w.Vary, float64(w.From))
		}
		w.Reports = append(w.Reports, best)
		data.Points = append(data.Points, model.Point{P: float64(n), X: throughput(best)})
	}
	return data, nil
}

// throughput is what a run that held its rate has answered, per second of play; what came after play belongs to stakes that were sent in it.
func throughput(r *Report) float64 {
	return float64(r.Stakes.answered()) / max(r.Conditions.Played, 1e-3)
}

// climb doubles the rate until it is not held, then halves the distance. try returns nil where the rate was not held.
func (w *Sweep) climb(try func(rate Rate) (*Report, error)) (best *Report, err error) {
	held, missed := Rate(0), Rate(0)
	for rate := w.From; ; {
		report, err := try(rate)
		switch {
		case err != nil:
			return nil, err
		case report != nil:
			held = rate
			if best == nil || throughput(report) > throughput(best) {
				best = report
			}
		default:
			missed = rate
		}
		switch {
		case held == 0 || missed == 0 && held > w.From*(1<<doublingsMax):
			return best, nil
		case missed == 0:
			rate *= 2
		default:
			if rate = (held + missed) / 2; float64(missed-held) < float64(missed)/float64(int(1)<<(w.Steps+1)) {
				return best, nil
			}
		}
	}
}

// try plays one rate. The report is nil where it was not held.
func (w *Sweep) try(ctx context.Context, s Scenario, on Stage, n int, rate Rate) (*Report, error) {
	s.Players.Stakes = rate
	on.NoLimits = true
	report, err := s.Run(ctx, on)
	switch {
	case report == nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	st := &report.Stakes
	held := float64(st.Missed) <= missedPart*float64(st.Planned) && report.Latency.Receipt.P99 <= w.P99.Microseconds()
	verdict := "held"
	if !held {
		verdict = "not held"
	}
	if report.Generator.Bottleneck {
		verdict += "; the generator was the bottleneck"
	}
	failed := errors.Join(report.Failed(), err)
	if failed != nil {
		verdict += fmt.Sprintf("; %v", failed)
	}
	if w.Text != nil {
		fmt.Fprintf(w.Text, "%d %s, %.0f stakes/s: %.0f answered, 99 %% within %s ms, %s\n", n, w.Vary, float64(rate), throughput(report),
			milliseconds(report.Latency.Receipt.P99), verdict)
	}
	if !held {
		return nil, nil // an overloaded server may refuse; that it was overloaded is all that counts
	}
	return report, failed
}

// confine keeps the calling thread, and the processes that it starts, on the first cores of those that it may use; undo lets it go again.
// The thread is locked meanwhile.
func confine(cores int) (undo func(), err error) {
	runtime.LockOSThread()
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("read the CPUs that may be used: %w", err)
	}
	for cpu := 0; after.Count() < min(cores, before.Count()); cpu++ {
		if before.IsSet(cpu) {
			after.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &after); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("choose %d CPUs: %w", cores, err)
	}
	return func() {
		// Should this fail, the thread stays locked and ends with its goroutine, as Go wants it of a thread that was changed.
		if unix.SchedSetaffinity(0, &before) == nil {
			runtime.UnlockOSThread()
		}
	}, nil
}
