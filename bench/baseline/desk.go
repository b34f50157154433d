package baseline

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"tote/server/bench/peer"
	"tote/server/proto"
	"tote/server/proto/control"
)

// desk answers operators, with the paths of package control: as much as it takes to open, feed and close a game. Whichever process nginx asks does the deed; it
// writes MariaDB, then the cache, then tells everybody.
func (p *Process) desk() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+control.PathGames, peer.Deed(func(_ uint64, o *proto.GameOpening) (any, error) { return p.openGame(o) }))
	mux.HandleFunc("POST "+control.PathGameEvents, peer.Deed(func(id uint64, e *proto.Event) (any, error) { return p.happen(proto.GameID(id), e) }))
	mux.HandleFunc("POST "+control.PathGamePools, peer.Deed(func(id uint64, o *proto.PoolOpening) (any, error) { return p.openPool(proto.GameID(id), o) }))
	mux.HandleFunc("POST "+control.PathPoolLock, peer.Deed(func(id uint64, l *proto.Locking) (any, error) { return p.lock(proto.PoolID(id), l) }))
	mux.HandleFunc("POST "+control.PathPoolSettle, peer.Deed(func(id uint64, s *proto.Settlement) (any, error) { return p.settle(proto.PoolID(id), s) }))
	mux.HandleFunc("POST "+control.PathPoolVoid, peer.Deed(func(id uint64, v *proto.Voiding) (any, error) { return p.void(proto.PoolID(id), v) }))
	mux.HandleFunc("GET "+control.PathHealth, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET "+control.PathReady, p.ready)
	mux.HandleFunc("GET "+control.PathMetrics, p.metrics)
	return mux
}

func (p *Process) openGame(o *proto.GameOpening) (*proto.Answer, error) {
	g := &proto.Game{Name: o.Name, Teams: o.Teams, State: proto.GameScheduled, Interval: o.Interval}
	if g.Interval == 0 {
		g.Interval = proto.Time(p.site.Interval.Microseconds())
	}
	switch {
	case o.Name == "":
		return nil, peer.Refused(proto.RefusedTextInvalid)
	case len(o.Templates) > 0:
		return nil, peer.Refused(proto.RefusedTemplate)
	case g.Interval < 100*proto.Millisecond || g.Interval > proto.Minute:
		return nil, peer.Refused(proto.RefusedIntervalShort)
	}
	if err := p.books.openGame(p.ctx, g); err != nil {
		return nil, err
	}
	return &proto.Answer{Game: g.Game}, p.cache.setGame(p.ctx, g)
}

func (p *Process) happen(id proto.GameID, e *proto.Event) (*proto.Answer, error) {
	g, err := p.books.happen(p.ctx, id, e)
	if err != nil {
		return nil, err
	}
	if err := p.cache.setGame(p.ctx, g); err != nil {
		return nil, err
	}
	if err := p.cache.publish(p.ctx, id, &proto.Happened{T: peer.Now(), Game: id, Kind: e.Kind, Minute: e.Minute, Team: e.Team, Player: e.Player, Score: e.Score}); err != nil {
		return nil, err
	}
	if e.Kind == "kickoff" || e.Kind == "end" {
		err = p.cache.publish(p.ctx, id, &proto.GameChanged{T: peer.Now(), Game: *g})
	}
	return &proto.Answer{Game: id}, err
}

func (p *Process) openPool(id proto.GameID, o *proto.PoolOpening) (*proto.Answer, error) {
	pool, err := p.books.openPool(p.ctx, id, o)
	if err != nil {
		return nil, err
	}
	if err := p.cache.setPool(p.ctx, pool); err != nil {
		return nil, err
	}
	shown := *pool
	fill(&shown, nil)
	return &proto.Answer{Game: id, Pool: pool.Pool}, p.cache.publish(p.ctx, id, &proto.Opened{T: peer.Now(), Game: id, Pool: shown})
}

func (p *Process) lock(id proto.PoolID, l *proto.Locking) (*proto.Answer, error) {
	now := peer.Now()
	if l.At != 0 {
		return nil, peer.Refused(proto.RefusedLockPast) // nothing is parked here until a moment is heard
	}
	pool, counts, err := p.books.lock(p.ctx, id)
	if err != nil {
		return nil, err
	}
	odds := pool.Odds
	pool.Odds = nil
	if err := p.cache.setPool(p.ctx, pool); err != nil {
		return nil, err
	}
	return p.done(id), p.cache.publish(p.ctx, id.Game(), &proto.Locked{T: peer.Now(), Game: id.Game(), Pool: id, At: now, Counts: counts, Odds: odds})
}

func (p *Process) settle(id proto.PoolID, s *proto.Settlement) (*proto.Answer, error) {
	if len(s.Winners) != 1 {
		return nil, peer.Refused(proto.RefusedWinners)
	}
	pool, m, told, err := p.books.settle(p.ctx, id, s.Winners[0])
	if err != nil {
		return nil, err
	}
	if err := p.cache.setPool(p.ctx, pool); err != nil {
		return nil, err
	}
	m.T = peer.Now()
	return p.done(id), errors.Join(p.cache.publish(p.ctx, id.Game(), m), p.cache.tell(p.ctx, told, m.Reason), p.cache.forget(p.ctx, pool))
}

func (p *Process) void(id proto.PoolID, v *proto.Voiding) (*proto.Answer, error) {
	pool, told, err := p.books.void(p.ctx, id)
	if err != nil {
		return nil, err
	}
	if err := p.cache.setPool(p.ctx, pool); err != nil {
		return nil, err
	}
	over := &proto.Voided{T: peer.Now(), Game: id.Game(), Pool: id, Reason: v.Reason}
	return p.done(id), errors.Join(p.cache.publish(p.ctx, id.Game(), over), p.cache.tell(p.ctx, told, proto.RefundVoid), p.cache.forget(p.ctx, pool))
}

func (p *Process) done(id proto.PoolID) *proto.Answer {
	return &proto.Answer{Game: id.Game(), Pool: id}
}

// ready says whether MariaDB and Redis answer.
func (p *Process) ready(w http.ResponseWriter, r *http.Request) {
	if err := errors.Join(p.books.db.PingContext(r.Context()), p.cache.ping(r.Context())); err != nil {
		peer.Fail(w, http.StatusServiceUnavailable, proto.Problem{Code: "not_ready", Reason: "MariaDB or Redis does not answer", Detail: err.Error()})
		return
	}
	fmt.Fprintln(w, "ok")
}

// sumShare bounds what summing up the money takes of the time: whoever watches every second must not load what he measures.
const sumShare = 100

// metrics shows where the money is, under the names of our server's, and how often processes have broadcast one after the other.
func (p *Process) metrics(w http.ResponseWriter, r *http.Request) {
	m, err := p.sum(r.Context())
	meters, wrong := p.cache.redis.HGetAll(r.Context(), keyMeters).Result()
	if err := errors.Join(err, wrong); err != nil {
		peer.Broken(w, err)
		return
	}
	m.Write(w)
	for _, name := range []string{meterDistributions, meterEarly} {
		n, _ := strconv.ParseUint(meters[name], 10, 64)
		fmt.Fprintf(w, "baseline_%s_total %d\n", name, n)
	}
}

func (p *Process) sum(ctx context.Context) (m peer.Money, err error) {
	s := &p.summed
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.at) < sumShare*s.took {
		return s.money, nil
	}
	s.at = time.Now()
	s.money, err = p.books.money(ctx)
	s.took = time.Since(s.at)
	return s.money, err
}
