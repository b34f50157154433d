package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// door counts who is inside and refuses whoever would be too many.
type door struct {
	empty chan struct{} // a word when the last has left

	accepted   atomic.Uint64
	full       atomic.Uint64 // refused: Limits.Connections
	crowded    atomic.Uint64 // refused: Limits.PerAddress
	hasty      atomic.Uint64 // refused: Limits.ConnectRate
	rushed     atomic.Uint64 // refused: Limits.Handshakes
	starved    atomic.Uint64 // refused: no descriptor left
	held       atomic.Uint64 // times that newcomers had to wait: Limits.Admissions
	acceptFail atomic.Uint64 // other errors of accept and enroll

	mu        sync.Mutex
	total     int
	addresses map[home]int
	second    int64        // of arrivals and knocks
	arrivals  int          // in second, over all addresses
	knocks    map[home]int // in second: as many as connect in one

	max, perAddress, rate, rateAll int
	loopbackFree                   bool // from PerAddress, unless it was asked for
	loopbackHasty                  bool // and from ConnectRate
}

func (d *door) open(l Limits) {
	d.empty = make(chan struct{}, 1)
	d.addresses = map[home]int{}
	d.knocks = map[home]int{}
	d.max, d.perAddress, d.rate, d.rateAll = l.Connections, l.PerAddress, l.ConnectRate, l.Handshakes
	if d.perAddress == 0 {
		d.perAddress, d.loopbackFree = defaults.PerAddress, true
	}
	if d.rate == 0 {
		d.rate, d.loopbackHasty = defaults.ConnectRate, true
	}
}

// Answers to those who are not let in. They are short enough to always fit the socket.
const (
	answerFull    = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	answerRushed  = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	answerRestart = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	answerHasty   = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	answerCrowded = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)

// enter lets a client in, or returns the answer that refuses it. Of a client behind a proxy the address is 0, and counted later.
func (d *door) enter(address home, second int64) (refusal string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begin(second)
	switch {
	case d.total >= d.max:
		d.full.Add(1)
		return answerFull
	case d.rateAll > 0 && d.arrivals >= d.rateAll:
		d.rushed.Add(1)
		return answerRushed
	}
	if refusal = d.count(address); refusal != "" {
		return refusal
	}
	d.arrivals++
	d.total++
	d.accepted.Add(1)
	return ""
}

// introduce counts the address of a client that a proxy has brought in, or returns the answer that refuses it.
func (d *door) introduce(address home, second int64) (refusal string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begin(second)
	return d.count(address)
}

// begin forgets the second before.
func (d *door) begin(second int64) {
	if second != d.second {
		clear(d.knocks)
		d.second, d.arrivals = second, 0
	}
}

// count applies the limits by address.
func (d *door) count(address home) (refusal string) {
	switch {
	case address == 0:
		return ""
	case d.addresses[address] >= d.perAddress && !(d.loopbackFree && address.isLoopback()):
		d.crowded.Add(1)
		return answerCrowded
	case !d.knock(address):
		d.hasty.Add(1)
		return answerHasty
	}
	d.addresses[address]++
	return ""
}

// knock counts whoever is let in, and reports whether its address has had its share of this second: who connects and resets,
// again and again, is never many at a time.
func (d *door) knock(address home) bool {
	if d.loopbackHasty && address.isLoopback() {
		return true
	}
	d.knocks[address]++
	return d.knocks[address] <= d.rate
}

func (d *door) leave(address home) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.addresses[address]--; d.addresses[address] <= 0 { // of 0, which is not counted, too
		delete(d.addresses, address)
	}
	if d.total--; d.total > 0 {
		return
	}
	select {
	case d.empty <- struct{}{}:
	default:
	}
}

func (d *door) inside() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.total
}

// listen opens the door, or takes one that was opened for us.
func listen(address string, inherited net.Listener) (*net.TCPListener, error) {
	if inherited != nil {
		l, ok := inherited.(*net.TCPListener)
		if !ok {
			return nil, fmt.Errorf("listen: the inherited socket is a %T, not TCP", inherited)
		}
		raw, err := l.SyscallConn()
		if err == nil {
			err = shape(raw)
		}
		if err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
		return l, nil
	}
	config := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error { return shape(c) }} // the engine pings
	l, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l.(*net.TCPListener), nil
}

// Between failed accepts: long enough to cost nothing, short enough that newcomers get in soon after there is room.
const acceptPause = 50 * time.Millisecond

// accept lets clients in until the listener is closed.
func (e *Engine) accept(ctx context.Context, from *net.TCPListener) {
	spare := newSpare()
	defer func() { spare.drop() }()
	for ctx.Err() == nil {
		c, err := from.AcceptTCP()
		if e.admission.wait(ctx) {
			e.door.held.Add(1)
		}
		switch {
		case err == nil:
			e.welcome(c, from)
		case errors.Is(err, net.ErrClosed):
			return
		case isStarved(err):
			e.door.starved.Add(1)
			if !e.refuseWith(&spare, from) {
				pause(ctx, acceptPause)
			}
		default: // want of memory, or a client that has gone already
			e.notTaken(err)
			pause(ctx, acceptPause)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// spare is a descriptor kept for the moment when there is none: with it a newcomer is accepted and told to come
// back, where it would otherwise hang in the backlog until its own time is over, and the listener would stay
// readable and keep us busy.
type spare struct{ file *os.File }

func newSpare() spare {
	file, err := os.Open(os.DevNull)
	if err != nil {
		return spare{}
	}
	return spare{file}
}

func (s *spare) drop() {
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
}

// refuseWith gives up the spare descriptor for one newcomer, refuses it, and takes the descriptor back. It
// returns false where that failed, because others were faster.
func (e *Engine) refuseWith(s *spare, from *net.TCPListener) bool {
	s.drop()
	// Whoever knocked may have gone meanwhile: do not wait for the next with the spare in hand.
	if err := from.SetDeadline(time.Now().Add(acceptPause)); err != nil {
		return false
	}
	c, err := from.AcceptTCP()
	if err == nil {
		refuse(c, e.answerFrom(from, answerFull))
	}
	_ = from.SetDeadline(time.Time{})
	*s = newSpare()
	return err == nil && s.file != nil
}

// alertRefused is what those hear who would have TLS: internal_error, fatal (RFC 8446, section 6).
const alertRefused = "\x15\x03\x03\x00\x02\x02\x50"

// answerFrom is an answer as a listener can give it.
func (e *Engine) answerFrom(listener *net.TCPListener, answer string) string {
	if listener == e.secured {
		return alertRefused
	}
	return answer
}

// refuse answers and closes. The answer may get lost where the client's request is already here, since the
// close is then a reset.
func refuse(c *net.TCPConn, answer string) {
	_, _ = c.Write([]byte(answer))
	_ = c.Close()
}

// welcome gives a client to a loop. The loop has the session from OnOpen on.
func (e *Engine) welcome(c *net.TCPConn, from *net.TCPListener) {
	remote := c.RemoteAddr().(*net.TCPAddr)
	peer := remote.AddrPort().Addr()
	s := &session{owes: e.config.Proxies.introduces(peer)}
	if s.owes == owesNothing {
		s.address = homeOf(peer)
	}
	if from == e.secured {
		s.tls = new(secure)
	}
	if refusal := e.door.enter(s.address, time.Now().Unix()); refusal != "" {
		refuse(c, e.answerFrom(from, refusal))
		return
	}
	// gnet puts the zones of addresses into a pool of bytes to be written to when the connection ends, and
	// these strings are not ours.
	remote.Zone, c.LocalAddr().(*net.TCPAddr).Zone = "", ""
	var err error
	if e.config.Listener != nil { // Go takes it for one that wants probes: 15 s after 15 s, to every idle phone
		err = c.SetKeepAlive(false)
	}
	if err == nil {
		_, err = e.client.EnrollContext(c, s) // closes c, and returns when OnOpen has
	} else {
		_ = c.Close()
	}
	if s.loop == nil { // or epoll took no more, of which gnet says nothing
		e.door.leave(s.address)
		e.notTaken(err)
	}
}

// notTaken counts a newcomer who was closed for want of something. Want of descriptors is not logged: there is
// a line for each newcomer as long as it lasts.
func (e *Engine) notTaken(err error) {
	if isStarved(err) {
		e.door.starved.Add(1)
		return
	}
	e.door.acceptFail.Add(1)
	e.config.Log.Warn("take a connection in", "error", err)
}

func isStarved(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// shape sets the options of a listener, which the kernel gives to each socket that it accepts. TCP_NODELAY is Go's
// default, set for each connection.
func shape(listener syscall.RawConn) error {
	var failed error
	err := listener.Control(func(fd uintptr) {
		failed = errors.Join(
			setOption(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer),
			setOption(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLow))
	})
	return errors.Join(err, failed)
}

func setOption(fd uintptr, level, option, value int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), level, option, value))
}
