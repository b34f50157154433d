package model

import (
	"errors"
	"fmt"
	"math"
)

// Area is the area of the polygon whose radii, at equal angles, are the inputs: ½·sin(2π/n)·Σ x_i·x_{i+1}, cyclic. At least
// three; fewer span no area.
func Area(radii ...float64) float64 {
	n := len(radii)
	if n < 3 {
		return 0
	}
	sum := 0.0
	for i, r := range radii {
		sum += r * radii[(i+1)%n]
	}
	return math.Sin(2*math.Pi/float64(n)) / 2 * sum
}

// Minute is what a run's meters take in for one minute. All inputs of one meter are in comparable units, at least three each.
type Minute struct {
	Allocated   []float64  `json:"allocated"`   // resources: cores, memory, …
	Utilised    []float64  `json:"utilised"`    // of them
	Performance []float64  `json:"performance"` // such as availability, throughput, 1/latency
	Load        [3]float64 `json:"load"`        // traffic, users, data
	Cost        float64    `json:"cost"`        // per hour; 0: it is left out of SEC
}

// Meters are a minute's areas.
type Meters struct {
	CRAM float64 `json:"cram"` // computing resource allocation
	CRUM float64 `json:"crum"` // computing resource utilisation
	SPM  float64 `json:"spm"`  // system performance
	SLM  float64 `json:"slm"`  // system load
	SCM  float64 `json:"scm"`  // system capacity: SLM, SPM, CRAM
	SEC  float64 `json:"sec"`  // system effective capacity: SLM, SPM, CRUM and, as in the thesis, the cost per hour
	ESS  float64 `json:"ess"`  // effective system scalability: growth of load by growth of effective capacity
}

// Summary is the least, the mean and the most of a meter over a run.
type Summary struct {
	Min  float64 `json:"min"`
	Mean float64 `json:"mean"`
	Max  float64 `json:"max"`
}

// Metered is a whole run's meters.
type Metered struct {
	Minutes []Meters `json:"minutes"`
	CRAM    Summary  `json:"cram"`
	CRUM    Summary  `json:"crum"`
	SPM     Summary  `json:"spm"`
	SLM     Summary  `json:"slm"`
	SCM     Summary  `json:"scm"`
	SEC     Summary  `json:"sec"`
	ESS     Summary  `json:"ess"`
	ESR     float64  `json:"esr"`  // effective scalability range: SEC_max − SEC_min
	Cost    Summary  `json:"cost"` // per hour
}

// Meter computes the meters minute by minute. ESS of a minute is (SL/SL_min)/(SEC/SEC_min): 1 where both are least, and below 1
// where effective capacity grows faster than the load that it is for.
func Meter(minutes []Minute) (*Metered, error) {
	if len(minutes) == 0 {
		return nil, errors.New("there is no whole minute to meter; run for longer")
	}
	m := &Metered{}
	for i, in := range minutes {
		if len(in.Allocated) < 3 || len(in.Utilised) < 3 || len(in.Performance) < 3 {
			return nil, fmt.Errorf("minute %d: %d, %d and %d inputs; a polygon has at least three radii",
				i, len(in.Allocated), len(in.Utilised), len(in.Performance))
		}
		out := Meters{CRAM: Area(in.Allocated...), CRUM: Area(in.Utilised...), SPM: Area(in.Performance...), SLM: Area(in.Load[:]...)}
		out.SCM = Area(out.SLM, out.SPM, out.CRAM)
		if in.Cost > 0 {
			out.SEC = Area(out.SLM, out.SPM, out.CRUM, in.Cost)
		} else {
			out.SEC = Area(out.SLM, out.SPM, out.CRUM)
		}
		m.Minutes = append(m.Minutes, out)
	}
	of := func(get func(*Meters) float64) Summary {
		s := Summary{Min: math.Inf(1), Max: math.Inf(-1)}
		for i := range m.Minutes {
			v := get(&m.Minutes[i])
			s.Min, s.Max = min(s.Min, v), max(s.Max, v)
			s.Mean += v / float64(len(m.Minutes))
		}
		return s
	}
	m.CRAM, m.CRUM = of(func(x *Meters) float64 { return x.CRAM }), of(func(x *Meters) float64 { return x.CRUM })
	m.SPM, m.SLM = of(func(x *Meters) float64 { return x.SPM }), of(func(x *Meters) float64 { return x.SLM })
	m.SCM, m.SEC = of(func(x *Meters) float64 { return x.SCM }), of(func(x *Meters) float64 { return x.SEC })
	m.ESR = m.SEC.Max - m.SEC.Min
	for i := range m.Minutes {
		if x := &m.Minutes[i]; m.SLM.Min > 0 && m.SEC.Min > 0 {
			x.ESS = (x.SLM / m.SLM.Min) / (x.SEC / m.SEC.Min)
		}
	}
	m.ESS = of(func(x *Meters) float64 { return x.ESS })
	i := 0
	m.Cost = of(func(*Meters) float64 { i++; return minutes[i-1].Cost })
	return m, nil
}

// Scale is a system at one size, for its productivity.
type Scale struct {
	Name       string  `json:"name"`
	Throughput float64 `json:"throughput"` // λ, per second
	Value      float64 `json:"value"`      // f, of each answer: see Value; 1: any answer is as good
	Cost       float64 `json:"cost"`       // C, per the same time
}

// Productivity is F = λ·f/C of Jogalekar and Woodside.
func (s *Scale) Productivity() float64 { return s.Throughput * s.Value / s.Cost }

// Scalability is F(k2)/F(k1): a system scales from k1 to k2 where it is not much below 1.
func Scalability(k1, k2 *Scale) float64 { return k2.Productivity() / k1.Productivity() }

// Value is the usual value of an answer that takes t where target is what is wanted: 1/(1+t/target).
func Value(t, target float64) float64 { return 1 / (1 + t/target) }

// Architectures are those of the thesis, over the 90 minutes of its benchmark: all on one host; servers in 8 regions with the
// data central; read replicas in the regions. Costs are per hour.
var Architectures = []Scale{
	{Name: "baseline", Throughput: 8_449_173 / 5400., Value: 1, Cost: 2.486},
	{Name: "I", Throughput: 589_923 / 5400., Value: 1, Cost: 6.864},
	{Name: "II", Throughput: 796_660 / 5400., Value: 1, Cost: 6.658},
}
