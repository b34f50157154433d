package engine

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"tote/server/market"
	"tote/server/proto"
)

// The tests compress and inflate with the standard library, the engine with another.

// deflate compresses s as a client does.
func deflate(s string) string {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write([]byte(s))
	_ = w.Flush()
	return strings.TrimSuffix(b.String(), syncTail)
}

// deflateFinal ends the stream (RFC 7692, section 7.2.3.4; at the end of a message an empty block should follow).
func deflateFinal(s string) string {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

func inflate(s string) (string, error) {
	b, err := io.ReadAll(flate.NewReader(strings.NewReader(s + inflateTail)))
	return string(b), err
}

// naiveInflate is what inflater must agree with.
func naiveInflate(message []byte, limit int) (out []byte, wrong string) {
	if len(message) == 0 {
		return nil, ""
	}
	r := bytes.NewReader(append(bytes.Clone(message), inflateTail...))
	for range streamsMax {
		b, err := io.ReadAll(io.LimitReader(flate.NewReaderDict(r, out), int64(limit+1-len(out))))
		out = append(out, b...)
		switch {
		case len(out) > limit:
			return nil, wrongSize
		case err != nil:
			return nil, wrongProtocol
		case r.Len() <= len(inflateTail):
			return out, ""
		}
	}
	return nil, wrongProtocol
}

func z(f ws.Frame) ws.Frame { return rsv(f, rsv1) }

// deflateRows are compressed messages, good and bad, for a parser that takes text.
func deflateRows() (rows []row) {
	add := func(name string, in []byte, want ...string) { rows = append(rows, row{name: name, in: in, want: want}) }
	hello, goal := deflate("Hello"), strings.Repeat("goal! ", 100)

	// RFC 7692, section 7.2.3.
	add("an example: one compressed block", frames(z(fr(txt, true, "\xf2\x48\xcd\xc9\xc9\x07\x00"))), "text Hello")
	add("an example: in two fragments", frames(z(fr(txt, false, "\xf2\x48\xcd")), fr(cont, true, "\xc9\xc9\x07\x00")), "text Hello")
	add("an example: no compression", frames(z(fr(txt, true, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"))), "text Hello")
	add("an example: a block with BFINAL", frames(z(fr(txt, true, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"))), "text Hello")
	add("an example: two blocks", frames(z(fr(txt, true, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"))), "text Hello")
	add("an example that wants a context is not inflated with one", frames(z(fr(txt, true, "\xf2\x48\xcd\xc9\xc9\x07\x00")), z(fr(txt, true, "\xf2\x00\x11\x00\x00"))), "text Hello", wrongProtocol)
	add("an example: an empty message", frames(z(fr(txt, true, "\x00"))), "text ")

	add("no bytes at all", frames(z(fr(txt, true, ""))), "text ")
	add("no bytes in two fragments", frames(z(fr(txt, false, "")), fr(cont, true, "")), "text ")
	add("an empty message in two fragments", frames(z(fr(txt, false, "")), fr(cont, true, "\x00")), "text ")
	add("plain and compressed, one after the other", frames(fr(txt, true, "a"), z(fr(txt, true, hello)), fr(txt, false, "b"), fr(cont, true, "c"), z(fr(txt, true, hello))),
		"text a", "text Hello", "text bc", "text Hello")
	add("a byte a fragment, pings between", frames(z(fr(txt, false, hello[:1])), fr(ping, true, "p"), fr(cont, false, hello[1:2]), fr(ping, true, "q"), fr(cont, true, hello[2:])),
		"ping p", "ping q", "text Hello")
	add("much from little", frames(z(fr(txt, true, deflate(goal)))), "text "+goal)
	add("streams that end, one after the other", frames(z(fr(txt, true, deflateFinal("Hel")+deflateFinal("lo")+deflate("!")))), "text Hello!")
	add("a stream that ends, without an empty block", frames(z(fr(txt, true, deflateFinal("Hello")))), "text Hello")
	add("a stream that ends, and an empty block", frames(z(fr(txt, true, deflateFinal("Hello")+"\x00"))), "text Hello")
	add("too many streams", frames(z(fr(txt, true, strings.Repeat("\x03\x00", 500)))), wrongProtocol)
	add("with the tail that should be left out", frames(z(fr(txt, true, hello+syncTail))), wrongProtocol)
	add("with a flush in the middle", frames(z(fr(txt, true, deflate("Hel")+syncTail+deflate("lo")))), "text Hello")

	add("text that is no UTF-8 when inflated", frames(z(fr(txt, true, deflate("\xff"))), fr(ping, true, "")), wrongUTF8)
	add("text that is cut in a code point", frames(z(fr(txt, true, deflate("κόσμε")[:0]+deflate("\xce")))), wrongUTF8)
	add("bytes that are no UTF-8 until inflated", frames(z(fr(txt, false, "\xf2\x48")), fr(cont, true, "\xcd\xc9\xc9\x07\x00")), "text Hello")
	add("a block of no type", frames(z(fr(txt, true, "\x07"))), wrongProtocol)
	add("a stored block whose length is wrong", frames(z(fr(txt, true, "\x00\x05\x00\xfa\xfeHello"))), wrongProtocol)
	add("a distance to before the beginning", frames(z(fr(txt, true, "\x02\x01\x00"))), wrongProtocol)

	add("RSV1 on a continuation", frames(z(fr(txt, false, hello[:3])), z(fr(cont, true, hello[3:]))), wrongProtocol)
	add("RSV1 on a continuation of a plain message", frames(fr(txt, false, "a"), z(fr(cont, true, "b"))), wrongProtocol)
	add("RSV1 on a text inside of a text", frames(z(fr(txt, false, hello[:3])), z(fr(txt, true, hello))), wrongProtocol)
	for _, op := range []ws.OpCode{ping, pong, cl} {
		add(fmt.Sprintf("RSV1 on control frame %d", op), frames(fr(txt, true, "first"), z(fr(op, true, ""))), "text first", wrongProtocol)
	}
	for _, bits := range []byte{1, 2, 3, 5, 6, 7} {
		for _, op := range []ws.OpCode{txt, cont, ping, cl} {
			add(fmt.Sprintf("reserved bits %d on opcode %d", bits, op), frames(fr(txt, op != cont, "first"), rsv(fr(op, true, ""), bits), fr(ping, true, "")),
				append(map[bool][]string{false: {"text first"}}[op == cont], wrongProtocol)...)
		}
	}
	add("RSV1 on a reserved opcode", frames(z(fr(3, true, hello))), wrongProtocol)
	add("compressed and binary", frames(z(fr(bin, true, hello))), wrongData)

	exact, over := strings.Repeat("a", testMessageMax), strings.Repeat("a", testMessageMax+1)
	add("as long as allowed", frames(z(fr(txt, true, deflate(exact)))), "text "+exact)
	add("a byte too long when inflated", frames(z(fr(txt, true, deflate(over)))), wrongSize)
	add("a bomb", frames(z(fr(txt, true, deflate(strings.Repeat("\x00", 8<<20))))), wrongSize)
	add("a bomb in two streams", frames(z(fr(txt, true, deflateFinal(exact)+deflate("a")))), wrongSize)
	random := make([]byte, testMessageMax)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	for i := range random {
		random[i] &= 0x7f // as text: does not get much shorter
	}
	var stored bytes.Buffer
	w, _ := flate.NewWriter(&stored, flate.NoCompression)
	_, _ = w.Write(random)
	_ = w.Flush()
	add("as long as allowed, longer in transit", frames(z(fr(txt, true, strings.TrimSuffix(stored.String(), syncTail)))), "text "+string(random))
	add("too long in transit", frames(z(fr(txt, true, strings.Repeat("\x00\x00\x00\xff\xff", testMessageMax/4))))[:14], wrongSize)
	return rows
}

// Every row gives the same, wherever a read cuts it, and the naive parser agrees.
func TestDeflateRows(t *testing.T) {
	for _, c := range deflateRows() {
		if got := naiveParse(bytes.Clone(c.in), texts, true); !slices.Equal(got, c.want) {
			t.Errorf("%s: the naive parser found %.200q, want %.200q", c.name, got, c.want)
		}
		check := func(how string, pieces ...[]byte) {
			if got := parse(newParser(texts, true), pieces...); !slices.Equal(got, c.want) {
				t.Errorf("%s, %s: found %.200q, want %.200q", c.name, how, got, c.want)
			}
		}
		check("whole", c.in)
		check("in pieces", pieces(c.in, 7)...)
		cuts := cutsOf(c.in)
		if len(c.in) > 4096 {
			cuts = socketCuts(c.in, 8)
		}
		for _, cut := range cuts {
			check(fmt.Sprintf("cut at %d", cut), c.in[:cut], c.in[cut:])
		}
	}
}

// Where nothing was negotiated RSV1 is wrong.
func TestDeflateNotNegotiated(t *testing.T) {
	in := frames(fr(txt, true, "first"), z(fr(txt, true, deflate("Hello"))))
	if got := parse(newParser(texts, false), in); !slices.Equal(got, []string{"text first", wrongProtocol}) {
		t.Errorf("found %q", got)
	}
}

// Whatever comes is inflated as the standard library does, or refused.
func FuzzInflate(f *testing.F) {
	for _, s := range []string{"", "\x00", deflate("Hello"), deflateFinal("Hello") + deflate("Hello"), deflate(strings.Repeat("a", 5000)), "\xf2\x00\x11\x00\x00"} {
		f.Add([]byte(s))
	}
	var all inflater // what one message leaves must not reach the next
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 4096
		want, wrong := naiveInflate(in, limit)
		got, code := all.inflate(bytes.Clone(in), limit)
		if code != 0 {
			if wrong != fmt.Sprintf("wrong %d", code) {
				t.Fatalf("refused with %d, want %q", code, wrong)
			}
			return
		}
		if wrong != "" || !bytes.Equal(got, want) {
			t.Fatalf("inflated to %q, want %q %s", got, want, wrong)
		}
	})
}

// What we compress is what the standard library inflates.
func FuzzDeflate(f *testing.F) {
	d := newDeflater(deflateLevel)
	f.Add([]byte(strings.Repeat("goal! ", 1000)))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, in []byte) {
		frame := appendFrame(nil, txt, in)
		packed := d.appendFrame([]byte("before"), frame)[len("before"):]
		got, err := readFrame(bytes.NewReader(packed))
		if err != nil || len(packed) > len(frame) {
			t.Fatalf("%d bytes became %d, %v", len(frame), len(packed), err)
		}
		text := string(got.Payload)
		if got.Header.Rsv == rsv1 {
			text, err = inflate(text)
		}
		if err != nil || text != string(in) || got.Header.OpCode != txt {
			t.Fatalf("%q became %v %q, %v", in, got.Header, text, err)
		}
	})
}

// What is offered, and what is answered. "" is no compression.
func TestNegotiation(t *testing.T) {
	const ours = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	e, _ := serve(t, Config{})
	off, _ := serve(t, Config{Deflate: -1})
	for _, row := range []struct {
		offer, want string
		window      uint8
	}{
		{"", "", 0},
		{"permessage-deflate", ours, 15},
		{"permessage-deflate; client_max_window_bits", ours, 15}, // Chrome
		{"permessage-deflate; client_max_window_bits=10", ours, 15},
		{`permessage-deflate; client_max_window_bits="10"`, ours, 15},
		{"permessage-deflate; server_no_context_takeover", ours, 15},
		{"permessage-deflate; client_no_context_takeover", ours, 15},
		{"permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits", ours, 15},
		{"permessage-deflate; server_max_window_bits=15", ours + "; server_max_window_bits=15", 15},
		{"permessage-deflate; server_max_window_bits=9", ours + "; server_max_window_bits=9", 9},
		{"permessage-deflate; server_max_window_bits=8", ours + "; server_max_window_bits=8", 8},
		{"permessage-deflate; server_max_window_bits=10; client_max_window_bits", ours + "; server_max_window_bits=10", 10},
		// The first that can be accepted.
		{"permessage-deflate; server_max_window_bits=10, permessage-deflate", ours + "; server_max_window_bits=10", 10},
		{"permessage-deflate; server_max_window_bits=7, permessage-deflate", ours, 15},
		{"permessage-bzip2, permessage-deflate; fast, permessage-deflate; client_max_window_bits", ours, 15},
		{"x-webkit-deflate-frame, permessage-deflate", ours, 15},
		{"permessage-deflate\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9", ours, 15},
		{"permessage-bzip2\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9", ours + "; server_max_window_bits=9", 9},
		// Declined.
		{"permessage-bzip2", "", 0},
		{"x-webkit-deflate-frame", "", 0},
		{"permessage-deflate; fast", "", 0},
		{"permessage-deflate; server_no_context_takeover=1", "", 0},
		{"permessage-deflate; client_no_context_takeover=1", "", 0},
		{"permessage-deflate; server_no_context_takeover; server_no_context_takeover", "", 0},
		{"permessage-deflate; client_max_window_bits; client_max_window_bits", "", 0},
		{"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", "", 0},
		{"permessage-deflate; server_max_window_bits", "", 0},
		{"permessage-deflate; server_max_window_bits=7", "", 0},
		{"permessage-deflate; server_max_window_bits=16", "", 0},
		{"permessage-deflate; server_max_window_bits=09", "", 0},
		{"permessage-deflate; server_max_window_bits=+9", "", 0},
		{"permessage-deflate; server_max_window_bits=nine", "", 0},
		{"permessage-deflate; server_max_window_bits=265", "", 0},
		{"permessage-deflate; client_max_window_bits=7", "", 0},
		{"permessage-deflate; client_max_window_bits=16", "", 0},
	} {
		c := dial(t, e)
		if got := strings.ReplaceAll(c.negotiate(row.offer), ";", "; "); got != row.want {
			t.Errorf("%q is answered with %q, want %q", row.offer, got, row.want)
		}
		c.sync()
		eventually(t, "the window is known", func() bool {
			var window uint8
			for i := range e.loops {
				onLoop(e, i, func(l *loop) {
					for _, p := range l.places {
						if p.session != nil {
							window += p.session.window
						}
					}
				})
			}
			return window == row.window
		})
		c.conn.Close()
		c = dial(t, off)
		if got := c.negotiate(row.offer); got != "" {
			t.Errorf("%q is answered with %q though it is off", row.offer, got)
		}
		c.conn.Close()
	}
	c := dial(t, e)
	c.write([]byte(withExtensions("permessage-deflate; =")))
	if response, err := http.ReadResponse(c.r, nil); err != nil || response.StatusCode != 400 {
		t.Errorf("what is no header is answered with %v, %v", response, err)
	}
	eventually(t, "all have left", func() bool { return e.Stats().Deflating == 0 && off.Stats().Deflating == 0 })
}

// negotiate shakes hands with an offer and returns the answer.
func (c *client) negotiate(offer string) string {
	c.t.Helper()
	c.write([]byte(withExtensions(offer)))
	response, err := http.ReadResponse(c.r, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		c.t.Fatalf("%q: the handshake is %v, %v", offer, response, err)
	}
	return response.Header.Get("Sec-WebSocket-Extensions")
}

// deflating is in game 3 with compression.
func deflating(t testing.TB, e *Engine, a proto.AccountID, offer string) *client {
	t.Helper()
	c := dial(t, e)
	if answer := c.negotiate(offer); !strings.HasPrefix(answer, extension) {
		t.Fatalf("%q is answered with %q", offer, answer)
	}
	c.ask(`{"type":"hello","id":1,"token":%q}`, e.Token(a))
	c.packed("welcome", false)
	c.ask(`{"type":"join","id":2,"game":3}`)
	if f := c.rawFrame(); f.Header.OpCode != txt {
		t.Fatalf("%v where the image should be", f.Header)
	}
	return c
}

// rawFrame reads a frame that may be compressed.
func (c *client) rawFrame() ws.Frame {
	c.t.Helper()
	f, err := readFrame(c.r)
	if err != nil {
		c.t.Fatalf("read a frame: %v", err)
	}
	return f
}

// packed reads a message of that type, compressed or not, as said, and returns it with the bytes of its frame's payload.
func (c *client) packed(kind string, compressed bool) (string, int) {
	c.t.Helper()
	f := c.rawFrame()
	text := string(f.Payload)
	if f.Header.Rsv&rsv1 != 0 {
		var err error
		if text, err = inflate(text); err != nil {
			c.t.Fatalf("inflate %q: %v", f.Payload, err)
		}
	}
	if (f.Header.Rsv == rsv1) != compressed || !strings.HasPrefix(text, `{"type":"`+kind) {
		c.t.Fatalf("got %v %s, want %s, compressed is %v", f.Header, text, kind, compressed)
	}
	return text, len(f.Payload)
}

// A distribution is compressed once for all who negotiated it, and goes as it is to the others and to those
// whose window is smaller than it. Nothing is compressed while nobody wants it.
func TestDistributionDeflated(t *testing.T) {
	e, m := serve(t, Config{Loops: 2})
	m.announce(3)
	plainOdds := (&delivery{}).broadcast(e, []market.Out{{Game: 3, Message: threeOdds}})
	if plainOdds.forms[deflated] != nil {
		t.Fatal("compressed for nobody")
	}
	bare := joined(t, e, 12, 3)
	var all []*client
	for i := range 10 {
		all = append(all, deflating(t, e, proto.AccountID(20+i), "permessage-deflate"))
	}
	narrow := deflating(t, e, 40, "permessage-deflate; server_max_window_bits=8")
	wide := deflating(t, e, 41, "permessage-deflate; server_max_window_bits=9")
	e.Deliver(&market.Batch{Outs: []market.Out{{Game: 3, Message: bigOdds(3, 1)(2)}, {Game: 3, Message: threeOdds}}})
	e.Deliver(&market.Batch{Outs: []market.Out{{Game: 3, Message: threeOdds}}})
	want, n := []string{}, 0

	for range 3 {
		want = append(want, bare.expect("odds", 0).raw)
	}
	for _, c := range all {
		for _, w := range want {
			got, size := c.packed("odds", true)
			if got != w {
				t.Fatalf("got %s, want %s", got, w)
			}
			n += size
		}
	}
	for _, c := range []*client{narrow, wide} {
		for i, w := range want { // the first batch has a message that is too long for either
			if got, _ := c.packed("odds", i == 2); got != w {
				t.Fatalf("got %s, want %s", got, w)
			}
		}
	}
	if plain := 10 * len(strings.Join(want, "")); n > plain*3/4 {
		t.Errorf("%d bytes became %d", plain, n)
	}
	eventually(t, "all are counted", func() bool { return e.Stats().Deflating == 12 })
	for _, c := range append(all, narrow, wide) {
		c.conn.Close()
	}
	eventually(t, "nobody is left who inflates", func() bool { return e.Stats().Deflating == 0 })
}

// Receipts go as they are, images are compressed, until a tick's allowance is used up.
func TestPrivateDeflated(t *testing.T) {
	e, m := serve(t, Config{Loops: 1, Limits: Limits{DeflateRate: 200_000}})
	m.announce(3)
	m.mu.Lock()
	m.filler = strings.Repeat(" and a long name", 500)
	m.mu.Unlock()
	c := deflating(t, e, 12, "permessage-deflate")
	c.ask(`{"type":"stake","id":3,"pool":196609,"outcome":1,"amount":250}`)
	c.packed("receipt", false)
	onLoop(e, 0, func(l *loop) { l.deflateLeft = 20_000 })
	var in []byte
	for range 10 { // in one read, so that no tick comes between
		in = append(in, text(`{"type":"account","id":4}`)...)
	}
	eventually(t, "ten messages are read within a tick", func() bool {
		var left int
		onLoop(e, 0, func(l *loop) { left, l.deflateLeft = l.deflateLeft, 20_000 })
		c.write(in)
		compressed := 0
		for range 10 {
			f := c.rawFrame()
			if f.Header.Rsv != 0 {
				compressed++
				if len(f.Payload) > 1000 {
					t.Fatalf("8 kB of the same became %d bytes", len(f.Payload))
				}
			}
		}
		return compressed == 2 && left >= 0
	})
	eventually(t, "they are counted", func() bool { return e.Stats().Deflated >= 2 })
}

// A session keeps nothing for compression, and no more memory than without.
func TestDeflateKeepsNothing(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	m.announce(3)
	c := deflating(t, e, 12, "permessage-deflate")
	for i := range 100 {
		c.write(frames(z(fr(txt, true, deflate(fmt.Sprintf(`{"type":"time","id":%d}`, i+1))))))
		c.packed("time", false)
	}
	onLoop(e, 0, func(l *loop) {
		s := l.find(m.last[12])
		if s.parser != nil || s.pending != nil || s.head != nil {
			t.Errorf("kept: %v %v %v", s.parser, s.pending, s.head)
		}
	})
	eventually(t, "compressed messages are counted", func() bool { return e.Stats().Inflated == 100 })
}

// What slow consumers missed comes compressed as well.
func TestConflatedDeflated(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	m.announce(3)
	c := deflating(t, e, 12, "permessage-deflate")
	onLoop(e, 0, func(l *loop) {
		for range 100 {
			m.odds(3, 1)
			m.odds(3, 2)
		}
	})
	last := fmt.Sprintf(`"seq":%d,`, m.seq[3])
	for {
		f := c.rawFrame()
		text := string(f.Payload)
		if f.Header.Rsv == rsv1 {
			text, _ = inflate(text)
		}
		if strings.Contains(text, last) {
			break
		}
	}
}

// testData is like Autobahn's for groups 12 and 13: JSON, a picture, German text, HTML, and a PDF.
func testData(i int) (binary bool, data []rune) {
	random := rand.New(rand.NewPCG(uint64(i), 7))
	var b strings.Builder
	for b.Len() < 200<<10 {
		switch i {
		case 0:
			fmt.Fprintf(&b, `{"id":%d,"name":"Spieler %d","club":"1. FC Köln","goals":[%d,%d],"price":%d.%02d},`,
				random.IntN(1e6), random.IntN(500), random.IntN(9), random.IntN(90), random.IntN(1000), random.IntN(100))
		case 1:
			b.WriteByte(byte(b.Len()%512/4) + byte(random.IntN(8)))
		case 2:
			words := strings.Fields("Habe nun ach Philosophie Juristerei und Medizin und leider auch Theologie durchaus studiert mit heißem Bemühn da steh ich nun ich armer Tor und bin so klug als wie zuvor")
			b.WriteString(words[random.IntN(len(words))] + " ")
		case 3:
			fmt.Fprintf(&b, "<tr class=\"%c\"><td>%d</td><td>→ Größe %d</td></tr>\n", 'a'+random.IntN(3), random.IntN(1000), random.IntN(100))
		case 4:
			b.WriteByte(byte(random.IntN(256)))
		}
	}
	if i == 1 || i == 2 || i == 4 {
		for _, c := range []byte(b.String()) {
			data = append(data, rune(c)) // a byte each
		}
		return true, data
	}
	return false, []rune(b.String())
}

// Groups 12 (five kinds of data) and 13 (seven offers): echoes of compressed messages of 16 bytes to 128 KiB, in
// one frame and in fragments. Autobahn sends a thousand of each, here it is 3 to 50.
func TestConformanceDeflate(t *testing.T) {
	const autobahns = "permessage-deflate; client_no_context_takeover; client_max_window_bits"
	const noTakeover, window9, window15 = "; server_no_context_takeover", "; server_max_window_bits=9", "; server_max_window_bits=15"
	groups := []struct {
		name, offer string
		data        int
	}{
		{"12.1", autobahns, 0}, {"12.2", autobahns, 1}, {"12.3", autobahns, 2}, {"12.4", autobahns, 3}, {"12.5", autobahns, 4},
		{"13.1", autobahns, 0}, {"13.2", autobahns + noTakeover, 0}, {"13.3", autobahns + window9, 0}, {"13.4", autobahns + window15, 0},
		{"13.5", autobahns + noTakeover + window9, 0}, {"13.6", autobahns + noTakeover + window15, 0},
		{"13.7", autobahns + noTakeover + window9 + ", " + autobahns + noTakeover + ", " + autobahns, 0},
	}
	cases := []struct{ size, fragment int }{
		{16, 0}, {64, 0}, {256, 0}, {1024, 0}, {4096, 0}, {8192, 0}, {16384, 0}, {32768, 0}, {65536, 0}, {131072, 0},
		{8192, 256}, {16384, 256}, {32768, 256}, {65536, 256}, {131072, 256}, {131072, 1024}, {131072, 4096}, {131072, 32768},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			k := &caseClient{t: t, e: serveEcho(t, 1<<20, false), offer: g.offer}
			binary, data := testData(g.data)
			at, d := 0, newClientDeflater()
			for i, c := range cases {
				k.name = fmt.Sprintf("%s.%d", g.name, i+1)
				for n := range min(50, max(3, (16<<10)/c.size)) {
					message := make([]rune, c.size)
					for j := range message {
						message[j] = data[(at+j)%len(data)]
					}
					at = (at + c.size) % len(data)
					k.echo(d, binary, message, c.fragment, n == 0)
				}
			}
			k.goodbye(g.name)
		})
	}
}

// clientDeflater compresses for a client: making a writer for each message would take the most time.
type clientDeflater struct {
	b bytes.Buffer
	w *flate.Writer
}

func newClientDeflater() *clientDeflater {
	d := &clientDeflater{}
	d.w, _ = flate.NewWriter(&d.b, 1)
	return d
}

func (d *clientDeflater) deflate(s string) string {
	d.b.Reset()
	d.w.Reset(&d.b)
	_, _ = d.w.Write([]byte(s))
	_ = d.w.Flush()
	return strings.TrimSuffix(d.b.String(), syncTail)
}

// echo sends a message compressed and expects it back, whole, and also cut here and there.
func (k *caseClient) echo(d *clientDeflater, binary bool, message []rune, fragment int, cut bool) {
	k.t.Helper()
	op, sent := txt, string(message)
	if binary {
		op = bin
		b := make([]byte, len(message))
		for i, r := range message {
			b[i] = byte(r)
		}
		sent = string(b)
	}
	packed := d.deflate(sent)
	if fragment == 0 {
		fragment = len(packed)
	}
	fs := fragments(op, packed, fragment)
	fs[0] = z(fs[0])
	in := frames(fs...)
	check := func(how string) {
		k.t.Helper()
		f := k.c.rawFrame()
		got := string(f.Payload)
		window9 := strings.Contains(k.offer, "server_max_window_bits=9")
		if f.Header.Rsv == rsv1 {
			var err error
			if got, err = inflate(got); err != nil {
				k.t.Fatalf("%s, %s: %v", k.name, how, err)
			}
			if window9 && len(got) > 1<<9 {
				k.t.Fatalf("%s: %d bytes are compressed for a window of 512", k.name, len(got))
			}
		}
		if got != sent || f.Header.OpCode != op || !f.Header.Fin || f.Header.Rsv&^rsv1 != 0 {
			k.t.Fatalf("%s, %s: sent %.60q, got %v %.60q", k.name, how, sent, f.Header, got)
		}
		if f.Header.Rsv == 0 && len(sent) > 200 && len(packed) < len(sent)/2 && !window9 {
			k.t.Fatalf("%s, %s: %d bytes came as they are", k.name, how, len(sent))
		}
	}
	k.send(in)
	check("whole")
	if !cut {
		return
	}
	some := 4
	if len(in) <= 400 {
		some = len(in)
	}
	for _, cut := range socketCuts(in, some) {
		k.send(in[:cut], in[cut:])
		check(fmt.Sprintf("cut at %d", cut))
	}
}
