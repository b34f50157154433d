package bench

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

// Three steady minutes: every window says the same, and what it says is what was put in.
func TestMeters(t *testing.T) {
	r := &Report{Conditions: Conditions{Users: 2000, CPUs: 4, Memory: 8 << 30, Played: 180, PlayedFrom: 10}, Watched: &Watched{}}
	for i := range 200 {
		r.Timeline = append(r.Timeline, Moment{At: float64(i), Open: 2000, Planned: uint64(500 * i), Answered: uint64(500 * i), Bytes: uint64(3_000_000 * i), P99: 50_000})
		r.Looks = append(r.Looks, Look{At: float64(i), CPU: 2 * float64(i), RSS: 1 << 30, NetOut: uint64(4_000_000 * i)})
	}
	if err := r.meter(2.5); err != nil {
		t.Fatal(err)
	}
	m := r.Meters
	if len(m.Inputs) != 3 || m.Window != 60 {
		t.Fatalf("%d windows of %g s", len(m.Inputs), m.Window)
	}
	near := func(what string, got []float64, want ...float64) {
		t.Helper()
		for i := range want {
			if math.Abs(got[i]-want[i]) > 0.01*want[i] {
				t.Errorf("%s is %v, want %v", what, got, want)
			}
		}
	}
	for _, in := range m.Inputs {
		near("allocated", in.Allocated, 4, 8, 2)
		near("utilised", in.Utilised, 50, 12.5, 4)
		near("performance", in.Performance, 10, 5, 2)
		near("load", in.Load[:], 5, 2, 3)
	}
	near("ESS", []float64{m.ESS.Mean, m.ESS.Max}, 1, 1)
	near("cost", []float64{m.Cost.Mean}, 2.5)

	if err := (&Report{}).meter(0); err == nil {
		t.Error("a run that nobody watched was metered")
	}
}

func TestWriteClients(t *testing.T) {
	var text bytes.Buffer
	sampleReport().WriteClients(&text)
	for _, want := range []string{"Requests answered:      210000\n", "Requests per second:    699.90 [#/s]\n", "Prediction  210,000", "99.9 %", "Share served within a certain time (ms)"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("lacks %q:\n%s", want, &text)
		}
	}
}
