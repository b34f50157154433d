package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"tote/server/market"
	"tote/server/proto"
)

// ways are the ways to broadcast that can be had here. Where io_uring is refused, the rest of the tests is about
// the fallback.
func ways() []string {
	r, err := newRing(1)
	if err != nil {
		return []string{BroadcastWrite, BroadcastAuto}
	}
	_ = r.close()
	return []string{BroadcastWrite, BroadcastAuto, BroadcastRing}
}

// pair is two ends of a stream whose buffers are small.
func pair(t *testing.T) (ours, theirs int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fds[0]); _ = unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func readAll(t *testing.T, fd int) (all []byte) {
	t.Helper()
	buffer := make([]byte, 1<<16)
	for {
		n, err := unix.Read(fd, buffer)
		if n <= 0 {
			if err != unix.EAGAIN {
				t.Fatalf("read: %d, %v", n, err)
			}
			return all
		}
		all = append(all, buffer[:n]...)
	}
}

// Each send of a batch says what its own socket took: all, a part, nothing because it is full, or an error; and
// those behind it are done.
func TestRingOutcomes(t *testing.T) {
	r, err := newRing(8)
	if err != nil {
		testRefusal(t, err)
		return
	}
	defer r.close()
	good, goodEnd := pair(t)
	short, shortEnd := pair(t)
	full, _ := pair(t)
	for rawWrite(full, make([]byte, 1024)) > 0 {
	}
	broken, brokenEnd := pair(t)
	_ = unix.Close(brokenEnd)
	long := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	sends := []struct {
		name  string
		fd    int
		bytes []byte
	}{{"short", short, long}, {"full", full, []byte("x")}, {"broken", broken, []byte("x")}, {"closed", -1, []byte("x")}, {"good", good, []byte("good")}, {"empty", good, nil}}
	for _, s := range sends {
		r.add(s.fd, s.bytes)
	}
	took, err := r.send()
	if err != nil || len(took) != len(sends) {
		t.Fatalf("sent %v, %v", took, err)
	}
	for i, want := range []int32{0, -int32(unix.EAGAIN), -int32(unix.EPIPE), -int32(unix.EBADF), 4, 0} {
		if i > 0 && took[i] != want {
			t.Errorf("%s: took %d, want %d", sends[i].name, took[i], want)
		}
	}
	if n := int(took[0]); n <= 0 || n >= len(long) || !bytes.Equal(readAll(t, shortEnd), long[:n]) {
		t.Errorf("a socket with a small buffer took %d of %d bytes", n, len(long))
	}
	if got := readAll(t, goodEnd); string(got) != "good" {
		t.Errorf("%q arrived", got)
	}
}

// The ring goes round, in batches of every size up to its own, and its numbers wrap.
func TestRingGoesRound(t *testing.T) {
	r, err := newRing(8)
	if err != nil {
		testRefusal(t, err)
		return
	}
	defer r.close()
	if r.full() {
		t.Fatal("a new ring is full")
	}
	fd, end := pair(t)
	var want []byte
	for batch := range 1000 {
		n := 1 + batch%8
		for i := range n {
			p := fmt.Appendf(nil, "%d.%d ", batch, i)
			want = append(want, p...)
			r.add(fd, p)
		}
		if r.full() != (n == 8) {
			t.Fatalf("with %d sends of 8 full is %v", n, r.full())
		}
		took, err := r.send()
		if err != nil || len(took) != n {
			t.Fatalf("sent %v, %v", took, err)
		}
		if got := readAll(t, end); !bytes.Equal(got, want) {
			t.Fatalf("%q arrived, want %q", got, want)
		}
		want = want[:0]
	}
}

// When the kernel takes no more, what was not sent is said to be so, and the ring can be closed: here its
// descriptor is another one.
func TestRingDies(t *testing.T) {
	r, err := newRing(8)
	if err != nil {
		testRefusal(t, err)
		return
	}
	fd, end := pair(t)
	if err := unix.Dup3(fd, r.fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r.add(fd, []byte("a"))
	r.add(fd, []byte("b"))
	took, err := r.send()
	if err == nil || len(took) != 2 || took[0] != 0 || took[1] != 0 {
		t.Errorf("sent %v, %v", took, err)
	}
	if got := readAll(t, end); len(got) != 0 {
		t.Errorf("%q arrived", got)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

// A loop whose ring dies in the middle of a broadcast goes on by writing, and nobody misses anything.
func TestRingDiesUnderway(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	m.announce(3)
	var all []*client
	for i := range 20 {
		all = append(all, joined(t, e, proto.AccountID(100+i), 3))
	}
	onLoop(e, 0, func(l *loop) {
		if l.ring != nil {
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Error(err)
				return
			}
			defer null.Close()
			if err := unix.Dup3(int(null.Fd()), l.ring.fd, unix.O_CLOEXEC); err != nil {
				t.Error(err)
			}
		}
		l.cast((&delivery{}).broadcast(e, []market.Out{{Game: 3, Message: &proto.Happened{T: 7, Game: 3, Seq: 2}}}))
	})
	m.seq[3]++
	m.odds(3, 1)
	for _, c := range all {
		c.expect("event", 0)
		c.expect("odds", 0)
	}
	onLoop(e, 0, func(l *loop) {
		if l.ring != nil {
			t.Error("the dead ring is in use")
		}
	})
}

// One slice is one system call.
func TestOneEnterPerSlice(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	m.announce(3)
	var all []*client
	for i := range 50 {
		all = append(all, joined(t, e, proto.AccountID(100+i), 3))
	}
	var before, after Counts
	onLoop(e, 0, func(l *loop) { before = l.counts.Counts })
	m.odds(3, 1)
	for _, c := range all {
		c.expect("odds", 0)
	}
	onLoop(e, 0, func(l *loop) {
		after = l.counts.Counts
		want := uint64(1)
		if l.ring == nil {
			want = 0
		}
		if n := after.Enters - before.Enters; n != want || after.Writes-before.Writes != 50 || after.Delivered-before.Delivered != 50 {
			t.Errorf("%d enters, %d writes, %d delivered", n, after.Writes-before.Writes, after.Delivered-before.Delivered)
		}
	})
}

// What one turn says to several is one system call: receipts, and last words, behind which the socket is shut.
func TestOneEnterPerTurn(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	var all []*client
	for i := range 40 {
		all = append(all, greeted(t, e, proto.AccountID(100+i)))
	}
	var before, after Counts
	onLoop(e, 0, func(l *loop) {
		before = l.counts.Counts
		for i := range all {
			s := l.find(m.last[proto.AccountID(100+i)])
			l.refuse(s, 7, proto.RefusedPoolLocked)
			if i%4 == 0 {
				l.close(s, proto.CloseSlow)
			}
		}
	})
	onLoop(e, 0, func(l *loop) { after = l.counts.Counts })
	for i, c := range all {
		c.expectRefused(7, proto.RefusedPoolLocked)
		if i%4 == 0 {
			c.expectClose(proto.CloseSlow)
		}
	}
	onLoop(e, 0, func(l *loop) {
		want := uint64(1)
		if l.ring == nil {
			want = 0
		}
		if n := after.Enters - before.Enters; n != want || after.Writes-before.Writes != 40 {
			t.Errorf("%d enters, %d writes", n, after.Writes-before.Writes)
		}
		if len(l.posted) > 0 {
			t.Errorf("%d sends are posted still", len(l.posted))
		}
	})
}

// However broadcasts are sent, the same conversation is the same bytes: thousands join and leave at any moment,
// some are reset by their clients in the middle of a slice, and some do not read. Of those who do not, what the
// kernel takes differs from run to run; theirs must hold together.
func TestSameBytes(t *testing.T) {
	const people = 2000
	for seed := range uint64(2) {
		told := map[string][][]byte{}
		for _, way := range ways() {
			told[way] = converse(t, way, seed, people)
		}
		for way, all := range told {
			for i := range all {
				if want := told[BroadcastWrite][i]; !bytes.Equal(all[i], want) {
					at := 0
					for at < min(len(all[i]), len(want)) && all[i][at] == want[at] {
						at++
					}
					t.Fatalf("seed %d, client %d hears from byte %d on with %s\n%q\nand with write\n%q", seed, i, at, way, all[i][at:], want[at:])
				}
			}
		}
	}
}

// What becomes of a client in converse.
const (
	reads = iota
	dies  // resets its connection in the middle
	slacks
)

func fate(i int) int {
	switch i % 16 {
	case 5:
		return dies
	case 11:
		return slacks
	}
	return reads
}

// converse plays what the seed says and returns what each client heard; nothing for those who did not read all along.
func converse(t *testing.T, way string, seed uint64, people int) [][]byte {
	t.Helper()
	const games, steps = 4, 600 // of the last one there are only odds: it is for those who slack
	e, m := serve(t, Config{Loops: 1, Broadcast: way, Now: func() proto.Time { return 7 }, Limits: Limits{CloseTime: patience}})
	m.announce(1, 2, 3, 4)
	clients := make([]*client, people)
	for i := range clients {
		if fate(i) == slacks {
			clients[i] = slow(t, e, proto.AccountID(200+i), games)
			continue
		}
		clients[i] = greeted(t, e, proto.AccountID(200+i))
	}
	heard := make([]chan []byte, people)
	listen := func(i int) {
		heard[i] = make(chan []byte, 1)
		go func() {
			b, _ := io.ReadAll(clients[i].r) // until the end
			clients[i].conn.Close()
			heard[i] <- b
		}()
	}
	for i := range clients {
		if fate(i) == reads {
			listen(i)
		}
	}
	seq := [games + 1]uint64{0, 1, 1, 1, 1}
	random := rand.New(rand.NewPCG(seed, 1))
	onLoop(e, 0, func(l *loop) {
		if way == BroadcastWrite || way == BroadcastAuto && len(ways()) == 2 {
			if l.ring != nil {
				t.Error("there is a ring")
			}
		} else if l.ring == nil {
			t.Error("there is no ring")
		}
		session := func(i int) *session { return l.find(m.last[proto.AccountID(200+i)]) }
		for i := range clients { // many writes in one turn must not fill the buffers of those who read
			if fate(i) == reads {
				fd := session(i).fd()
				if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 1<<20)); err != nil {
					t.Error(err)
				}
			}
		}
		dead := 0
		for range steps {
			g := proto.GameID(1 + random.IntN(games))
			r := l.rooms[g]
			switch random.IntN(7) {
			case 0, 1:
				seq[g]++
				message := proto.Message(&proto.Odds{T: 7, Game: g, Seq: seq[g], Pool: proto.NewPoolID(g, uint32(seq[g]%4))})
				switch {
				case g == games:
					message = bigOdds(g, uint32(seq[g]%4))(seq[g])
				case random.IntN(2) == 0:
					message = &proto.Happened{T: 7, Game: g, Seq: seq[g]}
				}
				l.cast((&delivery{}).broadcast(e, []market.Out{{Game: g, Message: message}}))
			case 2:
				for range people / 20 {
					i := random.IntN(people)
					if s := session(i); s != nil && fate(i) != slacks && g < games {
						l.joined(s, &proto.Joined{ID: 2, T: 7, Seq: seq[g], Game: proto.Game{Game: g}})
					}
				}
			case 3:
				for range people / 100 {
					i := random.IntN(people)
					if s := session(i); s != nil && s.in(r) >= 0 && fate(i) != slacks {
						l.flush()
						if session(i) == s { // flush may have found it dead
							l.unsubscribe(s, s.in(r))
							l.tell(s, &proto.Left{ID: 3, T: 7, Game: g})
						}
					}
				}
			case 4:
				if len(r.queue) > 0 {
					l.slice(r, 1+random.IntN(200))
					if len(r.queue) == 0 {
						l.active = without(l.active, r)
					}
				}
			case 5:
				l.distribute()
			case 6:
				for dead++; dead < people; dead++ {
					if fate(dead) == dies {
						_ = clients[dead].conn.SetLinger(0)
						_ = clients[dead].conn.Close()
						break
					}
				}
			}
			if err := checkLoop(l); err != nil {
				t.Error(err)
				return
			}
		}
		for len(l.active) > 0 {
			l.distribute()
		}
	})
	for i := range clients {
		if fate(i) == slacks {
			listen(i)
		}
	}
	eventually(t, "slackers catch up", func() (all bool) {
		onLoop(e, 0, func(l *loop) { l.catchUpAll(); all = len(l.behind) == 0 })
		return all
	})
	onLoop(e, 0, func(l *loop) {
		for i := range clients {
			if s := l.find(m.last[proto.AccountID(200+i)]); s != nil {
				l.close(s, proto.CloseRestart)
			}
		}
	})
	told := make([][]byte, people)
	spared := 0
	for i := range clients {
		switch fate(i) {
		case reads:
			told[i] = <-heard[i]
		case slacks:
			if checkSlacker(t, <-heard[i], seq[games]) {
				spared++
			}
		}
	}
	if spared == 0 {
		t.Errorf("by %s nobody was spared anything", way)
	}
	return told
}

// checkSlacker reads what one heard who joined a game at seq 1 and did not read: whole frames; every message, or
// how many it was spared. It reports whether it was spared any.
func checkSlacker(t *testing.T, all []byte, last uint64) (spared bool) {
	t.Helper()
	at, r := uint64(1), bytes.NewReader(all)
	for r.Len() > 0 {
		f, err := readFrame(r)
		if err != nil {
			t.Fatalf("%d bytes end in the middle of a frame: %v", len(all), err)
		}
		if f.Header.OpCode != txt {
			continue
		}
		var got said
		if err := json.Unmarshal(f.Payload, &got); err != nil {
			t.Fatal(err)
		}
		if got.Type == "conflated" {
			at += got.Conflated
			spared = true
			continue
		}
		if at++; got.Seq != at {
			t.Fatalf("%s, want %d", f.Payload, at)
		}
	}
	if at != last {
		t.Fatalf("heard up to %d of %d", at, last)
	}
	return spared
}

// sandboxEnv makes the test binary run its tests in a sandbox that refuses io_uring: the number of a system
// call, and the error.
const sandboxEnv = "TOTE_ENGINE_SANDBOX"

// enterSandbox has the kernel refuse a system call to this process for ever.
func enterSandbox(order string) error {
	var number, errno uint32
	if _, err := fmt.Sscan(order, &number, &errno); err != nil {
		return fmt.Errorf("enter the sandbox %q: %w", order, err)
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // for the first word; the filter is for all threads, and takes the word to them
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); e != 0 {
		return os.NewSyscallError("seccomp", e)
	}
	return nil
}

// testRefusal is what is left to test where io_uring is refused: auto falls back, uring says why it cannot.
func testRefusal(t *testing.T, reason error) {
	t.Helper()
	if !strings.HasPrefix(reason.Error(), "make an io_uring: ") {
		t.Errorf("the refusal is %q", reason)
	}
	_, err := New(Config{Listen: "127.0.0.1:0", Secret: secret, Broadcast: BroadcastRing}, newTestMarket())
	if err == nil || !strings.Contains(err.Error(), "broadcast through io_uring: ") {
		t.Errorf("an engine that must have io_uring: %v", err)
	}
	e, m := serve(t, Config{})
	m.announce(3)
	c := joined(t, e, 12, 3)
	m.odds(3, 1)
	c.expect("odds", 0)
	onLoop(e, 0, func(l *loop) {
		if l.ring != nil {
			t.Error("there is a ring")
		}
	})
}

// Where kernel or sandbox refuse io_uring, whole or in part, the tests of broadcasting pass all the same.
func TestSandbox(t *testing.T) {
	if os.Getenv(sandboxEnv) != "" {
		return // inside
	}
	const refusal, all = "Ring|OneEnter", "Ring|OneEnter|Same|Slow|Dead|Room|Join"
	for _, row := range []struct {
		name   string
		number int
		errno  syscall.Errno
		run    string
	}{
		{"setup is not allowed", unix.SYS_IO_URING_SETUP, unix.EPERM, all},
		{"the kernel has none", unix.SYS_IO_URING_SETUP, unix.ENOSYS, refusal},
		{"memory must not be locked", unix.SYS_IO_URING_SETUP, unix.ENOMEM, refusal},
		{"enter is not allowed", unix.SYS_IO_URING_ENTER, unix.EPERM, refusal},
	} {
		t.Run(row.name, func(t *testing.T) {
			child := exec.Command(os.Args[0], "-test.run", row.run)
			child.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", sandboxEnv, row.number, row.errno))
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
}

// A way that there is not is refused before anything is begun.
func TestBroadcastWay(t *testing.T) {
	if _, err := New(Config{Listen: "127.0.0.1:0", Secret: secret, Broadcast: "pigeon"}, newTestMarket()); err == nil {
		t.Error("an engine broadcasts by pigeon")
	}
}
