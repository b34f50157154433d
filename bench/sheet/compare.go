package sheet

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"tote/server/bench"
	"tote/server/bench/limit"
)

// Score is a number of a run in which runs are compared. All are above zero, and ratios are what counts.
type Score struct {
	Name   string
	Unit   string
	Better int  // 1: more is better, −1: less is
	Joined bool // in the mean of all: one score of each kind, and less is better in all of them
	of     func(r *bench.Report) float64
	// limit is what the kernel and the codec alone would come to, by what was measured beside the run; nil: nothing like it was measured.
	limit func(r *bench.Report, l *limit.Limits) float64
}

// scores are all that is compared.
var scores = []Score{
	{Name: "stakes answered", Unit: "1/s", Better: 1, of: func(r *bench.Report) float64 { return r.Stakes.AchievedRate }, limit: allCores},
	{Name: "other requests answered", Unit: "1/s", Better: 1, of: func(r *bench.Report) float64 { return r.Deeds.AchievedRate }, limit: allCores},
	{Name: "receipt, median", Unit: "ms", Better: -1, of: func(r *bench.Report) float64 { return float64(r.Latency.Receipt.P50) / 1000 }, limit: synced},
	{Name: "receipt, 99 %", Unit: "ms", Better: -1, Joined: true, of: func(r *bench.Report) float64 { return float64(r.Latency.Receipt.P99) / 1000 }, limit: synced},
	{Name: "receipt, 99.9 %", Unit: "ms", Better: -1, of: func(r *bench.Report) float64 { return float64(r.Latency.Receipt.P999) / 1000 }, limit: synced},
	{Name: "other requests, 99 %", Unit: "ms", Better: -1, of: func(r *bench.Report) float64 { return float64(r.Latency.Reply.P99) / 1000 }},
	{Name: "odds published → read, 99 %", Unit: "ms", Better: -1, of: func(r *bench.Report) float64 { return float64(r.Latency.Odds.P99) / 1000 }, limit: toAll},
	{Name: "delivery spread, median", Unit: "ms", Better: -1, of: func(r *bench.Report) float64 { return float64(r.Latency.Spread.P50) / 1000 }, limit: toAll},
	{Name: "delivery spread, 99 %", Unit: "ms", Better: -1, Joined: true, of: func(r *bench.Report) float64 { return float64(r.Latency.Spread.P99) / 1000 }, limit: toAll},
	{Name: "messages delivered", Unit: "1/s", Better: 1, of: func(r *bench.Report) float64 { return r.Delivered.FrameRate }},
	{Name: "server's CPU", Unit: "cores", Better: -1, of: func(r *bench.Report) float64 { return ofServer(r, func(u *bench.Use) float64 { return u.Cores }) },
		limit: func(r *bench.Report, l *limit.Limits) float64 {
			return (r.Delivered.FrameRate*l.Write.CPU + r.Stakes.AchievedRate*(answerCost(l)-l.Write.CPU)) / 1e6
		}},
	{Name: "CPU per message", Unit: "µs", Better: -1, Joined: true, of: func(r *bench.Report) float64 {
		return ofServer(r, func(u *bench.Use) float64 { return u.CPUPerFrame })
	}, limit: func(_ *bench.Report, l *limit.Limits) float64 { return l.Write.CPU }},
	// A receipt bears its share of everything: the odds that it changes go to all.
	{Name: "CPU per receipt", Unit: "µs", Better: -1, Joined: true, of: func(r *bench.Report) float64 {
		if r.Stakes.AchievedRate == 0 {
			return 0
		}
		return ofServer(r, func(u *bench.Use) float64 { return 1e6 * u.Cores / r.Stakes.AchievedRate })
	}, limit: func(r *bench.Report, l *limit.Limits) float64 {
		return r.Delivered.FrameRate/r.Stakes.AchievedRate*l.Write.CPU + answerCost(l) - l.Write.CPU
	}},
	{Name: "memory per connection", Unit: "kB", Better: -1, Joined: true, of: func(r *bench.Report) float64 {
		return ofServer(r, func(u *bench.Use) float64 { return u.PSSPerConn / 1000 })
	}},
	{Name: "RSS at the end", Unit: "MiB", Better: -1, of: func(r *bench.Report) float64 {
		return ofServer(r, func(u *bench.Use) float64 { return float64(u.RSSLate) / (1 << 20) })
	}},
}

func ofServer(r *bench.Report, of func(*bench.Use) float64) float64 {
	if r.Server == nil {
		return 0
	}
	return of(r.Server)
}

// answerCost is µs of CPU to take a request in and to answer it, durability left out: a batch has one sync.
func answerCost(l *limit.Limits) float64 {
	return l.Read.CPU + l.Decode.CPU + l.Encode.CPU + l.Write.CPU
}

// allCores do nothing but answer.
func allCores(r *bench.Report, l *limit.Limits) float64 {
	return float64(r.Conditions.CPUs) * 1e6 / answerCost(l)
}

// synced is a receipt that waits for a sync of its own and for nothing else.
func synced(_ *bench.Report, l *limit.Limits) float64 { return l.Sync.Wall / 1000 }

// toAll is a message that is written to all of its readers, one after the other.
func toAll(r *bench.Report, l *limit.Limits) float64 {
	if r.Delivered.Broadcasts == 0 {
		return 0
	}
	readers := float64(r.Latency.Odds.Count+r.Latency.Lifecycle.Count) / float64(r.Delivered.Broadcasts)
	return readers * l.Write.CPU / 1000
}

// Group is runs of one thing.
type Group struct {
	Name string
	Runs []*bench.Report
	Lost []string `json:",omitempty"` // why runs are missing
}

// Median is of a score over the group's runs; 0: some run has none.
func (g *Group) Median(s *Score) float64 {
	var values []float64
	for _, r := range g.Runs {
		values = append(values, s.of(r))
	}
	slices.Sort(values)
	n := len(values)
	if n == 0 || !(values[0] > 0) || math.IsInf(values[n-1], 0) {
		return 0
	}
	return (values[n/2] + values[(n-1)/2]) / 2
}

// OfLimit is the geometric mean of how many times the limit the score was, each by its own run's; 0: some run has none.
func (g *Group) OfLimit(s *Score) float64 {
	if s.limit == nil || len(g.Runs) == 0 {
		return 0
	}
	sum := 0.0
	for _, r := range g.Runs {
		if r.Limits == nil {
			return 0
		}
		sum += math.Log(s.of(r)/s.limit(r, r.Limits)) / float64(len(g.Runs))
	}
	if math.IsNaN(sum) || math.IsInf(sum, 0) {
		return 0
	}
	return math.Exp(sum)
}

// logs are the score's logarithms; nil: some run has no score.
func (g *Group) logs(s *Score) (logs []float64) {
	for _, r := range g.Runs {
		log := math.Log(s.of(r))
		if math.IsNaN(log) || math.IsInf(log, 0) {
			return nil
		}
		logs = append(logs, log)
	}
	return logs
}

// runsMin is how many runs of each a confidence interval needs to say something.
const runsMin = 5

// Ratio is a group's score by the first group's.
type Ratio struct {
	Value     float64
	Low, High float64 // at 95 %; 0: too few runs
}

// ratio compares geometric means: round by round where the runs are of a contest, else by Welch's t on logarithms.
func ratio(s *Score, base, other *Group) (Ratio, bool) {
	if rounds(base) && rounds(other) {
		return paired(pairs(s, base, other))
	}
	a, b := base.logs(s), other.logs(s)
	if a == nil || b == nil {
		return Ratio{}, false
	}
	ma, va := stat.MeanVariance(a, nil)
	mb, vb := stat.MeanVariance(b, nil)
	r := Ratio{Value: math.Exp(mb - ma)}
	na, nb := float64(len(a)), float64(len(b))
	if na < runsMin || nb < runsMin {
		return r, true
	}
	ea, eb := va/na, vb/nb
	if ea+eb == 0 {
		r.Low, r.High = r.Value, r.Value
		return r, true
	}
	freedom := (ea + eb) * (ea + eb) / (ea*ea/(na-1) + eb*eb/(nb-1))
	r.around(mb-ma, math.Sqrt(ea+eb), freedom)
	return r, true
}

// around makes the interval from a mean of logarithms, its standard error and the degrees of freedom.
func (r *Ratio) around(mean, deviation, freedom float64) {
	half := distuv.StudentsT{Sigma: 1, Nu: freedom}.Quantile(0.975) * deviation
	r.Low, r.High = math.Exp(mean-half), math.Exp(mean+half)
}

// rounds says whether all runs are of a contest.
func rounds(g *Group) bool {
	return len(g.Runs) > 0 && !slices.ContainsFunc(g.Runs, func(r *bench.Report) bool { return r.Conditions.Round == 0 })
}

// pairs are the logarithms of the ratios in those rounds in which both have a score, by round.
func pairs(s *Score, base, other *Group) map[int]float64 {
	logs := map[int]float64{}
	for _, a := range base.Runs {
		i := slices.IndexFunc(other.Runs, func(b *bench.Report) bool { return b.Conditions.Round == a.Conditions.Round })
		if i < 0 {
			continue
		}
		if log := math.Log(s.of(other.Runs[i]) / s.of(a)); !math.IsNaN(log) && !math.IsInf(log, 0) {
			logs[a.Conditions.Round] = log
		}
	}
	return logs
}

// paired is Student's t on what the rounds' ratios have in common; what a round did to both is in none of them.
func paired(logs map[int]float64) (Ratio, bool) {
	if len(logs) == 0 {
		return Ratio{}, false
	}
	var values []float64
	for _, log := range logs {
		values = append(values, log)
	}
	slices.Sort(values) // sums of floats depend on their order
	mean, n := stat.Mean(values, nil), float64(len(values))
	r := Ratio{Value: math.Exp(mean)}
	if n >= runsMin {
		r.around(mean, stat.StdDev(values, nil)/math.Sqrt(n), n-1)
	}
	return r, true
}

// joined is the geometric mean of the joined scores' ratios, round by round.
func joined(base, other *Group) (Ratio, bool) {
	sums, n := map[int]float64{}, 0
	for i := range scores {
		if !scores[i].Joined {
			continue
		}
		n++
		logs := pairs(&scores[i], base, other)
		for _, r := range base.Runs {
			log, ok := logs[r.Conditions.Round]
			if !ok {
				log = math.NaN() // a mean of the others would be of something else
			}
			sums[r.Conditions.Round] += log
		}
	}
	for round := range sums {
		if sums[round] /= float64(n); math.IsNaN(sums[round]) {
			delete(sums, round)
		}
	}
	if !rounds(base) || !rounds(other) {
		return Ratio{}, false
	}
	return paired(sums)
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

// row is a score over all groups.
type row struct {
	Name, Unit string
	Values     []string // medians
	Limits     []string // times the limit; empty: it has none
	Ratios     []string // by the first group; the first one's own is missing
	Verdicts   []string // of them
}

func (r *row) compare(by Ratio, ok bool, better int) {
	said, verdict := "–", ""
	if ok {
		said, verdict = by.Says(), by.Verdict(better)
	}
	r.Ratios, r.Verdicts = append(r.Ratios, said), append(r.Verdicts, verdict)
}

// compared is a row for each score that a group has, and one for those that are joined.
func (s *Sheet) compared() (rows []row) {
	if len(s.Groups) == 0 {
		return nil
	}
	base, of := s.Groups[0], 0
	for i := range scores {
		score := &scores[i]
		r, any := row{Name: score.Name, Unit: score.Unit}, false
		for j, g := range s.Groups {
			median, times := g.Median(score), g.OfLimit(score)
			any = any || median > 0
			r.Values, r.Limits = append(r.Values, shown(median)), append(r.Limits, "")
			if times > 0 {
				r.Limits[j] = shown(times) + " ×"
			}
			if j > 0 {
				by, ok := ratio(score, base, g)
				r.compare(by, ok, score.Better)
			}
		}
		if score.Joined {
			r.Name, of = r.Name+" •", of+1
		}
		if any {
			rows = append(rows, r)
		}
	}
	all, any := row{Name: fmt.Sprintf("the %d with a • together", of)}, false
	for j, g := range s.Groups {
		all.Values, all.Limits = append(all.Values, ""), append(all.Limits, "")
		if j > 0 {
			by, ok := joined(base, g)
			any = any || ok
			all.compare(by, ok, -1)
		}
	}
	if any {
		rows = append(rows, all)
	}
	return rows
}

// shown writes three digits, and nothing as a dash.
func shown(v float64) string {
	if v == 0 {
		return "–"
	}
	return short(round(v))
}

// few says which groups have too few runs for an interval.
func (s *Sheet) few() string {
	var names []string
	for _, g := range s.Groups {
		if len(g.Runs) < runsMin {
			names = append(names, fmt.Sprintf("%s (%d)", g.Name, len(g.Runs)))
		}
	}
	if len(s.Groups) < 2 || len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("Ratios without an interval are one-off observations: %s have fewer than %d runs.", strings.Join(names, ", "), runsMin)
}

// broken is a promise that a group's runs have broken, or something that they met and should not have.
type broken struct {
	What    string
	Runs    int
	Times   uint64
	Example string // of the first
}

// judged is what the audits say of a group.
type judged struct {
	*Group
	Agreed int // runs in which every audit agreed
	Broken []broken
	Bound  int // runs in which the generator was the bottleneck
}

func (s *Sheet) judged() (all []judged) {
	for _, g := range s.Groups {
		j := judged{Group: g}
		add := func(what, example string, times uint64) {
			i := slices.IndexFunc(j.Broken, func(b broken) bool { return b.What == what })
			if i < 0 {
				i = len(j.Broken)
				j.Broken = append(j.Broken, broken{What: what, Example: example})
			}
			j.Broken[i].Runs++
			j.Broken[i].Times += times
		}
		for _, r := range g.Runs {
			if r.Failed() == nil {
				j.Agreed++
			}
			if r.Generator.Bottleneck {
				j.Bound++
			}
			for _, c := range r.Checks {
				if c.Failed > 0 {
					add(c.Promise, c.Example, c.Failed)
				}
			}
			for _, f := range r.Faults {
				add(f.Kind, f.Example, f.Count)
			}
			if missing := r.Connections.Planned - r.Connections.Joined; missing > 0 {
				add("every player gets into a game", "", uint64(missing))
			}
		}
		all = append(all, j)
	}
	return all
}

// WriteText writes the comparison for people: the first group beside each of the others, and what the audits say of all.
func (s *Sheet) WriteText(w io.Writer) {
	rows := s.compared()
	for j, g := range s.Groups[1:] {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "medians of %d and %d runs\t\t%s\t× limit\t%s\t× limit\t%s by %s\t\n", len(s.Groups[0].Runs), len(g.Runs), s.Groups[0].Name, g.Name, g.Name, s.Groups[0].Name)
		for _, r := range rows {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Unit, r.Values[0], r.Limits[0], r.Values[j+1], r.Limits[j+1], r.Ratios[j], r.Verdicts[j])
		}
		t.Flush()
		fmt.Fprintln(w)
	}
	for _, j := range s.judged() {
		fmt.Fprintf(w, "%s: every audit agreed in %d of %d runs\n", j.Name, j.Agreed, len(j.Runs))
		for _, b := range j.Broken {
			fmt.Fprintf(w, "  BROKEN  %s: %s times in %d runs, first: %s\n", b.What, grouped(b.Times), b.Runs, b.Example)
		}
		for _, why := range j.Lost {
			fmt.Fprintf(w, "  LOST  %s\n", strings.ReplaceAll(why, "\n", "\n        "))
		}
		if j.Bound > 0 {
			fmt.Fprintf(w, "  warn  the generator was the bottleneck in %d of them, which say as much of it as of the server\n", j.Bound)
		}
	}
	if few := s.few(); few != "" {
		fmt.Fprintln(w, few)
	}
}
