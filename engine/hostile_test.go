package engine

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tote/server/proto"
)

// attack is something that a client may try. Each is bounded, refused and counted; meanwhile an honest client is
// served.
type attack struct {
	name    string
	bound   string // what it may cost
	attack  func(t *testing.T, e *Engine)
	refused func(s Stats) uint64
}

// mild are limits small enough to be met within a test.
var mild = Limits{
	HandshakeBytes: 1 << 10, HelloTime: 2 * time.Second, MessageTime: time.Second, IdleTime: 3 * time.Second,
	CloseTime: 300 * time.Millisecond, Frames: 200, PerAddress: 40, ConnectRate: 1000, LaneBytes: 16 << 10, Malformed: 3,
}

var attacks = []attack{
	{"slowloris: a handshake, byte by byte", "HandshakeBytes for HelloTime",
		func(t *testing.T, e *Engine) {
			c := dial(t, e)
			go drip(c, []byte(upgradeRequest[:len(upgradeRequest)-4]))
			expectStatus(c, http.StatusRequestTimeout)
		},
		func(s Stats) uint64 { return s.HandshakesLate }},
	{"silence after connecting", "a session for HelloTime",
		func(t *testing.T, e *Engine) { expectStatus(dial(t, e), http.StatusRequestTimeout) },
		func(s Stats) uint64 { return s.HandshakesLate }},
	{"a bomb of headers", "HandshakeBytes",
		func(t *testing.T, e *Engine) {
			c := dial(t, e)
			_, _ = c.conn.Write([]byte("GET /ws HTTP/1.1\r\n" + strings.Repeat("X-Bomb: boom\r\n", 10_000)))
			expectStatus(c, http.StatusRequestHeaderFieldsTooLarge)
		},
		func(s Stats) uint64 { return s.HandshakesLong }},
	{"no hello after the handshake", "a session for HelloTime",
		func(t *testing.T, e *Engine) { upgraded(t, e).expectClose(proto.CloseHelloMissed) },
		func(s Stats) uint64 { return s.Closes[proto.CloseHelloMissed] }},
	{"a message of 10 MB", "nothing: its header is refused",
		func(t *testing.T, e *Engine) {
			c := upgraded(t, e)
			c.write([]byte{0x81, 0xff, 0, 0, 0, 0, 0, 0xa0, 0, 0, 1, 2, 3, 4})
			c.expectClose(proto.CloseTooBig)
		},
		func(s Stats) uint64 { return s.Closes[proto.CloseTooBig] }},
	{"a message, byte by byte", "MessageBytes for MessageTime",
		func(t *testing.T, e *Engine) {
			c := greeted(t, e, 14)
			go drip(c, text(strings.Repeat(" ", 10_000)))
			c.expectClose(proto.ClosePolicy)
		},
		func(s Stats) uint64 { return s.Stalled }},
	{"a message that never ends, and pings", "MessageBytes for MessageTime",
		func(t *testing.T, e *Engine) {
			c := greeted(t, e, 14)
			c.write(frames(fr(txt, false, "{")))
			go func() {
				for range 100 {
					if _, err := c.conn.Write(frames(fr(ping, true, "p"))); err != nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			}()
			c.expectClose(proto.ClosePolicy)
		},
		func(s Stats) uint64 { return s.Stalled }},
	{"a flood of pings", "Frames in a second",
		func(t *testing.T, e *Engine) { flood(t, e, frames(fr(ping, true, ""))) },
		func(s Stats) uint64 { return s.Floods }},
	{"a flood of pongs", "Frames in a second",
		func(t *testing.T, e *Engine) { flood(t, e, frames(fr(pong, true, ""))) },
		func(s Stats) uint64 { return s.Floods }},
	{"a flood of empty fragments", "Frames in a second",
		func(t *testing.T, e *Engine) { flood(t, e, frames(fr(txt, false, "")), frames(fr(cont, false, ""))) },
		func(s Stats) uint64 { return s.Floods }},
	{"a flood of requests", "Frames in a second; from Limits.Requests on \"busy\"",
		func(t *testing.T, e *Engine) { flood(t, e, text(`{"type":"time","id":1}`)) },
		func(s Stats) uint64 { return s.Floods }},
	{"a flood of nonsense", "Malformed",
		func(t *testing.T, e *Engine) { flood(t, e, text("{")) },
		func(s Stats) uint64 { return s.Closes[proto.ClosePolicy] }},
	{"a compressed bomb: 8 kB make 8 MB", "MessageBytes, once for each loop",
		func(t *testing.T, e *Engine) {
			bomb := frames(z(fr(txt, true, deflate(strings.Repeat(" ", 8<<20)))))
			c := dial(t, e)
			c.negotiate(extension)
			c.write(bomb)
			c.expectClose(proto.CloseTooBig)
			for i := range e.loops {
				onLoop(e, i, func(l *loop) {
					if n := cap(l.kit.inflater.out); n > 2*l.engine.limits.MessageBytes {
						t.Errorf("a bomb leaves a buffer of %d bytes", n)
					}
				})
			}
		},
		func(s Stats) uint64 { return s.Bombs }},
	{"a compressed bomb of empty streams", "16 streams",
		func(t *testing.T, e *Engine) {
			c := dial(t, e)
			c.negotiate(extension)
			c.write(frames(z(fr(txt, true, strings.Repeat("\x03\x00", 4000)))))
			c.expectClose(proto.CloseProtocol)
		},
		func(s Stats) uint64 { return s.Closes[proto.CloseProtocol] }},
	{"a half-open socket", "a session for IdleTime",
		func(t *testing.T, e *Engine) { greeted(t, e, 14).expectClose(proto.CloseIdle) },
		func(s Stats) uint64 { return s.Closes[proto.CloseIdle] }},
	{"one who never closes its side", "a socket for CloseTime",
		func(t *testing.T, e *Engine) {
			c := upgraded(t, e)
			c.write(frames(fr(cont, true, "")))
			c.expectClose(proto.CloseProtocol)
			eventually(t, "it is cut", func() bool { return e.door.inside() == 1 })
		},
		func(s Stats) uint64 { return s.Cut }},
	{"many connections from one address", "PerAddress",
		func(t *testing.T, e *Engine) {
			for range mild.PerAddress - 1 { // the honest one is inside
				dial(t, e)
			}
			refused(t, e, http.StatusTooManyRequests)
		},
		func(s Stats) uint64 { return s.RefusedAddress }},
	{"connections that reset, again and again", "ConnectRate, a session each until the reset is here",
		func(t *testing.T, e *Engine) {
			eventually(t, "it is refused", func() bool {
				for range 100 {
					c := dial(t, e)
					_, _ = c.conn.Write([]byte(upgradeRequest[:50]))
					_ = c.conn.SetLinger(0)
					_ = c.conn.Close()
				}
				return e.Stats().RefusedRate > 0 || e.Stats().Aborted > 1000
			})
			onLoop(e, 0, func(l *loop) {
				if len(l.places) > 2*mild.PerAddress {
					t.Errorf("%d places for %d connections at most", len(l.places), mild.PerAddress)
				}
			})
		},
		func(s Stats) uint64 { return s.Aborted }},
}

// drip writes a byte now and then, until the other side is gone.
func drip(c *client, in []byte) {
	for i := range in {
		if _, err := c.conn.Write(in[i : i+1]); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// flood writes first, then again and again, and expects to be closed for it.
func flood(t *testing.T, e *Engine, first []byte, again ...[]byte) {
	c := greeted(t, e, 14)
	c.write(first)
	rest := first
	if len(again) > 0 {
		rest = again[0]
	}
	go func() {
		for {
			if _, err := c.conn.Write(rest); err != nil {
				return
			}
		}
	}()
	f := c.frame()
	for f.Header.OpCode != cl {
		f = c.frame()
	}
	if want := closeBody(uint16(proto.ClosePolicy), proto.ClosePolicy.Reason()); string(f.Payload) != want {
		t.Errorf("closed with %q, want %q", f.Payload, want)
	}
}

func expectStatus(c *client, status int) {
	c.t.Helper()
	response, err := http.ReadResponse(c.r, nil)
	if err != nil || response.StatusCode != status {
		c.t.Fatalf("answered %v, %v; want %d", response, err, status)
	}
	_, _ = io.Copy(io.Discard, c.r)
}

// Pings by one who does not read the pongs end when LaneBytes of them are unsent. Not among the others, since
// their limit of frames would be first.
func TestPongsUnread(t *testing.T) {
	limits := mild
	limits.Frames, limits.IdleTime = 1<<30, 0
	e, m := serve(t, Config{Loops: 1, Limits: limits})
	m.announce(3)
	c := slow(t, e, 14, 3)
	pings := bytes.Repeat(frames(fr(ping, true, strings.Repeat("p", 125))), 100)
	for e.Stats().Closes[proto.CloseSlow] == 0 {
		if _, err := c.conn.Write(pings); err != nil {
			break
		}
	}
	eventually(t, "the close is counted", func() bool { return e.Stats().Closes[proto.CloseSlow] == 1 })
}

func TestHostile(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			e, m := serve(t, Config{Loops: 1, Limits: mild})
			m.announce(3)
			honest := joined(t, e, 12, 3)
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
						_, _ = honest.conn.Write(text(`{"type":"time","id":5}`))
					}
				}
			}()
			a.attack(t, e)
			eventually(t, "it is counted, though its bound is "+a.bound, func() bool { return a.refused(e.Stats()) > 0 })
			close(stop)
			<-stopped
			honest.sync()
			m.odds(3, 1)
			honest.expect("odds", 0)
		})
	}
}

// A client whose reads always end within a frame is not one whose messages never end.
func TestPipelinedIsNotStalled(t *testing.T) {
	e, _ := serve(t, Config{Loops: 1, Limits: Limits{MessageTime: 200 * time.Millisecond}})
	c := greeted(t, e, 12)
	request := func(i int) []byte { return text(fmt.Sprintf(`{"type":"time","id":%d}`, i)) }
	c.write(request(1)[:10])
	for i := range 30 {
		c.write(append(request(i + 1)[10:], request(i + 2)[:10]...))
		c.expect("time", proto.RequestID(i+1))
		time.Sleep(30 * time.Millisecond)
	}
	if n := e.Stats().Stalled; n != 0 {
		t.Errorf("%d were closed", n)
	}
}

// Whoever connects too often is refused for the rest of the second; loopback is not, unless it was asked for.
func TestConnectRate(t *testing.T) {
	var d door
	d.open(Limits{Connections: 1 << 20, PerAddress: 1 << 20, ConnectRate: 10})
	address := netip.MustParseAddr("192.0.2.1")
	let := func(a netip.Addr, second int64) (n int) {
		d.begin(second)
		for range 100 {
			if d.knock(homeOf(a)) {
				n++
			}
		}
		return n
	}
	if n := let(address, 1); n != 10 {
		t.Errorf("%d of 100 were let in", n)
	}
	if n := let(netip.MustParseAddr("192.0.2.2"), 1); n != 10 {
		t.Errorf("%d of 100 of another address were let in", n)
	}
	if n := let(address, 2); n != 10 || len(d.knocks) != 1 {
		t.Errorf("%d were let in a second later, %d addresses are kept", n, len(d.knocks))
	}
	if n := let(netip.MustParseAddr("127.0.0.1"), 2); n != 10 {
		t.Errorf("%d of 100 from loopback were let in, though it was asked for", n)
	}
	d.open(Limits{Connections: 1 << 20})
	if n := let(netip.MustParseAddr("127.0.0.1"), 2); n != 100 {
		t.Errorf("%d of 100 from loopback were let in", n)
	}
}

// A bucket that comes earlier is kept.
func TestWheelSooner(t *testing.T) {
	l := &loop{tick: wheelBuckets - 3}
	s := &session{loop: l, bucket: -1}
	for _, row := range []struct{ due, want uint32 }{{20, 20}, {30, 20}, {10, 10}, {11, 10}, {2, 2}, {5, 2}} {
		l.wheel.sooner(s, l.tick+row.due)
		if want := int16((l.tick + row.want) % wheelBuckets); s.bucket != want {
			t.Errorf("due in %d: in bucket %d, want %d", row.due, s.bucket, want)
		}
	}
}
