package sheet

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat/distuv"

	"tote/server/bench"
)

// Score is a number of a run in which runs are compared. All are above zero, and ratios are what counts.
type Score struct {
	Name   string
	Unit   string
	Better int // 1: more is better, −1: less is
	of     func(r *bench.Report) float64
}

// scores are all that is compared.
var scores = []Score{
	{"answers", "1/s", 1, func(r *bench.Report) float64 { return r.Stakes.AchievedRate + r.Deeds.AchievedRate }},
	{"receipt, median", "ms", -1, func(r *bench.Report) float64 { return float64(r.Latency.Receipt.P50) / 1000 }},
	{"receipt, 99 %", "ms", -1, func(r *bench.Report) float64 { return float64(r.Latency.Receipt.P99) / 1000 }},
	{"receipt, 99.9 %", "ms", -1, func(r *bench.Report) float64 { return float64(r.Latency.Receipt.P999) / 1000 }},
	{"other requests, 99 %", "ms", -1, func(r *bench.Report) float64 { return float64(r.Latency.Reply.P99) / 1000 }},
	{"odds published → read, 99 %", "ms", -1, func(r *bench.Report) float64 { return float64(r.Latency.Odds.P99) / 1000 }},
	{"delivery spread, 99 %", "ms", -1, func(r *bench.Report) float64 { return float64(r.Latency.Spread.P99) / 1000 }},
	{"messages delivered", "1/s", 1, func(r *bench.Report) float64 { return r.Delivered.FrameRate }},
	{"server's CPU", "cores", -1, func(r *bench.Report) float64 { return ofServer(r, func(u *bench.Use) float64 { return u.Cores }) }},
	{"CPU per message", "µs", -1, func(r *bench.Report) float64 { return ofServer(r, func(u *bench.Use) float64 { return u.CPUPerFrame }) }},
	{"… of the limit", "×", -1, func(r *bench.Report) float64 {
		if r.Limits == nil || r.Limits.Write.CPU == 0 {
			return 0
		}
		return ofServer(r, func(u *bench.Use) float64 { return u.CPUPerFrame }) / r.Limits.Write.CPU
	}},
	{"RSS at the end", "MiB", -1, func(r *bench.Report) float64 {
		return ofServer(r, func(u *bench.Use) float64 { return float64(u.RSSLate) / (1 << 20) })
	}},
}

func ofServer(r *bench.Report, of func(*bench.Use) float64) float64 {
	if r.Server == nil {
		return 0
	}
	return of(r.Server)
}

// Group is runs of one thing.
type Group struct {
	Name string
	Runs []*bench.Report
}

// Mean is the geometric mean of a score over the group's runs; 0: some run has none.
func (g *Group) Mean(s *Score) float64 {
	mean, _ := g.logs(s)
	if math.IsNaN(mean) {
		return 0
	}
	return math.Exp(mean)
}

// logs are the mean and the variance of the score's logarithm; NaN: some run has no score.
func (g *Group) logs(s *Score) (mean, variance float64) {
	n := float64(len(g.Runs))
	for _, r := range g.Runs {
		v := s.of(r)
		if !(v > 0) {
			return math.NaN(), math.NaN()
		}
		mean += math.Log(v) / n
	}
	for _, r := range g.Runs {
		off := math.Log(s.of(r)) - mean
		variance += off * off / max(n-1, 1)
	}
	return mean, variance
}

// runsMin is how many runs of each a confidence interval needs to say something.
const runsMin = 5

// Ratio is a group's score by the first group's.
type Ratio struct {
	Value     float64
	Low, High float64 // at 95 %; 0: too few runs
}

// ratio compares by Welch's t on logarithms.
func ratio(s *Score, base, other *Group) (Ratio, bool) {
	a, va := base.logs(s)
	b, vb := other.logs(s)
	if math.IsNaN(a + b) {
		return Ratio{}, false
	}
	r := Ratio{Value: math.Exp(b - a)}
	na, nb := float64(len(base.Runs)), float64(len(other.Runs))
	if na < runsMin || nb < runsMin {
		return r, true
	}
	ea, eb := va/na, vb/nb
	if ea+eb == 0 {
		r.Low, r.High = r.Value, r.Value
		return r, true
	}
	freedom := (ea + eb) * (ea + eb) / (ea*ea/(na-1) + eb*eb/(nb-1))
	half := distuv.StudentsT{Sigma: 1, Nu: freedom}.Quantile(0.975) * math.Sqrt(ea+eb)
	r.Low, r.High = math.Exp(b-a-half), math.Exp(b-a+half)
	return r, true
}

// Says puts the ratio into words.
func (r Ratio) Says() string {
	if r.High == 0 {
		return fmt.Sprintf("%.2f ×", r.Value)
	}
	return fmt.Sprintf("%.2f × (%.2f to %.2f)", r.Value, r.Low, r.High)
}

// Verdict says which is better, where the interval leaves no doubt.
func (r Ratio) Verdict(better int) string {
	switch {
	case r.High == 0:
		return ""
	case r.Low <= 1 && r.High >= 1:
		return "no difference shown"
	case (r.Value > 1) == (better > 0):
		return "better"
	}
	return "worse"
}
