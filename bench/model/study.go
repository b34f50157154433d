package model

import (
	"fmt"
	"math"
	"slices"
)

// Study is all that the points say.
type Study struct {
	Data      *Data      `json:"data"`
	One       float64    `json:"x_1"` // throughput at p = 1
	Fits      []Fit      `json:"fits"`
	Supported string     `json:"supported"` // the model that the data support best; empty: none can be told
	Why       string     `json:"why"`
	Beyond    []Beyond   `json:"extrapolation"`
	Line      []Straight `json:"linear_extrapolation"`
	Demands   []Demand   `json:"demands,omitempty"`
}

// Beyond is what the models say of a p that was not measured.
type Beyond struct {
	P       float64            `json:"p"`
	X       map[string]float64 `json:"x"`                 // by model, nonlinear fits
	C       map[string]float64 `json:"c"`                 //
	Paper   map[string]float64 `json:"x_linearised"`      // … and linearised ones
	Warning string             `json:"warning,omitempty"` // how far to trust it
}

// Straight is what a line through the points before P would have said of it.
type Straight struct {
	P         float64 `json:"p"`
	Measured  float64 `json:"measured_x"`
	Predicted float64 `json:"predicted_x"` // k·p·X(1), k from the points with lesser p
	Over      float64 `json:"over"`        // predicted / measured − 1
}

// overMax is how far a linear extrapolation may be off before it is said to mislead. It is the usual run-to-run difference.
const overMax = 0.10

// farMax is how many times the largest measured p a prediction may be away to pass without a stronger word.
const farMax = 2

// NewStudy fits and concludes; at names the p to extrapolate to, none: twice the largest one measured.
func NewStudy(d *Data, at ...float64) (*Study, error) {
	for _, p := range at {
		if !(p >= 1 && p <= most) {
			return nil, fmt.Errorf("extrapolate to p = %g: from 1 to %g", p, most)
		}
	}
	s := &Study{Data: d, One: d.one(), Fits: FitAll(d), Demands: Demands(d)}
	if len(at) == 0 {
		at = []float64{2 * d.largest()}
	}
	s.choose()
	s.line()
	for _, p := range at {
		s.extrapolate(p)
	}
	return s, nil
}

// Fit returns a model's fit; nil where there is none.
func (s *Study) Fit(name, way string) *Fit {
	for i := range s.Fits {
		if f := &s.Fits[i]; f.Model == name && f.Way == way && f.Failed == "" {
			return f
		}
	}
	return nil
}

// choose names the model with the least standard error of C, in which a parameter more has its price, and says where the points
// do not tell it from its neighbour.
func (s *Study) choose() {
	var best *Fit
	for i := range s.Fits {
		f := &s.Fits[i]
		if f.Way != Nonlinear || f.Failed != "" || f.Freedom < 1 || f.Model == "USL" || !f.physical() {
			continue // the USL is super-serial's curve
		}
		if best == nil || f.Error < best.Error {
			best = f
		}
	}
	if best == nil {
		s.Why = "there are too few points to tell models apart: measure at more p"
		return
	}
	s.Supported = best.Model
	s.Why = fmt.Sprintf("%s has the least standard error of C (%.4f, R² %.4f)", best.Model, best.Error, best.R2)
	serial := s.Fit("super-serial", Nonlinear)
	switch {
	case serial == nil || best.Model != "super-serial" && best.Model != "Amdahl":
	case best.Model == "super-serial" && serial.mayBeAmdahl():
		s.Why += fmt.Sprintf("; the interval of its γ, %.3f to %.3f, holds 0, so Amdahl is not ruled out: measure at more p",
			serial.Parameters[1].Low, serial.Parameters[1].High)
	case best.Model == "super-serial":
		s.Why += "; the USL is the same curve"
	case serial.Parameters[1].High > 0:
		s.Why += fmt.Sprintf("; super-serial is not ruled out, its γ being %.3f (%.3f to %.3f): measure at more p",
			serial.Parameters[1].Value, serial.Parameters[1].Low, serial.Parameters[1].High)
	}
}

func (f *Fit) mayBeAmdahl() bool { return f.Parameters[1].Low <= 0 && f.Parameters[1].High >= 0 }

// physical refuses parameters that mean nothing: they say that the system is not of that kind.
func (f *Fit) physical() bool {
	switch f.Model {
	case "Amdahl", "Gustafson":
		return f.θ[0] >= 0 && f.θ[0] <= 1
	case "super-serial":
		return f.θ[0] >= 0 && f.θ[0] <= 1 && f.θ[1] >= 0
	}
	return true
}

// line asks at each p what a line through the points before it would have said.
func (s *Study) line() {
	for _, p := range s.Data.places()[1:] {
		xy, xx, n := 0.0, 0.0, 0
		measured := 0.0
		for _, point := range s.Data.Points {
			switch {
			case point.P < p:
				xy, xx = xy+point.P*point.X, xx+point.P*point.P
			case point.P == p:
				measured += point.X
				n++
			}
		}
		straight := Straight{P: p, Measured: measured / float64(n), Predicted: p * xy / xx}
		straight.Over = straight.Predicted/straight.Measured - 1
		s.Line = append(s.Line, straight)
	}
}

// places are the different p.
func (d *Data) places() []float64 {
	var places []float64
	for _, point := range d.Points {
		if !slices.Contains(places, point.P) {
			places = append(places, point.P)
		}
	}
	return places
}

func (s *Study) extrapolate(p float64) {
	b := Beyond{P: p, X: map[string]float64{}, C: map[string]float64{}, Paper: map[string]float64{}}
	for i := range s.Fits {
		f := &s.Fits[i]
		switch {
		case f.Failed != "" || math.IsInf(f.Capacity(p), 0) || math.IsNaN(f.Capacity(p)):
		case f.Way == Linearised:
			b.Paper[f.Model] = f.Throughput(p)
		default:
			b.X[f.Model], b.C[f.Model] = f.Throughput(p), f.Capacity(p)
		}
	}
	line, supported := b.X["linear"], b.X[s.Supported]
	switch most := s.Data.largest(); {
	case s.Supported == "":
		b.Warning = "no model is supported, so none of these is more than a guess"
	case p > farMax*most:
		b.Warning = fmt.Sprintf("%g is %.1f times the largest p measured: a guess, whatever the model", p, p/most)
	case p > most:
		b.Warning = fmt.Sprintf("%g lies beyond the points: the model may not hold there", p)
	}
	if s.Supported != "" && s.Supported != "linear" && supported > 0 && math.Abs(line/supported-1) > overMax {
		b.Warning = join(b.Warning, fmt.Sprintf("linear extrapolation misleads: %.0f where %s says %.0f (%+.0f %%)",
			line, s.Supported, supported, 100*(line/supported-1)))
	}
	if s.Supported != "" {
		if f := s.Fit(s.Supported, Nonlinear); f.Peak > 0 && p > f.Peak {
			b.Warning = join(b.Warning, fmt.Sprintf("it lies behind the peak at p = %.1f, where more makes it slower", f.Peak))
		}
	}
	for _, demand := range s.Demands {
		if stop := demand.Capacity; stop > 0 && supported > stop {
			b.Warning = join(b.Warning, fmt.Sprintf("%s saturates before, at a throughput of %.0f", demand.Resource, stop))
			break
		}
	}
	s.Beyond = append(s.Beyond, b)
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// Demand is what one unit of work costs a resource that does not grow with p.
type Demand struct {
	Resource string  `json:"resource"`
	Demand   float64 `json:"demand"`         // D = U/X, mean over the points; seconds, where X is per second
	Capacity float64 `json:"capacity"`       // 1/D: the throughput at which it is the bottleneck
	At       float64 `json:"at_p,omitempty"` // the least p at which a line through the points comes there
}

// Demands applies the utilisation law to all resources; the first is the next to saturate.
func Demands(d *Data) []Demand {
	var demands []Demand
	slope := 0.0
	for _, point := range d.Points {
		slope += point.X / point.P / float64(len(d.Points))
	}
	for i, name := range d.Resources {
		demand := Demand{Resource: name}
		for _, point := range d.Points {
			demand.Demand += point.Used[i] / point.X / float64(len(d.Points))
		}
		if demand.Demand > 0 {
			demand.Capacity = 1 / demand.Demand
			demand.At = math.Ceil(demand.Capacity / slope)
		}
		demands = append(demands, demand)
	}
	slices.SortStableFunc(demands, func(a, b Demand) int {
		switch {
		case a.Demand > b.Demand:
			return -1
		case a.Demand < b.Demand:
			return 1
		}
		return 0
	})
	return demands
}
