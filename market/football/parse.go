package football

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The file of openfootball, as much of it as is read.
type (
	file struct {
		Name    string      `json:"name"`
		Matches []fileMatch `json:"matches"`
	}
	fileMatch struct {
		Num    int        `json:"num"`
		Round  string     `json:"round"`
		Date   string     `json:"date"`
		Time   string     `json:"time"` // "18:00" or "18:00 UTC+3"
		Team1  string     `json:"team1"`
		Team2  string     `json:"team2"`
		Score  fileScore  `json:"score"`
		Goals1 []fileGoal `json:"goals1"` // absent where nobody scored
		Goals2 []fileGoal `json:"goals2"`
	}
	// fileScore has the score at half-time, after 90 minutes, after extra time, and of the shoot-out.
	fileScore struct {
		HT *[2]uint16 `json:"ht"` // absent from some matches
		FT *[2]uint16 `json:"ft"`
		ET *[2]uint16 `json:"et"`
		P  *[2]uint16 `json:"p"`
	}
	fileGoal struct {
		Name    string `json:"name"`
		Minute  uint16 `json:"minute"`
		Offset  uint16 `json:"offset"`
		Penalty bool   `json:"penalty"`
		OwnGoal bool   `json:"owngoal"`
	}
)

const nameMax = 200 // bytes of a team's or player's name

// offsetMax bounds stoppage time, so that a schedule stays within a day.
const offsetMax = 60

// Parse reads a match file of openfootball. Matches without a score were not played and are left out. It is an
// error when the goals of a match do not make its score after 90 or 120 minutes; where they do not make its score at
// half-time, the goals count and Doubts tells. Players that are spelled in several ways get one name.
func Parse(data []byte) (*Tournament, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("read matches: %w", err)
	}
	t := &Tournament{Name: f.Name}
	for i := range f.Matches {
		fm := &f.Matches[i]
		if fm.Score.FT == nil && fm.Score.ET == nil && fm.Score.P == nil {
			continue
		}
		m, err := fm.match(i + 1)
		if err != nil {
			return nil, fmt.Errorf("read matches: %s, match %d, %.40s-%.40s: %w", f.Name, i+1, fm.Team1, fm.Team2, err)
		}
		if ht := fm.Score.HT; ht != nil && *ht != m.HalfTime {
			t.doubts = append(t.doubts, fmt.Sprintf("match %s: the file has %s at half-time, its goals make %s; the goals count", &m, score(*ht), score(m.HalfTime)))
		}
		t.matches = append(t.matches, m)
	}
	if len(t.matches) == 0 {
		return nil, fmt.Errorf("read matches: %q has no match with a score", f.Name)
	}
	t.unify()
	return t, nil
}

func score(s [2]uint16) string { return fmt.Sprintf("%d-%d", s[0], s[1]) }

func (f *fileMatch) match(number int) (Match, error) {
	m := Match{Number: cmp.Or(f.Num, number), Round: f.Round, Teams: [2]string{f.Team1, f.Team2}}
	for _, team := range m.Teams {
		if !named(team) {
			return m, fmt.Errorf("a team's name is empty, longer than %d bytes or not UTF-8", nameMax)
		}
	}
	if f.Team1 == f.Team2 {
		return m, fmt.Errorf("both teams are %q", f.Team1)
	}
	if f.Score.FT == nil {
		return m, fmt.Errorf("the score has et or p but no ft, the score after 90 minutes")
	}
	kickoff, err := kickOff(f.Date, f.Time)
	if err != nil {
		return m, err
	}
	m.KickOff = kickoff
	m.FullTime = *f.Score.FT
	if f.Score.ET != nil {
		m.Extra, m.ExtraTime = true, *f.Score.ET
	}
	if f.Score.P != nil {
		m.Shootout, m.Penalties = true, *f.Score.P
		if m.Penalties[0] == m.Penalties[1] {
			return m, fmt.Errorf("the shoot-out ends %s, without a winner", score(m.Penalties))
		}
	}
	for team, goals := range [][]fileGoal{f.Goals1, f.Goals2} {
		for _, g := range goals {
			if err := g.check(m.Extra); err != nil {
				return m, err
			}
			m.Goals = append(m.Goals, Goal{Minute: g.Minute, Offset: g.Offset, Team: uint8(team + 1), Player: g.Name, Penalty: g.Penalty, OwnGoal: g.OwnGoal})
		}
	}
	return m, m.addUp()
}

func named(name string) bool {
	return strings.TrimSpace(name) != "" && len(name) <= nameMax && utf8.ValidString(name)
}

// check holds a goal against the laws of the game: 45 minutes a half, 15 a half of extra time, and
// stoppage only at the end of one.
func (g *fileGoal) check(extra bool) error {
	last := uint16(90)
	if extra {
		last = 120
	}
	switch {
	case !named(g.Name):
		return fmt.Errorf("the scorer of minute %d has a name that is empty, longer than %d bytes or not UTF-8", g.Minute, nameMax)
	case g.Minute < 1 || g.Minute > last:
		return fmt.Errorf("%s scores in minute %d, the match has 1 to %d", g.Name, g.Minute, last)
	case g.Offset > offsetMax:
		return fmt.Errorf("%s scores in minute %d+%d, stoppage time is at most %d", g.Name, g.Minute, g.Offset, offsetMax)
	case g.Offset > 0 && !slices.Contains([]uint16{45, 90, 105, 120}, g.Minute):
		return fmt.Errorf("%s scores in minute %d+%d, no half ends there", g.Name, g.Minute, g.Offset)
	case g.Penalty && g.OwnGoal:
		return fmt.Errorf("%s scores in minute %d by a penalty that is an own goal", g.Name, g.Minute)
	}
	return nil
}

// addUp puts the goals in order, counts the score after each, and compares.
func (m *Match) addUp() error {
	slices.SortStableFunc(m.Goals, func(a, b Goal) int {
		return cmp.Or(cmp.Compare(a.Minute, b.Minute), cmp.Compare(a.Offset, b.Offset))
	})
	var now, full [2]uint16
	for i := range m.Goals {
		g := &m.Goals[i]
		now[g.Team-1]++
		g.Score = now
		if g.Minute <= 45 {
			m.HalfTime = now
		}
		if g.Minute <= 90 {
			full = now
		}
	}
	if full != m.FullTime {
		return fmt.Errorf("the score after 90 minutes is %s, the goals make %s", score(m.FullTime), score(full))
	}
	if m.Extra && now != m.ExtraTime {
		return fmt.Errorf("the score after extra time is %s, the goals make %s", score(m.ExtraTime), score(now))
	}
	return nil
}

// kickOff reads "2018-06-15" and "17:00 UTC+5"; the time and its zone may be missing.
func kickOff(date, clock string) (time.Time, error) {
	at, err := time.Parse(time.DateOnly, date)
	if err != nil {
		return at, fmt.Errorf("read the date: %w", err)
	}
	clock, zone, zoned := strings.Cut(clock, " UTC")
	if clock != "" {
		hours, err := time.Parse("15:04", clock)
		if err != nil {
			return at, fmt.Errorf("read the time: %w", err)
		}
		at = at.Add(time.Duration(hours.Hour())*time.Hour + time.Duration(hours.Minute())*time.Minute)
	}
	if zoned && zone != "" {
		hours, err := time.ParseDuration(zone + "h")
		if err != nil {
			return at, fmt.Errorf("read the time zone UTC%s: %w", zone, err)
		}
		at = at.Add(-hours)
	}
	return at, nil
}
