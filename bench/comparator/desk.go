package comparator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"tote/server/bench/peer"
	"tote/server/proto"
	"tote/server/proto/control"
)

// desk answers operators, with the paths of package control: as much as it takes to open, feed and close a game.
func (s *Server) desk() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+control.PathGames, deed(s, func(_ uint64, o *proto.GameOpening) (*proto.Answer, proto.Refusal, error) { return s.openGame(o) }))
	mux.HandleFunc("POST "+control.PathGamePools, ofGame(s, func(id uint64) proto.GameID { return proto.GameID(id) }, s.openPool))
	mux.HandleFunc("POST "+control.PathGameEvents, ofGame(s, func(id uint64) proto.GameID { return proto.GameID(id) }, s.happen))
	mux.HandleFunc("POST "+control.PathPoolLock, ofPool(s, func(g *game, id proto.PoolID, l *proto.Locking) (proto.Refusal, error) {
		if l.At != 0 { // a moment that is over: nothing is taken back here
			return proto.RefusedLockPast, nil
		}
		return s.lock(g, id)
	}))
	mux.HandleFunc("POST "+control.PathPoolSettle, ofPool(s, func(g *game, id proto.PoolID, w *proto.Settlement) (proto.Refusal, error) {
		if len(w.Winners) != 1 {
			return proto.RefusedWinners, nil
		}
		return s.settle(g, id, w.Winners[0])
	}))
	mux.HandleFunc("POST "+control.PathPoolVoid, ofPool(s, func(g *game, id proto.PoolID, v *proto.Voiding) (proto.Refusal, error) {
		return s.void(g, id, v.Reason)
	}))
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }
	mux.HandleFunc("GET "+control.PathHealth, ok)
	mux.HandleFunc("GET "+control.PathReady, ok)
	mux.HandleFunc("GET "+control.PathMetrics, s.metrics)
	return mux
}

// bodyMax bounds what an operator sends.
const bodyMax = 1 << 20

// deed reads the id in the path and the body, and answers with what becomes of them.
func deed[T any](s *Server, do func(uint64, *T) (*proto.Answer, proto.Refusal, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, wrong := uint64(0), error(nil)
		if text := r.PathValue("id"); text != "" {
			id, wrong = strconv.ParseUint(text, 10, 53)
		}
		body := new(T)
		if err := errors.Join(wrong, json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyMax)).Decode(body)); err != nil {
			problem(w, http.StatusBadRequest, proto.Problem{Code: proto.RefusedMalformed.Code(), Reason: "the request is not what this path takes", Detail: err.Error()})
			return
		}
		answer, refusal, err := do(id, body)
		switch {
		case err != nil:
			problem(w, http.StatusInternalServerError, proto.Problem{Code: "internal", Reason: "the disk failed", Detail: err.Error()})
			s.fail(err)
		case refusal != proto.Accepted:
			problem(w, http.StatusConflict, proto.Problem{Code: refusal.Code(), Reason: refusal.Reason()})
		default:
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(answer)
		}
	}
}

func problem(w http.ResponseWriter, status int, p proto.Problem) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(p)
}

// ofGame is a deed in the game that the id names.
func ofGame[T any](s *Server, of func(uint64) proto.GameID, do func(*game, *T) (*proto.Answer, proto.Refusal, error)) http.HandlerFunc {
	return deed(s, func(id uint64, body *T) (*proto.Answer, proto.Refusal, error) {
		g := s.game(of(id))
		if g == nil {
			return nil, proto.RefusedGameUnknown, nil
		}
		return do(g, body)
	})
}

// ofPool is a deed with a pool.
func ofPool[T any](s *Server, do func(*game, proto.PoolID, *T) (proto.Refusal, error)) http.HandlerFunc {
	return deed(s, func(id uint64, body *T) (*proto.Answer, proto.Refusal, error) {
		p := proto.PoolID(id)
		g := s.game(p.Game())
		if g == nil {
			return nil, proto.RefusedPoolUnknown, nil
		}
		refusal, err := do(g, p, body)
		return &proto.Answer{Game: g.id, Pool: p}, refusal, err
	})
}

func (s *Server) openGame(o *proto.GameOpening) (*proto.Answer, proto.Refusal, error) {
	image := proto.Game{Name: o.Name, Teams: o.Teams, Interval: o.Interval}
	if image.Interval == 0 {
		image.Interval = proto.Time(s.config.Interval.Microseconds())
	}
	interval := time.Duration(image.Interval) * time.Microsecond
	switch {
	case o.Name == "":
		return nil, proto.RefusedTextInvalid, nil
	case len(o.Templates) > 0:
		return nil, proto.RefusedTemplate, nil
	case interval < intervalMin || interval > intervalMax:
		return nil, proto.RefusedIntervalShort, nil
	}
	if err := s.books.openGame(&image); err != nil {
		return nil, 0, err
	}
	g := newGame(&image)
	s.mu.Lock()
	s.games[g.id] = g
	s.mu.Unlock()
	s.keep(g)
	return &proto.Answer{Game: g.id}, proto.Accepted, nil
}

func (s *Server) openPool(g *game, o *proto.PoolOpening) (*proto.Answer, proto.Refusal, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch n := len(o.Labels); {
	case g.image.State == proto.GameEnded:
		return nil, proto.RefusedGameEnded, nil
	case len(g.pools) == proto.PoolsMax:
		return nil, proto.RefusedPoolsMany, nil
	case n < proto.OutcomesMin || n > proto.OutcomesMax:
		return nil, proto.RefusedOutcomesCount, nil
	case o.Rules != proto.Rules{} || o.Kind != "" || o.LocksAt != 0 || o.Takeout > 10_000:
		return nil, proto.RefusedRules, nil
	}
	p := newPool(proto.Pool{Pool: proto.NewPoolID(g.id, uint32(len(g.pools)+1)), Question: o.Question, Labels: slices.Clone(o.Labels), Takeout: o.Takeout}, o.StakeMin, o.StakeMax)
	if err := s.books.putPool(p); err != nil {
		return nil, 0, err
	}
	g.pools = append(g.pools, p)
	g.broadcast(&proto.Opened{T: peer.Now(), Game: g.id, Seq: g.next(), Pool: p.shown()})
	return &proto.Answer{Game: g.id, Pool: p.Image.Pool}, proto.Accepted, nil
}

func (s *Server) happen(g *game, e *proto.Event) (*proto.Answer, proto.Refusal, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	image, was := g.image, g.image.State
	switch {
	case e.Kind == "":
		return nil, proto.RefusedEventInvalid, nil
	case was == proto.GameEnded:
		return nil, proto.RefusedGameEnded, nil
	case e.Kind == "kickoff":
		image.State = proto.GameLive
	case e.Kind == "end":
		image.State = proto.GameEnded
	}
	image.Score, image.Minute = e.Score, e.Minute
	if err := s.books.putGame(&image); err != nil {
		return nil, 0, err
	}
	g.image = image
	g.broadcast(&proto.Happened{T: peer.Now(), Game: g.id, Seq: g.next(), Kind: e.Kind, Minute: e.Minute, Team: e.Team, Player: e.Player, Score: e.Score})
	if image.State != was {
		g.broadcast(&proto.GameChanged{T: peer.Now(), Seq: g.next(), Game: g.shown()})
	}
	return &proto.Answer{Game: g.id}, proto.Accepted, nil
}

// metrics shows where the money is, under the names of our own server's.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	m, err := s.books.sum()
	if err != nil {
		problem(w, http.StatusInternalServerError, proto.Problem{Code: "internal", Reason: "the disk failed", Detail: err.Error()})
		return
	}
	for _, place := range []struct {
		name   string
		amount proto.Amount
	}{{"accounts", m.accounts}, {"pools", m.pools}, {"house", m.house}, {"deposits", m.deposits}, {"withdrawals", 0}} {
		fmt.Fprintf(w, "server_money_units{where=%q} %d\n", place.name, place.amount)
	}
}
