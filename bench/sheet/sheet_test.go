package sheet

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tote/server/bench"
	"tote/server/bench/model"
)

// sample is a run of which every part of the page has something to show.
func sample(speed float64) *bench.Report {
	r := &bench.Report{
		Conditions: bench.Conditions{Scenario: "football", About: "a match </script><script>alert(1)</script>", Started: time.Unix(1671382803, 0).UTC(),
			Command: "server bench run football", Target: "ws://127.0.0.1:8080/ws", Users: 100, CPUs: 2, Memory: 8 << 30, Played: 300,
			Settings: map[string]string{"net.core.somaxconn": "4096"}},
		Server: &bench.Use{Cores: 0.5 / speed, CPUPerFrame: 8 / speed, RSSLate: 64 << 20},
		Checks: []bench.Check{{Promise: "every request gets exactly one reply", Passed: 1234567}},
	}
	r.Stakes.AchievedRate = 100 * speed
	r.Delivered.FrameRate = 5000
	times := bench.Times{Count: 1000, Min: 100, P50: 500, P66: 600, P75: 700, P80: 800, P90: 900, P95: 1500, P98: 2500, P99: 5000, P999: 9000, P9999: 20000, Max: 1_234_567}
	r.Latency.Receipt, r.Latency.Odds, r.Latency.Spread = times, times, times
	for i := range 301 {
		r.Timeline = append(r.Timeline, bench.Moment{At: float64(i), Open: 100, Joined: 100, Planned: uint64(100 * i), Answered: uint64(100 * i),
			Frames: uint64(5000 * i), Bytes: uint64(1_000_000 * i), P50: 500, P99: 5000, Max: 9000})
		r.Looks = append(r.Looks, bench.Look{At: float64(i), CPU: 0.5 * float64(i), HostCPU: float64(i), RSS: 64 << 20, NetOut: uint64(2_000_000 * i),
			TCP: map[string]uint64{"RetransSegs": uint64(i)}})
	}
	r.Watched = &bench.Watched{Seconds: 300, Cores: 0.5, TCP: map[string]uint64{"ListenDrops": 3}}
	m, err := model.Meter([]model.Minute{{Allocated: []float64{2, 8, 0.1}, Utilised: []float64{25, 1, 2}, Performance: []float64{10, 1, 10},
		Load: [3]float64{1, 0.1, 1}, Cost: 2.486 / speed}})
	if err != nil {
		panic(err)
	}
	r.Meters = &bench.Metered{Window: 60, Metered: m, Inputs: []model.Minute{{Utilised: []float64{25, 1, 2}, Performance: []float64{10, 1, 10}}}}
	return r
}

func written(t *testing.T, s *Sheet) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSheet(t *testing.T) {
	d, err := model.Read(strings.NewReader("p,x\n1,43.96\n2,78.74\n4,142.51\n8,216.35\n"))
	if err != nil {
		t.Fatal(err)
	}
	study, err := model.NewStudy(d, 24)
	if err != nil {
		t.Fatal(err)
	}
	broken := sample(2)
	broken.Checks[0].Failed, broken.Checks[0].Example = 1, "player <b>3</b>"
	broken.Generator.Bottleneck = true
	broken.Agents = []bench.AgentPart{{Address: "10.0.0.7:9100", Users: 50, ClockAhead: -90_000_000, ClockError: 250, Died: "nothing was heard of it for <5s>", DiedAt: 12.5}}
	broken.Clocks = &bench.Clocks{ServerAhead: 70, ServerError: 350, Published: 600, Spread: 500}
	s := &Sheet{Title: "A & B", Made: time.Unix(1671382803, 0), Command: "server bench report", Study: study,
		Groups: []*Group{{Name: "before", Runs: []*bench.Report{sample(1)}}, {Name: "after", Runs: []*bench.Report{broken}}}}
	page := written(t, s)
	for _, want := range []string{"A &amp; B", "Every audit agreed.", "was broken 1 times", "player &lt;b&gt;3&lt;/b&gt;", "The generator was the bottleneck",
		"server bench run football", "1,234,567", "Kiviat diagrams", "Side by side", "2.00 ×", "before (1), after (1) have fewer than 5 runs",
		"throughput and the models fitted to it", "linear extrapolation misleads", "ListenDrops", "Productivity", "baseline", "99.99 %", "ESS, effective scalability",
		"10.0.0.7:9100", "died 12.5 s after the start: nothing was heard of it for &lt;5s&gt;", "-90000.00", "0.25", "the delivery spread over all agents to ± 0.50 ms"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// Nothing is fetched, nothing runs, and what a run said does not become markup.
	if found := regexp.MustCompile(`(?i)(src|href)=|url\(|@import|<script>|NaN|Inf\b`).FindString(page); found != "" {
		t.Errorf("the page has %q", found)
	}
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1) {
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %s", err, svg)
			}
		}
	}
	_, raw, _ := strings.Cut(page, `id="raw">`)
	raw, _, _ = strings.Cut(raw, "</script>")
	var groups []*Group
	if err := json.Unmarshal([]byte(raw), &groups); err != nil || len(groups) != 2 || groups[0].Runs[0].Conditions.About != sample(1).Conditions.About {
		t.Errorf("the raw numbers do not come back: %v", err)
	}
}

// A run in which nothing happened has a page too.
func TestSheetOfNothing(t *testing.T) {
	page := written(t, &Sheet{Groups: []*Group{{Name: "empty", Runs: []*bench.Report{{}}}}})
	if strings.Contains(page, "<svg") || !strings.Contains(page, "empty") {
		t.Errorf("%s", page)
	}
}

func TestReadReports(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b := write("a.json", sample(1)), write("b.json", sample(2))
	groups, err := Read([]string{"x=" + a, "x=" + b, b})
	if err != nil || len(groups) != 2 || len(groups[0].Runs) != 2 || groups[1].Name != "b" || groups[1].Runs[0].Stakes.AchievedRate != 200 {
		t.Errorf("%+v, %v", groups, err)
	}
	groups, err = Read([]string{write("compared.json", []*Group{inRounds("ours", 1, 2), inRounds("theirs", 3, 4)})})
	if err != nil || len(groups) != 2 || groups[1].Name != "theirs" || groups[1].Runs[1].Conditions.Round != 2 {
		t.Errorf("%+v, %v", groups, err)
	}
	if _, err := Read([]string{write("no.json", map[string]int{"a": 1})}); err == nil || !strings.Contains(err.Error(), "is no report") {
		t.Error(err)
	}
	if _, err := Read([]string{filepath.Join(dir, "gone.json")}); err == nil {
		t.Error("a file that is not there was read")
	}
}

// Ratios are of geometric means: of runs at 1, 4 and 2, 8 it is 2, where arithmetic means say the same and harmonic ones too, and of 1, 4
// and 4, 4 it is 2, where arithmetic means say 1.6.
func TestRatio(t *testing.T) {
	group := func(values ...float64) *Group {
		g := &Group{}
		for _, v := range values {
			g.Runs = append(g.Runs, sample(v))
		}
		return g
	}
	answers := score(t, "stakes answered")
	r, ok := ratio(answers, group(1, 4), group(4, 4))
	if !ok || math.Abs(r.Value-2) > 1e-9 || r.High != 0 || r.Says() != "2.00 ×" || r.Verdict(1) != "" {
		t.Errorf("%+v", r)
	}
	// Five runs each, wide apart: the interval is around the ratio and leaves no doubt.
	slow, fast := group(1, 1.1, 0.9, 1.05, 0.95), group(2, 2.1, 1.9, 2.05, 1.95)
	r, _ = ratio(answers, slow, fast)
	if r.Low < 1.7 || r.Low > r.Value || r.High < r.Value || r.High > 2.4 || r.Verdict(1) != "better" || r.Verdict(-1) != "worse" {
		t.Errorf("%+v", r)
	}
	if r, _ := ratio(answers, slow, group(1.02, 1.12, 0.91, 1.0, 0.97)); r.Verdict(1) != "no difference shown" {
		t.Errorf("%+v", r)
	}
	if r, _ := ratio(answers, group(1, 1, 1, 1, 1), group(2, 2, 2, 2, 2)); math.Abs(r.Low-2) > 1e-9 || r.Verdict(1) != "better" {
		t.Errorf("%+v", r)
	}
	if _, ok := ratio(score(t, "other requests, 99 %"), slow, fast); ok {
		t.Error("a score that no run has was compared")
	}
}

func TestTicks(t *testing.T) {
	for _, row := range []struct {
		from, to float64
		want     string
	}{{0, 10, "0 2 4 6 8 10"}, {0, 1, "0 0.2 0.4 0.6 0.8 1"}, {0, 25_000, "0 5k 10k 15k 20k 25k"}, {3, 4.2, "3 3.2 3.4 3.6 3.8 4 4.2"}} {
		var got []string
		for _, tick := range ticksOf(row.from, row.to) {
			got = append(got, tick.name)
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%g to %g: %v", row.from, row.to, got)
		}
	}
}

// A long line is thinned, and its peak stays.
func TestPlotKeepsPeaks(t *testing.T) {
	s := Series{}
	for i := range 10_000 {
		s.XY = append(s.XY, [2]float64{float64(i), 1})
	}
	s.XY[7_777][1] = 50
	p := Plot{Series: []Series{s}}
	points := p.placed(&s)
	peak := 0.0
	for _, xy := range points {
		peak = max(peak, xy[1])
	}
	if len(points) > pointsMax || peak != 50 {
		t.Errorf("%d points, peak %g", len(points), peak)
	}
}
