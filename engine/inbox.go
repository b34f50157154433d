package engine

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"tote/server/market"
)

// inbox is how others reach a loop: they put parcels and calls into it, and ring once when it was silent. It
// grows as the market answers, and the market's own inboxes bound what there is to answer.
type inbox struct {
	bells [2]bell

	mu      sync.Mutex
	parcels []parcel
	calls   []func()
	rung    bool // a byte is on its way
	bell    int  // to ring next
	closed  bool // the loop has ended
}

// parcel is what the market has for one loop: an Out for a session of it, or a broadcast.
type parcel struct {
	out       market.Out
	broadcast *broadcast // if set, out is empty
}

// A loop has two bells, which are rung in turns. epoll reports sockets in the order in which they became readable, and puts each at the
// end of the line when it reports it, readable or not: a bell that is rung again in the turn that it began would stand before
// all that became readable during that turn, and the loop would write the next slice first.
//
// A bell is a pair of sockets and no task of the poller's, because tasks are run before the
// loop reads again, however many there are, while a socket is served in the order in which epoll saw it: a loop
// that rings its own bell to go on later lets all readable sockets go first. It costs a write and a read of one
// byte, and no allocation. Measured with broadcasts to 10,000 on two busy cores, against a goroutine that calls
// Trigger after each slice: 1.05 to 1.07 times the CPU of bare writes instead of 1.10 to 1.13, and a request
// waits 5 ms at p99 and 28 ms at most instead of 17 to 20 and 319.
type bell struct {
	inside  int      // the loop's end
	outside *os.File // a byte into it makes the inside readable
}

func newBell() (bell, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return bell{}, fmt.Errorf("make a bell: %w", os.NewSyscallError("socketpair", err))
	}
	return bell{fds[0], os.NewFile(uintptr(fds[1]), "bell")}, nil
}

// sound fails only when the loop has ended meanwhile.
func (b bell) sound() { _, _ = b.outside.Write(chime) }

var chime = []byte{1}

func (b bell) close() error {
	return errors.Join(os.NewSyscallError("close", unix.Close(b.inside)), b.outside.Close())
}

// has reports whether fd is one of the bells.
func (in *inbox) has(fd int) bool { return in.bells[0].inside == fd || in.bells[1].inside == fd }

// put hands over what a batch holds for the loop.
func (in *inbox) put(loop int, d *delivery) {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return
	}
	before := len(in.parcels)
	in.parcels = d.appendFor(loop, in.parcels)
	ring := len(in.parcels) > before && !in.rung
	in.rung = in.rung || ring
	bell := in.bells[in.bell]
	in.mu.Unlock()
	if ring {
		bell.sound()
	}
}

// call has f run on the loop.
func (in *inbox) call(f func()) {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return
	}
	in.calls = append(in.calls, f)
	ring := !in.rung
	in.rung = true
	bell := in.bells[in.bell]
	in.mu.Unlock()
	if ring {
		bell.sound()
	}
}

// ring wakes the loop though nothing was put.
func (in *inbox) ring() {
	in.mu.Lock()
	ring := !in.rung && !in.closed
	in.rung = in.rung || ring
	bell := in.bells[in.bell]
	in.mu.Unlock()
	if ring {
		bell.sound()
	}
}

// take hands over the calls, and the parcels if the loop has none left; it takes the slices that they came in
// last time.
func (in *inbox) take(parcels []parcel, more bool, calls []func()) ([]parcel, []func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.rung, in.bell = false, 1-in.bell
	if !more {
		in.parcels, parcels = parcels[:0], in.parcels
	}
	in.calls, calls = calls[:0], in.calls
	return parcels, calls
}

func (in *inbox) close() error {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	return errors.Join(in.bells[0].close(), in.bells[1].close())
}
