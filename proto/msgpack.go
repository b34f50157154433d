package proto

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"github.com/tinylib/msgp/msgp"
)

// What is read of tote.msgpack; encode.go writes it. The rules are those of JSON to the letter (the tests hold one
// against the other), where the two formats can say the same at all. What only MessagePack can say is no
// request: keys that are not strings make it malformed, and a value that is binary, a time or an extension is of a
// wrong type wherever a member is known. A float is never an integer, as 5.0 is none in JSON.

// ParseMsgpack reads one MessagePack map as Parse reads a JSON object: the same members, the same refusals, and
// where b is no MessagePack at all, nothing. It keeps nothing of b and allocates only for texts and lists.
func (r *Request) ParseMsgpack(b []byte) Refusal {
	refusal, err := r.parseMap(b)
	if err != nil {
		*r = Request{Outcome: OutcomeNone}
		return RefusedMalformed
	}
	return refusal
}

// requestNumbers are the members that set knows.
var requestNumbers = []string{"id", "game", "pool", "account", "outcome", "amount", "sent", "every", "epoch", "n", "circle", "code", "shares", "limit", "since", "before", "after"}

const amountBit, sharesBit = 1 << 5, 1 << 12 // in requestNumbers

// parseMap ends at the end of b at the latest, whatever number of members b claims: each takes two bytes or more.
func (r *Request) parseMap(b []byte) (Refusal, error) {
	*r = Request{Outcome: OutcomeNone}
	var typed, malformed bool
	var bad uint // a bit for each of requestNumbers whose last value was no integer
	var rare *rareMembers
	var locks number // at which a question locks
	members, b, err := msgp.ReadMapHeaderBytes(b)
	for ; err == nil && members > 0; members-- {
		var key []byte
		if key, b, err = msgp.ReadStringZC(b); err != nil {
			break
		}
		switch string(key) {
		case "type", "token", "guest":
			if kind := msgp.NextType(b); kind != msgp.StrType {
				if key[1] == 'y' && kind == msgp.NilType {
					r.Type, typed = RequestNone, false
				}
				malformed = malformed || kind != msgp.NilType
				b, err = skip(b)
				break
			}
			var word []byte
			word, b, err = msgp.ReadStringZC(b)
			switch key[1] {
			case 'y':
				r.Type, typed = requestType(word), true
			case 'o':
				r.Token = valid(string(word))
			default:
				r.Guest = valid(string(word))
			}
		case "question", "settle", "locks", "voids", "name", "labels", "wins", "winners":
			if rare == nil {
				rare = new(rareMembers)
			}
			b, err = rare.unmarshalMsgpack(key, b)
		case "locks_at":
			var ok bool
			locks.value, ok, b, err = readInteger(b)
			locks.bad = !ok
		default:
			var n int64
			var ok bool
			if n, ok, b, err = readInteger(b); r.set(key, n) && (!ok || bad != 0) {
				bit := uint(1) << slices.Index(requestNumbers, string(key))
				bad &^= bit
				if !ok {
					bad |= bit
				}
			}
		}
	}
	if err != nil {
		return RefusedMalformed, err
	}
	if len(b) > 0 {
		return RefusedMalformed, fmt.Errorf("read a request: %d bytes follow it", len(b))
	}
	if r.Type == RequestAsk {
		r.Ask = &Question{LocksAt: Time(locks.value)}
	}
	if rare != nil && !rare.into(r) || malformed || locks.bad || bad&^(amountBit|sharesBit) != 0 {
		return RefusedMalformed, nil
	}
	if refusal := r.check(typed); refusal != Accepted {
		return refusal, nil
	}
	switch {
	case bad&amountBit != 0:
		return RefusedAmountInvalid, nil
	case bad != 0:
		return RefusedSharesInvalid, nil
	}
	return Accepted, nil
}

// readInteger reads an integer, saturated as the scanner saturates JSON's, or passes over any other value.
func readInteger(b []byte) (n int64, ok bool, rest []byte, err error) {
	switch msgp.NextType(b) {
	case msgp.IntType:
		n, rest, err = msgp.ReadInt64Bytes(b)
		return max(n, -math.MaxInt64), true, rest, err
	case msgp.UintType:
		var u uint64
		u, rest, err = msgp.ReadUint64Bytes(b)
		return int64(min(u, math.MaxInt64)), true, rest, err
	}
	rest, err = skip(b)
	return 0, false, rest, err
}

// skip passes over one value. It counts what is left to read instead of descending (msgp.Skip goes 100,000 calls
// deep), so nesting costs nothing; and each value takes a byte or more, so it ends with b, whatever b claims.
func skip(b []byte) (rest []byte, err error) {
	for left := uint64(1); left > 0; left-- {
		var n uint32
		switch msgp.NextType(b) {
		case msgp.MapType:
			n, b, err = msgp.ReadMapHeaderBytes(b)
			left += 2 * uint64(n)
		case msgp.ArrayType:
			n, b, err = msgp.ReadArrayHeaderBytes(b)
			left += uint64(n)
		default:
			b, err = msgp.Skip(b)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// ReadMsgpack reads one message of the server, for clients. It goes by way of JSON: a second decoder
// would be a second description of every message.
func ReadMsgpack(b []byte) (Message, error) {
	var text bytes.Buffer
	if _, err := msgp.UnmarshalAsJSON(&text, b); err != nil {
		return nil, fmt.Errorf("read a message: %w", err)
	}
	return ReadMessage(text.Bytes())
}
