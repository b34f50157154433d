package proto

import (
	"bytes"
	"encoding/json"
	"math"
)

// RequestType is what a client asks for.
type RequestType uint8

// The requests, with the members that each one reads besides type and id.
const (
	RequestNone        RequestType = iota
	RequestHello                   // token, or guest: a name for a new guest account; to resume: epoch, n, since
	RequestGames                   //
	RequestJoin                    // game
	RequestLeave                   // game
	RequestPools                   // game
	RequestStake                   // pool, outcome, amount, limit
	RequestSell                    // pool, outcome, shares, limit
	RequestAccount                 //
	RequestPredictions             //
	RequestFriends                 // pool
	RequestFollow                  // account
	RequestUnfollow                // account
	RequestPresence                // game
	RequestTime                    // sent
	RequestHeartbeat               // game, every: from now on, at least so often; 0: the server's default
	RequestQuote                   // pool, outcome, amount or shares

	RequestAsk          // game, and the members of a Question
	RequestResolve      // pool, winners
	RequestChallenge    // pool
	RequestReport       // pool
	RequestQuestions    // game
	RequestCircles      //
	RequestCircle       // circle
	RequestCircleCreate // name
	RequestCircleJoin   // circle, code
	RequestCircleLeave  // circle
	RequestCircleRemove // circle, account
	RequestCircleGame   // circle, game

	RequestStatement // before, after, limit
	RequestHistory   // before, limit
	RequestArchive   // game, or none: all; before, limit
	RequestLeaders   // game, or none: all; circle: among its members alone
)

var requestTypes = names{"", "hello", "games", "join", "leave", "pools", "stake", "sell", "account", "predictions",
	"friends", "follow", "unfollow", "presence", "time", "heartbeat", "quote", "ask", "resolve", "challenge", "report", "questions",
	"circles", "circle", "circle_create", "circle_join", "circle_leave", "circle_remove", "circle_game",
	"statement", "history", "archive", "leaders"}

func (t RequestType) String() string { return requestTypes.of(uint8(t)) }

// Request is one request of a client. Members that were not sent are zero, but an
// absent Outcome is OutcomeNone. Numbers outside of their range are read as what the market
// refuses: ids as 0, outcomes as OutcomeNone, amounts saturated.
type Request struct {
	Type    RequestType
	Outcome Outcome
	ID      RequestID
	Game    GameID
	Pool    PoolID
	Account AccountID
	Amount  Amount
	Shares  Shares
	Limit   int64 // of a stake: the least shares, or thousandths of the multiplier; of a sale, the least units; of a list: entries; 0: none
	Sent    Time
	Every   Time
	Epoch   uint64 // of the server that the client heard last
	N       uint64 // last private number that the client has of it
	Since   Seq    // of records up to there it was told all
	Before  uint64 // of a list
	After   uint64
	Token   string
	Guest   string
	Circle  CircleID
	Code    uint64 // of a circle
	Name    string
	Winners uint64    // a set: a bit for each outcome, see Outcomes
	Ask     *Question // of ask only
}

// Parse reads one JSON text. It returns Accepted, or why the text is no request; then ID is what
// could be read of it. Parse keeps nothing of b and allocates nothing for the requests that come often.
func (r *Request) Parse(b []byte) Refusal {
	*r = Request{Outcome: OutcomeNone}
	if refusal, ok := r.parseStrict(b); ok {
		return refusal
	}
	return r.parseAny(b)
}

// parseStrict reads a flat object of known members, integers and plain strings. For anything
// else it returns ok = false, and parseAny decides.
func (r *Request) parseStrict(b []byte) (refusal Refusal, ok bool) {
	*r = Request{Outcome: OutcomeNone}
	typed := false
	s := scanner{b: b}
	if !s.take('{') {
		return 0, false
	}
	for {
		key, ok := s.word()
		if !ok || !s.take(':') {
			return 0, false
		}
		switch string(key) {
		case "type":
			word, ok := s.word()
			if !ok {
				return 0, false
			}
			r.Type, typed = requestType(word), true
		case "token", "guest":
			word, ok := s.word()
			if !ok {
				return 0, false
			}
			if key[0] == 't' {
				r.Token = string(word)
			} else {
				r.Guest = string(word)
			}
		default:
			n, ok := s.integer()
			if !ok || !r.set(key, n) {
				return 0, false
			}
		}
		if s.take(',') {
			continue
		}
		if !s.take('}') || !s.done() || r.Type == RequestAsk {
			return 0, false
		}
		return r.check(typed), true
	}
}

// set stores a number; it returns false where there is no such member.
func (r *Request) set(key []byte, n int64) bool {
	switch string(key) {
	case "id":
		r.ID = RequestID(identifier(n))
	case "game":
		r.Game = GameID(identifier(n))
	case "pool":
		r.Pool = PoolID(identifier(n))
	case "account":
		r.Account = AccountID(identifier(n))
	case "outcome":
		r.Outcome = outcome(n)
	case "amount":
		r.Amount = Amount(n)
	case "shares":
		r.Shares = Shares(n)
	case "limit":
		r.Limit = n
	case "sent":
		r.Sent = Time(n)
	case "every":
		r.Every = Time(n)
	case "epoch":
		r.Epoch = identifier(n)
	case "n":
		r.N = identifier(n)
	case "since":
		r.Since = Seq(identifier(n))
	case "before":
		r.Before = identifier(n)
	case "after":
		r.After = identifier(n)
	case "circle":
		r.Circle = CircleID(identifier(n))
	case "code":
		r.Code = identifier(n)
	default:
		return false
	}
	return true
}

func identifier(n int64) uint64 {
	if n < 0 || n > integerMax {
		return 0
	}
	return uint64(n)
}

func outcome(n int64) Outcome {
	if n < 0 || n >= OutcomesMax {
		return OutcomeNone
	}
	return Outcome(n)
}

func requestType(word []byte) RequestType {
	for t := RequestHello; int(t) < len(requestTypes); t++ {
		if requestTypes[t] == string(word) {
			return t
		}
	}
	return RequestNone
}

// check applies the rules that hold for every request.
func (r *Request) check(typed bool) Refusal {
	switch {
	case !typed || r.ID == 0:
		return RefusedMalformed
	case r.Type == RequestNone:
		return RefusedRequestUnknown
	}
	return Accepted
}

// parseAny is the slow way: encoding/json, which knows escapes, unknown members and every kind of error.
func (r *Request) parseAny(b []byte) Refusal {
	var any struct {
		Type                                                                                                               *string
		Token, Guest                                                                                                       string
		ID, Game, Pool, Account, Outcome, Amount, Shares, Limit, Sent, Every, Epoch, N, Circle, Code, Since, Before, After number
		LocksAt                                                                                                            number `json:"locks_at"`
		rareMembers
	}
	*r = Request{Outcome: OutcomeNone}
	err := json.Unmarshal(b, &any)
	var bad bool
	for _, member := range []struct {
		key string
		n   number
	}{
		{"id", any.ID}, {"game", any.Game}, {"pool", any.Pool}, {"account", any.Account}, {"outcome", any.Outcome},
		{"sent", any.Sent}, {"every", any.Every}, {"epoch", any.Epoch}, {"n", any.N}, {"since", any.Since}, {"before", any.Before}, {"after", any.After}, {"circle", any.Circle}, {"limit", any.Limit}, {"code", any.Code},
	} {
		if member.n.sent {
			r.set([]byte(member.key), member.n.value)
		}
		bad = bad || member.n.bad
	}
	r.Amount, r.Shares = Amount(any.Amount.value), Shares(any.Shares.value)
	r.Token, r.Guest = any.Token, any.Guest
	if any.Type != nil {
		r.Type = requestType([]byte(*any.Type))
	}
	if r.Type == RequestAsk {
		r.Ask = &Question{LocksAt: Time(any.LocksAt.value)}
	}
	if !any.into(r) || err != nil || bad || any.LocksAt.bad {
		return RefusedMalformed
	}
	if refusal := r.check(any.Type != nil); refusal != Accepted {
		return refusal
	}
	switch {
	case any.Amount.bad:
		return RefusedAmountInvalid
	case any.Shares.bad:
		return RefusedSharesInvalid
	}
	return Accepted
}

// number is a JSON integer, saturated to 64 bits. Any other JSON value makes it bad instead of
// failing, so that the members after it are still read.
type number struct {
	value     int64
	sent, bad bool
}

func (n *number) UnmarshalJSON(b []byte) error {
	s := scanner{b: b}
	value, ok := s.integer()
	*n = number{value: value, sent: true, bad: !ok || !s.done()}
	return nil
}

// scanner reads the few JSON tokens of a hot request. Each method skips white space first and leaves
// the position alone when it returns false.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *scanner) done() bool {
	s.space()
	return s.i == len(s.b)
}

// word reads a string of printable ASCII without escapes.
func (s *scanner) word() ([]byte, bool) {
	s.space()
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return nil, false
	}
	rest := s.b[s.i+1:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return nil, false
	}
	for _, c := range rest[:end] {
		if c < ' ' || c == '\\' || c >= 0x7f {
			return nil, false
		}
	}
	s.i += end + 2
	return rest[:end], true
}

// integer reads a JSON number without fraction and exponent, saturated to 64 bits.
func (s *scanner) integer() (int64, bool) {
	s.space()
	i := s.i
	negative := i < len(s.b) && s.b[i] == '-'
	if negative {
		i++
	}
	first := i
	var magnitude uint64
	for ; i < len(s.b) && s.b[i] >= '0' && s.b[i] <= '9'; i++ {
		digit := uint64(s.b[i] - '0')
		if magnitude > (math.MaxInt64-digit)/10 {
			magnitude = math.MaxInt64
			continue
		}
		magnitude = magnitude*10 + digit
	}
	switch {
	case i == first:
		return 0, false // no digit
	case s.b[first] == '0' && i > first+1:
		return 0, false // JSON has no leading zeros
	case i < len(s.b) && (s.b[i] == '.' || s.b[i] == 'e' || s.b[i] == 'E'):
		return 0, false
	}
	s.i = i
	if negative {
		return -int64(magnitude), true
	}
	return int64(magnitude), true
}

// AppendJSON appends the request as a client sends it: the members that its type reads.
func (r *Request) AppendJSON(b []byte) []byte { return r.append(writeJSON(b)).b }

// AppendMsgpack appends the same request as one MessagePack map.
func (r *Request) AppendMsgpack(b []byte) []byte { return r.append(writeMsgpack(b)).b }

func (r *Request) append(w writer) writer {
	w = w.open(r.Type.String())
	w = num(w.key(`,"id":`), r.ID)
	switch r.Type {
	case RequestHello:
		if r.Token != "" {
			w = text(w.key(`,"token":`), r.Token)
		}
		if r.Guest != "" {
			w = text(w.key(`,"guest":`), r.Guest)
		}
		if r.Epoch != 0 {
			w = num(w.key(`,"epoch":`), r.Epoch)
			w = num(w.key(`,"n":`), r.N)
		}
		w = since(w, r.Since)
	case RequestJoin, RequestLeave, RequestPools, RequestPresence, RequestQuestions:
		w = num(w.key(`,"game":`), r.Game)
	case RequestStake, RequestSell, RequestQuote:
		w = num(w.key(`,"pool":`), r.Pool)
		w = num(w.key(`,"outcome":`), r.Outcome)
		if r.Type == RequestStake || r.Type == RequestQuote && r.Amount != 0 {
			w = num(w.key(`,"amount":`), r.Amount)
		}
		if r.Type == RequestSell || r.Type == RequestQuote && r.Shares != 0 {
			w = num(w.key(`,"shares":`), r.Shares)
		}
		if r.Type != RequestQuote && r.Limit != 0 {
			w = num(w.key(`,"limit":`), r.Limit)
		}
	case RequestFriends, RequestChallenge, RequestReport:
		w = num(w.key(`,"pool":`), r.Pool)
	case RequestStatement, RequestHistory, RequestArchive, RequestLeaders:
		w = r.appendPage(w)
	case RequestFollow, RequestUnfollow:
		w = num(w.key(`,"account":`), r.Account)
	case RequestTime:
		w = num(w.key(`,"sent":`), r.Sent)
	case RequestHeartbeat:
		w = num(w.key(`,"game":`), r.Game)
		w = num(w.key(`,"every":`), r.Every)
	case RequestAsk:
		ask := r.Ask
		if ask == nil {
			ask = &Question{}
		}
		w = ask.append(num(w.key(`,"game":`), r.Game))
	case RequestResolve:
		w = num(w.key(`,"pool":`), r.Pool)
		w = list(w.key(`,"winners":`), Outcomes(r.Winners), num)
	case RequestCircleCreate:
		w = text(w.key(`,"name":`), r.Name)
	case RequestCircle, RequestCircleJoin, RequestCircleLeave, RequestCircleRemove, RequestCircleGame:
		w = num(w.key(`,"circle":`), r.Circle)
		switch r.Type {
		case RequestCircleJoin:
			w = num(w.key(`,"code":`), r.Code)
		case RequestCircleRemove:
			w = num(w.key(`,"account":`), r.Account)
		case RequestCircleGame:
			w = num(w.key(`,"game":`), r.Game)
		}
	}
	return w.end(0)
}

// appendPage appends what is asked of the past.
func (r *Request) appendPage(w writer) writer {
	optional := func(w writer, key string, v uint64) writer {
		if v != 0 {
			w = num(w.key(key), v)
		}
		return w
	}
	if r.Type == RequestArchive || r.Type == RequestLeaders {
		w = optional(w, `,"game":`, uint64(r.Game))
	}
	if r.Type == RequestLeaders {
		return optional(w, `,"circle":`, uint64(r.Circle))
	}
	w = optional(w, `,"before":`, r.Before)
	if r.Type == RequestStatement {
		w = optional(w, `,"after":`, r.After)
	}
	if r.Limit != 0 {
		w = num(w.key(`,"limit":`), r.Limit)
	}
	return w
}

// Page is the part of a list that is asked for.
func (r *Request) Page() Page {
	return Page{Before: r.Before, After: r.After, Limit: int(min(max(r.Limit, 0), PageMax))}
}
