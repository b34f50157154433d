package bench

import (
	"fmt"
	"time"

	"tote/server/bench/model"
)

// Metered are the scalability meters of a run, with what went into them.
type Metered struct {
	Window float64        `json:"window_s"` // a minute, or a fifth of a shorter run
	Inputs []model.Minute `json:"inputs"`
	*model.Metered
}

// Axes name the inputs of the meters, in the units in which they have been brought to like sizes.
var Axes = struct{ Allocated, Utilised, Performance, Load []string }{
	Allocated:   []string{"cores", "GiB of memory", "thousands of connections planned"},
	Utilised:    []string{"CPU, % of the host", "memory, % of the host", "MB/s sent"},
	Performance: []string{"answered, tenths of the planned", "hundred answers/s", "100 ms / p99, 10 at most"},
	Load:        []string{"hundred requests/s", "thousand users", "MB/s delivered"},
}

// meter computes the meters over play; cost is of the server's host, per hour, 0: unknown.
func (r *Report) meter(cost float64) error {
	if r.Watched == nil {
		return fmt.Errorf("a run of %.1f s is too short for meters", r.Conditions.Played)
	}
	window := time.Minute.Seconds()
	if r.Conditions.Played < 2*window {
		window = r.Conditions.Played / 5
	}
	m := &Metered{Window: window}
	for from := r.Conditions.PlayedFrom; from+window <= r.Conditions.PlayedFrom+r.Conditions.Played+window/100; from += window {
		if in, ok := r.window(from, from+window); ok {
			in.Cost = cost
			m.Inputs = append(m.Inputs, in)
		}
	}
	var err error
	if m.Metered, err = model.Meter(m.Inputs); err != nil {
		return err
	}
	r.Meters = m
	return nil
}

// window is what the timelines say from one time to another.
func (r *Report) window(from, to float64) (in model.Minute, ok bool) {
	a, b, ok := ends(r.Timeline, from, to, func(m *Moment) float64 { return m.At })
	c, d, okay := ends(r.Looks, from, to, func(l *Look) float64 { return l.At })
	if !ok || !okay {
		return in, false
	}
	span, looked := b.At-a.At, d.At-c.At
	worst := int64(0)
	for i := range r.Timeline {
		if m := &r.Timeline[i]; m.At > from && m.At <= to {
			worst = max(worst, m.P99)
		}
	}
	answered, planned := float64(b.Answered-a.Answered), float64(b.Planned-a.Planned)
	kept, swift := 10.0, 10.0
	if planned > 0 {
		kept = min(10, 10*answered/planned)
	}
	if worst > 0 {
		swift = min(10, 100_000/float64(worst))
	}
	memory := float64(r.Conditions.Memory)
	in.Allocated = []float64{float64(r.Conditions.CPUs), memory / (1 << 30), float64(r.Conditions.Users) / 1000}
	in.Utilised = []float64{100 * (d.CPU - c.CPU) / looked / float64(r.Conditions.CPUs), 100 * float64(d.RSS) / max(memory, 1), float64(d.NetOut-min(c.NetOut, d.NetOut)) / looked / 1e6}
	in.Performance = []float64{kept, answered / span / 100, swift}
	in.Load = [3]float64{planned / span / 100, float64(b.Open) / 1000, float64(b.Bytes-a.Bytes) / span / 1e6}
	return in, true
}

// ends finds the first and the last sample of a window.
func ends[T any](all []T, from, to float64, at func(*T) float64) (first, last *T, ok bool) {
	for i := range all {
		switch t := at(&all[i]); {
		case t <= from || first == nil:
			first = &all[i]
		case t <= to+0.5:
			last = &all[i]
		}
	}
	return first, last, last != nil && at(last) > at(first)
}
