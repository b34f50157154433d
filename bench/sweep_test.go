package bench

import (
	"errors"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// A server that holds up to so many per second is found out to within the last bisection, from below.
func TestSweepClimbs(t *testing.T) {
	for _, most := range []Rate{1, 90, 100, 101, 777, 1600, 5000} {
		tried := 0
		w := Sweep{From: 100, Steps: 3}
		best, err := w.climb(func(rate Rate) (*Report, error) {
			if tried++; rate > most {
				return nil, nil
			}
			r := &Report{Conditions: Conditions{Played: 1}}
			r.Stakes.Receipts = uint64(rate)
			return r, nil
		})
		switch {
		case err != nil || tried > 12:
			t.Fatalf("%g: %d tries, %v", most, tried, err)
		case most < 100:
			if best != nil {
				t.Errorf("%g: %g was held", most, throughput(best))
			}
		case best == nil || throughput(best) > float64(most) || throughput(best) < 0.87*float64(most):
			t.Errorf("%g: found %+v", most, best)
		}
	}
	broken := errors.New("broken")
	if _, err := (&Sweep{From: 1}).climb(func(Rate) (*Report, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// A process that is started while its parent is confined has so many CPUs, and the parent has all again afterwards.
func TestConfine(t *testing.T) {
	cpus := func() string {
		out, err := exec.Command("nproc").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	before := cpus()
	undo, err := confine(1)
	if err != nil {
		t.Fatal(err)
	}
	inside := cpus()
	undo()
	if after := cpus(); inside != "1" || after != before {
		t.Errorf("before %s, confined %s, after %s", before, inside, after)
	}
}

func TestSweepRefuses(t *testing.T) {
	for want, run := range map[string]func() error{
		"name no target": func() error { _, err := (&Sweep{}).Run(t.Context(), &Scenario{}, Stage{Target: "ws://x"}); return err },
		"from 2 on": func() error {
			_, err := (&Sweep{To: runtime.NumCPU() + 1}).Run(t.Context(), &Scenario{}, Stage{})
			return err
		},
	} {
		if err := run(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// What varies is given to the server, before flags of the caller's own.
func TestVaried(t *testing.T) {
	for _, tt := range []struct {
		vary  Varied
		want  string
		cores int
	}{
		{VaryCores, "--loops=3 --shards=3 --x", 3},
		{VaryLoops, "--loops=3 --x", 0},
		{VaryShards, "--shards=3 --x", 0},
	} {
		var on Stage
		tt.vary.give(&on, 3, []string{"--x"})
		if got := strings.Join(on.Serve, " "); got != tt.want || on.Cores != tt.cores {
			t.Errorf("%s: %s on %d cores", tt.vary, got, on.Cores)
		}
	}
}
