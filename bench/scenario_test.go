package bench

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tote/server/proto"
)

// Every built-in scenario and variant makes a plan that can be played.
func TestScenariosArePlans(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Scenarios() {
		seen[s.Name] = true
		for _, variant := range append([]string{""}, s.Names...) {
			s, err := ReadScenario(s.Name, variant)
			if err != nil {
				t.Fatal(err)
			}
			var venues []Venue
			for class, weights := range s.weights() {
				for _, weight := range weights {
					venues = append(venues, Venue{Game: proto.GameID(len(venues) + 1), Weight: weight, Class: class})
				}
			}
			plan, err := s.plan(venues)
			if err != nil {
				t.Fatal(err)
			}
			plan.Target = "ws://127.0.0.1:1/ws"
			plan = plan.withDefaults()
			if err := plan.check(); err != nil || s.About == "" {
				t.Errorf("%s %s: %v", s.Name, variant, err)
			}
		}
	}
	for _, name := range strings.Fields("football pingpong parameters rooms hotgame storm slow idle fanout") {
		if !seen[name] {
			t.Errorf("there is no scenario %s", name)
		}
	}
}

// The thesis' benchmark, to the letter.
func TestFootballIsTheThesis(t *testing.T) {
	s, err := ReadScenario("football", "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.plan([]Venue{{Game: 1, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Users != 24_000 || p.ConnectRate != 120 || p.Duration != 90*time.Minute || !p.FromStart || !p.Inspect || p.StakeRate != 0 ||
		p.Browse != [2]time.Duration{time.Second, 15 * time.Second} || p.Think != [2]time.Duration{time.Second, 30 * time.Second} ||
		s.Games[0].Interval != Span(3*time.Second) {
		t.Errorf("%+v", p)
	}
	if last := p.arrival(p.Users); last != 200*time.Second {
		t.Errorf("the last one arrives at %s, want 200 s", last)
	}
}

func TestVariantChangesWhatItNames(t *testing.T) {
	base, err := ReadScenario("parameters", "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadScenario("parameters", "payload-1kB")
	if err != nil {
		t.Fatal(err)
	}
	if s.Players.Payload != 1000 || s.Players.Think != base.Players.Think || s.Users != base.Users || base.Players.Payload != 81 {
		t.Errorf("%+v, before %+v", s.Players, base.Players)
	}
}

func TestReadScenarioRefuses(t *testing.T) {
	const good = "users = 10\nrate = \"5/s\"\nduration = \"1s\"\n"
	if _, err := readScenario([]byte(good+"players = { aloof = true }"), ""); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ text, want string }{
		{"users = \n", "line 1"},
		{good + "user = 10\nplayers = { aloof = true }", `line 4: nothing is named "user"`},
		{good + "[players]\naloof = true\nthimk = [\"1s\", \"2s\"]", `line 6: nothing is named "players.thimk"`},
		{good, "there are no games"},
		{"users = 0\n", "users = 0; at least 1"},
		{"users = 1\n", `write rate = "100/s"`},
		{"users = 1\nrate = \"fast\"\n", `rate "fast": write it as in 120/s`},
		{"users = 1\nrate = \"1/s\"", `write duration = "5m"`},
		{good + "[[games]]\nname = \"A\"", "count = 0 (at least 1)"},
		{good + "players = { aloof = true, deeds = { swim = 1 } }", `players cannot "swim"`},
		{good + "players = { aloof = true, deeds = { hello = 1 } }", `players cannot "hello" at random`},
		{good + "players = { aloof = true }\n[[variants]]\nname = \"a\"\nuser = 3", `variant a: line 2: nothing is named "user"`},
	} {
		if _, err := readScenario([]byte(row.text), ""); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: %v, want %q", row.text, err, row.want)
		}
	}
	if _, err := ReadScenario("football", "rain"); err == nil || !strings.Contains(err.Error(), `no variant "rain"`) {
		t.Error(err)
	}
	if _, err := ReadScenario("tennis", ""); err == nil || !strings.Contains(err.Error(), "there are fanout, football") {
		t.Error(err)
	}
}

func TestRates(t *testing.T) {
	for text, want := range map[string]Rate{"120/s": 120, "120": 120, "5/10s": 0.5, "90/min": 1.5, "90/m": 1.5, "7200/h": 2, "0.5/s": 0.5} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || math.Abs(float64(r-want)) > 1e-12 {
			t.Errorf("%s is %g, want %g: %v", text, r, want, err)
		}
	}
	for _, text := range []string{"", "/s", "a/s", "1/", "1/x", "-1/s", "NaN/s", "1/0s", "Inf"} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is read as %g", text, r)
		}
	}
}

// Crowds come one after the other, and whoever is left over comes at the usual rate.
func TestArrivals(t *testing.T) {
	p := Plan{Users: 40, ConnectRate: 10, Arrivals: []Crowd{{Users: 10, Rate: 1}, {Users: 20, Rate: 100, After: 5 * time.Second}}}
	for i, want := range map[int]time.Duration{0: 0, 9: 9 * time.Second, 10: 15 * time.Second, 20: 15*time.Second + 100*time.Millisecond,
		30: 15*time.Second + 200*time.Millisecond, 40: 16*time.Second + 200*time.Millisecond} {
		if got := p.arrival(i); got != want {
			t.Errorf("player %d arrives at %s, want %s", i, got, want)
		}
	}
	for i := range 60 {
		if p.arrival(i) > p.arrival(i+1) {
			t.Errorf("player %d arrives after the next one", i)
		}
	}
}

// A hot game has its share, and Zipf's games theirs.
func TestVenuesAreChosenByWeight(t *testing.T) {
	s := Scenario{Games: []Games{{Count: 1, Share: 0.9}, {Count: 50, Share: 0.1}}}
	var venues []Venue
	for class, weights := range s.weights() {
		for _, w := range weights {
			venues = append(venues, Venue{Game: proto.GameID(len(venues) + 1), Weight: w, Class: class})
		}
	}
	hot, games := 0, map[proto.GameID]bool{}
	const players = 10_000
	for i := range players {
		var p player
		p.init(i, &Plan{Seed: 3, Venues: venues})
		hot += int(count(p.venue == 1))
		games[p.venue] = true
		if (p.venue == 1) != (p.class == 0) {
			t.Fatalf("game %d is of class %d", p.venue, p.class)
		}
	}
	if hot < 8800 || hot > 9200 || len(games) != 51 {
		t.Errorf("%d of %d chose the hot game, %d games are played", hot, players, len(games))
	}
	zipf := (&Scenario{Games: []Games{{Count: 4, Zipf: 1}}}).weights()[0]
	if math.Abs(zipf[0]/zipf[3]-4) > 1e-9 {
		t.Errorf("the fourth game has weight %g, the first %g", zipf[3], zipf[0])
	}
}

func TestReadAddresses(t *testing.T) {
	all, err := ReadAddresses([]string{"10.0.0.1", "10.0.0.5-10.0.0.7", "10.1.0.0/30", "::1"})
	if err != nil || len(all) != 9 || all[3] != netip.MustParseAddr("10.0.0.7") || all[8] != netip.MustParseAddr("::1") {
		t.Errorf("%v, %v", all, err)
	}
	for _, text := range []string{"", "ten", "10.0.0.7-10.0.0.5", "10.0.0.1-::1", "10.0.0.0/40", "10.0.0.0/8"} {
		if _, err := ReadAddresses([]string{text}); err == nil || !strings.HasPrefix(err.Error(), "connect from") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPortsRunOut(t *testing.T) {
	if err := enoughPorts(28_232, 1, 1, 28_232); err != nil {
		t.Error(err)
	}
	err := enoughPorts(60_000, 2, 1, 28_232)
	if err == nil || !strings.Contains(err.Error(), "60000 users need as many local ports and 2 source addresses have 56464") ||
		!strings.Contains(err.Error(), "from 3 addresses") {
		t.Error(err)
	}
	if err := enoughPorts(100_000, 1, 4, 28_232); err != nil { // of one source, to each of four addresses
		t.Error(err)
	}
}

// Players drop out by chance and in storms, come back to the same account, and their books still agree.
func TestPlayersDropOutAndComeBack(t *testing.T) {
	t.Parallel()
	h := &house{plant: honest}
	plan := brief(h.open(t))
	plan.Churn = 2
	plan.Storms = []Storm{{At: 100 * time.Millisecond, Share: 1, Back: 200 * time.Millisecond}}
	plan.Duration = 1500 * time.Millisecond
	report, err := Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	c := report.Connections
	if err := report.Failed(); err != nil || c.Dropped < 30 || c.Returned != c.Dropped || c.Lost != 0 || report.Latency.Return.Count != int64(c.Returned) {
		t.Errorf("%+v, %v", c, err)
	}
}

// Players who leave one after the other are audited as they go; nobody is left.
func TestPlayersDepart(t *testing.T) {
	t.Parallel()
	h := &house{plant: honest}
	plan := brief(h.open(t))
	plan.Duration, plan.Depart = 300*time.Millisecond, 60
	report, err := Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Failed(); err != nil {
		t.Error(err)
	}
	for _, c := range report.Checks {
		if c.Promise == promises[checkTickets] && c.Passed != 30 {
			t.Errorf("%d of 30 players compared their receipts", c.Passed)
		}
	}
}

// What players do follows the weights, and each deed is answered.
func TestPlayersDoOtherThings(t *testing.T) {
	t.Parallel()
	h := &house{plant: honest}
	plan := brief(h.open(t))
	plan.Deeds = []Deed{{Type: proto.RequestStake, Weight: 1}, {Type: proto.RequestGames, Weight: 1}, {Type: proto.RequestAccount, Weight: 2}}
	plan.Payload, plan.Duration = 1000, time.Second
	plan.Browse, plan.Inspect = [2]time.Duration{1, 10 * time.Millisecond}, false
	report, err := Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	d, s := report.Deeds, report.Stakes
	if err := report.Failed(); err != nil || d.Answered != d.Planned || d.Planned < s.Sent || s.Receipts == 0 || report.Latency.Reply.Count != int64(d.Answered) {
		t.Errorf("%+v, %+v, %v", d, s, err)
	}
}
