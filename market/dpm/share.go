package dpm

import (
	"math"
	"math/bits"

	"github.com/holiman/uint256"

	"tote/server/proto"
)

// The share ratio keeps K = T²/Q where it is: its price is the slope of that curve, and buying and selling move along it. In
// integers one cannot stay on the curve; so each operation goes to the nearest point at which K is not less than before:
//
//	buy    the most shares N'  for which  T'²·Q ≥ T²·Q'    (floor of shares)
//	sell   the least money T'  for which  T'²·Q ≥ T²·Q'    (floor of cash)
//
// That is the whole proof that rounding feeds nobody. Take any sequence of operations, by any number of traders, at whose end
// they hold together what they held at its beginning. Then the shares N are as they were, so Q' = Q. K never fell, so
// T'² ≥ T². What is in the pool is not less than before, so the traders have not taken out more than they put in: not by
// one unit. Rounding the other way, in either operation, would let a trader who repeats it carry off the pool.
//
// With N and T below 2^53 and at most 64 outcomes, T² < 2^106, Q < 2^112 and T'²·Q < 2^218: 256 bits are enough.

// squared is x², as 128 of 256 bits.
func squared(x uint64) (s uint256.Int) {
	s[1], s[0] = bits.Mul64(x, x)
	return s
}

// squares is Q.
func (p *Pool) squares() (q uint256.Int) {
	for _, n := range p.Shares {
		high, low := bits.Mul64(uint64(n), uint64(n))
		var carry uint64
		q[0], carry = bits.Add64(q[0], low, 0)
		q[1] += high + carry
	}
	return q
}

// buy finds N'² ≤ Q·T'²/T² − Q + N².
func (p *Pool) buy(on proto.Outcome, money proto.Amount) (proto.Shares, bool) {
	q, own := p.squares(), squared(uint64(p.Shares[on]))
	before, after := squared(uint64(p.Total)), squared(uint64(p.Total+money))
	var room uint256.Int
	room.Mul(&q, &after)
	room.Div(&room, &before)
	room.Sub(&room, &q)
	room.Add(&room, &own)
	if most := squared(uint64(proto.SharesMax)); room.Gt(&most) {
		return 0, false
	}
	return proto.Shares(root(&room)) - p.Shares[on], true
}

// Sell is what shares of an outcome bring now, rounded down. There must be more of them on the outcome, and the variant must
// buy back.
func (p *Pool) Sell(on proto.Outcome, shares proto.Shares) proto.Amount {
	total, _ := p.with(on, p.Shares[on]-shares)
	return p.Total - total
}

// Cost is the least money that buys at least so many shares of an outcome now. It returns false where the pool cannot take
// so much, and is for variants that buy back.
func (p *Pool) Cost(on proto.Outcome, shares proto.Shares) (proto.Amount, bool) {
	if shares > proto.SharesMax-p.Shares[on] {
		return 0, false
	}
	total, ok := p.with(on, p.Shares[on]+shares)
	return total - p.Total, ok
}

// with is the least T' that the pool must hold with n shares on an outcome: T'² ≥ T²·Q'/Q.
func (p *Pool) with(on proto.Outcome, n proto.Shares) (proto.Amount, bool) {
	q, own, its := p.squares(), squared(uint64(p.Shares[on])), squared(uint64(n))
	total := squared(uint64(p.Total))
	var least, rest uint256.Int
	least.Sub(&q, &own)
	least.Add(&least, &its)
	least.Mul(&least, &total)
	least.DivMod(&least, &q, &rest)
	if !rest.IsZero() {
		least.AddUint64(&least, 1)
	}
	if most := squared(uint64(proto.AmountMax)); least.Gt(&most) {
		return 0, false
	}
	after := root(&least)
	if exact := squared(after); exact.Lt(&least) {
		after++
	}
	return proto.Amount(after), true
}

// root is ⌊√v⌋ for v < 2^107. The float is within two of it; what it says is then made exact, so that it does not matter how
// the machine rounds.
func root(v *uint256.Int) uint64 {
	r := uint64(math.Sqrt(float64(float64(v[1])*0x1p64) + float64(v[0])))
	for s := squared(r); s.Gt(v); s = squared(r) {
		r--
	}
	for s := squared(r + 1); !s.Gt(v); s = squared(r + 1) {
		r++
	}
	return r
}

// price is N·T/Q. N is in millionths and Q in their squares, so one million makes it units a share, and another one
// millionths.
func (p *Pool) price(on proto.Outcome) proto.Millionths {
	return p.ofSquares(uint64(p.Total), p.Shares[on], million*million)
}

// probability is N²/Q.
func (p *Pool) probability(on proto.Outcome) proto.Millionths {
	return p.ofSquares(uint64(p.Shares[on]), p.Shares[on], million)
}

// ofSquares is x·n·scale/Q rounded to the nearest, at most MillionthsMax.
func (p *Pool) ofSquares(x uint64, n proto.Shares, scale uint64) proto.Millionths {
	var product, half uint256.Int
	product[1], product[0] = bits.Mul64(x, uint64(n))
	q := p.squares()
	product.Mul(&product, uint256.NewInt(scale))
	product.Add(&product, half.Rsh(&q, 1))
	product.Div(&product, &q)
	if !product.IsUint64() || product[0] > uint64(proto.MillionthsMax) {
		return proto.MillionthsMax
	}
	return proto.Millionths(product[0])
}
