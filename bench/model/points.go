// Package model is what throughput says about scalability: models fitted to measured points, demands of
// resources and who saturates next, the meters of Pattabhiraman and Gao, and the productivity of Jogalekar and Woodside.
//
// `server bench fit` runs it on anybody's table, and bench on what it measured. It computes and formats; it measures nothing.
//
//	CSV ─▶ Data ─▶ FitAll ─▶ Study ─▶ text, JSON
//	       Read     models    Demands, choice, extrapolation
//
// Sources: L. G. Williams and C. U. Smith, "Web Application Scalability: A Model-Based Approach", 2004 (models, case studies);
// N. J. Gunther, "Guerrilla Capacity Planning", 2007 (the Universal Scalability Law); A. Pattabhiraman, J. Gao et al., "SaaS
// performance and scalability evaluation in clouds", 2011 (meters); P. Jogalekar and M. Woodside, "Evaluating the scalability of
// distributed systems", 2000 (productivity).
package model

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Point is one measurement.
type Point struct {
	P    float64   `json:"p"`              // processors, nodes, shards, users: what capacity is a function of; at least 1
	X    float64   `json:"x"`              // throughput, above 0, in any unit
	Used []float64 `json:"used,omitempty"` // utilisation of each resource, 0 to 1
}

// Data are the points of one system, by rising P. There is at least one with P = 1, to which capacity is relative, and one more.
type Data struct {
	Points    []Point  `json:"points"`
	Resources []string `json:"resources,omitempty"` // names of Point.Used
}

// most bounds p and x, so that their products stay numbers.
const most = 1e15

// Read reads comma-separated values: a head with the columns p and x in any order, and any number of further ones that are
// utilisations in percent, named by their resource. Lines that begin with # and empty ones are skipped. An error names
// the line and what to do about it.
func Read(r io.Reader) (*Data, error) {
	table := csv.NewReader(r)
	table.Comment, table.TrimLeadingSpace, table.FieldsPerRecord = '#', true, -1
	head, err := table.Read()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the table is empty; its first line names the columns: p,x")
	case err != nil:
		return nil, fmt.Errorf("%w; separate values by commas", err)
	}
	d, p, x := &Data{}, -1, -1
	for i, name := range head {
		head[i] = strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")) // spreadsheets begin with a mark of byte order
		switch {
		case strings.EqualFold(head[i], "p") && p < 0:
			p = i
		case strings.EqualFold(head[i], "x") && x < 0:
			x = i
		case head[i] == "" || strings.EqualFold(head[i], "p") || strings.EqualFold(head[i], "x"):
			return nil, fmt.Errorf("line 1: column %d is named %q; the names are p, x and, once each, resources", i+1, name)
		default:
			d.Resources = append(d.Resources, head[i])
		}
	}
	if p < 0 || x < 0 {
		return nil, fmt.Errorf("line 1: the columns are %q; name one p (processors, nodes) and one x (throughput)", head)
	}
	for {
		row, err := table.Read()
		if errors.Is(err, io.EOF) {
			return d, d.arrange()
		}
		if err != nil {
			return nil, fmt.Errorf("%w; separate values by commas", err)
		}
		line, _ := table.FieldPos(0)
		if len(row) != len(head) {
			return nil, fmt.Errorf("line %d: %d values for %d columns; leave none out", line, len(row), len(head))
		}
		var point Point
		for i, text := range row {
			text = strings.TrimSuffix(strings.TrimSpace(text), "%")
			number, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			switch {
			case err != nil || math.IsInf(number, 0) || math.IsNaN(number):
				return nil, fmt.Errorf("line %d: %s is %q; write a number with a decimal point", line, head[i], row[i])
			case i == p && (number < 1 || number > most):
				return nil, fmt.Errorf("line %d: p is %g; count from 1, up to %g", line, number, most)
			case i == x && (number < 1/most || number > most):
				return nil, fmt.Errorf("line %d: x is %g; a throughput is above 0, %g at most: leave out what was not measured", line, number, most)
			case i == p:
				point.P = number
			case i == x:
				point.X = number
			case number < 0 || number > 100:
				return nil, fmt.Errorf("line %d: %s is %g; a utilisation is in percent of all that there is, 0 to 100", line, head[i], number)
			default:
				point.Used = append(point.Used, number/100)
			}
		}
		d.Points = append(d.Points, point)
	}
}

// WriteCSV writes what Read reads.
func (d *Data) WriteCSV(w io.Writer) error {
	table := csv.NewWriter(w)
	table.Write(append([]string{"p", "x"}, d.Resources...))
	for _, point := range d.Points {
		row := []string{strconv.FormatFloat(point.P, 'g', -1, 64), strconv.FormatFloat(point.X, 'g', -1, 64)}
		for _, used := range point.Used {
			row = append(row, strconv.FormatFloat(100*used, 'g', -1, 64))
		}
		table.Write(row)
	}
	table.Flush()
	return table.Error()
}

// arrange sorts the points and refuses those that nothing can be said about.
func (d *Data) arrange() error {
	slices.SortStableFunc(d.Points, func(a, b Point) int {
		switch {
		case a.P < b.P:
			return -1
		case a.P > b.P:
			return 1
		}
		return 0
	})
	switch {
	case len(d.Points) == 0:
		return errors.New("there are no points; write a line for each measurement")
	case d.Points[0].P != 1:
		return fmt.Errorf("the least p is %g; capacity is relative to p = 1: measure it, or divide all p by %g", d.Points[0].P, d.Points[0].P)
	case d.Points[len(d.Points)-1].P == 1:
		return errors.New("all points have p = 1; measure at least one more p")
	}
	return nil
}

// one is the mean throughput at P = 1.
func (d *Data) one() float64 {
	sum, n := 0.0, 0.0
	for _, point := range d.Points {
		if point.P == 1 {
			sum, n = sum+point.X, n+1
		}
	}
	return sum / n
}

// largest is the largest P.
func (d *Data) largest() float64 { return d.Points[len(d.Points)-1].P }
