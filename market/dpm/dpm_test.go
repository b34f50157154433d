package dpm

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"tote/server/proto"
)

// Rows after Pennock's formulas, in floating point: before a purchase of m on an outcome, what it buys, and afterwards.
var rows = []struct {
	variant                            Variant
	money, shares                      []float64
	on                                 proto.Outcome
	m                                  float64
	price0, probability0               float64
	bought                             float64
	price1, probability1, pays, payout float64
}{
	{LosersPayoff, []float64{100, 100}, []float64{100, 100}, 0, 50, 1.0, 0.5, 40.546510810816436, 1.5, 0.6782701395816826, 0.7115082361212486, 78.84917638787513},
	{LosersPayoff, []float64{300, 100}, []float64{250, 180}, 1, 40, 0.4, 0.1935483870967742, 84.11805915530323, 0.56, 0.330216777115168, 1.1358556887758968, 135.54597602033857},
	{LosersPayoff, []float64{1, 1}, []float64{1, 1}, 0, 1, 1.0, 0.5, 0.6931471805599453, 2.0, 0.7720171247821398, 0.5906161091496412, 1.4093838908503589},
	{LosersMoney, []float64{100, 100}, []float64{100, 100}, 0, 50, 1.0, 0.5, 44.65655965814557, 1.2471600564430645, 0.6433791887376349, 0.6912925361720299, 80.87074638279701},
	{LosersMoney, []float64{300, 100}, []float64{250, 180}, 1, 40, 0.4714045207910317, 0.2204812092115424, 78.45238793481437, 0.5507668044403093, 0.32179939539201874, 1.160755380893074, 131.06403143924666},
	{LosersMoney, []float64{1, 1}, []float64{1, 1}, 0, 1, 1.0, 0.5, 0.8132604340394957, 1.4852511696625286, 0.7292282297158862, 0.5514927592459774, 1.4485072407540227},
	{MoneyRatio, []float64{100, 100}, []float64{100, 100}, 0, 50, 1.0, 0.5, 45.580389198488646, 1.1778726398863684, 0.685900629363635, 1.7172642646197527, 78.27357353802472},
	{MoneyRatio, []float64{300, 100}, []float64{250, 180}, 1, 40, 0.43010752688172044, 0.1935483870967742, 81.42608749952562, 0.5519730461349771, 0.3279548951278687, 1.6830761008149135, 137.04630185331555},
	{MoneyRatio, []float64{50, 30, 20}, []float64{60, 40, 30}, 2, 25, 0.4166666666666667, 0.125, 42.59187485525195, 0.7533514730198742, 0.43749756681182733, 1.7219558008282574, 73.34132597515229},
	{ShareRatio, []float64{100, 100}, []float64{100, 100}, 0, 50, 1.0, 0.5, 45.7737973711325, 1.1661903789690602, 0.68, 1.7149858514250884, 78.50141485749114},
	{ShareRatio, []float64{300, 100}, []float64{250, 180}, 1, 40, 0.7586933614330874, 0.3414120126448893, 48.75532780680763, 0.8765411545428013, 0.4557124071445367, 1.9234524687075107, 93.77855563264808},
	{ShareRatio, []float64{50, 30, 20}, []float64{60, 40, 30}, 2, 25, 0.4918032786885246, 0.14754098360655737, 35.81223290544092, 0.8631112512188973, 0.4544262295081968, 1.8993429409939657, 68.01971177018103},
	{ShareRatio, []float64{6, 8}, []float64{6, 8}, 0, 5, 0.84, 0.36, 4.962831453114099, 1.130902613058086, 0.6525207756232688, 1.733128898429143, 8.601226609425142},
	{ShareRatio, []float64{10, 10, 10, 10}, []float64{5, 5, 5, 5}, 3, 60, 2.0, 0.25, 18.45207879911715, 3.752332607858743, 0.88, 4.264014327112208, 78.67992836443895},
}

// In the rows a unit is a million of ours, and a share a thousand, so that what we round is far below their tolerance.
const (
	unit      = 1e6
	share     = 1e3
	tolerance = 1e-6
)

func pool(v Variant, money, shares []float64) *Pool {
	p := &Pool{Variant: v}
	for i := range money {
		p.Money = append(p.Money, proto.Amount(math.Round(money[i]*unit)))
		p.Shares = append(p.Shares, proto.Shares(math.Round(shares[i]*share*million)))
		p.Total += p.Money[i]
	}
	return p
}

// price and payoff in the rows' units.
func perShare(x proto.Millionths) float64 { return float64(x) / million / unit * share }

func TestRows(t *testing.T) {
	for i, row := range rows {
		p := pool(row.variant, row.money, row.shares)
		near := func(what string, got, want float64) {
			if math.Abs(got-want) > tolerance {
				t.Errorf("row %d: %s %.9f, want %.9f", i, what, got, want)
			}
		}
		near("price before", perShare(p.Price(row.on)), row.price0)
		near("probability before", float64(p.Probability(row.on))/million, row.probability0)
		money := proto.Amount(row.m * unit)
		shares, ok := p.Buy(row.on, money)
		if !ok {
			t.Fatalf("row %d: the pool is full", i)
		}
		p.Bought(row.on, money, shares)
		near("shares", float64(shares)/share/million, row.bought)
		near("price after", perShare(p.Price(row.on)), row.price1)
		near("probability after", float64(p.Probability(row.on))/million, row.probability1)
		near("payoff", perShare(p.Payoff(row.on, 0)), row.pays)
		payout := p.Pays(p.Prize(0, row.on), row.on, shares)
		if p.Variant.ReturnsStakes() {
			payout += money
		}
		near("payout", float64(payout)/unit, row.payout)
	}
}

// Early money on the winner earns more: 10 before another 100 and 10 after it; a static pool pays both 10·320/220.
func TestEarlyMoneyEarnsMore(t *testing.T) {
	p := pool(ShareRatio, []float64{100, 100}, []float64{100, 100})
	var bought []proto.Shares
	for _, m := range []proto.Amount{10 * unit, 100 * unit, 10 * unit} {
		shares, _ := p.Buy(0, m)
		p.Bought(0, m, shares)
		bought = append(bought, shares)
	}
	prize := p.Prize(0, 0)
	early, late := float64(p.Pays(prize, 0, bought[0]))/unit, float64(p.Pays(prize, 0, bought[2]))/unit
	static := 10 * float64(p.Total) / float64(p.Money[0]+120*unit) // the share ratio leaves M at the seeds
	for _, row := range []struct{ got, want float64 }{{early, 15.41}, {late, 12.48}, {static, 14.55}} {
		if math.Round(row.got*100) != math.Round(row.want*100) {
			t.Errorf("%.4f, want %.2f", row.got, row.want)
		}
	}
}

// Why the variants that were published without buying back do not buy back: a losers' pool whose price is the other side's
// payoff, with its curve run backwards for sellers, hands this trader 177.6596 for nothing.
func TestSellingBackPumpsMoney(t *testing.T) {
	m, n := [2]float64{184.918018, 15.511343}, [2]float64{116.476893, 10.614866}
	cash := 0.0
	buy := func(on int, money float64) float64 {
		shares := n[1-on] * math.Log1p(money/m[on])
		m[on], n[on], cash = m[on]+money, n[on]+shares, cash-money
		return shares
	}
	sell := func(on int, shares float64) {
		money := m[on] * -math.Expm1(-shares/n[1-on])
		m[on], n[on], cash = m[on]-money, n[on]-shares, cash+money
	}
	before := n
	second := buy(1, 16.310443)
	first := buy(0, 576.604064)
	sell(1, second)
	sell(0, first)
	if math.Abs(n[0]-before[0])+math.Abs(n[1]-before[1]) > 1e-9 {
		t.Fatalf("shares %v afterwards, %v before", n, before)
	}
	if math.Abs(cash-177.6596) > 1e-4 {
		t.Errorf("the trader is ahead by %.4f, want 177.6596", cash)
	}
	for v := range Variant(len(variants)) {
		if v.BuysBack() != (v == ShareRatio) {
			t.Errorf("%s buys back: %v", variants[v], v.BuysBack())
		}
	}
}

// k compares K = T²/Q of two pools: T²·Q' against T'²·Q, with big integers.
func k(before, after *Pool) int {
	side := func(total proto.Amount, shares []proto.Shares) *big.Int {
		q := new(big.Int)
		for _, n := range shares {
			b := big.NewInt(int64(n))
			q.Add(q, b.Mul(b, b))
		}
		t := big.NewInt(int64(total))
		return q.Mul(q, t.Mul(t, t))
	}
	return side(after.Total, before.Shares).Cmp(side(before.Total, after.Shares))
}

func (p *Pool) clone() *Pool {
	return &Pool{p.Variant, p.Total, slices.Clone(p.Money), slices.Clone(p.Shares)}
}

func seeded(r *rand.Rand, v Variant) *Pool {
	p := &Pool{Variant: v}
	for range 2 + r.IntN(1+r.IntN(1+r.IntN(v.OutcomesMax()-1))) {
		m := proto.Amount(1 + r.Uint64N(1<<r.Uint64N(40)))
		p.Money, p.Shares = append(p.Money, m), append(p.Shares, proto.Shares(1+r.Uint64N(1<<r.Uint64N(44))))
		p.Total += m
	}
	return p
}

// K never falls, each operation goes as far as K lets it, and when the traders hold what they held before, they
// are not ahead by one unit.
func FuzzShareRatioFeedsNobody(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, uint8(30))
	}
	f.Fuzz(func(t *testing.T, seed uint64, steps uint8) {
		r := rand.New(rand.NewPCG(seed, 2004))
		p := seeded(r, ShareRatio)
		start, held, cash := p.clone(), make([]proto.Shares, len(p.Shares)), proto.Amount(0)
		never := func(what string, before *Pool) {
			if k(before, p) < 0 {
				t.Fatalf("seed %d: %s makes K fall: %+v to %+v", seed, what, before, p)
			}
		}
		sell := func(on proto.Outcome, shares proto.Shares) {
			before := p.clone()
			money := p.Sell(on, shares)
			if money < 0 {
				t.Fatalf("seed %d: a sale brings %d", seed, money)
			}
			p.Sold(on, money, shares)
			held[on], cash = held[on]-shares, cash+money
			never("a sale", before)
			if p.Total--; k(before, p) >= 0 {
				t.Fatalf("seed %d: a sale of %d brings %d, and could bring one more", seed, shares, money)
			}
			p.Total++
		}
		for range steps {
			on := proto.Outcome(r.IntN(len(p.Shares)))
			if held[on] > 0 && r.IntN(2) == 0 {
				sell(on, 1+proto.Shares(r.Int64N(int64(held[on]))))
				continue
			}
			money := proto.Amount(1 + r.Uint64N(uint64(p.Total)*4/uint64(1+r.IntN(100))+1))
			shares, ok := p.Buy(on, money)
			if !ok {
				continue
			}
			if cost, ok := p.Cost(on, shares); !ok || cost > money {
				t.Fatalf("seed %d: %d buys %d shares, which cost %d", seed, money, shares, cost)
			}
			before := p.clone()
			p.Bought(on, money, shares)
			held[on], cash = held[on]+shares, cash-money
			never("a purchase", before)
			if p.Shares[on]++; k(before, p) >= 0 {
				t.Fatalf("seed %d: %d buys %d shares, and could buy one more", seed, money, shares)
			}
			p.Shares[on]--
		}
		for on := range held {
			if held[on] > 0 {
				sell(proto.Outcome(on), held[on])
			}
		}
		if !slices.Equal(p.Shares, start.Shares) {
			t.Fatalf("seed %d: shares %v in the end, %v at the start", seed, p.Shares, start.Shares)
		}
		if cash > 0 || p.Total < start.Total || p.Total != start.Total-cash {
			t.Fatalf("seed %d: the traders are ahead by %d, the pool has %d of %d", seed, cash, p.Total, start.Total)
		}
	})
}

// In pools so small that everything can be tried: a sale and a price leave K where it was or higher, and one unit less in the
// pool would not.
func TestSmallPools(t *testing.T) {
	for total := proto.Amount(2); total < 16; total++ {
		for n := range 16 * 16 {
			p := &Pool{Total: total, Money: []proto.Amount{1, 1}, Shares: []proto.Shares{proto.Shares(1 + n/16), proto.Shares(1 + n%16)}}
			for to := proto.Shares(1); to < 20; to++ {
				var cash proto.Amount
				switch shares := to - p.Shares[0]; {
				case shares < 0:
					cash = p.Sell(0, -shares)
				case shares > 0:
					cost, _ := p.Cost(0, shares)
					cash = -cost
				}
				after := &Pool{Total: total - cash, Shares: []proto.Shares{to, p.Shares[1]}}
				short := &Pool{Total: after.Total - 1, Shares: after.Shares}
				if k(p, after) < 0 || k(p, short) >= 0 {
					t.Fatalf("%+v with %d shares must hold the least that keeps K, not %d", p, to, after.Total)
				}
			}
		}
	}
}

// No sequence of a few trades by several traders, all of small amounts where rounding is largest, pumps out a unit. Every
// sequence of the given length over a few amounts is tried.
func TestNoSequencePumps(t *testing.T) {
	type op struct {
		on    proto.Outcome
		money proto.Amount // below 0: sells the oldest holding of the outcome
	}
	var ops []op
	for on := range proto.Outcome(2) {
		for _, money := range []proto.Amount{-1, 1, 2, 3, 7} {
			ops = append(ops, op{on, money})
		}
	}
	tried := 0
	var try func(p *Pool, holdings [2][]proto.Shares, cash proto.Amount, left int)
	try = func(p *Pool, holdings [2][]proto.Shares, cash proto.Amount, left int) {
		if len(holdings[0])+len(holdings[1]) == 0 && cash > 0 {
			t.Fatalf("the traders are ahead by %d in %+v", cash, p)
		}
		if left == 0 {
			tried++
			return
		}
		for _, o := range ops {
			next, after, cash := p.clone(), holdings, cash
			if o.money > 0 {
				shares, ok := next.Buy(o.on, o.money)
				if !ok {
					t.Fatalf("%+v is full", next)
				}
				next.Bought(o.on, o.money, shares)
				after[o.on] = append(slices.Clone(after[o.on]), shares)
				cash -= o.money
			} else {
				if len(after[o.on]) == 0 {
					continue
				}
				shares := after[o.on][0]
				after[o.on] = after[o.on][1:]
				money := next.Sell(o.on, shares)
				next.Sold(o.on, money, shares)
				cash += money
			}
			try(next, after, cash, left-1)
		}
	}
	for _, shares := range [][]proto.Shares{{10, 10}, {3, 50}, {1_000_000, 2_000_000}} {
		try(&Pool{Total: 20, Money: []proto.Amount{10, 10}, Shares: shares}, [2][]proto.Shares{}, 0, 5)
	}
	if tried < 10_000 {
		t.Errorf("only %d sequences were tried", tried)
	}
}

// The floating point never gives more shares than the formula, and hardly fewer: its twin runs with 300 bits.
func FuzzPublishedNeverFavoursTheBuyer(f *testing.F) {
	for seed := range uint64(4000) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2004))
		p := seeded(r, Variant(1+r.IntN(3)))
		on, money := proto.Outcome(r.IntN(len(p.Shares))), proto.Amount(1+r.Uint64N(1<<r.Uint64N(45)))
		got, ok := p.Buy(on, money)
		exact := p.exact(on, money)
		if !ok {
			if room := float64(proto.SharesMax-p.Shares[on]) * (1 - 4*margin); exact < room {
				t.Fatalf("seed %d: %d on %d of %+v is refused as too many shares, the formula gives %g", seed, money, on, p, exact)
			}
			return
		}
		if float64(got) > exact || float64(got) < exact-float64(exact*2*margin)-1 {
			t.Fatalf("seed %d: %d on %d of %+v buys %d shares, the formula gives %.3f", seed, money, on, p, got, exact)
		}
	})
}

const bits300 = 300

func big300(x float64) *big.Float { return new(big.Float).SetPrec(bits300).SetFloat64(x) }

// ln1p is ln(1 + x/y) by halving the exponent of 1+x/y with roots until the series is short.
func ln1p(x, y *big.Float) *big.Float {
	v := big300(0).Quo(x, y)
	v.Add(v, big300(1))
	twos := 1.0
	for v.Cmp(big300(1.01)) > 0 {
		v.Sqrt(v)
		twos *= 2
	}
	s := big300(0).Quo(big300(0).Sub(v, big300(1)), big300(0).Add(v, big300(1)))
	z, sum := big300(0).Mul(s, s), big300(0)
	for i := 39; i >= 0; i-- {
		sum.Mul(sum, z)
		sum.Add(sum, big300(0).Quo(big300(1), big300(float64(2*i+1))))
	}
	sum.Mul(sum, s)
	return sum.Mul(sum, big300(2*twos))
}

// exact is the published formula, in the form in which it is published.
func (p *Pool) exact(on proto.Outcome, money proto.Amount) float64 {
	of := func(x int64) *big.Float { return big300(0).SetInt64(x) }
	mul := func(x, y *big.Float) *big.Float { return big300(0).Mul(x, y) }
	add := func(x, y *big.Float) *big.Float { return big300(0).Add(x, y) }
	sub := func(x, y *big.Float) *big.Float { return big300(0).Sub(x, y) }
	quo := func(x, y *big.Float) *big.Float { return big300(0).Quo(x, y) }
	m, own, n := of(int64(money)), of(int64(p.Money[on])), of(int64(p.Shares[on]))
	l := ln1p(m, own)
	shares := big300(0)
	switch p.Variant {
	case LosersPayoff:
		shares = mul(of(int64(p.Shares[1-on])), l)
	case LosersMoney:
		other := of(int64(p.Shares[1-on]))
		side := add(big300(0).Sqrt(n), quo(mul(big300(0).Sqrt(other), l), big300(2)))
		shares = sub(mul(side, side), n)
	case MoneyRatio:
		s, total := big300(0), of(int64(p.Total))
		for j := range p.Money {
			if j != int(on) {
				s = add(s, mul(of(int64(p.Money[j])), of(int64(p.Shares[j]))))
			}
		}
		o, after := sub(total, own), add(total, m)
		// ln(x/(x+O)) = −ln(1 + O/x)
		f := func(x *big.Float) *big.Float {
			return sub(quo(big300(1), mul(o, add(x, o))), quo(ln1p(o, x), mul(o, o)))
		}
		shares = sub(mul(after, add(quo(n, total), mul(s, sub(f(add(own, m)), f(own))))), n)
	}
	v, _ := shares.Float64()
	return v
}

// Hanson's market scoring rule is what a dynamic pool is compared with: both quote a probability at any time, but its house
// can lose b·ln k, and the pool's only its seeds. The same informed crowd buys the winner from both.
func TestHouseLosesItsSeedsAtMost(t *testing.T) {
	const seeds = 200.0
	const b = seeds / math.Ln2 // so that both houses may lose 200
	cost := func(q [2]float64) float64 { return b * math.Log(math.Exp(q[0]/b)+math.Exp(q[1]/b)) }
	p, q := pool(ShareRatio, []float64{100, 100}, []float64{100, 100}), [2]float64{}
	paid, before := 0.0, p.Probability(0)
	for range 100 {
		money := proto.Amount(20 * unit)
		shares, _ := p.Buy(0, money)
		p.Bought(0, money, shares)
		now := p.Probability(0)
		if now <= before {
			t.Fatalf("probability %d after a purchase, %d before", now, before)
		}
		before = now
		// The same money in the scoring rule: C(q') = C(q) + 20.
		paid += 20
		q[0] = b * math.Log(math.Exp((cost(q)+20)/b)-math.Exp(q[1]/b))
	}
	if left := p.Total - p.Pays(p.Prize(0, 0), 0, p.Shares[0]-proto.Shares(100*share*million)); left < 0 || left >= seeds*unit {
		t.Errorf("of its seeds of %d the house has %d left", int(seeds*unit), left)
	}
	if loss := q[0] - paid; loss < 0.98*b*math.Ln2 || loss > b*math.Ln2 {
		t.Errorf("the scoring rule loses %.3f, want nearly %.3f", loss, b*math.Ln2)
	}
	if got := float64(before) / million; got < 0.99 || math.Exp(q[0]/b)/(math.Exp(q[0]/b)+1) < 0.99 {
		t.Errorf("probability %.6f of what everybody knows", got)
	}
}

// All parts of a prize together are never more than it.
func FuzzPaysNoMoreThanThePrize(f *testing.F) {
	f.Add(uint64(1), uint16(1500))
	f.Fuzz(func(t *testing.T, seed uint64, takeoutBP uint16) {
		r := rand.New(rand.NewPCG(seed, 7))
		p := seeded(r, Variant(r.IntN(4)))
		winners := []proto.Outcome{0}
		if len(p.Shares) > 2 {
			winners = append(winners, 1)
		}
		takeout := p.Total / 10000 * proto.Amount(takeoutBP%5001)
		prize, paid := p.Prize(takeout, winners...), proto.Amount(0)
		for _, w := range winners {
			for left := p.Shares[w]; left > 0; {
				part := 1 + proto.Shares(r.Int64N(int64(left)))
				paid += p.Pays(prize, w, part)
				left -= part
			}
		}
		most := p.Total - takeout
		if p.Variant.ReturnsStakes() {
			for _, w := range winners {
				most -= p.Money[w]
			}
		}
		if paid > max(most, 0) {
			t.Fatalf("seed %d: %d was paid of %d", seed, paid, most)
		}
	})
}

// At the limits a purchase is refused, and nothing overflows on the way.
func TestLimits(t *testing.T) {
	full := []proto.Shares{}
	money := []proto.Amount{}
	for range proto.OutcomesMax {
		full, money = append(full, proto.SharesMax), append(money, proto.AmountMax/proto.OutcomesMax)
	}
	p := &Pool{Total: proto.AmountMax, Money: money, Shares: full}
	if _, ok := p.Buy(0, 1); ok {
		t.Error("a pool with all the money there is takes one more")
	}
	if cash := p.Sell(0, proto.SharesMax-1); cash <= 0 || cash >= p.Total {
		t.Errorf("a sale of nearly all brings %d of %d", cash, p.Total)
	}
	if got := p.Price(0); got != million*million/64 {
		t.Errorf("price %d of each of 64 outcomes with as many shares as there are units", got)
	}
	p.Total /= 2
	if _, ok := p.Buy(0, 1<<40); ok {
		t.Error("an outcome with all the shares there are takes more")
	}
	if _, ok := p.Cost(0, 1); ok {
		t.Error("an outcome with all the shares there are has a price for more")
	}
	small := &Pool{Total: proto.AmountMax - 5, Money: []proto.Amount{1, 1}, Shares: []proto.Shares{1, proto.SharesMax}}
	if _, ok := small.Cost(0, proto.SharesMax-1); ok {
		t.Error("shares that cost more money than there is have a price")
	}
	tiny := &Pool{Total: 2, Money: []proto.Amount{1, 1}, Shares: []proto.Shares{1, 1}}
	if got := (&Pool{Total: proto.AmountMax, Money: []proto.Amount{1, 1}, Shares: []proto.Shares{1, 1}}).Price(0); got != proto.MillionthsMax {
		t.Errorf("price %d, want the largest that can be shown", got)
	}
	for v := range Variant(len(variants)) {
		tiny.Variant = v
		if shares, ok := tiny.Buy(0, proto.AmountMax-2); ok && (shares < 0 || shares > proto.SharesMax) {
			t.Errorf("%s: %d shares", variants[v], shares)
		}
	}
}

func BenchmarkBuy(b *testing.B) {
	for _, outcomes := range []int{2, 64} {
		for v := range Variant(len(variants)) {
			if outcomes > v.OutcomesMax() {
				continue
			}
			p := &Pool{Variant: v}
			for range outcomes {
				p.Money, p.Shares, p.Total = append(p.Money, 10000), append(p.Shares, 10000*million), p.Total+10000
			}
			b.Run(variants[v]+map[int]string{2: "/2", 64: "/64"}[outcomes], func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if _, ok := p.Buy(0, proto.Amount(1+i%500)); !ok {
						b.Fatal("the pool is full")
					}
				}
			})
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	p := pool(ShareRatio, []float64{50, 30, 20}, []float64{60, 40, 30})
	if n := testing.AllocsPerRun(100, func() {
		shares, _ := p.Buy(2, 1000)
		p.Bought(2, 1000, shares)
		p.Sold(2, p.Sell(2, shares), shares)
		p.Price(1)
		p.Cost(0, million)
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
