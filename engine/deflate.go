package engine

import (
	"bytes"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws"
	"github.com/klauspost/compress/flate"

	"tote/server/proto"
)

// permessage-deflate (RFC 7692) without context takeover, in both directions: every message is compressed by
// itself. So nothing is kept for a connection but the size of the client's window (one byte), a broadcast is
// compressed once for all who negotiated it, and one inflater serves all connections of a loop.
//
// klauspost/compress, not compress/flate: for images of 3 to 15 kB it takes 0.4 to 0.6 of the time at equal
// size, and inflating allocates nothing (5 allocations for each dynamic Huffman block in the standard library).

// variant is a way in which messages are written: codec × 2 + 1 if they are compressed.
type variant uint8

const (
	plain          variant = iota // JSON
	deflated                      // JSON, compressed
	packed                        // MessagePack
	packedDeflated                // MessagePack, compressed
	variants
)

// variantOf is how messages are written in a codec, without compression.
func variantOf(c proto.Codec) variant { return variant(c) << 1 }

// codec is what the messages are in.
func (v variant) codec() proto.Codec { return proto.Codec(v >> 1) }

// deflates says that messages are compressed where it helps; any of them may also come as it is.
func (v variant) deflates() bool { return v&1 != 0 }

// uncompressed is the same codec without compression.
func (v variant) uncompressed() variant { return v &^ 1 }

const (
	// deflateLevel is where a fifth of the time more no longer makes images smaller by a twentieth.
	deflateLevel = 5

	// deflateSharedMin is the shortest broadcast message worth compressing: shorter ones have nothing that
	// repeats. The price is paid once, so it is lower than that of private messages.
	deflateSharedMin = 64

	// windowMin and windowMax are the bits of a window: section 7.1.2. Our inflater has the largest.
	windowMin = 8
	windowMax = 15

	// rsv1 marks a compressed message, as ws.Header has it and as it lies in the first byte.
	rsv1    = 4
	rsv1Bit = rsv1 << 4
)

const extension = "permessage-deflate"

// The parameters of an offer and of an answer, section 7.1.
const (
	serverNoTakeover = "server_no_context_takeover"
	clientNoTakeover = "client_no_context_takeover"
	serverWindow     = "server_max_window_bits"
	clientWindow     = "client_max_window_bits"
)

// negotiation answers the offers of one handshake; the first that can be accepted is.
type negotiation struct {
	off    bool
	window uint8 // of the accepted offer; 0: none yet
}

// negotiate answers an offer. What is offered wrongly is declined, not an error: the client may have offered
// something else behind it, and can do without.
func (n *negotiation) negotiate(offer httphead.Option) (answer httphead.Option, err error) {
	if n.off || n.window != 0 || string(offer.Name) != extension {
		return answer, nil
	}
	window, ok := readOffer(offer)
	if !ok {
		return answer, nil
	}
	n.window = window
	answer.Name = []byte(extension)
	answer.Parameters.Set([]byte(serverNoTakeover), nil)
	answer.Parameters.Set([]byte(clientNoTakeover), nil) // a client must obey even if it did not offer it
	if _, limited := offer.Parameters.Get(serverWindow); limited {
		answer.Parameters.Set([]byte(serverWindow), strconv.AppendUint(nil, uint64(window), 10))
	}
	return answer, nil // client_max_window_bits need no answer
}

// readOffer returns the window that the server may use. ok is false for an unknown parameter, one that comes
// twice, and a value that is none (section 7.1: "MUST decline").
func readOffer(offer httphead.Option) (window uint8, ok bool) {
	window, ok = windowMax, true
	var seen []string
	offer.Parameters.ForEach(func(name, value []byte) bool {
		ok = !slices.Contains(seen, string(name))
		seen = append(seen, string(name))
		switch string(name) {
		case serverNoTakeover, clientNoTakeover:
			ok = ok && len(value) == 0
		case clientWindow:
			ok = ok && (len(value) == 0 || windowBits(value) != 0)
		case serverWindow:
			window = windowBits(value)
			ok = ok && window != 0
		default:
			ok = false
		}
		return ok
	})
	return window, ok
}

// windowBits reads 8 to 15, without leading zeros; 0: it is none of these.
func windowBits(value []byte) uint8 {
	bits, err := strconv.ParseUint(string(value), 10, 8)
	if err != nil || bits < windowMin || bits > windowMax || value[0] == '0' || value[0] == '+' {
		return 0
	}
	return uint8(bits)
}

// deflater compresses messages, one by one. It has about a megabyte, so there are few, in Engine.deflaters.
type deflater struct {
	flate *flate.Writer
	out   []byte
}

func newDeflater(level int) *deflater {
	d := &deflater{}
	var err error
	d.flate, err = flate.NewWriter(d, level)
	assert(err == nil, "New has checked the level")
	return d
}

func (d *deflater) Write(p []byte) (int, error) {
	d.out = append(d.out, p...)
	return len(p), nil
}

// syncTail ends what flate flushes: an empty stored block. It is left out on the wire (section 7.2.1).
const syncTail = "\x00\x00\xff\xff"

// append appends the compressed message to b.
func (d *deflater) append(b, message []byte) []byte {
	d.out = b
	d.flate.Reset(d)
	_, err := d.flate.Write(message)
	assert(err == nil, "memory takes all")
	err = d.flate.Flush()
	assert(err == nil, "memory takes all")
	b, d.out = d.out, nil
	assert(string(b[len(b)-len(syncTail):]) == syncTail, "a flush ends with an empty stored block")
	return b[:len(b)-len(syncTail)]
}

// appendFrame appends a frame of ours compressed, or as it is where that is not shorter.
func (d *deflater) appendFrame(b, frame []byte) []byte {
	payload := payloadOf(frame)
	start := len(b)
	b = d.append(append(b, 0, 0, 0, 0), payload)
	if len(b)-start-headRoom >= len(payload) {
		return append(b[:start], frame...)
	}
	b = seal(b, start, ws.OpCode(frame[0]&0xf))
	b[start] |= rsv1Bit
	return b
}

// payloadOf is the payload of a frame that seal has made.
func payloadOf(frame []byte) []byte {
	switch frame[1] {
	case 126:
		return frame[4:]
	case 127:
		return frame[10:]
	}
	return frame[2:]
}

// inflater restores messages, one by one; a loop has one. It is made when the first compressed message comes
// (44 kB), and out grows to the longest message.
type inflater struct {
	flate  inflating
	source bytes.Reader
	in     []byte // a message with inflateTail
	out    []byte
	done   uint64 // messages
	bombs  uint64 // messages that would have become longer than allowed
}

type inflating interface {
	Read(p []byte) (int, error)
	flate.Resetter
}

// inflateTail is what the sender has left out (section 7.2.2), and a last block, so that the reader finds an end.
const inflateTail = syncTail + "\x01\x00\x00\xff\xff"

// streamsMax is the number of streams in a message: a sender may end one with every flush instead of an empty
// block (section 7.2.3.4), which nobody is known to do.
const streamsMax = 16

// inflate restores a message of at most max bytes. What it returns is good until the next call.
func (f *inflater) inflate(message []byte, max int) ([]byte, proto.CloseCode) {
	if f.flate == nil {
		f.flate = flate.NewReader(&f.source).(inflating)
	}
	f.in = append(append(f.in[:0], message...), inflateTail...)
	f.source.Reset(f.in)
	f.out = f.out[:0]
	f.done++
	if len(message) == 0 { // should be one byte, of an empty block; what else could it mean
		return f.out, 0
	}
	for range streamsMax {
		if code := f.stream(max); code != 0 {
			return nil, code
		}
		if f.source.Len() <= len(inflateTail) { // more, if the sender ended a stream before the end
			return f.out, 0
		}
	}
	return nil, proto.CloseProtocol
}

// stream restores up to the next last block.
func (f *inflater) stream(max int) proto.CloseCode {
	window := f.out[len(f.out)-min(len(f.out), 1<<windowMax):]
	if err := f.flate.Reset(&f.source, window); err != nil {
		return proto.CloseProtocol
	}
	for {
		if len(f.out) == cap(f.out) {
			f.out = slices.Grow(f.out, 512)
		}
		room := f.out[len(f.out):min(cap(f.out), max+1)] // one more than allowed, to see that it is
		n, err := f.flate.Read(room)
		f.out = f.out[:len(f.out)+n]
		switch {
		case len(f.out) > max:
			f.bombs++
			return proto.CloseTooBig
		case err == nil:
		case err == io.EOF:
			return 0
		default:
			return proto.CloseProtocol
		}
	}
}

// inflates reports whether the client can inflate what was a message of n bytes: none refers further back than its
// own beginning, so a message within the client's window is safe. A longer one goes as it is, unless the window
// is as large as they get. So nobody needs a deflater for small windows, of which browsers offer none.
func (s *session) inflates(n int) bool {
	return s.variant.deflates() && (s.window == windowMax || n <= 1<<s.window)
}

// pack compresses the frame that begins at start and ends b, if the session's client inflates, the frame is
// worth it, and the loop has not compressed too much lately: one client after the other asking for an image
// must not take the time that all need.
func (l *loop) pack(s *session, b []byte, start int) []byte {
	if !s.variant.deflates() || len(b)-start < l.engine.limits.DeflateMin {
		return b
	}
	n := len(payloadOf(b[start:]))
	if !s.inflates(n) || n > l.deflateLeft {
		return b
	}
	l.deflateLeft -= n
	d := l.engine.deflaters.Get().(*deflater)
	l.packed = d.appendFrame(l.packed[:0], b[start:])
	l.engine.deflaters.Put(d)
	l.counts.Deflated++
	return append(b[:start], l.packed...)
}

// deflateTick is how much pack may compress in a tick.
func (l *loop) deflateTick() int {
	return l.engine.limits.DeflateRate / int(time.Second/tick)
}
