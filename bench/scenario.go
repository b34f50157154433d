package bench

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"tote/server/proto"
)

// Scenario is a declared load: who comes, to which games, and what they do there. Numbers of users are shares where they can be, so that
// a scenario keeps its shape when it is scaled.
//
//	file or name ─▶ Scenario ─▶ Plan ─▶ Run
//	                     └────▶ fixtures: the games that it is played in
type Scenario struct {
	Name    string `toml:"-"`
	Variant string `toml:"-"` // "": as the file begins

	About     string    `toml:"about"`
	Users     int       `toml:"users"`
	Rate      Rate      `toml:"rate"`       // of arrivals
	Crowds    []crowd   `toml:"crowds"`     // arrivals with other rates
	Duration  Span      `toml:"duration"`   // of play
	FromStart bool      `toml:"from_start"` // the duration has the arrivals in it
	Depart    Rate      `toml:"depart"`     // 0: all leave at once
	Seed      uint64    `toml:"seed"`
	Series    bool      `toml:"series"` // all variants make one study
	Games     []Games   `toml:"games"`
	Players   Habits    `toml:"players"`
	Storms    []storm   `toml:"storms"`
	Upgrades  []upgrade `toml:"upgrades"`
	Serve     []string  `toml:"serve"` // flags that a server of its own needs

	Variants []map[string]any `toml:"variants"` // each has a name, and what is different
	Names    []string         `toml:"-"`        // of the variants
	Renamed  string           `toml:"name"`     // a variant's name, in the variant
}

type (
	// Habits are what the players do.
	Habits struct {
		Aloof      bool               `toml:"aloof"`   // they join no game
		Browse     [2]Span            `toml:"browse"`  // from the list of games until one is joined
		Inspect    bool               `toml:"inspect"` // they list the pools of their game
		Think      [2]Span            `toml:"think"`   // from a reply to the next deed
		Deeds      map[string]float64 `toml:"deeds"`   // by weight; none: stakes, or nothing if aloof
		Stakes     Rate               `toml:"stakes"`  // deeds of all players together, at random times, instead of think
		Amounts    [2]proto.Amount    `toml:"amounts"` // of stakes
		Credits    proto.Amount       `toml:"credits"` // of each guest, where the server is the run's own
		Payload    int                `toml:"payload"` // bytes
		Churn      float64            `toml:"churn"`   // per second
		NeverRead  float64            `toml:"never_read"`
		ReadSlowly float64            `toml:"read_slowly"`
		SlowBytes  int                `toml:"slow_bytes"` // per second
	}
	// Games are like games.
	Games struct {
		Name     string   `toml:"name"`
		Count    int      `toml:"count"`
		Share    float64  `toml:"share"` // of the users, for all of them; none has one: equal
		Zipf     float64  `toml:"zipf"`  // exponent: the k-th game has 1/k^zipf of the first one's users
		Pools    int      `toml:"pools"` // open at any time
		Labels   []string `toml:"labels"`
		Interval Span     `toml:"interval"`
		Turnover Span     `toml:"turnover"` // how often the oldest pool is settled and another opened; 0: never
	}
	crowd struct {
		Share float64 `toml:"share"` // of the users
		Rate  Rate    `toml:"rate"`
		After Span    `toml:"after"` // the crowd before has arrived
	}
	storm struct {
		At    Span    `toml:"at"` // since play began
		Share float64 `toml:"share"`
		Back  Span    `toml:"back"` // they come back within
	}
)

// Rate is a number per second, written as in "120/s", "5/10s" or "90/min".
type Rate float64

func (r *Rate) UnmarshalText(text []byte) error {
	many, per, ok := strings.Cut(string(text), "/")
	if !ok {
		per = "s"
	}
	if strings.HasSuffix(per, "min") {
		per = strings.TrimSuffix(per, "in")
	}
	if per != "" && strings.Trim(per, "hms") == "" { // "s" is "1s"
		per = "1" + per
	}
	number, err := strconv.ParseFloat(strings.TrimSpace(many), 64)
	span, failed := time.ParseDuration(per)
	if err != nil || failed != nil || !(number >= 0) || math.IsInf(number, 0) || span <= 0 {
		return fmt.Errorf("rate %q: write it as in 120/s, 5/10s or 90/min", text)
	}
	*r = Rate(number / span.Seconds())
	return nil
}

// Span is a time, written as in "90m" or "500ms".
type Span time.Duration

func (s *Span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 0 {
		return fmt.Errorf("time %q: write it as in 500ms, 3s or 90m", text)
	}
	*s = Span(d)
	return nil
}

func (s Span) String() string { return time.Duration(s).String() }

func spans(s [2]Span) [2]time.Duration {
	return [2]time.Duration{time.Duration(s[0]), time.Duration(s[1])}
}

//go:embed scenarios/*.toml
var embedded embed.FS

// Scenarios lists the built-in scenarios.
func Scenarios() []*Scenario {
	files, err := fs.Glob(embedded, "scenarios/*.toml")
	assert(err == nil && len(files) > 0, "the scenarios are embedded")
	var all []*Scenario
	for _, file := range files {
		s, err := ReadScenario(strings.TrimSuffix(path.Base(file), ".toml"), "")
		assert(err == nil, "an embedded scenario is right")
		all = append(all, s)
	}
	return all
}

// ReadScenario reads a built-in scenario by its name, or a file that ends in .toml; variant is the name of one of its variants, or empty.
func ReadScenario(name, variant string) (*Scenario, error) {
	text, err := embedded.ReadFile("scenarios/" + name + ".toml")
	if strings.HasSuffix(name, ".toml") {
		text, err = os.ReadFile(name)
	} else if err != nil {
		var known []string
		files, _ := fs.Glob(embedded, "scenarios/*.toml")
		for _, file := range files {
			known = append(known, strings.TrimSuffix(path.Base(file), ".toml"))
		}
		return nil, fmt.Errorf("there is no scenario %q: there are %s, and any file that ends in .toml", name, strings.Join(known, ", "))
	}
	if err != nil {
		return nil, err
	}
	s, err := readScenario(text, variant)
	if err != nil {
		return nil, fmt.Errorf("scenario %s: %w", name, err)
	}
	s.Name, s.Variant = strings.TrimSuffix(path.Base(name), ".toml"), variant
	return s, nil
}

func readScenario(text []byte, variant string) (*Scenario, error) {
	s := &Scenario{}
	if err := decodeTOML(text, s); err != nil {
		return nil, err
	}
	found := variant == ""
	for _, v := range s.Variants {
		different, err := toml.Marshal(v)
		if err != nil {
			return nil, err
		}
		var alone Scenario // to know that it can be read
		if err := decodeTOML(different, &alone); err != nil {
			return nil, fmt.Errorf("variant %v: %w", v["name"], err)
		}
		s.Names = append(s.Names, alone.Renamed)
		if found = found || alone.Renamed == variant; alone.Renamed == variant {
			err := decodeTOML(different, s)
			assert(err == nil, "what was read once can be read again")
		}
	}
	if !found {
		return nil, fmt.Errorf("there is no variant %q: there are %s", variant, strings.Join(s.Names, ", "))
	}
	return s, s.check()
}

// decodeTOML reads text on top of what is there; what is wrong it says with its line.
func decodeTOML(text []byte, into any) error {
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		line, _ := unknown.Errors[0].Position()
		return fmt.Errorf("line %d: nothing is named %q; remove it, or see bench/scenarios for what there is", line, strings.Join(unknown.Errors[0].Key(), "."))
	case errors.As(err, &wrong):
		line, _ := wrong.Position()
		return fmt.Errorf("line %d: %w", line, err)
	}
	return err
}

// check refuses what a Plan does not know; the rest is the plan's to refuse.
func (s *Scenario) check() error {
	switch {
	case s.Users < 1:
		return fmt.Errorf("users = %d; at least 1", s.Users)
	case s.Rate <= 0:
		return errors.New(`there is no rate of arrivals; write rate = "100/s"`)
	case s.Duration <= 0:
		return errors.New(`there is no duration; write duration = "5m"`)
	case len(s.Games) > ClassesMax:
		return fmt.Errorf("%d kinds of games; up to %d", len(s.Games), ClassesMax)
	case len(s.Games) == 0 && !s.Players.Aloof:
		return errors.New("there are no games; write [[games]], or aloof = true in [players]")
	}
	for _, g := range s.Games {
		if g.Count < 1 || g.Share < 0 || g.Share > 1 || g.Zipf < 0 || g.Pools < 0 || g.Turnover < 0 {
			return fmt.Errorf("games %q: count = %d (at least 1), share = %g (0 to 1), zipf = %g, pools = %d, turnover = %s (0 or more)",
				g.Name, g.Count, g.Share, g.Zipf, g.Pools, g.Turnover)
		}
	}
	_, err := s.deeds()
	return err
}

// deeds are the players', in the order of their names.
func (s *Scenario) deeds() (deeds []Deed, err error) {
	for name, weight := range s.Players.Deeds {
		d := Deed{Weight: weight}
		for d.Type = proto.RequestNone + 1; d.Type.String() != name; d.Type++ {
			if d.Type.String() == "" || d.Type > 100 {
				return nil, fmt.Errorf("players cannot %q", name)
			}
		}
		if !d.possible() {
			return nil, fmt.Errorf("players cannot %q at random", name)
		}
		deeds = append(deeds, d)
	}
	slices.SortFunc(deeds, func(a, b Deed) int { return cmp.Compare(a.Type, b.Type) })
	return deeds, nil
}

// plan makes the plan for these venues.
func (s *Scenario) plan(venues []Venue) (Plan, error) {
	deeds, err := s.deeds()
	if err != nil {
		return Plan{}, err
	}
	h := &s.Players
	p := Plan{
		Users: s.Users, ConnectRate: float64(s.Rate), Duration: time.Duration(s.Duration), FromStart: s.FromStart, Depart: float64(s.Depart),
		StakeRate: float64(h.Stakes), Think: spans(h.Think), Stakes: h.Amounts, Venues: venues, Aloof: h.Aloof, Browse: spans(h.Browse), Inspect: h.Inspect,
		Deeds: deeds, Payload: h.Payload, Churn: h.Churn, Slow: Slow{Never: h.NeverRead, Trickle: h.ReadSlowly, Rate: h.SlowBytes}, Seed: s.Seed,
	}
	for _, c := range s.Crowds {
		p.Arrivals = append(p.Arrivals, Crowd{Users: int(math.Round(c.Share * float64(s.Users))), Rate: float64(c.Rate), After: time.Duration(c.After)})
	}
	for _, storm := range s.Storms {
		p.Storms = append(p.Storms, Storm{At: time.Duration(storm.At), Share: storm.Share, Back: time.Duration(storm.Back)})
	}
	return p, nil
}

// weights are the shares of the users that the games of each kind have.
func (s *Scenario) weights() [][]float64 {
	shared := slices.ContainsFunc(s.Games, func(g Games) bool { return g.Share > 0 })
	var all [][]float64
	for _, g := range s.Games {
		share, sum := g.Share, 0.0
		if !shared {
			share = float64(g.Count)
		}
		var weights []float64
		for k := range g.Count {
			weights = append(weights, math.Pow(float64(k+1), -g.Zipf))
			sum += weights[k]
		}
		for k := range weights {
			weights[k] *= share / sum
		}
		all = append(all, weights)
	}
	return all
}
