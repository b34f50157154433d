package market

import (
	"math/bits"

	"tote/server/proto"
)

// share is an amount that is divided between stakes in proportion, to the last unit: each gets floor(net × stake / sum), and the
// units left over go one each to the largest fractional parts, ties in the order of acceptance. What is paid is net.
//
// Which fractional parts are large enough is found without a list of them, as a radix selection does: a walk over all stakes counts them by
// their leading digit, the next one those with the decisive digit by their second, until all digits of the smallest one that still gets a unit are
// known. Fractional parts are kept as the remainders of the division, in units of 1/sum.
//
// The products need 128 bits; quotients fit, since a stake is at most the sum.
//
// Under the dividend rule each stake gets its whole units times the dividend; then unit is not 0, and nothing is counted.
type share struct {
	unit, dividend proto.Amount

	net, sum proto.Amount
	left     proto.Amount // units that no walk has given out: net − Σ floors
	floored  bool         // the first walk is over: left is known
	shift    uint         // bits of remainders that no walk has looked at
	prefix   uint64       // the bits above, of the smallest remainder that gets a unit
	counts   []uint32     // of remainders that begin with prefix, by their next digit; nil once prefix is whole
}

// digitBits of a remainder are looked at in one walk: its counts, 8 kB, stay in the first cache.
const digitBits = 11

func newShare(net, sum proto.Amount) share {
	assert(sum > 0 && net >= 0, "somebody staked on the winner")
	return share{net: net, sum: sum, left: net, shift: uint(bits.Len64(uint64(sum))), counts: make([]uint32, 1<<digitBits)}
}

// quotient divides 128 bits.
func (d *share) quotient(stake proto.Amount) (whole proto.Amount, rest uint64) {
	high, low := bits.Mul64(uint64(d.net), uint64(stake))
	q, rest := bits.Div64(high, low, uint64(d.sum))
	return proto.Amount(q), rest
}

// count looks at a stake during a walk.
func (d *share) count(stake proto.Amount) {
	if d.counts == nil {
		return
	}
	whole, rest := d.quotient(stake)
	if !d.floored {
		d.left -= whole
	}
	if rest>>d.shift == d.prefix {
		d.counts[rest>>d.low()&(1<<digitBits-1)]++
	}
}

// low is how many bits are left to look at after this walk.
func (d *share) low() uint { return d.shift - min(d.shift, digitBits) }

// choose ends a walk; it reports whether another one is needed.
func (d *share) choose() bool {
	if d.counts == nil {
		return false
	}
	d.floored = true
	assert(d.left >= 0, "no more is given out than there is")
	if d.left == 0 { // nothing is left over: no remainder is large enough
		d.prefix, d.counts = uint64(d.sum), nil
		return false
	}
	digit := len(d.counts) - 1
	for ; d.left > proto.Amount(d.counts[digit]); digit-- {
		d.left -= proto.Amount(d.counts[digit])
		assert(digit > 0, "fewer units are left than stakes")
	}
	width := d.shift - d.low()
	d.prefix, d.shift = d.prefix<<width|uint64(digit), d.low()
	if d.shift == 0 { // prefix is the smallest remainder that gets a unit, and left how many with it do
		d.counts = nil
		return false
	}
	clear(d.counts)
	return true
}

// least is what a stake gets before units that are left over.
func (d *share) least(stake proto.Amount) proto.Amount {
	if d.unit != 0 {
		return stake / d.unit * d.dividend
	}
	whole, _ := d.quotient(stake)
	return whole
}

// pay is what a stake gets, asked in the order of acceptance when all walks are over.
func (d *share) pay(stake proto.Amount) proto.Amount {
	if d.unit != 0 {
		return d.least(stake)
	}
	whole, rest := d.quotient(stake)
	switch {
	case rest > d.prefix:
		whole++
	case rest == d.prefix && d.left > 0:
		whole++
		d.left--
	}
	return whole
}
