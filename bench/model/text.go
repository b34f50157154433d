package model

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText writes the study for people.
func (s *Study) WriteText(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d points, p from 1 to %g, X(1) = %.6g\n\n", len(s.Data.Points), s.Data.largest(), s.One)
	fmt.Fprintln(t, "model\tC(p)\tfitted\tparameters, with their 95 % intervals\tR²\terror of C\tpeak")
	for i := range s.Fits {
		f := &s.Fits[i]
		if f.Failed != "" {
			fmt.Fprintf(t, "%s\t%s\t%s\tnone: %s\t\t\t\n", f.Model, f.Formula, f.Way, f.Failed)
			continue
		}
		peak := "–"
		if f.Peak > 0 {
			peak = fmt.Sprintf("%.1f", f.Peak)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.4f\t%.4f\t%s\n", f.Model, f.Formula, f.Way, f.parameters(), f.R2, f.Error, peak)
	}
	t.Flush()
	fmt.Fprintln(w, "R² is of what was fitted: p/C − 1 and the like where linearised, C where not. So compare the errors of C.")

	if s.Supported == "" {
		fmt.Fprintf(w, "\nThe data support no model: %s.\n", s.Why)
	} else {
		fmt.Fprintf(w, "\nThe data support %s: %s.\n", s.Supported, s.Why)
	}

	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	chosen := s.Fit(s.Supported, Nonlinear)
	fmt.Fprint(t, "p\tX\tC\tline before\toff by\t")
	if chosen != nil {
		fmt.Fprintf(t, "%s C\tresidual\t", chosen.Model)
	}
	fmt.Fprintln(t)
	line := map[float64]Straight{}
	for _, straight := range s.Line {
		line[straight.P] = straight
	}
	for i, point := range s.Data.Points {
		fmt.Fprintf(t, "%g\t%.6g\t%.3f\t", point.P, point.X, point.X/s.One)
		if straight, ok := line[point.P]; ok {
			fmt.Fprintf(t, "%.2f\t%+.1f %%\t", straight.Predicted, 100*straight.Over)
		} else {
			fmt.Fprint(t, "\t\t")
		}
		if chosen != nil {
			fmt.Fprintf(t, "%.3f\t%+.3f\t", chosen.Capacity(point.P), chosen.Residuals[i])
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	for _, straight := range s.Line {
		if straight.Over > overMax {
			fmt.Fprintf(w, "Linear extrapolation from the points before p = %g would have promised %.0f where %.0f was measured.\n",
				straight.P, straight.Predicted, straight.Measured)
		}
	}

	for _, b := range s.Beyond {
		fmt.Fprintf(w, "\nAt p = %g:\n", b.P)
		t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "model\tX nonlinear\tC\tX linearised\t")
		for i := range laws {
			name := laws[i].name
			if x, ok := b.X[name]; ok && x > 0 {
				fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.2f\t\n", name, x, b.C[name], b.Paper[name])
			}
		}
		t.Flush()
		if b.Warning != "" {
			fmt.Fprintf(w, "Warning: %s.\n", b.Warning)
		}
	}

	for i, demand := range s.Demands {
		switch {
		case demand.Demand == 0:
			fmt.Fprintf(w, "\n%s is not used.", demand.Resource)
		case i == 0:
			fmt.Fprintf(w, "\n%s is the next to saturate: a demand of %.5f per unit of work, %.0f at most, about p = %g.",
				demand.Resource, demand.Demand, demand.Capacity, demand.At)
		default:
			fmt.Fprintf(w, "\n%s: a demand of %.5f, %.0f at most.", demand.Resource, demand.Demand, demand.Capacity)
		}
	}
	if len(s.Demands) > 0 {
		fmt.Fprintln(w)
	}
}

func (f *Fit) parameters() string {
	var parts []string
	for _, p := range f.Parameters {
		part := fmt.Sprintf("%s = %.4f", p.Name, p.Value)
		if p.Known() {
			part += fmt.Sprintf(" (%.4f to %.4f)", p.Low, p.High)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
