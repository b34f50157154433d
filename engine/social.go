package engine

import (
	"crypto/rand"
	"encoding/binary"

	"tote/server/market"
	"tote/server/proto"
)

// social passes on what players ask each other: questions and circles. Ids and codes, which the market cannot draw, are drawn here.
func (l *loop) social(s *session, r *proto.Request) proto.Refusal {
	c := l.commandOf(s, r)
	c.Circle = r.Circle
	switch r.Type {
	case proto.RequestAsk:
		c.Kind, c.Args = market.Ask, r.Ask
	case proto.RequestResolve:
		c.Kind, c.Args = market.Resolve, &proto.Settlement{Winners: proto.Outcomes(r.Winners)}
	case proto.RequestChallenge:
		c.Kind = market.Challenge
	case proto.RequestReport:
		c.Kind = market.Report
	case proto.RequestQuestions:
		c.Kind = market.ShowQuestions
	case proto.RequestCircles:
		c.Kind = market.ShowCircles
	case proto.RequestCircle:
		c.Kind = market.ShowCircle
	case proto.RequestCircleCreate:
		c.Kind, c.Circle, c.Args = market.CreateCircle, l.engine.market.NextCircle(), &proto.CircleOpening{Name: r.Name, Code: drawCode()}
	case proto.RequestCircleJoin:
		c.Kind, c.Args = market.JoinCircle, &proto.CircleOpening{Code: r.Code}
	case proto.RequestCircleLeave:
		c.Kind = market.LeaveCircle
	case proto.RequestCircleRemove:
		c.Kind, c.Args = market.RemoveMember, &proto.CircleOpening{Code: drawCode()}
	case proto.RequestCircleGame:
		c.Kind = market.EnterRoom
	case proto.RequestLeaders:
		c.Kind = market.ShowLeaders
	default:
		return proto.RefusedRequestUnknown
	}
	if !l.engine.market.Submit(&c) {
		return proto.RefusedBusy
	}
	return proto.Accepted
}

// drawCode is a code that nobody can guess: 53 random bits, at no more than the requests per second of a connection.
func drawCode() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return max(1, binary.LittleEndian.Uint64(b[:])>>(64-53))
}

// evict takes the session out of the circle's rooms.
func (l *loop) evict(s *session, circle proto.CircleID) {
	for i := len(s.games) - 1; i >= 0; i-- {
		if s.games[i].room.game.Circle == circle {
			l.unsubscribe(s, i)
		}
	}
}

// barred reports whether a room is a circle's that the session has not joined. What it is told of others'
// rooms, it is told by the market, which knows the members.
func (s *session) barred(r *room) bool { return r.game.Circle != 0 && s.in(r) < 0 }
