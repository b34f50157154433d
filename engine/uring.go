package engine

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/valyala/bytebufferpool"
	"golang.org/x/sys/unix"
)

// ring is an io_uring that does nothing but send: a slice of a broadcast, or a turn's receipts, go to the kernel in
// one system call, where write(2) needs one for each socket.
//
//	add:  socket, bytes ─▶ SQE ─┐                       tail is ours, head the kernel's
//	                            ▼
//	send: io_uring_enter ─▶ a sendmsg for each ─▶ CQE ─▶ sent: how much each socket took
//	                                                    head is ours, tail the kernel's
//
// A send that must not wait (MSG_DONTWAIT) is done or refused before io_uring_enter returns, so nothing is in
// flight between calls, and the buffers need not live longer. Short sends and errors are the caller's to go on
// with.
//
// Owner of every field: the loop. Its thread may change: the ring is not made for a single issuer.
type ring struct {
	fd          int
	submissions []byte // the kernel's memory, mapped, like the next two
	completions []byte
	entries     []byte

	sqHead, sqTail *uint32 // in submissions
	cqHead, cqTail *uint32 // in completions
	sqes           []sqe   // entries
	cqes           []cqe   // in completions

	tail  uint32         // what sqTail will be
	added int            // sends since the last call of send
	took  [ringMax]int32 // by send
}

// ringMax is the number of sends in one io_uring_enter, at most. The loops' rings have room for a slice.
const ringMax = 1 << 10

const _ = uint(ringMax - sliceCalm)

// The kernel's structures and numbers: include/uapi/linux/io_uring.h.
type (
	ringParams struct {
		sqEntries, cqEntries  uint32
		flags                 uint32
		threadCPU, threadIdle uint32
		features, wqFD        uint32
		_                     [3]uint32
		submissions           struct{ head, tail, mask, entries, flags, dropped, array, _, _, _ uint32 }
		completions           struct{ head, tail, mask, entries, overflow, cqes, flags, _, _, _ uint32 }
	}
	// sqe is a submission queue entry.
	sqe struct {
		opcode, flags uint8
		ioprio        uint16
		fd            int32
		off           uint64
		addr          uint64
		len           uint32
		msgFlags      uint32
		userData      uint64
		_             [3]uint64
	}
	// cqe is a completion queue entry.
	cqe struct {
		userData uint64
		res      int32
		flags    uint32
	}
)

const (
	_ = uint(unsafe.Sizeof(sqe{}) - 64)
	_ = uint(64 - unsafe.Sizeof(sqe{}))
	_ = uint(unsafe.Sizeof(cqe{}) - 16)
	_ = uint(16 - unsafe.Sizeof(cqe{}))
	_ = uint(unsafe.Sizeof(ringParams{}) - 120)
	_ = uint(120 - unsafe.Sizeof(ringParams{}))
)

const (
	setupSubmitAll   = 1 << 7 // Linux 5.18: go on behind an entry that is refused
	setupCoopTaskrun = 1 << 8 // 5.19: no interrupt for what can wait

	offsetSubmissions = 0
	offsetCompletions = 0x8000000
	offsetEntries     = 0x10000000

	enterGetEvents = 1 << 0
	opSend         = 26 // 5.6
)

// ringSetups are tried one after the other: a kernel refuses a flag that it does not know. SINGLE_ISSUER and
// DEFER_TASKRUN are not among them. Nothing is ever deferred here, so they gain nothing (50 interleaved bursts to
// 10,000: 0.64 of the CPU of bare writes with them, 0.63 without), and a loop would be bound to its thread.
var ringSetups = []uint32{setupSubmitAll | setupCoopTaskrun, setupSubmitAll, 0}

// newRing makes a ring and proves that it sends.
func newRing(entries uint32) (*ring, error) {
	r := &ring{fd: -1}
	err := r.setUp(entries)
	if err == nil {
		err = r.prove()
	}
	if err != nil {
		return nil, fmt.Errorf("make an io_uring: %w", errors.Join(err, r.close()))
	}
	return r, nil
}

func (r *ring) setUp(entries uint32) error {
	var p ringParams
	errno := unix.EINVAL
	for i := 0; i < len(ringSetups) && errno == unix.EINVAL; i++ {
		p = ringParams{flags: ringSetups[i]}
		var fd uintptr
		fd, _, errno = unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
		if errno == 0 {
			r.fd = int(fd)
		}
	}
	if errno != 0 {
		return os.NewSyscallError("io_uring_setup", errno)
	}
	sq, cq := &p.submissions, &p.completions
	if err := errors.Join(
		r.mapped(&r.submissions, offsetSubmissions, int(sq.array+4*p.sqEntries)),
		r.mapped(&r.completions, offsetCompletions, int(cq.cqes+uint32(unsafe.Sizeof(cqe{}))*p.cqEntries)),
		r.mapped(&r.entries, offsetEntries, int(unsafe.Sizeof(sqe{}))*int(p.sqEntries)),
	); err != nil {
		return err
	}
	r.sqHead, r.sqTail = word(r.submissions, sq.head), word(r.submissions, sq.tail)
	r.cqHead, r.cqTail = word(r.completions, cq.head), word(r.completions, cq.tail)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.entries[0])), p.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.completions[cq.cqes])), p.cqEntries)
	for i := range p.sqEntries { // which the kernel takes in the order in which they lie
		*word(r.submissions, sq.array+4*i) = i
	}
	r.tail = atomic.LoadUint32(r.sqTail)
	return nil
}

func (r *ring) mapped(memory *[]byte, offset int64, size int) (err error) {
	*memory, err = unix.Mmap(r.fd, offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	return os.NewSyscallError("mmap", err)
}

func word(memory []byte, at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&memory[at])) }

// prove sends a byte: a sandbox may allow one of the system calls and not the other.
func (r *ring) prove() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	r.add(fds[0], chime)
	took, err := r.send()
	if err == nil && took[0] < 0 {
		err = os.NewSyscallError("send", unix.Errno(-took[0]))
	}
	if err != nil {
		return err
	}
	var got [1]byte
	if n, err := unix.Read(fds[1], got[:]); n != len(chime) || got[0] != chime[0] {
		return fmt.Errorf("a byte sent does not arrive: %w", os.NewSyscallError("read", err))
	}
	return nil
}

// full reports whether add must wait for send.
func (r *ring) full() bool { return r.added == min(len(r.sqes), ringMax) }

// add adds a send. p must stay as it is, and be reachable, until send returns; it must not be on a stack, which
// may move.
func (r *ring) add(fd int, p []byte) {
	r.sqes[r.tail&uint32(len(r.sqes)-1)] = sqe{
		opcode: opSend, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))), len: uint32(len(p)),
		msgFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, userData: uint64(r.added),
	}
	r.tail++
	r.added++
}

// send does what was added, in that order, and returns how many bytes each socket took, or the negated errno. An
// error means that the ring is of no more use; sends that were not done took nothing.
func (r *ring) send() (took []int32, err error) {
	took = r.took[:r.added]
	clear(took)
	atomic.StoreUint32(r.sqTail, r.tail)
	submitted := 0
	for submitted < len(took) && err == nil {
		n, errno := r.enter(len(took)-submitted, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			err = os.NewSyscallError("io_uring_enter", errno)
		case n == 0:
			err = errors.New("io_uring_enter takes nothing")
		}
		submitted += n
	}
	for completed := r.reap(took); completed < submitted; completed += r.reap(took) { // never seen
		_, errno := r.enter(0, submitted-completed, enterGetEvents)
		assert(errno == 0 || errno == unix.EINTR, "the kernel completes what it has taken")
	}
	r.tail -= uint32(len(took) - submitted) // taken back: the kernel looks at the tail only when it is entered
	atomic.StoreUint32(r.sqTail, r.tail)
	r.added = 0
	return took, err
}

// enter does not tell Go's scheduler, like rawWrite: the sockets never block, and a slice is short enough for the
// garbage collector to wait for. Told, it gives the loop's processor away: 0.04 to 0.06 of a bare write per frame.
func (r *ring) enter(submit, complete int, flags uintptr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(complete), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// reap takes the completions that are there.
func (r *ring) reap(took []int32) (n int) {
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	for ; head != tail; head++ {
		c := &r.cqes[head&uint32(len(r.cqes)-1)]
		took[c.userData] = c.res
		n++
	}
	atomic.StoreUint32(r.cqHead, head)
	return n
}

func (r *ring) close() error {
	var errs []error
	for _, memory := range [][]byte{r.submissions, r.completions, r.entries} {
		if memory != nil {
			errs = append(errs, os.NewSyscallError("munmap", unix.Munmap(memory)))
		}
	}
	if r.fd >= 0 {
		errs = append(errs, os.NewSyscallError("close", unix.Close(r.fd)))
	}
	*r = ring{fd: -1}
	return errors.Join(errs...)
}

// Ways to broadcast, for Config.
const (
	BroadcastAuto  = "auto"  // through io_uring where the kernel and the sandbox allow it
	BroadcastRing  = "uring" // or New fails
	BroadcastWrite = "write"
)

func checkBroadcast(way string) error {
	switch way {
	case "", BroadcastAuto, BroadcastRing, BroadcastWrite:
		return nil
	}
	return fmt.Errorf("broadcast %q: say %s, %s or %s", way, BroadcastAuto, BroadcastRing, BroadcastWrite)
}

// openRing gives the loop a ring, or says why there is none. It runs before the loop does.
func (l *loop) openRing() (err error) {
	e := l.engine
	if e.config.Broadcast == BroadcastWrite {
		return nil
	}
	l.ring, err = newRing(sliceCalm)
	switch {
	case err == nil:
	case e.config.Broadcast == BroadcastRing:
		return fmt.Errorf("broadcast through io_uring: %w", err)
	default:
		e.config.Log.Info("broadcasts are written to one socket after the other, since io_uring cannot be had", "error", err)
		e.config.Broadcast = BroadcastWrite // the next loop need not try
	}
	return nil
}

// closeRing goes back to writing.
func (l *loop) closeRing() error {
	if l.ring == nil {
		return nil
	}
	err := l.ring.close()
	l.ring = nil
	return err
}

// posted is a send that was added to the loop's ring. It keeps the bytes reachable.
type posted struct {
	session *session
	bytes   []byte
	pending *bytebufferpool.ByteBuffer // that the bytes are in, and that goes back; nil: they are a broadcast's
}

// post writes bytes to a session that has nothing else on its way, with the others of the slice or of the turn; pending is the buffer
// that they are in, which goes back, or nil for a broadcast's. A session is in a room once, and has one buffer, so there is one send at
// most for each socket: their order is no question.
func (l *loop) post(s *session, fd int32, p []byte, pending *bytebufferpool.ByteBuffer) {
	l.counts.BytesOut += uint64(len(p))
	l.counts.Writes++
	if l.ring != nil && l.ring.full() {
		l.dispatch() // which may end the ring
	}
	if l.ring == nil {
		l.took(&posted{s, p, pending}, rawWrite(int(fd), p))
		return
	}
	l.ring.add(int(fd), p)
	l.posted = append(l.posted, posted{s, p, pending})
}

// took keeps what a socket did not take.
func (l *loop) took(p *posted, n int) {
	if n != len(p.bytes) {
		l.leave(p.session, p.bytes[n:])
	}
	if p.pending != nil {
		l.sent(p.session, p.pending)
	}
}

// dispatch sends what was posted, and keeps what sockets did not take, as write does.
func (l *loop) dispatch() {
	if len(l.posted) == 0 {
		return
	}
	took, err := l.ring.send()
	l.counts.Enters++
	for i, n := range took {
		l.took(&l.posted[i], max(0, int(n)))
	}
	clear(l.posted)
	l.posted = l.posted[:0]
	if err != nil {
		l.engine.config.Log.Error("broadcasts are written from now on", "loop", l.index, "error", errors.Join(err, l.closeRing()))
	}
}
