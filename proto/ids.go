package proto

import "strconv"

// Identifiers are positive and below 2^53; 0 is nobody and nothing.
type (
	// AccountID is a player's account: one account, one user.
	AccountID uint64
	// GameID is a live event that people join.
	GameID uint64
	// PoolID is a question of a game. It carries its game: see Game.
	PoolID uint64
	// RequestID is a client's own number for a request.
	RequestID uint64
	// Seq is the number of a record in the journal, from 1. The sequence number of a
	// stake's record names the prediction for ever.
	Seq uint64
)

// Limits of identifiers and amounts.
const (
	integerMax = 1<<53 - 1 // the largest integer that every JSON reader keeps exactly

	poolBits = 16 // low bits of a PoolID count the pools of its game

	// AmountMax bounds every amount on the wire.
	AmountMax Amount = integerMax
	// RequestMax is the largest request id.
	RequestMax RequestID = integerMax
	roomBits             = 15 // high bits of a GameID count the rooms of its game

	// GameMax is the largest game id, so that its pools' ids stay below 2^53.
	GameMax GameID = 1<<(53-poolBits) - 1
	// GamesMax is the number of games that a server may ever open.
	GamesMax = 1<<(53-poolBits-roomBits) - 1
	// RoomsMax is the number of circles that may have a room in one game.
	RoomsMax = 1<<roomBits - 1
	// PoolsMax is the number of pools that one game may ever open.
	PoolsMax = 1<<poolBits - 1
	// OutcomesMin and OutcomesMax bound the outcomes of a pool.
	OutcomesMin, OutcomesMax = 2, 64
)

// NewPoolID returns the id of the game's nth pool, n from 1 to PoolsMax.
func NewPoolID(game GameID, n uint32) PoolID {
	return PoolID(uint64(game)<<poolBits | uint64(n))
}

// NewRoomID returns the id of the game's nth room, n from 1 to RoomsMax. A room is a game too, and its id carries the
// game in which it is, so that both live on one shard:
//
//	52           38 37              16 15            0
//	┌──────────────┬──────────────────┬───────────────┐
//	│ room, or 0   │ game             │ pool          │
//	└──────────────┴──────────────────┴───────────────┘
func NewRoomID(game GameID, n uint32) GameID { return GameID(n)<<(53-poolBits-roomBits) | game }

// Main is the game that a room is in; of a game that is no room, itself.
func (g GameID) Main() GameID { return g & GamesMax }

// Game is the game that the pool belongs to.
func (p PoolID) Game() GameID { return GameID(p >> poolBits) }

// Number is the pool's place in its game, from 1.
func (p PoolID) Number() int { return int(p % (PoolsMax + 1)) }

// Amount is money in minor units. No float ever holds money.
type Amount int64

// Valid reports whether the amount can be staked, deposited or withdrawn at all.
func (a Amount) Valid() bool { return a > 0 && a <= AmountMax }

// Time is microseconds since 1970-01-01 UTC by the server's clock.
type Time int64

// Spans of Time.
const (
	Millisecond Time = 1000
	Second           = 1000 * Millisecond
	Minute           = 60 * Second
	Hour             = 60 * Minute
)

// Outcome is the index of an outcome in its pool, from 0.
type Outcome uint8

// OutcomeNone is what an index outside every pool's range is read as.
const OutcomeNone Outcome = 255

// MarshalJSON writes a number; without it a list of outcomes would be taken for bytes.
func (o Outcome) MarshalJSON() ([]byte, error) { return strconv.AppendUint(nil, uint64(o), 10), nil }

// Multiplier is what one staked unit would return, in thousandths; 0 where nobody staked.
type Multiplier int64

// NewMultiplier is net / staked, rounded down to thousandths. It is at most 2^53.
func NewMultiplier(net, staked Amount) Multiplier {
	if staked <= 0 {
		return 0
	}
	if whole := net / staked; whole >= integerMax/1000 {
		return integerMax
	}
	return Multiplier(net/staked*1000 + fraction(net%staked, staked))
}

// fraction is rest / staked in thousandths without overflow: rest < staked <= 2^53, times
// 1000 is below 2^63.
func fraction(rest, staked Amount) Amount { return rest * 1000 / staked }

// MarshalJSON writes three decimals: 2345 is 2.345.
func (x Multiplier) MarshalJSON() ([]byte, error) { return x.append(nil), nil }

func (x Multiplier) append(b []byte) []byte {
	b = strconv.AppendInt(b, int64(x)/1000, 10)
	milli := int64(x) % 1000
	return append(b, '.', byte('0'+milli/100), byte('0'+milli/10%10), byte('0'+milli%10))
}

// UnmarshalJSON reads what MarshalJSON writes.
func (x *Multiplier) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return err
	}
	*x = Multiplier(f*1000 + 0.5)
	return nil
}
