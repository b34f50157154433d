package rules

import (
	"tote/server/market/dpm"
	"tote/server/proto"
)

// WrongKind is Wrong for what makes a pool a dynamic one: it names the first member of the opening that does not fit its kind.
func WrongKind(o *proto.PoolOpening) (member, want string) {
	variant, known := dpm.VariantOf(o.Variant)
	_, seeded := dpm.Seeded(variant, o.Seeds)
	switch {
	case o.Kind != "" && o.Kind != proto.KindDynamic:
		return "kind", "dpm or nothing"
	case o.Kind == "" && o.Variant != "":
		return "variant", "none without kind dpm"
	case o.Kind == "" && len(o.Seeds) > 0:
		return "outcomes", "no seeds without kind dpm"
	case o.Kind == "":
		return "", ""
	case !known:
		return "variant", "share_ratio, money_ratio, losers_payoff or losers_money"
	case len(o.Labels) > variant.OutcomesMax():
		return "outcomes", "two, where winners get the losers' money"
	case len(o.Seeds) != len(o.Labels) || !seeded:
		return "outcomes", "a seed for each, of money and shares that sum to less than 2^53"
	case o.Payout != proto.PayoutExact:
		return "payout", "exact in a dynamic pool"
	case o.NoWinner != proto.NoWinnerRefund:
		return "no_winner", "refund in a dynamic pool"
	case o.OneSidedRefund:
		return "one_sided_refund", "none in a dynamic pool"
	}
	return "", ""
}
