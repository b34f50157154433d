package football

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// unify gives each player one name. The files have "Mbappé" in one match and "Kylian Mbappé" in the next; a
// shortlist would have him twice, and neither of the two would have his goals.
func (t *Tournament) unify() {
	spellings := map[string][]string{} // of a team, each once
	t.players(func(team string, player *string) {
		if !slices.Contains(spellings[team], *player) {
			spellings[team] = append(spellings[team], *player)
		}
	})
	full := map[[2]string]string{} // team and spelling → name
	for team, players := range spellings {
		// The longest spelling is the name.
		slices.SortFunc(players, func(a, b string) int {
			return cmp.Or(cmp.Compare(utf8.RuneCountInString(b), utf8.RuneCountInString(a)), cmp.Compare(a, b))
		})
		var names []string
		for _, player := range players {
			var same []string
			for _, name := range names {
				if spells(player, name) {
					same = append(same, name)
				}
			}
			if len(same) == 1 {
				full[[2]string{team, player}] = same[0]
				continue
			}
			names = append(names, player) // new; or one of two brothers, nobody knows which
			full[[2]string{team, player}] = player
		}
	}
	t.players(func(team string, player *string) { *player = full[[2]string{team, *player}] })
}

// players visits the scorer of every goal with the team he plays for.
func (t *Tournament) players(visit func(team string, player *string)) {
	for i := range t.matches {
		m := &t.matches[i]
		for j := range m.Goals {
			g := &m.Goals[j]
			team := g.Team - 1
			if g.OwnGoal {
				team = 1 - team
			}
			visit(m.Teams[team], &g.Player)
		}
	}
}

// spells reports whether a player of the same team with the longer name may be written so:
//
//	Kane, Neymar     Harry Kane, Neymar Jr    the beginning or the end of it
//	E. Hazard        Eden Hazard              an initial
//	Ritsu Doan       Ritsu Dōan               one letter differs, is missing or too much
func spells(short, name string) bool {
	a, b := strings.Fields(strings.ToLower(short)), strings.Fields(strings.ToLower(name))
	if len(a) > len(b) {
		return false
	}
	if slices.Equal(a, b[:len(a)]) || slices.Equal(a, b[len(b)-len(a):]) {
		return true
	}
	if initial, ok := strings.CutSuffix(a[0], "."); ok && len(a) == len(b) && strings.HasPrefix(b[0], initial) && slices.Equal(a[1:], b[1:]) {
		return true
	}
	return len(a) > 1 && nearly([]rune(strings.Join(a, " ")), []rune(strings.Join(b, " ")))
}

// nearly reports whether b is a with at most one letter changed or put in.
func nearly(a, b []rune) bool {
	for i := range a {
		if i < len(b) && a[i] == b[i] {
			continue
		}
		return i < len(b) && (slices.Equal(a[i+1:], b[i+1:]) || slices.Equal(a[i:], b[i+1:]))
	}
	return len(b) <= len(a)+1
}
