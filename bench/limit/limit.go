// Package limit measures what this machine's kernel allows, so that a server's numbers can be read as multiples of it.
//
// `server bench limit` prints it, and every run of bench measures it anew beside its own numbers: on a shared or throttled machine a limit
// of yesterday says nothing. It uses the kernel and the codec directly; no server takes part.
//
//	writers ──write──▶ N loopback connections ──epoll, read──▶ readers        one thread, CPU time of each half
package limit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"text/tabwriter"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tote/server/proto"
)

// Cost is what one operation takes of one core.
type Cost struct {
	CPU   float64 `json:"cpu_us"` // µs of CPU, user and system, the softirq that the operation sets off included
	Wall  float64 `json:"wall_us"`
	Count int     `json:"count"` // operations measured
}

// Limits are the machine's.
type Limits struct {
	Sockets int     `json:"sockets"` // that were written to in turn
	Bytes   int     `json:"bytes"`   // of each message
	Write   Cost    `json:"write"`   // a write to one of the sockets
	Read    Cost    `json:"read"`    // epoll and read of one message
	Sync    Cost    `json:"sync"`    // an append of one message to a file, synced
	Encode  Cost    `json:"encode"`  // a receipt, as JSON
	Decode  Cost    `json:"decode"`  // a stake, from JSON
	Spread  float64 `json:"spread"`  // of Write between rounds: (most − least) / mean; much of it says that others are at work here
}

// Config says what to measure. The zero value of a field is its default.
type Config struct {
	Sockets int           // 1,000, or what the descriptors allow
	Bytes   int           // 200: odds of three outcomes
	Time    time.Duration // for each of the measurements, 400 ms
	Dir     string        // where the file for Sync is made; the system's temporary directory, which may be no disk
}

// descriptorsKept is room for whoever runs this.
const descriptorsKept = 128

// Measure takes about four times Config.Time.
func Measure(ctx context.Context, c Config) (*Limits, error) {
	if c.Sockets == 0 {
		c.Sockets = 1000
	}
	if c.Bytes == 0 {
		c.Bytes = 200
	}
	if c.Time == 0 {
		c.Time = 400 * time.Millisecond
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("read the limit of descriptors: %w", err)
	}
	c.Sockets = max(1, min(c.Sockets, (int(min(limit.Cur, 1<<30))-descriptorsKept)/2))
	// The CPU time is this thread's; nothing else may run on it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l := &Limits{Sockets: c.Sockets, Bytes: c.Bytes}
	if err := l.sockets(ctx, &c); err != nil {
		return nil, err
	}
	if err := l.file(ctx, &c); err != nil {
		return nil, err
	}
	l.codec(&c)
	return l, nil
}

// meter is a clock of this thread.
type meter struct{ cpu, wall time.Duration }

func now() meter {
	var used unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_THREAD, &used)
	if err != nil {
		panic("limit: a thread knows its own use")
	}
	return meter{
		cpu:  time.Duration(used.Utime.Nano() + used.Stime.Nano()),
		wall: time.Duration(time.Now().UnixNano()),
	}
}

// add counts operations since from.
func (c *Cost) add(from meter, operations int) {
	to := now()
	c.CPU += float64(to.cpu-from.cpu) / 1e3
	c.Wall += float64(to.wall-from.wall) / 1e3
	c.Count += operations
}

// mean turns sums into means.
func (c *Cost) mean() {
	if c.Count > 0 {
		c.CPU /= float64(c.Count)
		c.Wall /= float64(c.Count)
	}
}

// sockets writes one message to each socket in turn, then reads them all, again and again.
func (l *Limits) sockets(ctx context.Context, c *Config) (err error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create an epoll: %w", err)
	}
	defer unix.Close(poll)
	writers, readers, err := connections(c.Sockets)
	defer func() {
		for _, fd := range append(writers, readers...) {
			unix.Close(fd)
		}
	}()
	if err != nil {
		return err
	}
	for i, fd := range readers {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return fmt.Errorf("watch a socket: %w", err)
		}
	}
	message, in := make([]byte, c.Bytes), make([]byte, 64<<10)
	events := make([]unix.EpollEvent, 128)
	var rounds []float64
	for end := time.Now().Add(2 * c.Time); time.Now().Before(end) && ctx.Err() == nil; {
		var round Cost
		from := now()
		for _, fd := range writers {
			if err := write(fd, message); err != nil {
				return fmt.Errorf("write to a socket: %w", err)
			}
		}
		round.add(from, len(writers))
		l.Write.CPU, l.Write.Wall, l.Write.Count = l.Write.CPU+round.CPU, l.Write.Wall+round.Wall, l.Write.Count+round.Count
		rounds = append(rounds, round.CPU/float64(round.Count))

		from = now()
		for left := len(readers) * c.Bytes; left > 0; {
			n, err := unix.EpollWait(poll, events, 1000)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case err != nil || n == 0:
				return fmt.Errorf("%d bytes did not arrive: %w", left, err)
			}
			for _, event := range events[:n] {
				n, err := read(readers[event.Fd], in)
				if err != nil {
					return fmt.Errorf("read from a socket: %w", err)
				}
				left -= n
			}
		}
		l.Read.add(from, len(readers))
	}
	l.Write.mean()
	l.Read.mean()
	l.Spread = spread(rounds)
	return ctx.Err()
}

// connections makes pairs over loopback, since a UNIX pair would not pass through TCP.
func connections(n int) (writers, readers []int, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	defer listener.Close()
	take := func(c net.Conn, into *[]int) error {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		var fd int
		failed := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
		if err = errors.Join(failed, err, c.Close()); err != nil {
			return err
		}
		*into = append(*into, fd)
		return nil
	}
	for range n {
		a, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			return writers, readers, fmt.Errorf("connect pair %d: %w", len(writers)+1, err)
		}
		b, err := listener.Accept()
		if err == nil {
			err = errors.Join(take(a, &writers), take(b, &readers))
		}
		if err != nil {
			return writers, readers, fmt.Errorf("connect pair %d: %w", len(writers)+1, err)
		}
	}
	return writers, readers, nil
}

// write and read are the bare calls: Go's scheduler is not told, since the sockets take and have what is asked.
func write(fd int, b []byte) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b))); errno != 0 {
		return errno
	}
	return nil
}

func read(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// spread is (most − least) / mean.
func spread(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	least, most, sum := values[0], values[0], 0.0
	for _, v := range values {
		least, most, sum = min(least, v), max(most, v), sum+v
	}
	if sum == 0 {
		return 0
	}
	return (most - least) / (sum / float64(len(values)))
}

// file appends to a file and syncs it each time.
func (l *Limits) file(ctx context.Context, c *Config) error {
	f, err := os.CreateTemp(c.Dir, "tote-limit-")
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	record := make([]byte, c.Bytes)
	from := now()
	for end := time.Now().Add(c.Time); time.Now().Before(end) && ctx.Err() == nil; l.Sync.Count++ {
		if _, err := f.Write(record); err != nil {
			return fmt.Errorf("append: %w", err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
	}
	l.Sync.add(from, 0)
	l.Sync.mean()
	return ctx.Err()
}

// codec encodes and decodes what comes most often.
func (l *Limits) codec(c *Config) {
	receipt := &proto.Receipt{ID: 7, T: 1671382803000251, N: 8, Prediction: 90210, Pool: 196609, Amount: 250, Balance: 750,
		Arrived: 1671382803000000, Durability: "always"}
	const batch = 1000
	b := make([]byte, 0, 1024)
	from := now()
	for end := time.Now().Add(c.Time / 2); time.Now().Before(end); l.Encode.Count += batch {
		for range batch {
			b = receipt.AppendJSON(b[:0])
		}
	}
	l.Encode.add(from, 0)
	l.Encode.mean()

	stake := []byte(`{"type":"stake","id":1671382803000251,"pool":196609,"outcome":1,"amount":250}`)
	var r proto.Request
	from = now()
	for end := time.Now().Add(c.Time / 2); time.Now().Before(end); l.Decode.Count += batch {
		for range batch {
			if refusal := r.Parse(stake); refusal != proto.Accepted {
				panic("limit: a stake is a request")
			}
		}
	}
	l.Decode.add(from, 0)
	l.Decode.mean()
}

// WriteText writes the limits for people.
func (l *Limits) WriteText(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "limit\tµs of CPU\tµs\ta second on one core\t")
	for _, row := range []struct {
		name string
		cost Cost
	}{
		{fmt.Sprintf("write of %d bytes to one of %d sockets", l.Bytes, l.Sockets), l.Write},
		{"epoll and read of it", l.Read},
		{"append of it to a file, synced", l.Sync},
		{"encode a receipt", l.Encode},
		{"decode a stake", l.Decode},
	} {
		fmt.Fprintf(t, "%s\t%.3f\t%.3f\t%.0f\t\n", row.name, row.cost.CPU, row.cost.Wall, 1e6/max(row.cost.CPU, 1e-3))
	}
	t.Flush()
	if l.Spread > spreadMax {
		fmt.Fprintf(w, "Rounds of writes differed by %.0f %%: others are at work on this machine, so trust ratios within one run only.\n", 100*l.Spread)
	}
}

// spreadMax is what rounds differ by on a machine of one's own.
const spreadMax = 0.5
