package market

import (
	"cmp"
	"math/bits"
	"slices"

	"tote/server/proto"
)

// takeout is the house's part of the gross pool, rounded down: floor(gross × bp / 10000).
func takeout(gross proto.Amount, bp uint16) proto.Amount {
	high, low := bits.Mul64(uint64(gross), uint64(bp))
	q, _ := bits.Div64(high, low, 10000)
	return proto.Amount(q)
}

// splitExact divides net between the winning stakes in proportion, to the last unit: each gets
// floor(net × stake / Σ stakes), and the units left over go one each to the largest fractional
// parts, ties in the order of acceptance. Σ payouts = net.
//
// The products need 128 bits; quotients fit, since a stake is at most the sum.
func splitExact(net proto.Amount, stakes []proto.Amount) []proto.Amount {
	var sum proto.Amount
	for _, stake := range stakes {
		sum += stake
	}
	assert(sum > 0, "somebody staked on the winner")
	payouts := make([]proto.Amount, len(stakes))
	rests := make([]uint64, len(stakes)) // fractional parts, in units of 1/sum
	left := net
	for i, stake := range stakes {
		high, low := bits.Mul64(uint64(net), uint64(stake))
		q, rest := bits.Div64(high, low, uint64(sum))
		payouts[i], rests[i] = proto.Amount(q), rest
		left -= payouts[i]
	}
	assert(left >= 0 && left < proto.Amount(max(len(stakes), 1)), "fewer units are left than stakes")
	if left == 0 {
		return payouts
	}
	order := make([]int32, len(stakes))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(rests[b], rests[a]) })
	for _, i := range order[:left] {
		payouts[i]++
	}
	return payouts
}
