package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"
)

// metersRounds are enough for an interval of a percent where the machine is quiet.
const metersRounds = 30

// What the histograms cost the way of a stake and that of a broadcast: two builds of the packages' own benchmarks, with and without, run in turns,
// and the median of the ratios of their CPU times, with the interval in which it lies by 95 %, whatever their distribution (order statistics). Target:
// at most 1.02.
//
//	go test -run '^$' -bench Meters -benchtime 1x -timeout 30m .
func BenchmarkMeters(b *testing.B) {
	for _, row := range []struct {
		name, in, bench, times string
		metric                 string // of the benchmark; "": the CPU time of its process
	}{
		{"stakes in the market", "market", "Stake$/one_shard", "200000x", ""},
		{"requests in the engine", "engine", "Request$", "200000x", ""},
		{"broadcasts", "engine", "Delivered$", "5x", "write-ratio"},
	} {
		b.Run(row.name, func(b *testing.B) {
			dir := b.TempDir()
			var builds [2]string
			for i, tags := range []string{"", "nometers"} {
				builds[i] = filepath.Join(dir, fmt.Sprint("build", i))
				if out, err := exec.Command("go", "test", "-c", "-tags", tags, "-o", builds[i], "./"+row.in).CombinedOutput(); err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
			}
			measure := func(build string) float64 {
				ctx, end := context.WithTimeout(b.Context(), time.Minute) // it takes seconds, or hangs
				defer end()
				run := exec.CommandContext(ctx, build, "-test.run", "^$", "-test.bench", row.bench, "-test.benchtime", row.times)
				run.Dir, run.Env = row.in, append(os.Environ(), "GOMAXPROCS=1", "TOTE_ENGINE_CLIENTS=1000")
				out, err := run.CombinedOutput()
				if err != nil || !bytes.Contains(out, []byte("PASS")) {
					b.Fatalf("%v\n%s", err, out)
				}
				if row.metric == "" {
					return (run.ProcessState.UserTime() + run.ProcessState.SystemTime()).Seconds()
				}
				found := regexp.MustCompile(`([0-9.]+) ` + row.metric).FindSubmatch(out)
				if found == nil {
					b.Fatalf("no %s in\n%s", row.metric, out)
				}
				value, err := strconv.ParseFloat(string(found[1]), 64)
				if err != nil {
					b.Fatal(err)
				}
				return value
			}
			var ratios []float64 // with, by without
			for b.Loop() {
				for round := range metersRounds {
					var took [2]float64
					for i := range builds { // who is first changes with the rounds
						at := (i + round) % 2
						took[at] = measure(builds[at])
					}
					ratios = append(ratios, took[0]/took[1])
				}
			}
			slices.Sort(ratios)
			n := float64(len(ratios))
			below := int(n/2 - 0.98*math.Sqrt(n))
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(ratios[len(ratios)/2], "ratio")
			b.ReportMetric(ratios[below], "at-least")
			b.ReportMetric(ratios[len(ratios)-1-below], "at-most")
		})
	}
}
