package proto

// What is said of the past: statements, closed predictions, ended games and pools, the best players. All of it comes from
// views that lag a little behind the market; counts is the journal record up to which a reply knows everything.
//
// Lists go from the newest backwards, a page at a time: where more is true, the same request with before set to next
// gets the next page. A page may have less than was asked for, even nothing.

// Page is the part of a list that is asked for: what is below Before and above After, 0 being no bound, and no more
// than Limit.
type Page struct {
	Before, After uint64
	Limit         int
}

// PageMax is the most that one page of a list has, and what it has where no limit is asked for.
const PageMax = 100

type (
	// Entry is one line of an account's statement.
	Entry struct {
		Entry      uint64     `json:"entry"` // all accounts' entries are numbered in one sequence, so an account's grow with gaps
		Seq        Seq        `json:"seq"`   // of the journal record that made it so; a settlement has one for all of its payouts
		T          Time       `json:"t"`     // of that record
		Kind       EntryKind  `json:"kind"`
		Change     Amount     `json:"change"`              // of the balance
		Balance    Amount     `json:"balance"`             // after it
		Prediction Prediction `json:"prediction,omitzero"` // as of then, a sale under its own number; absent where money came or went
		Reason     string     `json:"reason,omitempty"`    // of a refund
	}
	// PastPool is a pool that has ended.
	PastPool struct {
		Pool   Pool   `json:"pool"` // as it ended
		Opened Time   `json:"opened"`
		Locked Time   `json:"locked"` // stakes that arrived later did not count; 0: it was voided while open
		Ended  Time   `json:"ended"`
		Gross  Amount `json:"gross"`
		Paid   Amount `json:"paid"`   // to the winners; 0: all stakes were returned
		Record Seq    `json:"record"` // that ended it
		Head   string `json:"head"`   // of the journal's hash chain there, in hex: see Sealed
		// What the rules made of it; see Settled.
		Takeout   Amount     `json:"takeout,omitempty"`
		Breakage  Amount     `json:"breakage,omitempty"`
		Minus     Amount     `json:"minus,omitempty"`
		CarriedOn Amount     `json:"carried_on,omitempty"`
		Dividends []Dividend `json:"dividends,omitempty"`
	}
	// PastGame is a game that has ended and left memory.
	PastGame struct {
		Game    Game   `json:"game"` // as it ended
		Ended   Time   `json:"ended"`
		Pools   int    `json:"pools"`
		Players int    `json:"players"` // accounts that won or lost there
		Gross   Amount `json:"gross"`   // over all pools
	}
	// Leader is an account's place on a board: by net profit, what its ended predictions brought less what they cost. Equal profits
	// share a rank.
	Leader struct {
		Rank        int       `json:"rank"`
		Account     AccountID `json:"account"`
		Name        string    `json:"name"`
		Profit      Amount    `json:"profit"`
		Predictions uint64    `json:"predictions"` // won, lost or sold; what was refunded is not counted
	}
)

type (
	// Statement lists the changes of one's balance.
	Statement struct {
		ID      RequestID `json:"id"`
		T       Time      `json:"t"`
		Counts  Seq       `json:"counts"`
		Entries []Entry   `json:"entries"` // from the newest backwards
		More    bool      `json:"more"`
		Next    uint64    `json:"next,omitempty"`
	}
	// History lists one's ended predictions: the entries of a statement that ended one, losses among them.
	History struct {
		ID      RequestID `json:"id"`
		T       Time      `json:"t"`
		Counts  Seq       `json:"counts"`
		Entries []Entry   `json:"entries"` // from the newest backwards
		More    bool      `json:"more"`
		Next    uint64    `json:"next,omitempty"`
	}
	// Archive lists ended games, or one game with its ended pools, of which the game may still have others. A page of an
	// archive ends early where it would be too long for one message.
	Archive struct {
		ID     RequestID  `json:"id"`
		T      Time       `json:"t"`
		Counts Seq        `json:"counts"`
		Games  []PastGame `json:"games"` // by id, the last one first; of one game it is empty until that has left memory
		Pools  []PastPool `json:"pools"` // by id, the last one first
		More   bool       `json:"more"`
		Next   uint64     `json:"next,omitempty"`
	}
	// Leaders shows who is ahead in a game, or overall.
	Leaders struct {
		ID      RequestID `json:"id"`
		T       Time      `json:"t"`
		Game    GameID    `json:"game"` // 0: over all games
		Counts  Seq       `json:"counts"`
		Players int       `json:"players"`      // on the whole board
		Leaders []Leader  `json:"leaders"`      // the first hundred
		Own     Leader    `json:"own,omitzero"` // where one is on the board
	}
	// Missed has what a client's account was told while it was away, by the statement: from the oldest to the newest. What
	// the private lane says meanwhile may be among it.
	Missed struct {
		T       Time    `json:"t"`
		Entries []Entry `json:"entries"`
		More    bool    `json:"more"` // older ones were missed too: ask for the statement before next
		Next    uint64  `json:"next,omitempty"`
		Last    bool    `json:"last"`            // no further missed follows
		Since   Seq     `json:"since,omitempty"` // with the last one: see Receipt
	}
	// Sealed publishes the head of the journal's hash chain at the record that ended a pool: no record up to it, no
	// prediction's arrival or verdict, can be changed any more without changing the head.
	Sealed struct {
		T      Time   `json:"t"`
		Game   GameID `json:"game"`
		Seq    uint64 `json:"seq"`
		Pool   PoolID `json:"pool"`
		Record Seq    `json:"record"`
		Head   string `json:"head"` // SHA-256 of the head before it and the record, in hex
	}
)

// EntryKind is why a statement has an entry.
type EntryKind uint8

// The kinds of entries. Their numbers are in files: never change one.
const (
	EntryOpened     EntryKind = iota + 1 // the account, with a first deposit
	EntryDeposit                         //
	EntryWithdrawal                      //
	EntryStake                           // a prediction was accepted
	EntryPayout                          // it was right
	EntryLoss                            // it was wrong: nothing changes
	EntryRefund                          // it was returned
	EntrySale                            // shares were sold back
)

var entryKinds = names{"", "opened", "deposit", "withdrawal", "stake", "payout", "loss", "refund", "sale"}

func (k EntryKind) String() string { return entryKinds.of(uint8(k)) }

// MarshalText writes the kind's name, and UnmarshalText reads it.
func (k EntryKind) MarshalText() ([]byte, error)  { return []byte(k.String()), nil }
func (k *EntryKind) UnmarshalText(b []byte) error { return entryKinds.find(b, (*uint8)(k)) }

// Ends reports whether such an entry ends a prediction, or a part of it.
func (k EntryKind) Ends() bool {
	return k == EntryPayout || k == EntryLoss || k == EntryRefund || k == EntrySale
}

func (*Statement) Type() string { return "statement" }
func (*History) Type() string   { return "history" }
func (*Archive) Type() string   { return "archive" }
func (*Leaders) Type() string   { return "leaders" }
func (*Missed) Type() string    { return "missed" }
func (*Sealed) Type() string    { return "sealed" }

func appendEntry(w writer, e Entry) writer {
	w, outer := w.begin()
	w = num(w.key(`{"entry":`), e.Entry)
	w = num(w.key(`,"seq":`), e.Seq)
	w = num(w.key(`,"t":`), e.T)
	w = text(w.key(`,"kind":`), e.Kind.String())
	w = num(w.key(`,"change":`), e.Change)
	w = num(w.key(`,"balance":`), e.Balance)
	if e.Prediction != (Prediction{}) {
		w = appendPrediction(w.key(`,"prediction":`), e.Prediction)
	}
	if e.Reason != "" {
		w = text(w.key(`,"reason":`), e.Reason)
	}
	return w.end(outer)
}

func appendPastPool(w writer, p PastPool) writer {
	w, outer := w.begin()
	w = p.Pool.append(w.key(`{"pool":`))
	w = num(w.key(`,"opened":`), p.Opened)
	w = num(w.key(`,"locked":`), p.Locked)
	w = num(w.key(`,"ended":`), p.Ended)
	w = num(w.key(`,"gross":`), p.Gross)
	w = num(w.key(`,"paid":`), p.Paid)
	w = num(w.key(`,"record":`), p.Record)
	w = text(w.key(`,"head":`), p.Head)
	if p.Takeout != 0 {
		w = num(w.key(`,"takeout":`), p.Takeout)
	}
	if p.Breakage != 0 {
		w = num(w.key(`,"breakage":`), p.Breakage)
	}
	if p.Minus != 0 {
		w = num(w.key(`,"minus":`), p.Minus)
	}
	if p.CarriedOn != 0 {
		w = num(w.key(`,"carried_on":`), p.CarriedOn)
	}
	if len(p.Dividends) > 0 {
		w = list(w.key(`,"dividends":`), p.Dividends, appendDividend)
	}
	return w.end(outer)
}

func appendPastGame(w writer, g PastGame) writer {
	w, outer := w.begin()
	w = g.Game.append(w.key(`{"game":`))
	w = num(w.key(`,"ended":`), g.Ended)
	w = num(w.key(`,"pools":`), g.Pools)
	w = num(w.key(`,"players":`), g.Players)
	w = num(w.key(`,"gross":`), g.Gross)
	return w.end(outer)
}

func appendLeader(w writer, l Leader) writer {
	w, outer := w.begin()
	w = num(w.key(`{"rank":`), l.Rank)
	w = num(w.key(`,"account":`), l.Account)
	w = text(w.key(`,"name":`), l.Name)
	w = num(w.key(`,"profit":`), l.Profit)
	w = num(w.key(`,"predictions":`), l.Predictions)
	return w.end(outer)
}

// since appends the record up to which an account has been told everything, where it is known.
func since(w writer, seq Seq) writer {
	if seq != 0 {
		w = num(w.key(`,"since":`), seq)
	}
	return w
}

// page appends what ends every page.
func page(w writer, more bool, next uint64) writer {
	w = boolean(w.key(`,"more":`), more)
	if next != 0 {
		w = num(w.key(`,"next":`), next)
	}
	return w
}

// past appends what a page of the past begins with.
func past(w writer, m Message, id RequestID, t Time, counts Seq) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), id)
	w = num(w.key(`,"t":`), t)
	return num(w.key(`,"counts":`), counts)
}

func (m *Statement) append(w writer) writer {
	w = past(w, m, m.ID, m.T, m.Counts)
	w = list(w.key(`,"entries":`), m.Entries, appendEntry)
	return page(w, m.More, m.Next).end(0)
}

func (m *History) append(w writer) writer {
	w = past(w, m, m.ID, m.T, m.Counts)
	w = list(w.key(`,"entries":`), m.Entries, appendEntry)
	return page(w, m.More, m.Next).end(0)
}

func (m *Archive) append(w writer) writer {
	w = past(w, m, m.ID, m.T, m.Counts)
	w = list(w.key(`,"games":`), m.Games, appendPastGame)
	w = list(w.key(`,"pools":`), m.Pools, appendPastPool)
	return page(w, m.More, m.Next).end(0)
}

func (m *Leaders) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"game":`), m.Game)
	w = num(w.key(`,"counts":`), m.Counts)
	w = num(w.key(`,"players":`), m.Players)
	w = list(w.key(`,"leaders":`), m.Leaders, appendLeader)
	if m.Own != (Leader{}) {
		w = appendLeader(w.key(`,"own":`), m.Own)
	}
	return w.end(0)
}

func (m *Missed) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"t":`), m.T)
	w = list(w.key(`,"entries":`), m.Entries, appendEntry)
	w = page(w, m.More, m.Next)
	w = boolean(w.key(`,"last":`), m.Last)
	return since(w, m.Since).end(0)
}

func (m *Sealed) append(w writer) writer {
	w = head(w, m, m.T, m.Game, m.Seq)
	w = num(w.key(`,"pool":`), m.Pool)
	w = num(w.key(`,"record":`), m.Record)
	w = text(w.key(`,"head":`), m.Head)
	return w.end(0)
}

func (m *Statement) AppendJSON(b []byte) []byte { return m.append(writeJSON(b)).b }
func (m *History) AppendJSON(b []byte) []byte   { return m.append(writeJSON(b)).b }
func (m *Archive) AppendJSON(b []byte) []byte   { return m.append(writeJSON(b)).b }
func (m *Leaders) AppendJSON(b []byte) []byte   { return m.append(writeJSON(b)).b }
func (m *Missed) AppendJSON(b []byte) []byte    { return m.append(writeJSON(b)).b }
func (m *Sealed) AppendJSON(b []byte) []byte    { return m.append(writeJSON(b)).b }

func (m *Statement) AppendMsgpack(b []byte) []byte { return m.append(writeMsgpack(b)).b }
func (m *History) AppendMsgpack(b []byte) []byte   { return m.append(writeMsgpack(b)).b }
func (m *Archive) AppendMsgpack(b []byte) []byte   { return m.append(writeMsgpack(b)).b }
func (m *Leaders) AppendMsgpack(b []byte) []byte   { return m.append(writeMsgpack(b)).b }
func (m *Missed) AppendMsgpack(b []byte) []byte    { return m.append(writeMsgpack(b)).b }
func (m *Sealed) AppendMsgpack(b []byte) []byte    { return m.append(writeMsgpack(b)).b }
