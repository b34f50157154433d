package proto

// Message is something that the server says: a reply, a private message or a broadcast.
type Message interface {
	// Type is the message's name on the wire.
	Type() string
	// AppendJSON appends the message as one JSON object.
	AppendJSON(b []byte) []byte
	// AppendMsgpack appends the same as one MessagePack map.
	AppendMsgpack(b []byte) []byte
}

// Parts of messages.
type (
	// Game is a live event as lists and images show it.
	Game struct {
		Game     GameID    `json:"game"`
		Name     string    `json:"name"`
		State    GameState `json:"state"`
		Teams    [2]string `json:"teams"`
		Score    [2]uint16 `json:"score"`
		Minute   uint16    `json:"minute"`
		Interval Time      `json:"interval"`         // the batching interval of its odds
		Present  int       `json:"present"`          // connections that have joined it
		Circle   CircleID  `json:"circle,omitempty"` // whose room it is
		Parent   GameID    `json:"parent,omitempty"` // the game in which the circle has this room
	}
	// Pool is a question with its outcomes and their odds.
	Pool struct {
		Pool     PoolID    `json:"pool"`
		Kind     string    `json:"kind,omitempty"`    // "dpm"; none: parimutuel
		Variant  string    `json:"variant,omitempty"` // of a dynamic pool
		Question string    `json:"question"`
		Labels   []string  `json:"labels"` // of the outcomes, in their order
		State    PoolState `json:"state"`
		LocksAt  Time      `json:"locks_at,omitempty"` // 0: locked by an event or by hand
		Takeout  uint16    `json:"takeout,omitempty"`  // basis points of the gross pool
		Odds     []Odd     `json:"odds"`
		Winners  []Outcome `json:"winners,omitempty"`

		Unit       Amount    `json:"unit,omitempty"`        // stakes are whole ones of it, where there is one
		AccountMax Amount    `json:"account_max,omitempty"` // that one account may have in it
		Carried    Amount    `json:"carried,omitempty"`     // from earlier pools, for the winners to share
		Withdrawn  []Outcome `json:"withdrawn,omitempty"`   // outcomes that can neither be staked on nor win
		Refunded   bool      `json:"refunded,omitempty"`    // settled, and all stakes were returned
		CarriedTo  PoolID    `json:"carried_to,omitempty"`  // settled without a winner: its money is there

		Asked Asked `json:"asked,omitzero"` // where a player asked it
	}
	// Odd is the state of one outcome.
	Odd struct {
		Staked      Amount     `json:"staked"`
		Backers     uint32     `json:"backers"` // distinct accounts
		Multiplier  Multiplier `json:"x"`
		Price       Millionths `json:"price,omitempty"`       // in a dynamic pool, of the next share: millionths of a unit
		Probability Millionths `json:"probability,omitempty"` // in a dynamic pool
	}
	// Prediction is a stake as its owner sees it.
	Prediction struct {
		Prediction Seq             `json:"prediction"`
		ID         RequestID       `json:"id"` // of the request that placed it
		Pool       PoolID          `json:"pool"`
		Outcome    Outcome         `json:"outcome"`
		Amount     Amount          `json:"amount"`
		State      PredictionState `json:"state"`
		Payout     Amount          `json:"payout"`
		Shares     Shares          `json:"shares,omitempty"` // in a dynamic pool: those that are not sold
	}
	// FriendPrediction is a friend's open stake in a pool.
	FriendPrediction struct {
		Account AccountID `json:"account"`
		Name    string    `json:"name"`
		Outcome Outcome   `json:"outcome"`
		Amount  Amount    `json:"amount"`
		Shares  Shares    `json:"shares,omitempty"` // in a dynamic pool
	}
	// Friend is an account that one follows.
	Friend struct {
		Account AccountID `json:"account"`
		Name    string    `json:"name"`
	}
)

// Replies.
type (
	// Welcome answers hello: the session now acts for the account.
	Welcome struct {
		ID         RequestID `json:"id"`
		T          Time      `json:"t"`
		Epoch      uint64    `json:"epoch"`
		Account    AccountID `json:"account"`
		Name       string    `json:"name"`
		Balance    Amount    `json:"balance"`
		N          uint64    `json:"n"`               // the last private number
		Since      Seq       `json:"since,omitempty"` // see Receipt; absent where something follows that was missed
		Resumed    bool      `json:"resumed"`         // the private messages after the client's n, up to this N, follow
		Missed     bool      `json:"missed"`          // what was told after the client's since follows, in Missed
		Token      string    `json:"token,omitempty"` // a new guest keeps it to come back
		Durability string    `json:"durability"`      // "always", or "interval=1s": what a power failure may take
	}
	// Games lists the games that are not over for long.
	Games struct {
		ID    RequestID `json:"id"`
		T     Time      `json:"t"`
		Games []Game    `json:"games"`
	}
	// Joined is the image of a game: all of its pools, as of broadcast Seq.
	Joined struct {
		ID    RequestID `json:"id"`
		T     Time      `json:"t"`
		Game  Game      `json:"game"`
		Seq   uint64    `json:"seq"`
		Pools []Pool    `json:"pools"`
	}
	// Left confirms that a game's broadcasts end here.
	Left struct {
		ID   RequestID `json:"id"`
		T    Time      `json:"t"`
		Game GameID    `json:"game"`
	}
	// Pools is the same image without joining.
	Pools struct {
		ID    RequestID `json:"id"`
		T     Time      `json:"t"`
		Game  GameID    `json:"game"`
		Seq   uint64    `json:"seq"`
		Pools []Pool    `json:"pools"`
	}
	// Receipt says that a prediction stands: it is in the journal as record Prediction.
	Receipt struct {
		ID         RequestID `json:"id"`
		T          Time      `json:"t"`
		N          uint64    `json:"n"`
		Prediction Seq       `json:"prediction"`
		Pool       PoolID    `json:"pool"`
		Outcome    Outcome   `json:"outcome"`
		Amount     Amount    `json:"amount"`
		Shares     Shares    `json:"shares,omitempty"` // bought, in a dynamic pool
		Balance    Amount    `json:"balance"`          // now, free to stake
		Arrived    Time      `json:"arrived"`          // when the request reached the host
		// LocksAt is when the pool locks, or has locked: what arrives later does not count. 0: an event or an operator will lock it; and
		// in the answer to a request that is sent again.
		LocksAt    Time   `json:"locks_at,omitempty"`
		Durability string `json:"durability"`
		// Since ends every private message that comes from a record: of records up to there nothing is left to be told to this
		// account. A client that was away says it to get what it has missed.
		Since Seq `json:"since,omitempty"`
	}
	// Account is the state of one's own account.
	Account struct {
		ID        RequestID `json:"id"`
		T         Time      `json:"t"`
		N         uint64    `json:"n"`
		Account   AccountID `json:"account"`
		Name      string    `json:"name"`
		Balance   Amount    `json:"balance"` // free to stake
		Held      Amount    `json:"held"`    // in stakes being decided this very moment
		Staked    Amount    `json:"staked"`  // in open predictions
		Following []Friend  `json:"following"`
	}
	// Predictions lists one's open predictions and the last closed ones, oldest first.
	Predictions struct {
		ID          RequestID    `json:"id"`
		T           Time         `json:"t"`
		N           uint64       `json:"n"`
		Predictions []Prediction `json:"predictions"`
	}
	// Friends lists the open predictions in a pool of those whom one follows.
	Friends struct {
		ID          RequestID          `json:"id"`
		T           Time               `json:"t"`
		Pool        PoolID             `json:"pool"`
		Predictions []FriendPrediction `json:"predictions"`
	}
	// Followed confirms follow.
	Followed struct {
		ID      RequestID `json:"id"`
		T       Time      `json:"t"`
		Account AccountID `json:"account"`
		Name    string    `json:"name"`
	}
	// Unfollowed confirms unfollow.
	Unfollowed struct {
		ID      RequestID `json:"id"`
		T       Time      `json:"t"`
		Account AccountID `json:"account"`
	}
	// Clock answers time: with Sent, the client estimates its offset.
	Clock struct {
		ID   RequestID `json:"id"`
		T    Time      `json:"t"`
		Sent Time      `json:"sent"`
	}
	// Refused says that a request changed nothing, and why.
	Refused struct {
		ID     RequestID // 0 where the request had none that could be read
		T      Time
		N      uint64 // private number, where the request was a stake; else 0
		Reason Refusal
		Detail string // the place, where the reason alone does not say it; mostly empty

		Arrived Time // when the stake's request reached the host; 0 of other requests
		Locked  Time // the lock time by which the stake was judged, where it came too late; else 0
	}
)

// Heartbeat ends a silence: it says up to which broadcast a game has come, so that a client knows whether it
// has missed any. A game that has broadcast lately needs none.
type Heartbeat struct {
	ID       RequestID `json:"id,omitempty"` // where it answers a request
	T        Time      `json:"t"`
	Game     GameID    `json:"game"`
	Seq      uint64    `json:"seq"`      // the last broadcast of the game
	Interval Time      `json:"interval"` // the batching interval in force
	Stale    bool      `json:"stale"`    // the market has not been heard of: odds may be old
}

// Private messages besides Receipt and Refused.
type (
	// Payout is the end of a winning prediction.
	Payout struct {
		T          Time    `json:"t"`
		N          uint64  `json:"n"`
		Prediction Seq     `json:"prediction"`
		Pool       PoolID  `json:"pool"`
		Outcome    Outcome `json:"outcome"`
		Amount     Amount  `json:"amount"`
		Payout     Amount  `json:"payout"`
		Balance    Amount  `json:"balance"`
		Since      Seq     `json:"since,omitempty"`
	}
	// Refund returns a stake whole, for a reason.
	Refund struct {
		T          Time    `json:"t"`
		N          uint64  `json:"n"`
		Prediction Seq     `json:"prediction"`
		Pool       PoolID  `json:"pool"`
		Outcome    Outcome `json:"outcome"`
		Amount     Amount  `json:"amount"`
		Balance    Amount  `json:"balance"`

		Reason RefundReason `json:"reason"`
		Since  Seq          `json:"since,omitempty"`
	}
	// Balance tells of a deposit or, below zero, a withdrawal.
	Balance struct {
		T       Time   `json:"t"`
		N       uint64 `json:"n"`
		Seq     Seq    `json:"seq"` // of the journal record
		Change  Amount `json:"change"`
		Balance Amount `json:"balance"`
		Since   Seq    `json:"since,omitempty"`
	}
)

// Broadcasts.
type (
	// Odds is a distribution: what stands on each outcome of a pool at T.
	Odds struct {
		T      Time   `json:"t"`
		Game   GameID `json:"game"`
		Seq    uint64 `json:"seq"`
		Pool   PoolID `json:"pool"`
		Counts Seq    `json:"counts"` // the last record that the odds include
		Odds   []Odd  `json:"odds"`

		Carried Amount `json:"carried,omitempty"` // from earlier pools; multipliers include it
	}
	// Conflated tells a slow reader how many broadcasts of the game it was spared.
	Conflated struct {
		T    Time   `json:"t"`
		Game GameID `json:"game"`
		N    uint64 `json:"conflated"`
	}
	// Happened is an event of the game.
	Happened struct {
		T      Time      `json:"t"`
		Game   GameID    `json:"game"`
		Seq    uint64    `json:"seq"`
		Kind   string    `json:"kind"`
		Minute uint16    `json:"minute"`
		Team   uint8     `json:"team"` // 1 or 2; 0: neither
		Player string    `json:"player"`
		Score  [2]uint16 `json:"score"`
	}
	// Opened shows a new pool.
	Opened struct {
		T    Time   `json:"t"`
		Game GameID `json:"game"`
		Seq  uint64 `json:"seq"`
		Pool Pool   `json:"pool"`
	}
	// Locked closes a pool to stakes; its odds are final.
	Locked struct {
		T      Time   `json:"t"`
		Game   GameID `json:"game"`
		Seq    uint64 `json:"seq"`
		Pool   PoolID `json:"pool"`
		At     Time   `json:"at"` // stakes that arrived later do not count
		Counts Seq    `json:"counts"`
		Odds   []Odd  `json:"odds"`
	}
	// Settled names the winners of a pool; payouts are on the private lane.
	Settled struct {
		T          Time       `json:"t"`
		Game       GameID     `json:"game"`
		Seq        uint64     `json:"seq"`
		Pool       PoolID     `json:"pool"`
		Winners    []Outcome  `json:"winners"`
		Gross      Amount     `json:"gross"`
		Takeout    Amount     `json:"takeout"`
		Paid       Amount     `json:"paid"`
		Multiplier Multiplier `json:"x"`        // of the first winner that anybody backed
		Refunded   bool       `json:"refunded"` // all stakes were returned, for Reason

		// gross + carried + minus = takeout + breakage + paid + carried on, unless refunded.
		Reason    RefundReason `json:"reason,omitempty"`
		Dividends []Dividend   `json:"dividends,omitempty"` // of the winners that anybody backed
		Breakage  Amount       `json:"breakage,omitempty"`  // left by rounding dividends, for the house
		Minus     Amount       `json:"minus,omitempty"`     // added by the house
		Carried   Amount       `json:"carried,omitempty"`   // from earlier pools
		CarriedOn Amount       `json:"carried_on,omitempty"`
		CarriedTo PoolID       `json:"carried_to,omitempty"` // nobody backed the winner: the pool that has it now
	}
	// Voided ends a pool and returns all stakes.
	Voided struct {
		T      Time   `json:"t"`
		Game   GameID `json:"game"`
		Seq    uint64 `json:"seq"`
		Pool   PoolID `json:"pool"`
		Reason string `json:"reason"`
	}
	// GameChanged tells of a game's new state.
	GameChanged struct {
		T    Time   `json:"t"`
		Seq  uint64 `json:"seq"`
		Game Game   `json:"game"`
	}
)

// GameState is where a game stands in its life.
type GameState uint8

// The life of a game.
const (
	GameScheduled GameState = iota
	GameLive
	GameEnded
)

// PoolState is where a pool stands in its life: open → locked → settled or voided; open → voided. A question that a
// player asks may be proposed before, suspended while it is open, and claimed when it is locked.
type PoolState uint8

// The life of a pool.
const (
	PoolOpen PoolState = iota
	PoolLocked
	PoolSettled
	PoolVoided
	PoolProposed  // waits for an operator's approval; nobody else sees it
	PoolSuspended // takes no stakes until an operator has looked at it
	PoolClaimed   // its asker has named the winner
)

// PredictionState is where a prediction stands in its life.
type PredictionState uint8

// The life of a prediction.
const (
	PredictionOpen PredictionState = iota
	PredictionWon
	PredictionLost
	PredictionRefunded
	PredictionSold // all of its shares
)

var (
	gameStates       = names{"scheduled", "live", "ended"}
	poolStates       = names{"open", "locked", "settled", "voided", "proposed", "suspended", "claimed"}
	predictionStates = names{"open", "won", "lost", "refunded", "sold"}
)

func (s GameState) String() string       { return gameStates.of(uint8(s)) }
func (s PoolState) String() string       { return poolStates.of(uint8(s)) }
func (s PredictionState) String() string { return predictionStates.of(uint8(s)) }

// MarshalText writes the state's name, and UnmarshalText reads it.
func (s GameState) MarshalText() ([]byte, error)       { return []byte(s.String()), nil }
func (s PoolState) MarshalText() ([]byte, error)       { return []byte(s.String()), nil }
func (s PredictionState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s *GameState) UnmarshalText(b []byte) error { return gameStates.find(b, (*uint8)(s)) }
func (s *PoolState) UnmarshalText(b []byte) error { return poolStates.find(b, (*uint8)(s)) }
func (s *PredictionState) UnmarshalText(b []byte) error {
	return predictionStates.find(b, (*uint8)(s))
}

func (*Welcome) Type() string     { return "welcome" }
func (*Games) Type() string       { return "games" }
func (*Joined) Type() string      { return "joined" }
func (*Left) Type() string        { return "left" }
func (*Pools) Type() string       { return "pools" }
func (*Receipt) Type() string     { return "receipt" }
func (*Account) Type() string     { return "account" }
func (*Predictions) Type() string { return "predictions" }
func (*Friends) Type() string     { return "friends" }
func (*Followed) Type() string    { return "followed" }
func (*Unfollowed) Type() string  { return "unfollowed" }
func (*Clock) Type() string       { return "time" }
func (*Heartbeat) Type() string   { return "heartbeat" }
func (*Refused) Type() string     { return "refused" }
func (*Payout) Type() string      { return "payout" }
func (*Refund) Type() string      { return "refund" }
func (*Balance) Type() string     { return "balance" }
func (*Odds) Type() string        { return "odds" }
func (*Conflated) Type() string   { return "conflated" }
func (*Happened) Type() string    { return "event" }
func (*Opened) Type() string      { return "opened" }
func (*Locked) Type() string      { return "locked" }
func (*Settled) Type() string     { return "settled" }
func (*Voided) Type() string      { return "voided" }
func (*GameChanged) Type() string { return "game" }
