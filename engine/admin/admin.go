// Package admin is the operators' desk: the HTTP listener by which accounts, games and pools are opened, events are
// posted, and the server's health is asked for. Package proto/control has its paths and its client.
//
// `server serve` runs it beside the engine. The desk turns each request into one command to the market, under
// a session of its own that no connection has, and waits for the answer. It decides nothing: what it knows of games it heard
// from the market's broadcasts. Players never come here, and it is on nobody's hot path.
//
// An answer that does not come in time, or that nobody waits for any more, is dropped: by then the command may have been
// carried out or not, and the operator is told so.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"tote/server/market"
	"tote/server/proto"
	"tote/server/proto/control"
)

// Market is the market as the desk sees it.
type Market interface {
	// Submit hands a command over; c is copied. It returns false where the market is busy.
	Submit(c *market.Command) bool
	// NextAccount and NextGame return ids that were never given out.
	NextAccount() proto.AccountID
	NextGame() proto.GameID
}

// Config is how a desk works. Zero values are defaults.
type Config struct {
	Token   string                         // that operators must show; empty: none, for a loopback address only
	Mint    func(proto.AccountID) string   // makes a player's token; nil: accounts are opened without
	Present func(proto.GameID) int         // counts the connections in a game; nil: not counted
	Sent    func(proto.GameID) uint64      // counts the bytes that a game has broadcast; nil: not counted
	Stakes  func() map[proto.GameID]uint64 // counts the stakes of games; nil: not counted
	Slowest func() []control.Consumer      // names the slowest consumers; nil: nobody does
	Process func() control.Process         // says which process this is; nil: GET /v1/process is not there
	Upgrade Upgrade                        // has another process take over; nil: POST /v1/upgrade is not there
	Ready   func() error                   // says why the server is not ready; nil: it is
	Backup  Backup                         // copies the store; nil: there is none
	Record  Record                         // writes a game's recording; nil: nothing is recorded
	Gather  prometheus.Gatherer            // what /metrics shows; prometheus.DefaultGatherer
	Tracer  trace.Tracer                   // of operators' requests; nil: nobody traces them
	Log     *slog.Logger                   // slog.Default
	Level   *slog.LevelVar                 // of Log, set by PUT /log; nil: one that nobody reads
	Timeout time.Duration                  // that an answer of the market is waited for; 5 s
}

// Record writes the recording of a game, up to the last record that is durable. Its error is market.ErrNotRecorded where there is none.
type Record func(ctx context.Context, g proto.GameID, to io.Writer) error

// Upgrade starts a process that is to take over, and returns when it waits for that.
type Upgrade func(ctx context.Context, order *control.Upgrade) (control.Process, error)

const (
	timeoutDefault = 5 * time.Second
	bodyMax        = 1 << 20 // bytes; a game with 64 templates is far below
	endedMax       = 64      // ended games that the catalogue keeps
)

// Desk is the operators' desk. Deliver is called by the market's shards, the handlers by net/http; mu is between them.
type Desk struct {
	config  Config
	market  Market
	digest  [sha256.Size]byte // of the token
	handler http.Handler

	mu      sync.Mutex
	asked   uint64                       // requests so far; makes sessions
	waiting map[market.Session]waiter    // for the market's answer
	games   map[proto.GameID]*proto.Game // the catalogue; changed only by replacing
	ended   []proto.GameID               // of the catalogue, in the order in which they ended
}

// waiter is a handler that waits.
type waiter struct {
	answer chan market.Out   // has room for the one
	span   trace.SpanContext // of its request
}

// Check refuses to listen where everybody could run the market.
func Check(listen, token string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("check the admin address %q: %w; give host:port, as in 127.0.0.1:8081", listen, err)
	}
	if token != "" || loopback(host) {
		return nil
	}
	return fmt.Errorf("check the admin address %q: it can be reached from other hosts, and no token is set; "+
		"set an admin token, or listen on the loopback, as in 127.0.0.1:8081", listen)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// New makes a desk. Deliver must get every batch of the market from its start, so that the catalogue is complete.
func New(c Config, m Market) *Desk {
	if c.Mint == nil {
		c.Mint = func(proto.AccountID) string { return "" }
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	if c.Gather == nil {
		c.Gather = prometheus.DefaultGatherer
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Level == nil {
		c.Level = new(slog.LevelVar)
	}
	if c.Tracer == nil {
		c.Tracer = noop.NewTracerProvider().Tracer("")
	}
	if c.Timeout <= 0 {
		c.Timeout = timeoutDefault
	}
	d := &Desk{
		config: c, market: m, digest: sha256.Sum256([]byte(c.Token)),
		waiting: map[market.Session]waiter{}, games: map[proto.GameID]*proto.Game{},
	}
	d.handler = d.routes()
	return d
}

// Handler answers what package control has paths for, and /debug/pprof/. Its server may set no shorter write timeout
// than Config.Timeout.
func (d *Desk) Handler() http.Handler { return d.handler }

func (d *Desk) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+control.PathAccounts, d.openAccount)
	mux.HandleFunc("GET "+control.PathAccount, d.showAccount)
	mux.HandleFunc("GET "+control.PathStatement, d.showStatement)
	mux.HandleFunc("POST "+control.PathDeposits, d.transfer(market.Deposit))
	mux.HandleFunc("POST "+control.PathWithdrawals, d.transfer(market.Withdraw))
	mux.HandleFunc("GET "+control.PathGames, d.showGames)
	mux.HandleFunc("POST "+control.PathGames, d.openGame)
	mux.HandleFunc("GET "+control.PathGamePools, d.showPools)
	mux.HandleFunc("POST "+control.PathGamePools, inGame[proto.PoolOpening](d, market.OpenPool))
	mux.HandleFunc("POST "+control.PathGameEvents, inGame[proto.Event](d, market.PostEvent))
	mux.HandleFunc("PUT "+control.PathGameTemplates, inGame[proto.TemplateSet](d, market.SetTemplates))
	mux.HandleFunc("GET "+control.PathQuestions, d.showQuestions)
	mux.HandleFunc("POST "+control.PathPoolApprove, onPool[struct{}](d, market.ApprovePool))
	mux.HandleFunc("POST "+control.PathGameStakes, d.stakeAll)
	mux.HandleFunc("GET "+control.PathGameRecording, d.showRecording)
	mux.HandleFunc("GET "+control.PathBackup, d.showBackup)
	mux.HandleFunc("POST "+control.PathPoolLock, onPool[proto.Locking](d, market.LockPool))
	mux.HandleFunc("POST "+control.PathPoolSettle, onPool[proto.Settlement](d, market.SettlePool))
	mux.HandleFunc("POST "+control.PathPoolWithdraw, onPool[proto.OutcomeWithdrawal](d, market.WithdrawOutcome))
	mux.HandleFunc("POST "+control.PathPoolVoid, onPool[proto.Voiding](d, market.VoidPool))
	mux.Handle("GET "+control.PathMetrics, promhttp.HandlerFor(d.config.Gather, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(d.config.Log.Handler(), slog.LevelError)}))
	mux.HandleFunc("GET "+control.PathActivity, d.showActivity)
	mux.HandleFunc("GET "+control.PathConsumers, d.showConsumers)
	mux.HandleFunc("GET "+control.PathLog, d.showLog)
	mux.HandleFunc("PUT "+control.PathLog, d.setLog)
	if d.config.Process != nil {
		mux.HandleFunc("GET "+control.PathProcess, d.showProcess)
	}
	if d.config.Upgrade != nil {
		mux.HandleFunc("POST "+control.PathUpgrade, d.upgrade)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)

	outside := http.NewServeMux() // what needs no token
	outside.HandleFunc("GET "+control.PathHealth, func(w http.ResponseWriter, _ *http.Request) { ok(w) })
	outside.HandleFunc("GET "+control.PathReady, d.ready)
	outside.Handle("/", d.guard(d.trace(speak(mux))))
	return d.log(outside)
}

func ok(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("ok\n"))
}

func (d *Desk) ready(w http.ResponseWriter, _ *http.Request) {
	if err := d.config.Ready(); err != nil {
		fail(w, http.StatusServiceUnavailable, proto.Problem{Code: "not_ready", Reason: "the server takes no stakes yet, or no more", Detail: err.Error()})
		return
	}
	ok(w)
}

// guard lets operators in. A browser on the operator's own machine can be talked into requests by any page that it shows, so
// without a token only names of this host are good (a page's own name may be made to point here: DNS rebinding), and
// requests from other origins never are.
func (d *Desk) guard(next http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case d.config.Token != "" && !d.knows(r):
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, proto.RefusedTokenInvalid, "send the admin token, as in Authorization: Bearer …")
		case d.config.Token == "" && !loopback(hostname(r.Host)):
			fail(w, http.StatusForbidden, proto.Problem{Code: "forbidden", Reason: "without a token, only requests to this host's loopback are taken", Detail: fmt.Sprintf("the request is for %.100q", r.Host)})
		case origins.Check(r) != nil:
			fail(w, http.StatusForbidden, proto.Problem{Code: "forbidden", Reason: "pages of other origins may not run the market"})
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// knows compares digests, so that neither the token's length nor its beginning shows in the time that it takes.
func (d *Desk) knows(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	digest := sha256.Sum256([]byte(token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(digest[:], d.digest[:]) == 1
}

// hostname is a Host header without its port and brackets.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// Deliver takes what concerns the desk out of a shard's batch. It waits for nobody.
func (d *Desk) Deliver(b *market.Batch) {
	for i := range b.Outs {
		switch o := &b.Outs[i]; {
		case o.To.Loop() == market.DeskLoop:
			d.answer(o)
		case o.To == 0:
			switch m := o.Message.(type) {
			case *proto.GameChanged:
				d.changed(&m.Game)
			case *proto.Happened:
				d.happened(m)
			}
		}
	}
}

// answer wakes the handler that waits, if it still does.
func (d *Desk) answer(o *market.Out) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w, ok := d.waiting[o.To]; ok {
		delete(d.waiting, o.To)
		w.answer <- *o
	}
}

// changed enters a game into the catalogue, or its new state.
func (d *Desk) changed(g *proto.Game) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.games[g.Game]
	d.games[g.Game] = g
	if g.State == proto.GameEnded && g.Circle != 0 {
		delete(d.games, g.Game)
		return
	}
	if g.State == proto.GameEnded && (before == nil || before.State != proto.GameEnded) {
		if d.ended = append(d.ended, g.Game); len(d.ended) > endedMax {
			delete(d.games, d.ended[0])
			d.ended = d.ended[1:]
		}
	}
}

// happened keeps score.
func (d *Desk) happened(h *proto.Happened) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if before := d.games[h.Game]; before != nil {
		g := *before
		g.Minute, g.Score = h.Minute, h.Score
		d.games[h.Game] = &g
	}
}

var (
	errBusy = errors.New("the market is busy")
	errLate = errors.New("no answer in time")
	errGone = errors.New("the operator is gone")
)

// ask has a command carried out and returns the market's answer.
func (d *Desk) ask(r *http.Request, c *market.Command) (market.Out, error) {
	_, span := d.config.Tracer.Start(r.Context(), "ask the market")
	defer span.End()
	waiter := waiter{make(chan market.Out, 1), span.SpanContext()}
	c.From = d.wait(waiter)
	if !d.market.Submit(c) {
		d.forget(c.From)
		return market.Out{}, errBusy
	}
	late := time.NewTimer(d.config.Timeout)
	defer late.Stop()
	select {
	case out := <-waiter.answer:
		return out, nil
	case <-late.C:
		d.forget(c.From)
		return market.Out{}, errLate
	case <-r.Context().Done():
		d.forget(c.From)
		return market.Out{}, errGone
	}
}

// wait enters a waiter under a session that no request had for the last 2^51 requests.
func (d *Desk) wait(w waiter) market.Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	s := market.NewSession(market.DeskLoop, uint32(1+d.asked/market.SessionSlots%(market.SessionGenerations-1)), uint32(d.asked%market.SessionSlots))
	d.waiting[s] = w
	return s
}

func (d *Desk) forget(s market.Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waiting, s)
}
