package engine

import (
	"cmp"
	"slices"

	"tote/server/proto"
)

const (
	// Ended games stay listed for a while, so that who comes late sees the result.
	endedStay   = 10 * proto.Minute
	endedMax    = 64
	forgetTicks = 100 // between looks for games to forget
)

// list keeps the catalogue.
func (l *loop) list(g *proto.Game) *room {
	r := l.rooms[g.Game]
	if r == nil {
		r = &room{attendance: l.engine.attendance(g.Game)}
		l.rooms[g.Game] = r
		at, _ := slices.BinarySearchFunc(l.catalogue, g.Game, func(r *room, id proto.GameID) int {
			return cmp.Compare(r.game.Game, id)
		})
		l.catalogue = slices.Insert(l.catalogue, at, r)
	}
	r.game = *g
	switch {
	case g.State != proto.GameEnded:
		r.endedAt = 0
	case r.endedAt == 0:
		if r.endedAt = l.now; g.Circle == 0 { // of rooms, thousands may end with their game
			l.forget()
		}
	}
	return r
}

// forget takes ended games off the catalogue. Rooms go with them, but not while somebody is inside. Those of circles, which are
// never listed, do not stay.
func (l *loop) forget() {
	ended := 0
	for _, r := range l.catalogue {
		if r.endedAt != 0 && r.game.Circle == 0 {
			ended++
		}
	}
	l.catalogue = slices.DeleteFunc(l.catalogue, func(r *room) bool {
		listed := r.game.Circle == 0
		if r.endedAt == 0 || len(r.subs) > 0 || listed && l.now-r.endedAt < endedStay && ended <= endedMax {
			return false
		}
		if listed {
			ended--
		}
		delete(l.rooms, r.game.Game)
		return true
	})
}

func (l *loop) listGames(id proto.RequestID) *proto.Games {
	m := &proto.Games{ID: id, T: l.now, Games: make([]proto.Game, 0, len(l.catalogue))}
	for _, r := range l.catalogue {
		if r.endedAt != 0 && l.now-r.endedAt >= endedStay || r.game.Circle != 0 {
			continue // kept for those who are still inside
		}
		g := r.game
		g.Present = int(r.attendance.present.Load())
		m.Games = append(m.Games, g)
	}
	return m
}
