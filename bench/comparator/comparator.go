// Package comparator is the server that a good team would build in a week, to be measured beside our own with the same load: a goroutine for whatever may
// wait, locks, a library for each task, and nothing clever.
//
//	socket ─▶ reader ─▶ Server.request ─▶ account's lock ─▶ game's lock ─▶ db.Batch ─▶ receipt ─▶ writer ─▶ socket
//	                                                           └──── every 3 s, a game's goroutine: odds ───▶
//
// `server bench comparator serve` runs it. Each connection has two goroutines (package peer), each account and each game a mutex, each game a goroutine for its
// distributions, which are encoded once. What is told has been written to bbolt before; stakes that come at a time share a transaction. After a crash it
// goes on from its file.
//
// It speaks as much of tote.json as the scenarios need: hello, games, join, leave, pools, stake, account, predictions, presence, time. Pools are
// parimutuel, without rules of their own; what rounding leaves is the house's. There is no resuming by number: who comes back with his token gets his
// account, and what was told meanwhile is in its predictions. A client that reads slowly is cut, nothing is conflated.
package comparator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tote/server/bench/peer"
	"tote/server/proto"
)

// Config is what may be chosen.
type Config struct {
	Listen   string        // address for players; port 0: any that is free
	Admin    string        // address for operators, on loopback
	Data     string        // directory, which is made
	Credits  proto.Amount  // of each guest
	Interval time.Duration // of a game's distributions, where the game says nothing
	Delay    time.Duration // that a stake waits for others to share its transaction
}

func (c *Config) check() error {
	switch {
	case !c.Credits.Valid():
		return fmt.Errorf("%d credits for a guest; at least 1", c.Credits)
	case c.Interval < intervalMin || c.Interval > intervalMax:
		return fmt.Errorf("an interval of %s; from %s to %s", c.Interval, intervalMin, intervalMax)
	case c.Delay < 0 || c.Delay > time.Second:
		return fmt.Errorf("a delay of %s; up to 1s", c.Delay)
	}
	return nil
}

const (
	intervalMin = 100 * time.Millisecond
	intervalMax = time.Minute
)

// Server is a comparator.
type Server struct {
	config Config
	log    *slog.Logger
	epoch  uint64 // when it was started
	books  *books
	peers  peer.Server[session]
	failed chan error // a transaction has; memory must not go on without the disk

	mu       sync.RWMutex
	accounts map[proto.AccountID]*account
	tokens   map[string]*account
	games    map[proto.GameID]*game

	ctx     context.Context // done when the server ends
	running sync.WaitGroup  // the games' goroutines, which end with it
}

// Serve serves until ctx is done; then all that was told is in the file.
func Serve(ctx context.Context, c Config, log *slog.Logger) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	s := &Server{config: c, log: log, epoch: uint64(peer.Now()), failed: make(chan error, 1), ctx: ctx,
		accounts: map[proto.AccountID]*account{}, tokens: map[string]*account{}, games: map[proto.GameID]*game{}}
	s.peers.Request, s.peers.Gone = s.request, s.gone
	if s.books, err = openBooks(c.Data, c.Delay); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.books.db.Close()) }()
	if err := s.recover(); err != nil {
		return err
	}
	players, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen for players: %w", err)
	}
	defer players.Close()
	operators, err := net.Listen("tcp", c.Admin)
	if err != nil {
		return fmt.Errorf("listen for operators: %w", err)
	}
	defer operators.Close()
	log.Info("comparator listens", "players", players.Addr(), "operators", operators.Addr(), "accounts", len(s.accounts), "games", len(s.games))
	mux := http.NewServeMux()
	mux.Handle("GET /ws", &s.peers)
	for listener, handler := range map[net.Listener]http.Handler{players: mux, operators: s.desk()} {
		go (&http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}).Serve(listener) // ends with its listener
	}
	if err := s.writeAddresses(players, operators); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case err = <-s.failed:
	}
	players.Close()
	operators.Close()
	end()
	s.peers.Close()
	s.running.Wait()
	return err
}

// writeAddresses tells whoever has started it where it listens, as our own server does.
func (s *Server) writeAddresses(players, operators net.Listener) error {
	text, err := json.Marshal(map[string]string{"listen": players.Addr().String(), "admin": operators.Addr().String()})
	if err != nil {
		return err
	}
	file := filepath.Join(s.config.Data, "addresses.json")
	if err := os.WriteFile(file+".new", text, 0o644); err != nil {
		return fmt.Errorf("write the addresses: %w", err)
	}
	return os.Rename(file+".new", file)
}

// fail ends the server: a transaction has failed, and answers are waiting for it.
func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default: // it is ending already
	}
}

// recover makes accounts and games from the file.
func (s *Server) recover() error {
	if err := s.books.each(
		func(a *account) { s.accounts[a.id], s.tokens[a.token] = a, a },
		func(g *proto.Game) { s.games[g.Game] = newGame(g) },
		func(p *pool) {
			g := s.games[p.Image.Pool.Game()]
			g.pools = append(g.pools, p)
		},
		func(t ticket, r proto.Prediction) {
			t.account = s.accounts[t.holder]
			t.account.predictions = append(t.account.predictions, r)
			t.account.forget()
			s.games[r.Pool.Game()].pool(r.Pool).count(&t)
		},
	); err != nil {
		return err
	}
	for _, g := range s.games {
		for _, p := range g.pools {
			if p.changed = false; p.over() {
				p.tickets, p.backed = nil, nil
			}
		}
		if g.image.State != proto.GameEnded {
			s.keep(g)
		}
	}
	return nil
}

// keep starts a game's goroutine.
func (s *Server) keep(g *game) {
	s.running.Go(func() { g.run(s.ctx) })
}
