package dpm

import (
	"math"

	"tote/server/proto"
)

// The variants that only sell shares need logarithms, so they are computed in floating point. It replays bit for bit on any
// machine: IEEE 754 rounds sums, products, quotients and roots exactly; the logarithm is our own, since the
// standard library's differs between architectures; and each product is converted before it is added to, which forbids the
// compiler to fuse the two.
//
// The shares are the integral of dm/price along the purchase of m; M and N are the bought outcome's, T' = T + m, and
// S is Σ MⱼNⱼ and O is Σ Mⱼ of all the others, j of the only other:
//
//	losers_payoff   Nⱼ·ln(1 + m/M)
//	losers_money    (√N + √Nⱼ·L/2)² − N  =  √(N·Nⱼ)·L + Nⱼ·L²/4,  L = ln(1 + m/M)
//	money_ratio     T'·(N/T + S·(F(M+m) − F(M))) − N,  F(x) = ln(x/(x+O))/O² + 1/(O·(x+O))
//	             =  m·N/T + S·T'·(ln(1+u) − v)/O²,  u = m·O/(M·T'),  v = m·O/(T·T')

// margin is what rounding could have added to the shares, and is taken off before they are rounded down, so that it favours
// nobody but the pool. Each of the fewer than 70 roundings on a term's way errs by 2^-53 of it, and the difference ln(1+u) − v
// is, as computed here, never less than a twelfth of its parts: (70 + 12·20)·2^-53 < 2^-44.
const margin = 0x1p-44

func (p *Pool) buyPublished(on proto.Outcome, money proto.Amount) (proto.Shares, bool) {
	own, n, m := float64(p.Money[on]), float64(p.Shares[on]), float64(money)
	var shares float64
	switch p.Variant {
	case LosersPayoff:
		shares = float64(p.Shares[1-on]) * logarithm(m/own)
	case LosersMoney:
		other, l := float64(p.Shares[1-on]), logarithm(m/own)
		shares = float64(math.Sqrt(n)*math.Sqrt(other)*l) + float64(other*l*l/4)
	case MoneyRatio:
		total, others := float64(p.Total), float64(p.Total-p.Money[on])
		shares = float64(m*n/total) + float64(p.crossed(on)*path(m, own, others, total))
	}
	shares -= float64(shares * margin)
	if shares >= float64(proto.SharesMax-p.Shares[on]) {
		return 0, false
	}
	return proto.Shares(shares), true
}

// path is T'·(ln(1+u) − v)/O². For small u the logarithm and v are nearly equal; there, with s = u/(2+u), the same is
// m/(M·T) − T'·(u − ln(1+u))/O² and u − ln(1+u) = u·s − 2·(s³/3 + s⁵/5 + …).
func path(m, own, others, total float64) float64 {
	after := total + m
	u := m / own * (others / after)
	if u < 1 {
		s := u / (2 + u)
		bend := float64(u*s) - float64(2*s*s*s*series(s*s))
		return m/own/total - float64(after*(bend/others/others))
	}
	v := m / total * (others / after)
	return after / others * ((logarithm(u) - v) / others)
}

// logarithm is ln(1+x) for x ≥ 0, within four units in the last place.
func logarithm(x float64) float64 {
	if x < 1 {
		return arc(x / (2 + x))
	}
	f, twos := math.Frexp(1 + x) // 1+x = f·2^twos, f from ½ to 1
	if f < math.Sqrt2/2 {
		f, twos = 2*f, twos-1
	}
	return float64(float64(twos)*math.Ln2) + arc((f-1)/(f+1))
}

// arc is 2·artanh s = ln((1+s)/(1−s)), for |s| ≤ 1/3.
func arc(s float64) float64 { return float64(2*s) + float64(2*s*s*s*series(s*s)) }

// series is 1/3 + z/5 + z²/7 + …, for z ≤ 1/9: what comes after 18 terms is below 2^-60.
func series(z float64) (sum float64) {
	for k := 17; k >= 0; k-- {
		sum = float64(sum*z) + 1/float64(2*k+3)
	}
	return sum
}

// crossed is S, the sum of Mⱼ·Nⱼ over the other outcomes.
func (p *Pool) crossed(on proto.Outcome) (sum float64) {
	for j := range p.Money {
		if j != int(on) {
			sum += float64(float64(p.Money[j]) * float64(p.Shares[j]))
		}
	}
	return sum
}

// pricePublished is in units of money for a millionth of a share.
func (p *Pool) pricePublished(on proto.Outcome) float64 {
	m, n := float64(p.Money[on]), float64(p.Shares[on])
	switch p.Variant {
	case LosersPayoff:
		return m / float64(p.Shares[1-on])
	case LosersMoney:
		return m / (math.Sqrt(n) * math.Sqrt(float64(p.Shares[1-on])))
	}
	return m * float64(p.Total) / (p.crossed(on) + float64(m*n))
}

func (p *Pool) probabilityPublished(on proto.Outcome) float64 {
	m, n := float64(p.Money[on]), float64(p.Shares[on])
	if p.Variant == LosersMoney {
		m, other := math.Sqrt(n)*m, math.Sqrt(float64(p.Shares[1-on]))*float64(p.Money[1-on])
		return m / (m + other)
	}
	own := float64(m * n)
	return own / (p.crossed(on) + own)
}
