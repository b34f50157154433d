package engine

import (
	"fmt"
	"syscall"
	"time"

	"tote/server/market"
)

// Limits bound what a client may cost. A limit of 0 is its default.
type Limits struct {
	MessageBytes    int           // of one message of a client; longer ones close with 1009. 16 KiB
	HandshakeBytes  int           // of an HTTP request head; longer ones are answered 431. 8 KiB
	HelloTime       time.Duration // from accept until hello, handshake included. 10 s
	IdleTime        time.Duration // without a byte from the client, who is pinged at half of it. 90 s
	CloseTime       time.Duration // from the close frame until the socket is cut. 5 s
	DrainTime       time.Duration // from when the last client is told to come back until whoever is left is cut. 10 s
	Connections     int           // in all. What RLIMIT_NOFILE leaves after descriptorsKept
	PerAddress      int           // from one IPv4 address or IPv6 /64. 1,024, but for loopback, where proxies live: no limit
	Heartbeat       time.Duration // of silence in a game, at most; a client may ask for as little as a fifth of it. 5 s
	Presence        time.Duration // between two looks at who is in a small room, and so between two presence_changed. 3 s
	StaleTime       time.Duration // without a sign of life from a game's shard, until its heartbeats say stale. 3 s: three beats of a shard
	LaneBytes       int           // private bytes that the kernel has not taken; beyond it, 4000. 256 KiB
	Joins           int           // games that a connection is in. 16
	Malformed       int           // malformed requests until 1008. 16
	Requests        int           // of one connection within a second; the rest is told "busy". 1,000
	AccountHellos   int           // hellos of an account within a second; the rest is told "requests_fast". 32
	AccountRequests int           // of all connections of an account within a second; the rest is told "requests_fast". 2,000
	AccountBytes    int           // of these; beyond it, 1008. 2 MiB
	AddressRequests int           // from one address, as PerAddress counts, within a second; the rest is told "requests_fast". 20,000, but for loopback: no limit
	AddressBytes    int           // of these; beyond it, 1008. 8 MiB, but for loopback: no limit
	AllRequests     int           // in all within a second; the rest is told "busy". No limit
	AllBytes        int           // of these; beyond it, 1013. No limit
	Frames          int           // of one connection within a second, of all kinds; beyond it, 1008. 4,000
	MessageTime     time.Duration // from the first byte of a frame or fragmented message until its last; then 1008. 15 s
	ConnectRate     int           // connections from one address within a second, as PerAddress counts. 256
	Handshakes      int           // connections in all within a second; the rest is answered 503. No limit
	Admissions      int           // connections in all that are let in within a second; the rest waits to be accepted. 2,000 for each loop
	DeflateMin      int           // bytes of a private frame, for compression to be worth the time. 1 KiB
	DeflateRate     int           // private bytes that a loop compresses in a second; the rest goes as it is. 8 MiB
}

const (
	// tick is the grain of all timers: a limit is kept to a tick, which no client notices, and a loop with
	// nothing to do wakes ten times a second.
	tick = 100 * time.Millisecond

	// sliceMax is the number of subscribers written to before a loop reads again: 64 writes are about 0.4 ms,
	// so requests wait 1.4/3.2 ms (p50/p99) in a guest, during broadcasts to 50,000, and not a second.
	sliceMax = 64

	// sliceCalm is the same while nobody asks for anything: a millisecond. Each end of a slice costs a bell and a look at epoll; with 192 a
	// loop is away from its sockets for more than 2 ms.
	sliceCalm = 128

	// parcelsMax is the number of parcels of the inbox handled before a loop reads again: each may cost a write.
	parcelsMax = 256

	// parcelsKept is the length up to which the slice that they came in is kept: a settlement's payouts may come in
	// a much longer one.
	parcelsKept = 1 << 12

	// partingMax is the number of close frames sent before a loop reads again, when the engine drains.
	partingMax = 256

	// sendBuffer is SO_SNDBUF, which the kernel doubles; notSentLow is TCP_NOTSENT_LOWAT. With the kernel's
	// defaults a client that never reads hides 843 kB there while we believe all is sent.
	sendBuffer = 16 << 10
	notSentLow = 4 << 10

	// pageBuffer is SO_SNDBUF for a page, which is read at once and whole; pageTime is how long that may take:
	// 1 MB at 35 kB/s. The session keeps the rest meanwhile.
	pageBuffer = 256 << 10
	pageTime   = 30 * time.Second

	// readBuffer is of each loop: what one read may take.
	readBuffer = 64 << 10

	// acceptMax is the number of newcomers accepted before a loop reads again.
	acceptMax = 16

	loopsMax = 256

	// descriptorsKept are for the journal, snapshots, the admin listener and the loops themselves.
	descriptorsKept = 256

	// secretMin is the shortest key for HS256 that is no joke.
	secretMin = 16
)

const _ = uint(market.SessionLoops - loopsMax) // every loop has a number in a Session; DeskLoop is none of them

// Limits that are not given. Connections depends on the process.
var defaults = Limits{
	MessageBytes:    16 << 10,
	HandshakeBytes:  8 << 10,
	HelloTime:       10 * time.Second,
	IdleTime:        90 * time.Second,
	CloseTime:       5 * time.Second,
	DrainTime:       10 * time.Second,
	PerAddress:      1024,
	Heartbeat:       5 * time.Second,
	Presence:        3 * time.Second,
	StaleTime:       3 * time.Second,
	LaneBytes:       256 << 10,
	Joins:           16,
	Malformed:       16,
	Requests:        1000,
	AccountHellos:   32,
	AccountRequests: 2000,
	AccountBytes:    2 << 20,
	AddressRequests: 20_000,
	AddressBytes:    8 << 20,
	Frames:          4000,
	MessageTime:     15 * time.Second,
	ConnectRate:     256,
	DeflateMin:      1 << 10,
	DeflateRate:     8 << 20, // of the 80 to 150 MB/s that a core can
}

// filled returns l with its defaults in place.
func (l Limits) filled() (Limits, error) {
	if at := min(l.PerAddress, l.ConnectRate, l.Handshakes, l.Admissions, l.AccountHellos, l.AccountRequests, l.AccountBytes, l.AddressRequests, l.AddressBytes, l.AllRequests, l.AllBytes); at < 0 { // 0 is told apart by door and allowances
		return l, fmt.Errorf("a limit is %d, below 0", at)
	}
	for _, field := range []struct {
		value    *int
		standard int
	}{
		{&l.MessageBytes, defaults.MessageBytes}, {&l.HandshakeBytes, defaults.HandshakeBytes},
		{&l.LaneBytes, defaults.LaneBytes}, {&l.Joins, defaults.Joins},
		{&l.Malformed, defaults.Malformed}, {&l.Requests, defaults.Requests}, {&l.Connections, connectionsMax()},
		{&l.Frames, defaults.Frames}, {&l.DeflateMin, defaults.DeflateMin}, {&l.DeflateRate, defaults.DeflateRate},
	} {
		if *field.value == 0 {
			*field.value = field.standard
		}
		if *field.value < 0 {
			return l, fmt.Errorf("a limit is %d, below 0", *field.value)
		}
	}
	for _, field := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&l.HelloTime, defaults.HelloTime}, {&l.IdleTime, defaults.IdleTime},
		{&l.CloseTime, defaults.CloseTime}, {&l.DrainTime, defaults.DrainTime},
		{&l.Heartbeat, defaults.Heartbeat}, {&l.Presence, defaults.Presence}, {&l.StaleTime, defaults.StaleTime}, {&l.MessageTime, defaults.MessageTime},
	} {
		if *field.value == 0 {
			*field.value = field.standard
		}
		if *field.value < 0 {
			return l, fmt.Errorf("a limit is %v, below 0", *field.value)
		}
	}
	return l, nil
}

// descriptorsMax is what the process may open, even if its limit is raised to the utmost.
func descriptorsMax() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1 << 20
	}
	return int(min(limit.Max, market.SessionSlots+descriptorsKept)) // no loop has more sessions
}

// connectionsMax leaves descriptors to the rest of the process.
func connectionsMax() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return defaults.PerAddress
	}
	descriptors := int(min(limit.Cur, market.SessionSlots))
	return max(descriptors-descriptorsKept, descriptors/2)
}

// ticks is d in ticks, rounded up, so that a limit is never cut short.
func ticks(d time.Duration) uint32 { return uint32((d+tick-1)/tick) + 1 }
