package rules

import (
	"fmt"

	"tote/server/proto"
)

// Wrong names the first member of a pool's rules that is out of range or does not fit the others, and says what it should be. Where
// a pool can be run by the rules, both are empty.
func Wrong(r *proto.Rules) (member, want string) {
	for _, limit := range []struct {
		member string
		amount proto.Amount
	}{{"unit", r.Unit}, {"break", r.Break}, {"dividend_min", r.DividendMin}, {"minus_max", r.MinusMax}, {"account_max", r.AccountMax}, {"late_max", r.LateMax}} {
		if limit.amount != 0 && !limit.amount.Valid() {
			return limit.member, fmt.Sprintf("0 to %d", proto.AmountMax)
		}
	}
	switch {
	case r.Payout > proto.PayoutDividend:
		return "payout", "exact or dividend"
	case r.NoWinner > proto.NoWinnerCarry:
		return "no_winner", "refund or carry"
	case r.CarryTo != 0 && r.NoWinner != proto.NoWinnerCarry:
		return "carry_to", "none without no_winner carry"
	case r.LateSpan < 0:
		return "late_span", "no less than 0"
	case (r.LateMax != 0) != (r.LateSpan != 0):
		return "late_max", "one together with late_span"
	case r.Payout == proto.PayoutExact && (r.Unit != 0 || r.Break != 0 || r.DividendMin != 0 || r.MinusMax != 0):
		return "payout", "dividend, where there is a unit, break, dividend_min or minus_max"
	case r.Payout == proto.PayoutDividend && r.Unit == 0:
		return "unit", "one to pay dividends on"
	case r.Break > r.Unit:
		return "break", "at most the unit"
	case r.DividendMin != 0 && (r.DividendMin < r.Unit || r.DividendMin > 2*r.Unit): // so that no sum of payouts overflows
		return "dividend_min", "from the unit to twice the unit"
	case r.MinusMax != 0 && r.DividendMin == 0:
		return "minus_max", "none without dividend_min"
	}
	return "", ""
}
