package engine

import (
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"tote/server/market"
)

// inbox is how others reach a loop: they put parcels and calls into it, and ring once when it was silent. It
// grows as the market answers, and the market's own inboxes bound what there is to answer.
type inbox struct {
	bells [2]*net.UnixConn // a byte into one makes the loop's end readable

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
// newBell makes a pair of sockets. The bell is a socket and no task of gnet's, because tasks are run before the
// loop reads again, however many there are, while a socket is served in the order in which epoll saw it: a loop
// that rings its own bell to go on later lets all readable sockets go first. It costs a write and a read of one
// byte, and no allocation. Measured with broadcasts to 10,000 on two busy cores, against a goroutine that calls
// Execute after each slice: 1.05 to 1.07 times the CPU of bare writes instead of 1.10 to 1.13, and a request
// waits 5 ms at p99 and 28 ms at most instead of 17 to 20 and 319.
func newBell() (inside, outside *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a bell: %w", err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "bell")
		c, err := net.FileConn(file) // a copy
		if err != nil {
			return nil, nil, fmt.Errorf("make a bell: %w", err)
		}
		if err := file.Close(); err != nil {
			return nil, nil, fmt.Errorf("make a bell: %w", err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1], nil
}

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
		sound(bell)
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
		sound(bell)
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
		sound(bell)
	}
}

var chime = []byte{1}

// sound fails only when the loop has ended meanwhile.
func sound(bell *net.UnixConn) { _, _ = bell.Write(chime) }

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

func (in *inbox) close() {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	for _, bell := range in.bells {
		if bell != nil {
			_ = bell.Close()
		}
	}
}
