package rules

import (
	"testing"

	"tote/server/proto"
)

// What a dynamic pool cannot be is told by the member.
func TestWrongKind(t *testing.T) {
	for _, row := range []struct {
		want   string
		change func(*proto.PoolOpening)
	}{
		{"", func(*proto.PoolOpening) {}},
		{"", func(o *proto.PoolOpening) { *o = proto.PoolOpening{} }},
		{"", func(o *proto.PoolOpening) { o.AccountMax = 5 }},
		{"kind", func(o *proto.PoolOpening) { o.Kind = "lmsr" }},
		{"variant", func(o *proto.PoolOpening) { o.Kind = "" }},
		{"outcomes", func(o *proto.PoolOpening) { o.Kind, o.Variant = "", "" }},
		{"variant", func(o *proto.PoolOpening) { o.Variant = "x" }},
		{"outcomes", func(o *proto.PoolOpening) { o.Labels = append(o.Labels, "c") }},
		{"outcomes", func(o *proto.PoolOpening) { o.Seeds = nil }},
		{"outcomes", func(o *proto.PoolOpening) { o.Seeds[1].Money = 0 }},
		{"outcomes", func(o *proto.PoolOpening) {
			o.Variant, o.Labels, o.Seeds = "losers_money", append(o.Labels, "c"), append(o.Seeds, o.Seeds[0])
		}},
		{"payout", func(o *proto.PoolOpening) { o.Payout, o.Unit = proto.PayoutDividend, 1 }},
		{"no_winner", func(o *proto.PoolOpening) { o.NoWinner = proto.NoWinnerCarry }},
		{"one_sided_refund", func(o *proto.PoolOpening) { o.OneSidedRefund = true }},
	} {
		o := proto.PoolOpening{Labels: []string{"a", "b"}, Kind: proto.KindDynamic, Variant: "money_ratio", Seeds: []proto.Seed{{Money: 5}, {Money: 6, Shares: 7}}}
		row.change(&o)
		if member, want := WrongKind(&o); member != row.want || (member == "") != (want == "") {
			t.Errorf("%+v: %q, expected %s; want %q", o, member, want, row.want)
		}
	}
}
