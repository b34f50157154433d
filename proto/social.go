package proto

import (
	"encoding/json"
	"math/bits"

	"github.com/tinylib/msgp/msgp"
)

// What players ask each other: questions of their own, and circles to ask them in.
//
// A question is a pool that a player asked. Its stakes lie in the pool as in any other, not with the asker; he gets no share of
// it, and may not stake where he names the winner himself. A void returns everything.
//
//	ask ─▶ proposed ─approved─▶ open ─lock─▶ locked ─resolve─▶ claimed ─window passes─▶ settled
//	         └─rejected─▶ voided  ▲ │             ▲                 └─challenge─▶ an operator settles or voids
//	                     approved │ ▼ reports     │
//	                            suspended ────────┘
//
// A circle is a group of players with a room of its own in any game: a game like others, which only members may join, where
// they ask and stake among themselves, and where the events of the game are heard.

// CircleID is a circle of players.
type CircleID uint64

// Settling says who names the winner of a question.
type Settling uint8

// The ways to settle a question.
const (
	SettledByAsker Settling = iota // resolve, which backers may challenge
	SettledByAdmin
	SettledByRules // as a template is, by the game's events
)

var settlings = names{"asker", "admin", "rules"}

func (s Settling) String() string                { return settlings.of(uint8(s)) }
func (s Settling) MarshalText() ([]byte, error)  { return []byte(s.String()), nil }
func (s *Settling) UnmarshalText(b []byte) error { return settlings.find(b, (*uint8)(s)) }

// Question is what ask asks: a pool, and how it ends. Wins, a rule for each label, Locks and Voids are rules as in a Template;
// only a question that is settled by rules has them.
type Question struct {
	Question string   `json:"question"`
	Labels   []string `json:"labels"`
	LocksAt  Time     `json:"locks_at,omitempty"`
	Settle   Settling `json:"settle"`
	Wins     []string `json:"wins,omitempty"`
	Locks    string   `json:"locks,omitempty"`
	Voids    string   `json:"voids,omitempty"`
}

// Parts of messages.
type (
	// Asked is what a pool has that a player asked.
	Asked struct {
		Account   AccountID `json:"account"`
		Name      string    `json:"name"`
		Settle    Settling  `json:"settle"`
		Suspended bool      `json:"suspended,omitempty"` // until an operator has looked at it
		Claim     []Outcome `json:"claim,omitempty"`     // the winners that the asker names
		Until     Time      `json:"until,omitempty"`     // when they win, if nobody challenges; 0: it was challenged, an operator decides
	}
	// Inquiry is a question as its asker and operators see it.
	Inquiry struct {
		Pool       Pool      `json:"pool"`
		Reports    int       `json:"reports"`              // players who have reported it
		Challenger AccountID `json:"challenger,omitempty"` // who challenged the asker's claim
		Reason     string    `json:"reason,omitempty"`     // why it was voided or rejected
	}
	// CircleName is a circle that one is in.
	CircleName struct {
		Circle CircleID `json:"circle"`
		Name   string   `json:"name"`
	}
)

// Messages.
type (
	// QuestionState answers ask, resolve, challenge and report; privately, it tells the asker of each new state of his question.
	QuestionState struct {
		ID    RequestID `json:"id,omitempty"` // of a reply
		T     Time      `json:"t"`
		N     uint64    `json:"n,omitempty"` // private number, where it is no reply
		Pool  PoolID    `json:"pool"`
		State PoolState `json:"state"`
	}
	// Questions lists one's own questions in a game, by pool; to an operator, those of all players.
	Questions struct {
		ID        RequestID `json:"id"`
		T         Time      `json:"t"`
		Game      GameID    `json:"game"`
		Questions []Inquiry `json:"questions"`
	}
	// Circles lists the circles that one is in, in the order in which one joined them.
	Circles struct {
		ID      RequestID    `json:"id"`
		T       Time         `json:"t"`
		Circles []CircleName `json:"circles"`
	}
	// Circle shows a circle to a member.
	Circle struct {
		ID      RequestID `json:"id"`
		T       Time      `json:"t"`
		Circle  CircleID  `json:"circle"`
		Name    string    `json:"name"`
		Owner   AccountID `json:"owner"`
		Code    uint64    `json:"code,omitempty"` // with which others join; only its owner is told
		Members []Friend  `json:"members"`        // in the order in which they joined
	}
	// CircleLeft says that one is in the circle no more: in answer to circle_leave, or unasked, with id 0, to whom the owner removed.
	CircleLeft struct {
		ID     RequestID `json:"id"`
		T      Time      `json:"t"`
		Circle CircleID  `json:"circle"`
	}
	// CircleGame names the circle's room in a game, to join.
	CircleGame struct {
		ID     RequestID `json:"id"`
		T      Time      `json:"t"`
		Circle CircleID  `json:"circle"`
		Game   GameID    `json:"game"`
	}
	// PoolChanged shows a pool anew: it was suspended, approved again, claimed or challenged.
	PoolChanged struct {
		T    Time   `json:"t"`
		Game GameID `json:"game"`
		Seq  uint64 `json:"seq"`
		Pool Pool   `json:"pool"`
	}
)

// CircleOpening is what makes a circle, or changes who may join: the engine draws Code, which the market cannot.
type CircleOpening struct {
	Name string
	Code uint64
}

func (*QuestionState) Type() string { return "question" }
func (*Questions) Type() string     { return "questions" }
func (*Circles) Type() string       { return "circles" }
func (*Circle) Type() string        { return "circle" }
func (*CircleLeft) Type() string    { return "circle_left" }
func (*CircleGame) Type() string    { return "circle_game" }
func (*PoolChanged) Type() string   { return "pool" }

func (a *Asked) append(w writer) writer {
	w, outer := w.begin()
	w = num(w.key(`{"account":`), a.Account)
	w = text(w.key(`,"name":`), a.Name)
	w = text(w.key(`,"settle":`), a.Settle.String())
	if a.Suspended {
		w = boolean(w.key(`,"suspended":`), a.Suspended)
	}
	if len(a.Claim) > 0 {
		w = list(w.key(`,"claim":`), a.Claim, num)
	}
	if a.Until != 0 {
		w = num(w.key(`,"until":`), a.Until)
	}
	return w.end(outer)
}

func appendInquiry(w writer, q Inquiry) writer {
	w, outer := w.begin()
	w = q.Pool.append(w.key(`{"pool":`))
	w = num(w.key(`,"reports":`), q.Reports)
	if q.Challenger != 0 {
		w = num(w.key(`,"challenger":`), q.Challenger)
	}
	if q.Reason != "" {
		w = text(w.key(`,"reason":`), q.Reason)
	}
	return w.end(outer)
}

func appendCircleName(w writer, c CircleName) writer {
	w, outer := w.begin()
	w = num(w.key(`{"circle":`), c.Circle)
	w = text(w.key(`,"name":`), c.Name)
	return w.end(outer)
}

func (m *QuestionState) append(w writer) writer {
	w = w.open(m.Type())
	if m.ID != 0 {
		w = num(w.key(`,"id":`), m.ID)
	}
	w = num(w.key(`,"t":`), m.T)
	if m.N != 0 {
		w = num(w.key(`,"n":`), m.N)
	}
	w = num(w.key(`,"pool":`), m.Pool)
	w = text(w.key(`,"state":`), m.State.String())
	return w.end(0)
}

func (m *Questions) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"game":`), m.Game)
	w = list(w.key(`,"questions":`), m.Questions, appendInquiry)
	return w.end(0)
}

func (m *Circles) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = list(w.key(`,"circles":`), m.Circles, appendCircleName)
	return w.end(0)
}

func (m *Circle) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"circle":`), m.Circle)
	w = text(w.key(`,"name":`), m.Name)
	w = num(w.key(`,"owner":`), m.Owner)
	if m.Code != 0 {
		w = num(w.key(`,"code":`), m.Code)
	}
	w = list(w.key(`,"members":`), m.Members, appendFriend)
	return w.end(0)
}

func (m *CircleLeft) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"circle":`), m.Circle)
	return w.end(0)
}

func (m *CircleGame) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"circle":`), m.Circle)
	w = num(w.key(`,"game":`), m.Game)
	return w.end(0)
}

func (m *PoolChanged) append(w writer) writer {
	w = head(w, m, m.T, m.Game, m.Seq)
	w = m.Pool.append(w.key(`,"pool":`))
	return w.end(0)
}

func (m *QuestionState) AppendJSON(b []byte) []byte { return m.append(writeJSON(b)).b }
func (m *Questions) AppendJSON(b []byte) []byte     { return m.append(writeJSON(b)).b }
func (m *Circles) AppendJSON(b []byte) []byte       { return m.append(writeJSON(b)).b }
func (m *Circle) AppendJSON(b []byte) []byte        { return m.append(writeJSON(b)).b }
func (m *CircleLeft) AppendJSON(b []byte) []byte    { return m.append(writeJSON(b)).b }
func (m *CircleGame) AppendJSON(b []byte) []byte    { return m.append(writeJSON(b)).b }
func (m *PoolChanged) AppendJSON(b []byte) []byte   { return m.append(writeJSON(b)).b }

func (m *QuestionState) AppendMsgpack(b []byte) []byte { return m.append(writeMsgpack(b)).b }
func (m *Questions) AppendMsgpack(b []byte) []byte     { return m.append(writeMsgpack(b)).b }
func (m *Circles) AppendMsgpack(b []byte) []byte       { return m.append(writeMsgpack(b)).b }
func (m *Circle) AppendMsgpack(b []byte) []byte        { return m.append(writeMsgpack(b)).b }
func (m *CircleLeft) AppendMsgpack(b []byte) []byte    { return m.append(writeMsgpack(b)).b }
func (m *CircleGame) AppendMsgpack(b []byte) []byte    { return m.append(writeMsgpack(b)).b }
func (m *PoolChanged) AppendMsgpack(b []byte) []byte   { return m.append(writeMsgpack(b)).b }

// append adds the members of a question to the request that asks it.
func (q *Question) append(w writer) writer {
	w = text(w.key(`,"question":`), q.Question)
	w = list(w.key(`,"labels":`), q.Labels, text)
	if q.LocksAt != 0 {
		w = num(w.key(`,"locks_at":`), q.LocksAt)
	}
	w = text(w.key(`,"settle":`), q.Settle.String())
	if len(q.Wins) > 0 {
		w = list(w.key(`,"wins":`), q.Wins, text)
	}
	if q.Locks != "" {
		w = text(w.key(`,"locks":`), q.Locks)
	}
	if q.Voids != "" {
		w = text(w.key(`,"voids":`), q.Voids)
	}
	return w
}

// rareMembers are the members of rare requests that are texts or lists. Both codecs read them by one rule: a text is a string, a
// list of texts has only strings, a list of outcomes only integers, and anything else, null too, makes the request malformed.
type rareMembers struct {
	Question, Settle, Locks, Voids, Name rareText
	Labels, Wins                         rareList
	Winners                              rareOutcomes
}

// unmarshalMsgpack reads the value of the member that has the key.
func (m *rareMembers) unmarshalMsgpack(key, b []byte) (rest []byte, err error) {
	switch string(key) {
	case "question":
		return m.Question.unmarshalMsgpack(b)
	case "settle":
		return m.Settle.unmarshalMsgpack(b)
	case "locks":
		return m.Locks.unmarshalMsgpack(b)
	case "voids":
		return m.Voids.unmarshalMsgpack(b)
	case "name":
		return m.Name.unmarshalMsgpack(b)
	case "labels":
		return m.Labels.unmarshalMsgpack(b)
	case "wins":
		return m.Wins.unmarshalMsgpack(b)
	}
	return m.Winners.unmarshalMsgpack(b)
}

// into moves what was read into the request; it returns false where something is of a wrong type, or a word that it cannot be.
func (m *rareMembers) into(r *Request) bool {
	for _, member := range [...]*rareText{&m.Question, &m.Settle, &m.Locks, &m.Voids, &m.Name} {
		if member.bad {
			return false
		}
	}
	if m.Labels.bad || m.Wins.bad || m.Winners.bad {
		return false
	}
	r.Name, r.Winners = m.Name.text, m.Winners.set
	if r.Type == RequestAsk {
		r.Ask.Question, r.Ask.Labels, r.Ask.Wins, r.Ask.Locks, r.Ask.Voids = m.Question.text, m.Labels.texts, m.Wins.texts, m.Locks.text, m.Voids.text
		return m.Settle.text == "" || r.Ask.Settle.UnmarshalText([]byte(m.Settle.text)) == nil
	}
	return true
}

type rareText struct {
	text string
	bad  bool
}

func (t *rareText) UnmarshalJSON(b []byte) error {
	*t = rareText{bad: b[0] != '"'}
	if !t.bad {
		return json.Unmarshal(b, &t.text)
	}
	return nil
}

func (t *rareText) unmarshalMsgpack(b []byte) (rest []byte, err error) {
	if *t = (rareText{bad: msgp.NextType(b) != msgp.StrType}); t.bad {
		return skip(b)
	}
	word, rest, err := msgp.ReadStringZC(b)
	t.text = valid(string(word))
	return rest, err
}

type rareList struct {
	texts []string
	bad   bool
}

func (l *rareList) add(t rareText) {
	l.texts, l.bad = append(l.texts, t.text), l.bad || t.bad
}

func (l *rareList) UnmarshalJSON(b []byte) error {
	if *l = (rareList{bad: b[0] != '['}); l.bad {
		return nil
	}
	var texts []rareText
	if err := json.Unmarshal(b, &texts); err != nil {
		return err
	}
	for _, t := range texts {
		l.add(t)
	}
	return nil
}

// unmarshalMsgpack ends at the end of b at the latest, whatever number of elements b claims.
func (l *rareList) unmarshalMsgpack(b []byte) (rest []byte, err error) {
	if *l = (rareList{bad: msgp.NextType(b) != msgp.ArrayType}); l.bad {
		return skip(b)
	}
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	for ; err == nil && n > 0; n-- {
		var t rareText
		b, err = t.unmarshalMsgpack(b)
		l.add(t)
	}
	return b, err
}

// rareOutcomes is a list of outcomes as a set. One that no pool can have empties it, and the market refuses that.
type rareOutcomes struct {
	set  uint64 // a bit each
	bad  bool
	none bool // one was outside of every pool's range
}

func (o *rareOutcomes) add(n int64, ok bool) {
	o.bad = o.bad || !ok
	o.none = o.none || outcome(n) == OutcomeNone
	if o.set |= 1 << (n & 63); o.none {
		o.set = 0
	}
}

func (o *rareOutcomes) UnmarshalJSON(b []byte) error {
	if *o = (rareOutcomes{bad: b[0] != '['}); o.bad {
		return nil
	}
	var numbers []number
	if err := json.Unmarshal(b, &numbers); err != nil {
		return err
	}
	for _, n := range numbers {
		o.add(n.value, !n.bad)
	}
	return nil
}

func (o *rareOutcomes) unmarshalMsgpack(b []byte) (rest []byte, err error) {
	if *o = (rareOutcomes{bad: msgp.NextType(b) != msgp.ArrayType}); o.bad {
		return skip(b)
	}
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	for ; err == nil && n > 0; n-- {
		var value int64
		var ok bool
		value, ok, b, err = readInteger(b)
		o.add(value, ok)
	}
	return b, err
}

// Outcomes are the members of a set, a bit each, in their order.
func Outcomes(set uint64) []Outcome {
	outcomes := make([]Outcome, 0, bits.OnesCount64(set))
	for ; set != 0; set &= set - 1 {
		outcomes = append(outcomes, Outcome(bits.TrailingZeros64(set)))
	}
	return outcomes
}
