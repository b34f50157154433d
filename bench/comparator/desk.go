package comparator

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"tote/server/bench/peer"
	"tote/server/proto"
	"tote/server/proto/control"
)

// desk answers operators, with the paths of package control: as much as it takes to open, feed and close a game.
func (s *Server) desk() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+control.PathGames, deed(s, func(_ uint64, o *proto.GameOpening) (*proto.Answer, error) { return s.openGame(o) }))
	mux.HandleFunc("POST "+control.PathGamePools, ofGame(s, s.openPool))
	mux.HandleFunc("POST "+control.PathGameEvents, ofGame(s, s.happen))
	mux.HandleFunc("POST "+control.PathPoolLock, ofPool(s, func(g *game, id proto.PoolID, l *proto.Locking) error {
		if l.At != 0 { // a moment that is over: nothing is taken back here
			return peer.Refused(proto.RefusedLockPast)
		}
		return s.lock(g, id)
	}))
	mux.HandleFunc("POST "+control.PathPoolSettle, ofPool(s, func(g *game, id proto.PoolID, w *proto.Settlement) error {
		if len(w.Winners) != 1 {
			return peer.Refused(proto.RefusedWinners)
		}
		return s.settle(g, id, w.Winners[0])
	}))
	mux.HandleFunc("POST "+control.PathPoolVoid, ofPool(s, func(g *game, id proto.PoolID, v *proto.Voiding) error {
		return s.void(g, id, v.Reason)
	}))
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }
	mux.HandleFunc("GET "+control.PathHealth, ok)
	mux.HandleFunc("GET "+control.PathReady, ok)
	mux.HandleFunc("GET "+control.PathMetrics, s.metrics)
	return mux
}

// deed ends the server where the disk has failed.
func deed[T any](s *Server, do func(uint64, *T) (*proto.Answer, error)) http.HandlerFunc {
	return peer.Deed(func(id uint64, body *T) (any, error) {
		answer, err := do(id, body)
		var no peer.Refused
		if err != nil && !errors.As(err, &no) {
			s.fail(err)
		}
		return answer, err
	})
}

// ofGame is a deed in the game that the id names.
func ofGame[T any](s *Server, do func(*game, *T) (*proto.Answer, error)) http.HandlerFunc {
	return deed(s, func(id uint64, body *T) (*proto.Answer, error) {
		g := s.game(proto.GameID(id))
		if g == nil {
			return nil, peer.Refused(proto.RefusedGameUnknown)
		}
		return do(g, body)
	})
}

// ofPool is a deed with a pool.
func ofPool[T any](s *Server, do func(*game, proto.PoolID, *T) error) http.HandlerFunc {
	return deed(s, func(id uint64, body *T) (*proto.Answer, error) {
		p := proto.PoolID(id)
		g := s.game(p.Game())
		if g == nil {
			return nil, peer.Refused(proto.RefusedPoolUnknown)
		}
		return &proto.Answer{Game: g.id, Pool: p}, do(g, p, body)
	})
}

func (s *Server) openGame(o *proto.GameOpening) (*proto.Answer, error) {
	image := proto.Game{Name: o.Name, Teams: o.Teams, Interval: o.Interval}
	if image.Interval == 0 {
		image.Interval = proto.Time(s.config.Interval.Microseconds())
	}
	interval := time.Duration(image.Interval) * time.Microsecond
	switch {
	case o.Name == "":
		return nil, peer.Refused(proto.RefusedTextInvalid)
	case len(o.Templates) > 0:
		return nil, peer.Refused(proto.RefusedTemplate)
	case interval < intervalMin || interval > intervalMax:
		return nil, peer.Refused(proto.RefusedIntervalShort)
	}
	if err := s.books.openGame(&image); err != nil {
		return nil, err
	}
	g := newGame(&image)
	s.mu.Lock()
	s.games[g.id] = g
	s.mu.Unlock()
	s.keep(g)
	return &proto.Answer{Game: g.id}, nil
}

func (s *Server) openPool(g *game, o *proto.PoolOpening) (*proto.Answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch n := len(o.Labels); {
	case g.image.State == proto.GameEnded:
		return nil, peer.Refused(proto.RefusedGameEnded)
	case len(g.pools) == proto.PoolsMax:
		return nil, peer.Refused(proto.RefusedPoolsMany)
	case n < proto.OutcomesMin || n > proto.OutcomesMax:
		return nil, peer.Refused(proto.RefusedOutcomesCount)
	case o.Rules != proto.Rules{} || o.Kind != "" || o.LocksAt != 0 || o.Takeout > 10_000:
		return nil, peer.Refused(proto.RefusedRules)
	}
	p := newPool(proto.Pool{Pool: proto.NewPoolID(g.id, uint32(len(g.pools)+1)), Question: o.Question, Labels: slices.Clone(o.Labels), Takeout: o.Takeout}, o.StakeMin, o.StakeMax)
	if err := s.books.putPool(p); err != nil {
		return nil, err
	}
	g.pools = append(g.pools, p)
	g.broadcast(&proto.Opened{T: peer.Now(), Game: g.id, Seq: g.next(), Pool: p.shown()})
	return &proto.Answer{Game: g.id, Pool: p.Image.Pool}, nil
}

func (s *Server) happen(g *game, e *proto.Event) (*proto.Answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	image, was := g.image, g.image.State
	switch {
	case e.Kind == "":
		return nil, peer.Refused(proto.RefusedEventInvalid)
	case was == proto.GameEnded:
		return nil, peer.Refused(proto.RefusedGameEnded)
	case e.Kind == "kickoff":
		image.State = proto.GameLive
	case e.Kind == "end":
		image.State = proto.GameEnded
	}
	image.Score, image.Minute = e.Score, e.Minute
	if err := s.books.putGame(&image); err != nil {
		return nil, err
	}
	g.image = image
	g.broadcast(&proto.Happened{T: peer.Now(), Game: g.id, Seq: g.next(), Kind: e.Kind, Minute: e.Minute, Team: e.Team, Player: e.Player, Score: e.Score})
	if image.State != was {
		g.broadcast(&proto.GameChanged{T: peer.Now(), Seq: g.next(), Game: g.shown()})
	}
	return &proto.Answer{Game: g.id}, nil
}

// metrics shows where the money is, under the names of our own server's.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	m, err := s.books.sum()
	if err != nil {
		peer.Broken(w, err)
		return
	}
	m.Write(w)
}
