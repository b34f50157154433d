package feed

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tote/server/engine/admin"
	"tote/server/market"
	"tote/server/market/football"
	"tote/server/market/sports"
	"tote/server/proto"
	"tote/server/proto/control"
)

var quiet = slog.New(slog.DiscardHandler)

func final(t *testing.T) (*football.Tournament, *football.Match) {
	t.Helper()
	w := football.WorldCup2022()
	m, err := w.Find("Argentina-France")
	if err != nil {
		t.Fatal(err)
	}
	return w, m
}

// told is the match as its events.
func told(m *football.Match) (events []proto.Event) {
	for _, s := range m.Schedule() {
		events = append(events, s.Event)
	}
	return events
}

// echo is a market with one game, which notes what happened in it.
type echo struct {
	desk *admin.Desk

	mu      sync.Mutex
	opening *proto.GameOpening
	game    proto.Game
	events  []proto.Event
	shards  sync.WaitGroup
}

func (m *echo) NextAccount() proto.AccountID { return 1 }
func (m *echo) NextGame() proto.GameID       { return 3 }

func (m *echo) Submit(c *market.Command) bool {
	copied := *c
	m.shards.Go(func() { m.turn(&copied) })
	return true
}

func (m *echo) turn(c *market.Command) {
	m.mu.Lock()
	defer m.mu.Unlock()
	outs := []market.Out{{Kind: market.OutAnswer, To: c.From, Answer: &proto.Answer{Game: c.Game}}}
	switch args := c.Args.(type) {
	case *proto.GameOpening:
		m.opening = args
		m.game = proto.Game{Game: c.Game, Name: args.Name}
	case *proto.Event:
		if int(args.Number) <= len(m.events) { // as the market does
			m.desk.Deliver(&market.Batch{Outs: []market.Out{{Kind: market.OutRefused, To: c.From, Refused: proto.Refused{Reason: proto.RefusedEventRepeated}}}})
			return
		}
		m.events = append(m.events, *args)
		m.game.Minute, m.game.Score = args.Minute, args.Score
		switch args.Kind {
		case "kickoff":
			m.game.State = proto.GameLive
		case "end":
			m.game.State = proto.GameEnded
		}
	}
	game := m.game
	outs = append(outs, market.Out{Game: c.Game, Message: &proto.GameChanged{Game: game}})
	m.desk.Deliver(&market.Batch{Outs: outs})
}

func newEcho() *echo {
	m := new(echo)
	m.desk = admin.New(admin.Config{Log: quiet}, m)
	return m
}

// A whole final through a real listener, in a tenth of a second.
func TestPlayTheFinal(t *testing.T) {
	m := newEcho()
	server := httptest.NewServer(m.desk.Handler())
	defer server.Close()
	w, match := final(t)
	f := Feed{Client: &control.Client{Base: server.URL}, Speed: 100_000, Log: quiet, Interval: 100 * proto.Millisecond}
	game, err := f.Play(t.Context(), Football(w, match))
	if err != nil || game != 3 {
		t.Fatalf("game %d, %v", game, err)
	}
	if want := told(match); !slices.Equal(m.events, want) {
		t.Errorf("the market was told %+v, want %+v", m.events, want)
	}
	want := match.Opening(w)
	if o := m.opening; o.Name != want.Name || o.Interval != 100*proto.Millisecond || !slices.Equal(o.Shortlist, want.Shortlist) || len(o.Templates) != len(sports.Football()) {
		t.Errorf("the game was opened as %+v", o)
	}
}

// The server dies at every 20th request: before it is carried out, or after, without an answer; and then takes a while to come
// back. Everything is told in order, and once.
func TestServerRestarts(t *testing.T) {
	m := newEcho()
	desk := m.desk.Handler()
	var mu sync.Mutex
	requests, down := 0, 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		requests++
		switch {
		case down > 0:
			down--
			http.Error(w, "starting", http.StatusServiceUnavailable)
		case requests > 1 && requests%20 == 0:
			if requests%40 == 0 {
				desk.ServeHTTP(httptest.NewRecorder(), r)
			}
			down = 2
			panic(http.ErrAbortHandler) // closes the connection
		default:
			desk.ServeHTTP(w, r)
		}
	}))
	defer server.Close()
	w, match := final(t)
	f := Feed{Client: &control.Client{Base: server.URL}, Speed: 100_000, Log: quiet}
	if _, err := f.Play(t.Context(), Football(w, match)); err != nil {
		t.Fatal(err)
	}
	if want := told(match); !slices.Equal(m.events, want) {
		t.Fatalf("the market was told %+v, want %+v", m.events, want)
	}
}

// wire is a server without a network, so that tests can have a clock of their own.
type wire func(method, path string, e *proto.Event) (status int, body string, err error)

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	var e proto.Event
	body, _ := io.ReadAll(r.Body)
	json.Unmarshal(body, &e)
	status, answer, err := w(r.Method, r.URL.Path, &e)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(answer)), Request: r}, nil
}

func (w wire) feed() *Feed {
	return &Feed{Client: &control.Client{Base: "http://tote.example", HTTP: &http.Client{Transport: w}}, Speed: 60, Lead: 10 * time.Second, Log: quiet}
}

// Events keep to their plan: each at kick-off plus match clock / speed. What a slow answer delays is sent at once, and the
// next is on time again.
func TestTimesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, match := final(t)
		steps := match.Schedule()
		begun := time.Now()
		slow := 30 // this answer takes 5 s: 5 minutes of the match
		n := 0
		f := wire(func(_, path string, e *proto.Event) (int, string, error) {
			if path == control.PathGames {
				return 200, `{"game":3}`, nil
			}
			planned := 10*time.Second + steps[n].At/60
			want := planned
			if n > slow {
				want = max(planned, 10*time.Second+steps[slow].At/60+5*time.Second)
			}
			if got := time.Since(begun); got.Round(time.Microsecond) != want.Round(time.Microsecond) || *e != steps[n].Event {
				t.Errorf("event %d at %s, want %s: %+v", n, got, want, e)
			}
			if n == slow {
				time.Sleep(5 * time.Second)
			}
			n++
			return 200, `{"game":3}`, nil
		}).feed()
		if _, err := f.Play(t.Context(), Football(w, match)); err != nil || n != len(steps) {
			t.Fatalf("%d of %d events, %v", n, len(steps), err)
		}
	})
}

func TestFailuresThatEndAMatch(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for _, row := range []struct {
		name   string
		status int
		body   string
		err    error
		posts  int // of the kick-off
		want   string
	}{
		{"the game was ended by hand", 409, `{"code":"game_ended","reason":"the game has ended"}`, nil, 1,
			"play 64 Argentina-France: post kickoff in minute 0: POST /v1/games/3/events: 409 game_ended: the game has ended"},
		{"the token is wrong", 401, `{"code":"token_invalid","reason":"r"}`, nil, 1, "401 token_invalid"},
		{"nobody listens", 0, "", refused, 66, "gave up after 1m0s: "},
		{"busy for good", 503, `{"code":"busy","reason":"r"}`, nil, 66, "gave up after 1m0s: POST /v1/games/3/events: 503 busy: r"},
		{"connections break", 0, "", io.ErrUnexpectedEOF, 66, "gave up after 1m0s: "},
		{"never an answer", 504, `{"code":"timeout","reason":"r"}`, nil, 66, "gave up after 1m0s: POST /v1/games/3/events: 504 timeout: r"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				posts := 0
				w, match := final(t)
				f := wire(func(method, path string, _ *proto.Event) (int, string, error) {
					if path != control.PathGames {
						posts++
						return row.status, row.body, row.err
					}
					return 200, `{"game":3,"games":[{"game":3,"state":"scheduled"}]}`, nil
				}).feed()
				game, err := f.Play(t.Context(), Football(w, match))
				if err == nil || game != 3 || !strings.Contains(err.Error(), row.want) {
					t.Errorf("game %d, %v\nwant … %s", game, err, row.want)
				}
				if posts != row.posts {
					t.Errorf("%d posts, want %d", posts, row.posts)
				}
			})
		})
	}
}

// A server that starts later is waited for; but nobody opens a game twice.
func TestOpening(t *testing.T) {
	for _, row := range []struct {
		name   string
		err    error
		opened int
		want   string
	}{
		{"the server starts late", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, 2, "the match has begun"},
		{"the connection breaks", io.ErrUnexpectedEOF, 1, "open the game: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opened := 0
				w, match := final(t)
				f := wire(func(_, path string, _ *proto.Event) (int, string, error) {
					if path != control.PathGames {
						return 400, `{"code":"event_invalid","reason":"the match has begun"}`, nil
					}
					if opened++; opened == 1 {
						return 0, "", row.err
					}
					return 200, `{"game":3}`, nil
				}).feed()
				_, err := f.Play(t.Context(), Football(w, match))
				if err == nil || !strings.Contains(err.Error(), row.want) || opened != row.opened {
					t.Errorf("opened %d times, %v, want … %s", opened, err, row.want)
				}
			})
		})
	}
}

// A match that nobody wants to see any more ends at once.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w, match := final(t)
		f := wire(func(_, path string, e *proto.Event) (int, string, error) {
			if e.Kind == "halftime" {
				time.AfterFunc(time.Second, cancel)
			}
			return 200, `{"game":3}`, nil
		}).feed()
		game, err := f.Play(ctx, Football(w, match))
		if want := "play 64 Argentina-France: wait for secondhalf in minute 45: context canceled"; game != 3 || !errors.Is(err, context.Canceled) || err.Error() != want {
			t.Errorf("game %d, %v, want %s", game, err, want)
		}
	})
}

func TestSpeeds(t *testing.T) {
	w, match := final(t)
	for _, speed := range []float64{0, -1, math.NaN()} {
		if _, err := (&Feed{Speed: speed}).Play(t.Context(), Football(w, match)); err == nil || !strings.Contains(err.Error(), "expected a number above 0") {
			t.Errorf("speed %v: %v", speed, err)
		}
	}
}

// What a failure means for the request.
func TestFates(t *testing.T) {
	for _, row := range []struct {
		name string
		err  error
		want fate
	}{
		{"none", nil, fateKnown},
		{"refusal", &control.Error{Status: 409}, fateKnown},
		{"busy", &control.Error{Status: 503}, fateUndone},
		{"no answer in time", &control.Error{Status: 504}, fateUnclear},
		{"nobody listens", &url.Error{Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, fateUndone},
		{"no such host", &url.Error{Err: &net.OpError{Op: "dial", Err: &net.DNSError{}}}, fateUndone},
		{"reset", &url.Error{Err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}}, fateUnclear},
		{"end", &url.Error{Err: io.EOF}, fateUnclear},
	} {
		if got := fateOf(row.err); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
}
