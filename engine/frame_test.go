package engine

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/valyala/bytebufferpool"

	"tote/server/proto"
)

// conformance has the cases of the Autobahn test suite that a server of text messages meets, groups 1 to 7, 9
// and 10, by their numbers there. want is what the parser finds, in order. Where Autobahn expects an echo,
// finding the message is what counts; where it sends binary messages, tote.json refuses them (1003).
var conformance = buildConformance()

type conformanceCase struct {
	name string
	in   []byte
	want []string
}

type row = conformanceCase

func frames(fs ...ws.Frame) []byte {
	var b []byte
	for _, f := range fs {
		b = append(b, masked(f)...)
	}
	return b
}

func fr(op ws.OpCode, fin bool, payload string) ws.Frame {
	return ws.NewFrame(op, fin, []byte(payload))
}

func rsv(f ws.Frame, bits byte) ws.Frame {
	f.Header.Rsv = bits
	return f
}

func closeBody(code uint16, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, code)) + reason
}

func unhex(s string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return string(b)
}

const (
	txt, bin, cont = ws.OpText, ws.OpBinary, ws.OpContinuation
	ping, pong, cl = ws.OpPing, ws.OpPong, ws.OpClose

	wrongProtocol, wrongData, wrongUTF8, wrongSize = "wrong 1002", "wrong 1003", "wrong 1007", "wrong 1009"
)

func buildConformance() (rows []row) {
	add := func(name string, in []byte, want ...string) { rows = append(rows, row{name, in, want}) }

	// 1: text and binary messages of all sizes of the length field.
	for i, n := range []int{0, 125, 126, 127, 128, 65535, 65536} {
		s := strings.Repeat("*", n)
		add(fmt.Sprintf("1.1.%d text of %d", i+1, n), frames(fr(txt, true, s)), "text "+s)
		add(fmt.Sprintf("1.2.%d binary of %d", i+1, n), frames(fr(bin, true, s)), wrongData)
	}

	// 2: pings and pongs.
	add("2.1 ping without payload", frames(fr(ping, true, "")), "ping ")
	add("2.2 ping with text", frames(fr(ping, true, "Hello, world!")), "ping Hello, world!")
	add("2.3 ping with bytes", frames(fr(ping, true, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff")), "ping \x00\xff\xfe\xfd\xfc\xfb\x00\xff")
	s125 := strings.Repeat("\xfe", 125)
	add("2.4, 2.6 ping of 125", frames(fr(ping, true, s125)), "ping "+s125)
	add("2.5 ping of 126", frames(fr(ping, true, s125+"\xfe")), wrongProtocol)
	add("2.7 pong without payload", frames(fr(pong, true, "")), "pong ")
	add("2.8 pong with payload", frames(fr(pong, true, "unsolicited")), "pong unsolicited")
	add("2.9 pong, then ping", frames(fr(pong, true, "p"), fr(ping, true, "q")), "pong p", "ping q")
	var pings []ws.Frame
	var pinged []string
	for i := range 10 {
		p := fmt.Sprintf("payload-%d", i)
		pings, pinged = append(pings, fr(ping, true, p)), append(pinged, "ping "+p)
	}
	add("2.10, 2.11 ten pings", frames(pings...), pinged...)

	// 3: reserved bits.
	for i, f := range []ws.Frame{
		rsv(fr(txt, true, "small"), 1), rsv(fr(txt, true, "small"), 2), rsv(fr(txt, true, "small"), 3), rsv(fr(txt, true, "small"), 4),
		rsv(fr(bin, true, "\xff\xfe"), 5), rsv(fr(ping, true, "small"), 6), rsv(fr(cl, true, ""), 7),
	} {
		add(fmt.Sprintf("3.%d reserved bits %d", i+1, f.Header.Rsv), frames(fr(txt, true, "first"), f, fr(ping, true, "")), "text first", wrongProtocol)
	}

	// 4: reserved opcodes, of data and of control frames.
	for i := range byte(5) {
		for _, op := range []ws.OpCode{ws.OpCode(3 + i), ws.OpCode(11 + i)} {
			add(fmt.Sprintf("4.%d.%d opcode %d", 1+op/8, i+1, op), frames(fr(txt, true, "first"), fr(op, true, "x"), fr(ping, true, "")), "text first", wrongProtocol)
		}
	}

	// 5: fragments.
	add("5.1 ping in fragments", frames(fr(ping, false, "a"), fr(cont, true, "b")), wrongProtocol)
	add("5.2 pong in fragments", frames(fr(pong, false, "a"), fr(cont, true, "b")), wrongProtocol)
	add("5.3-5.5 text in two", frames(fr(txt, false, "frag1"), fr(cont, true, "frag2")), "text frag1frag2")
	add("5.6-5.8 ping between", frames(fr(txt, false, "frag1"), fr(ping, true, "p"), fr(cont, true, "frag2")), "ping p", "text frag1frag2")
	add("5.9-5.12 continuation of nothing", frames(fr(cont, true, "none"), fr(txt, true, "t")), wrongProtocol)
	add("5.13, 5.14 continuation of nothing, not final", frames(fr(cont, false, "none"), fr(txt, true, "t")), wrongProtocol)
	add("5.15 continuation after the end", frames(fr(txt, false, "a"), fr(cont, true, "b"), fr(cont, false, "c"), fr(txt, true, "d")), "text ab", wrongProtocol)
	add("5.16, 5.17 continuation first, again and again", frames(fr(cont, false, "a"), fr(txt, false, "b"), fr(cont, true, "c")), wrongProtocol)
	add("5.18 text inside of a text", frames(fr(txt, false, "a"), fr(txt, true, "b")), wrongProtocol)
	add("5.19, 5.20 five fragments, pings between", frames(
		fr(txt, false, "f1"), fr(cont, false, "f2"), fr(ping, true, "p1"), fr(cont, false, "f3"), fr(cont, false, "f4"), fr(ping, true, "p2"), fr(cont, true, "f5")),
		"ping p1", "ping p2", "text f1f2f3f4f5")

	// 6: UTF-8, as it arrives.
	kosme := "κόσμε"
	add("6.1.1 empty", frames(fr(txt, true, "")), "text ")
	add("6.1.2 three empty fragments", frames(fr(txt, false, ""), fr(cont, false, ""), fr(cont, true, "")), "text ")
	add("6.1.3 empty but for the middle", frames(fr(txt, false, ""), fr(cont, false, "middle"), fr(cont, true, "")), "text middle")
	hello := "Hello-µ@ßöäüàá-UTF-8!!"
	add("6.2.1 whole", frames(fr(txt, true, hello)), "text "+hello)
	add("6.2.2 cut between code points", frames(fr(txt, false, hello[:12]), fr(cont, true, hello[12:])), "text "+hello)
	add("6.2.3, 6.2.4 a byte a fragment", frames(octets(hello)...), "text "+hello)
	add("6.3.1 a surrogate", frames(fr(txt, true, kosme+"\xed\xa0\x80edited")), wrongUTF8)
	add("6.3.2 a surrogate, a byte a fragment", frames(octets(kosme+"\xed\xa0\x80edited")...), wrongUTF8)
	add("6.4.1 above the last code point, in the second fragment", frames(fr(txt, false, kosme), fr(cont, false, "\xf4\x90\x80\x80"), fr(cont, true, "edited")), wrongUTF8)
	add("6.4.2 cut within the code point", frames(fr(txt, false, kosme+"\xf4"), fr(cont, false, "\x90"), fr(cont, true, "")), wrongUTF8)
	add("6.4.3, 6.4.4 in one frame", frames(fr(txt, true, kosme+"\xf4\x90\x80\x80edited")), wrongUTF8)
	for _, group := range utf8Cases {
		for i, h := range group.hex {
			s, want := unhex(h), wrongUTF8
			if group.valid {
				want = "text " + s
			}
			add(fmt.Sprintf("%s.%d %s", group.name, i+1, h), frames(fr(txt, true, s)), want)
			add(fmt.Sprintf("%s.%d %s, a byte a fragment", group.name, i+1, h), frames(octets(s)...), want)
		}
	}

	// 7: the closing handshake.
	add("7.1.1 text, then close", frames(fr(txt, true, "Hello"), fr(cl, true, closeBody(1000, ""))), "text Hello", "close "+closeBody(1000, ""))
	add("7.1.2-7.1.4 whatever after close", frames(fr(cl, true, ""), fr(cl, true, ""), fr(ping, true, ""), fr(txt, true, "x")), "close ")
	add("7.1.5 close between fragments", frames(fr(txt, false, "a"), fr(cl, true, ""), fr(cont, true, "b")), "close ")
	add("7.3.1 empty", frames(fr(cl, true, "")), "close ")
	add("7.3.2 one byte", frames(fr(cl, true, "a")), wrongProtocol)
	add("7.3.3 a code", frames(fr(cl, true, closeBody(1000, ""))), "close "+closeBody(1000, ""))
	add("7.3.4 a reason", frames(fr(cl, true, closeBody(1000, "Hello World!"))), "close "+closeBody(1000, "Hello World!"))
	s123 := strings.Repeat("*", 123)
	add("7.3.5 a reason of 123", frames(fr(cl, true, closeBody(1000, s123))), "close "+closeBody(1000, s123))
	add("7.3.6 a reason of 124", frames(fr(cl, true, closeBody(1000, s123+"*"))), wrongProtocol)
	add("7.5.1 a reason that is not UTF-8", frames(fr(cl, true, closeBody(1000, kosme+"\xed\xa0\x80edited"))), wrongUTF8)
	for i, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		add(fmt.Sprintf("7.7.%d code %d", i+1, code), frames(fr(cl, true, closeBody(code, ""))), "close "+closeBody(code, ""))
	}
	for i, code := range []uint16{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		add(fmt.Sprintf("7.9.%d code %d", i+1, code), frames(fr(cl, true, closeBody(code, ""))), wrongProtocol)
	}
	for i, code := range []uint16{5000, 65535} {
		add(fmt.Sprintf("7.13.%d code %d", i+1, code), frames(fr(cl, true, closeBody(code, ""))), wrongProtocol)
	}

	// 9 and 10: messages larger than a read, in one frame and in many.
	big := strings.Repeat("*BAd7&jK", 1<<13)
	for _, n := range []int{64, 1300, 4096} {
		add(fmt.Sprintf("9.3, 10.1.1 64 KiB in fragments of %d", n), frames(fragments(big, n)...), "text "+big)
	}
	add("9.1.1 64 KiB", frames(fr(txt, true, big)), "text "+big)

	// What Autobahn does not ask for.
	add("unmasked", ws.MustCompileFrame(fr(txt, true, "Hello")), wrongProtocol)
	add("length 125 in 16 bits", []byte{0x81, 0x80 | 126, 0, 125, 1, 2, 3, 4}, wrongProtocol)
	add("length 65,535 in 64 bits", []byte{0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4}, wrongProtocol)
	add("length of 2^63", []byte{0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, wrongProtocol)
	add("10 MB, of which only the header comes", masked(fr(txt, true, strings.Repeat("a", 10<<20)))[:14], wrongSize)
	add("one byte too many in the last fragment", frames(fr(txt, false, big), fr(cont, false, big), fr(cont, true, "a"))[:2*len(big)+3*14], wrongSize)
	return rows
}

func octets(s string) []ws.Frame { return fragments(s, 1) }

func fragments(s string, n int) (fs []ws.Frame) {
	op := txt
	for ; len(s) > n; s = s[n:] {
		fs = append(fs, fr(op, false, s[:n]))
		op = cont
	}
	return append(fs, fr(op, true, s))
}

var utf8Cases = []struct {
	name  string
	valid bool
	hex   []string
}{
	{"6.5", true, []string{"68656c6c6f24776f726c64", "68656c6c6fc2a2776f726c64", "68656c6c6fe282ac776f726c64", "68656c6c6ff0a4ada2776f726c64", "cebae1bdb9cf83cebcceb5"}},
	{"6.6 cut", false, []string{"ce", "cebae1", "cebae1bd", "cebae1bdb9cf", "cebae1bdb9cf83ce", "cebae1bdb9cf83cebcce"}},
	{"6.6 not cut", true, []string{"ceba", "cebae1bdb9", "cebae1bdb9cf83", "cebae1bdb9cf83cebc", "cebae1bdb9cf83cebcceb5"}},
	{"6.7 first of a length", true, []string{"00", "c280", "e0a080", "f0908080"}},
	{"6.8 first of five and six bytes", false, []string{"f888808080", "fc8480808080"}},
	{"6.9 last of a length", true, []string{"7f", "dfbf", "efbfbf", "f48fbfbf"}},
	{"6.10 last of four, five, six bytes", false, []string{"f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf"}},
	{"6.11 borders", true, []string{"ed9fbf", "ee8080", "efbfbd", "f48fbfbf"}},
	{"6.11 beyond", false, []string{"f4908080"}},
	{"6.12 continuation bytes", false, []string{"80", "bf", "80bf", "80bf80", "80bf80bf", "80bf80bf80", "80bf80bf80bf", "808182838485868788898a8b8c8d8e8f90"}},
	{"6.13 lonely starts", false, []string{"c020c120c220c320", "e020e120e220", "f020f120f220", "f820f920", "fc20"}},
	{"6.14 last byte missing", false, []string{"c0", "e080", "f08080", "f8808080", "fc80808080", "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf"}},
	{"6.15 all of these", false, []string{"c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf"}},
	{"6.16 impossible", false, []string{"fe", "ff", "fefeffff"}},
	{"6.17 overlong slash", false, []string{"c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"}},
	{"6.18 longest overlong", false, []string{"c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf"}},
	{"6.19 overlong zero", false, []string{"c080", "e08080", "f0808080", "f880808080", "fc8080808080"}},
	{"6.20 surrogates", false, []string{"eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf"}},
	{"6.21 pairs of surrogates", false, []string{"eda080edb080", "eda080edbfbf", "edadbfedb080", "edadbfedbfbf", "edae80edb080", "edae80edbfbf", "edafbfedb080", "edafbfedbfbf"}},
	{"6.22 non-characters", true, []string{"efbfbe", "efbfbf", "f09fbfbe", "f09fbfbf", "f0afbfbe", "f0bfbfbf", "f18fbfbe", "f48fbfbe"}},
	{"6.23 specials", true, []string{"efbfb9", "efbfba", "efbfbb", "efbfbc", "efbfbd", "efbfbe", "efbfbf"}},
}

const testMessageMax = 128 << 10

func newParser(k kinds, deflates bool) parser {
	return parser{kit: &kit{max: testMessageMax, buffers: new(bytebufferpool.Pool)}, kinds: k, deflates: deflates}
}

// parse feeds pieces to a parser, each of which may be written over afterwards as gnet does, and returns what it found.
func parse(pieces ...[]byte) (found []string) {
	p := newParser(texts, false)
	for _, piece := range pieces {
		in := bytes.Clone(piece)
		for rest := in; len(rest) > 0; {
			var e event
			var payload []byte
			e, payload, rest = p.next(rest)
			switch e {
			case eventText:
				found = append(found, "text "+string(payload))
			case eventPing:
				found = append(found, "ping "+string(payload))
			case eventPong:
				found = append(found, "pong "+string(payload))
			case eventClose:
				return append(found, "close "+string(payload))
			case eventWrong:
				return append(found, fmt.Sprintf("wrong %d", p.code))
			}
		}
		clear(in)
	}
	return found
}

// cutsOf are the places to cut a case: all, or of a large one those around its ends and some between.
func cutsOf(in []byte) (cuts []int) {
	for i := 1; i < len(in); i++ {
		if len(in) < 4096 || i < 16 || i > len(in)-16 || i%997 == 0 {
			cuts = append(cuts, i)
		}
	}
	return cuts
}

// pieces cuts in every n bytes.
func pieces(in []byte, n int) [][]byte { return slices.Collect(slices.Chunk(in, n)) }

// Every case gives the same, wherever a read cuts it.
func TestConformance(t *testing.T) {
	for _, c := range conformance {
		check := func(how string, pieces ...[]byte) {
			if got := parse(pieces...); !slices.Equal(got, c.want) {
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

// Cases 6.4 are about when: the connection fails at the byte that makes the text wrong, not at the message's end.
func TestUTF8FailsFast(t *testing.T) {
	for _, row := range []struct {
		name string
		in   []byte
		last int // bytes after which the text is wrong
	}{
		{"6.4.1", frames(fr(txt, false, "κόσμε"), fr(cont, false, "\xf4\x90\x80\x80")), 6 + len("κόσμε") + 6 + 2},
		{"6.4.2", frames(fr(txt, false, "κόσμε\xf4"), fr(cont, false, "\x90")), 6 + len("κόσμε") + 1 + 6 + 1},
		{"6.4.3", frames(fr(txt, true, "κόσμε\xf4\x90\x80\x80edited")), 6 + len("κόσμε") + 2},
		{"6.4.4", frames(fr(txt, true, "κόσμε\xf4\x90\x80\x80edited")), 6 + len("κόσμε") + 2},
	} {
		if got := parse(pieces(row.in[:row.last-1], 1)...); len(got) > 0 {
			t.Errorf("%s: %q was found a byte early", row.name, got)
		}
		if got := parse(pieces(row.in[:row.last], 1)...); !slices.Equal(got, []string{wrongUTF8}) {
			t.Errorf("%s: found %q, want %q at once", row.name, got, wrongUTF8)
		}
	}
}

// A parser that has served leaves nothing to the next message, and keeps no buffer.
func TestParserIdle(t *testing.T) {
	for _, c := range conformance {
		if strings.HasPrefix(c.want[len(c.want)-1], "wrong") || strings.HasPrefix(c.want[len(c.want)-1], "close") {
			continue
		}
		p := newParser(texts, false)
		for _, piece := range pieces(bytes.Clone(c.in), 5) {
			for rest := piece; len(rest) > 0; {
				_, _, rest = p.next(rest)
			}
		}
		if !p.idle() {
			t.Errorf("%s: not idle after it", c.name)
		}
		p.reset()
		if zero := (parser{kit: p.kit}); p != zero {
			t.Errorf("%s: %+v is left", c.name, p)
		}
	}
}

// Our frames are what gobwas writes.
func TestSeal(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 70000} {
		payload := bytes.Repeat([]byte("a"), n)
		want := append([]byte("before"), ws.MustCompileFrame(ws.NewTextFrame(payload))...)
		if got := appendFrame([]byte("before"), txt, payload); !bytes.Equal(got, want) {
			t.Errorf("a frame of %d bytes begins % x, want % x", n, got[:min(20, len(got))], want[:min(20, len(want))])
		}
	}
	want := ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1009, "message too big")))
	if got := appendClose(nil, uint16(proto.CloseTooBig), proto.CloseTooBig.Reason()); !bytes.Equal(got, want) {
		t.Errorf("a close frame is % x, want % x", got, want)
	}
}

// naiveParse reads a whole buffer with gobwas, blocking style. It is what the parser must agree with.
func naiveParse(in []byte) (found []string) {
	r := bytes.NewReader(in)
	var message []byte
	state := ws.StateServerSide
	for {
		at := r.Size() - int64(r.Len())
		h, err := ws.ReadHeader(r)
		switch {
		case err == ws.ErrHeaderLengthMSB:
			if len(in)-int(at) < naiveHeaderSize(in[at:]) {
				return found
			}
			return append(found, wrongProtocol)
		case err != nil:
			return found // cut
		case int(r.Size()-int64(r.Len())-at) != ws.HeaderSize(h), ws.CheckHeader(h, state) != nil:
			return append(found, wrongProtocol)
		case h.OpCode == bin:
			return append(found, wrongData)
		case h.OpCode.IsData() && int64(len(message))+h.Length > testMessageMax:
			return append(found, wrongSize)
		}
		payload := make([]byte, min(h.Length, int64(r.Len())))
		if _, err := io.ReadFull(r, payload); err != nil {
			panic(err)
		}
		ws.Cipher(payload, h.Mask, 0)
		cut := int64(len(payload)) < h.Length
		if h.OpCode.IsControl() {
			if cut {
				return found
			}
			switch h.OpCode {
			case ping:
				found = append(found, "ping "+string(payload))
			case pong:
				found = append(found, "pong "+string(payload))
			default:
				return append(found, naiveClose(payload))
			}
			continue
		}
		message = append(message, payload...)
		switch last := h.Fin && !cut; {
		case last && !utf8.Valid(message), !last && !naivePrefix(message):
			return append(found, wrongUTF8)
		case last:
			found = append(found, "text "+string(message))
			message, state = nil, state.Clear(ws.StateFragmented)
		case cut:
			return found
		default:
			state = state.Set(ws.StateFragmented)
		}
	}
}

func naiveHeaderSize(b []byte) int {
	if b[1]&0x80 != 0 {
		return 14
	}
	return 10
}

func naiveClose(body []byte) string {
	if len(body) == 0 {
		return "close "
	}
	code, reason := ws.ParseCloseFrameData(body)
	switch err := ws.CheckCloseFrameData(code, reason); {
	case code >= 5000 || len(body) == 1: // gobwas lets 5000 and more pass
		return wrongProtocol
	case code >= 1012 && code <= 1014: // IANA's, which gobwas does not know
		if !utf8.ValidString(reason) {
			return wrongUTF8
		}
	case err == ws.ErrProtocolInvalidUTF8:
		return wrongUTF8
	case err != nil:
		return wrongProtocol
	}
	return "close " + string(body)
}

// naivePrefix reports whether some bytes after b would make it UTF-8, by trying those at the ends of all ranges.
func naivePrefix(b []byte) bool {
	ends := []byte{0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf}
	var try func(b []byte, more int) bool
	try = func(b []byte, more int) bool {
		if utf8.Valid(b) {
			return true
		}
		if more == 0 {
			return false
		}
		for _, e := range ends {
			if try(append(bytes.Clone(b), e), more-1) {
				return true
			}
		}
		return false
	}
	from := len(b)
	for from > 0 && len(b)-from < 4 {
		from--
		if utf8.Valid(b[:from]) && utf8.RuneStart(b[from]) && try(b[from:], 3) {
			return true
		}
	}
	return utf8.Valid(b)
}

// The naive parser agrees with the table too; else it would prove nothing.
func TestNaiveParse(t *testing.T) {
	for _, c := range conformance {
		if got := naiveParse(bytes.Clone(c.in)); !slices.Equal(got, c.want) {
			t.Errorf("%s: found %.200q, want %.200q", c.name, got, c.want)
		}
	}
}

// Whatever comes, however cut: the parser finds what the naive one finds in the whole.
func FuzzParser(f *testing.F) {
	for _, c := range conformance {
		if len(c.in) < 1024 {
			f.Add(c.in, uint64(len(c.in)))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		want := naiveParse(bytes.Clone(in))
		random := rand.New(rand.NewPCG(seed, 1))
		var cut [][]byte
		for rest := in; len(rest) > 0; {
			n := 1 + random.IntN(min(len(rest), 1+random.IntN(64)))
			cut, rest = append(cut, rest[:n]), rest[n:]
		}
		if got := parse(cut...); !slices.Equal(got, want) {
			t.Fatalf("cut in %d, found %.200q, want %.200q", len(cut), got, want)
		}
		if got := parse(in); !slices.Equal(got, want) {
			t.Fatalf("whole, found %.200q, want %.200q", got, want)
		}
	})
}
