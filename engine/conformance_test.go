package engine

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"tote/server/proto"
)

// The cases of the Autobahn test suite, by their numbers there: groups 1 to 7 and 10 in this table, 9 below it,
// 12 and 13 (permessage-deflate) in deflate_test.go. Autobahn tests a server that echoes, so serveEcho makes one
// of the engine; the table also drives the parser alone, and is where fuzzing starts.
//
// want is what the parser finds, in order: "text", "binary" and "ping" are answered with the same payload, "pong" is
// not answered, "close" is answered with the same body, and "wrong" with a close of that code. Where Autobahn
// lets a server choose, want is what ours does.
type row struct {
	name string
	in   []byte
	want []string
	chop int // Autobahn sends it in pieces of so many bytes; 0: in one
}

const wrongProtocol, wrongData, wrongUTF8, wrongSize = "wrong 1002", "wrong 1003", "wrong 1007", "wrong 1009"

var conformance = buildConformance()

func buildConformance() (rows []row) {
	add := func(name string, in []byte, want ...string) { rows = append(rows, row{name: name, in: in, want: want}) }
	chopped := func(n int) { rows[len(rows)-1].chop = n }
	hello := "Hello, world!"

	// 1: text and binary messages of all sizes of the length field.
	for i, n := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
		text, binary := strings.Repeat("*", n), strings.Repeat("\xfe", n)
		add(fmt.Sprintf("1.1.%d", i+1), frames(fr(txt, true, text)), "text "+text)
		if i == 7 {
			chopped(997)
		}
		add(fmt.Sprintf("1.2.%d", i+1), frames(fr(bin, true, binary)), "binary "+binary)
		if i == 7 {
			chopped(997)
		}
	}

	// 2: pings and pongs.
	octets8, octets125 := "\x00\xff\xfe\xfd\xfc\xfb\x00\xff", strings.Repeat("\xfe", 125)
	add("2.1", frames(fr(ping, true, "")), "ping ")
	add("2.2", frames(fr(ping, true, hello)), "ping "+hello)
	add("2.3", frames(fr(ping, true, octets8)), "ping "+octets8)
	add("2.4", frames(fr(ping, true, octets125)), "ping "+octets125)
	add("2.5", frames(fr(ping, true, octets125+"\xfe")), wrongProtocol)
	add("2.6", frames(fr(ping, true, octets125)), "ping "+octets125)
	chopped(1)
	add("2.7", frames(fr(pong, true, "")), "pong ")
	add("2.8", frames(fr(pong, true, "unsolicited pong payload")), "pong unsolicited pong payload")
	add("2.9", frames(fr(pong, true, "unsolicited pong payload"), fr(ping, true, "ping payload")), "pong unsolicited pong payload", "ping ping payload")
	var pings []ws.Frame
	var pinged []string
	for i := range 10 {
		p := fmt.Sprintf("payload-%d", i)
		pings, pinged = append(pings, fr(ping, true, p)), append(pinged, "ping "+p)
	}
	add("2.10", frames(pings...), pinged...)
	add("2.11", frames(pings...), pinged...)
	chopped(1)

	// 3: reserved bits.
	first := "text " + hello
	add("3.1", frames(rsv(fr(txt, true, hello), 1)), wrongProtocol)
	for i, bits := range []byte{2, 3, 4} {
		add(fmt.Sprintf("3.%d", i+2), frames(fr(txt, true, hello), rsv(fr(txt, true, hello), bits), fr(ping, true, "")), first, wrongProtocol)
	}
	chopped(1) // 3.4
	add("3.5", frames(rsv(fr(bin, true, octets8), 5)), wrongProtocol)
	add("3.6", frames(rsv(fr(ping, true, hello), 6)), wrongProtocol)
	add("3.7", frames(rsv(fr(cl, true, ""), 7)), wrongProtocol)

	// 4: reserved opcodes, of data and of control frames.
	for group, op := range []ws.OpCode{3, 11} {
		number := func(i int) string { return fmt.Sprintf("4.%d.%d", group+1, i) }
		add(number(1), frames(fr(op, true, "")), wrongProtocol)
		add(number(2), frames(fr(op+1, true, "reserved opcode payload")), wrongProtocol)
		add(number(3), frames(fr(txt, true, hello), fr(op+2, true, ""), fr(ping, true, "")), first, wrongProtocol)
		add(number(4), frames(fr(txt, true, hello), fr(op+3, true, hello), fr(ping, true, "")), first, wrongProtocol)
		add(number(5), frames(fr(txt, true, hello), fr(op+4, true, hello), fr(ping, true, "")), first, wrongProtocol)
		chopped(1)
	}

	// 5: fragments. Frame-wise sending (5.4, 5.7, 5.10, …) is one of the cuts that each case is sent with.
	f1, f2, f3, none := "fragment1", "fragment2", "fragment3", "non-continuation payload"
	add("5.1", frames(fr(ping, false, f1), fr(cont, true, f2)), wrongProtocol)
	add("5.2", frames(fr(pong, false, f1), fr(cont, true, f2)), wrongProtocol)
	for i, chop := range []int{0, 6 + len(f1), 1} {
		add(fmt.Sprintf("5.%d", i+3), frames(fr(txt, false, f1), fr(cont, true, f2)), "text "+f1+f2)
		chopped(chop)
		add(fmt.Sprintf("5.%d", i+6), frames(fr(txt, false, f1), fr(ping, true, "ping payload"), fr(cont, true, f2)), "ping ping payload", "text "+f1+f2)
		chopped(chop)
		add(fmt.Sprintf("5.%d", i+9), frames(fr(cont, true, none), fr(txt, true, hello)), wrongProtocol)
		chopped(chop)
		add(fmt.Sprintf("5.%d", i+12), frames(fr(cont, false, none), fr(txt, true, hello)), wrongProtocol)
		chopped(chop)
	}
	add("5.15", frames(fr(txt, false, f1), fr(cont, true, f2), fr(cont, false, f3), fr(txt, true, "fragment4")), "text "+f1+f2, wrongProtocol)
	twice := func(fin bool) []byte {
		return bytes.Repeat(frames(fr(cont, fin, f1), fr(txt, false, f2), fr(cont, true, f3)), 2)
	}
	add("5.16", twice(false), wrongProtocol)
	add("5.17", twice(true), wrongProtocol)
	add("5.18", frames(fr(txt, false, f1), fr(txt, true, f2)), wrongProtocol)
	five := frames(
		fr(txt, false, f1), fr(cont, false, f2), fr(ping, true, "pongme 1!"),
		fr(cont, false, f3), fr(cont, false, "fragment4"), fr(ping, true, "pongme 2!"), fr(cont, true, "fragment5"))
	for _, name := range []string{"5.19", "5.20"} {
		add(name, five, "ping pongme 1!", "ping pongme 2!", "text "+f1+f2+f3+"fragment4fragment5")
	}
	chopped(6 + len(f1))

	// 6: UTF-8, as it arrives.
	add("6.1.1", frames(fr(txt, true, "")), "text ")
	add("6.1.2", frames(fr(txt, false, ""), fr(cont, false, ""), fr(cont, true, "")), "text ")
	add("6.1.3", frames(fr(txt, false, ""), fr(cont, false, "middle frame payload"), fr(cont, true, "")), "text middle frame payload")
	greeting := "Hello-µ@ßöäüàá-UTF-8!!"
	add("6.2.1", frames(fr(txt, true, greeting)), "text "+greeting)
	add("6.2.2", frames(fr(txt, false, greeting[:12]), fr(cont, true, greeting[12:])), "text "+greeting)
	add("6.2.3", frames(octets(greeting)...), "text "+greeting)
	add("6.2.4", frames(octets(kosme)...), "text "+kosme)
	surrogate, beyond := kosme+"\xed\xa0\x80edited", kosme+"\xf4\x90\x80\x80edited"
	add("6.3.1", frames(fr(txt, true, surrogate)), wrongUTF8)
	add("6.3.2", frames(octets(surrogate)...), wrongUTF8)
	add("6.4.1", frames(fr(txt, false, kosme), fr(cont, false, "\xf4\x90\x80\x80"), fr(cont, true, "edited")), wrongUTF8)
	add("6.4.2", frames(fr(txt, false, beyond[:12]), fr(cont, false, beyond[12:13]), fr(cont, true, beyond[13:])), wrongUTF8)
	add("6.4.3", frames(fr(txt, true, beyond)), wrongUTF8)
	chopped(6 + len(kosme))
	add("6.4.4", frames(fr(txt, true, beyond)), wrongUTF8)
	chopped(6 + 12)
	for group, list := range utf8Cases() {
		for i, c := range list {
			want := wrongUTF8
			if c.valid {
				want = "text " + c.text
			}
			add(fmt.Sprintf("6.%d.%d", group+5, i+1), frames(fr(txt, true, c.text)), want)
		}
	}

	// 7: the closing handshake.
	bye := fr(cl, true, closeBody(1000, ""))
	byed := "close " + closeBody(1000, "")
	add("7.1.1", frames(fr(txt, true, hello), bye), first, byed)
	add("7.1.2", frames(bye, fr(cl, true, "")), byed)
	add("7.1.3", frames(bye, fr(ping, true, "")), byed)
	add("7.1.4", frames(bye, fr(txt, true, hello)), byed)
	add("7.1.5", frames(fr(txt, false, f1), bye, fr(cont, true, f2)), byed)
	big := strings.Repeat("BAsd7&jh23", 26215)[:256<<10]
	add("7.1.6", frames(fr(txt, true, big), fr(txt, true, hello), bye, fr(ping, true, "")), "text "+big, first, byed)
	add("7.3.1", frames(fr(cl, true, "")), "close ")
	add("7.3.2", frames(fr(cl, true, "a")), wrongProtocol)
	add("7.3.3", frames(bye), byed)
	add("7.3.4", frames(fr(cl, true, closeBody(1000, "Hello World!"))), "close "+closeBody(1000, "Hello World!"))
	s123 := strings.Repeat("*", 123)
	add("7.3.5", frames(fr(cl, true, closeBody(1000, s123))), "close "+closeBody(1000, s123))
	add("7.3.6", frames(fr(cl, true, closeBody(1000, s123+"*"))), wrongProtocol)
	add("7.5.1", frames(fr(cl, true, closeBody(1000, surrogate))), wrongUTF8)
	for i, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		add(fmt.Sprintf("7.7.%d", i+1), frames(fr(cl, true, closeBody(code, ""))), "close "+closeBody(code, ""))
	}
	for i, code := range []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		add(fmt.Sprintf("7.9.%d", i+1), frames(fr(cl, true, closeBody(code, ""))), wrongProtocol)
	}
	for i, code := range []uint16{5000, 65535} {
		add(fmt.Sprintf("7.13.%d", i+1), frames(fr(cl, true, closeBody(code, ""))), wrongProtocol)
	}

	// 10: fragments of an odd size.
	stars := strings.Repeat("*", 65536)
	add("10.1.1", frames(fragments(txt, stars, 1300)...), "text "+stars)

	// What Autobahn does not ask for.
	for group, list := range utf8Cases() {
		for i, c := range list {
			want := wrongUTF8
			if c.valid {
				want = "text " + c.text
			}
			add(fmt.Sprintf("6.%d.%d, a byte a fragment", group+5, i+1), frames(octets(c.text)...), want)
		}
	}
	for i, code := range []uint16{1012, 1013, 1014} { // IANA's
		add(fmt.Sprintf("tote.%d", i+1), frames(fr(cl, true, closeBody(code, ""))), "close "+closeBody(code, ""))
	}
	add("tote.4, code 1015", frames(fr(cl, true, closeBody(1015, ""))), wrongProtocol)
	add("tote.5, unmasked", ws.MustCompileFrame(fr(txt, true, "Hello")), wrongProtocol)
	add("tote.6, length 125 in 16 bits", []byte{0x81, 0x80 | 126, 0, 125, 1, 2, 3, 4}, wrongProtocol)
	add("tote.7, length 65,535 in 64 bits", []byte{0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4}, wrongProtocol)
	add("tote.8, length of 2^63", []byte{0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, wrongProtocol)
	add("tote.9, 10 MB, of which only the header comes", masked(fr(txt, true, strings.Repeat("a", 10<<20)))[:14], wrongSize)
	big = strings.Repeat("a", testMessageMax/2)
	add("tote.10, one byte too many in the last fragment", frames(fr(txt, false, big), fr(cont, false, big), fr(cont, true, "a"))[:2*len(big)+3*14], wrongSize)
	add("tote.11, binary that is no UTF-8, cut", frames(fragments(bin, surrogate, 13)...), "binary "+surrogate)
	return rows
}

const (
	txt, bin, cont = ws.OpText, ws.OpBinary, ws.OpContinuation
	ping, pong, cl = ws.OpPing, ws.OpPong, ws.OpClose
)

func octets(s string) []ws.Frame { return fragments(txt, s, 1) }

func fragments(op ws.OpCode, s string, n int) (fs []ws.Frame) {
	for ; len(s) > n; s = s[n:] {
		fs = append(fs, fr(op, false, s[:n]))
		op = cont
	}
	return append(fs, fr(op, true, s))
}

// kosme is a Greek word of five letters in eleven bytes.
const kosme = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"

type utf8Case struct {
	text  string
	valid bool
}

// utf8Cases are the groups 6.5 to 6.23, after Markus Kuhn's UTF-8 decoder stress test.
func utf8Cases() [][]utf8Case {
	list := func(valid bool, hexes ...string) (l []utf8Case) {
		for _, h := range hexes {
			b, err := hex.DecodeString(h)
			if err != nil {
				panic(err)
			}
			l = append(l, utf8Case{string(b), valid})
		}
		return l
	}
	var prefixes []utf8Case
	for i := range len(kosme) {
		prefix := kosme[:i+1]
		prefixes = append(prefixes, utf8Case{prefix, strings.ToValidUTF8(prefix, "") == prefix})
	}
	run := func(from, to byte, between string) utf8Case {
		var b []byte
		for c := from; c < to; c++ {
			b = append(append(b, c), between...)
		}
		return utf8Case{string(b), false}
	}
	missing := list(false, "c0", "e080", "f08080", "f8808080", "fc80808080", "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf")
	var all utf8Case
	for _, c := range missing {
		all.text += c.text
	}
	nonCharacters := []string{"efbfbe", "efbfbf"}
	for _, plane := range []string{"f09f", "f0af", "f0bf", "f18f", "f19f", "f1af", "f1bf", "f28f", "f29f", "f2af", "f2bf", "f38f", "f39f", "f3af", "f3bf", "f48f"} {
		nonCharacters = append(nonCharacters, plane+"bfbe", plane+"bfbf")
	}
	return [][]utf8Case{
		list(true, "68656c6c6f24776f726c64", "68656c6c6fc2a2776f726c64", "68656c6c6fe282ac776f726c64", "68656c6c6ff0a4ada2776f726c64", "cebae1bdb9cf83cebcceb5"),
		prefixes,
		list(true, "00", "c280", "e0a080", "f0908080"),
		list(false, "f888808080", "fc8480808080"),
		list(true, "7f", "dfbf", "efbfbf", "f48fbfbf"),
		list(false, "f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf"),
		append(list(true, "ed9fbf", "ee8080", "efbfbd", "f48fbfbf"), list(false, "f4908080")...),
		append(list(false, "80", "bf", "80bf", "80bf80", "80bf80bf", "80bf80bf80", "80bf80bf80bf"), run(0x80, 0xbf, "")),
		{run(0xc0, 0xdf, " "), run(0xe0, 0xef, " "), run(0xf0, 0xf7, " "), run(0xf8, 0xfb, " "), run(0xfc, 0xfd, " ")},
		missing,
		{all},
		list(false, "fe", "ff", "fefeffff"),
		list(false, "c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"),
		list(false, "c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf"),
		list(false, "c080", "e08080", "f0808080", "f880808080", "fc8080808080"),
		list(false, "eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf"),
		list(false, "eda080edb080", "eda080edbfbf", "edadbfedb080", "edadbfedbfbf", "edae80edb080", "edae80edbfbf", "edafbfedb080", "edafbfedbfbf"),
		list(true, nonCharacters...),
		list(true, "efbfb9", "efbfba", "efbfbb", "efbfbc", "efbfbd", "efbfbe", "efbfbf"),
	}
}

// The table has every case of Autobahn's groups, once.
func TestConformanceComplete(t *testing.T) {
	seen := map[string]int{}
	for _, r := range conformance {
		if !strings.Contains(r.name, "tote") && !strings.Contains(r.name, ",") {
			group := r.name[:strings.LastIndex(r.name, ".")]
			seen[group]++
		}
	}
	for group, n := range map[string]int{
		"1.1": 8, "1.2": 8, "2": 11, "3": 7, "4.1": 5, "4.2": 5, "5": 20, "6.1": 3, "6.2": 4, "6.3": 2, "6.4": 4,
		"6.5": 5, "6.6": 11, "6.7": 4, "6.8": 2, "6.9": 4, "6.10": 3, "6.11": 5, "6.12": 8, "6.13": 5, "6.14": 10, "6.15": 1,
		"6.16": 3, "6.17": 5, "6.18": 5, "6.19": 5, "6.20": 7, "6.21": 8, "6.22": 34, "6.23": 7,
		"7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2, "10.1": 1,
	} {
		if seen[group] != n {
			t.Errorf("group %s has %d cases, want %d", group, seen[group], n)
		}
		delete(seen, group)
	}
	if len(seen) > 0 {
		t.Errorf("groups that Autobahn does not have: %v", seen)
	}
}

// serveEcho runs an engine that sends every message back, text as text and binary as binary: the same parser,
// the same lanes, the same sockets.
func serveEcho(t testing.TB, messageMax int, off bool) *Engine {
	c := Config{Loops: 1, TLS: serving(), Limits: Limits{
		MessageBytes: messageMax, LaneBytes: 1 << 30, Frames: 1 << 30, HelloTime: time.Hour, MessageTime: time.Hour,
		DeflateMin: 1, DeflateRate: 1 << 40,
	}}
	if off {
		c.Deflate = -1
	}
	e, _ := serve(t, c)
	onLoop(e, 0, func(l *loop) {
		l.kinds = [2]kinds{texts | binaries, texts | binaries}
		l.heard = func(s *session, kind event, message []byte) {
			op := txt
			if kind == eventBinary {
				op = bin
			}
			if b := l.lane(s); b != nil {
				b.B = l.pack(s, appendFrame(b.B, op, message), b.Len())
			}
		}
	})
	return e
}

// caseClient sends cases to an echo server, one connection after the other, each read by the server as it was
// cut.
type caseClient struct {
	t     *testing.T
	e     *Engine
	offer string // of extensions
	name  string // of the case
	c     *client
	sent  uint64 // to the engine, by all connections
	tls   *tls.Config
	wire  *wire // of a connection with TLS
}

func (k *caseClient) connect() {
	if k.c != nil {
		return
	}
	if k.tls == nil {
		k.c = dial(k.t, k.e)
	} else {
		k.c = dialAddress(k.t, k.e.TLSAddr().String())
		k.wire = k.c.secure(k.tls)
		k.sent += k.wire.take()
	}
	request := withExtensions(k.offer)
	k.write([]byte(request))
	k.c.readUpgrade()
	settled(k.t, k.e, k.sent)
	// Players' sockets have small buffers; over loopback, whose segments are larger, each would wait for a delayed
	// acknowledgement.
	onLoop(k.e, 0, func(l *loop) {
		for _, p := range l.places {
			if p.session != nil {
				fd := p.session.fd()
				_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
				_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 4<<20)
			}
		}
	})
}

func (k *caseClient) send(pieces ...[]byte) {
	k.connect()
	if err := k.c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		k.t.Fatal(err)
	}
	for _, p := range pieces {
		k.write(p)
		settled(k.t, k.e, k.sent)
	}
}

func (k *caseClient) write(p []byte) {
	k.c.write(p)
	if k.tls == nil {
		k.sent += uint64(len(p))
		return
	}
	k.sent += k.wire.take()
}

// expect reads what a case is answered with.
func (k *caseClient) expect(name string, want []string) {
	k.t.Helper()
	for _, w := range want {
		kind, rest, _ := strings.Cut(w, " ")
		op, payload := map[string]ws.OpCode{"text": txt, "binary": bin, "ping": pong, "close": cl, "wrong": cl}[kind], rest
		switch kind {
		case "pong":
			continue
		case "wrong":
			var code proto.CloseCode
			if _, err := fmt.Sscan(rest, &code); err != nil {
				k.t.Fatal(err)
			}
			payload = closeBody(uint16(code), code.Reason())
		}
		if f := k.c.frame(); f.Header.OpCode != op || string(f.Payload) != payload || f.Header.Rsv != 0 {
			k.t.Fatalf("%s: %.60q is answered by %v %.60q, want %.60q", name, w, f.Header, f.Payload, payload)
		}
		if op == cl {
			k.c.expectEnd()
			k.c.conn.Close()
			k.c = nil
		}
	}
}

// goodbye ends the connection as Autobahn does after a case that leaves it open.
func (k *caseClient) goodbye(name string) {
	k.t.Helper()
	if k.c != nil {
		k.send(frames(fr(cl, true, closeBody(1000, ""))))
		k.expect(name+", goodbye", []string{"close " + closeBody(1000, "")})
	}
}

// withExtensions is the opening handshake with an offer.
func withExtensions(offer string) string {
	if offer == "" {
		return upgradeRequest
	}
	return strings.TrimSuffix(upgradeRequest, "\r\n") + "Sec-WebSocket-Extensions: " + offer + "\r\n\r\n"
}

// socketCuts are the places where a case is cut on its way through a socket: all of a small one; of a large one
// those in and behind its first header, around 64 KiB (the engine reads as much at once), at its end, and some
// others.
func socketCuts(in []byte, some int) (cuts []int) {
	if len(in) <= 400 {
		for i := 1; i < len(in); i++ {
			cuts = append(cuts, i)
		}
		return cuts
	}
	cuts = []int{1, 2, 3, 5, 9, 10, 13, 14, 15, len(in) - 1}
	for _, around := range []int{readBuffer, 2 * readBuffer} {
		cuts = append(cuts, around-1, around, around+1, around+14)
	}
	random := rand.New(rand.NewPCG(uint64(len(in)), 12))
	random.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
	cuts = cuts[:min(len(cuts), some)]
	for range some / 4 {
		cuts = append(cuts, 1+random.IntN(len(in)-1))
	}
	return slices.DeleteFunc(cuts, func(cut int) bool { return cut >= len(in) })
}

// Groups 1 to 7 and 10 over sockets: each case whole, as Autobahn chops it, byte by byte, and cut at every
// boundary.
func TestConformanceOverSockets(t *testing.T) {
	groups := map[string][]row{}
	for _, r := range conformance {
		group, _, _ := strings.Cut(r.name, ".")
		groups[group] = append(groups[group], r)
	}
	for group, rows := range groups {
		t.Run("group "+group, func(t *testing.T) {
			t.Parallel()
			k := &caseClient{t: t, e: serveEcho(t, testMessageMax, false)}
			for _, r := range rows {
				k.send(r.in)
				k.expect(r.name, r.want)
				k.goodbye(r.name)
				if r.chop > 0 {
					k.send(pieces(r.in, r.chop)...)
					k.expect(fmt.Sprintf("%s in pieces of %d", r.name, r.chop), r.want)
				}
				if len(r.in) <= 80 {
					k.send(pieces(r.in, 1)...)
					k.expect(r.name+" byte by byte", r.want)
				}
				for _, cut := range socketCuts(r.in, 16) {
					k.send(r.in[:cut], r.in[cut:])
					k.expect(fmt.Sprintf("%s cut at %d", r.name, cut), r.want)
				}
			}
			k.goodbye("the last")
		})
	}
}

// The same over TLS, where each piece is a record: whole, chopped, byte by byte, and cut at some places.
func TestConformanceOverTLS(t *testing.T) {
	t.Parallel()
	k := &caseClient{t: t, e: serveEcho(t, testMessageMax, false), tls: trusting(0)}
	for _, r := range conformance {
		k.send(r.in)
		k.expect(r.name, r.want)
		if r.chop > 0 {
			k.send(pieces(r.in, r.chop)...)
			k.expect(fmt.Sprintf("%s in pieces of %d", r.name, r.chop), r.want)
		}
		if len(r.in) <= 20 {
			k.send(pieces(r.in, 1)...)
			k.expect(r.name+" byte by byte", r.want)
		}
		if cut := len(r.in) / 2; cut > 0 {
			k.send(r.in[:cut], r.in[cut:])
			k.expect(fmt.Sprintf("%s cut at %d", r.name, cut), r.want)
		}
	}
	k.goodbye("the last")
}

// messageMax9 is what group 9 needs.
const messageMax9 = 16 << 20

// Group 9.1 to 9.6: large messages, whole, in fragments, and in chops.
func TestConformanceLarge(t *testing.T) {
	const kB, mB = 1 << 10, 1 << 20
	for i, op := range []ws.OpCode{txt, bin} {
		kind := []string{"text ", "binary "}[i]
		payload := strings.Repeat([]string{"BAsd7&jh23", "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"}[i], messageMax9/8)
		t.Run(strings.TrimSpace(kind), func(t *testing.T) {
			t.Parallel()
			k := &caseClient{t: t, e: serveEcho(t, messageMax9, false)}
			for j, n := range []int{64 * kB, 256 * kB, mB, 4 * mB, 8 * mB, 16 * mB} {
				name := fmt.Sprintf("9.%d.%d", 1+i, j+1)
				k.cutSomewhere(name, frames(fr(op, true, payload[:n])), kind+payload[:n])
			}
			for j, n := range []int{64, 256, kB, 4 * kB, 16 * kB, 64 * kB, 256 * kB, mB, 4 * mB} {
				name := fmt.Sprintf("9.%d.%d", 3+i, j+1)
				k.cutSomewhere(name, frames(fragments(op, payload[:4*mB], n)...), kind+payload[:4*mB])
			}
			in := frames(fr(op, true, payload[:mB]))
			for j, n := range []int{64, 128, 256, 512, 1024, 2048} {
				for _, piece := range pieces(in, n) {
					k.write(piece)
				}
				k.expect(fmt.Sprintf("9.%d.%d", 5+i, j+1), []string{kind + payload[:mB]})
			}
			k.goodbye("9")
		})
	}
}

func (k *caseClient) cutSomewhere(name string, in []byte, want string) {
	k.t.Helper()
	k.send(in)
	k.expect(name, []string{want})
	some := 8
	if len(in) > 1<<20 {
		some = 2
	}
	for _, cut := range socketCuts(in, some) {
		k.send(in[:cut], in[cut:])
		k.expect(fmt.Sprintf("%s cut at %d", name, cut), []string{want})
	}
}

// Groups 9.7 and 9.8: a thousand small messages, one after the other, and all at once.
func TestConformanceRoundTrips(t *testing.T) {
	t.Parallel()
	k := &caseClient{t: t, e: serveEcho(t, testMessageMax, false)}
	for i, op := range []ws.OpCode{txt, bin} {
		for j, n := range []int{0, 16, 64, 256, 1024, 4096} {
			name := fmt.Sprintf("9.%d.%d", 7+i, j+1)
			payload := strings.Repeat([]string{"*", "\xfe"}[i], n)
			in, want := frames(fr(op, true, payload)), []string{[]string{"text ", "binary "}[i] + payload}
			k.connect()
			for range 1000 {
				k.write(in)
				k.expect(name, want)
			}
			const pipelined = 64 << 10 // less than the buffers on the way, or we would have to read meanwhile
			times := min(1000, pipelined/len(in))
			k.send(bytes.Repeat(in, times))
			for range times {
				k.expect(name+" at once", want)
			}
		}
	}
	k.goodbye("9.8")
}

// tote.json is text: binary messages are refused, though the frame layer takes them.
func TestBinaryRefused(t *testing.T) {
	e, _ := serve(t, Config{})
	c := upgraded(t, e)
	c.write(frames(fr(bin, true, "{}")))
	c.expectClose(proto.CloseData)
}

// The parser alone, with the whole table and all cuts: quick enough for each of them.
func TestConformance(t *testing.T) {
	for _, c := range conformance {
		check := func(how string, pieces ...[]byte) {
			if got := parse(newParser(texts|binaries, false), pieces...); !slices.Equal(got, c.want) {
				t.Errorf("%s, %s: found %.200q, want %.200q", c.name, how, got, c.want)
			}
		}
		check("whole", c.in)
		for _, cut := range cutsOf(c.in) {
			check(fmt.Sprintf("cut at %d", cut), c.in[:cut], c.in[cut:])
		}
		for _, n := range []int{1, 3, 7} {
			check(fmt.Sprintf("in pieces of %d", n), pieces(c.in, n)...)
		}
	}
}
