package rules

import (
	"testing"

	"tote/server/proto"
)

// What is wrong with rules is told by the member.
func TestWrong(t *testing.T) {
	whole := proto.Rules{Payout: proto.PayoutDividend, Unit: 100, Break: 10, DividendMin: 105, MinusMax: 1000, NoWinner: proto.NoWinnerCarry, CarryTo: 5,
		OneSidedRefund: true, AccountMax: 500, LateSpan: proto.Second, LateMax: 50}
	for _, row := range []struct {
		want   string
		change func(*proto.Rules)
	}{
		{"", func(*proto.Rules) {}},
		{"", func(r *proto.Rules) { *r = proto.Rules{} }},
		{"", func(r *proto.Rules) { r.DividendMin = 200 }},
		{"unit", func(r *proto.Rules) { r.Unit = -1 }},
		{"unit", func(r *proto.Rules) { r.Unit = 0 }},
		{"break", func(r *proto.Rules) { r.Break = 101 }},
		{"break", func(r *proto.Rules) { r.Break = proto.AmountMax + 1 }},
		{"dividend_min", func(r *proto.Rules) { r.DividendMin = 99 }},
		{"dividend_min", func(r *proto.Rules) { r.DividendMin = 201 }},
		{"minus_max", func(r *proto.Rules) { r.DividendMin = 0 }},
		{"payout", func(r *proto.Rules) { r.Payout = 2 }},
		{"payout", func(r *proto.Rules) { r.Payout = proto.PayoutExact }},
		{"no_winner", func(r *proto.Rules) { r.NoWinner = 2 }},
		{"carry_to", func(r *proto.Rules) { r.NoWinner = proto.NoWinnerRefund }},
		{"account_max", func(r *proto.Rules) { r.AccountMax = -1 }},
		{"late_span", func(r *proto.Rules) { r.LateSpan = -1 }},
		{"late_max", func(r *proto.Rules) { r.LateMax = 0 }},
		{"late_max", func(r *proto.Rules) { r.LateSpan = 0 }},
	} {
		r := whole
		row.change(&r)
		if member, want := Wrong(&r); member != row.want || (member == "") != (want == "") {
			t.Errorf("%+v: %q, expected %s; want %q", r, member, want, row.want)
		}
	}
}
