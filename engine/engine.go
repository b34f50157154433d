// Package engine is bytes to commands and batches to bytes: the WebSocket server of the tote.
//
// Loops read requests and give commands to the market; the market's durable batches come back through Deliver,
// and the loops write them: answers and private messages to the session that they are for, broadcasts to
// everybody in the game. The engine decides nothing about money, touches no disk, and knows the market by one
// small interface.
//
// # Who owns what
//
//	thing                          owner                          others
//	session, its socket and        its loop: one goroutine        put parcels and calls into the loop's
//	  buffers, its subscriptions                                    inbox and ring its bell
//	room: a game's subscribers     its loop; each loop has its    attendance, who is in the game over all
//	  and queued broadcasts          own room of a game             loops, has a mutex, and an atomic count
//	broadcast: encoded frames,     nobody: never changed once     shared by all loops; the garbage
//	  compressed or not              it is delivered                collector ends it
//	batch                          the shard that calls Deliver   engine copies what it keeps
//	acceptor: the listening        the loop that has it           its mutex, to move and to close it
//	  socket
//	door: connections by address   its mutex
//	timers                         a goroutine, in Run
//
// # gnet's contract, which is ours
//
// Of gnet we use the poller (pkg/netpoll): epoll and its events, a task queue, the loop around them. What lies above it, gnet's
// connections and listeners, takes six times the memory and, to take in sockets that we have accepted, as much CPU as the
// kernel's whole part of a handshake; DESIGN.md has the numbers. So sockets are ours (reactor.go, accept.go).
//
//   - Events are told by descriptor, in the order in which they came, level-triggered. So a loop reads once and goes on to the
//     next; and since a descriptor may have been closed and given out again in between, an event only says whom to ask.
//   - What a read gives dies with the next one. So every read takes everything, and keeps the little that is not whole.
//   - Nobody is told when a socket is writable unless asked. So what a socket does not take waits in its session, which asks, and
//     is bounded by whoever writes.
//   - Closing with unread input is a reset. So we shut down our side when everything is sent, wait for the client's end, and
//     cut at a deadline.
//   - A task given to Trigger from inside a loop runs before the loop reads again, and so starves all reading. So
//     a loop is woken by sockets of its own, its two bells, which wait their turn among the other sockets.
//   - The clock is read after the bytes are. So arrivals are stamped when read, and corrected (arrival.go).
//   - There are no timers on loops. So a goroutine puts ticks into the inboxes.
package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/logging"
	"github.com/valyala/bytebufferpool"
	"golang.org/x/sync/errgroup"

	"tote/server/market"
	"tote/server/proto"
)

// Market is the market as the engine sees it.
type Market interface {
	// Submit hands a command over; c is copied. It returns false where the shard's inbox is full; the client is
	// then told "busy". A Detach is never refused.
	Submit(c *market.Command) bool
	// NextAccount returns a fresh account id, for a guest.
	NextAccount() proto.AccountID
	// LoopsPassed says that a time for which Passed was asked has passed on one more loop.
	LoopsPassed()
	// NextCircle returns a fresh circle id.
	NextCircle() proto.CircleID
}

// Config is what an Engine needs to know. Zero values are defaults but for Listen and Secret.
type Config struct {
	Listen       string            // host:port; port 0 is any
	Listener     net.Listener      // of TCP, opened by somebody else, and the engine's from now on; nil: Listen is opened
	TLS          *tls.Config       // of those who come by the next two; nil: nobody does
	TLSListen    string            // as Listen
	TLSListener  net.Listener      // as Listener
	Loops        int               // GOMAXPROCS
	Secret       []byte            // signs tokens; 16 bytes at least
	GuestCredits proto.Amount      // what a guest begins with; 0: no guests
	Deflate      int               // level of permessage-deflate, 1 to 9; 0: deflateLevel; below 0: it is not negotiated
	Provider     Provider          // who else signs tokens; nobody
	Origins      []string          // of pages that may connect, as in "https://tote.example"; none: of all
	Proxies      Proxies           // who is believed about where clients come from; none: nobody
	Page         http.Handler      // answers HTTP requests but for /ws, on a loop, so it must not wait. nil: 404
	Log          *slog.Logger      // slog.Default
	Now          func() proto.Time // the host's clock
	Broadcast    string            // how: BroadcastAuto, BroadcastRing or BroadcastWrite. BroadcastAuto
	Limits       Limits
}

// Engine is the server's face to its clients.
type Engine struct {
	config  Config
	limits  Limits
	market  Market
	tokens  tokens
	vetting vetting

	acceptors []*acceptor // the plain one, and for TLS another one if there is any
	hands     hands
	sessions  descriptors
	loops     []*loop
	running   errgroup.Group // the loops
	clocks    clocks
	buffers   bytebufferpool.Pool // of outbound bytes and of messages that come in pieces

	deflaters  sync.Pool
	users      [variants]atomic.Int64 // sessions by variant; of plain nobody asks
	door       door
	allowances allowances
	admission  admission
	pacer      pacer
	farewell   Farewell
	parting    sync.WaitGroup // loops that have not told everybody
	parted     chan struct{}  // closed when all have
	start      time.Time      // of tick 0
	jiffy      proto.Time
	awayMin    proto.Time // since a loop looked, for jiffies to be the finer measure

	mu      sync.Mutex
	present map[proto.GameID]*attendance // who is in each game, over all loops; guarded by mu, an attendance by itself
}

// New listens on c.Listen and starts the loops, so that Addr is known and Deliver may be called. Nobody is
// accepted before Run; Run also ends what New began.
func New(c Config, m Market) (*Engine, error) {
	if len(c.Secret) < secretMin {
		return nil, fmt.Errorf("make an engine: the secret has %d bytes; %d are the least", len(c.Secret), secretMin)
	}
	limits, err := c.Limits.filled()
	if err != nil {
		return nil, fmt.Errorf("make an engine: %w", err)
	}
	if c.Origins, err = checkOrigins(c.Origins); err != nil {
		return nil, fmt.Errorf("make an engine: %w", err)
	}
	if err := checkBroadcast(c.Broadcast); err != nil {
		return nil, fmt.Errorf("make an engine: %w", err)
	}
	if c.Loops <= 0 {
		c.Loops = runtime.GOMAXPROCS(0)
	}
	c.Loops = min(c.Loops, loopsMax)
	if limits.Admissions == 0 {
		limits.Admissions = admissionsPerLoop * c.Loops
	}
	if c.Deflate == 0 {
		c.Deflate = deflateLevel
	}
	if c.Deflate > 9 {
		return nil, fmt.Errorf("make an engine: level %d of compression; 9 is the highest", c.Deflate)
	}
	if c.Page == nil {
		c.Page = http.NotFoundHandler()
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = func() proto.Time { return proto.Time(time.Now().UnixMicro()) }
	}
	e := &Engine{
		config: c, limits: limits, market: m, tokens: newTokens(c.Secret, c.Provider),
		start: time.Now(), present: map[proto.GameID]*attendance{},
		parted: make(chan struct{}),
	}
	e.jiffy = jiffy()
	e.awayMin = 2 * e.jiffy
	e.deflaters.New = func() any { return newDeflater(c.Deflate) }
	e.door.open(limits)
	e.allowances = newAllowances(limits)
	e.admission.open(limits.Admissions)
	e.sessions = newDescriptors()
	plain, err := listen(c.Listen, c.Listener)
	if err != nil {
		return nil, fmt.Errorf("make an engine: %w", err)
	}
	e.acceptors = append(e.acceptors, plain)
	if c.TLS != nil {
		secured, err := listen(c.TLSListen, c.TLSListener)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make an engine: for TLS: %w", err), e.closeAcceptors())
		}
		secured.secured = true
		e.acceptors = append(e.acceptors, secured)
		e.hands.start()
	}
	if c.Provider.Keys != nil {
		e.vetting.start(&e.tokens)
	}
	if err := e.startLoops(); err != nil {
		return nil, errors.Join(fmt.Errorf("start loops: %w", err), e.closeAcceptors())
	}
	return e, nil
}

// startLoops starts the loops, each with a poller of gnet's.
func (e *Engine) startLoops() error {
	logging.SetDefaultLoggerAndFlusher(gnetLog{e.config.Log}, func() error { return nil })
	for i := range e.config.Loops {
		l, err := newLoop(e, i)
		if err != nil {
			return errors.Join(err, e.stopLoops())
		}
		e.loops = append(e.loops, l)
	}
	for _, l := range e.loops {
		e.running.Go(l.run)
	}
	return nil
}

func (e *Engine) stopLoops() error {
	var errs []error
	for _, l := range e.loops {
		errs = append(errs, l.stop())
	}
	errs = append(errs, e.running.Wait())
	e.vetting.stop()
	e.hands.stop()
	for _, l := range e.loops {
		for k := range l.shaking {
			l.forgetShake(k)
		}
		l.publish() // they have ended
		l.passed.Store(math.MaxInt64)
		errs = append(errs, l.release())
	}
	return errors.Join(errs...)
}

// Addr is where the engine listens.
func (e *Engine) Addr() net.Addr { return e.acceptors[0].addr }

// Sockets are duplicates of the listening sockets, for a process that is to take over; secured is nil where there is none. They are the
// caller's.
func (e *Engine) Sockets() (plain, secured *os.File, err error) {
	if plain, err = e.acceptors[0].duplicate(); err == nil && len(e.acceptors) > 1 {
		secured, err = e.acceptors[1].duplicate()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("duplicate a listening socket: %w", err)
	}
	return plain, secured, nil
}

// TLSAddr is where it listens for TLS; nil: nowhere.
func (e *Engine) TLSAddr() net.Addr {
	if len(e.acceptors) == 1 {
		return nil
	}
	return e.acceptors[1].addr
}

func (e *Engine) closeAcceptors() error {
	var errs []error
	for _, a := range e.acceptors {
		errs = append(errs, a.close())
	}
	return errors.Join(errs...)
}

// Token makes the token with which the owner of an account says hello.
func (e *Engine) Token(a proto.AccountID) string { return e.tokens.sign(a) }

// Run accepts clients until ctx ends. Then it drains: nobody is accepted any more, all clients are told when to come
// back (1012, as Part says), what is written reaches them, and whoever is still there Limits.DrainTime after the last was
// told is cut. The market must take Detach until Parted is closed; Deliver may be called ever after and does nothing.
func (e *Engine) Run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var ticking sync.WaitGroup
	for _, a := range e.acceptors {
		if err := a.give(e.loops[0]); err != nil {
			return errors.Join(fmt.Errorf("accept: %w", err), e.closeAcceptors(), e.stopLoops())
		}
	}
	ticks, stopTicks := context.WithCancel(context.Background())
	ticking.Go(func() { e.tick(ticks) })

	<-ctx.Done()
	err := e.closeAcceptors()
	e.drain()
	stopTicks()
	ticking.Wait()
	if err := errors.Join(err, e.stopLoops()); err != nil {
		return fmt.Errorf("stop the engine: %w", err)
	}
	return nil
}

// tick drives the timers of all loops.
func (e *Engine) tick(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for _, l := range e.loops {
				l.inbox.call(l.ticked)
			}
			e.pace()
		}
	}
}

// ticks is the number of the current tick.
func (e *Engine) ticks() uint32 { return uint32(time.Since(e.start) / tick) }

// Present is the number of connections that have joined a game.
func (e *Engine) Present(game proto.GameID) int { return int(e.attendance(game).present.Load()) }

// Sent is how many bytes of broadcasts a game has sent.
func (e *Engine) Sent(game proto.GameID) uint64 { return e.attendance(game).sent.Load() }

// attendance returns who is in a game.
func (e *Engine) attendance(game proto.GameID) *attendance {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.present[game]
	if a == nil {
		a = new(attendance)
		e.present[game] = a
	}
	return a
}

// gnetLog passes on what gnet says.
type gnetLog struct{ log *slog.Logger }

func (g gnetLog) Debugf(format string, args ...any) { g.log.Debug(fmt.Sprintf(format, args...)) }
func (g gnetLog) Infof(format string, args ...any)  { g.log.Debug(fmt.Sprintf(format, args...)) }
func (g gnetLog) Warnf(format string, args ...any)  { g.log.Warn(fmt.Sprintf(format, args...)) }
func (g gnetLog) Errorf(format string, args ...any) { g.log.Error(fmt.Sprintf(format, args...)) }
func (g gnetLog) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
