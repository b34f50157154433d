package engine

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"tote/server/proto"
)

// A request is judged by when it reached the host. What a loop can say of that is when it has read, since it reads with read(2), which
// has no stamps; and while a loop writes to others, or the kernel gives its processor to others, what has arrived waits. The
// kernel remembers when a socket last got data, in jiffies, and says so for the price of a system call (TCP_INFO). So the stamp is the
// clock at the read and, where the loop had been away for so long that jiffies are the finer measure, what the kernel says. It is
// never before the arrival, and of several messages that came together it is that of the last.

// look reads the clock. When the loop has not looked for longer than awayMin, it doubts for as long again that what it reads has just
// arrived: that may have come at any time since. It may also have slept, when nothing came; then the question to the kernel is
// wasted on a loop that has little to do.
func (l *loop) look() {
	now := l.engine.config.Now()
	if away := now - l.now; away > l.engine.awayMin {
		l.doubts = now + min(away, proto.Second)
	}
	l.now = now
}

// stamp is when what was just read from a session has arrived, at the latest.
func (l *loop) stamp(s *session) proto.Time {
	at := l.now
	if l.now < l.doubts {
		at = min(at, at-sinceData(s.fd())+l.engine.jiffy) // a jiffy older than it says, at the least
		l.counts.Restamped++
	}
	return max(at, proto.Time(l.passed.Load())+1) // it was said that nothing from before is to come
}

// pass tells, at the start of a turn, up to which arrival all has been submitted: the start of the turn before. For this turn's bell was
// rung after that one had begun, so it stands in epoll's line behind all that was readable by then:
//
//	turn k ─▶ epoll: … what was readable when turn k began │ bell, rung since ─▶ turn k+1
//
// Where a market waits for a time, the loop goes from turn to turn until it has passed.
func (l *loop) pass() {
	before, awaited := l.passed.Load(), l.awaited.Load()
	l.passed.Store(max(before, int64(l.began)))
	l.began = l.now
	if before < awaited && awaited <= l.passed.Load() {
		l.engine.market.LoopsPassed()
	}
}

// hurries reports whether somebody waits for a time that has come, and has not passed here.
func (l *loop) hurries() bool {
	at := l.awaited.Load()
	return l.passed.Load() < at && at <= int64(l.now)
}

// jiffy is the tick of the kernel, by which TCP_INFO may be wrong.
func jiffy() proto.Time {
	var resolution unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_REALTIME_COARSE, &resolution); err != nil {
		return 10 * proto.Millisecond // the coarsest there is
	}
	return proto.Time(resolution.Nano() / 1000)
}

// sinceData is how long ago a socket got data, in jiffies; 0 where the kernel does not say.
func sinceData(fd int) proto.Time {
	var info [56]byte // struct tcp_info up to tcpi_last_data_recv: include/uapi/linux/tcp.h
	const lastDataRecv = 52
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO, uintptr(unsafe.Pointer(&info)),
		uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || size < uint32(unsafe.Sizeof(info)) {
		return 0
	}
	return proto.Time(*(*uint32)(unsafe.Pointer(&info[lastDataRecv]))) * proto.Millisecond
}

// Passed reports whether all that reached the host at or before a time has been submitted to the market, and makes the loops that
// are not so far hurry. The market asks before an event or a lock takes effect.
func (e *Engine) Passed(at proto.Time) bool {
	passed := true
	for _, l := range e.loops {
		if proto.Time(l.passed.Load()) < at {
			passed = false
			raise(&l.awaited, int64(at))
			l.inbox.ring()
		}
	}
	return passed
}

// raise sets a to at least v.
func raise(a *atomic.Int64, v int64) {
	for old := a.Load(); old < v && !a.CompareAndSwap(old, v); old = a.Load() {
	}
}
