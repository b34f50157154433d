package market

import "tote/server/proto"

// Session names a connection of the engine. The market passes it back with each answer and looks
// only at its loop.
//
//	63        52 51              28 27               0
//	┌───────────┬──────────────────┬─────────────────┐
//	│ loop      │ generation, ≥ 1  │ slot            │
//	└───────────┴──────────────────┴─────────────────┘
type Session uint64

// Widths of a Session's parts.
const (
	sessionSlotBits       = 28
	sessionGenerationBits = 24
	SessionSlots          = 1 << sessionSlotBits
	SessionGenerations    = 1 << sessionGenerationBits
	SessionLoops          = 1<<12 - 1
	// DeskLoop is the loop of the operators' desk, which is none of the engine's.
	DeskLoop = SessionLoops
)

// NewSession packs the name. The generation tells connections apart that had the slot one after the other.
func NewSession(loop int, generation, slot uint32) Session {
	return Session(uint64(loop)<<(sessionSlotBits+sessionGenerationBits) |
		uint64(generation%SessionGenerations)<<sessionSlotBits | uint64(slot%SessionSlots))
}

// Loop is the loop that owns the connection.
func (s Session) Loop() int { return int(s >> (sessionSlotBits + sessionGenerationBits)) }

// Slot is the connection's place in its loop.
func (s Session) Slot() uint32 { return uint32(s % SessionSlots) }

// Generation counts the connections that had the slot.
func (s Session) Generation() uint32 {
	return uint32(s >> sessionSlotBits % SessionGenerations)
}

// CommandKind is what a command asks of the market.
type CommandKind uint8

// The commands. The first group goes to the shard of Account, the second to the shard of Game or of Pool's game, the third to the
// archive.
const (
	_ CommandKind = iota

	OpenAccount // Args *proto.AccountOpening; with Attach the session attaches at once
	Deposit     // Amount
	Withdraw    // Amount
	Attach      // the session receives the account's private lane, and is welcomed; Epoch and N, or Since, resume
	Detach      // the session is gone
	Stake       // Pool, Outcome, Amount, ID, Arrived, Limit
	Sell        // Pool, Outcome, Shares, ID, Arrived, Limit
	ShowAccount
	ShowPredictions
	ShowFriends // Pool
	Follow      // Other
	Unfollow    // Other
	Quote       // Pool, Outcome, Arrived, and Amount to stake or Shares to sell

	Ask           // Game; Args *proto.Question
	Resolve       // Pool; Args *proto.Settlement
	Challenge     // Pool
	Report        // Pool
	ShowQuestions // Game; one's own
	CreateCircle  // Circle, which is new; Args *proto.CircleOpening
	JoinCircle    // Circle; Args *proto.CircleOpening
	LeaveCircle   // Circle
	RemoveMember  // Circle, Other; Args *proto.CircleOpening: the new code
	ShowCircles   //
	ShowCircle    // Circle
	EnterRoom     // Circle, Game; the room is opened where there is none

	accountCommands // the line between the groups

	OpenGame        // Game; Args *proto.GameOpening
	OpenPool        // Game; Args *proto.PoolOpening
	LockPool        // Pool; Args *proto.Locking
	SettlePool      // Pool; Args *proto.Settlement
	WithdrawOutcome // Pool; Args *proto.OutcomeWithdrawal
	VoidPool        // Pool; Args *proto.Voiding
	PostEvent       // Game; Args *proto.Event
	SetTemplates    // Game; Args *proto.TemplateSet
	ApprovePool     // Pool
	ShowInquiries   // Game; all questions of players
	Join            // Game; answered with the game's image
	ShowPools       // Game
	Seal            // Pool; Args *seal: everybody in the game is told
	Pace            // Game, Every: no distributions more often than so, for as long as the server lives; 0: as the game was opened

	gameCommands // the line between the groups

	ShowStatement // Account; Args *proto.Page
	ShowHistory   // Account; Args *proto.Page
	ShowArchive   // Game, 0: all that have left memory; Args *proto.Page
	ShowLeaders   // Account, Game, 0: over all; Circle: among its members alone
)

// Command is one request to the market. Arrived is the time at which it reached the host; the market
// judges by it and reads no clock.
type Command struct {
	Kind    CommandKind
	Outcome proto.Outcome
	Attach  bool
	From    Session // who is answered
	ID      proto.RequestID
	Account proto.AccountID
	Other   proto.AccountID
	Game    proto.GameID
	Pool    proto.PoolID
	Circle  proto.CircleID
	Amount  proto.Amount
	Shares  proto.Shares
	Limit   int64 // see proto.Request
	Arrived proto.Time
	Every   proto.Time
	Epoch   uint64
	N       uint64
	Since   proto.Seq
	Args    any // of the rare commands only
}

// game is the game that the command is about.
func (c *Command) game() proto.GameID {
	if c.Game != 0 {
		return c.Game
	}
	return c.Pool.Game()
}

// unknown is the refusal where there is no such game: what the client has named is not there.
func (c *Command) unknown() proto.Refusal {
	if c.Game == 0 {
		return proto.RefusedPoolUnknown
	}
	return proto.RefusedGameUnknown
}

// OutKind tells which member of an Out speaks.
type OutKind uint8

// The kinds of Out.
const (
	OutMessage OutKind = iota // Message
	OutReceipt                // Receipt
	OutRefused                // Refused
	OutAnswer                 // Answer; only ever to DeskLoop
	OutEvicted                // Circle: the session leaves its rooms, and is not told
)

// Out is one message from the market, released after what it tells is durable. Receipts and refusals, which are
// many, are values; the rest is rare.
type Out struct {
	Kind    OutKind
	Again   bool         // it was said before, to a session that has ended since
	To      Session      // 0: everybody who has joined Game
	Game    proto.GameID // of a broadcast
	Seq     uint64       // of a broadcast
	Circle  proto.CircleID
	Receipt proto.Receipt
	Refused proto.Refused
	Message proto.Message // not to be changed: other sessions may hold it too
	Answer  *proto.Answer
}

// Batch is what one shard says at once, in order. Broadcasts of one game that belong together stand together. A shard
// with nothing to say says so every beat, in an empty batch: who does not hear of a shard for longer knows that
// it, or the journal, has stopped.
type Batch struct {
	Shard int
	Now   proto.Time // of the turn
	Outs  []Out
}
