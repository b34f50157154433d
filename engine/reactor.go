package engine

import (
	"errors"
	"sync/atomic"

	gnet "github.com/panjf2000/gnet/v2/pkg/errors"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"github.com/panjf2000/gnet/v2/pkg/queue"
	"github.com/valyala/bytebufferpool"
	"golang.org/x/sys/unix"
)

// descriptors finds sessions by descriptor, over all loops: 8 bytes each. An entry belongs to the loop of its session; the
// kernel gives a number to somebody else only when it is closed.
type descriptors []atomic.Pointer[[descriptorsChunk]atomic.Pointer[session]]

const descriptorsChunk = 4096

// newDescriptors makes room for as many as the process may ever open.
func newDescriptors() descriptors { return make(descriptors, descriptorsMax()/descriptorsChunk+1) }

func (d descriptors) at(fd int) *session {
	if !d.hold(fd) {
		return nil
	}
	if chunk := d[fd/descriptorsChunk].Load(); chunk != nil {
		return chunk[fd%descriptorsChunk].Load()
	}
	return nil
}

// hold reports whether there is an entry for fd: not where the limit was raised since.
func (d descriptors) hold(fd int) bool { return fd/descriptorsChunk < len(d) }

// set has fd find s, or nobody.
func (d descriptors) set(fd int, s *session) {
	chunk := &d[fd/descriptorsChunk]
	if chunk.Load() == nil {
		chunk.CompareAndSwap(nil, new([descriptorsChunk]atomic.Pointer[session]))
	}
	chunk.Load()[fd%descriptorsChunk].Store(s)
}

// poll has epoll report when fd is readable.
func (l *loop) poll(fd int) error { return l.poller.AddRead(&netpoll.PollAttachment{FD: fd}, false) }

// run polls until stop. Then everybody who is still there is cut.
func (l *loop) run() error {
	err := l.poller.Polling(l.polled)
	if errors.Is(err, gnet.ErrEngineShutdown) {
		err = nil
	}
	for _, p := range l.places {
		if p.session != nil {
			l.hangUp(p.session)
		}
	}
	return err
}

// stop ends run, from any goroutine.
func (l *loop) stop() error {
	return l.poller.Trigger(queue.HighPriority, func(any) error { return gnet.ErrEngineShutdown }, nil)
}

// polled is what the poller calls for each descriptor that is ready, in the order in which they became so.
//
// The event may be of a descriptor that was closed since epoll reported it, and the number may be somebody else's already; a
// read too many finds nothing and does no harm. So nobody is closed because of what an event says, only of what read says.
func (l *loop) polled(fd int, event netpoll.IOEvent, _ netpoll.IOFlags) error {
	s := l.engine.sessions.at(fd)
	switch {
	case s == nil && l.inbox.has(fd):
		l.silence(fd)
		l.turn()
	case s == nil:
		for _, a := range l.engine.acceptors {
			if a.fd == fd {
				l.accept(a)
			}
		}
	case s.loop == l:
		if event&netpoll.WriteEvents != 0 {
			l.resume(s)
		}
		if event&^netpoll.WriteEvents != 0 && s.state != gone {
			l.receive(s)
		}
	}
	return nil
}

// silence takes the byte out of a bell that has rung.
func (l *loop) silence(bell int) {
	for {
		n, err := unix.Read(bell, l.buffer)
		if n < len(l.buffer) || err != nil {
			return
		}
	}
}

// receive reads once: what is left is reported again, after all others who are readable.
func (l *loop) receive(s *session) {
	n, err := unix.Read(s.fd(), l.buffer)
	switch {
	case n > 0:
		l.read(s, l.buffer[:n])
	case err == unix.EAGAIN || err == unix.EINTR:
	default:
		l.hangUp(s)
	}
}

// leave keeps what the socket does not take until it is writable. From then on the session is looked after, by catchUpAll and
// closeStuck.
func (l *loop) leave(s *session, p []byte) {
	if s.unsent == nil {
		s.unsent, s.sent = l.engine.buffers.Get(), 0
		_ = l.poller.ModReadWrite(&netpoll.PollAttachment{FD: s.fd()}, false) // fails for want of nothing
	}
	b := s.unsent
	if s.sent > 0 {
		b.B, s.sent = b.B[:copy(b.B, b.B[s.sent:])], 0
	}
	b.B = append(b.B, p...)
	l.busy.set(s.slot)
	l.watch(s)
}

// backlog is how many bytes of the session wait for the socket.
func (s *session) backlog() int {
	if s.unsent == nil {
		return 0
	}
	return s.unsent.Len() - int(s.sent)
}

// resume writes what was left, now that the socket takes some.
func (l *loop) resume(s *session) {
	if s.unsent == nil {
		return
	}
	s.sent += int32(rawWrite(s.fd(), s.unsent.B[s.sent:]))
	if s.backlog() > 0 {
		return
	}
	l.drop(&s.unsent)
	_ = l.poller.ModRead(&netpoll.PollAttachment{FD: s.fd()}, false)
	if s.state == closing {
		l.shut(s)
	}
}

// drop gives a buffer back, if there is one, unless it is larger than what the next one needs: a page's would be too large for a receipt.
func (l *loop) drop(b **bytebufferpool.ByteBuffer) {
	if *b == nil {
		return
	}
	if cap((*b).B) <= l.engine.limits.LaneBytes {
		l.engine.buffers.Put(*b)
	}
	*b = nil
}

// hangUp closes the socket. What waits for it gets a last chance.
func (l *loop) hangUp(s *session) {
	if s.unsent != nil {
		rawWrite(s.fd(), s.unsent.B[s.sent:])
	}
	l.drop(&s.unsent)
	l.gone(s)
	l.engine.sessions.set(s.fd(), nil)
	_ = unix.Close(s.fd()) // leaves epoll too
}

// cut hangs up at once and frees what the kernel still keeps for the client.
func (l *loop) cut(s *session) {
	l.counts.Cut++
	_ = unix.SetsockoptLinger(s.fd(), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	l.hangUp(s)
}
