package football

import (
	"time"

	"tote/server/proto"
)

// Step is one event of a match and when it happened.
type Step struct {
	At    time.Duration // since kick-off, breaks and stoppage included
	Event proto.Event   // without a time: whoever plays the schedule has the clock
}

// Lengths that the files do not tell, as they usually are. Stoppage time is longer where a goal fell later.
const (
	stoppageFirst  = 2 // minutes, at 45
	stoppageSecond = 4 // at 90
	stoppageExtra  = 1 // at 105 and 120

	breakHalf     = 15 * time.Minute
	breakExtra    = 5 * time.Minute // before extra time
	breakTurn     = 1 * time.Minute // between its halves
	breakShootout = 3 * time.Minute // before the shoot-out
	shootout      = 8 * time.Minute
)

// Schedule is the match as events, in the order and with the distances in which they happened:
//
//	kickoff, halftime, secondhalf, fulltime    a half begins or ends
//	extratime, extrahalf, extraend             extra time begins, turns, ends
//	minute     a minute of play begins: 1 at once after kickoff, 46 after secondhalf; none in stoppage time
//	goal       with team, player, and the score after it
//	shootout   the shoot-out begins; its penalties are not goals and the score stays
//	end        the match is over; team is the winner, after penalties too, or 0
//
// Every event has its number, and the minute and the score as they then are.
func (m *Match) Schedule() []Step {
	s := schedule{goals: m.Goals}
	s.half("kickoff", 1, 45, stoppageFirst)
	s.event("halftime")
	s.at += breakHalf
	s.half("secondhalf", 46, 90, stoppageSecond)
	s.event("fulltime")
	if m.Extra {
		s.at += breakExtra
		s.half("extratime", 91, 105, stoppageExtra)
		s.at += breakTurn
		s.half("extrahalf", 106, 120, stoppageExtra)
		s.event("extraend")
	}
	if m.Shootout {
		s.at += breakShootout
		s.event("shootout")
		s.at += shootout
	}
	s.event("end").Team = m.Winner()
	assert(len(s.goals) == 0, "every goal fell in a half")
	return s.steps
}

// schedule is a match being told.
type schedule struct {
	at     time.Duration
	minute uint16
	score  [2]uint16
	goals  []Goal // still to come
	steps  []Step
}

// event appends an event of this moment. The pointer is good until the next one.
func (s *schedule) event(kind string) *proto.Event {
	s.steps = append(s.steps, Step{At: s.at, Event: proto.Event{Kind: kind, Number: uint32(len(s.steps) + 1), Minute: s.minute, Score: s.score}})
	return &s.steps[len(s.steps)-1].Event
}

// half plays a half from its first to its last minute, and its stoppage time.
func (s *schedule) half(kind string, first, last, stoppage uint16) {
	s.event(kind)
	for s.minute = first; ; s.minute++ {
		s.event("minute")
		s.play(0)
		if s.minute == last {
			break
		}
	}
	for offset := uint16(1); offset <= stoppage || len(s.goals) > 0 && s.goals[0].Minute == last; offset++ {
		s.play(offset)
	}
}

// play lets a minute of play pass; goals of the same minute are spread over it.
func (s *schedule) play(offset uint16) {
	begin, n := s.at, 0
	for n < len(s.goals) && s.goals[n].Minute == s.minute && s.goals[n].Offset == offset {
		n++
	}
	for i, g := range s.goals[:n] {
		s.at = begin + time.Minute*time.Duration(i+1)/time.Duration(n+1)
		s.score = g.Score
		e := s.event("goal")
		e.Team, e.Player, e.Penalty, e.OwnGoal = g.Team, g.Player, g.Penalty, g.OwnGoal
	}
	s.goals = s.goals[n:]
	s.at = begin + time.Minute
}
