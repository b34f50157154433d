package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tote/server/proto"
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
	acceptFail atomic.Uint64 // other errors of accept and epoll

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

// acceptor is a socket that clients connect to. One loop has it at a time and accepts for itself, so nobody who
// comes is handed from thread to thread; when another loop has fewer clients, that one gets it.
//
//	readable ─▶ accept, up to acceptMax ─▶ enough here? ─▶ to the loop with the fewest
type acceptor struct {
	fd      int
	addr    net.Addr
	secured bool // those who come speak TLS

	mu     sync.Mutex // of whoever accepts, moves or closes: the loops come one after the other
	on     *loop      // that polls fd; nil: nobody yet, or not any more
	paused bool       // for a while nobody polls it: it would be readable all the time
	closed bool
	spare  spare
}

// listen opens the door, or takes one that was opened for us.
func listen(address string, inherited net.Listener) (*acceptor, error) {
	l := inherited
	if l == nil {
		var config net.ListenConfig
		var err error
		if l, err = config.Listen(context.Background(), "tcp", address); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("listen: the inherited socket is a %T, not TCP", l)
	}
	a := &acceptor{addr: tcp.Addr(), spare: newSpare()}
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = errors.Join(shape(raw), raw.Control(func(fd uintptr) { a.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }), err)
	}
	if err = errors.Join(err, tcp.Close()); err != nil { // Go's poller need not wake for each who connects
		return nil, fmt.Errorf("listen: %w", err)
	}
	return a, nil
}

// shape sets the options of a listener, which the kernel gives to each socket that it accepts.
func shape(listener syscall.RawConn) error {
	var failed error
	err := listener.Control(func(fd uintptr) {
		failed = errors.Join(
			setOption(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer),
			setOption(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0), // the engine pings
			setOption(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLow),
			setOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	})
	return errors.Join(err, failed)
}

func setOption(fd uintptr, level, option, value int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), level, option, value))
}

// give gives the acceptor to a loop.
func (a *acceptor) give(to *loop) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.giveLocked(to)
}

func (a *acceptor) giveLocked(to *loop) error {
	if a.closed {
		return nil
	}
	if a.on != nil && !a.paused {
		if err := a.on.poller.Delete(a.fd); err != nil {
			return err
		}
	}
	a.on, a.paused = to, false
	return to.poll(a.fd)
}

// acceptPause follows a failed accept: long enough to cost nothing, short enough that newcomers get in soon after there is room.
const acceptPause = 50 * time.Millisecond

// pause leaves newcomers in the kernel's queue for d.
func (a *acceptor) pause(d time.Duration) {
	if a.on.poller.Delete(a.fd) == nil {
		a.resumeIn(d)
	}
}

// resumeIn has the acceptor polled again after d; nobody polls it now.
func (a *acceptor) resumeIn(d time.Duration) {
	a.paused = true
	time.AfterFunc(d, a.resume)
}

func (a *acceptor) resume() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.paused && a.giveLocked(a.on) != nil { // epoll wants memory
		a.resumeIn(acceptPause)
	}
}

func (a *acceptor) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	var err error
	if a.on != nil && !a.paused { // closing takes it from the poller only where no other process has it too
		err = a.on.poller.Delete(a.fd)
	}
	a.closed, a.on, a.paused = true, nil, false
	a.spare.drop()
	return errors.Join(err, os.NewSyscallError("close", unix.Close(a.fd)))
}

// duplicate is one more descriptor of the socket, the caller's.
func (a *acceptor) duplicate() (*os.File, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, net.ErrClosed
	}
	fd, err := unix.FcntlInt(uintptr(a.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), a.addr.String()), nil
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

// accept lets in who waits at the door, but not more than acceptMax before the loop reads again.
func (l *loop) accept(a *acceptor) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.on != l {
		return // moved or closed since epoll said so
	}
	l.look()
	for range acceptMax {
		fd, peer, errno := accept4(a.fd)
		switch errno {
		case 0:
			l.admit(a, fd, peer)
			if ahead := l.engine.admission.take(time.Now()); ahead > admissionBurst {
				l.engine.door.held.Add(1)
				a.pause(max(ahead-admissionPause, admissionPause))
				return
			}
			continue
		case unix.EINTR, unix.ECONNABORTED: // the client has gone already
			continue
		case unix.EAGAIN:
		case unix.EMFILE, unix.ENFILE:
			l.engine.door.starved.Add(1)
			if a.refuse() {
				continue
			}
			a.pause(acceptPause)
			return
		default: // want of memory
			l.notTaken(os.NewSyscallError("accept4", errno))
			a.pause(acceptPause)
			return
		}
		break
	}
	if to := l.engine.emptiest(); to.fewer(l) {
		if err := a.giveLocked(to); err != nil {
			l.notTaken(err)
			a.resumeIn(acceptPause)
		}
	}
}

// emptiest is the loop with the fewest clients.
func (e *Engine) emptiest() *loop {
	found := e.loops[0]
	for _, l := range e.loops[1:] {
		if l.clients.Load() < found.clients.Load() {
			found = l
		}
	}
	return found
}

// fewer reports whether a loop has so many clients less than another that the newcomers should be its own.
func (l *loop) fewer(than *loop) bool {
	n := l.clients.Load()
	return than.clients.Load()-n > n/16
}

// refuse gives up the spare descriptor for one newcomer, refuses it, and takes the descriptor back. It
// returns false where that failed, because others were faster.
func (a *acceptor) refuse() bool {
	a.spare.drop()
	fd, _, errno := accept4(a.fd)
	if errno == 0 {
		refuse(fd, a.answer(answerFull))
	}
	a.spare = newSpare()
	return errno == 0 && a.spare.file != nil
}

// alertRefused is what those hear who would have TLS: internal_error, fatal (RFC 8446, section 6).
const alertRefused = "\x15\x03\x03\x00\x02\x02\x50"

// answer is an answer as those who come here understand it.
func (a *acceptor) answer(answer string) string {
	if a.secured {
		return alertRefused
	}
	return answer
}

// refuse answers and closes. The answer may get lost where the client's request is already here, since the
// close is then a reset.
func refuse(fd int, answer string) {
	_ = rawWrite(fd, []byte(answer))
	_ = unix.Close(fd)
}

// admit makes a session of a newcomer, or refuses it.
func (l *loop) admit(a *acceptor, fd int, peer netip.Addr) {
	s := &session{loop: l, descriptor: int32(fd), owes: l.engine.config.Proxies.introduces(peer)}
	if s.owes == owesNothing {
		s.address = homeOf(peer)
	}
	if a.secured {
		s.tls = new(secure)
	}
	if refusal := l.engine.door.enter(s.address, int64(l.now/proto.Second)); refusal != "" {
		refuse(fd, a.answer(refusal))
		return
	}
	err := errBeyond
	if l.engine.sessions.hold(fd) {
		err = l.poll(fd)
	}
	if err != nil {
		l.engine.door.leave(s.address)
		l.notTaken(err)
		_ = unix.Close(fd)
		return
	}
	l.engine.sessions.set(fd, s)
	l.open(s)
}

var errBeyond = errors.New("the limit of descriptors was raised since the start")

// notTaken counts a newcomer, or all who wait, for whom there was no memory.
func (l *loop) notTaken(err error) {
	l.engine.door.acceptFail.Add(1)
	l.engine.config.Log.Warn("take a connection in", "error", err)
}

// accept4 is accept4(2) without telling Go's scheduler, since the socket never blocks, and without an allocation.
func accept4(listener int) (fd int, peer netip.Addr, errno unix.Errno) {
	var from unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(from))
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.Addr{}, errno
	}
	switch from.Addr.Family {
	case unix.AF_INET:
		peer = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&from)).Addr)
	case unix.AF_INET6:
		peer = netip.AddrFrom16((*unix.RawSockaddrInet6)(unsafe.Pointer(&from)).Addr)
	}
	return int(n), peer, 0
}
