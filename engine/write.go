package engine

import (
	"unsafe"

	"github.com/valyala/bytebufferpool"
	"golang.org/x/sys/unix"

	"tote/server/proto"
)

// Everything that one turn says to a session leaves in one send: it is appended to pending, and flush sends
// at the end of the turn, through the ring if there are several. Only a broadcast to a session with nothing
// pending goes to the socket at once, from the buffer that all share.

// out is the session's pending bytes.
func (l *loop) out(s *session) *bytebufferpool.ByteBuffer {
	if s.pending == nil {
		s.pending = l.engine.buffers.Get()
		l.dirty = append(l.dirty, s)
		l.busy.set(s.slot)
	}
	return s.pending
}

// marks are the slots of sessions that a broadcast cannot simply be written to: something is pending or unsent. A bit may be set for longer than that, never shorter. Ten thousand of them are twenty cache lines, so
// offering a broadcast to a session that has nothing else on its way does not touch the session at all.
type marks []uint64

func (m *marks) set(slot uint32) {
	for int(slot/64) >= len(*m) {
		*m = append(*m, 0)
	}
	(*m)[slot/64] |= 1 << (slot % 64)
}

func (m marks) clear(slot uint32) {
	if int(slot/64) < len(m) {
		m[slot/64] &^= 1 << (slot % 64)
	}
}

func (m marks) has(slot uint32) bool { return int(slot/64) < len(m) && m[slot/64]>>(slot%64)&1 != 0 }

// lane is out for the private lane, of which nothing is ever skipped: a reader who has let LaneBytes pile up is
// closed, and nil is returned. One message more than that fits, so that any image can be sent.
func (l *loop) lane(s *session) *bytebufferpool.ByteBuffer {
	if s.state != open {
		return nil
	}
	b := l.out(s)
	if b.Len()+s.backlog() < l.engine.limits.LaneBytes {
		return b
	}
	l.send(s) // a busy turn is not the reader's fault
	if s.state != open {
		return nil
	}
	if s.backlog() >= l.engine.limits.LaneBytes {
		l.close(s, proto.CloseSlow)
		return nil
	}
	return l.out(s)
}

// tell says m on the private lane.
func (l *loop) tell(s *session, m proto.Message) {
	if b := l.lane(s); b != nil {
		b.B = l.pack(s, appendMessage(b.B, s.variant.codec(), m), b.Len())
		l.counts.FramesOut++
	}
}

func (l *loop) refuse(s *session, id proto.RequestID, reason proto.Refusal) {
	l.refused = proto.Refused{ID: id, T: l.now, Reason: reason}
	l.tellRefused(s, &l.refused)
}

func (l *loop) tellRefused(s *session, m *proto.Refused) {
	l.counts.refusals[m.Reason]++
	l.tell(s, m)
}

// flush ends a turn.
func (l *loop) flush() {
	several := l.ring != nil && len(l.dirty) > 1
	for _, s := range l.dirty {
		if b := s.pending; several && b != nil && b.Len() > 0 && s.state != gone && s.tls == nil && s.backlog() == 0 {
			s.pending = nil
			l.post(s, s.descriptor, b.B, b)
			continue
		}
		l.send(s)
	}
	l.dispatch()
	clear(l.dirty)
	l.dirty = l.dirty[:0]
}

// send writes what is pending.
func (l *loop) send(s *session) {
	b := s.pending
	if b == nil {
		return
	}
	s.pending = nil
	if s.state != gone && b.Len() > 0 {
		l.write(s, b.B)
	}
	l.sent(s, b)
}

// sent is what follows the sending of what was pending.
func (l *loop) sent(s *session, b *bytebufferpool.ByteBuffer) {
	l.drop(&b)
	if s.state == closing {
		l.shut(s)
	}
}

// write gives bytes to the socket, encrypted if it has TLS.
func (l *loop) write(s *session, p []byte) {
	if s.tls == nil || s.tls.conn == nil {
		l.transmit(s, p)
		return
	}
	from := len(l.sealed)
	s.tls.seal(p)
	l.transmitSealed(s, from)
}

// transmit gives bytes to the kernel, and keeps what it does not take.
func (l *loop) transmit(s *session, p []byte) {
	l.counts.BytesOut += uint64(len(p))
	l.counts.Writes++
	if s.backlog() == 0 {
		n := rawWrite(s.fd(), p)
		if n == len(p) {
			return
		}
		p = p[n:]
	}
	l.leave(s, p)
}

// rawWrite is write(2) without telling Go's scheduler, since the socket never blocks. Every error is 0: reading meets
// it as well, and ends the session.
func rawWrite(fd int, p []byte) int {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0
	}
	return int(n)
}

// shut ends our side of the socket once everything is sent: the client reads to the end, then closes. A
// close(2) right away would be a reset where input is unread, and the reset overtakes what was written.
func (l *loop) shut(s *session) {
	if s.shut || s.pending != nil || s.backlog() != 0 {
		return
	}
	if s.tls != nil {
		if l.notify(s); s.backlog() != 0 {
			return
		}
	}
	s.shut = true
	_ = unix.Shutdown(s.fd(), unix.SHUT_WR) // fails where the client has gone
}
