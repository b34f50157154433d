package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestTimesOfAHistogram(t *testing.T) {
	h := newHistogram()
	for ms := 1; ms <= 1000; ms++ {
		recordIn(h, time.Duration(ms)*time.Millisecond)
	}
	got := timesOf(h)
	near := func(name string, us, want int64) { // three digits
		if us < want-want/500 || us > want+want/500 {
			t.Errorf("%s is %d, want %d", name, us, want)
		}
	}
	near("p50", got.P50, 500_000)
	near("p66", got.P66, 660_000)
	near("p75", got.P75, 750_000)
	near("p80", got.P80, 800_000)
	near("p90", got.P90, 900_000)
	near("p95", got.P95, 950_000)
	near("p98", got.P98, 980_000)
	near("p99", got.P99, 990_000)
	near("p99.9", got.P999, 999_000)
	near("p99.99", got.P9999, 1_000_000)
	near("min", got.Min, 1000)
	near("max", got.Max, 1_000_000)
	near("mean", int64(got.Mean), 500_500)
	near("stddev", int64(got.StdDev), 288_675)
	if got.Count != 1000 {
		t.Errorf("count %d", got.Count)
	}
	if (timesOf(newHistogram()) != Times{}) {
		t.Error("no times are not all zero")
	}
}

// Times that a histogram cannot hold are kept at its ends: a clock may step back.
func TestTimesOutOfRange(t *testing.T) {
	h := newHistogram()
	recordIn(h, -time.Second)
	recordIn(h, time.Hour)
	if got := timesOf(h); got.Count != 2 || got.Min != 1 || got.Max < timeMax.Microseconds() {
		t.Errorf("%+v", got)
	}
}

// The parts that workers saw of a broadcast make one spread.
func TestSpreadOverWorkers(t *testing.T) {
	r := newResults(0)
	d := distribution{game: course{game: 1}, seq: 5}
	for worker, reads := range [][]time.Duration{{10, 20}, {15, 42}} {
		tally := newTally(worker, 0)
		for _, at := range reads {
			tally.deliver(d, at*time.Millisecond, 99)
		}
		r.add(tally, 0)
	}
	if part := r.deliveries[d]; part == nil || part.readers != 4 || part.last-part.first != 32*time.Millisecond {
		t.Fatalf("%+v", part)
	}
	other := newTally(0, 0)
	other.deliver(d, 50*time.Millisecond, 98)
	r.add(other, 60*time.Millisecond+spreadOpen)
	if len(r.deliveries) != 0 || r.past[course{game: 1}] != 5 || r.broadcasts != 1 {
		t.Errorf("after its time: %v, %v, %d", r.deliveries, r.past, r.broadcasts)
	}
	if spread := timesOf(r.times[meterSpread]); spread.Count != 1 || spread.Max < 39_900 || spread.Max > 40_100 {
		t.Errorf("spread %+v", spread)
	}
	if v := r.checks[checkSame]; v.failed != 1 {
		t.Errorf("another text: %+v", v)
	}
}

// A tally that was cleared is as good as a new one.
func TestTallyIsClearedWhole(t *testing.T) {
	used := newTally(3, 0)
	used.frames, used.busy, used.stakes.Sent = 1, 1, 1
	used.fault("kind", "example")
	used.record(meterOdds, time.Second)
	used.deliver(distribution{course{1, 1}, 1}, 1, 1)
	used.checks[checkSeq].fail("example")
	used.clear()
	sum := newResults(0)
	if news := sum.add(used, 0); len(news) > 0 || sum.frames+sum.stakes.Sent+sum.checks[checkSeq].failed > 0 || len(sum.deliveries) > 0 || sum.times[meterOdds].TotalCount() > 0 {
		t.Errorf("left: %+v", used)
	}
	if used.worker != 3 || used.delivery != nil {
		t.Errorf("%+v", used)
	}
}

func TestFaultsAreBounded(t *testing.T) {
	tally := newTally(0, 0)
	for i := range 10 * faultsMax {
		tally.fault(grouped(i), "")
	}
	if len(tally.faults) != faultsMax+1 || tally.faults["others"].Count != 9*faultsMax {
		t.Errorf("%d kinds, %+v", len(tally.faults), tally.faults["others"])
	}
}

func sampleReport() *Report {
	r := &Report{
		Conditions:  Conditions{Target: "ws://127.0.0.1:8080/ws", Users: 10_000, StakeRate: 700, Played: 300, Seed: 7, Workers: 2, Host: "vm", Kernel: "Linux 6.18", CPUs: 2, Go: "go1.26"},
		Connections: Connections{Planned: 10_000, Joined: 10_000, connectionCounts: connectionCounts{Made: 10_000}},
		Stakes:      Stakes{PlannedRate: 700, AchievedRate: 699.9, stakeCounts: stakeCounts{Planned: 210_000, Sent: 210_000, Receipts: 209_990, Late: 10}},
		Delivered:   Delivered{Frames: 3_210_000, Bytes: 812_345_678, Broadcasts: 300, FrameRate: 10_700},
		Latency:     Latencies{Receipt: Times{Count: 210_000, Min: 201, Mean: 900, P50: 730, P75: 1900, P90: 5320, P95: 10_590, P99: 48_480, P999: 124_100, Max: 147_000}},
		Server:      &Use{CPUPerFrame: 8.27, Cores: 0.24, RSSPerConn: 2805, AnonPerConn: 2651, RSSBefore: 20 << 20, RSSJoined: 46 << 20, RSSEarly: 59 << 20, RSSLate: 70 << 20},
		Generator:   Generator{CPUPerFrame: 3.19, Cores: 0.09, Busy: 0.06},
		Checks:      []Check{{Promise: promises[checkReply], Passed: 91_864}, {Promise: promises[checkOdds]}},
	}
	return r
}

func TestReportText(t *testing.T) {
	r := sampleReport()
	r.Checks = append(r.Checks, Check{Promise: promises[checkSeq], Passed: 9, Failed: 1, Example: "player 3: broadcast 45 of game 3 follows 43"})
	r.Faults = []Fault{{Kind: "connection lost", Count: 1234, Example: "player 9: reset"}}
	r.Warnings = []string{"the generator was the bottleneck"}
	r.Unfinished = "all connections were lost"
	var text bytes.Buffer
	r.WriteText(&text)
	for _, want := range []string{
		"10,000 players on ws://127.0.0.1:8080/ws for 5m0s, 700 stakes/s\n",
		"vm, Linux 6.18, 2 CPUs, go1.26, 2 workers, seed 7\n",
		"209,990 receipts, 10 refused after a lock",
		"3,210,000 frames, 812,345,678 bytes, 300 broadcasts",
		"stake → receipt  210,000  0.20  0.90  0.73  1.90  5.32  10.59  48.48    124  147\n",
		"server: 8.27 µs CPU per delivered frame (0.24 cores), 2805 bytes of RSS per connection",
		"    ok  every request gets exactly one reply (91,864)\n",
		"     –  the odds count every receipt once: never seen\n",
		"BROKEN  no broadcast is missing in a row: 1 times of 10, first: player 3: broadcast 45 of game 3 follows 43\n",
		" FAULT  connection lost, 1,234 times, first: player 9: reset\n",
		"  warn  the generator was the bottleneck\n",
		"UNFINISHED  all connections were lost\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("lacks %q:\n%s", want, &text)
		}
	}
}

func TestReportAsJSON(t *testing.T) {
	want := sampleReport()
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{`"p99_us":48480`, `"receipts":209990`, `"cpu_per_frame_us":8.27`, `"rss_per_connection":2805`, `"made":10000`} {
		if !strings.Contains(string(b), member) {
			t.Errorf("lacks %s", member)
		}
	}
	var got Report
	if err := json.Unmarshal(b, &got); err != nil || got.Stakes != want.Stakes || got.Latency != want.Latency || !reflect.DeepEqual(got.Server, want.Server) {
		t.Errorf("%v, read back: %+v", err, got)
	}
}

func TestReportFailsOnAnythingWrong(t *testing.T) {
	if err := sampleReport().Failed(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(r *Report){
		`"every request gets exactly one reply" was broken 2 times, first: x`: func(r *Report) { r.Checks[0].Failed, r.Checks[0].Example = 2, "x" },
		"a kind, 3 times, first: y":                func(r *Report) { r.Faults = []Fault{{Kind: "a kind", Count: 3, Example: "y"}} },
		"1 of 10000 players never got into a game": func(r *Report) { r.Connections.Joined-- },
		"not everyone's books could be compared":   func(r *Report) { r.Unfinished = "not everyone's books could be compared" },
	} {
		r := sampleReport()
		change(r)
		if err := r.Failed(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestReportSaysWhenTheGeneratorIsToBlame(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(r *Report)
		want   string
	}{
		{"it was idle", func(*Report) {}, ""},
		{"its loops were full", func(r *Report) { r.Generator.Busy = 0.9 }, "busy 90 % of the time"},
		{"it sent late", func(r *Report) { r.Latency.SendLag.P99 = 20_000 }, "sent late: 1 % of the stakes by 20.00 ms"},
		{"it sent late, but little of the latency is that", func(r *Report) { r.Latency.SendLag.P99 = 10_000 }, ""},
		{"it read late", func(r *Report) { r.Latency.Odds.P99, r.Latency.ReceiveLag.P99 = 100_000, 30_000 }, "read late: 1 % of its reads came 30.00 ms"},
		{"one agent of two was full, and in the mean nobody was", func(r *Report) {
			r.Agents = []AgentPart{{Address: "a:1", Busy: 0.05}, {Address: "b:1", Busy: 0.95}}
		}, "agent b:1 was a bottleneck: its loops were busy 95 % of the time"},
		{"one agent of two read late", func(r *Report) {
			r.Latency.Odds.P99 = 100_000
			r.Agents = []AgentPart{{Address: "a:1", ReceiveLag: 30_000}, {Address: "b:1"}}
		}, "agent a:1 was a bottleneck"},
		{"it had no ports left", func(r *Report) { r.Faults = []Fault{{Kind: "connect: " + shortOfPorts, Count: 3}} }, "the generator was the bottleneck: 3 times, no local port is free"},
		{"the server was not there", func(r *Report) { r.Faults = []Fault{{Kind: "connect: connection refused"}} }, ""},
		{"the players were poor", func(r *Report) { r.Stakes.Unplaced = 3000 }, "3,000 of 210,000 planned stakes"},
	} {
		r := sampleReport()
		row.change(r)
		r.warn()
		if got := strings.Join(r.Warnings, "; "); row.want == "" && got != "" || !strings.Contains(got, row.want) {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
		if got := r.Generator.Bottleneck; got != (row.want != "" && r.Stakes.Unplaced == 0) {
			t.Errorf("%s: marked as a bottleneck: %v", row.name, got)
		}
	}
}

func TestAgainTellsNoSecret(t *testing.T) {
	got := Again([]string{"server", "bench", "run", "--token", "t0ken", "--agent-token=s3cret", "a b", "--agent-token-file", "file"})
	if want := "server bench run --token … --agent-token=… 'a b' --agent-token-file file"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -999: "-999"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestProcessNumbers(t *testing.T) {
	got := procNumbers([]byte("Name:\tserver\nVmRSS:\t   1234 kB\nThreads:\t7\nbroken\n"))
	if got["VmRSS"] != 1234 || got["Threads"] != 7 || len(got) != 2 {
		t.Errorf("%v", got)
	}
	p := process{pids: []int{ownPID}, alone: true}
	if err := p.sample(time.Now()); err != nil || p.last.rss == 0 || p.last.anon == 0 || p.last.threads == 0 || p.pss() == 0 {
		t.Errorf("own process: %+v, %v", p.last, err)
	}
	gone := process{pids: []int{1 << 30}}
	if err := gone.sample(time.Now()); err == nil || gone.pss() != 0 {
		t.Error("a process that is not there has been measured")
	}
	for i, rss := range []uint64{9, 5, 7, 100} {
		p.samples = append(p.samples[:i], sample{at: time.Duration(i), rss: rss})
	}
	if m := p.median(0, 2, rssOf); m != 7 {
		t.Errorf("median %d", m)
	}
	if m := p.median(50, 60, rssOf); m != 0 {
		t.Errorf("median of nothing %d", m)
	}
}

// A server of several processes counts as one: those that it has started, while they run and when they have ended.
func TestProcessesAreSummed(t *testing.T) {
	shell := exec.Command("sh", "-c", "(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done); sleep 60 & echo ready; read line; kill $!")
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	defer shell.Wait()
	defer in.Close()
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	all, alone := process{pids: []int{shell.Process.Pid}}, process{pids: []int{shell.Process.Pid}, alone: true}
	if err := errors.Join(all.sample(time.Now()), alone.sample(time.Now())); err != nil {
		t.Fatal(err)
	}
	if len(all.family()) != 2 || all.last.rss <= alone.last.rss || all.pss() <= alone.pss() || all.last.cpu < alone.last.cpu+50*time.Millisecond {
		t.Errorf("together %+v, the shell alone %+v, of %v", all.last, alone.last, all.family())
	}
	twice := process{pids: []int{ownPID, shell.Process.Pid}} // its child, which is named as well, is counted once
	if n := len(twice.family()); n != 3 {
		t.Errorf("%d processes: %v", n, twice.family())
	}
}
