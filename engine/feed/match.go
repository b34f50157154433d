package feed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tote/server/market/football"
	"tote/server/market/sports"
	"tote/server/proto"
)

// Match is what a feed plays: a game with its questions, and what happens in it.
type Match struct {
	Name    string
	Opening proto.GameOpening
	Steps   []football.Step
}

// Football is a match of a tournament, with the questions that ship.
func Football(t *football.Tournament, m *football.Match) Match {
	opening := m.Opening(t)
	opening.Templates = sports.Football()
	return Match{Name: m.String(), Opening: opening, Steps: m.Schedule()}
}

// script is a match of any sport as somebody wrote it down: the game, the sport whose templates ask about it, and its events, with
// "at" in microseconds since the first.
type script struct {
	Game   proto.GameOpening `json:"game"`
	Sport  string            `json:"sport"`
	Events []proto.Event     `json:"events"`
}

// Read reads a match file, which is a tournament of openfootball or a script of any sport:
//
//	{"sport": "counterstrike", "game": {"name": "…", "teams": ["…", "…"], "shortlist": ["…"]},
//	 "events": [{"kind": "kickoff"}, {"at": 60000000, "kind": "map_start"}, …]}
//
// It returns the match that Tournament.Find finds, or all where find is empty.
func Read(file []byte, find string) ([]Match, error) {
	var kind struct{ Events json.RawMessage }
	if err := json.Unmarshal(file, &kind); err == nil && kind.Events != nil {
		m, err := readScript(file)
		return []Match{m}, err
	}
	t, err := football.Parse(file)
	if err != nil {
		return nil, err
	}
	return Of(t, find)
}

// Of returns the match of a tournament that Tournament.Find finds, or all where find is empty.
func Of(t *football.Tournament, find string) ([]Match, error) {
	if find != "" {
		m, err := t.Find(find)
		if err != nil {
			return nil, err
		}
		return []Match{Football(t, m)}, nil
	}
	var matches []Match
	for _, m := range t.Matches() {
		matches = append(matches, Football(t, &m))
	}
	return matches, nil
}

func readScript(file []byte) (Match, error) {
	var s script
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Match{}, fmt.Errorf("read a script: %w", err)
	}
	m := Match{Name: s.Game.Name, Opening: s.Game}
	if s.Sport != "" {
		ts, err := sports.Templates(s.Sport)
		if err != nil {
			return Match{}, fmt.Errorf("read a script: %w", err)
		}
		m.Opening.Templates = append(m.Opening.Templates, ts...)
	}
	last := proto.Time(0)
	for i, e := range s.Events {
		if e.At < last {
			return Match{}, fmt.Errorf("read a script: event %d, %.40q, is at %d, before the one before it", i+1, e.Kind, e.At)
		}
		last = e.At
		at := time.Duration(e.At) * time.Microsecond
		e.At, e.Number = 0, uint32(i+1)
		m.Steps = append(m.Steps, football.Step{At: at, Event: e})
	}
	if len(m.Steps) == 0 {
		return Match{}, errors.New("read a script: nothing happens in it")
	}
	return m, nil
}
