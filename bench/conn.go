package bench

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/gobwas/ws"
)

// Frames of the server, RFC 6455 section 5.2, as a client reads them: never masked.
//
//	 0               1
//	 7 6 5 4 3 2 1 0 7 6 5 4 3 2 1 0
//	┌─┬─────┬───────┬─┬─────────────┬───────────────────────┬─────────┐
//	│F│ RSV │opcode │0│ length 0–125│ 126: 16 bit, 127: 64 b│ payload │
//	└─┴─────┴───────┴─┴─────────────┴───────────────────────┴─────────┘

// messageMax bounds a message. The largest are images of games and lists of predictions, of some tens of kB.
const messageMax = 4 << 20

var (
	errMasked    = errors.New("the server masked a frame")
	errReserved  = errors.New("a reserved bit is set")
	errOpcode    = errors.New("a reserved opcode")
	errControl   = errors.New("a control frame is fragmented or longer than 125 bytes")
	errLength    = errors.New("a length is not in its shortest form")
	errTooBig    = fmt.Errorf("a message of more than %d bytes", messageMax)
	errFragment  = errors.New("a continuation without a beginning")
	errUnended   = errors.New("a message begins inside another one")
	errCloseForm = errors.New("a close frame has a payload of one byte")
)

// frame is one frame of the server; payload lies in the bytes it was read from.
type frame struct {
	final   bool
	opcode  ws.OpCode
	payload []byte
}

// readFrame reads the frame at the beginning of b and its size; size is 0 while the frame is not whole.
func readFrame(b []byte) (f frame, size int, err error) {
	if len(b) < 2 {
		return f, 0, nil
	}
	f.final, f.opcode = b[0]&0x80 != 0, ws.OpCode(b[0]&0x0f)
	switch {
	case b[0]&0x70 != 0:
		return f, 0, errReserved // section 5.2: no extension was negotiated
	case b[1]&0x80 != 0:
		return f, 0, errMasked // section 5.1
	case f.opcode.IsReserved():
		return f, 0, errOpcode
	}
	head, length := 2, uint64(b[1]&0x7f)
	switch length {
	case 126:
		if len(b) < 4 {
			return f, 0, nil
		}
		head, length = 4, uint64(binary.BigEndian.Uint16(b[2:]))
		if length < 126 {
			return f, 0, errLength
		}
	case 127:
		if len(b) < 10 {
			return f, 0, nil
		}
		head, length = 10, binary.BigEndian.Uint64(b[2:])
		if length < 1<<16 {
			return f, 0, errLength
		}
	}
	switch {
	case f.opcode.IsControl() && (!f.final || length > 125):
		return f, 0, errControl // section 5.5
	case length > messageMax:
		return f, 0, errTooBig
	case uint64(len(b)-head) < length:
		return f, 0, nil
	}
	size = head + int(length)
	f.payload = b[head:size:size]
	return f, size, nil
}

// assembly is a message of which some frames have come.
type assembly struct {
	opcode ws.OpCode // of the first frame; 0: no message is under way
	begun  []byte
}

// add takes a data frame and returns the message that it completes, if it does.
func (a *assembly) add(f frame) (opcode ws.OpCode, message []byte, whole bool, err error) {
	switch {
	case f.opcode == ws.OpContinuation && a.opcode == 0:
		return 0, nil, false, errFragment
	case f.opcode != ws.OpContinuation && a.opcode != 0:
		return 0, nil, false, errUnended
	case f.final && a.opcode == 0:
		return f.opcode, f.payload, true, nil // the usual case: nothing is copied
	case len(a.begun)+len(f.payload) > messageMax:
		return 0, nil, false, errTooBig
	}
	if a.opcode == 0 {
		a.opcode = f.opcode
	}
	a.begun = append(a.begun, f.payload...)
	if !f.final {
		return 0, nil, false, nil
	}
	opcode, message = a.opcode, a.begun
	*a = assembly{}
	return opcode, message, true, nil
}

// appendFrame appends a whole frame of a client: masked, as section 5.3 demands.
func appendFrame(b []byte, opcode ws.OpCode, mask uint32, payload []byte) []byte {
	b = append(b, 0x80|byte(opcode))
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = binary.BigEndian.AppendUint32(b, mask)
	key := [4]byte(b[len(b)-4:])
	b = append(b, payload...)
	ws.Cipher(b[len(b)-len(payload):], key, 0)
	return b
}

// The opening handshake, section 4.

const (
	subprotocol  = "tote.json"
	handshakeMax = 4096 // bytes of the server's answer
	acceptGUID   = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

func appendUpgrade(b []byte, t *target, nonce [16]byte) []byte {
	b = append(b, "GET "...)
	b = append(b, t.path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, t.host...)
	b = append(b, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: "+
		subprotocol+"\r\nSec-WebSocket-Key: "...)
	b = base64.StdEncoding.AppendEncode(b, nonce[:])
	return append(b, "\r\n\r\n"...)
}

// readUpgrade reads the server's answer at the beginning of b and its size; size is 0 while it is not whole.
func readUpgrade(b []byte, nonce [16]byte) (size int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	switch {
	case end < 0 && len(b) > handshakeMax:
		return 0, fmt.Errorf("the answer is longer than %d bytes", handshakeMax)
	case end < 0:
		return 0, nil
	}
	size = end + 4
	answer, err := http.ReadResponse(bufio.NewReaderSize(bytes.NewReader(b[:size]), 512), nil)
	if err != nil {
		return 0, err
	}
	answer.Body.Close()
	switch key := base64.StdEncoding.EncodeToString(nonce[:]); {
	case answer.StatusCode != http.StatusSwitchingProtocols:
		return 0, fmt.Errorf("status %s", answer.Status)
	case !strings.EqualFold(answer.Header.Get("Upgrade"), "websocket"):
		return 0, errors.New("no upgrade to websocket")
	case answer.Header.Get("Sec-WebSocket-Accept") != accept(key):
		return 0, errors.New("the accept value does not fit the key")
	case answer.Header.Get("Sec-WebSocket-Protocol") != subprotocol:
		return 0, fmt.Errorf("subprotocol %q instead of %q", answer.Header.Get("Sec-WebSocket-Protocol"), subprotocol)
	}
	return size, nil
}

func accept(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// readClose reads a close frame's payload, section 5.5.1.
func readClose(payload []byte) (code uint16, reason string, err error) {
	switch len(payload) {
	case 0:
		return 1005, "", nil // section 7.1.5: no code was there
	case 1:
		return 0, "", errCloseForm
	}
	return binary.BigEndian.Uint16(payload), string(payload[2:]), nil
}
