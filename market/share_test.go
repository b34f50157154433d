package market

import (
	"math/big"
	"slices"
	"testing"

	"tote/server/proto"
)

// splitNaively is share's twin: big integers, and a search for the largest rest for each unit left.
func splitNaively(net proto.Amount, stakes []proto.Amount) []proto.Amount {
	sum := new(big.Int)
	for _, s := range stakes {
		sum.Add(sum, big.NewInt(int64(s)))
	}
	payouts := make([]proto.Amount, len(stakes))
	rests := make([]*big.Int, len(stakes))
	left := net
	for i, s := range stakes {
		product := new(big.Int).Mul(big.NewInt(int64(net)), big.NewInt(int64(s)))
		q, rest := new(big.Int).QuoRem(product, sum, new(big.Int))
		payouts[i], rests[i] = proto.Amount(q.Int64()), rest
		left -= payouts[i]
	}
	for ; left > 0; left-- {
		best := 0
		for i := range rests {
			if rests[i].Cmp(rests[best]) > 0 {
				best = i
			}
		}
		payouts[best]++
		rests[best] = big.NewInt(-1)
	}
	return payouts
}

// splitExact divides net the way a pool does: walk after walk.
func splitExact(net proto.Amount, stakes []proto.Amount) []proto.Amount {
	var sum proto.Amount
	for _, stake := range stakes {
		sum += stake
	}
	d := newShare(net, sum)
	for again := true; again; again = d.choose() {
		for _, stake := range stakes {
			d.count(stake)
		}
	}
	payouts := make([]proto.Amount, len(stakes))
	for i, stake := range stakes {
		payouts[i] = d.pay(stake)
	}
	return payouts
}

func TestShare(t *testing.T) {
	for _, row := range []struct {
		name   string
		net    proto.Amount
		stakes []proto.Amount
		want   []proto.Amount
	}{
		{"the worked row", 1701, []proto.Amount{333, 333, 334}, []proto.Amount{567, 566, 568}},
		{"alone", 7, []proto.Amount{3}, []proto.Amount{7}},
		{"nothing left over", 300, []proto.Amount{1, 2}, []proto.Amount{100, 200}},
		{"ties go to the first", 1, []proto.Amount{1, 1}, []proto.Amount{1, 0}},
		{"remainders of several digits", 1 << 40, []proto.Amount{1<<39 + 1, 1<<39 + 2, 1<<39 + 3}, []proto.Amount{366503875925, 366503875925, 366503875926}},
		{"128 bits", proto.AmountMax, []proto.Amount{proto.AmountMax - 1, 1}, []proto.Amount{proto.AmountMax - 1, 1}},
	} {
		if got := splitExact(row.net, row.stakes); !slices.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

// No money is made or lost by splitting, and the twin agrees.
func FuzzShare(f *testing.F) {
	f.Add(uint64(1701), []byte{33, 33, 34}, uint64(10))
	f.Add(uint64(1)<<52, []byte{255, 1, 1, 1}, uint64(1)<<40)
	f.Fuzz(func(t *testing.T, net uint64, weights []byte, scale uint64) {
		n := proto.Amount(net % uint64(proto.AmountMax))
		scale = 1 + scale%(1<<44)
		var stakes []proto.Amount
		for _, w := range weights {
			stakes = append(stakes, 1+proto.Amount(uint64(w)*scale))
		}
		if len(stakes) == 0 || len(stakes) > 256 {
			return
		}
		got := splitExact(n, stakes)
		var sum proto.Amount
		for _, payout := range got {
			sum += payout
		}
		if sum != n {
			t.Fatalf("payouts sum to %d, net is %d", sum, n)
		}
		if want := splitNaively(n, stakes); !slices.Equal(got, want) {
			t.Fatalf("%v, the twin says %v", got, want)
		}
	})
}

func FuzzTakeout(f *testing.F) {
	f.Add(uint64(2001), uint16(1500))
	f.Fuzz(func(t *testing.T, gross uint64, bp uint16) {
		g := proto.Amount(gross % uint64(proto.AmountMax+1))
		bp %= 10001
		product := new(big.Int).Mul(big.NewInt(int64(g)), big.NewInt(int64(bp)))
		want := product.Quo(product, big.NewInt(10000)).Int64()
		if got := takeout(g, bp); int64(got) != want {
			t.Fatalf("takeout(%d, %d) = %d, want %d", g, bp, got, want)
		}
	})
}
