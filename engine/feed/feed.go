// Package feed is the Event Server: the reporter at the ground, who tells the market what happens in a match.
//
// `server ctl feed` runs it against any server, and `server serve --demo` against its own. It plays matches
// that were really played, at a chosen speed, through the admin listener as any other source of events would. It
// decides nothing: which pools an event opens, locks and settles is the market's.
package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"tote/server/proto"
	"tote/server/proto/control"
)

// Feed plays matches on one server.
type Feed struct {
	Client   *control.Client
	Speed    float64       // seconds of the match in a second; above 0
	Interval proto.Time    // of batching odds; 0: the server's default
	Lead     time.Duration // from the opening of the game to kick-off, by the real clock, so that people can join
	Log      *slog.Logger  // nil: slog.Default
	// Templates is a file of question templates for games instead of their own; empty: none. When it changes during a match,
	// the game gets the new ones; a file with mistakes is told in the log, and the game keeps what it has.
	Templates string
}

// A server that restarts is waited for. Afterwards, what is late is sent at once and in order.
const (
	patience = time.Minute // for one post
	pauseMin = 20 * time.Millisecond
	pauseMax = time.Second
)

// Play opens a game for the match and posts its events at kick-off plus match clock / Speed. These
// times are planned at the opening: no slow answer shifts those that come after. It returns when the match is
// over, with ctx's error when ctx ends, or with the first post that the server refused or that failed for longer
// than a restart takes. The game is 0 only where it could not be opened.
func (f *Feed) Play(ctx context.Context, m Match) (proto.GameID, error) {
	if !(f.Speed > 0) { // NaN is not either
		return 0, fmt.Errorf("play %s: the speed is %v, expected a number above 0", m.Name, f.Speed)
	}
	opening := m.Opening
	opening.Interval = f.Interval
	questions := watched{file: f.Templates}
	if f.Templates != "" {
		var err error
		if opening.Templates, err = questions.read(); err != nil {
			return 0, fmt.Errorf("play %s: %w", m.Name, err)
		}
	}
	game, err := f.open(ctx, opening)
	if err != nil {
		return 0, fmt.Errorf("play %s: open the game: %w", m.Name, err)
	}
	kickoff := time.Now().Add(f.Lead)
	log := f.log().With("game", game, "match", opening.Name)
	log.Info("game opened", "kickoff", kickoff, "speed", f.Speed)
	for _, step := range m.Steps {
		e := step.Event
		if err := f.wait(ctx, log, game, &questions, kickoff.Add(time.Duration(float64(step.At)/f.Speed))); err != nil {
			return game, fmt.Errorf("play %s: wait for %s in minute %d: %w", m.Name, e.Kind, e.Minute, err)
		}
		if err := f.post(ctx, log, game, e); err != nil {
			return game, fmt.Errorf("play %s: post %s in minute %d: %w", m.Name, e.Kind, e.Minute, err)
		}
		level := slog.LevelInfo
		if e.Kind == "minute" {
			level = slog.LevelDebug
		}
		log.Log(ctx, level, e.Kind, "minute", e.Minute, "team", e.Team, "player", e.Player, "score", e.Score)
	}
	return game, nil
}

// Abandon ends all games that nobody plays any more, as after a restart of the server whose own feed this is: what is
// unsettled is voided, so that stakes return.
func (f *Feed) Abandon(ctx context.Context) error {
	games, err := f.Client.Games(ctx)
	if err != nil {
		return fmt.Errorf("abandon games: %w", err)
	}
	for _, g := range games.Games {
		if g.State == proto.GameEnded || g.Circle != 0 { // a circle's room ends with its game
			continue
		}
		if err := f.abandon(ctx, &g); err != nil {
			return fmt.Errorf("abandon game %d: %w", g.Game, err)
		}
	}
	return nil
}

func (f *Feed) abandon(ctx context.Context, g *proto.Game) error {
	pools, err := f.Client.Pools(ctx, g.Game)
	if err != nil {
		return err
	}
	for _, p := range pools.Pools {
		if p.State != proto.PoolOpen && p.State != proto.PoolLocked {
			continue
		}
		if _, err := f.Client.Void(ctx, p.Pool, "the match was abandoned"); err != nil {
			return err
		}
	}
	_, err = f.Client.PostEvent(ctx, g.Game, proto.Event{Kind: "end", Minute: g.Minute, Score: g.Score})
	return err
}

func (f *Feed) log() *slog.Logger {
	if f.Log == nil {
		return slog.Default()
	}
	return f.Log
}

// open opens the game. Only what surely did not happen is tried again: nobody would play a second game.
func (f *Feed) open(ctx context.Context, o proto.GameOpening) (game proto.GameID, err error) {
	err = f.insist(ctx, f.log(), fateUndone, func() error {
		answer, err := f.Client.OpenGame(ctx, o)
		if err != nil {
			return err
		}
		game = answer.Game
		return nil
	})
	return game, err
}

// post posts a numbered event until it is known to have been carried out, once: the server refuses a number that
// it has had.
func (f *Feed) post(ctx context.Context, log *slog.Logger, game proto.GameID, e proto.Event) error {
	return f.insist(ctx, log, fateUnclear, func() error {
		_, err := f.Client.PostEvent(ctx, game, e)
		var refused *control.Error
		if errors.As(err, &refused) && refused.Code == proto.RefusedEventRepeated.Code() {
			return nil // by an earlier try
		}
		return err
	})
}

// insist repeats a deed for as long as a restart takes, while its error leaves no worse a fate than this.
func (f *Feed) insist(ctx context.Context, log *slog.Logger, worst fate, deed func() error) error {
	begun, pause := time.Now(), pauseMin
	for {
		err := deed()
		if fate := fateOf(err); fate == fateKnown || fate > worst || ctx.Err() != nil {
			return err
		}
		if time.Since(begun) >= patience {
			return fmt.Errorf("gave up after %s: %w", patience, err)
		}
		log.Warn("the server cannot be reached; trying again", "error", err, "pause", pause)
		if err := sleepUntil(ctx, time.Now().Add(pause)); err != nil {
			return err
		}
		pause = min(2*pause, pauseMax)
	}
}

// fate is what a failed request did on the server.
type fate uint8

const (
	fateKnown   fate = iota // it was carried out, or refused for good
	fateUndone              // surely nothing
	fateUnclear             // nobody knows
)

func fateOf(err error) fate {
	var refused *control.Error
	var network *net.OpError
	switch {
	case err == nil:
		return fateKnown
	case errors.As(err, &refused):
		switch refused.Status {
		case http.StatusServiceUnavailable:
			return fateUndone
		case http.StatusGatewayTimeout:
			return fateUnclear
		}
		return fateKnown
	case errors.As(err, &network) && network.Op == "dial":
		return fateUndone
	}
	return fateUnclear // the connection broke between request and answer
}

// sleepUntil waits for a moment, which may have passed, or for the end of ctx.
func sleepUntil(ctx context.Context, at time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
