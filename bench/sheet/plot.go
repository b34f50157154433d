package sheet

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// Plot is a figure of lines or points, drawn as inline SVG: no script, no fetch, and sharp on paper.
//
//	┌─ title ─────────────┐
//	│ y │ grid, lines     │
//	│   └──────────────── │
//	│        x     legend │
//	└─────────────────────┘
type Plot struct {
	Title, X, Y string
	LogY        bool
	Nines       bool // x is a share of all, 0 to 1, drawn by its number of nines: 0.99 is 2
	Series      []Series
}

// Series is one line of a plot, or its points.
type Series struct {
	Name   string
	XY     [][2]float64
	Points bool // not joined
	Dashed bool
}

// Measures of a plot, in SVG units that are about pixels.
const (
	plotWidth  = 640
	plotHeight = 300
	left       = 62 // of the axis: room for numbers and the y label
	right      = 14
	top        = 30
	bottom     = 44
	legendLine = 16
	pointsMax  = 600 // of a line: more than a screen has pixels for it
)

// palette is Okabe and Ito's: told apart by colour-blind readers, and on grey paper by the dashes.
var palette = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a7a00"}

// SVG draws the plot; empty where there is nothing to draw.
func (p *Plot) SVG() template.HTML {
	x0, x1, y0, y1 := p.bounds()
	if x1 < x0 || y1 < y0 {
		return ""
	}
	var b strings.Builder
	height := plotHeight + legendLine*((len(p.Series)+2)/3)
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, plotWidth, height, html.EscapeString(p.Title))
	text := func(x, y float64, anchor, class, words string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`, x, y, anchor, class, html.EscapeString(words))
	}
	atX := func(x float64) float64 { return left + (x-x0)/(x1-x0)*(plotWidth-left-right) }
	atY := func(y float64) float64 { return plotHeight - bottom - (y-y0)/(y1-y0)*(plotHeight-top-bottom) }
	text(left, 18, "start", "title", p.Title)
	for _, t := range p.ticksY(y0, y1) {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="grid"/>`, left, plotWidth-right, atY(t.at), atY(t.at))
		text(left-6, atY(t.at)+4, "end", "tick", t.name)
	}
	for _, t := range p.ticksX(x0, x1) {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="grid"/>`, atX(t.at), atX(t.at), top, plotHeight-bottom)
		text(atX(t.at), plotHeight-bottom+16, "middle", "tick", t.name)
	}
	text((left+plotWidth-right)/2, plotHeight-8, "middle", "label", p.X)
	fmt.Fprintf(&b, `<text x="14" y="%d" text-anchor="middle" class="label" transform="rotate(-90 14 %d)">%s</text>`,
		(top+plotHeight-bottom)/2, (top+plotHeight-bottom)/2, html.EscapeString(p.Y))
	for i, s := range p.Series {
		color := palette[i%len(palette)]
		points := p.placed(&s)
		dash := ""
		if s.Dashed || i >= len(palette) {
			dash = ` stroke-dasharray="6 4"`
		}
		if s.Points {
			for _, xy := range points {
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`, atX(xy[0]), atY(xy[1]), color)
			}
		} else {
			var line strings.Builder
			for _, xy := range points {
				fmt.Fprintf(&line, "%.1f,%.1f ", atX(xy[0]), atY(xy[1]))
			}
			fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.8"%s/>`, strings.TrimSpace(line.String()), color, dash)
		}
		x, y := float64(left+(i%3)*190), float64(plotHeight+legendLine*(i/3)+8)
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="3"%s/>`, x, x+18, y-4, y-4, color, dash)
		text(x+24, y, "start", "tick", s.Name)
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) // every word in it was escaped above
}

// placed are a series' points on the plot's scales, thinned where there are too many, by the greatest of each few: a peak must show.
func (p *Plot) placed(s *Series) [][2]float64 {
	var points [][2]float64
	every := (len(s.XY) + pointsMax - 1) / pointsMax
	for i := 0; i < len(s.XY); i += max(1, every) {
		most := s.XY[i]
		for _, xy := range s.XY[i:min(i+max(1, every), len(s.XY))] {
			if xy[1] > most[1] {
				most = xy
			}
		}
		if x, y, ok := p.place(most); ok {
			points = append(points, [2]float64{x, y})
		}
	}
	return points
}

// place brings a point on the scales; a logarithm has no place for zero.
func (p *Plot) place(xy [2]float64) (x, y float64, ok bool) {
	x, y = xy[0], xy[1]
	if p.Nines {
		x = min(-math.Log10(1-min(x, 0.99999)), 5)
	}
	if p.LogY {
		if y <= 0 {
			return 0, 0, false
		}
		y = math.Log10(y)
	}
	return x, y, !math.IsNaN(x+y) && !math.IsInf(x+y, 0)
}

func (p *Plot) bounds() (x0, x1, y0, y1 float64) {
	x0, x1, y0, y1 = math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for i := range p.Series {
		for _, xy := range p.placed(&p.Series[i]) {
			x0, x1, y0, y1 = min(x0, xy[0]), max(x1, xy[0]), min(y0, xy[1]), max(y1, xy[1])
		}
	}
	if p.LogY {
		y0, y1 = math.Floor(y0), math.Ceil(y1)
	} else {
		y0 = min(y0, 0)
	}
	if x1 == x0 {
		x1++
	}
	if y1 == y0 {
		y1++
	}
	if !p.LogY {
		y1 += (y1 - y0) * 0.05
	}
	return x0, x1, y0, y1
}

type tick struct {
	at   float64
	name string
}

func (p *Plot) ticksX(from, to float64) (ticks []tick) {
	if !p.Nines {
		return ticksOf(from, to)
	}
	for _, q := range []float64{0.5, 0.9, 0.99, 0.999, 0.9999} {
		if x, _, _ := p.place([2]float64{q, 1}); x <= to+0.01 && x >= from-0.01 {
			ticks = append(ticks, tick{x, strconv.FormatFloat(q*100, 'g', 6, 64) + " %"})
		}
	}
	if to >= 5 {
		ticks = append(ticks, tick{5, "max"})
	}
	return ticks
}

func (p *Plot) ticksY(from, to float64) (ticks []tick) {
	if !p.LogY {
		return ticksOf(from, to)
	}
	for e := math.Floor(from); e <= to; e++ {
		ticks = append(ticks, tick{e, short(math.Pow(10, e))})
	}
	return ticks
}

// ticksOf are about six round numbers: 1, 2 or 5 times a power of ten.
func ticksOf(from, to float64) (ticks []tick) {
	step := math.Pow(10, math.Floor(math.Log10((to-from)/6)))
	for _, times := range []float64{1, 2, 5, 10} {
		if (to-from)/(step*times) <= 7 {
			step *= times
			break
		}
	}
	for at := math.Ceil(from/step) * step; at <= to+step/1e6; at += step {
		ticks = append(ticks, tick{at, short(math.Round(at/step) * step)})
	}
	return ticks
}

// short writes 1200 as 1.2k.
func short(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if math.Abs(v) >= unit.size {
			return strconv.FormatFloat(v/unit.size, 'g', 4, 64) + unit.name
		}
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// Kiviat is a diagram of radii, one polygon for each run.
type Kiviat struct {
	Title    string
	Axes     []string
	Polygons []Polygon
}

// Polygon is one run's radii, in the order of the axes and in the axes' own units: each axis ends at the greatest.
type Polygon struct {
	Name  string
	Radii []float64
}

// SVG draws the diagram.
func (k *Kiviat) SVG() template.HTML {
	n := len(k.Axes)
	if n < 3 || len(k.Polygons) == 0 {
		return ""
	}
	const width, height, middle, radius = 360, 330, 160, 105
	most := make([]float64, n)
	for _, p := range k.Polygons {
		for i, r := range p.Radii {
			most[i] = max(most[i], r)
		}
	}
	at := func(axis int, share float64) (x, y float64) {
		turn := 2*math.Pi*float64(axis)/float64(n) - math.Pi/2
		return width/2 + radius*share*math.Cos(turn), middle + radius*share*math.Sin(turn)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, width, height+legendLine*len(k.Polygons), html.EscapeString(k.Title))
	fmt.Fprintf(&b, `<text x="%d" y="18" text-anchor="middle" class="title">%s</text>`, width/2, html.EscapeString(k.Title))
	ring := func(share func(i int) float64) string {
		var points strings.Builder
		for i := range n {
			x, y := at(i, share(i))
			fmt.Fprintf(&points, "%.1f,%.1f ", x, y)
		}
		return strings.TrimSpace(points.String())
	}
	for _, share := range []float64{0.25, 0.5, 0.75, 1} {
		fmt.Fprintf(&b, `<polygon points="%s" fill="none" class="grid"/>`, ring(func(int) float64 { return share }))
	}
	for i, name := range k.Axes {
		x, y := at(i, 1)
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%.1f" y2="%.1f" class="grid"/>`, width/2, middle, x, y)
		x, y = at(i, 1.2)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle" class="tick">%s</text>`, x, y, html.EscapeString(name))
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle" class="tick">%s</text>`, x, y+13, short(round(most[i])))
	}
	for j, p := range k.Polygons {
		color := palette[j%len(palette)]
		fmt.Fprintf(&b, `<polygon points="%s" fill="%s" fill-opacity="0.12" stroke="%s" stroke-width="2"/>`, ring(func(i int) float64 {
			if most[i] == 0 || i >= len(p.Radii) {
				return 0
			}
			return p.Radii[i] / most[i]
		}), color, color)
		y := height + legendLine*j - 6
		fmt.Fprintf(&b, `<line x1="20" x2="38" y1="%d" y2="%d" stroke="%s" stroke-width="3"/>`, y-4, y-4, color)
		fmt.Fprintf(&b, `<text x="44" y="%d" class="tick">%s</text>`, y, html.EscapeString(p.Name))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String()) // every word in it was escaped above
}

// round keeps three digits.
func round(v float64) float64 {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	if err != nil {
		return v
	}
	return rounded
}
