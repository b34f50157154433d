package market

import (
	"math/bits"

	"tote/server/proto"
)

// takeout is the house's part of the gross pool, rounded down: floor(gross × bp / 10000).
func takeout(gross proto.Amount, bp uint16) proto.Amount {
	high, low := bits.Mul64(uint64(gross), uint64(bp))
	q, _ := bits.Div64(high, low, 10000)
	return proto.Amount(q)
}
