package engine

import (
	"bytes"
	"encoding/binary"
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

const testMessageMax = 256 << 10

func newParser(k kinds, deflates bool) parser {
	return parser{kit: &kit{max: testMessageMax, buffers: new(bytebufferpool.Pool)}, kinds: k, deflates: deflates}
}

// parse feeds pieces to a parser, each of which may be written over afterwards as a loop's buffer is, and returns what it found.
func parse(p parser, pieces ...[]byte) (found []string) {
	for _, piece := range pieces {
		in := bytes.Clone(piece)
		for rest := in; len(rest) > 0; {
			var e event
			var payload []byte
			e, payload, rest = p.next(rest)
			switch e {
			case eventText:
				found = append(found, "text "+string(payload))
			case eventBinary:
				found = append(found, "binary "+string(payload))
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
		if got := parse(newParser(texts, false), pieces(row.in[:row.last-1], 1)...); len(got) > 0 {
			t.Errorf("%s: %q was found a byte early", row.name, got)
		}
		if got := parse(newParser(texts, false), pieces(row.in[:row.last], 1)...); !slices.Equal(got, []string{wrongUTF8}) {
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
		p := newParser(texts|binaries, false)
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
func naiveParse(in []byte, k kinds, deflates bool) (found []string) {
	r := bytes.NewReader(in)
	var message []byte
	var op ws.OpCode
	compressed := false
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
		case int(r.Size()-int64(r.Len())-at) != ws.HeaderSize(h):
			return append(found, wrongProtocol)
		}
		if h.OpCode == txt || h.OpCode == bin {
			marked := deflates && h.Rsv == ws.Rsv(true, false, false)
			if marked {
				h.Rsv = 0
			}
			if !state.Fragmented() {
				op, compressed = h.OpCode, marked
			}
		}
		limit := int64(testMessageMax)
		if compressed {
			limit += testMessageMax/256 + 16
		}
		switch {
		case ws.CheckHeader(h, state) != nil:
			return append(found, wrongProtocol)
		case h.OpCode == txt && k&texts == 0, h.OpCode == bin && k&binaries == 0:
			return append(found, wrongData)
		case h.OpCode.IsData() && int64(len(message))+h.Length > limit:
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
		last := h.Fin && !cut
		if last && compressed {
			var wrong string
			if message, wrong = naiveInflate(message, testMessageMax); wrong != "" {
				return append(found, wrong)
			}
		}
		switch {
		case op == txt && (last && !utf8.Valid(message) || !last && !compressed && !naivePrefix(message)):
			return append(found, wrongUTF8)
		case last:
			found = append(found, map[ws.OpCode]string{txt: "text ", bin: "binary "}[op]+string(message))
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
		if got := naiveParse(bytes.Clone(c.in), texts|binaries, false); !slices.Equal(got, c.want) {
			t.Errorf("%s: found %.200q, want %.200q", c.name, got, c.want)
		}
	}
}

// Whatever comes, however cut: the parser finds what the naive one finds in the whole.
func FuzzParser(f *testing.F) {
	for _, c := range conformance {
		if len(c.in) < 1024 {
			f.Add(c.in, uint64(len(c.in)), false, uint8(texts|binaries))
		}
	}
	for _, c := range deflateRows() {
		if len(c.in) < 1024 {
			f.Add(c.in, uint64(len(c.in)), true, uint8(texts))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, deflates bool, of uint8) {
		k := kinds(of) & (texts | binaries)
		want := naiveParse(bytes.Clone(in), k, deflates)
		random := rand.New(rand.NewPCG(seed, 1))
		var cut [][]byte
		for rest := in; len(rest) > 0; {
			n := 1 + random.IntN(min(len(rest), 1+random.IntN(64)))
			cut, rest = append(cut, rest[:n]), rest[n:]
		}
		if got := parse(newParser(k, deflates), cut...); !slices.Equal(got, want) {
			t.Fatalf("cut in %d, found %.200q, want %.200q", len(cut), got, want)
		}
		if got := parse(newParser(k, deflates), in); !slices.Equal(got, want) {
			t.Fatalf("whole, found %.200q, want %.200q", got, want)
		}
	})
}
