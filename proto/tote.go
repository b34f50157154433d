package proto

// Rules are how a pool pays and whom it takes, beyond its takeout and the limits of one stake. The zero value is the exact
// rule without limits: all of the net pool goes to the winners, to the last unit.
type Rules struct {
	// Payout divides the net pool exactly, or by a dividend per betting Unit that is rounded down to a multiple of Break; what rounding leaves
	// (breakage) is the house's. Stakes under the dividend rule are whole units. Break 0 is 1.
	Payout PayoutRule `json:"payout,omitempty" toml:"payout"`
	Unit   Amount     `json:"unit,omitempty" toml:"unit"`
	Break  Amount     `json:"break,omitempty" toml:"break"`
	// DividendMin is the least dividend per unit, from Unit to twice that; 0: none. Where the net pool does not cover it the pool
	// is a minus pool, and the house adds up to MinusMax, 0: whatever is missing.
	DividendMin Amount `json:"dividend_min,omitempty" toml:"dividend_min"`
	MinusMax    Amount `json:"minus_max,omitempty" toml:"minus_max"`
	// NoWinner says what becomes of a pool whose winner nobody backed: stakes are returned, or the net pool is carried to CarryTo, a later pool
	// of the same game, for its winners to share; CarryTo 0 is the next pool of the same template or, opened by hand, the next one so
	// opened. Where that pool is over, or there is none yet, stakes are returned.
	NoWinner NoWinnerRule `json:"no_winner,omitempty" toml:"no_winner"`
	CarryTo  PoolID       `json:"carry_to,omitempty" toml:"-"`
	// OneSidedRefund returns all stakes where only one outcome was backed.
	OneSidedRefund bool `json:"one_sided_refund,omitempty" toml:"one_sided_refund"`
	// AccountMax is the most that one account may have in the pool; in the last LateSpan before LocksAt nobody's
	// may come to more than LateMax. 0: no limit.
	AccountMax Amount `json:"account_max,omitempty" toml:"account_max"`
	LateSpan   Time   `json:"late_span,omitempty" toml:"-"`
	LateMax    Amount `json:"late_max,omitempty" toml:"-"`
}

// PayoutRule is how a pool is divided between its winners.
type PayoutRule uint8

// The payout rules.
const (
	PayoutExact PayoutRule = iota
	PayoutDividend
)

// NoWinnerRule is what becomes of a pool whose winner nobody backed.
type NoWinnerRule uint8

// The rules for pools without winners.
const (
	NoWinnerRefund NoWinnerRule = iota
	NoWinnerCarry
)

// RefundReason is why a stake was returned.
type RefundReason uint8

// The reasons of refunds.
const (
	RefundVoid      RefundReason = iota // the pool was voided
	RefundLate                          // the stake arrived after the lock
	RefundWithdrawn                     // its outcome was withdrawn
	RefundNoWinner                      // nobody backed the winner
	RefundOneSided                      // nobody backed another outcome
)

var (
	payoutRules   = names{"exact", "dividend"}
	noWinnerRules = names{"refund", "carry"}
	refundReasons = names{"void", "late", "withdrawn", "no_winner", "one_sided"}
)

func (r PayoutRule) String() string   { return payoutRules.of(uint8(r)) }
func (r NoWinnerRule) String() string { return noWinnerRules.of(uint8(r)) }
func (r RefundReason) String() string { return refundReasons.of(uint8(r)) }

// MarshalText writes the rule's or reason's name, and UnmarshalText reads it.
func (r PayoutRule) MarshalText() ([]byte, error)   { return []byte(r.String()), nil }
func (r NoWinnerRule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
func (r RefundReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r *PayoutRule) UnmarshalText(b []byte) error   { return payoutRules.find(b, (*uint8)(r)) }
func (r *NoWinnerRule) UnmarshalText(b []byte) error { return noWinnerRules.find(b, (*uint8)(r)) }
func (r *RefundReason) UnmarshalText(b []byte) error { return refundReasons.find(b, (*uint8)(r)) }

// OutcomeWithdrawal takes an outcome out of a pool that is not over: its stakes are returned, and it can neither be staked on nor
// win. A pool with fewer than two outcomes left is voided.
type OutcomeWithdrawal struct {
	Outcome Outcome `json:"outcome"`
}

// Dividend is what a winning outcome of a settled pool brings.
type Dividend struct {
	Outcome    Outcome    `json:"outcome"`
	PerUnit    Amount     `json:"per_unit,omitempty"`  // under the dividend rule
	PerShare   Millionths `json:"per_share,omitempty"` // of a dynamic pool: what a whole share gets, in millionths of a unit
	Multiplier Multiplier `json:"x"`                   // 0 in a dynamic pool, where it depends on what one paid
}

func appendDividend(w writer, d Dividend) writer {
	w, outer := w.begin()
	w = num(w.key(`{"outcome":`), d.Outcome)
	if d.PerUnit != 0 {
		w = num(w.key(`,"per_unit":`), d.PerUnit)
	}
	if d.PerShare != 0 {
		w = num(w.key(`,"per_share":`), d.PerShare)
	}
	w = multiplier(w.key(`,"x":`), d.Multiplier)
	return w.end(outer)
}
