package feed

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"tote/server/market/football"
	"tote/server/market/sports"
)

func worldCup2018(t testing.TB) *football.Tournament {
	t.Helper()
	data, err := os.ReadFile("../../market/football/testdata/worldcup-2018.json")
	if err != nil {
		t.Fatal(err)
	}
	w, err := football.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// run plays a match and has all of its questions end.
func run(t *testing.T, m Match) questions {
	t.Helper()
	qs, err := DryRun(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range qs {
		if !q.Done() {
			t.Errorf("%s: %q of %s is %s", m.Name, q.Question, &q.Opened, q.State)
		}
	}
	return qs
}

func runMatch(t *testing.T, w *football.Tournament, what string) questions {
	t.Helper()
	m, err := w.Find(what)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, Football(w, m))
}

type questions []*Question

// of lists the pools that asked a question as "opener: winner (locker)".
func (qs questions) of(question string) (told []string) {
	short := func(m *Moment) string {
		if m == nil {
			return ""
		}
		return fmt.Sprintf("%s %d", m.Event, m.Minute)
	}
	for _, q := range qs {
		if q.Question == question {
			told = append(told, fmt.Sprintf("%s: %s (%s)", short(&q.Opened), strings.Join(q.Winners, ", "), short(q.Locked)))
		}
	}
	return told
}

const (
	nextTeam   = "Which team scores next?"
	goalsHalf  = "How many goals fall in this half?"
	leads      = "Who leads at half-time?"
	winner     = "Who wins the match, extra time and penalties included?"
	nextScorer = "Which player scores next? Own goals do not count."
)

// The World Cup final of 2022, pool by pool.
func TestFinal2022(t *testing.T) {
	qs := runMatch(t, football.WorldCup2022(), "Argentina-France")
	for _, row := range []struct {
		question string
		want     []string
	}{
		{nextTeam, []string{
			"kickoff 0: Argentina (goal 23)", "goal 23: Argentina (goal 36)", "goal 36: France (goal 80)", "goal 80: France (goal 81)",
			"goal 81: Argentina (goal 108)", "goal 108: France (goal 118)", "goal 118: No more goals (extraend 120)",
		}},
		{goalsHalf, []string{"kickoff 0: 2 (minute 30)", "secondhalf 45: 2 (minute 75)"}},
		{leads, []string{"kickoff 0: Argentina (minute 30)"}},
		{winner, []string{"kickoff 0: Argentina (minute 75)"}},
		{nextScorer, []string{
			"kickoff 0: Lionel Messi (goal 23)", "goal 23: Another player (goal 36)", "goal 36: Kylian Mbappé (goal 80)", "goal 80: Kylian Mbappé (goal 81)",
			"goal 81: Lionel Messi (goal 108)", "goal 108: Kylian Mbappé (goal 118)", "goal 118: Nobody (extraend 120)",
		}},
	} {
		if got := qs.of(row.question); !slices.Equal(got, row.want) {
			t.Errorf("%s:\n got %q\nwant %q", row.question, got, row.want)
		}
	}
}

// All matches of both tournaments resolve without a hand touching them.
func TestTournamentsResolve(t *testing.T) {
	for _, w := range []*football.Tournament{worldCup2018(t), football.WorldCup2022()} {
		matches := w.Matches()
		if len(matches) != 64 {
			t.Fatalf("%s has %d matches", w.Name, len(matches))
		}
		for i := range matches {
			m := &matches[i]
			qs := run(t, Football(w, m))
			for _, q := range qs {
				if q.State != "settled" {
					t.Errorf("%s, %s: %q of %s is %s", w.Name, m, q.Question, &q.Opened, q.State)
				}
			}
			// Each goal settles one question of the next team; its last one finds no more goals.
			teams := qs.of(nextTeam)
			if len(teams) != len(m.Goals)+1 || !strings.Contains(teams[len(teams)-1], "No more goals") {
				t.Errorf("%s, %s: %d goals, %q", w.Name, m, len(m.Goals), teams)
			}
			for j, g := range m.Goals {
				if !strings.Contains(teams[j], ": "+m.Teams[g.Team-1]+" (") {
					t.Errorf("%s, %s: goal %d by team %d, %q", w.Name, m, j+1, g.Team, teams[j])
				}
			}
			want := "Draw"
			if team := m.Winner(); team != 0 {
				want = m.Teams[team-1]
			}
			if won := qs.of(winner); len(won) != 1 || !strings.Contains(won[0], ": "+want+" (") {
				t.Errorf("%s, %s: winner %q, want %s", w.Name, m, won, want)
			}
		}
	}
}

// A half with many goals locks with the third; an own goal is a team's, but no player's.
func TestMatchesOfInterest(t *testing.T) {
	// England 6-1 Panama, 5-0 at half-time by 8', 22', 36', 40', 45+1'.
	qs := runMatch(t, worldCup2018(t), "England-Panama")
	if got, want := qs.of(goalsHalf)[0], "kickoff 0: 3 or more (minute 30)"; got != want {
		t.Errorf("England-Panama: %q, want %q", got, want)
	}
	// Spain 7-0 Costa Rica: 11', 21', 31'.
	w := football.WorldCup2022()
	qs = runMatch(t, w, "Spain-Costa Rica")
	if got, want := qs.of(goalsHalf)[0], "kickoff 0: 3 or more (minute 30)"; got != want {
		t.Errorf("Spain-Costa Rica: %q, want %q", got, want)
	}
	// Belgium 5-2 Tunisia: 6', 16', 18'.
	qs = runMatch(t, worldCup2018(t), "Belgium-Tunisia")
	if got, want := qs.of(goalsHalf)[0], "kickoff 0: 3 or more (goal 18)"; got != want {
		t.Errorf("Belgium-Tunisia: %q, want %q", got, want)
	}
	// Canada 1-2 Morocco: Zyiech 4', En-Nesyri 23', an own goal by Morocco's Aguerd 40'.
	qs = runMatch(t, w, "Canada-Morocco")
	if got, want := qs.of(nextTeam), []string{"kickoff 0: Morocco (goal 4)", "goal 4: Morocco (goal 23)", "goal 23: Canada (goal 40)", "goal 40: No more goals (fulltime 90)"}; !slices.Equal(got, want) {
		t.Errorf("Canada-Morocco: %q, want %q", got, want)
	}
	if got, want := qs.of(nextScorer)[2:], []string{"goal 23: Nobody (fulltime 90)"}; !slices.Equal(got, want) {
		t.Errorf("Canada-Morocco: %q, want %q", got, want)
	}
	// Morocco 0-0 Spain, 3-0 on penalties.
	qs = runMatch(t, w, "Morocco-Spain")
	if got, want := append(qs.of(nextTeam), qs.of(winner)...), []string{"kickoff 0: No more goals (extraend 120)", "kickoff 0: Morocco (minute 75)"}; !slices.Equal(got, want) {
		t.Errorf("Morocco-Spain: %q, want %q", got, want)
	}
	// A group match that ends level: nothing tells before the end that no more goals can fall.
	qs = runMatch(t, w, "USA-Wales")
	if got, want := qs.of(nextTeam)[2], "goal 82: No more goals (end 90)"; got != want {
		t.Errorf("USA-Wales: %q, want %q", got, want)
	}
}

// Another sport needs a file of templates and nothing else: a match of three maps, as a script.
func TestCounterStrike(t *testing.T) {
	file, err := os.ReadFile("testdata/counterstrike.json")
	if err != nil {
		t.Fatal(err)
	}
	ms, err := Read(file, "")
	if err != nil {
		t.Fatal(err)
	}
	qs := run(t, ms[0])
	for _, row := range []struct {
		question string
		want     []string
	}{
		{"Who wins the match?", []string{"kickoff 0: Northern Lights (map_start 0)"}},
		{"How many maps are played?", []string{"kickoff 0: 3 (map_start 0)"}},
		{"Who wins this map, Northern Lights or Deep Blue?", []string{
			"map_start 0: Northern Lights (round_end 10)", "map_start 0: Deep Blue (round_end 11)", "map_start 0: Northern Lights (map_end 2)"}},
		{"Who makes the first kill of the next round?", []string{
			"map_start 0: Ada (kill 1)", "round_end 1: Deep Blue, another player (kill 2)", "round_end 10:  ()",
			"map_start 0: Grace (kill 1)", "round_end 11:  ()", "map_start 0: Northern Lights, another player (kill 1)", "round_end 2:  ()"}},
	} {
		if got := qs.of(row.question); !slices.Equal(got, row.want) {
			t.Errorf("%s:\n got %q\nwant %q", row.question, got, row.want)
		}
	}

	// A team that does not go on: what is undecided is void, what is decided stays.
	short := ms[0]
	short.Steps = slices.Clone(short.Steps[:4])
	short.Steps[3].Event.Kind = "forfeit"
	for _, q := range run(t, short) {
		if settled := q.Question == "Who makes the first kill of the next round?" && len(q.Winners) == 1; !settled && q.State != "voided" {
			t.Errorf("%q of %s is %s after a forfeit", q.Question, &q.Opened, q.State)
		}
	}
}

// A question that no event ends shows; and a pool that the clock locks between two events says so.
func TestDryRunShowsWhatStaysOpen(t *testing.T) {
	w := football.WorldCup2022()
	m, err := w.Find("Final")
	if err != nil {
		t.Fatal(err)
	}
	match := Football(w, m)
	match.Opening.Templates = match.Opening.Templates[:1]
	match.Opening.Templates[0].Outcomes[2].Wins = "false"
	qs, err := DryRun(match)
	if err != nil {
		t.Fatal(err)
	}
	if last := qs[len(qs)-1]; last.Done() || last.State != "locked" || last.Locked.String() != "extraend 120' 3-3" {
		t.Errorf("the last question is %+v", last)
	}
}

func TestScriptsThatAreRefused(t *testing.T) {
	for _, row := range []struct{ name, file, want string }{
		{"no events", `{"game":{"name":"x"},"events":[]}`, "nothing happens"},
		{"backwards", `{"game":{"name":"x"},"events":[{"kind":"a","at":2},{"kind":"b","at":1}]}`, `event 2, "b", is at 1, before the one before it`},
		{"unknown sport", `{"sport":"chess","game":{"name":"x"},"events":[{"kind":"a"}]}`, `"chess": they do not ship; there are counterstrike, football`},
		{"unknown member", `{"games":{},"events":[{"kind":"a"}]}`, `unknown field "games"`},
		{"neither", `[]`, "read matches"},
	} {
		if _, err := Read([]byte(row.file), ""); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want … %s", row.name, err, row.want)
		}
	}
	if len(sports.Names()) != 2 {
		t.Errorf("sports %q ship", sports.Names())
	}
}
