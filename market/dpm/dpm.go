// Package dpm is the arithmetic of dynamic parimutuel pools, after D. Pennock, "A Dynamic Pari-Mutuel Market for
// Hedging, Wagering, and Information Aggregation" (2004): how many shares money buys, what sold shares bring,
// what a share costs at the moment and pays in the end. The market runs it; it keeps no accounts, and it knows no time.
//
// A pool has on each outcome the money M that was paid for it and the N shares that were bought; T is all money, Q the sum of
// all N². The house has seeded each outcome, so that none of them is ever 0.
//
//	variant         the winners get                 price of outcome i   probability
//	share_ratio     T/Nᵢ a share                    Nᵢ·T / Q             Nᵢ² / Q
//	money_ratio     T/Nᵢ a share                    Mᵢ·T / Σ MⱼNⱼ        Mᵢ·Nᵢ / Σ MⱼNⱼ
//	losers_payoff   their money and Mⱼ/Nᵢ a share   Mᵢ / Nⱼ              Mᵢ·Nᵢ / Σ MⱼNⱼ
//	losers_money    their money and Mⱼ/Nᵢ a share   Mᵢ / √(Nᵢ·Nⱼ)        1 / (1 + (Mⱼ/Mᵢ)·√(Nⱼ/Nᵢ))
//
// The last two have exactly two outcomes, i and j. Only the first buys back: in the others, a round of buying and selling
// can end with more money than it began with (TestSellingBackPumpsMoney).
//
// Reading order: dpm.go, share.go (the first variant, in integers), published.go (the others).
package dpm

import (
	"math/bits"

	"tote/server/proto"
)

// Variant is one of the four ways in which Pennock prices shares.
type Variant uint8

// The variants.
const (
	ShareRatio   Variant = iota // all money to the winners; prices are as shares
	MoneyRatio                  // all money to the winners; prices are as money
	LosersPayoff                // the losers' money to the winners; the price is what the other side's shares pay
	LosersMoney                 // the losers' money to the winners; prices are as money
)

var variants = [...]string{"share_ratio", "money_ratio", "losers_payoff", "losers_money"}

// VariantOf finds a variant by its name; no name means the first.
func VariantOf(name string) (v Variant, ok bool) {
	for i, known := range variants {
		if name == known {
			return Variant(i), true
		}
	}
	return ShareRatio, name == ""
}

func (v Variant) String() string { return variants[v] }

// BuysBack reports whether shares can be sold again.
func (v Variant) BuysBack() bool { return v == ShareRatio }

// ReturnsStakes reports whether winners get their own money back, and shares divide only what the losers paid.
func (v Variant) ReturnsStakes() bool { return v == LosersPayoff || v == LosersMoney }

// OutcomesMax is how many outcomes a pool of the variant can have.
func (v Variant) OutcomesMax() int {
	if v.ReturnsStakes() {
		return 2
	}
	return proto.OutcomesMax
}

// Pool is what stands on the outcomes of one pool. Every number is positive, and at most 2^53 − 1.
type Pool struct {
	Variant Variant
	Total   proto.Amount   // T, seeds included
	Money   []proto.Amount // M, seeds included, ΣM = T; the share ratio does not look at it, and its buying back leaves it behind
	Shares  []proto.Shares // N, seeds included
}

// Share is a whole share.
const Share proto.Shares = million

// Seeded is a pool as the house opens it; a seed without shares gets one for each unit of money. It returns false where a seed
// is out of range, or there is more money than a pool can hold.
func Seeded(v Variant, seeds []proto.Seed) (p Pool, ok bool) {
	p.Variant = v
	for _, seed := range seeds {
		if !seed.Money.Valid() || seed.Money > proto.AmountMax-p.Total {
			return p, false
		}
		if seed.Shares == 0 && seed.Money <= proto.Amount(proto.SharesMax/Share) {
			seed.Shares = proto.Shares(seed.Money) * Share
		}
		if !seed.Shares.Valid() {
			return p, false
		}
		p.Total += seed.Money
		p.Money, p.Shares = append(p.Money, seed.Money), append(p.Shares, seed.Shares)
	}
	return p, true
}

// Buy is how many shares of an outcome the money buys now, rounded down. It returns false where the pool cannot take so much:
// more than 2^53 − 1 units in it, or more than 2^53 − 1 millionths of shares on the outcome.
func (p *Pool) Buy(on proto.Outcome, money proto.Amount) (proto.Shares, bool) {
	if money > proto.AmountMax-p.Total {
		return 0, false
	}
	if p.Variant == ShareRatio {
		return p.buy(on, money)
	}
	return p.buyPublished(on, money)
}

// Bought adds what was bought.
func (p *Pool) Bought(on proto.Outcome, money proto.Amount, shares proto.Shares) {
	p.Total += money
	p.Shares[on] += shares
	if !p.Variant.BuysBack() {
		p.Money[on] += money
	}
}

// Sold takes away what was sold.
func (p *Pool) Sold(on proto.Outcome, money proto.Amount, shares proto.Shares) {
	p.Total -= money
	p.Shares[on] -= shares
}

// Prize is what the shares on each of the winning outcomes divide among them, after takeout: all the money, or the
// losers' money, in equal parts for a dead heat. What the division leaves over stays with the house.
func (p *Pool) Prize(takeout proto.Amount, winners ...proto.Outcome) proto.Amount {
	prize := p.Total
	if p.Variant.ReturnsStakes() {
		for _, winner := range winners {
			prize -= p.Money[winner]
		}
	}
	return max(prize-takeout, 0) / proto.Amount(len(winners))
}

// Pays is a holding's part of the prize, prize × shares / N, rounded down; so all parts together are never more than the prize.
func (p *Pool) Pays(prize proto.Amount, on proto.Outcome, shares proto.Shares) proto.Amount {
	high, low := bits.Mul64(uint64(prize), uint64(shares))
	part, _ := bits.Div64(high, low, uint64(p.Shares[on]))
	return proto.Amount(part)
}

// Price is what the next share of an outcome costs, in millionths of a unit for a whole share.
func (p *Pool) Price(on proto.Outcome) proto.Millionths {
	if p.Variant == ShareRatio {
		return p.price(on)
	}
	return millionths(p.pricePublished(on) * million * million) // money per millionth of a share
}

// Probability is what the pool thinks of an outcome.
func (p *Pool) Probability(on proto.Outcome) proto.Millionths {
	if p.Variant == ShareRatio {
		return p.probability(on)
	}
	return millionths(p.probabilityPublished(on) * million)
}

// Payoff is what a whole share would get of the prize, in millionths of a unit, if its outcome won now.
func (p *Pool) Payoff(on proto.Outcome, takeout proto.Amount) proto.Millionths {
	return p.PayoffOf(p.Prize(takeout, on), on)
}

// PayoffOf is what a whole share gets of a prize.
func (p *Pool) PayoffOf(prize proto.Amount, on proto.Outcome) proto.Millionths {
	return ratio(uint64(prize), million*million, uint64(p.Shares[on]))
}

// Covers reports whether the pool's money is what its curve needs: K is not below what it was seeded with. In variants that do
// not buy back, nothing has been taken out.
func (p *Pool) Covers(seeded *Pool) bool {
	if p.Variant != ShareRatio {
		var sum proto.Amount
		for _, money := range p.Money {
			sum += money
		}
		return p.Total == sum && p.Total >= seeded.Total
	}
	now, q := squared(uint64(p.Total)), seeded.squares()
	then, q0 := squared(uint64(seeded.Total)), p.squares()
	now.Mul(&now, &q)
	then.Mul(&then, &q0)
	return !now.Lt(&then)
}

const million = 1_000_000

// ratio is x·y/z rounded down, at most MillionthsMax.
func ratio(x, y, z uint64) proto.Millionths {
	high, low := bits.Mul64(x, y)
	if high >= z {
		return proto.MillionthsMax
	}
	q, _ := bits.Div64(high, low, z)
	return proto.Millionths(min(q, uint64(proto.MillionthsMax)))
}

// millionths rounds to the nearest, for showing.
func millionths(f float64) proto.Millionths {
	if f >= float64(proto.MillionthsMax) {
		return proto.MillionthsMax
	}
	return proto.Millionths(f + 0.5)
}
