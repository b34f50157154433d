package proto

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
)

// Each message is described once, by its method append, and said from that in either codec. encoding/json with the
// struct tags of message.go is the naive twin of both: the tests hold every message against it.

// writer appends one message. It is passed and returned by value, and has four words, so that it
// stays in registers; a fifth makes the receipt's JSON five times slower.
type writer struct {
	b []byte
	// at is where in b the MessagePack map begins that is being written, and says that it is MessagePack;
	// below 0, it is JSON.
	at int
}

func writeJSON(b []byte) writer    { return writer{b, -1} }
func writeMsgpack(b []byte) writer { return writer{b, 0} }

// The formats of MessagePack that every member begins with: the count is in the low bits.
//
//	1000nnnn                    a map of n members, to 15
//	11011110 00000000 0nnnnnnn  a map of n members, where there may be more
//	101nnnnn                    a string of n bytes, to 31
const (
	fixmap, fixmapMax = 0x80, 15
	map16             = 0xde
	fixstr            = 0xa0
)

// open begins a message or a request: its type comes first.
func (w writer) open(kind string) writer {
	if w.at >= 0 {
		w, _ = w.begin()
		w = w.key(`,"type":`)
		w.b = msgp.AppendString(w.b, kind)
		return w
	}
	w.b = append(w.b, `{"type":"`...)
	w.b = append(w.b, kind...)
	w.b = append(w.b, '"')
	return w
}

// begin opens a nested object; outer, the one around it, is for end. In MessagePack an object is one byte, in which
// each member that follows counts itself; in JSON the brace comes with the first key.
func (w writer) begin() (inner writer, outer int) {
	outer = w.at
	if w.at >= 0 {
		w.at = len(w.b)
		w.b = append(w.b, fixmap)
	}
	return w, outer
}

// widen makes room for more than 15 members in an object that has none yet, but for its type.
func (w writer) widen() writer {
	if w.at >= 0 {
		members := w.b[w.at] - fixmap
		w.b = append(w.b, 0, 0)
		copy(w.b[w.at+3:], w.b[w.at+1:])
		w.b[w.at], w.b[w.at+1], w.b[w.at+2] = map16, 0, members
		w.at += 2
	}
	return w
}

func (w writer) end(outer int) writer {
	if w.at >= 0 {
		assert(w.b[w.at] <= fixmap+fixmapMax, "an object that is not widened has at most 15 members")
		w.at = outer
		return w
	}
	w.b = append(w.b, '}')
	return w
}

// key begins a member. k is as JSON has it, with the comma or brace before, quotes and colon: `,"id":`. Where the
// compiler inlines this it copies the constant in one or two moves; that is why values are not appended here too.
func (w writer) key(k string) writer {
	if w.at >= 0 {
		w.b[w.at]++
		name := k[len(`,"`) : len(k)-len(`":`)]
		w.b = append(w.b, fixstr+byte(len(name)))
		w.b = append(w.b, name...)
		return w
	}
	w.b = append(w.b, k...)
	return w
}

func num[T ~int64 | ~uint64 | ~uint32 | ~uint16 | ~uint8 | ~int](w writer, v T) writer {
	switch n := int64(v); {
	case w.at < 0:
		w.b = strconv.AppendInt(w.b, n, 10)
	case n >= 0:
		w.b = msgp.AppendUint64(w.b, uint64(n)) // AppendInt64 has no room for the top bit: 200 would take 3 bytes, not 2
	default:
		w.b = msgp.AppendInt64(w.b, n)
	}
	return w
}

func boolean(w writer, v bool) writer {
	if w.at >= 0 {
		w.b = msgp.AppendBool(w.b, v)
	} else {
		w.b = strconv.AppendBool(w.b, v)
	}
	return w
}

// multiplier appends three decimals; in MessagePack, the double nearest to them. That is the very number that a
// client gets from JSON, so nothing behind its codec can tell which one was spoken. Thousandths would be 6 bytes
// shorter, and a factor of 1000 between two members of one name.
func multiplier(w writer, x Multiplier) writer {
	if w.at >= 0 {
		w.b = msgp.AppendFloat64(w.b, float64(x)/1000)
	} else {
		w.b = x.append(w.b)
	}
	return w
}

// text appends a string. In both codecs each byte that is not UTF-8 becomes U+FFFD. In JSON, text that needs no
// escape is copied; the rest goes the slow way.
func text(w writer, v string) writer {
	if w.at >= 0 {
		w.b = msgp.AppendString(w.b, valid(v))
		return w
	}
	for i := range len(v) {
		if c := v[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			w.b = quoteSlow(w.b, v)
			return w
		}
	}
	w.b = append(w.b, '"')
	w.b = append(w.b, v...)
	w.b = append(w.b, '"')
	return w
}

func quoteSlow(b []byte, v string) []byte {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	assert(e.Encode(v) == nil, "a string always encodes")
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}

// valid is what encoding/json makes of v.
func valid(v string) string {
	if utf8.ValidString(v) {
		return v
	}
	return string([]rune(v))
}

func list[T any](w writer, vs []T, one func(writer, T) writer) writer {
	if w.at >= 0 {
		w.b = msgp.AppendArrayHeader(w.b, uint32(len(vs)))
		for _, v := range vs {
			w = one(w, v)
		}
		return w
	}
	w.b = append(w.b, '[')
	for i, v := range vs {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w = one(w, v)
	}
	w.b = append(w.b, ']')
	return w
}

func (g *Game) append(w writer) writer {
	w, outer := w.begin()
	w = num(w.key(`{"game":`), g.Game)
	w = text(w.key(`,"name":`), g.Name)
	w = text(w.key(`,"state":`), g.State.String())
	w = list(w.key(`,"teams":`), g.Teams[:], text)
	w = list(w.key(`,"score":`), g.Score[:], num)
	w = num(w.key(`,"minute":`), g.Minute)
	w = num(w.key(`,"interval":`), g.Interval)
	w = num(w.key(`,"present":`), g.Present)
	if g.Circle != 0 {
		w = num(w.key(`,"circle":`), g.Circle)
	}
	if g.Parent != 0 {
		w = num(w.key(`,"parent":`), g.Parent)
	}
	return w.end(outer)
}

func (p *Pool) append(w writer) writer {
	w, outer := w.begin()
	w = w.widen()
	w = num(w.key(`{"pool":`), p.Pool)
	if p.Kind != "" {
		w = text(w.key(`,"kind":`), p.Kind)
	}
	if p.Variant != "" {
		w = text(w.key(`,"variant":`), p.Variant)
	}
	w = text(w.key(`,"question":`), p.Question)
	w = list(w.key(`,"labels":`), p.Labels, text)
	w = text(w.key(`,"state":`), p.State.String())
	if p.LocksAt != 0 {
		w = num(w.key(`,"locks_at":`), p.LocksAt)
	}
	if p.Takeout != 0 {
		w = num(w.key(`,"takeout":`), p.Takeout)
	}
	w = list(w.key(`,"odds":`), p.Odds, appendOdd)
	if len(p.Winners) > 0 {
		w = list(w.key(`,"winners":`), p.Winners, num)
	}
	if p.Unit != 0 {
		w = num(w.key(`,"unit":`), p.Unit)
	}
	if p.AccountMax != 0 {
		w = num(w.key(`,"account_max":`), p.AccountMax)
	}
	if p.Carried != 0 {
		w = num(w.key(`,"carried":`), p.Carried)
	}
	if len(p.Withdrawn) > 0 {
		w = list(w.key(`,"withdrawn":`), p.Withdrawn, num)
	}
	if p.Refunded {
		w = boolean(w.key(`,"refunded":`), true)
	}
	if p.CarriedTo != 0 {
		w = num(w.key(`,"carried_to":`), p.CarriedTo)
	}
	if p.Asked.Account != 0 {
		w = p.Asked.append(w.key(`,"asked":`))
	}
	return w.end(outer)
}

func appendOdd(w writer, o Odd) writer {
	w, outer := w.begin()
	w = num(w.key(`{"staked":`), o.Staked)
	w = num(w.key(`,"backers":`), o.Backers)
	w = multiplier(w.key(`,"x":`), o.Multiplier)
	w = appendPrice(w, o.Price, o.Probability)
	return w.end(outer)
}

func appendPrediction(w writer, p Prediction) writer {
	w, outer := w.begin()
	w = num(w.key(`{"prediction":`), p.Prediction)
	w = num(w.key(`,"id":`), p.ID)
	w = num(w.key(`,"pool":`), p.Pool)
	w = num(w.key(`,"outcome":`), p.Outcome)
	w = num(w.key(`,"amount":`), p.Amount)
	w = text(w.key(`,"state":`), p.State.String())
	w = num(w.key(`,"payout":`), p.Payout)
	if p.Shares != 0 {
		w = num(w.key(`,"shares":`), p.Shares)
	}
	return w.end(outer)
}

func appendFriendPrediction(w writer, f FriendPrediction) writer {
	w, outer := w.begin()
	w = num(w.key(`{"account":`), f.Account)
	w = text(w.key(`,"name":`), f.Name)
	w = num(w.key(`,"outcome":`), f.Outcome)
	w = num(w.key(`,"amount":`), f.Amount)
	if f.Shares != 0 {
		w = num(w.key(`,"shares":`), f.Shares)
	}
	return w.end(outer)
}

func appendFriend(w writer, f Friend) writer {
	w, outer := w.begin()
	w = num(w.key(`{"account":`), f.Account)
	w = text(w.key(`,"name":`), f.Name)
	return w.end(outer)
}

func (m *Welcome) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"epoch":`), m.Epoch)
	w = num(w.key(`,"account":`), m.Account)
	w = text(w.key(`,"name":`), m.Name)
	w = num(w.key(`,"balance":`), m.Balance)
	w = num(w.key(`,"n":`), m.N)
	w = since(w, m.Since)
	w = boolean(w.key(`,"resumed":`), m.Resumed)
	w = boolean(w.key(`,"missed":`), m.Missed)
	if m.Token != "" {
		w = text(w.key(`,"token":`), m.Token)
	}
	w = text(w.key(`,"durability":`), m.Durability)
	return w.end(0)
}

func (m *Games) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = list(w.key(`,"games":`), m.Games, appendGame)
	return w.end(0)
}

func appendGame(w writer, g Game) writer { return g.append(w) }
func appendPool(w writer, p Pool) writer { return p.append(w) }

func (m *Joined) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = m.Game.append(w.key(`,"game":`))
	w = num(w.key(`,"seq":`), m.Seq)
	w = list(w.key(`,"pools":`), m.Pools, appendPool)
	return w.end(0)
}

func (m *Left) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"game":`), m.Game)
	return w.end(0)
}

func (m *Pools) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"game":`), m.Game)
	w = num(w.key(`,"seq":`), m.Seq)
	w = list(w.key(`,"pools":`), m.Pools, appendPool)
	return w.end(0)
}

func (m *Receipt) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"n":`), m.N)
	w = num(w.key(`,"prediction":`), m.Prediction)
	w = num(w.key(`,"pool":`), m.Pool)
	w = num(w.key(`,"outcome":`), m.Outcome)
	w = num(w.key(`,"amount":`), m.Amount)
	if m.Shares != 0 {
		w = num(w.key(`,"shares":`), m.Shares)
	}
	w = num(w.key(`,"balance":`), m.Balance)
	w = num(w.key(`,"arrived":`), m.Arrived)
	if m.LocksAt != 0 {
		w = num(w.key(`,"locks_at":`), m.LocksAt)
	}
	w = text(w.key(`,"durability":`), m.Durability)
	return since(w, m.Since).end(0)
}

func (m *Account) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"n":`), m.N)
	w = num(w.key(`,"account":`), m.Account)
	w = text(w.key(`,"name":`), m.Name)
	w = num(w.key(`,"balance":`), m.Balance)
	w = num(w.key(`,"held":`), m.Held)
	w = num(w.key(`,"staked":`), m.Staked)
	w = list(w.key(`,"following":`), m.Following, appendFriend)
	return w.end(0)
}

func (m *Predictions) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"n":`), m.N)
	w = list(w.key(`,"predictions":`), m.Predictions, appendPrediction)
	return w.end(0)
}

func (m *Friends) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"pool":`), m.Pool)
	w = list(w.key(`,"predictions":`), m.Predictions, appendFriendPrediction)
	return w.end(0)
}

func (m *Followed) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"account":`), m.Account)
	w = text(w.key(`,"name":`), m.Name)
	return w.end(0)
}

func (m *Unfollowed) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"account":`), m.Account)
	return w.end(0)
}

func (m *Clock) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"sent":`), m.Sent)
	return w.end(0)
}

func (m *Heartbeat) append(w writer) writer {
	w = w.open(m.Type())
	if m.ID != 0 {
		w = num(w.key(`,"id":`), m.ID)
	}
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"game":`), m.Game)
	w = num(w.key(`,"seq":`), m.Seq)
	w = num(w.key(`,"interval":`), m.Interval)
	w = boolean(w.key(`,"stale":`), m.Stale)
	return w.end(0)
}

func (m *Refused) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	if m.N != 0 {
		w = num(w.key(`,"n":`), m.N)
	}
	w = text(w.key(`,"code":`), m.Reason.Code())
	w = text(w.key(`,"reason":`), m.Reason.Reason())
	if m.Detail != "" {
		w = text(w.key(`,"detail":`), m.Detail)
	}
	if m.Arrived != 0 {
		w = num(w.key(`,"arrived":`), m.Arrived)
	}
	if m.Locked != 0 {
		w = num(w.key(`,"locked":`), m.Locked)
	}
	return w.end(0)
}

func (m *Payout) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"n":`), m.N)
	w = num(w.key(`,"prediction":`), m.Prediction)
	w = num(w.key(`,"pool":`), m.Pool)
	w = num(w.key(`,"outcome":`), m.Outcome)
	w = num(w.key(`,"amount":`), m.Amount)
	w = num(w.key(`,"payout":`), m.Payout)
	w = num(w.key(`,"balance":`), m.Balance)
	return since(w, m.Since).end(0)
}

func (m *Refund) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"n":`), m.N)
	w = num(w.key(`,"prediction":`), m.Prediction)
	w = num(w.key(`,"pool":`), m.Pool)
	w = num(w.key(`,"outcome":`), m.Outcome)
	w = num(w.key(`,"amount":`), m.Amount)
	w = num(w.key(`,"balance":`), m.Balance)
	w = text(w.key(`,"reason":`), m.Reason.String())
	return since(w, m.Since).end(0)
}

func (m *Balance) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"n":`), m.N)
	w = num(w.key(`,"seq":`), m.Seq)
	w = num(w.key(`,"change":`), m.Change)
	w = num(w.key(`,"balance":`), m.Balance)
	return since(w, m.Since).end(0)
}

// head appends what every broadcast of a game begins with.
func head(w writer, m Message, t Time, game GameID, seq uint64) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"t":`), t)
	w = num(w.key(`,"game":`), game)
	return num(w.key(`,"seq":`), seq)
}

func (m *Odds) append(w writer) writer {
	w = head(w, m, m.T, m.Game, m.Seq)
	w = num(w.key(`,"pool":`), m.Pool)
	w = num(w.key(`,"counts":`), m.Counts)
	w = list(w.key(`,"odds":`), m.Odds, appendOdd)
	if m.Carried != 0 {
		w = num(w.key(`,"carried":`), m.Carried)
	}
	return w.end(0)
}

func (m *Conflated) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"game":`), m.Game)
	w = num(w.key(`,"conflated":`), m.N)
	return w.end(0)
}

func (m *Happened) append(w writer) writer {
	w = head(w, m, m.T, m.Game, m.Seq)
	w = text(w.key(`,"kind":`), m.Kind)
	w = num(w.key(`,"minute":`), m.Minute)
	w = num(w.key(`,"team":`), m.Team)
	w = text(w.key(`,"player":`), m.Player)
	w = list(w.key(`,"score":`), m.Score[:], num)
	return w.end(0)
}

func (m *Opened) append(w writer) writer {
	w = head(w, m, m.T, m.Game, m.Seq)
	w = m.Pool.append(w.key(`,"pool":`))
	return w.end(0)
}

func (m *Locked) append(w writer) writer {
	w = head(w, m, m.T, m.Game, m.Seq)
	w = num(w.key(`,"pool":`), m.Pool)
	w = num(w.key(`,"at":`), m.At)
	w = num(w.key(`,"counts":`), m.Counts)
	w = list(w.key(`,"odds":`), m.Odds, appendOdd)
	return w.end(0)
}

func (m *Settled) append(w writer) writer {
	w = w.open(m.Type()).widen()
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"game":`), m.Game)
	w = num(w.key(`,"seq":`), m.Seq)
	w = num(w.key(`,"pool":`), m.Pool)
	w = list(w.key(`,"winners":`), m.Winners, num)
	w = num(w.key(`,"gross":`), m.Gross)
	w = num(w.key(`,"takeout":`), m.Takeout)
	w = num(w.key(`,"paid":`), m.Paid)
	w = multiplier(w.key(`,"x":`), m.Multiplier)
	w = boolean(w.key(`,"refunded":`), m.Refunded)
	if m.Reason != 0 {
		w = text(w.key(`,"reason":`), m.Reason.String())
	}
	if len(m.Dividends) > 0 {
		w = list(w.key(`,"dividends":`), m.Dividends, appendDividend)
	}
	for _, part := range [...]struct {
		key    string
		amount Amount
	}{{`,"breakage":`, m.Breakage}, {`,"minus":`, m.Minus}, {`,"carried":`, m.Carried}, {`,"carried_on":`, m.CarriedOn}} {
		if part.amount != 0 {
			w = num(w.key(part.key), part.amount)
		}
	}
	if m.CarriedTo != 0 {
		w = num(w.key(`,"carried_to":`), m.CarriedTo)
	}
	return w.end(0)
}

func (m *Voided) append(w writer) writer {
	w = head(w, m, m.T, m.Game, m.Seq)
	w = num(w.key(`,"pool":`), m.Pool)
	w = text(w.key(`,"reason":`), m.Reason)
	return w.end(0)
}

func (m *GameChanged) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"seq":`), m.Seq)
	w = m.Game.append(w.key(`,"game":`))
	return w.end(0)
}

func (m *Welcome) AppendJSON(b []byte) []byte     { return m.append(writeJSON(b)).b }
func (m *Games) AppendJSON(b []byte) []byte       { return m.append(writeJSON(b)).b }
func (m *Joined) AppendJSON(b []byte) []byte      { return m.append(writeJSON(b)).b }
func (m *Left) AppendJSON(b []byte) []byte        { return m.append(writeJSON(b)).b }
func (m *Pools) AppendJSON(b []byte) []byte       { return m.append(writeJSON(b)).b }
func (m *Receipt) AppendJSON(b []byte) []byte     { return m.append(writeJSON(b)).b }
func (m *Account) AppendJSON(b []byte) []byte     { return m.append(writeJSON(b)).b }
func (m *Predictions) AppendJSON(b []byte) []byte { return m.append(writeJSON(b)).b }
func (m *Friends) AppendJSON(b []byte) []byte     { return m.append(writeJSON(b)).b }
func (m *Followed) AppendJSON(b []byte) []byte    { return m.append(writeJSON(b)).b }
func (m *Unfollowed) AppendJSON(b []byte) []byte  { return m.append(writeJSON(b)).b }
func (m *Clock) AppendJSON(b []byte) []byte       { return m.append(writeJSON(b)).b }
func (m *Heartbeat) AppendJSON(b []byte) []byte   { return m.append(writeJSON(b)).b }
func (m *Refused) AppendJSON(b []byte) []byte     { return m.append(writeJSON(b)).b }
func (m *Payout) AppendJSON(b []byte) []byte      { return m.append(writeJSON(b)).b }
func (m *Refund) AppendJSON(b []byte) []byte      { return m.append(writeJSON(b)).b }
func (m *Balance) AppendJSON(b []byte) []byte     { return m.append(writeJSON(b)).b }
func (m *Odds) AppendJSON(b []byte) []byte        { return m.append(writeJSON(b)).b }
func (m *Conflated) AppendJSON(b []byte) []byte   { return m.append(writeJSON(b)).b }
func (m *Happened) AppendJSON(b []byte) []byte    { return m.append(writeJSON(b)).b }
func (m *Opened) AppendJSON(b []byte) []byte      { return m.append(writeJSON(b)).b }
func (m *Locked) AppendJSON(b []byte) []byte      { return m.append(writeJSON(b)).b }
func (m *Settled) AppendJSON(b []byte) []byte     { return m.append(writeJSON(b)).b }
func (m *Voided) AppendJSON(b []byte) []byte      { return m.append(writeJSON(b)).b }
func (m *GameChanged) AppendJSON(b []byte) []byte { return m.append(writeJSON(b)).b }

func (m *Welcome) AppendMsgpack(b []byte) []byte     { return m.append(writeMsgpack(b)).b }
func (m *Games) AppendMsgpack(b []byte) []byte       { return m.append(writeMsgpack(b)).b }
func (m *Joined) AppendMsgpack(b []byte) []byte      { return m.append(writeMsgpack(b)).b }
func (m *Left) AppendMsgpack(b []byte) []byte        { return m.append(writeMsgpack(b)).b }
func (m *Pools) AppendMsgpack(b []byte) []byte       { return m.append(writeMsgpack(b)).b }
func (m *Receipt) AppendMsgpack(b []byte) []byte     { return m.append(writeMsgpack(b)).b }
func (m *Account) AppendMsgpack(b []byte) []byte     { return m.append(writeMsgpack(b)).b }
func (m *Predictions) AppendMsgpack(b []byte) []byte { return m.append(writeMsgpack(b)).b }
func (m *Friends) AppendMsgpack(b []byte) []byte     { return m.append(writeMsgpack(b)).b }
func (m *Followed) AppendMsgpack(b []byte) []byte    { return m.append(writeMsgpack(b)).b }
func (m *Unfollowed) AppendMsgpack(b []byte) []byte  { return m.append(writeMsgpack(b)).b }
func (m *Clock) AppendMsgpack(b []byte) []byte       { return m.append(writeMsgpack(b)).b }
func (m *Heartbeat) AppendMsgpack(b []byte) []byte   { return m.append(writeMsgpack(b)).b }
func (m *Refused) AppendMsgpack(b []byte) []byte     { return m.append(writeMsgpack(b)).b }
func (m *Payout) AppendMsgpack(b []byte) []byte      { return m.append(writeMsgpack(b)).b }
func (m *Refund) AppendMsgpack(b []byte) []byte      { return m.append(writeMsgpack(b)).b }
func (m *Balance) AppendMsgpack(b []byte) []byte     { return m.append(writeMsgpack(b)).b }
func (m *Odds) AppendMsgpack(b []byte) []byte        { return m.append(writeMsgpack(b)).b }
func (m *Conflated) AppendMsgpack(b []byte) []byte   { return m.append(writeMsgpack(b)).b }
func (m *Happened) AppendMsgpack(b []byte) []byte    { return m.append(writeMsgpack(b)).b }
func (m *Opened) AppendMsgpack(b []byte) []byte      { return m.append(writeMsgpack(b)).b }
func (m *Locked) AppendMsgpack(b []byte) []byte      { return m.append(writeMsgpack(b)).b }
func (m *Settled) AppendMsgpack(b []byte) []byte     { return m.append(writeMsgpack(b)).b }
func (m *Voided) AppendMsgpack(b []byte) []byte      { return m.append(writeMsgpack(b)).b }
func (m *GameChanged) AppendMsgpack(b []byte) []byte { return m.append(writeMsgpack(b)).b }

// assert stops the process where our own code is wrong.
func assert(ok bool, what string) {
	if !ok {
		panic("proto: " + what)
	}
}
