package engine

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/valyala/bytebufferpool"

	"tote/server/proto"
)

// parser cuts what a client sends into messages and control frames (RFC 6455, section 5). It takes payload as
// it arrives, so a frame may be cut anywhere and may be longer than any read; what is whole within one read is
// handed on where it lies, without a copy.
//
//	 0               1               2               3
//	 7 6 5 4 3 2 1 0 7 6 5 4 3 2 1 0 7 6 5 4 3 2 1 0 7 6 5 4 3 2 1 0
//	┌─┬─────┬───────┬─┬─────────────┬───────────────────────────────┐
//	│F│R S V│ opcode│M│ length      │ length, 16 or 64 bits,        │
//	│I│1 2 3│       │A│ 0…125       │ if the 7 bits are 126 or 127  │
//	│N│     │       │S│             │                               │
//	├─┴─────┴───────┴─┴─────────────┼───────────────────────────────┤
//	│ mask, 32 bits                 │ payload, each byte ⊕ mask     │
//	└───────────────────────────────┴───────────────────────────────┘
//
// Compressed messages (RFC 7692) are collected as they come and inflated when they are whole.
//
// Between messages a parser is its zero value but for kit, and no connection keeps one.
type parser struct {
	kit      *kit
	kinds    kinds // of messages that the session takes
	deflates bool  // the first frame of a message may have RSV1

	head   [ws.MaxHeaderSize]byte // of a header that was cut
	headed int                    // bytes of it; 0: none

	h      ws.Header
	inside bool // a frame's header is read, its payload is not
	taken  int  // bytes of that payload that are read; taken <= h.Length

	opcode     ws.OpCode                  // of the open message, or of the last: text or binary
	compressed bool                       // so is it
	fragmented bool                       // a message is open: only continuations may follow (section 5.4)
	message    *bytebufferpool.ByteBuffer // of the message, unmasked; nil until it comes in pieces
	control    *bytebufferpool.ByteBuffer // of a control frame that was cut
	given      bool                       // message was handed on; the next call drops it
	text       tail                       // the end of a cut code point

	code  proto.CloseCode // after eventWrong: why
	since uint32          // tick: of the first byte of the frame, or of the open message
}

// kit is what the parsers of a loop share.
type kit struct {
	max      int                  // bytes of a message
	buffers  *bytebufferpool.Pool // of messages and control payloads that come in pieces
	inflater inflater
	frames   int    // that have begun
	tick     uint32 // of this read
}

// kinds are the opcodes that messages may have.
type kinds uint8

const (
	texts kinds = 1 << iota
	binaries
)

// event is what next found.
type event uint8

const (
	eventNone   event = iota // everything was taken; more must come
	eventText                // a message
	eventBinary              // a message
	eventPing                // a ping's payload
	eventPong                // a pong's
	eventClose               // a close frame's body: empty, or a valid code and a valid reason
	eventWrong               // code says why; nothing more may be fed
)

// next takes bytes from in up to the end of the first thing that is whole, and returns it with the rest. It
// unmasks in place. The payload lies in in or in a buffer of the parser; it is good until the next call.
func (p *parser) next(in []byte) (e event, payload, rest []byte) {
	if p.given {
		p.drop(&p.message)
		p.given = false
	}
	for {
		if !p.inside {
			n, ok := p.header(in)
			if !ok {
				return p.ended()
			}
			in = in[n:]
		}
		n := min(len(in), int(p.h.Length)-p.taken)
		chunk := in[:n]
		in = in[n:]
		ws.Cipher(chunk, p.h.Mask, p.taken)
		p.taken += n
		whole := p.taken == int(p.h.Length)
		if p.h.OpCode.IsControl() {
			if payload, ok := p.controlled(chunk, whole); ok {
				e, payload := p.checked(payload)
				return e, payload, in
			}
		} else if e, payload := p.data(chunk, whole); e != eventNone {
			return e, payload, in
		}
		if len(in) == 0 {
			return eventNone, nil, nil
		}
	}
}

// ended is how next ends where there is no whole header: more must come, or the header is wrong.
func (p *parser) ended() (event, []byte, []byte) {
	if p.code != 0 {
		return eventWrong, nil, nil
	}
	return eventNone, nil, nil
}

// header reads a frame's header, of which a part may have come before. It returns how much of in belongs to it;
// ok is false where it is not whole, and then all of in is kept, or where it breaks a rule, and then code is
// set.
func (p *parser) header(in []byte) (n int, ok bool) {
	from := in
	if p.headed == 0 && !p.fragmented {
		p.since = p.kit.tick
	}
	if p.headed > 0 {
		n = copy(p.head[p.headed:], in)
		from = p.head[:p.headed+n]
	}
	h, size, minimal := readHeader(from)
	if size == 0 {
		if p.headed == 0 {
			n = copy(p.head[:], in)
		}
		p.headed += n
		return n, false
	}
	if p.code = p.judge(h, minimal); p.code != 0 {
		return 0, false
	}
	n = size - p.headed
	p.headed = 0
	p.h, p.inside, p.taken = h, true, 0
	p.kit.frames++
	if begins(h) {
		p.opcode, p.compressed = h.OpCode, h.Rsv == rsv1
	}
	return n, true
}

// readHeader reads a header from the beginning of b; size 0 means that b is too short. It differs from
// ws.ReadHeader in that it consumes nothing of a part and tells whether the length has its shortest form.
func readHeader(b []byte) (h ws.Header, size int, minimal bool) {
	if len(b) < ws.MinHeaderSize {
		return h, 0, false
	}
	h = ws.Header{
		Fin: b[0]&0x80 != 0, Rsv: b[0] >> 4 & 7, OpCode: ws.OpCode(b[0] & 0xf),
		Masked: b[1]&0x80 != 0, Length: int64(b[1] & 0x7f),
	}
	size = 2
	switch h.Length {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if h.Masked {
		size += len(h.Mask)
	}
	if len(b) < size {
		return h, 0, false
	}
	minimal = true
	switch h.Length {
	case 126:
		h.Length = int64(binary.BigEndian.Uint16(b[2:]))
		minimal = h.Length > 125
	case 127:
		h.Length = int64(binary.BigEndian.Uint64(b[2:])) // below 0 where the first bit is set, which it must not be
		minimal = h.Length > 0xffff
	}
	if h.Masked {
		copy(h.Mask[:], b[size-len(h.Mask):size])
	}
	return h, size, minimal
}

// judge applies the rules that a header alone decides, before a byte of payload is awaited.
func (p *parser) judge(h ws.Header, minimal bool) proto.CloseCode {
	state := ws.StateServerSide
	if p.fragmented {
		state = state.Set(ws.StateFragmented)
	}
	compressed := p.compressed && p.fragmented
	if p.deflates && begins(h) && h.Rsv == rsv1 { // RFC 7692, section 6: not on continuations, not on control frames
		compressed, h.Rsv = true, 0
	}
	switch {
	case !minimal: // "the minimal number of bytes MUST be used", and the first bit of 64 MUST be 0: section 5.2
		return proto.CloseProtocol
	case ws.CheckHeader(h, state) != nil:
		return proto.CloseProtocol
	case h.OpCode == ws.OpText && p.kinds&texts == 0, h.OpCode == ws.OpBinary && p.kinds&binaries == 0:
		return proto.CloseData
	case h.OpCode.IsData() && h.Length > int64(p.room(compressed)):
		return proto.CloseTooBig
	}
	return 0
}

// begins says that a frame is a message's first.
func begins(h ws.Header) bool { return h.OpCode == ws.OpText || h.OpCode == ws.OpBinary }

// room is how long the open message may still become. What cannot be compressed grows by 5 bytes in 16,383 or
// so: nobody sends a message that is much longer than what it stands for.
func (p *parser) room(compressed bool) int {
	room := p.kit.max - p.held()
	if compressed {
		room += p.kit.max>>8 + 16
	}
	return room
}

// held is the size of the open message so far.
func (p *parser) held() int {
	if p.message == nil {
		return 0
	}
	return p.message.Len()
}

// controlled collects a control frame's payload, at most 125 bytes.
func (p *parser) controlled(chunk []byte, whole bool) (payload []byte, ok bool) {
	if whole && p.control == nil {
		return chunk, true
	}
	if p.control == nil {
		p.control = p.kit.buffers.Get()
	}
	p.control.B = append(p.control.B, chunk...)
	return p.control.B, whole
}

// checked ends a control frame.
func (p *parser) checked(payload []byte) (event, []byte) {
	p.inside = false
	if p.control != nil {
		// At most 125 bytes, now and then: a copy is simpler than a second buffer to give back later.
		payload = append([]byte(nil), payload...)
		p.drop(&p.control)
	}
	switch p.h.OpCode {
	case ws.OpPing:
		return eventPing, payload
	case ws.OpPong:
		return eventPong, payload
	}
	if p.code = judgeClose(payload); p.code != 0 {
		return eventWrong, nil
	}
	return eventClose, payload
}

// judgeClose applies sections 5.5.1 and 7.4 to the body of a close frame.
func judgeClose(body []byte) proto.CloseCode {
	if len(body) == 0 {
		return 0
	}
	if len(body) == 1 {
		return proto.CloseProtocol // a code has two bytes
	}
	switch code := binary.BigEndian.Uint16(body); {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
	default:
		return proto.CloseProtocol // 1004-1006 and 1015 are never on the wire, the rest has no meaning
	}
	if !utf8.Valid(body[2:]) {
		return proto.CloseUTF8
	}
	return 0
}

// data takes a piece of a message. It returns eventText or eventBinary at the message's end and eventWrong where
// a text is no UTF-8, as soon as that is certain (section 8.1).
func (p *parser) data(chunk []byte, whole bool) (event, []byte) {
	last := whole && p.h.Fin
	if last && p.message == nil && !p.fragmented { // all of it lies in one piece
		p.inside = false
		return p.told(chunk)
	}
	if p.message == nil {
		p.message = p.kit.buffers.Get()
	}
	p.message.B = append(p.message.B, chunk...)
	checked := p.opcode == ws.OpText && !p.compressed
	if checked && (!p.text.follow(chunk) || last && p.text.n > 0) {
		return p.wrong(proto.CloseUTF8)
	}
	if whole {
		p.inside = false
		p.fragmented = !p.h.Fin
	}
	if !last {
		return eventNone, nil
	}
	p.given = true
	if checked {
		return eventText, p.message.B
	}
	return p.told(p.message.B)
}

// told ends a message that was not checked as it came.
func (p *parser) told(message []byte) (event, []byte) {
	if p.compressed {
		var code proto.CloseCode
		if message, code = p.kit.inflater.inflate(message, p.kit.max); code != 0 {
			return p.wrong(code)
		}
	}
	switch {
	case p.opcode == ws.OpBinary:
		return eventBinary, message
	case !utf8.Valid(message):
		return p.wrong(proto.CloseUTF8)
	}
	return eventText, message
}

func (p *parser) wrong(code proto.CloseCode) (event, []byte) {
	p.code = code
	return eventWrong, nil
}

// idle reports whether nothing is kept for the next read, so that the parser can serve another connection.
func (p *parser) idle() bool {
	return p.headed == 0 && !p.inside && !p.fragmented && (p.message == nil || p.given)
}

// reset gives the buffers back.
func (p *parser) reset() {
	p.drop(&p.message)
	p.drop(&p.control)
	*p = parser{kit: p.kit}
}

func (p *parser) drop(b **bytebufferpool.ByteBuffer) {
	if *b != nil {
		p.kit.buffers.Put(*b)
		*b = nil
	}
}

// tail is the end of a text that was cut within a code point: up to 3 bytes that may still become one.
type tail struct {
	b [utf8.UTFMax]byte
	n int
}

// follow reports whether the text can still be UTF-8 after chunk.
func (t *tail) follow(chunk []byte) bool {
	for t.n > 0 && len(chunk) > 0 {
		t.b[t.n] = chunk[0]
		t.n++
		chunk = chunk[1:]
		if !utf8.FullRune(t.b[:t.n]) {
			continue
		}
		if !utf8.Valid(t.b[:t.n]) {
			return false
		}
		t.n = 0
	}
	if t.n > 0 {
		return true // chunk is used up
	}
	end := len(chunk)
	for back := 1; back < utf8.UTFMax && back <= len(chunk); back++ {
		if start := len(chunk) - back; utf8.RuneStart(chunk[start]) {
			if !utf8.FullRune(chunk[start:]) { // false also means: not wrong yet
				end = start
			}
			break
		}
	}
	t.n = copy(t.b[:], chunk[end:])
	return utf8.Valid(chunk[:end])
}

// The server's frames: final, not masked, no reserved bits (section 5.1).

// headRoom is the header of a frame of 126 to 65,535 bytes, the usual size: seal moves other payloads.
const headRoom = 4

// appendFrame appends a whole frame.
func appendFrame(b []byte, op ws.OpCode, payload []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	return seal(append(b, payload...), start, op)
}

// appendMessage appends m as a frame of the codec's kind.
func appendMessage(b []byte, c proto.Codec, m proto.Message) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	op := ws.OpText
	if c.Binary() {
		op = ws.OpBinary
	}
	return seal(c.Append(b, m), start, op)
}

// appendClose appends a close frame; code 0 has no body.
func appendClose(b []byte, code uint16, reason string) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	if code != 0 {
		b = binary.BigEndian.AppendUint16(b, code)
		b = append(b, reason...)
	}
	return seal(b, start, ws.OpClose)
}

// seal writes the header of the frame whose payload begins headRoom after start and ends with b.
func seal(b []byte, start int, op ws.OpCode) []byte {
	n := len(b) - start - headRoom
	switch {
	case n <= 125:
		copy(b[start+2:], b[start+headRoom:])
		b = b[:start+2+n]
		b[start+1] = byte(n)
	case n <= 0xffff:
		b[start+1] = 126
		binary.BigEndian.PutUint16(b[start+2:], uint16(n))
	default:
		b = append(b, 0, 0, 0, 0, 0, 0)
		copy(b[start+10:], b[start+headRoom:start+headRoom+n])
		b[start+1] = 127
		binary.BigEndian.PutUint64(b[start+2:], uint64(n))
	}
	b[start] = 0x80 | byte(op)
	return b
}

func assert(ok bool, what string) {
	if !ok {
		panic(what)
	}
}
