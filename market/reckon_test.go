package market

import (
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"tote/server/proto"
)

// ended makes a pool with so much staked on each outcome and reckons its end.
func ended(rules proto.Rules, takeout uint16, carried proto.Amount, staked []proto.Amount, winners ...proto.Outcome) (*pool, reckoning) {
	p := &pool{carried: carried, outcomes: make([]standing, len(staked))}
	p.opening.Rules, p.opening.Takeout = rules, takeout
	for o, amount := range staked {
		p.outcomes[o].staked = amount
		p.gross += amount
	}
	return p, p.reckon(winners, rules.NoWinner == proto.NoWinnerCarry)
}

// The rows of the trade, to the unit.
func TestReckoning(t *testing.T) {
	dividend := proto.Rules{Payout: proto.PayoutDividend, Unit: 100, Break: 10}
	least := dividend
	least.DividendMin = 105
	capped := func(most proto.Amount) proto.Rules {
		r := least
		r.MinusMax = most
		return r
	}
	carry := proto.Rules{NoWinner: proto.NoWinnerCarry}
	one, two, three := []proto.Outcome{0}, []proto.Outcome{1}, []proto.Outcome{2}
	for _, row := range []struct {
		name      string
		rules     proto.Rules
		takeout   uint16
		carried   proto.Amount
		staked    []proto.Amount
		winners   []proto.Outcome
		perUnit   []proto.Amount // of the winners; under the exact rule, what each outcome is paid in all
		paid      proto.Amount
		breakage  proto.Amount
		minus     proto.Amount
		carriedOn proto.Amount
		reason    proto.RefundReason
	}{
		{"the outsider wins", dividend, 1500, 0, []proto.Amount{5000, 3000, 2000}, three, []proto.Amount{420}, 8400, 100, 0, 0, 0},
		{"the favourite wins", dividend, 1500, 0, []proto.Amount{5000, 3000, 2000}, one, []proto.Amount{170}, 8500, 0, 0, 0, 0},
		{"minus pool", least, 1500, 0, []proto.Amount{98000, 1500, 500}, one, []proto.Amount{105}, 102900, 0, 17900, 0, 0},
		{"minus pool, the cap is enough", capped(17900), 1500, 0, []proto.Amount{98000, 1500, 500}, one, []proto.Amount{105}, 102900, 0, 17900, 0, 0},
		{"minus pool, capped", capped(10000), 1500, 0, []proto.Amount{98000, 1500, 500}, one, []proto.Amount{90}, 88200, 0, 3200, 0, 0},
		{"minus pool, the cap is below the break", capped(1), 1500, 0, []proto.Amount{98000, 1500, 500}, one, []proto.Amount{80}, 78400, 6600, 0, 0, 0},
		{"no least dividend", dividend, 1500, 0, []proto.Amount{98000, 1500, 500}, one, []proto.Amount{80}, 78400, 6600, 0, 0, 0},
		{"everybody backed the winner", dividend, 1500, 0, []proto.Amount{10000, 0, 0}, one, []proto.Amount{80}, 8000, 500, 0, 0, 0},
		{"dead heat", dividend, 1000, 0, []proto.Amount{4000, 2000, 4000}, []proto.Outcome{0, 1}, []proto.Amount{130, 170}, 8600, 400, 0, 0, 0},
		{"dead heat without profit", dividend, 1500, 0, []proto.Amount{6000, 3000, 1000}, []proto.Outcome{0, 1}, []proto.Amount{90, 90}, 8100, 400, 0, 0, 0},
		{"dead heat, one outcome not backed", dividend, 1500, 0, []proto.Amount{5000, 0, 5000}, []proto.Outcome{1, 2}, []proto.Amount{170}, 8500, 0, 0, 0, 0},
		{"dead heat, one of them minus", least, 0, 0, []proto.Amount{100000, 1000, 1000}, []proto.Outcome{0, 1}, []proto.Amount{105, 150}, 106500, 0, 4500, 0, 0},
		{"dead heat, the cap is halved", capped(8000), 0, 0, []proto.Amount{100000, 1000, 1000}, []proto.Outcome{0, 1}, []proto.Amount{100, 150}, 101500, 500, 0, 0, 0},
		{"with carried money", dividend, 1500, 1000, []proto.Amount{5000, 3000, 2000}, one, []proto.Amount{190}, 9500, 0, 0, 0, 0},

		{"exact", proto.Rules{}, 1500, 0, []proto.Amount{1000, 1001}, one, []proto.Amount{1701}, 1701, 0, 0, 0, 0},
		{"exact dead heat", proto.Rules{}, 0, 0, []proto.Amount{100, 200, 301}, []proto.Outcome{0, 1}, []proto.Amount{251, 350}, 601, 0, 0, 0, 0},
		{"exact dead heat without profit", proto.Rules{}, 5000, 0, []proto.Amount{100, 300, 100}, []proto.Outcome{0, 1}, []proto.Amount{250, 250}, 250, 0, 0, 0, 0},
		{"all outcomes win", proto.Rules{}, 0, 0, []proto.Amount{7, 8}, []proto.Outcome{0, 1}, []proto.Amount{7, 8}, 15, 0, 0, 0, 0},
		{"nobody backed the winner", proto.Rules{}, 1500, 0, []proto.Amount{50, 0, 50}, two, nil, 0, 0, 0, 0, proto.RefundNoWinner},
		{"nobody backed the winner, carried on", carry, 1500, 30, []proto.Amount{50, 0, 50}, two, nil, 0, 0, 0, 115, 0},
		{"nobody staked", proto.Rules{}, 1500, 0, []proto.Amount{0, 0}, one, nil, 0, 0, 0, 0, 0},
		{"nobody staked, carried on", carry, 1500, 30, []proto.Amount{0, 0}, one, nil, 0, 0, 0, 30, 0},
		{"one side", proto.Rules{OneSidedRefund: true}, 1500, 0, []proto.Amount{50, 0}, one, nil, 0, 0, 0, 0, proto.RefundOneSided},
		{"the other side wins", proto.Rules{OneSidedRefund: true}, 1500, 0, []proto.Amount{50, 0}, two, nil, 0, 0, 0, 0, proto.RefundOneSided},
		{"one side, with something to win", proto.Rules{OneSidedRefund: true}, 1500, 50, []proto.Amount{100, 0}, one, []proto.Amount{135}, 135, 0, 0, 0, 0},
		{"one side, not refunded", proto.Rules{}, 1500, 0, []proto.Amount{100, 0}, one, []proto.Amount{85}, 85, 0, 0, 0, 0},
		{"the largest amounts", least, 0, 0, []proto.Amount{proto.AmountMax / 100 * 100, 0}, one, []proto.Amount{105}, proto.AmountMax / 100 * 105, 0, proto.AmountMax / 100 * 5, 0, 0},
	} {
		p, r := ended(row.rules, row.takeout, row.carried, row.staked, row.winners...)
		if r.paid != row.paid || r.Breakage != row.breakage || r.Minus != row.minus || r.CarriedOn != row.carriedOn || r.Reason != row.reason {
			t.Errorf("%s: paid %d, breakage %d, minus %d, carried on %d, reason %s", row.name, r.paid, r.Breakage, r.Minus, r.CarriedOn, r.Reason)
		}
		if r.Refunded != (r.Reason != 0) {
			t.Errorf("%s: refunded %v, reason %s", row.name, r.Refunded, r.Reason)
		}
		if !r.Refunded && p.gross+p.carried+r.Minus != r.Takeout+r.Breakage+r.paid+r.CarriedOn && p.gross > 0 {
			t.Errorf("%s: does not add up: %+v", row.name, r)
		}
		if len(r.Dividends) != len(row.perUnit) {
			t.Errorf("%s: dividends %+v, want %v", row.name, r.Dividends, row.perUnit)
			continue
		}
		for i, d := range r.Dividends {
			got := d.PerUnit
			if row.rules.Payout == proto.PayoutExact {
				if got = r.shares[r.of[d.Outcome]].net; got != row.perUnit[i] {
					t.Errorf("%s: outcome %d divides %d, want %d", row.name, d.Outcome, got, row.perUnit[i])
				}
			} else if got != row.perUnit[i] {
				t.Errorf("%s: outcome %d pays %d, want %d", row.name, d.Outcome, got, row.perUnit[i])
			}
		}
	}
}

// bet is a stake of the twin.
type bet struct {
	player  int
	outcome proto.Outcome
	amount  proto.Amount
	late    bool
}

// endNaively is the twin of a pool's end: what each bet gets back, and what is left for the house, with big integers and nothing shared with
// reckon; and on is what the next pool gets, if there is an heir.
func endNaively(rules proto.Rules, takeoutBP uint16, carried proto.Amount, bets []bet, withdrawn uint64, winners []proto.Outcome, heir bool) (paid []proto.Amount, on proto.Amount) {
	paid = make([]proto.Amount, len(bets))
	by := map[proto.Outcome]int64{}
	var gross int64
	for i, b := range bets {
		if b.late || withdrawn>>b.outcome&1 != 0 {
			paid[i] = b.amount
			continue
		}
		by[b.outcome] += int64(b.amount)
		gross += int64(b.amount)
	}
	refund := func() {
		for i, b := range bets {
			paid[i] = b.amount
		}
		if heir {
			on = carried
		}
	}
	var backed []proto.Outcome
	var sum int64
	for o := proto.Outcome(0); o < proto.OutcomesMax; o++ {
		if slices.Contains(winners, o) && by[o] > 0 {
			backed = append(backed, o)
			sum += by[o]
		}
	}
	take := new(big.Int).Div(new(big.Int).Mul(big.NewInt(gross), big.NewInt(int64(takeoutBP))), big.NewInt(10000)).Int64()
	net := gross - take + int64(carried)
	switch {
	case rules.OneSidedRefund && carried == 0 && len(by) == 1:
		refund()
		return paid, on
	case len(backed) == 0 && heir:
		return paid, proto.Amount(net)
	case len(backed) == 0:
		refund()
		return paid, on
	}
	floor := func(a, b, c int64) int64 {
		return new(big.Int).Div(new(big.Int).Mul(big.NewInt(a), big.NewInt(b)), big.NewInt(c)).Int64()
	}
	pay := func(of func(proto.Outcome) bool, net, sum, most int64) {
		if rules.Payout == proto.PayoutDividend {
			step := max(int64(rules.Break), 1)
			unit := int64(rules.Unit)
			dividend := floor(net, unit, sum) / step * step
			want := int64(rules.DividendMin)
			if most > 0 {
				if can := floor(net+most, unit, sum); can < want {
					want = can / step * step
				}
			}
			dividend = max(dividend, want)
			for i, b := range bets {
				if !b.late && of(b.outcome) {
					paid[i] = b.amount / rules.Unit * proto.Amount(dividend)
				}
			}
			return
		}
		var stakes []proto.Amount
		var at []int
		for i, b := range bets {
			if !b.late && of(b.outcome) {
				stakes, at = append(stakes, b.amount), append(at, i)
			}
		}
		for k, payout := range splitNaively(proto.Amount(net), stakes) {
			paid[at[k]] = payout
		}
	}
	profit := net - sum
	if profit < 0 || len(backed) == 1 {
		pay(func(o proto.Outcome) bool { return slices.Contains(backed, o) }, net, sum, int64(rules.MinusMax))
		return paid, 0
	}
	n := int64(len(backed))
	for k, winner := range backed {
		part := profit / n
		if int64(k) < profit%n {
			part++
		}
		most := int64(rules.MinusMax) / n
		if rules.MinusMax > 0 {
			most = max(most, 1)
		}
		pay(func(o proto.Outcome) bool { return o == winner }, by[winner]+part, by[winner], most)
	}
	return paid, 0
}

// someRules are rules that fit.
func someRules(r *rand.Rand) (rules proto.Rules) {
	if r.IntN(2) == 0 {
		rules = proto.Rules{Payout: proto.PayoutDividend, Unit: proto.Amount(1 + r.IntN(20))}
		rules.Break = proto.Amount(r.IntN(int(rules.Unit) + 1))
		if r.IntN(2) == 0 {
			rules.DividendMin = rules.Unit + proto.Amount(r.IntN(int(rules.Unit)+1))
			rules.MinusMax = proto.Amount(r.IntN(3) * r.IntN(400))
		}
	}
	rules.NoWinner = proto.NoWinnerRule(r.IntN(2))
	rules.OneSidedRefund = r.IntN(3) == 0
	if r.IntN(4) == 0 {
		rules.AccountMax = proto.Amount(100 + r.IntN(300))
	}
	return rules
}

// A pool's whole life by random rules, from the outside: everybody ends with what the twin says, no stake is paid twice, and every stake ends.
func FuzzPoolsLife(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint8(seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, shards uint8) {
		r := rand.New(rand.NewPCG(seed, 2))
		tb := newTable(t, 1+int(shards%4))
		const players, credits = 6, 5000
		var accounts [players]proto.AccountID
		for i := range accounts {
			accounts[i] = tb.player(i, credits)
		}
		g := tb.game()
		want := [players]proto.Amount{}
		for i := range want {
			want[i] = credits
		}
		carried := proto.Amount(0)
		request := proto.RequestID(1)
		const rounds = 4 // of a pool each; the next one is its heir
		var openings [rounds]proto.PoolOpening
		var pools [rounds]proto.PoolID
		for i := range rounds {
			openings[i] = proto.PoolOpening{Labels: []string{"a", "b", "c", "d"}[:2+r.IntN(3)], Takeout: uint16(r.IntN(5001)), Rules: someRules(r)}
			pools[i] = tb.pool(g, openings[i])
		}
		for round := range rounds {
			opening, p := openings[round], pools[round]
			heir := round+1 < rounds && opening.NoWinner == proto.NoWinnerCarry
			staked := [players]proto.Amount{}
			var bets []bet
			var withdrawn uint64
			n := r.IntN(25)
			lockAt := tb.now
			for k := range n {
				i, o, amount := r.IntN(players), r.IntN(len(opening.Labels)), proto.Amount(1+r.IntN(200))
				stake := tb.stakeOf(i, accounts[i], request, p, proto.Outcome(o), amount)
				request++
				got := tb.verdict(stake)
				fits := (opening.Unit == 0 || amount%opening.Unit == 0) && (opening.AccountMax == 0 || staked[i]+amount <= opening.AccountMax) && withdrawn>>o&1 == 0
				if want[i] < amount {
					fits = false
				}
				if fits != (got == proto.Accepted) {
					t.Fatalf("a stake of %d by rules %+v: %q", amount, opening.Rules, got.Code())
				}
				if fits {
					staked[i] += amount
					want[i] -= amount
					bets = append(bets, bet{i, proto.Outcome(o), amount, tb.now > lockAt && k > n/2})
				}
				if r.IntN(12) == 0 && len(opening.Labels)-popcount(withdrawn) > 2 {
					o := r.IntN(len(opening.Labels))
					if tb.verdict(Command{Kind: WithdrawOutcome, From: desk, Pool: p, Args: &proto.OutcomeWithdrawal{Outcome: proto.Outcome(o)}}) == proto.Accepted {
						withdrawn |= 1 << o
						for b := range bets {
							if bets[b].outcome == proto.Outcome(o) {
								staked[bets[b].player] -= bets[b].amount
								want[bets[b].player] += bets[b].amount // may be staked again
								bets[b].amount = 0
							}
						}
					}
				}
				if k <= n/2 {
					lockAt = tb.now
				}
				tb.now += proto.Time(r.IntN(2)) * proto.Second
			}
			tb.answer(Command{Kind: LockPool, Pool: p, Args: &proto.Locking{At: lockAt}})
			bets = slices.DeleteFunc(bets, func(b bet) bool { return b.amount == 0 })
			var winners []proto.Outcome
			for o := range opening.Labels {
				if withdrawn>>o&1 == 0 && (r.IntN(3) == 0 || len(winners) == 0 && o == len(opening.Labels)-1) {
					winners = append(winners, proto.Outcome(o))
				}
			}
			var paid []proto.Amount
			if len(winners) == 0 || r.IntN(8) == 0 {
				tb.answer(Command{Kind: VoidPool, Pool: p, Args: &proto.Voiding{Reason: "chance"}})
				for _, b := range bets {
					paid = append(paid, b.amount)
				}
				if !heir {
					carried = 0
				}
			} else {
				tb.answer(Command{Kind: SettlePool, Pool: p, Args: &proto.Settlement{Winners: winners}})
				paid, carried = endNaively(opening.Rules, opening.Takeout, carried, bets, withdrawn, winners, heir)
			}
			for k, b := range bets {
				want[b.player] += paid[k]
			}
			for i, a := range accounts {
				if got := tb.balance(i, a); got != want[i] {
					t.Fatalf("round %d: player %d has %d, the twin says %d; rules %+v, takeout %d, winners %v, withdrawn %b, bets %v", round, i, got, want[i],
						opening.Rules, opening.Takeout, winners, withdrawn, bets)
				}
			}
		}
	})
}

func popcount(mask uint64) (n int) {
	for ; mask != 0; mask &= mask - 1 {
		n++
	}
	return n
}
