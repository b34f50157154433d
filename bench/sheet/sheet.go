// Package sheet lays runs of bench out as one page of HTML that needs nothing else: plots are inline SVG, styles and raw numbers are in it,
// and it prints.
//
// `server bench report` runs it. It computes nothing about a run that the run's own report does not say, but what runs say side by side.
//
//	report.json … ─▶ bench.Report ─▶ Group ─▶ Sheet ─▶ HTML
package sheet

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tote/server/bench"
	"tote/server/bench/model"
)

// Read reads reports that bench has written. A name is a file, or NAME=FILE; runs of one name are repetitions of each other, and a file
// without one stands for itself. What bench compare has written are groups with names of their own.
func Read(names []string) ([]*Group, error) {
	var groups []*Group
	for _, name := range names {
		label, file, ok := strings.Cut(name, "=")
		if !ok {
			label, file = strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)), name
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
			var compared []*Group
			if err := json.Unmarshal(text, &compared); err != nil {
				return nil, fmt.Errorf("%s is nothing that server bench compare --json has written: %w", file, err)
			}
			groups = append(groups, compared...)
			continue
		}
		r := &bench.Report{}
		if err := json.Unmarshal(text, r); err != nil || r.Conditions.Started.IsZero() {
			return nil, fmt.Errorf("%s is no report of server bench run --json: %w", file, errors.Join(err, errNoRun))
		}
		g := find(groups, label)
		if g == nil {
			g = &Group{Name: label}
			groups = append(groups, g)
		}
		g.Runs = append(g.Runs, r)
	}
	return groups, nil
}

var errNoRun = errors.New("it has no conditions of a run")

func find(groups []*Group, name string) *Group {
	for _, g := range groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// Sheet is the page.
type Sheet struct {
	Title   string
	Made    time.Time
	Command string // that makes the page again
	Groups  []*Group
	Study   *model.Study // nil: no points were given
}

//go:embed sheet.html
var page string

var layout = template.Must(template.New("sheet").Funcs(template.FuncMap{
	"ms":      milliseconds,
	"milli":   func(us float64) string { return fmt.Sprintf("%.2f", us/1000) },
	"short":   func(v float64) string { return short(round(v)) },
	"count":   grouped,
	"percent": func(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) },
	"mib":     func(v uint64) string { return fmt.Sprintf("%.1f MiB", float64(v)/(1<<20)) },
}).Parse(page))

// milliseconds writes µs with three digits, or whole ms where there are more.
func milliseconds(us int64) string {
	if us < 1_000_000 {
		return short(round(float64(us) / 1000))
	}
	return grouped(us / 1000)
}

// grouped writes 1234567 as 1,234,567.
func grouped(n any) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Write writes the page.
func (s *Sheet) Write(w io.Writer) error {
	var text bytes.Buffer
	if s.Study != nil {
		s.Study.WriteText(&text)
	}
	raw, err := json.Marshal(s.Groups)
	if err != nil {
		return err
	}
	return layout.Execute(w, map[string]any{
		"Sheet": s, "Runs": s.runs(), "Latencies": s.latencies(), "Compared": s.compared(), "Kiviats": s.kiviats(), "Fit": s.fit(), "FitText": text.String(),
		"Few": s.few(), "Judged": s.judged(), "Settings": s.settings(), "Raw": template.JS(raw), // json.Marshal escapes <, > and &
		"Axes": bench.Axes, "Productive": s.productive(),
	})
}

// run is what the page shows of one.
type run struct {
	*bench.Report
	group   *Group
	Name    string
	Good    bool
	Failed  string
	Figures []template.HTML
	Clients string
}

func (s *Sheet) runs() []run {
	var all []run
	for _, g := range s.Groups {
		for i, r := range g.Runs {
			shown := run{Report: r, group: g, Name: g.Name, Figures: timelines(r)}
			if len(g.Runs) > 1 {
				shown.Name = fmt.Sprintf("%s, run %d", g.Name, i+1)
			}
			err := r.Failed()
			if shown.Good = err == nil; err != nil {
				shown.Failed = err.Error()
			}
			var text bytes.Buffer
			r.WriteClients(&text)
			shown.Clients = text.String()
			all = append(all, shown)
		}
	}
	return all
}

// firsts are the first run of each group: more lines than groups would hide one another.
func (s *Sheet) firsts() (all []run) {
	for _, r := range s.runs() {
		if len(all) == 0 || all[len(all)-1].group != r.group {
			all = append(all, r)
		}
	}
	return all
}

// latencies are curves of the first run of each group: what is measured in all runs, one plot each.
func (s *Sheet) latencies() []template.HTML {
	var figures []template.HTML
	for _, of := range []struct {
		title string
		times func(l *bench.Latencies) *bench.Times
	}{
		{"planned stake → receipt", func(l *bench.Latencies) *bench.Times { return &l.Receipt }},
		{"planned request → reply", func(l *bench.Latencies) *bench.Times { return &l.Reply }},
		{"odds published → read", func(l *bench.Latencies) *bench.Times { return &l.Odds }},
		{"planned stake → seen in the odds", func(l *bench.Latencies) *bench.Times { return &l.Seen }},
		{"delivery spread: first → last reader of a broadcast", func(l *bench.Latencies) *bench.Times { return &l.Spread }},
		{"planned arrival → handshake done", func(l *bench.Latencies) *bench.Times { return &l.Handshake }},
		{"away → back in a game", func(l *bench.Latencies) *bench.Times { return &l.Return }},
	} {
		p := Plot{Title: of.title, X: "share of all", Y: "ms", LogY: true, Nines: true}
		for _, r := range s.firsts() {
			t := of.times(&r.Latency)
			if t.Count == 0 {
				continue
			}
			line := Series{Name: r.Name, XY: [][2]float64{{0, float64(t.Min) / 1000}}}
			for i, us := range t.Points() {
				line.XY = append(line.XY, [2]float64{bench.Quantiles[i] / 100, float64(us) / 1000})
			}
			p.Series = append(p.Series, line)
		}
		if len(p.Series) > 0 {
			figures = append(figures, p.SVG())
		}
	}
	return figures
}

// timelines are one run's, second by second.
func timelines(r *bench.Report) []template.HTML {
	per := func(of func(m *bench.Moment) float64) (xy [][2]float64) {
		for i := 1; i < len(r.Timeline); i++ {
			a, b := &r.Timeline[i-1], &r.Timeline[i]
			if b.At > a.At {
				xy = append(xy, [2]float64{b.At, (of(b) - of(a)) / (b.At - a.At)})
			}
		}
		return xy
	}
	level := func(of func(m *bench.Moment) float64) (xy [][2]float64) {
		for i := range r.Timeline {
			xy = append(xy, [2]float64{r.Timeline[i].At, of(&r.Timeline[i])})
		}
		return xy
	}
	look := func(of func(l *bench.Look) float64) (xy [][2]float64) {
		for i := range r.Looks {
			xy = append(xy, [2]float64{r.Looks[i].At, of(&r.Looks[i])})
		}
		return xy
	}
	looked := func(of func(l *bench.Look) float64) (xy [][2]float64) {
		for i := 1; i < len(r.Looks); i++ {
			a, b := &r.Looks[i-1], &r.Looks[i]
			if b.At > a.At && of(b) >= of(a) { // a server that was killed counts from zero again
				xy = append(xy, [2]float64{b.At, (of(b) - of(a)) / (b.At - a.At)})
			}
		}
		return xy
	}
	seconds := "s since the first arrival"
	plots := []Plot{
		{Title: "connections", X: seconds, Y: "users", Series: []Series{
			{Name: "connected", XY: level(func(m *bench.Moment) float64 { return float64(m.Open) })},
			{Name: "in a game", Dashed: true, XY: level(func(m *bench.Moment) float64 { return float64(m.Joined) })}}},
		{Title: "requests: planned and achieved", X: seconds, Y: "1/s", Series: []Series{
			{Name: "planned", Dashed: true, XY: per(func(m *bench.Moment) float64 { return float64(m.Planned) })},
			{Name: "answered", XY: per(func(m *bench.Moment) float64 { return float64(m.Answered) })}}},
		{Title: "time to an answer, each second's", X: seconds, Y: "ms", LogY: true, Series: []Series{
			{Name: "median", XY: level(func(m *bench.Moment) float64 { return float64(m.P50) / 1000 })},
			{Name: "99 %", XY: level(func(m *bench.Moment) float64 { return float64(m.P99) / 1000 })},
			{Name: "longest", Dashed: true, XY: level(func(m *bench.Moment) float64 { return float64(m.Max) / 1000 })}}},
		{Title: "messages delivered", X: seconds, Y: "1/s", Series: []Series{
			{Name: "messages", XY: per(func(m *bench.Moment) float64 { return float64(m.Frames) })},
			{Name: "conflated", Dashed: true, XY: per(func(m *bench.Moment) float64 { return float64(m.Conflated) })}}},
		{Title: "CPU", X: seconds, Y: "cores", Series: []Series{
			{Name: "server", XY: looked(func(l *bench.Look) float64 { return l.CPU })},
			{Name: "its busiest thread", Dashed: true, XY: look(func(l *bench.Look) float64 { return l.Busiest })},
			{Name: "generator", XY: per(func(m *bench.Moment) float64 { return m.OwnCPU })},
			{Name: "host", XY: looked(func(l *bench.Look) float64 { return l.HostCPU })},
			{Name: "softirq", XY: looked(func(l *bench.Look) float64 { return l.Softirq })}}},
		{Title: "memory", X: seconds, Y: "MiB", Series: []Series{
			{Name: "server's RSS", XY: look(func(l *bench.Look) float64 { return float64(l.RSS) / (1 << 20) })},
			{Name: "its Go heap", Dashed: true, XY: look(func(l *bench.Look) float64 { return l.Metrics["go_memstats_heap_inuse_bytes"] / (1 << 20) })},
			{Name: "the host's TCP queues", XY: look(func(l *bench.Look) float64 { return float64(l.Memory) / (1 << 20) })}}},
		{Title: "network and disk", X: seconds, Y: "MB/s", Series: []Series{
			{Name: "sent by the host", XY: looked(func(l *bench.Look) float64 { return float64(l.NetOut) / 1e6 })},
			{Name: "written by the server", XY: looked(func(l *bench.Look) float64 { return float64(l.DiskWrite) / 1e6 })}}},
		{Title: "what went wrong in TCP", X: seconds, Y: "1/s", Series: []Series{
			{Name: "retransmitted", XY: looked(func(l *bench.Look) float64 { return float64(l.TCP["RetransSegs"]) })},
			{Name: "listen drops", XY: looked(func(l *bench.Look) float64 { return float64(l.TCP["ListenDrops"]) })},
			{Name: "timeouts", XY: looked(func(l *bench.Look) float64 { return float64(l.TCP["TCPTimeouts"]) })}}},
		{Title: "journal", X: seconds, Y: "1/s", Series: []Series{
			{Name: "records", XY: looked(func(l *bench.Look) float64 { return l.Metrics["server_journal_appended"] })},
			{Name: "commits", XY: looked(func(l *bench.Look) float64 { return l.Metrics["server_journal_commits_total"] })}}},
	}
	var figures []template.HTML
	for i := range plots {
		if svg := plots[i].SVG(); svg != "" {
			figures = append(figures, svg)
		}
	}
	return figures
}

// kiviats draw the meters' means in the first run of each group, architectures side by side.
func (s *Sheet) kiviats() []template.HTML {
	all := Kiviat{Title: "meters", Axes: []string{"SLM", "SPM", "CRAM", "CRUM"}}
	used := Kiviat{Title: "utilised resources (CRUM)", Axes: []string{"CPU %", "memory %", "MB/s sent"}}
	load := Kiviat{Title: "load (SLM)", Axes: []string{"100 requests/s", "1000 users", "MB/s delivered"}}
	done := Kiviat{Title: "performance (SPM)", Axes: []string{"answered", "100 answers/s", "100 ms / p99"}}
	for _, r := range s.firsts() {
		m := r.Meters
		if m == nil || m.Metered == nil {
			continue
		}
		all.Polygons = append(all.Polygons, Polygon{r.Name, []float64{m.SLM.Mean, m.SPM.Mean, m.CRAM.Mean, m.CRUM.Mean}})
		used.Polygons = append(used.Polygons, Polygon{r.Name, meanOf(m.Inputs, func(i *model.Minute) []float64 { return i.Utilised })})
		load.Polygons = append(load.Polygons, Polygon{r.Name, meanOf(m.Inputs, func(i *model.Minute) []float64 { return i.Load[:] })})
		done.Polygons = append(done.Polygons, Polygon{r.Name, meanOf(m.Inputs, func(i *model.Minute) []float64 { return i.Performance })})
	}
	var figures []template.HTML
	for _, k := range []*Kiviat{&all, &load, &done, &used} {
		if svg := k.SVG(); svg != "" {
			figures = append(figures, svg)
		}
	}
	return figures
}

// productive are the thesis' architectures and the runs whose cost is known; none: no run's is.
func (s *Sheet) productive() (all []productive) {
	scales := slices.Clone(model.Architectures)
	for _, r := range s.runs() {
		if r.Meters != nil && r.Meters.Metered != nil && r.Meters.Cost.Mean > 0 {
			scales = append(scales, model.Scale{Name: r.Name, Throughput: r.Stakes.AchievedRate + r.Deeds.AchievedRate, Value: 1, Cost: r.Meters.Cost.Mean})
		}
	}
	if len(scales) == len(model.Architectures) {
		return nil
	}
	for i := range scales {
		all = append(all, productive{&scales[i], model.Scalability(&scales[0], &scales[i])})
	}
	return all
}

type productive struct {
	*model.Scale
	By float64 // the first one's
}

func meanOf(inputs []model.Minute, of func(*model.Minute) []float64) []float64 {
	mean := make([]float64, 3)
	for i := range inputs {
		for j, v := range of(&inputs[i])[:3] {
			mean[j] += v / float64(len(inputs))
		}
	}
	return mean
}

// fit plots the points and the models.
func (s *Sheet) fit() template.HTML {
	if s.Study == nil {
		return ""
	}
	p := Plot{Title: "throughput and the models fitted to it", X: "p", Y: "X"}
	points := Series{Name: "measured", Points: true}
	for _, point := range s.Study.Data.Points {
		points.XY = append(points.XY, [2]float64{point.P, point.X})
	}
	p.Series = append(p.Series, points)
	most := s.Study.Data.Points[len(s.Study.Data.Points)-1].P
	for _, beyond := range s.Study.Beyond {
		most = max(most, beyond.P)
	}
	for i := range s.Study.Fits {
		f := &s.Study.Fits[i]
		if f.Way != model.Nonlinear || f.Failed != "" || f.Model == "USL" { // the curve of super-serial
			continue
		}
		line := Series{Name: f.Model, Dashed: f.Model != s.Study.Supported}
		for k := range 101 {
			at := 1 + (most-1)*float64(k)/100
			line.XY = append(line.XY, [2]float64{at, f.Throughput(at)})
		}
		p.Series = append(p.Series, line)
	}
	return p.SVG()
}

// settings are the sysctls in which runs differ, or all of a single run.
func (s *Sheet) settings() [][]string {
	var rows [][]string
	runs := s.runs()
	if len(runs) == 0 {
		return nil
	}
	for _, key := range bench.SettingNames {
		values, differ := []string{key}, len(runs) == 1
		for _, r := range runs {
			values = append(values, r.Conditions.Settings[key])
			differ = differ || r.Conditions.Settings[key] != runs[0].Conditions.Settings[key]
		}
		if differ {
			rows = append(rows, values)
		}
	}
	return rows
}
