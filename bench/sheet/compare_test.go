package sheet

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"tote/server/bench"
	"tote/server/bench/limit"
)

// inRounds are runs of a contest at these speeds, from round 1 on; 0: the round was lost.
func inRounds(name string, speeds ...float64) *Group {
	g := &Group{Name: name}
	for i, speed := range speeds {
		if speed > 0 {
			r := sample(speed)
			r.Conditions.Round = i + 1
			r.Server.PSSPerConn = 4000 / speed
			g.Runs = append(g.Runs, r)
		}
	}
	return g
}

func score(t *testing.T, name string) *Score {
	t.Helper()
	for i := range scores {
		if scores[i].Name == name {
			return &scores[i]
		}
	}
	t.Fatalf("there is no score %q", name)
	return nil
}

// What a round does to both is not in their ratio: a machine that is ten times slower every other round leaves the interval as it is.
func TestRatioByRound(t *testing.T) {
	answers := score(t, "stakes answered")
	// Ratios 2, 2.1, 1.9, 2.05, 1.95: by hand, the mean of logarithms is 0.692522 and their standard deviation 0.039561, t(4) is 2.776445.
	base, other := inRounds("ours", 1, 10, 1, 10, 1), inRounds("other", 2, 21, 1.9, 20.5, 1.95)
	r, ok := ratio(answers, base, other)
	half := 2.776445 * 0.039561 / math.Sqrt(5)
	if !ok || math.Abs(math.Log(r.Value)-0.692522) > 1e-5 || math.Abs(math.Log(r.Low)-0.692522+half) > 1e-5 || math.Abs(math.Log(r.High)-0.692522-half) > 1e-5 {
		t.Errorf("%+v", r)
	}
	for _, runs := range [][]*bench.Report{base.Runs, other.Runs} {
		for _, run := range runs {
			run.Conditions.Round = 0
		}
	}
	if wide, _ := ratio(answers, base, other); wide.Verdict(1) != "no difference shown" || wide.High < 5*r.High {
		t.Errorf("of runs that have nothing in common: %+v", wide)
	}
	// A round that one of them lost is in no ratio, and four are too few for an interval.
	r, ok = ratio(answers, inRounds("ours", 1, 1, 1, 1, 1), inRounds("other", 2, 0, 2, 2, 2))
	if !ok || math.Abs(r.Value-2) > 1e-9 || r.High != 0 {
		t.Errorf("%+v", r)
	}
	r, _ = ratio(answers, inRounds("ours", 1, 1, 1, 1, 1, 50), inRounds("other", 2, 2, 2, 2, 2, 0))
	if math.Abs(r.Value-2) > 1e-9 || r.Verdict(1) != "better" {
		t.Errorf("%+v", r)
	}
	if _, ok := ratio(answers, inRounds("ours", 1, 0), inRounds("other", 0, 1)); ok {
		t.Error("rounds of which each was lost by one of them are compared")
	}
}

// The joined scores are combined by a geometric mean: in the sample two of five are as good as the speed, two twice as bad for the latencies' sake.
func TestJoined(t *testing.T) {
	base, other := inRounds("ours", 1, 1, 1, 1, 1), inRounds("other", 2, 2, 2, 2, 2)
	for _, r := range other.Runs { // latencies are those of the base, µs and memory a half, CPU per receipt a quarter
		r.Latency.Spread.P99 *= 8
	}
	r, ok := joined(base, other)
	want := math.Pow(1*8*(1./2)*(1./4)*(1./2), 1./5) // receipt, spread, per message, per receipt, memory
	if !ok || math.Abs(r.Value-want) > 1e-9 || math.Abs(r.Low-want) > 1e-9 {
		t.Errorf("%+v, want %g", r, want)
	}
	for _, run := range other.Runs {
		run.Server = nil
	}
	if r, ok := joined(base, other); ok {
		t.Errorf("a mean of what is left: %+v", r)
	}
	if _, ok := joined(&Group{Runs: []*bench.Report{sample(1)}}, &Group{Runs: []*bench.Report{sample(1)}}); ok {
		t.Error("runs of no contest are combined")
	}
}

func TestTimesTheLimit(t *testing.T) {
	g := inRounds("ours", 1, 1)
	if times := g.OfLimit(score(t, "CPU per message")); times != 0 {
		t.Errorf("%g times a limit that was not measured", times)
	}
	for i, write := range []float64{1, 4} { // 8 µs per message: 8 and 2 times
		g.Runs[i].Limits = &limit.Limits{Write: limit.Cost{CPU: write}, Read: limit.Cost{CPU: 2}, Encode: limit.Cost{CPU: 0.5}, Decode: limit.Cost{CPU: 0.5}, Sync: limit.Cost{Wall: 250}}
		g.Runs[i].Delivered.Broadcasts = 10
		g.Runs[i].Latency.Lifecycle.Count = 500
	}
	for name, want := range map[string]float64{
		"CPU per message":       4,                                      // √(8·2)
		"receipt, median":       2,                                      // 500 µs by 250
		"CPU per receipt":       5000 / math.Sqrt((50*1+3.)*(50*4+3.)),  // 0.5 cores for 100/s; 50 messages for each, one read, decoded and encoded
		"delivery spread, 99 %": 5000. / 150 / math.Sqrt(1*4),           // 1,500 readers of 10 broadcasts
		"server's CPU":          500_000 / math.Sqrt(5300.0*20_300),     // µs in a second
		"stakes answered":       100 / (2e6 / math.Sqrt((1+3.)*(4+3.))), // by 2 cores that do nothing else
		"memory per connection": 0,
	} {
		if times := g.OfLimit(score(t, name)); math.Abs(times-want) > 1e-6*want {
			t.Errorf("%s: %g times the limit, want %g", name, times, want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, row := range []struct {
		speeds []float64
		want   float64
	}{{[]float64{3, 1, 2}, 200}, {[]float64{4, 1, 2, 100}, 300}, {nil, 0}} {
		if got := inRounds("x", row.speeds...).Median(score(t, "stakes answered")); math.Abs(got-row.want) > 1e-9 {
			t.Errorf("of %v: %g", row.speeds, got)
		}
	}
}

// People read what was measured, how sure it is, what was promised and not kept, and which rounds are missing.
func TestComparisonAsText(t *testing.T) {
	ours, other := inRounds("ours", 1, 1.1, 0.9, 1, 1), inRounds("other", 0.5, 0.5, 0.5, 0.5, 0.5)
	for i, r := range other.Runs[:2] {
		r.Checks[0].Failed, r.Checks[0].Example = uint64(3+i), "player 7"
		r.Faults = []bench.Fault{{Kind: "closed", Count: 2, Example: "1006"}}
	}
	other.Runs[0].Generator.Bottleneck = true
	silent := &Group{Name: "silent", Lost: []string{"round 1: it did not start"}}
	s := &Sheet{Groups: []*Group{ours, other, silent}}
	var text bytes.Buffer
	s.WriteText(&text)
	said := strings.Join(strings.Fields(text.String()), " ")
	for _, want := range []string{"medians of 5 and 5 runs", "stakes answered 1/s 100 50 0.50 × (0.46 to 0.55) worse", "receipt, median ms 0.5 0.5 1.00 × (1.00 to 1.00) no difference shown",
		"CPU per message • µs 8 16 2.00 × (1.8", "the 5 with a • together", "ours: every audit agreed in 5 of 5 runs", "other: every audit agreed in 3 of 5 runs",
		"BROKEN every request gets exactly one reply: 7 times in 2 runs, first: player 7", "BROKEN closed: 4 times in 2 runs, first: 1006",
		"the generator was the bottleneck in 1 of them", "silent: every audit agreed in 0 of 0 runs", "LOST round 1: it did not start", "silent (0) have fewer than 5 runs"} {
		if !strings.Contains(said, want) {
			t.Errorf("lacks %q:\n%s", want, &text)
		}
	}
	page := written(t, s)
	for _, want := range []string{"the 5 with a • together", "no difference shown", "lost: round 1: it did not start", "5 of 5 runs", "3 of 5 runs"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}
