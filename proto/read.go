package proto

import (
	"encoding/json"
	"fmt"
)

// Head is what a client wants of every message before it decides to read the rest. Members
// that the message lacks are zero.
type Head struct {
	Type string
	T    Time
	ID   RequestID
	N    uint64
	Game GameID
	Seq  uint64
	Pool PoolID
}

// messageTypes makes an empty message for each type on the wire.
var messageTypes = func() map[string]func() Message {
	types := map[string]func() Message{}
	for _, empty := range []func() Message{
		func() Message { return new(Welcome) }, func() Message { return new(Games) }, func() Message { return new(Joined) },
		func() Message { return new(Left) }, func() Message { return new(Pools) }, func() Message { return new(Receipt) },
		func() Message { return new(Account) }, func() Message { return new(Predictions) }, func() Message { return new(Friends) },
		func() Message { return new(Followed) }, func() Message { return new(Unfollowed) }, func() Message { return new(Presence) },
		func() Message { return new(Clock) }, func() Message { return new(Refused) }, func() Message { return new(Payout) },
		func() Message { return new(Refund) }, func() Message { return new(Balance) }, func() Message { return new(Odds) },
		func() Message { return new(Conflated) }, func() Message { return new(Happened) }, func() Message { return new(Opened) },
		func() Message { return new(Locked) }, func() Message { return new(Settled) }, func() Message { return new(Voided) },
		func() Message { return new(GameChanged) }, func() Message { return new(Heartbeat) },
		func() Message { return new(Sold) }, func() Message { return new(Quote) },
		func() Message { return new(QuestionState) }, func() Message { return new(Questions) }, func() Message { return new(Circles) },
		func() Message { return new(Circle) }, func() Message { return new(CircleLeft) }, func() Message { return new(CircleGame) },
		func() Message { return new(PoolChanged) }, func() Message { return new(PresenceChanged) },
		func() Message { return new(Statement) }, func() Message { return new(History) }, func() Message { return new(Archive) },
		func() Message { return new(Leaders) }, func() Message { return new(Missed) }, func() Message { return new(Sealed) },
	} {
		types[empty().Type()] = empty
	}
	return types
}()

// ReadMessage reads one message of the server, for clients. An unknown type is an error.
func ReadMessage(b []byte) (Message, error) {
	var kind struct{ Type string }
	if err := json.Unmarshal(b, &kind); err != nil {
		return nil, fmt.Errorf("read a message: %w", err)
	}
	empty := messageTypes[kind.Type]
	if empty == nil {
		return nil, fmt.Errorf("read a message: unknown type %q", kind.Type)
	}
	m := empty()
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("read a message of type %q: %w", kind.Type, err)
	}
	return m, nil
}

// UnmarshalJSON reads a refusal by its code.
func (m *Refused) UnmarshalJSON(b []byte) error {
	var wire struct {
		ID   RequestID
		T    Time
		N    uint64
		Code string
		// Reason is that of the code.
		Detail          string
		Arrived, Locked Time
	}
	if err := json.Unmarshal(b, &wire); err != nil {
		return err
	}
	reason, ok := RefusalOf(wire.Code)
	if !ok {
		return fmt.Errorf("no refusal has the code %q", wire.Code)
	}
	*m = Refused{ID: wire.ID, T: wire.T, N: wire.N, Reason: reason, Detail: wire.Detail, Arrived: wire.Arrived, Locked: wire.Locked}
	return nil
}

// ReadHead reads the members of Head from the top level of a message and skips the rest without
// decoding it. It returns false where b is not such an object. Type is interned: nothing is allocated.
func ReadHead(b []byte) (h Head, ok bool) {
	s := scanner{b: b}
	if !s.take('{') {
		return h, false
	}
	for {
		key, ok := s.word()
		if !ok || !s.take(':') {
			return h, false
		}
		if !h.member(key, &s) {
			return h, false
		}
		if s.take(',') {
			continue
		}
		return h, s.take('}') && s.done()
	}
}

func (h *Head) member(key []byte, s *scanner) bool {
	if string(key) == "type" {
		word, ok := s.word()
		h.Type = interned[string(word)]
		return ok
	}
	n, ok := s.integer()
	if !ok {
		return s.skip()
	}
	switch string(key) {
	case "t":
		h.T = Time(n)
	case "id":
		h.ID = RequestID(n)
	case "n":
		h.N = uint64(n)
	case "game":
		h.Game = GameID(n)
	case "seq":
		h.Seq = uint64(n)
	case "pool":
		h.Pool = PoolID(n)
	}
	return true
}

var interned = func() map[string]string {
	words := map[string]string{}
	for word := range messageTypes {
		words[word] = word
	}
	return words
}()

// skip passes over any JSON value; it trusts its syntax but for strings and brackets.
func (s *scanner) skip() bool {
	depth := 0
	for s.space(); s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; c {
		case '"':
			for s.i++; s.i < len(s.b) && s.b[s.i] != '"'; s.i++ {
				if s.b[s.i] == '\\' {
					s.i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']', ',':
			if depth == 0 {
				return true
			}
			if c != ',' {
				depth--
			}
		}
	}
	return false
}
