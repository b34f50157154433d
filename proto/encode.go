package proto

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// The append encoder. encoding/json with the struct tags of message.go is its naive twin: the
// tests hold every message against it.

func open(b []byte, m Message) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, m.Type()...)
	return append(b, '"')
}

// num appends a member; key comes with its comma, quotes and colon, as in `,"id":`.
func num[T ~int64 | ~uint64 | ~uint32 | ~uint16 | ~uint8 | ~int](b []byte, key string, v T) []byte {
	return integer(append(b, key...), v)
}

func integer[T ~int64 | ~uint64 | ~uint32 | ~uint16 | ~uint8 | ~int](b []byte, v T) []byte {
	return strconv.AppendInt(b, int64(v), 10)
}

func boolean(b []byte, key string, v bool) []byte { return strconv.AppendBool(append(b, key...), v) }

func text(b []byte, key, v string) []byte { return quote(append(b, key...), v) }

// quote appends v as a JSON string. Text that needs no escape is copied; the rest goes the
// slow way, which also replaces what is not UTF-8.
func quote(b []byte, v string) []byte {
	for i := range len(v) {
		if c := v[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return quoteSlow(b, v)
		}
	}
	b = append(b, '"')
	b = append(b, v...)
	return append(b, '"')
}

func quoteSlow(b []byte, v string) []byte {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	assert(e.Encode(v) == nil, "a string always encodes")
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}

// list appends a member that is an array.
func list[T any](b []byte, key string, vs []T, one func([]byte, T) []byte) []byte {
	b = append(b, key...)
	b = append(b, '[')
	for i, v := range vs {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, v)
	}
	return append(b, ']')
}

func pair(b []byte, key string, v [2]uint16) []byte {
	b = append(b, key...)
	b = append(b, '[')
	b = integer(b, v[0])
	b = append(b, ',')
	b = integer(b, v[1])
	return append(b, ']')
}

func (g *Game) append(b []byte) []byte {
	b = num(b, `{"game":`, g.Game)
	b = text(b, `,"name":`, g.Name)
	b = text(b, `,"state":`, g.State.String())
	b = list(b, `,"teams":`, g.Teams[:], quote)
	b = pair(b, `,"score":`, g.Score)
	b = num(b, `,"minute":`, g.Minute)
	b = num(b, `,"interval":`, g.Interval)
	b = num(b, `,"present":`, g.Present)
	return append(b, '}')
}

func (p *Pool) append(b []byte) []byte {
	b = num(b, `{"pool":`, p.Pool)
	b = text(b, `,"question":`, p.Question)
	b = list(b, `,"labels":`, p.Labels, quote)
	b = text(b, `,"state":`, p.State.String())
	if p.LocksAt != 0 {
		b = num(b, `,"locks_at":`, p.LocksAt)
	}
	if p.Takeout != 0 {
		b = num(b, `,"takeout":`, p.Takeout)
	}
	b = list(b, `,"odds":`, p.Odds, appendOdd)
	if len(p.Winners) > 0 {
		b = list(b, `,"winners":`, p.Winners, integer)
	}
	return append(b, '}')
}

func appendOdd(b []byte, o Odd) []byte {
	b = num(b, `{"staked":`, o.Staked)
	b = num(b, `,"backers":`, o.Backers)
	b = append(b, `,"x":`...)
	b = o.Multiplier.append(b)
	return append(b, '}')
}

func appendPrediction(b []byte, p Prediction) []byte {
	b = num(b, `{"prediction":`, p.Prediction)
	b = num(b, `,"id":`, p.ID)
	b = num(b, `,"pool":`, p.Pool)
	b = num(b, `,"outcome":`, p.Outcome)
	b = num(b, `,"amount":`, p.Amount)
	b = text(b, `,"state":`, p.State.String())
	b = num(b, `,"payout":`, p.Payout)
	return append(b, '}')
}

func appendFriendPrediction(b []byte, f FriendPrediction) []byte {
	b = num(b, `{"account":`, f.Account)
	b = text(b, `,"name":`, f.Name)
	b = num(b, `,"outcome":`, f.Outcome)
	b = num(b, `,"amount":`, f.Amount)
	return append(b, '}')
}

func appendFriend(b []byte, f Friend) []byte {
	b = num(b, `{"account":`, f.Account)
	b = text(b, `,"name":`, f.Name)
	return append(b, '}')
}

func (m *Welcome) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"epoch":`, m.Epoch)
	b = num(b, `,"account":`, m.Account)
	b = text(b, `,"name":`, m.Name)
	b = num(b, `,"balance":`, m.Balance)
	b = num(b, `,"n":`, m.N)
	b = boolean(b, `,"resumed":`, m.Resumed)
	if m.Token != "" {
		b = text(b, `,"token":`, m.Token)
	}
	b = text(b, `,"durability":`, m.Durability)
	return append(b, '}')
}

func (m *Games) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = list(b, `,"games":`, m.Games, appendGame)
	return append(b, '}')
}

func appendGame(b []byte, g Game) []byte { return g.append(b) }
func appendPool(b []byte, p Pool) []byte { return p.append(b) }

func (m *Joined) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = append(b, `,"game":`...)
	b = m.Game.append(b)
	b = num(b, `,"seq":`, m.Seq)
	b = list(b, `,"pools":`, m.Pools, appendPool)
	return append(b, '}')
}

func (m *Left) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"game":`, m.Game)
	return append(b, '}')
}

func (m *Pools) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"game":`, m.Game)
	b = num(b, `,"seq":`, m.Seq)
	b = list(b, `,"pools":`, m.Pools, appendPool)
	return append(b, '}')
}

func (m *Receipt) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"n":`, m.N)
	b = num(b, `,"prediction":`, m.Prediction)
	b = num(b, `,"pool":`, m.Pool)
	b = num(b, `,"outcome":`, m.Outcome)
	b = num(b, `,"amount":`, m.Amount)
	b = num(b, `,"balance":`, m.Balance)
	b = num(b, `,"arrived":`, m.Arrived)
	b = text(b, `,"durability":`, m.Durability)
	return append(b, '}')
}

func (m *Account) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"n":`, m.N)
	b = num(b, `,"account":`, m.Account)
	b = text(b, `,"name":`, m.Name)
	b = num(b, `,"balance":`, m.Balance)
	b = num(b, `,"held":`, m.Held)
	b = num(b, `,"staked":`, m.Staked)
	b = list(b, `,"following":`, m.Following, appendFriend)
	return append(b, '}')
}

func (m *Predictions) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"n":`, m.N)
	b = list(b, `,"predictions":`, m.Predictions, appendPrediction)
	return append(b, '}')
}

func (m *Friends) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"pool":`, m.Pool)
	b = list(b, `,"predictions":`, m.Predictions, appendFriendPrediction)
	return append(b, '}')
}

func (m *Followed) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"account":`, m.Account)
	b = text(b, `,"name":`, m.Name)
	return append(b, '}')
}

func (m *Unfollowed) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"account":`, m.Account)
	return append(b, '}')
}

func (m *Presence) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"game":`, m.Game)
	b = num(b, `,"present":`, m.Present)
	return append(b, '}')
}

func (m *Clock) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"sent":`, m.Sent)
	return append(b, '}')
}

func (m *Heartbeat) AppendJSON(b []byte) []byte {
	b = open(b, m)
	if m.ID != 0 {
		b = num(b, `,"id":`, m.ID)
	}
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"game":`, m.Game)
	b = num(b, `,"seq":`, m.Seq)
	b = num(b, `,"interval":`, m.Interval)
	b = boolean(b, `,"stale":`, m.Stale)
	return append(b, '}')
}

func (m *Refused) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"id":`, m.ID)
	b = num(b, `,"t":`, m.T)
	if m.N != 0 {
		b = num(b, `,"n":`, m.N)
	}
	b = text(b, `,"code":`, m.Reason.Code())
	b = text(b, `,"reason":`, m.Reason.Reason())
	return append(b, '}')
}

func (m *Payout) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"n":`, m.N)
	b = num(b, `,"prediction":`, m.Prediction)
	b = num(b, `,"pool":`, m.Pool)
	b = num(b, `,"outcome":`, m.Outcome)
	b = num(b, `,"amount":`, m.Amount)
	b = num(b, `,"payout":`, m.Payout)
	b = num(b, `,"balance":`, m.Balance)
	return append(b, '}')
}

func (m *Refund) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"n":`, m.N)
	b = num(b, `,"prediction":`, m.Prediction)
	b = num(b, `,"pool":`, m.Pool)
	b = num(b, `,"outcome":`, m.Outcome)
	b = num(b, `,"amount":`, m.Amount)
	b = num(b, `,"balance":`, m.Balance)
	return append(b, '}')
}

func (m *Balance) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"n":`, m.N)
	b = num(b, `,"change":`, m.Change)
	b = num(b, `,"balance":`, m.Balance)
	return append(b, '}')
}

// head appends what every broadcast of a game begins with.
func head(b []byte, m Message, t Time, game GameID, seq uint64) []byte {
	b = open(b, m)
	b = num(b, `,"t":`, t)
	b = num(b, `,"game":`, game)
	return num(b, `,"seq":`, seq)
}

func (m *Odds) AppendJSON(b []byte) []byte {
	b = head(b, m, m.T, m.Game, m.Seq)
	b = num(b, `,"pool":`, m.Pool)
	b = num(b, `,"counts":`, m.Counts)
	b = list(b, `,"odds":`, m.Odds, appendOdd)
	return append(b, '}')
}

func (m *Conflated) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"game":`, m.Game)
	b = num(b, `,"conflated":`, m.N)
	return append(b, '}')
}

func (m *Happened) AppendJSON(b []byte) []byte {
	b = head(b, m, m.T, m.Game, m.Seq)
	b = text(b, `,"kind":`, m.Kind)
	b = num(b, `,"minute":`, m.Minute)
	b = num(b, `,"team":`, m.Team)
	b = text(b, `,"player":`, m.Player)
	b = pair(b, `,"score":`, m.Score)
	return append(b, '}')
}

func (m *Opened) AppendJSON(b []byte) []byte {
	b = head(b, m, m.T, m.Game, m.Seq)
	b = append(b, `,"pool":`...)
	b = m.Pool.append(b)
	return append(b, '}')
}

func (m *Locked) AppendJSON(b []byte) []byte {
	b = head(b, m, m.T, m.Game, m.Seq)
	b = num(b, `,"pool":`, m.Pool)
	b = num(b, `,"at":`, m.At)
	b = num(b, `,"counts":`, m.Counts)
	b = list(b, `,"odds":`, m.Odds, appendOdd)
	return append(b, '}')
}

func (m *Settled) AppendJSON(b []byte) []byte {
	b = head(b, m, m.T, m.Game, m.Seq)
	b = num(b, `,"pool":`, m.Pool)
	b = list(b, `,"winners":`, m.Winners, integer)
	b = num(b, `,"gross":`, m.Gross)
	b = num(b, `,"takeout":`, m.Takeout)
	b = num(b, `,"paid":`, m.Paid)
	b = append(b, `,"x":`...)
	b = m.Multiplier.append(b)
	b = boolean(b, `,"refunded":`, m.Refunded)
	return append(b, '}')
}

func (m *Voided) AppendJSON(b []byte) []byte {
	b = head(b, m, m.T, m.Game, m.Seq)
	b = num(b, `,"pool":`, m.Pool)
	b = text(b, `,"reason":`, m.Reason)
	return append(b, '}')
}

func (m *GameChanged) AppendJSON(b []byte) []byte {
	b = open(b, m)
	b = num(b, `,"t":`, m.T)
	b = num(b, `,"seq":`, m.Seq)
	b = append(b, `,"game":`...)
	b = m.Game.append(b)
	return append(b, '}')
}

// assert stops the process where our own code is wrong.
func assert(ok bool, what string) {
	if !ok {
		panic("proto: " + what)
	}
}
