package model

import (
	"math"
	"testing"
)

func TestMeterRows(t *testing.T) {
	as(t, "CRUM", "%.4f", Area(1.41, 6.46433, 15.5086), "56.8262")
	if got := Area(0.9995, 3.54456, 14.32463); math.Abs(got-29.7198) > 1e-4 { // the inputs are printed with fewer digits than the area
		t.Errorf("CRUM is %g, want 29.7198", got)
	}
	as(t, "a square's area", "%.4f", Area(1, 1, 1, 1), "2.0000")
	as(t, "an area of two", "%.4f", Area(1, 1), "0.0000")
}

// Three minutes, of which each meter was worked out by hand: all triangles have ¼√3·3 times the square of an equal radius.
func TestMeter(t *testing.T) {
	three := func(v float64) []float64 { return []float64{v, v, v} }
	var minutes []Minute
	for _, v := range []float64{1, 2, 3} {
		minutes = append(minutes, Minute{Allocated: three(4), Utilised: three(v), Performance: three(1), Load: [3]float64{v, v, v}})
	}
	m, err := Meter(minutes)
	if err != nil {
		t.Fatal(err)
	}
	k := 3 * math.Sqrt(3) / 4
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-9*math.Abs(want) {
			t.Errorf("%s is %g, want %g", what, got, want)
		}
	}
	near("CRAM", m.CRAM.Mean, k*16)
	near("least CRUM", m.CRUM.Min, k)
	near("mean CRUM", m.CRUM.Mean, k*14/3)
	near("most CRUM", m.CRUM.Max, k*9)
	near("SPM", m.SPM.Max, k)
	sec := func(v float64) float64 { return Area(k*v*v, k, k*v*v) }
	near("SEC", m.SEC.Max, sec(3))
	near("ESR", m.ESR, sec(3)-sec(1))
	near("ESS where both are least", m.Minutes[0].ESS, 1)
	near("ESS at the most load", m.Minutes[2].ESS, 9/(sec(3)/sec(1)))
	near("SCM", m.SCM.Min, Area(k, k, k*16))

	for i := range minutes {
		minutes[i].Cost = 2.486
	}
	dear, err := Meter(minutes)
	if err != nil {
		t.Fatal(err)
	}
	near("SEC with its cost", dear.SEC.Min, Area(k, k, k, 2.486))
	near("cost", dear.Cost.Mean, 2.486)

	if _, err := Meter(nil); err == nil {
		t.Error("no minutes were metered")
	}
	if _, err := Meter([]Minute{{Allocated: three(1), Utilised: []float64{1, 2}, Performance: three(1)}}); err == nil {
		t.Error("a polygon of two radii was metered")
	}
}

// The regions cost more and did less: productivity falls to a fortieth.
func TestProductivityOfTheThesis(t *testing.T) {
	base, one, two := &Architectures[0], &Architectures[1], &Architectures[2]
	as(t, "baseline's productivity", "%.1f", base.Productivity(), "629.4")
	as(t, "I by the baseline", "%.4f", Scalability(base, one), "0.0253")
	as(t, "II by the baseline", "%.4f", Scalability(base, two), "0.0352")
	as(t, "II by I", "%.3f", Scalability(one, two), "1.392")
	as(t, "the value of an answer in time", "%.2f", Value(0.5, 0.5), "0.50")
}
