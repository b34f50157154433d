package bench

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// A frame is read as gobwas reads it, or refused where RFC 6455 refuses it.
func FuzzFrameIsReadAsGobwasReadsIt(f *testing.F) {
	for _, seed := range [][]byte{
		{}, {0x81}, {0x81, 0x00}, {0x81, 0x01, 'a'}, {0x01, 0x01, 'a'}, {0x89, 0x00}, {0x88, 0x02, 0x03, 0xe8},
		{0x81, 0x7e, 0x00, 0x7e}, {0x81, 0x7e, 0x00, 0x01, 'a'}, {0x81, 0x7f, 0, 0, 0, 0, 0, 0, 0, 1, 'a'},
		{0x81, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0x81, 0x81, 1, 2, 3, 4, 'a'}, {0xc1, 0x00}, {0x83, 0x00}, {0x09, 0x00}, {0x89, 0x7e, 0, 126},
		ws.MustCompileFrame(ws.NewTextFrame(make([]byte, 70_000))),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, size, err := readFrame(b)
		in := bytes.NewReader(b)
		head, twinErr := ws.ReadHeader(in)
		switch {
		case errors.Is(err, errLength) || errors.Is(err, errTooBig):
			return // gobwas leaves these to its caller
		case err != nil:
			if twinErr == nil && ws.CheckHeader(head, ws.StateClientSide) == nil && !head.Masked {
				t.Fatalf("% x: %v, gobwas reads %+v", b[:min(len(b), 14)], err, head)
			}
			return
		case size == 0:
			if twinErr == nil && int64(in.Len()) >= head.Length {
				t.Fatalf("% x: not whole, gobwas reads %+v", b[:min(len(b), 14)], head)
			}
			return
		}
		if twinErr != nil {
			t.Fatalf("% x: read, gobwas says %v", b[:min(len(b), 14)], twinErr)
		}
		payload := make([]byte, head.Length)
		if _, err := io.ReadFull(in, payload); err != nil {
			t.Fatal(err)
		}
		if got.final != head.Fin || got.opcode != head.OpCode || !bytes.Equal(got.payload, payload) || size != len(b)-in.Len() {
			t.Fatalf("% x: %+v of %d bytes, gobwas reads %+v and %q", b[:min(len(b), 14)], got, size, head, payload)
		}
	})
}

// A stream gives the same messages wherever reads cut it.
func FuzzMessagesAreReadAsWsutilReadsThem(f *testing.F) {
	f.Add([]byte("text\x00fragmented message\x01\x02and a control frame\x03"), 1)
	f.Add(bytes.Repeat([]byte("many frames in one read\x00"), 20), 1000)
	f.Add(bytes.Repeat([]byte("x\x01\x02y\x00"), 300), 7)
	f.Fuzz(func(t *testing.T, script []byte, step int) {
		stream := play(script)
		want := twin(t, stream)
		if got := readAll(t, stream, min(max(step, 1), 1<<16)); !slices.Equal(got, want) {
			t.Fatalf("in steps of %d: %q, want %q", step, got, want)
		}
	})
}

func TestMessagesCutAtEveryByte(t *testing.T) {
	stream := play([]byte("whole\x00in two \x01frames\x00three\x01 \x02\x01frames and a ping\x00" + strings.Repeat("long", 40) + "\x00"))
	want := twin(t, stream)
	if len(want) != 5 { // the last one is empty
		t.Fatalf("%d messages", len(want))
	}
	for cut := range stream {
		var r reader
		r.feed(t, stream[:cut])
		r.feed(t, stream[cut:])
		if !slices.Equal(r.messages, want) {
			t.Fatalf("cut at %d: %q, want %q", cut, r.messages, want)
		}
	}
	if got := readAll(t, stream, 1); !slices.Equal(got, want) {
		t.Fatalf("byte by byte: %q", got)
	}
}

// play makes a valid stream of a server: text up to \x00 is a final frame, up to \x01 one that goes on; \x02 is a ping.
func play(script []byte) (stream []byte) {
	begun := false
	var text []byte
	frame := func(final bool) {
		opcode := ws.OpText
		if begun {
			opcode = ws.OpContinuation
		}
		begun = !final
		stream = append(stream, ws.MustCompileFrame(ws.NewFrame(opcode, final, text))...)
		text = nil
	}
	for _, c := range script {
		switch c {
		case 0:
			frame(true)
		case 1:
			frame(false)
		case 2:
			stream = append(stream, ws.MustCompileFrame(ws.NewPingFrame([]byte("ping")))...)
		default:
			text = append(text, c)
		}
	}
	frame(true)
	return stream
}

// reader is the part of worker that takes bytes in.
type reader struct {
	cut      []byte
	assembly assembly
	messages []string
}

func (r *reader) feed(t *testing.T, b []byte) {
	r.cut = append(r.cut, b...)
	for {
		f, size, err := readFrame(r.cut)
		if err != nil {
			t.Fatal(err)
		}
		if size == 0 {
			return
		}
		if !f.opcode.IsControl() {
			_, message, whole, err := r.assembly.add(f)
			if err != nil {
				t.Fatal(err)
			}
			if whole {
				r.messages = append(r.messages, string(message))
			}
		}
		r.cut = r.cut[size:]
	}
}

func readAll(t *testing.T, stream []byte, step int) []string {
	var r reader
	for piece := range slices.Chunk(stream, step) {
		r.feed(t, piece)
	}
	return r.messages
}

func twin(t *testing.T, stream []byte) (messages []string) {
	in := struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(stream), io.Discard}
	for {
		r := wsutil.Reader{Source: in, State: ws.StateClientSide, CheckUTF8: false, OnIntermediate: wsutil.ControlFrameHandler(in, ws.StateClientSide)}
		head, err := r.NextFrame()
		if errors.Is(err, io.EOF) {
			return messages
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(&r)
		if err != nil {
			t.Fatal(err)
		}
		if !head.OpCode.IsControl() {
			messages = append(messages, string(text))
		}
	}
}

func TestMessagesOutOfOrderAreRefused(t *testing.T) {
	text := func(final bool, opcode ws.OpCode) frame {
		return frame{final: final, opcode: opcode, payload: []byte("x")}
	}
	for _, row := range []struct {
		name   string
		frames []frame
		want   error
	}{
		{"a continuation of nothing", []frame{text(true, ws.OpContinuation)}, errFragment},
		{"a continuation after the end", []frame{text(true, ws.OpText), text(false, ws.OpContinuation)}, errFragment},
		{"a message inside a message", []frame{text(false, ws.OpText), text(true, ws.OpText)}, errUnended},
		{"too many fragments", []frame{text(false, ws.OpText), {opcode: ws.OpContinuation, payload: make([]byte, messageMax)}}, errTooBig},
	} {
		t.Run(row.name, func(t *testing.T) {
			var a assembly
			var err error
			for _, f := range row.frames {
				_, _, _, err = a.add(f)
			}
			if !errors.Is(err, row.want) {
				t.Errorf("%v, want %v", err, row.want)
			}
		})
	}
}

// What a client writes is masked, and gobwas reads it.
func FuzzFrameIsWrittenAsGobwasReadsIt(f *testing.F) {
	for _, n := range []int{0, 1, 125, 126, 127, 65_535, 65_536} {
		f.Add(make([]byte, n), uint32(0xdeadbeef))
	}
	f.Fuzz(func(t *testing.T, payload []byte, mask uint32) {
		b := appendFrame([]byte("before"), ws.OpText, mask, payload)
		in := bytes.NewReader(b[len("before"):])
		head, err := ws.ReadHeader(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if !head.Masked || head.Mask != [4]byte(binary.BigEndian.AppendUint32(nil, mask)) || head.Length != int64(len(payload)) || !head.Fin || head.OpCode != ws.OpText {
			t.Fatalf("%+v", head)
		}
		if ws.Cipher(got, head.Mask, 0); !bytes.Equal(got, payload) {
			t.Fatalf("%q, want %q", got, payload)
		}
	})
}

func TestUpgrade(t *testing.T) {
	nonce := [16]byte([]byte("the sample nonce")) // RFC 6455, section 1.3
	key := base64.StdEncoding.EncodeToString(nonce[:])
	if key != "dGhlIHNhbXBsZSBub25jZQ==" || accept(key) != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("key %s, accept %s", key, accept(key))
	}
	request := string(appendUpgrade(nil, &target{host: "example.org:80", path: "/ws"}, nonce))
	if !strings.HasPrefix(request, "GET /ws HTTP/1.1\r\nHost: example.org:80\r\n") || !strings.HasSuffix(request, "Sec-WebSocket-Key: "+key+"\r\n\r\n") {
		t.Errorf("%q", request)
	}
	answer := func(status, accept, protocol string) string {
		return fmt.Sprintf("HTTP/1.1 %s\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n", status, accept, protocol)
	}
	good := answer("101 Switching Protocols", accept(key), subprotocol)
	for _, row := range []struct {
		name, answer string
		size         int
		want         string
	}{
		{"agreed", good, len(good), ""},
		{"agreed, and a frame behind", good + "\x81\x00", len(good), ""},
		{"not whole", good[:len(good)-1], 0, ""},
		{"refused", answer("503 Service Unavailable", "", ""), 0, "status 503 Service Unavailable"},
		{"another accept", answer("101 Switching Protocols", "x", subprotocol), 0, "the accept value does not fit the key"},
		{"another subprotocol", answer("101 Switching Protocols", accept(key), "chat"), 0, `subprotocol "chat" instead of "tote.json"`},
		{"no HTTP", "SSH-2.0-OpenSSH\r\n\r\n", 0, "malformed HTTP"},
		{"endless", strings.Repeat("x", handshakeMax+1), 0, "the answer is longer than 4096 bytes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			size, err := readUpgrade([]byte(row.answer), nonce)
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("%v, want %q", err, row.want)
			}
			if size != row.size {
				t.Errorf("%d bytes, want %d", size, row.size)
			}
		})
	}
}
