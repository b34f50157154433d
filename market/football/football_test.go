package football

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func worldCup2018(t testing.TB) *Tournament {
	t.Helper()
	data, err := os.ReadFile("testdata/worldcup-2018.json")
	if err != nil {
		t.Fatal(err)
	}
	w, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func find(t *testing.T, w *Tournament, what string) *Match {
	t.Helper()
	m, err := w.Find(what)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The game for the final of 2022: before it, Mbappé had five goals (two of them as "Mbappé"), and Messi five.
func TestOpening(t *testing.T) {
	w := WorldCup2022()
	o := find(t, w, "Argentina-France").Opening(w)
	if o.Name != "Argentina v France" || o.Teams != [2]string{"Argentina", "France"} {
		t.Errorf("the game is %q", o.Name)
	}
	if want := []string{"Lionel Messi", "Julián Álvarez", "Enzo Fernández", "Kylian Mbappé", "Olivier Giroud", "Adrien Rabiot"}; !slices.Equal(o.Shortlist, want) {
		t.Errorf("the shortlist is %q, want %q", o.Shortlist, want)
	}
}

// tell writes a schedule without its minutes, as "1h00m30s goal 45 1-0 1 Messi".
func tell(steps []Step) (told []string) {
	for _, s := range steps {
		e := s.Event
		if e.Kind == "minute" {
			continue
		}
		line := fmt.Sprintf("%s %s %d %d-%d", s.At, e.Kind, e.Minute, e.Score[0], e.Score[1])
		if e.Team != 0 {
			line += fmt.Sprintf(" %d", e.Team)
		}
		if e.Player != "" {
			line += " " + e.Player
		}
		if e.Penalty {
			line += ", penalty"
		}
		if e.OwnGoal {
			line += ", own goal"
		}
		told = append(told, line)
	}
	return told
}

func TestSchedule(t *testing.T) {
	for _, row := range []struct {
		tournament *Tournament
		match      string
		want       []string
	}{
		{WorldCup2022(), "Argentina-France", []string{
			"0s kickoff 0 0-0",
			"22m30s goal 23 1-0 1 Lionel Messi, penalty",
			"35m30s goal 36 2-0 1 Ángel Di María",
			"47m0s halftime 45 2-0",
			"1h2m0s secondhalf 45 2-0",
			"1h36m30s goal 80 2-1 2 Kylian Mbappé, penalty",
			"1h37m30s goal 81 2-2 2 Kylian Mbappé",
			"1h51m0s fulltime 90 2-2",
			"1h56m0s extratime 90 2-2",
			"2h13m0s extrahalf 105 2-2",
			"2h15m30s goal 108 3-2 1 Lionel Messi",
			"2h25m30s goal 118 3-3 2 Kylian Mbappé, penalty",
			"2h29m0s extraend 120 3-3",
			"2h32m0s shootout 120 3-3",
			"2h40m0s end 120 3-3 1",
		}},
		{WorldCup2022(), "England-Iran", []string{ // the file has Sterling's 45+1 after Saka's 62, and Taremi at 90+13
			"0s kickoff 0 0-0",
			"34m30s goal 35 1-0 1 Jude Bellingham",
			"42m30s goal 43 2-0 1 Bukayo Saka",
			"45m30s goal 45 3-0 1 Raheem Sterling",
			"47m0s halftime 45 3-0",
			"1h2m0s secondhalf 45 3-0",
			"1h18m30s goal 62 4-0 1 Bukayo Saka",
			"1h21m30s goal 65 4-1 2 Mehdi Taremi",
			"1h27m30s goal 71 5-1 1 Marcus Rashford",
			"1h46m30s goal 90 6-1 1 Jack Grealish",
			"1h59m30s goal 90 6-2 2 Mehdi Taremi, penalty",
			"2h0m0s fulltime 90 6-2",
			"2h0m0s end 90 6-2 1",
		}},
		{worldCup2018(t), "Morocco-Iran", []string{
			"0s kickoff 0 0-0", "47m0s halftime 45 0-0", "1h2m0s secondhalf 45 0-0",
			"1h51m30s goal 90 0-1 2 Bouhaddouz, own goal",
			"1h52m0s fulltime 90 0-1", "1h52m0s end 90 0-1 2",
		}},
	} {
		t.Run(row.match, func(t *testing.T) {
			if got := tell(find(t, row.tournament, row.match).Schedule()); !slices.Equal(got, row.want) {
				t.Errorf("\n got %s\nwant %s", strings.Join(got, "\n     "), strings.Join(row.want, "\n     "))
			}
		})
	}
}

// Time never runs back, minutes come each once and in order, and scores never fall.
func TestSchedulesRunForward(t *testing.T) {
	for _, w := range []*Tournament{worldCup2018(t), WorldCup2022()} {
		for _, m := range w.Matches() {
			steps := m.Schedule()
			minutes := uint16(0)
			var before Step
			for _, s := range steps {
				if s.At < before.At || s.Event.Minute < before.Event.Minute || s.Event.Score[0] < before.Event.Score[0] || s.Event.Score[1] < before.Event.Score[1] {
					t.Fatalf("%s: %+v after %+v", &m, s, before)
				}
				if s.Event.Kind == "minute" {
					if minutes++; s.Event.Minute != minutes {
						t.Fatalf("%s: minute %d after minute %d", &m, s.Event.Minute, minutes-1)
					}
				}
				before = s
			}
			score := m.FullTime
			want := uint16(90)
			if m.Extra {
				score, want = m.ExtraTime, 120
			}
			if minutes != want || before.Event.Kind != "end" || before.Event.Score != score {
				t.Fatalf("%s: %d minutes, last %+v", &m, minutes, before.Event)
			}
		}
	}
}

// Two goals of one minute share it.
func TestGoalsOfOneMinute(t *testing.T) {
	w, err := Parse([]byte(`{"name":"Cup","matches":[{"round":"Final","date":"2026-07-19","team1":"A","team2":"B","score":{"ft":[2,0]},
		"goals1":[{"name":"Ada","minute":1},{"name":"Bea","minute":1}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"0s kickoff 0 0-0", "20s goal 1 1-0 1 Ada", "40s goal 1 2-0 1 Bea", "47m0s halftime 45 2-0"}
	if got := tell(find(t, w, "final").Schedule())[:4]; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestFind(t *testing.T) {
	w := WorldCup2022()
	for _, row := range []struct{ what, want string }{
		{"64", "64 Argentina-France"},
		{"Argentina-France", "64 Argentina-France"},
		{"france-argentina", "64 Argentina-France"},
		{" final ", "64 Argentina-France"},
		{"Match for third place", "63 Croatia-Morocco"},
		{"Morocco-Croatia", "31 Morocco-Croatia"}, // they met twice
		{"Croatia-Morocco", "63 Croatia-Morocco"},
		{"65", `find match "65" in World Cup 2022: none; give a number from 1 to 64, teams as in "Argentina-France", or a round as in "Final"`},
		{"Semi-finals", `find match "Semi-finals" in World Cup 2022: there are 2: 61 Argentina-Croatia, 62 France-Morocco; give a number`},
	} {
		m, err := w.Find(row.what)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = m.String()
		}
		if got != row.want {
			t.Errorf("%q: %s, want %s", row.what, got, row.want)
		}
	}
}

// A shortlist looks only back, and names nobody twice.
func TestShortlists(t *testing.T) {
	w := WorldCup2022()
	// The first match: nobody has scored yet, only Ecuador's Valencia will.
	if got := find(t, w, "1").Opening(w).Shortlist; !slices.Equal(got, []string{"Enner Valencia"}) {
		t.Errorf("Qatar-Ecuador: %q", got)
	}
	// England's first match: scorers by name, not by how often.
	if got, want := find(t, w, "England-Iran").Opening(w).Shortlist, []string{"Bukayo Saka", "Jack Grealish", "Jude Bellingham", "Mehdi Taremi"}; !slices.Equal(got, want) {
		t.Errorf("England-Iran: %q, want %q", got, want)
	}
	// Neither has scored, and neither does.
	if got := find(t, w, "Denmark-Tunisia").Opening(w).Shortlist; len(got) != 0 {
		t.Errorf("Denmark-Tunisia: %q", got)
	}
	for _, w := range []*Tournament{worldCup2018(t), w} {
		for _, m := range w.Matches() {
			list := m.Opening(w).Shortlist
			slices.Sort(list)
			if len(slices.Compact(slices.Clone(list))) != len(list) || len(list) > 2*shortlistMax {
				t.Errorf("%s: %q", &m, list)
			}
		}
	}
}

func TestPlayersHaveOneName(t *testing.T) {
	for _, row := range []struct {
		short, name string
		same        bool
	}{
		{"Kane", "Harry Kane", true},
		{"Neymar", "Neymar Jr", true},
		{"E. Hazard", "Eden Hazard", true},
		{"Lukaku", "R. Lukaku", true},
		{"Ritsu Doan", "Ritsu Dōan", true},
		{"Salem Al Dawsari", "Salem Al Dawasari", true},
		{"T. Hazard", "Eden Hazard", false},
		{"Silva", "Thiago Silvaa", false},
		{"Fernando Torres", "Ferran Torres", false},
		{"Kim", "Kin", false}, // too short to be a slip
		{"Luka Modrić", "Luka", false},
	} {
		if got := spells(row.short, row.name); got != row.same {
			t.Errorf("%q for %q: %v", row.short, row.name, got)
		}
	}
	scorers := func(w *Tournament, team string) (names []string) {
		w.players(func(of string, player *string) {
			if of == team && !slices.Contains(names, *player) {
				names = append(names, *player)
			}
		})
		slices.Sort(names)
		return names
	}
	if got, want := scorers(worldCup2018(t), "Croatia"), []string{"Andrej Kramarić", "Badelj", "Domagoj Vida", "Ivan Perišić", "Mario Mandžukić", "Modrić", "Rakitić", "Rebić"}; !slices.Equal(got, want) {
		t.Errorf("Croatia 2018: %q, want %q", got, want)
	}
	if got, want := scorers(worldCup2018(t), "Belgium"), []string{"Adnan Januzaj", "Batshuayi", "Eden Hazard", "Jan Vertonghen", "Kevin De Bruyne", "Marouane Fellaini", "Mertens", "Nacer Chadli", "R. Lukaku", "Thomas Meunier"}; !slices.Equal(got, want) {
		t.Errorf("Belgium 2018: %q, want %q", got, want)
	}
}

// The files are wrong about five half-times; TestTournamentsResolve shows that this harms nothing.
func TestDoubts(t *testing.T) {
	want := []string{
		"match 47 Japan-Poland: the file has 0-1 at half-time, its goals make 0-0; the goals count",
		"match 48 Senegal-Colombia: the file has 0-1 at half-time, its goals make 0-0; the goals count",
		"match 29 Japan-Spain: the file has 0-0 at half-time, its goals make 0-1; the goals count",
		"match 41 Serbia-Switzerland: the file has 2-1 at half-time, its goals make 2-2; the goals count",
		"match 58 Netherlands-Argentina: the file has 1-0 at half-time, its goals make 0-1; the goals count",
	}
	if got := append(worldCup2018(t).Doubts(), WorldCup2022().Doubts()...); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	match := func(members string) string {
		return `{"name":"Cup","matches":[{"round":"Final","date":"2026-07-19","time":"15:00 UTC-4","team1":"A","team2":"B",` + members + `}]}`
	}
	for _, row := range []struct{ name, file, want string }{
		{"not JSON", `matches`, "read matches: invalid character"},
		{"no match", `{"name":"Cup","matches":[]}`, `read matches: "Cup" has no match with a score`},
		{"not played", match(`"score":{}`), `has no match with a score`},
		{"score without goals", match(`"score":{"ft":[1,0]}`), "read matches: Cup, match 1, A-B: the score after 90 minutes is 1-0, the goals make 0-0"},
		{"goal too many", match(`"score":{"ft":[0,0]},"goals2":[{"name":"Bo","minute":3}]`), "the score after 90 minutes is 0-0, the goals make 0-1"},
		{"extra time", match(`"score":{"ft":[0,0],"et":[1,1]},"goals2":[{"name":"Bo","minute":93}]`), "the score after extra time is 1-1, the goals make 0-1"},
		{"goal in extra time without one", match(`"score":{"ft":[0,1]},"goals2":[{"name":"Bo","minute":93}]`), "Bo scores in minute 93, the match has 1 to 90"},
		{"minute 0", match(`"score":{"ft":[0,1]},"goals2":[{"name":"Bo","minute":0}]`), "Bo scores in minute 0"},
		{"stoppage in mid-half", match(`"score":{"ft":[0,1]},"goals2":[{"name":"Bo","minute":44,"offset":2}]`), "Bo scores in minute 44+2, no half ends there"},
		{"endless stoppage", match(`"score":{"ft":[0,1]},"goals2":[{"name":"Bo","minute":45,"offset":61}]`), "stoppage time is at most 60"},
		{"nobody scores", match(`"score":{"ft":[0,1]},"goals2":[{"name":"","minute":44}]`), "the scorer of minute 44 has a name that is empty"},
		{"own penalty", match(`"score":{"ft":[0,1]},"goals2":[{"name":"Bo","minute":44,"penalty":true,"owngoal":true}]`), "a penalty that is an own goal"},
		{"negative score", match(`"score":{"ft":[-1,0]}`), "read matches: json"},
		{"penalties without a winner", match(`"score":{"ft":[0,0],"p":[3,3]}`), "the shoot-out ends 3-3, without a winner"},
		{"only penalties", match(`"score":{"p":[3,4]}`), "no ft, the score after 90 minutes"},
		{"against itself", strings.Replace(match(`"score":{"ft":[0,0]}`), `"B"`, `"A"`, 1), `both teams are "A"`},
		{"nameless team", strings.Replace(match(`"score":{"ft":[0,0]}`), `"B"`, `""`, 1), "a team's name is empty"},
		{"date", strings.Replace(match(`"score":{"ft":[0,0]}`), "2026-07-19", "19.7.2026", 1), "read the date"},
		{"time", strings.Replace(match(`"score":{"ft":[0,0]}`), "15:00", "3 pm", 1), "read the time"},
		{"zone", strings.Replace(match(`"score":{"ft":[0,0]}`), "UTC-4", "UTC-EDT", 1), "read the time zone UTC-EDT"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := Parse([]byte(row.file)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("%v, want … %s", err, row.want)
			}
		})
	}
}

// Penalties may follow 90 minutes at once, as in some cups.
func TestShootoutWithoutExtraTime(t *testing.T) {
	w, err := Parse([]byte(`{"name":"Cup","matches":[{"num":7,"round":"Final","date":"2026-07-19","time":"15:00 UTC-4","team1":"A","team2":"B","score":{"ft":[0,0],"p":[2,4]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	m := find(t, w, "7")
	if !m.KickOff.Equal(time.Date(2026, 7, 19, 19, 0, 0, 0, time.UTC)) {
		t.Errorf("kick-off is at %s", m.KickOff)
	}
	want := []string{"1h51m0s fulltime 90 0-0", "1h54m0s shootout 90 0-0", "2h2m0s end 90 0-0 2"}
	if got := tell(m.Schedule())[3:]; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Parse takes any file, and what it took can be scheduled and opened.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name":"Cup","matches":[{"round":"Final","date":"2026-07-19","time":"15:00 UTC-4","team1":"A","team2":"B","score":{"ft":[1,1],"et":[2,1],"p":[1,2]},
		"goals1":[{"name":"Ada","minute":45,"offset":3},{"name":"A. B","minute":120}],"goals2":[{"name":"Ada","minute":3,"owngoal":true}]}]}`))
	f.Add(worldCup2022[:2000])
	f.Fuzz(func(t *testing.T, file []byte) {
		w, err := Parse(file)
		if err != nil {
			return
		}
		for _, m := range w.Matches() {
			steps := m.Schedule()
			goals := 0
			for _, s := range steps {
				if s.Event.Kind == "goal" {
					goals++
				}
			}
			if goals != len(m.Goals) || steps[len(steps)-1].Event.Team != m.Winner() {
				t.Fatalf("%s: %d of %d goals told", &m, goals, len(m.Goals))
			}
			m.Opening(w)
		}
	})
}
