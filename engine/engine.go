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
//	session, its socket and        its loop: one goroutine of     put parcels and calls into the loop's
//	  buffers, its subscriptions     gnet's                         inbox and ring its bell
//	room: a game's subscribers     its loop; each loop has its    attendance, who is in the game over all
//	  and queued broadcasts          own room of a game             loops, has a mutex, and an atomic count
//	broadcast: encoded frames,     nobody: never changed once     shared by all loops; the garbage
//	  compressed or not              it is delivered                collector ends it
//	batch                          the shard that calls Deliver   engine copies what it keeps
//	door: connections by address   its mutex
//	accepting, timers              a goroutine each, in Run
//
// # gnet's contract, which is ours
//
// gnet is used as a "client" whose connections we accept and enroll, since its own listener shuts the whole
// engine down when descriptors run out (and its Run then returns nil).
//
//   - Bytes from Next die when OnTraffic returns; what is not taken is copied into a buffer without bound. So
//     every read takes everything, and keeps the little that is not whole.
//   - Write copies what the socket does not take into a buffer without bound and tells nobody. So we look
//     at OutboundBuffered before we write.
//   - Write closes the connection on an error, and OnClose runs inside of it. So nothing that a loop
//     walks through is cut short by gone: a subscriber's place becomes a hole until the broadcast is over.
//   - Closing sends only what the socket takes at once. So we shut down our side when everything is
//     sent, wait for the client's end, and cut at a deadline.
//   - A task given to Execute from inside a loop runs before the loop reads again, and so starves all reading. So
//     a loop is woken by sockets of its own, its two bells, which wait their turn among the other sockets.
//   - It reads with read(2), which has no time stamps. So arrivals are stamped when read, and corrected (arrival.go).
//   - There are no timers on loops; OnTick runs elsewhere. So a goroutine puts ticks into the inboxes.
//   - Enroll does not return when loops have ended. So accepting ends first.
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
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/valyala/bytebufferpool"

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

	listener *net.TCPListener
	secured  *net.TCPListener // for TLS; nil: none
	hands    hands
	client   *gnet.Client
	loops    []*loop
	clocks   clocks
	buffers  bytebufferpool.Pool // of outbound bytes and of messages that come in pieces

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
	if e.listener, err = listen(c.Listen, c.Listener); err != nil {
		return nil, fmt.Errorf("make an engine: %w", err)
	}
	if c.TLS != nil {
		if e.secured, err = listen(c.TLSListen, c.TLSListener); err != nil {
			return nil, errors.Join(fmt.Errorf("make an engine: for TLS: %w", err), e.listener.Close())
		}
		e.hands.start()
	}
	if c.Provider.Keys != nil {
		e.vetting.start(&e.tokens)
	}
	if err := e.startLoops(); err != nil {
		return nil, errors.Join(fmt.Errorf("start loops: %w", err), e.closeListeners())
	}
	return e, nil
}

// startLoops starts gnet and gives each of its loops a loop of ours. gnet tells neither how many loops it has
// nor which one a connection will get, but it gives the next connection to a loop that has the fewest: so the
// bells, enrolled one after the other, reach every loop once in each of two rounds, and stay.
func (e *Engine) startLoops() error {
	var err error
	e.client, err = gnet.NewClient(&events{engine: e},
		gnet.WithNumEventLoop(e.config.Loops),
		gnet.WithReadBufferCap(readBuffer),
		gnet.WithWriteBufferCap(writeBuffer),
		gnet.WithTCPNoDelay(gnet.TCPDelay), // Go has set TCP_NODELAY already
		gnet.WithLogger(gnetLog{e.config.Log}))
	if err != nil {
		return err
	}
	if err := e.client.Start(); err != nil {
		return err
	}
	for i := range e.config.Loops {
		l := newLoop(e, i)
		e.loops = append(e.loops, l)
		if err := l.openRing(); err != nil {
			return errors.Join(err, e.stopLoops())
		}
		if err := e.hang(l); err != nil {
			return errors.Join(err, e.stopLoops())
		}
	}
	for range e.config.Loops {
		if err := e.hang(nil); err != nil {
			return errors.Join(err, e.stopLoops())
		}
	}
	for _, l := range e.loops {
		assert(l.gnet != nil && l.inbox.bells[1] != nil, "every loop of gnet has two bells")
	}
	return nil
}

// bell is one on its way to a loop: the loop's first one, or the second of whichever loop gnet gives it to.
type bell struct {
	loop    *loop
	outside *net.UnixConn
}

// hang gives a loop of gnet's a bell.
func (e *Engine) hang(l *loop) error {
	inside, outside, err := newBell()
	if err != nil {
		return err
	}
	if _, err := e.client.EnrollContext(inside, &bell{l, outside}); err != nil { // runs OnOpen
		return errors.Join(fmt.Errorf("enroll a bell: %w", err), outside.Close())
	}
	return nil
}

// hung takes a bell to its loop.
func (e *Engine) hung(b *bell, c gnet.Conn) {
	first := b.loop != nil
	if first {
		b.loop.gnet = c.EventLoop()
		b.loop.inbox.bells[0] = b.outside
	} else {
		b.loop = e.loopOf(c.EventLoop())
		assert(b.loop.inbox.bells[1] == nil, "a loop has two bells")
		b.loop.inbox.bells[1] = b.outside
	}
	c.SetContext(b.loop)
}

func (e *Engine) stopLoops() error {
	for _, l := range e.loops {
		l.inbox.close()
	}
	errs := []error{e.client.Stop()}
	e.vetting.stop()
	e.hands.stop()
	for _, l := range e.loops {
		for k := range l.shaking {
			l.forgetShake(k)
		}
		l.publish() // they have ended
		l.passed.Store(math.MaxInt64)
		errs = append(errs, l.closeRing())
	}
	return errors.Join(errs...)
}

// Addr is where the engine listens.
func (e *Engine) Addr() net.Addr { return e.listener.Addr() }

// TLSAddr is where it listens for TLS; nil: nowhere.
func (e *Engine) TLSAddr() net.Addr {
	if e.secured == nil {
		return nil
	}
	return e.secured.Addr()
}

func (e *Engine) closeListeners() error {
	err := e.listener.Close()
	if e.secured != nil {
		err = errors.Join(err, e.secured.Close())
	}
	return err
}

// Token makes the token with which the owner of an account says hello.
func (e *Engine) Token(a proto.AccountID) string { return e.tokens.sign(a) }

// Run accepts clients until ctx ends. Then it drains: nobody is accepted any more, all clients are told when to come
// back (1012, as Part says), what is written reaches them, and whoever is still there Limits.DrainTime after the last was
// told is cut. The market must take Detach until Parted is closed; Deliver may be called ever after and does nothing.
func (e *Engine) Run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var accepting, ticking sync.WaitGroup
	accepting.Go(func() { e.accept(ctx, e.listener) })
	if e.secured != nil {
		accepting.Go(func() { e.accept(ctx, e.secured) })
	}
	ticks, stopTicks := context.WithCancel(context.Background())
	ticking.Go(func() { e.tick(ticks) })

	<-ctx.Done()
	err := e.closeListeners()
	accepting.Wait() // before the loops end: Enroll would wait for ever
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

// events is what gnet calls, on the loop that the connection belongs to.
type events struct {
	gnet.BuiltinEventEngine
	engine *Engine
}

func (v *events) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	switch owner := c.Context().(type) {
	case *bell:
		v.engine.hung(owner, c)
	case *session:
		v.engine.loopOf(c.EventLoop()).open(owner, c)
	}
	return nil, gnet.None
}

// loopOf finds our loop of gnet's: there are few.
func (e *Engine) loopOf(el gnet.EventLoop) *loop {
	for _, l := range e.loops {
		if l.gnet == el {
			return l
		}
	}
	panic("gnet has a loop without a bell")
}

func (v *events) OnTraffic(c gnet.Conn) gnet.Action {
	in, err := c.Next(-1)
	assert(err == nil, "gnet always has all that it has")
	switch owner := c.Context().(type) {
	case *loop:
		owner.turn()
	case *session:
		owner.loop.read(owner, in)
	}
	return gnet.None
}

func (v *events) OnClose(c gnet.Conn, _ error) gnet.Action {
	if s, ok := c.Context().(*session); ok {
		s.loop.gone(s)
	}
	return gnet.None
}

// gnetLog passes on what gnet says. Its warnings tell of connections that closed in the turn in which they were
// readable, which is nothing to warn of.
type gnetLog struct{ log *slog.Logger }

func (g gnetLog) Debugf(format string, args ...any) { g.log.Debug(fmt.Sprintf(format, args...)) }
func (g gnetLog) Infof(format string, args ...any)  { g.log.Debug(fmt.Sprintf(format, args...)) }
func (g gnetLog) Warnf(format string, args ...any)  { g.log.Debug(fmt.Sprintf(format, args...)) }
func (g gnetLog) Errorf(format string, args ...any) { g.log.Error(fmt.Sprintf(format, args...)) }
func (g gnetLog) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
