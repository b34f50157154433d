// Package football is the sport that ships with the tote: matches that were really played, as the events that a
// reporter at the ground would have sent, and the questions that are asked about them.
//
// The Event Server (package feed) plays its schedules, games are opened with its templates, and tests resolve
// whole tournaments with both. It reads no file and no clock: match files are parsed from bytes, and the one of
// the demo is compiled in.
package football

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tote/server/proto"
)

// Tournament is a file of matches; immutable.
type Tournament struct {
	Name    string
	matches []Match // that were played, in the order of the file
	doubts  []string
}

// Match is one match as it was played; immutable.
type Match struct {
	Number  int       // of the file, else its place in it, from 1
	Round   string    // as in "Matchday 3" or "Final"
	KickOff time.Time // in UTC where the file tells the zone, else by the clock of the place
	Teams   [2]string
	Goals   []Goal // as they fell; those of a shoot-out are none

	HalfTime, FullTime [2]uint16
	ExtraTime          [2]uint16 // after 120 minutes, if Extra
	Penalties          [2]uint16 // of the shoot-out, if Shootout
	Extra, Shootout    bool
}

// Goal is one goal. Minute counts as reporters do, from 1; a goal of stoppage time has the half's last
// minute and an Offset from 1: 90+4 is 90 and 4.
type Goal struct {
	Minute, Offset uint16
	Team           uint8 // 1 or 2: who gets the goal, also an own goal
	Player         string
	Penalty        bool
	OwnGoal        bool
	Score          [2]uint16 // after it
}

//go:embed worldcup-2022.json
var worldCup2022 []byte

// WorldCup2022 is the tournament that is compiled in: 64 matches, the final is "Argentina-France".
var WorldCup2022 = sync.OnceValue(func() *Tournament {
	t, err := Parse(worldCup2022)
	assert(err == nil, "the compiled-in match file is sound")
	return t
})

// Matches returns the matches that were played, in the order of the file.
func (t *Tournament) Matches() []Match { return slices.Clone(t.matches) }

// Doubts tells where the file contradicts itself without harm, one sentence each.
func (t *Tournament) Doubts() []string { return slices.Clone(t.doubts) }

// Find returns the match with this number, between these teams as in "Argentina-France" (or, if
// that is only one match, in the other order), or of this round. Case does not matter.
func (t *Tournament) Find(what string) (*Match, error) {
	what = strings.TrimSpace(what)
	for _, fits := range []func(*Match) bool{
		func(m *Match) bool { return strconv.Itoa(m.Number) == what },
		func(m *Match) bool { return strings.EqualFold(m.Teams[0]+"-"+m.Teams[1], what) },
		func(m *Match) bool { return strings.EqualFold(m.Teams[1]+"-"+m.Teams[0], what) },
		func(m *Match) bool { return strings.EqualFold(m.Round, what) },
	} {
		var found []*Match
		for i := range t.matches {
			if m := &t.matches[i]; fits(m) {
				found = append(found, m)
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			var names []string
			for _, m := range found {
				names = append(names, m.String())
			}
			return nil, fmt.Errorf("find match %q in %s: there are %d: %s; give a number", what, t.Name, len(found), strings.Join(names, ", "))
		}
	}
	return nil, fmt.Errorf("find match %q in %s: none; give a number from 1 to %d, teams as in \"Argentina-France\", or a round as in \"Final\"", what, t.Name, len(t.matches))
}

// String is the match's number and teams, as in "64 Argentina-France".
func (m *Match) String() string { return fmt.Sprintf("%d %s-%s", m.Number, m.Teams[0], m.Teams[1]) }

// Winner is the team that won, the shoot-out if there was one; 0 is a draw.
func (m *Match) Winner() uint8 {
	switch score := m.final(); {
	case score[0] > score[1]:
		return 1
	case score[0] < score[1]:
		return 2
	}
	return 0
}

// final is the score that decides.
func (m *Match) final() [2]uint16 {
	switch {
	case m.Shootout:
		return m.Penalties
	case m.Extra:
		return m.ExtraTime
	}
	return m.FullTime
}

// Opening is the game for the match. Its shortlist has up to shortlistMax players of each team: those who scored most in
// the tournament before this kick-off; for a team that had not scored yet, its scorers of this match.
func (m *Match) Opening(t *Tournament) proto.GameOpening {
	o := proto.GameOpening{Name: m.Teams[0] + " v " + m.Teams[1], Teams: m.Teams}
	for _, team := range m.Teams {
		for _, player := range t.shortlist(m, team) {
			if !slices.Contains(o.Shortlist, player) { // namesakes of both teams could not be told apart
				o.Shortlist = append(o.Shortlist, player)
			}
		}
	}
	return o
}

const shortlistMax = 3 // players of a team

func (t *Tournament) shortlist(m *Match, team string) []string {
	goals := map[string]int{}
	for i := range t.matches {
		if before := &t.matches[i]; before.KickOff.Before(m.KickOff) {
			before.count(team, goals)
		}
	}
	if len(goals) == 0 {
		m.count(team, goals)
		for player := range goals {
			goals[player] = 1 // who scores how often is not to be given away
		}
	}
	players := make([]string, 0, len(goals))
	for player := range goals {
		players = append(players, player)
	}
	slices.SortFunc(players, func(a, b string) int {
		return cmp.Or(cmp.Compare(goals[b], goals[a]), cmp.Compare(a, b))
	})
	return players[:min(len(players), shortlistMax)]
}

// count adds the goals of a team's players; own goals are nobody's merit.
func (m *Match) count(team string, goals map[string]int) {
	for _, g := range m.Goals {
		if !g.OwnGoal && m.Teams[g.Team-1] == team {
			goals[g.Player]++
		}
	}
}

func assert(ok bool, what string) {
	if !ok {
		panic("football: " + what)
	}
}
