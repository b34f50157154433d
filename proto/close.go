package proto

import (
	"strconv"
	"strings"
)

// CloseCode says why a connection ends. Codes below 4000 are RFC 6455's and IANA's.
type CloseCode uint16

const (
	CloseNormal    CloseCode = 1000 // the client said goodbye
	CloseGoingAway CloseCode = 1001
	CloseProtocol  CloseCode = 1002 // a frame broke RFC 6455
	CloseData      CloseCode = 1003 // a binary message where the subprotocol has text, or text where it has binary
	CloseUTF8      CloseCode = 1007 // a text message that is not UTF-8
	ClosePolicy    CloseCode = 1008 // too many malformed requests, frames or bytes, or a message that never ends
	CloseTooBig    CloseCode = 1009 // a message over the limit
	CloseRestart   CloseCode = 1012 // the server restarts; the reason says when to come back, see RestartReason
	CloseTryLater  CloseCode = 1013 // the server is full

	CloseSlow        CloseCode = 4000 // the reader let its private lane fill up, or takes nothing of more than 64 kB; it may reconnect and resume
	CloseIdle        CloseCode = 4001 // nothing was heard, not even a pong, for the idle time
	CloseHelloMissed CloseCode = 4002 // no hello within the handshake time
)

// closings has every code that this server sends, with the reason it sends along.
var closings = [...]struct {
	code   CloseCode
	reason string
}{
	{CloseNormal, "goodbye"},
	{CloseGoingAway, "going away"},
	{CloseProtocol, "protocol error"},
	{CloseData, "tote.json takes text messages, tote.msgpack binary ones"},
	{CloseUTF8, "text is not UTF-8"},
	{ClosePolicy, "too many malformed requests, frames or bytes, or a message that never ends"},
	{CloseTooBig, "message too big"},
	{CloseRestart, restarts + "N" + restartsUnit},
	{CloseTryLater, "server is full; try again later"},
	{CloseSlow, "too slow for the private lane; reconnect and resume"},
	{CloseIdle, "idle for too long"},
	{CloseHelloMissed, "no hello in time"},
}

// Reason is the sentence sent with the code.
func (c CloseCode) Reason() string {
	for _, closing := range closings {
		if closing.code == c {
			return closing.reason
		}
	}
	return ""
}

// The reason that goes with CloseRestart, around a number of milliseconds.
const (
	restarts     = "server restarts; come back in "
	restartsUnit = " ms"
)

// RestartReason is the reason that goes with CloseRestart: the client is expected after that time, in microseconds, which is rounded up to
// milliseconds. Clients are given different times, so that they do not come all at once.
func RestartReason(after Time) string {
	return restarts + strconv.FormatInt(int64((after+Millisecond-1)/Millisecond), 10) + restartsUnit
}

// RestartDelay reads such a reason: the time to wait before coming back, in microseconds. It is false for other texts.
func RestartDelay(reason string) (after Time, ok bool) {
	digits, ok := strings.CutPrefix(reason, restarts)
	if ok {
		digits, ok = strings.CutSuffix(digits, restartsUnit)
	}
	ms, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil {
		return 0, false
	}
	return Time(ms) * Millisecond, true
}
