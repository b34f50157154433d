package engine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tote/server/market"
	"tote/server/proto"
)

// receipts answers stakes from a batch that is made once, as a shard reuses its own.
type receipts struct {
	*testMarket
	batch market.Batch
}

func (m *receipts) Submit(c *market.Command) bool {
	if c.Kind != market.Stake {
		return m.testMarket.Submit(c)
	}
	m.batch.Outs[0].To = c.From
	m.engine.Deliver(&m.batch)
	return true
}

func serveReceipts(t testing.TB) (*Engine, *receipts) {
	t.Helper()
	e, m := serve(t, Config{Loops: 1, Limits: Limits{Requests: 1 << 30, Frames: 1 << 30}})
	r := &receipts{testMarket: m, batch: market.Batch{Outs: []market.Out{{Kind: market.OutReceipt, Receipt: proto.Receipt{
		ID: 1671382803000250, T: 1671382803000250, N: 1, Prediction: 90210, Pool: 196609, Amount: 250, Balance: 99750, Arrived: 1671382803000110, Durability: "always",
	}}}}}
	e.market = r
	return e, r
}

const stakeText = `{"type":"stake","id":1671382803000250,"pool":196609,"outcome":0,"amount":250}`

var stakeFrame = text(stakeText)

// What a stake costs in engine and codec, without the kernel: frame → command → receipt → bytes.
func BenchmarkRequest(b *testing.B) {
	e, m := serveReceipts(b)
	greeted(b, e, 12)
	b.ReportAllocs()
	onLoop(e, 0, func(l *loop) {
		s := l.find(m.last[12])
		frame, parcels := make([]byte, len(stakeFrame)), make([]parcel, 0, 64)
		for b.Loop() {
			copy(frame, stakeFrame)
			l.frames(s, frame)
			l.inbox.mu.Lock()
			l.inbox.parcels, parcels = parcels[:0], l.inbox.parcels
			l.inbox.mu.Unlock()
			for i := range parcels {
				l.answer(l.find(parcels[i].out.To), &parcels[i].out)
			}
			s.pending.Reset()
		}
	})
}

// crowdEnv makes the test binary a crowd of clients, or those of it from one on: "address token number first games from". Without a token, "-",
// they shake hands and no more.
const crowdEnv = "TOTE_ENGINE_CROWD"

// crowd is many clients, in a process of their own or several. They have joined game 3, or one of several games in turns, and count what
// they get.
type crowd struct {
	t     testing.TB
	parts []crowdPart
	leave func()
}

// crowdPart is what one process has of a crowd.
type crowdPart struct {
	helper
	lines   *bufio.Scanner
	clients int
}

// crowdMost is how many of a crowd are in one process of another machine: there it may have fewer descriptors than here.
const crowdMost = 17_000

func newCrowd(t testing.TB, e *Engine, n int) *crowd {
	t.Helper()
	return crowdAt(t, e.Addr(), e.Token(12), n, 3, 1)
}

func crowdAt(t testing.TB, address net.Addr, token string, n, first, games int) *crowd {
	t.Helper()
	c := &crowd{t: t}
	each := n
	if agency != "" {
		each = crowdMost
	}
	for from := 0; from < n; from += each {
		part := crowdPart{clients: min(each, n-from)}
		part.helper = help(t, crowdEnv, fmt.Sprintf("%s %s %d %d %d %d", address, token, part.clients, first, games, from))
		part.lines = bufio.NewScanner(part.out)
		c.parts = append(c.parts, part)
	}
	c.leave = sync.OnceFunc(func() {
		for _, part := range c.parts {
			if err := errors.Join(part.in.Close(), part.wait()); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(c.leave)
	c.answered() // all are in
	return c
}

func (c *crowd) answered() {
	for _, part := range c.parts {
		if !part.lines.Scan() {
			c.t.Fatal("the crowd has gone")
		}
	}
}

// await waits until each of the crowd has got n bytes since everybody was in.
func (c *crowd) await(n int) {
	for _, part := range c.parts {
		fmt.Fprintln(part.in, n*part.clients)
	}
	c.answered()
}

// beCrowd is the crowd's process.
func beCrowd(order string) error {
	words := strings.Fields(order)
	var n, first, games, from int
	if _, err := fmt.Sscan(strings.Join(words[2:], " "), &n, &first, &games, &from); err != nil {
		return err
	}
	d := &intake{enough: make(chan struct{}, 1)}
	conns := make(chan net.Conn, n)
	failed := make(chan error, n)
	var entering sync.WaitGroup
	for door := range 16 {
		entering.Go(func() {
			for i := from + door; i < from+n; i += 16 {
				conn, err := enter(i, words[0], words[1], first+i%games)
				if err != nil {
					failed <- err
					return
				}
				conns <- conn
			}
		})
	}
	entering.Wait()
	if len(failed) > 0 {
		return <-failed
	}
	readers, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	for range n {
		if err := watch(readers, <-conns); err != nil {
			return err
		}
	}
	go drink(readers, d)
	fmt.Println("in")
	wants := make(chan int64)
	go func() { // so that the end of the input is the end, also while waiting
		defer os.Exit(0)
		for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
			want, err := strconv.ParseInt(orders.Text(), 10, 64)
			if err != nil {
				return
			}
			wants <- want
		}
	}()
	for want := range wants {
		d.want.Store(want)
		d.check()
		<-d.enough
		fmt.Println("got")
	}
	return nil
}

// intake is what a crowd has got.
type intake struct {
	got, want atomic.Int64  // bytes; want is 0 where nobody waits
	enough    chan struct{} // there is as much as was wanted
}

// check tells whoever waits, once. Who waits sleeps until then: a look now and then would take a processor from server and readers.
func (d *intake) check() {
	if want := d.want.Load(); want > 0 && d.got.Load() >= want && d.want.CompareAndSwap(want, 0) {
		d.enough <- struct{}{}
	}
}

// watch lets a connection wake drink. It is never closed: the process ends first.
func watch(readers int, conn net.Conn) error {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	watched := raw.Control(func(fd uintptr) {
		err = unix.EpollCtl(readers, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)})
	})
	crowded = append(crowded, conn)
	return errors.Join(watched, err)
}

// crowded keeps the crowd's connections from the collector, which would close them.
var crowded []net.Conn

// drink reads what comes, and counts it: without a goroutine for each of a hundred thousand.
func drink(readers int, d *intake) {
	events, buffer := make([]unix.EpollEvent, 512), make([]byte, 2048)
	for {
		n, err := unix.EpollWait(readers, events, -1)
		if err != nil && err != unix.EINTR {
			panic(err)
		}
		for _, e := range events[:max(n, 0)] {
			for more := true; more; {
				n, err := unix.Read(int(e.Fd), buffer)
				d.got.Add(int64(max(n, 0)))
				more = n == len(buffer) || err == unix.EINTR
			}
		}
		d.check()
	}
}

// crowdPerAddress is how many of a crowd come from one address: each needs a port of its own there.
const crowdPerAddress = 20_000

// lateports lets connect choose the port, which then need be free only towards the server, and not bind.
func lateports(_, _ string, raw syscall.RawConn) error {
	var err error
	controlled := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(controlled, err)
}

// enter connects the ith of the crowd and returns when it is in the game. Before an address with TLS stands its version.
func enter(i int, address, token string, game int) (net.Conn, error) {
	version, after, secured := strings.Cut(address, "/")
	if secured {
		address = after
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	network := to.Addr().As4()
	from := net.IPv4(network[0], network[1], 0, byte(1+i/crowdPerAddress)) // 127.0.0.1, and on
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Control: lateports}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	said := []byte(upgradeRequest)
	if token != "-" {
		said = append(said, text(fmt.Sprintf(`{"type":"hello","id":1,"token":%q}`, token))...)
		said = append(said, text(fmt.Sprintf(`{"type":"join","id":2,"game":%d}`, game))...)
	}
	var over io.ReadWriter = conn
	if secured {
		if over, err = shakeHands(conn, version); err != nil {
			return nil, err
		}
	}
	if _, err := over.Write(said); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(over, 512)
	for line := ""; line != "\r\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			return nil, err
		}
	}
	if token == "-" {
		return conn, nil
	}
	for range 2 { // welcome, joined
		if _, err := readFrame(r); err != nil {
			return nil, err
		}
	}
	return conn, nil
}

// cpu is the time that this process has had of all processors.
func cpu(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// clientsEnv asks for so many clients, as in the guest of bench/scale.
const clientsEnv = "TOTE_ENGINE_CLIENTS"

// asked is how many clients are asked for, if it is said.
func asked(b *testing.B) (n int, said bool) {
	b.Helper()
	words := os.Getenv(clientsEnv)
	if words == "" {
		return 0, false
	}
	n, err := strconv.Atoi(words)
	if err != nil {
		b.Fatal(err)
	}
	return n, true
}

// clients is how many are asked for, or how many a process may hold here: 10,000, or 5,000.
func clients(b *testing.B) int {
	b.Helper()
	if n, said := asked(b); said {
		return n
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	if limit.Cur < 10_500 {
		return 5_000
	}
	return 10_000
}

// clientsMost is as many as fit: 19,000, where there are 20,000 descriptors.
func clientsMost(b *testing.B) int {
	b.Helper()
	if n, said := asked(b); said {
		return n
	}
	return connectionsMax() / 1000 * 1000
}

// threeOdds is a distribution of a pool with three outcomes.
var threeOdds = &proto.Odds{
	T: 1671382803000250, Game: 3, Seq: 2, Pool: 196609, Counts: 90210,
	Odds: []proto.Odd{{Staked: 750, Backers: 3, Multiplier: 1933}, {Staked: 1200, Backers: 7, Multiplier: 2417}, {Staked: 50, Backers: 1, Multiplier: 9000}},
}

// What a connection costs that has said hello and joined a game, and is quiet.
func BenchmarkIdle(b *testing.B) {
	n := clientsMost(b)
	e, m := serve(b, Config{Loops: 1, Limits: Limits{IdleTime: time.Hour, Heartbeat: time.Hour}}) // the crowd answers no pings
	m.announce(3)
	for range b.N {
		before, rss := heap(), resident(b)
		c := newCrowd(b, e, n)
		m.forget()
		b.ReportMetric(float64(heap()-before)/float64(n), "heap-B/conn")
		b.ReportMetric(float64(resident(b)-rss)/float64(n), "rss-B/conn")
		c.leave()
		eventually(b, "all have left", func() bool { return e.door.inside() == 0 })
	}
}

func heap() int64 {
	runtime.GC()
	debug.FreeOSMemory()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc + s.StackInuse)
}

// resident is the process's memory.
func resident(t testing.TB) int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// forget drops what the test's market keeps of each session.
func (m *testMarket) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commands, m.attached, m.last = nil, map[market.Session]proto.AccountID{}, map[proto.AccountID]market.Session{}
}

// What compression costs: a distribution once for all, an image for each who asks, a request of a client who
// compresses.
func BenchmarkDeflate(b *testing.B) {
	image := &proto.Joined{ID: 3, T: 1671382802000000, Seq: 41, Game: proto.Game{Game: 3, Name: "Argentina v France", State: proto.GameLive, Teams: [2]string{"Argentina", "France"}}}
	for i := range 60 {
		image.Pools = append(image.Pools, proto.Pool{
			Pool: proto.NewPoolID(3, uint32(i)), Question: fmt.Sprintf("Which team scores goal number %d?", i), Labels: []string{"Argentina", "France", "No more goals"},
			Odds: []proto.Odd{{Staked: 750 + 13*proto.Amount(i), Backers: 3, Multiplier: 1933}, {Staked: 1200, Backers: 7, Multiplier: 2417}, {Staked: 50, Backers: 1, Multiplier: 9000}},
		})
	}
	for _, row := range []struct {
		name  string
		frame []byte
	}{{"distribution", appendMessage(nil, proto.JSON, threeOdds)}, {"image", appendMessage(nil, proto.JSON, image)}} {
		b.Run(row.name, func(b *testing.B) {
			d, out := newDeflater(deflateLevel), []byte(nil)
			for b.Loop() {
				out = d.appendFrame(out[:0], row.frame)
			}
			b.ReportMetric(float64(len(row.frame)), "B-plain")
			b.ReportMetric(float64(len(out)), "B-deflated")
		})
	}
	b.Run("request", func(b *testing.B) {
		var f inflater
		message := []byte(deflate(stakeText))
		for b.Loop() {
			if _, code := f.inflate(message, 1<<14); code != 0 {
				b.Fatal(code)
			}
		}
	})
}
