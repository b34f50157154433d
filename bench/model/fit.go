package model

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize"
	"gonum.org/v1/gonum/stat/distuv"
)

// law is a model of capacity C(p) = X(p)/X(1).
type law struct {
	name       string
	formula    string
	parameters []string
	capacity   func(p float64, θ []float64) float64
	// The linearised form: y(p, C) = Σ b·x(p), through the origin, and what the parameters are of the coefficients.
	y       func(p, c float64) float64
	x       func(p float64) []float64
	of      func(b []float64) []float64
	derived func(b []float64) [][]float64 // ∂θ/∂b, by rows of θ; nil: θ is b
}

// laws are all models, the simplest first. Super-serial and the Universal Scalability Law are the same curve in other parameters,
// β = σγ; both are here because people know the one or the other.
var laws = []law{
	{
		name: "linear", formula: "k·p", parameters: []string{"k"},
		capacity: func(p float64, θ []float64) float64 { return θ[0] * p },
		y:        func(p, c float64) float64 { return c },
		x:        func(p float64) []float64 { return []float64{p} },
	},
	{
		name: "Amdahl", formula: "p/(1+σ(p−1))", parameters: []string{"σ"},
		capacity: func(p float64, θ []float64) float64 { return p / (1 + θ[0]*(p-1)) },
		y:        contention,
		x:        func(p float64) []float64 { return []float64{p - 1} },
	},
	{
		name: "Gustafson", formula: "p/(1−σ(1−1/p))", parameters: []string{"σ"},
		capacity: func(p float64, θ []float64) float64 { return p / (1 - θ[0]*(1-1/p)) },
		y:        func(p, c float64) float64 { return 1 - p/c },
		x:        func(p float64) []float64 { return []float64{1 - 1/p} },
	},
	{
		name: "super-serial", formula: "p/(1+σ((p−1)+γ·p(p−1)))", parameters: []string{"σ", "γ"},
		capacity: func(p float64, θ []float64) float64 { return p / (1 + θ[0]*((p-1)+θ[1]*p*(p-1))) },
		y:        contention,
		x:        func(p float64) []float64 { return []float64{p - 1, p * (p - 1)} },
		of:       func(b []float64) []float64 { return []float64{b[0], b[1] / b[0]} },
		derived:  func(b []float64) [][]float64 { return [][]float64{{1, 0}, {-b[1] / (b[0] * b[0]), 1 / b[0]}} },
	},
	{
		name: "USL", formula: "p/(1+α(p−1)+β·p(p−1))", parameters: []string{"α", "β"},
		capacity: func(p float64, θ []float64) float64 { return p / (1 + θ[0]*(p-1) + θ[1]*p*(p-1)) },
		y:        contention,
		x:        func(p float64) []float64 { return []float64{p - 1, p * (p - 1)} },
	},
}

// contention is the linearised variable of Williams and Smith: p/C − 1.
func contention(p, c float64) float64 { return p/c - 1 }

// The two ways to fit.
const (
	Linearised = "linearised" // least squares on y, as in Williams and Smith
	Nonlinear  = "nonlinear"  // least squares on C
)

// Fit is one model fitted in one way.
type Fit struct {
	Model      string      `json:"model"`
	Formula    string      `json:"formula"`
	Way        string      `json:"way"`
	Parameters []Parameter `json:"parameters"`
	R2         float64     `json:"r2"`               // of the variable that was fitted, about its mean
	Error      float64     `json:"error_c"`          // standard error of C: √(Σ residual² / degrees of freedom); 0 where there are none
	Freedom    int         `json:"freedom"`          // points with p > 1, less the parameters
	Residuals  []float64   `json:"residuals_c"`      // measured − fitted C, point by point
	Peak       float64     `json:"peak_p"`           // where C is largest; 0: it grows for ever
	Failed     string      `json:"failed,omitempty"` // why there is no fit

	one float64
	law *law
	θ   []float64
}

// Parameter is one with its confidence interval at 95 %, by Student's t. Low = High = 0: too few points for one.
type Parameter struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Known says whether there is a confidence interval.
func (p *Parameter) Known() bool { return p.Low != p.High }

// Capacity is the model's C(p), and Throughput its X(p).
func (f *Fit) Capacity(p float64) float64   { return f.law.capacity(p, f.θ) }
func (f *Fit) Throughput(p float64) float64 { return f.one * f.Capacity(p) }

// FitAll fits all models in both ways, each model's linearised fit before its nonlinear one.
func FitAll(d *Data) []Fit {
	var fits []Fit
	for i := range laws {
		first := fitLinearised(d, &laws[i])
		fits = append(fits, first, fitNonlinear(d, &laws[i], first.θ))
	}
	return fits
}

// With is a model with parameters from elsewhere, for predictions to compare.
func With(d *Data, name string, θ ...float64) (*Fit, error) {
	for i := range laws {
		if laws[i].name == name && len(laws[i].parameters) == len(θ) {
			f := newFit(d, &laws[i], "given")
			f.finish(d, θ, nil)
			return &f, nil
		}
	}
	return nil, fmt.Errorf("there is no model %q with %d parameters", name, len(θ))
}

func newFit(d *Data, l *law, way string) Fit {
	f := Fit{Model: l.name, Formula: l.formula, Way: way, law: l, one: d.one()}
	for _, point := range d.Points {
		if point.P > 1 {
			f.Freedom++ // the points with p = 1 define C and fit any model
		}
	}
	f.Freedom -= len(l.parameters)
	return f
}

// fitLinearised solves the normal equations of the linearised form.
func fitLinearised(d *Data, l *law) Fit {
	f := newFit(d, l, Linearised)
	k, n := len(l.parameters), len(d.Points)
	x, y := mat.NewDense(n, k, nil), mat.NewVecDense(n, nil)
	for i, point := range d.Points {
		x.SetRow(i, l.x(point.P))
		y.SetVec(i, l.y(point.P, point.X/f.one))
	}
	b := make([]float64, k)
	if f.Freedom < 0 || mat.NewVecDense(k, b).SolveVec(x, y) != nil {
		return f.fail(errShort)
	}
	var fitted mat.VecDense
	fitted.MulVec(x, mat.NewVecDense(k, b))
	left := make([]float64, n)
	for i := range left {
		left[i] = y.AtVec(i) - fitted.AtVec(i)
	}
	f.R2 = determination(y.RawVector().Data, left)
	covariance := spread(x, left, f.Freedom)
	θ := b
	if l.of != nil {
		θ = l.of(b)
		if math.IsInf(θ[1], 0) || math.IsNaN(θ[1]) {
			return f.fail(errors.New("σ is 0, so γ has no value"))
		}
		if covariance != nil {
			var turned mat.Dense
			rows := mat.NewDense(k, k, nil)
			for i, row := range l.derived(b) {
				rows.SetRow(i, row)
			}
			turned.Product(rows, covariance, rows.T())
			covariance = &turned
		}
	}
	f.finish(d, θ, covariance)
	return f
}

var errShort = errors.New("there are fewer points than parameters; measure at more p")

func (f Fit) fail(why error) Fit {
	f.Failed = why.Error()
	return f
}

// fitNonlinear minimises the squares of C's residuals, beginning at the linearised fit.
func fitNonlinear(d *Data, l *law, start []float64) Fit {
	f := newFit(d, l, Nonlinear)
	if start == nil {
		return f.fail(errShort)
	}
	squares := func(θ []float64) float64 {
		sum := 0.0
		for _, point := range d.Points {
			left := point.X/f.one - l.capacity(point.P, θ)
			sum += left * left
		}
		return sum
	}
	found, err := optimize.Minimize(optimize.Problem{Func: squares}, start,
		&optimize.Settings{MajorIterations: 2000, Converger: &optimize.FunctionConverge{Absolute: 1e-14, Relative: 1e-12, Iterations: 200}},
		&optimize.NelderMead{SimplexSize: 0.01})
	if err != nil {
		return f.fail(fmt.Errorf("no minimum was found: %w", err))
	}
	θ, c := found.X, make([]float64, len(d.Points))
	for i, point := range d.Points {
		c[i] = point.X / f.one
	}
	slopes, left := f.slopes(d, θ)
	// The simplex stops where squares hardly differ, which may be the fourth digit of a parameter: a few steps of Gauss and Newton
	// end at the bottom.
	for range 50 {
		step := mat.NewVecDense(len(θ), nil)
		if step.SolveVec(slopes, mat.NewVecDense(len(left), left)) != nil {
			break
		}
		next := make([]float64, len(θ))
		floats.AddTo(next, θ, step.RawVector().Data)
		if !(squares(next) < squares(θ)) {
			break
		}
		θ = next
		slopes, left = f.slopes(d, θ)
	}
	f.R2 = determination(c, left)
	f.finish(d, θ, spread(slopes, left, f.Freedom))
	return f
}

// slopes are ∂C/∂θ at each point, and what is left there of the measured C.
func (f *Fit) slopes(d *Data, θ []float64) (slopes *mat.Dense, left []float64) {
	const step = 1e-6
	slopes = mat.NewDense(len(d.Points), len(θ), nil)
	for i, point := range d.Points {
		left = append(left, point.X/f.one-f.law.capacity(point.P, θ))
		for j := range θ {
			above, below := slices.Clone(θ), slices.Clone(θ)
			above[j] += step
			below[j] -= step
			slopes.Set(i, j, (f.law.capacity(point.P, above)-f.law.capacity(point.P, below))/(2*step))
		}
	}
	return slopes, left
}

// finish takes in the parameters and what follows from them. Numbers without end are no fit.
func (f *Fit) finish(d *Data, θ []float64, covariance *mat.Dense) {
	f.θ = θ
	for i, name := range f.law.parameters {
		p := Parameter{Name: name, Value: θ[i]}
		if covariance != nil {
			t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(f.Freedom)}.Quantile(0.975)
			if half := t * math.Sqrt(covariance.At(i, i)); !math.IsNaN(half) && !math.IsInf(half, 0) {
				p.Low, p.High = p.Value-half, p.Value+half
			}
		}
		f.Parameters = append(f.Parameters, p)
	}
	sum := 0.0
	for _, point := range d.Points {
		left := point.X/f.one - f.Capacity(point.P)
		f.Residuals = append(f.Residuals, left)
		sum += left * left
	}
	if f.Freedom > 0 {
		f.Error = math.Sqrt(sum / float64(f.Freedom))
	}
	if α, β := f.contentions(); β > 0 && α < 1 {
		f.Peak = math.Sqrt((1 - α) / β) // dC/dp = 0 of the USL
	}
	if sum := f.Error + f.R2 + f.Peak + sum + floats.Sum(θ); math.IsInf(sum, 0) || math.IsNaN(sum) {
		*f = Fit{Model: f.Model, Formula: f.Formula, Way: f.Way, Freedom: f.Freedom}.fail(errors.New("the numbers are too far apart"))
	}
}

// contentions are the USL's α and β, where the model has such.
func (f *Fit) contentions() (α, β float64) {
	switch f.Model {
	case "super-serial":
		return f.θ[0], f.θ[0] * f.θ[1]
	case "USL":
		return f.θ[0], f.θ[1]
	}
	return 0, 0
}

// determination is R²: 1 − Σ residual² / Σ (y − mean)².
func determination(y, left []float64) float64 {
	mean, whole, missed := 0.0, 0.0, 0.0
	for _, v := range y {
		mean += v / float64(len(y))
	}
	for i, v := range y {
		whole += (v - mean) * (v - mean)
		missed += left[i] * left[i]
	}
	if whole == 0 {
		return 0
	}
	return 1 - missed/whole
}

// spread is the parameters' covariance, s²(JᵀJ)⁻¹; nil where there are no degrees of freedom.
func spread(slopes *mat.Dense, left []float64, freedom int) *mat.Dense {
	if freedom < 1 {
		return nil
	}
	sum := 0.0
	for _, v := range left {
		sum += v * v
	}
	var information, inverse mat.Dense
	information.Mul(slopes.T(), slopes)
	if inverse.Inverse(&information) != nil {
		return nil
	}
	inverse.Scale(sum/float64(freedom), &inverse)
	return &inverse
}
