package market

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"tote/server/market/dpm"
	"tote/server/proto"
)

// seeded is a dynamic pool of two outcomes with so much money on each, and a share for each unit.
func seeded(variant string, money proto.Amount) proto.PoolOpening {
	return proto.PoolOpening{Kind: proto.KindDynamic, Variant: variant, Labels: []string{"yes", "no"}, Seeds: []proto.Seed{{Money: money}, {Money: money}}}
}

func randomDynamic(r *rand.Rand) proto.PoolOpening {
	variant := []string{"", "share_ratio", "share_ratio", "money_ratio", "losers_payoff", "losers_money"}[r.IntN(6)]
	o := seeded(variant, proto.Amount(1+r.IntN(1<<r.IntN(12))))
	for i := range o.Seeds {
		o.Seeds[i].Shares = proto.Shares(r.IntN(1 << r.IntN(28)))
	}
	o.Takeout = uint16(r.IntN(3000) * r.IntN(2))
	return o
}

// sold carries out a sale and returns its receipt.
func (tb *table) sold(n int, a proto.AccountID, id proto.RequestID, p proto.PoolID, o proto.Outcome, shares proto.Shares) *proto.Sold {
	tb.t.Helper()
	return only[*proto.Sold](tb.t, tb.do(tb.saleOf(n, a, id, p, o, shares)))
}

func (tb *table) show(p proto.PoolID) proto.Pool {
	tb.t.Helper()
	pools := only[*proto.Pools](tb.t, tb.do(Command{Kind: ShowPools, From: session(1), ID: 1, Game: p.Game()})).Pools
	return pools[uint64(p)%(proto.PoolsMax+1)-1]
}

func payoutTo(outs []Out, to Session) (payouts []proto.Amount) {
	for _, o := range outs {
		if m, ok := o.Message.(*proto.Payout); ok && o.To == to {
			payouts = append(payouts, m.Payout)
		}
	}
	return payouts
}

// The golden row: the same stake earns 15.41 before another's 100, and 12.48 after it. The house gets its seeds' part.
func TestEarlyMoneyEarnsMore(t *testing.T) {
	for _, shards := range []int{1, 3} {
		tb := newTable(t, shards)
		ada, bob, eve := tb.player(1, 10_000_000), tb.player(2, 10_000_000), tb.player(3, 10_000_000)
		p := tb.pool(tb.game(), seeded("", 1_000_000))
		early := tb.accept(1, ada, 1, p, 0, 100_000)
		tb.accept(2, bob, 1, p, 0, 1_000_000)
		late := tb.accept(3, eve, 1, p, 0, 100_000)
		if early.Shares <= late.Shares || early.Shares > 100_000*dpm.Share || early.Arrived != tb.now {
			t.Errorf("receipts %+v and %+v", early, late)
		}
		if r := tb.replay(); r.house != -2_000_000 {
			t.Errorf("the house has %d after seeding a pool, want −2000000", r.house)
		}
		tb.lock(p)
		outs := tb.settlePool(p, 0)
		settled := only[*proto.Settled](t, outs)
		first, second, third := payoutTo(outs, session(1)), payoutTo(outs, session(2)), payoutTo(outs, session(3))
		if len(first) != 1 || (first[0]+50)/100 != 1541 || len(third) != 1 || (third[0]+50)/100 != 1248 {
			t.Errorf("%d shards: early money was paid %d, late money %d, want 154100 and 124800, nearly", shards, first, third)
		}
		paid := first[0] + second[0] + third[0]
		perShare := proto.Millionths(3_200_000 * int64(dpm.Share*dpm.Share) / int64(1_000_000*dpm.Share+early.Shares+late.Shares+tb.bought(2, bob)))
		if settled.Gross != 3_200_000 || settled.Paid != paid || settled.Takeout != 0 || settled.Refunded || len(settled.Dividends) != 1 ||
			settled.Dividends[0].PerShare-perShare > 1 || perShare-settled.Dividends[0].PerShare > 1 {
			t.Errorf("settled %+v, want %d a share", settled, perShare)
		}
		if r := tb.replay(); r.house != 1_200_000-paid {
			t.Errorf("the house has %d, want %d", r.house, 1_200_000-paid)
		}
	}
}

// bought is the shares of a player's only prediction.
func (tb *table) bought(n int, a proto.AccountID) proto.Shares {
	tb.t.Helper()
	return only[*proto.Predictions](tb.t, tb.do(Command{Kind: ShowPredictions, From: session(n), ID: 1, Account: a})).Predictions[0].Shares
}

// Shares are sold oldest first, once, and repeated requests get the first answer, after a restart too.
func TestSharesAreSold(t *testing.T) {
	for _, shards := range []int{1, 3} {
		tb := newTable(t, shards)
		ada, bob := tb.player(1, 10_000), tb.player(2, 10_000)
		p := tb.pool(tb.game(), seeded("share_ratio", 1000))
		one := tb.accept(1, ada, 1, p, 0, 500)
		two := tb.accept(1, ada, 2, p, 0, 500)
		tb.accept(2, bob, 1, p, 0, 2000)
		if on := tb.show(p); on.Kind != "dpm" || on.Variant != "share_ratio" || on.Odds[0].Staked != 3000 || on.Odds[0].Backers != 2 ||
			on.Odds[0].Price <= on.Odds[1].Price || on.Odds[0].Probability+on.Odds[1].Probability != 1_000_000 {
			t.Errorf("the pool shows %+v", on)
		}

		sale := tb.saleOf(1, ada, 3, p, 0, one.Shares+two.Shares/2)
		var first []*proto.Sold
		for range 2 {
			first = append(first, only[*proto.Sold](t, tb.do(sale)))
			first[len(first)-1].Since = 0
		}
		if *first[0] != (proto.Sold{ID: 3, T: tb.now, N: first[0].N, Sale: first[0].Sale, Pool: p, Shares: sale.Shares, Amount: first[0].Amount,
			Balance: 9000 + first[0].Amount, Arrived: tb.now, Durability: "always"}) || first[0].Amount < 750 {
			t.Errorf("sold %+v", first[0])
		}
		if first[0].N++; *first[0] != *first[1] {
			t.Errorf("%+v, then %+v", first[0], first[1])
		}
		other := sale
		other.Shares++
		if got := tb.verdict(other); got != proto.RefusedRequestReused {
			t.Errorf("another sale under the same id: %q", got.Code())
		}
		if got := tb.verdict(tb.stakeOf(1, ada, 3, p, 0, 500)); got != proto.RefusedRequestReused {
			t.Errorf("a stake under a sale's id: %q", got.Code())
		}
		reused := sale
		reused.ID = 1
		if got := tb.verdict(reused); got != proto.RefusedRequestReused {
			t.Errorf("a sale under a stake's id: %q", got.Code())
		}

		list := only[*proto.Predictions](t, tb.do(Command{Kind: ShowPredictions, From: session(1), ID: 1, Account: ada})).Predictions
		left := two.Shares - two.Shares/2
		if list[0].State != proto.PredictionSold || list[0].Shares != 0 || list[1].State != proto.PredictionOpen || list[1].Shares != left ||
			list[0].Payout+list[1].Payout != first[0].Amount {
			t.Errorf("predictions %+v", list)
		}
		account := only[*proto.Account](t, tb.do(Command{Kind: ShowAccount, From: session(1), ID: 1, Account: ada}))
		if account.Staked != 250 && account.Staked != 249 {
			t.Errorf("staked %d after half of the second 500 is sold", account.Staked)
		}
		if again := tb.accept(1, ada, 1, p, 0, 500); again.Shares != one.Shares || again.Prediction != one.Prediction {
			t.Errorf("the first stake again: %+v, before %+v", again, one)
		}

		// Two sales of the same shares at once: the second finds them gone.
		a, b := tb.saleOf(1, ada, 4, p, 0, left), tb.saleOf(1, ada, 5, p, 0, left)
		outs := tb.do(a, b)
		if sales := all[*proto.Sold](outs); len(sales) != 1 || sales[0].ID != 4 {
			t.Errorf("%d shards: two sales of the same shares gave %+v", shards, sales)
		}
		if got := tb.verdict(b); got != proto.RefusedSharesShort {
			t.Errorf("what was sold already: %q", got.Code())
		}
		if on := tb.show(p).Odds[0]; on.Backers != 1 || on.Staked != 2000 {
			t.Errorf("after all of ada's shares are sold: %+v", on)
		}
		if got := tb.verdict(tb.saleOf(1, ada, 6, p, 0, 1)); got != proto.RefusedSharesShort {
			t.Errorf("a sale of nothing that she has: %q", got.Code())
		}
		tb.accept(1, ada, 7, p, 0, 5)
		if on := tb.show(p).Odds[0]; on.Backers != 2 {
			t.Errorf("she is back: %+v", on)
		}

		after := reopen(t, 2, tb.replay(), tb.journal.records)
		after.do(Command{Kind: Attach, From: session(1), ID: 1, Account: ada})
		if again := only[*proto.Sold](t, after.do(sale)); again.Sale != first[0].Sale || again.Amount != first[0].Amount || again.Shares != sale.Shares {
			t.Errorf("the sale again, after a restart: %+v, before %+v", again, first[0])
		}
		if again := after.accept(1, ada, 2, p, 0, 500); again.Shares != two.Shares {
			t.Errorf("the second stake again, after a restart: %+v, before %+v", again, two)
		}
		tb.lock(p)
		if got := tb.verdict(tb.saleOf(2, bob, 9, p, 0, 1)); got != proto.RefusedPoolLocked {
			t.Errorf("a sale after the lock: %q", got.Code())
		}
		tb.settlePool(p, 0)
	}
}

// A trader who buys and sells, and buys and sells again, has not one unit more.
func TestTradingPumpsNothing(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 100_000)
	p := tb.pool(tb.game(), seeded("", 37))
	r := rand.New(rand.NewPCG(1, 2))
	request := proto.RequestID(10)
	for range 30 {
		var held [2]proto.Shares
		for range 3 {
			o := proto.Outcome(r.IntN(2))
			request++
			held[o] += tb.accept(1, ada, request, p, o, proto.Amount(1+r.IntN(200))).Shares
		}
		for o := range held {
			for held[o] > 0 {
				n := min(held[o], proto.Shares(1+r.Int64N(100*int64(dpm.Share))))
				request++
				switch got := tb.verdict(tb.saleOf(1, ada, request, p, proto.Outcome(o), n)); got {
				case proto.Accepted:
					held[o] -= n
				case proto.RefusedTradeSmall: // it would bring nothing
					n = held[o]
					request++
					if tb.verdict(tb.saleOf(1, ada, request, p, proto.Outcome(o), n)) != proto.Accepted {
						held[o] = 0
					} else {
						held[o] -= n
					}
				default:
					t.Fatalf("a sale of %d: %s", n, got.Code())
				}
			}
		}
	}
	if got := tb.balance(1, ada); got > 100_000 {
		t.Errorf("the trader has %d, began with 100000", got)
	}
}

// A request states the least that it agrees to; a quote says beforehand what it will come to.
func TestQuotesAndLimits(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 10_000)
	g := tb.game()
	dynamic := tb.pool(g, seeded("", 1000))
	plain := tb.pool(g, proto.PoolOpening{Labels: []string{"yes", "no"}, Takeout: 1000})
	tb.accept(1, ada, 1, plain, 1, 100)
	quote := func(p proto.PoolID, amount proto.Amount, shares proto.Shares) *proto.Quote {
		t.Helper()
		return only[*proto.Quote](t, tb.do(Command{Kind: Quote, From: session(1), Account: ada, ID: 9, Pool: p, Amount: amount, Shares: shares, Arrived: tb.now}))
	}
	limited := func(c Command, limit int64) Command {
		c.Limit = limit
		return c
	}

	records := len(tb.journal.records)
	q := quote(plain, 50, 0)
	if q.Multiplier != 2700 || q.Payout != 135 || q.Shares != 0 || q.Price != 0 || q.Counts != proto.Seq(records) {
		t.Errorf("a quote in a parimutuel pool: %+v", q)
	}
	if len(tb.journal.records) != records {
		t.Error("a quote is journaled")
	}
	if got := tb.verdict(limited(tb.stakeOf(1, ada, 2, plain, 0, 50), 2701)); got != proto.RefusedLimitMissed {
		t.Errorf("a multiplier of 2.700 where 2.701 is wanted: %q", got.Code())
	}
	if got := tb.verdict(limited(tb.stakeOf(1, ada, 3, plain, 0, 50), 2700)); got != proto.Accepted {
		t.Errorf("a multiplier of 2.700 where 2.700 is wanted: %q", got.Code())
	}

	q = quote(dynamic, 50, 0)
	if got := tb.verdict(limited(tb.stakeOf(1, ada, 4, dynamic, 0, 50), int64(q.Shares)+1)); got != proto.RefusedLimitMissed {
		t.Errorf("more shares than are quoted: %q", got.Code())
	}
	c := limited(tb.stakeOf(1, ada, 5, dynamic, 0, 50), int64(q.Shares))
	if got := receiptsTo(tb.do(c), session(1)); len(got) != 1 || got[0].Shares != q.Shares {
		t.Errorf("quoted %+v, got %+v", q, got)
	}
	if on := tb.show(dynamic).Odds[0]; on.Price != q.Price || on.Probability != q.Probability || on.Multiplier != q.Multiplier {
		t.Errorf("quoted %+v, the odds are %+v", q, on)
	}
	back := quote(dynamic, 0, q.Shares)
	if back.Amount > 50 || back.Amount < 48 || back.Payout != 0 || back.Price >= q.Price {
		t.Errorf("a quote of selling it all again: %+v", back)
	}
	if got := tb.verdict(limited(tb.saleOf(1, ada, 6, dynamic, 0, q.Shares), int64(back.Amount)+1)); got != proto.RefusedLimitMissed {
		t.Errorf("a sale for more than is quoted: %q", got.Code())
	}
	sale := limited(tb.saleOf(1, ada, 7, dynamic, 0, q.Shares), int64(back.Amount))
	if sold := only[*proto.Sold](t, tb.do(sale)); sold.Amount != back.Amount {
		t.Errorf("quoted %+v, sold %+v", back, sold)
	}

	for _, row := range []struct {
		name string
		c    Command
		want proto.Refusal
	}{
		{"nothing", Command{Pool: dynamic}, proto.RefusedSharesInvalid},
		{"an amount below zero", Command{Pool: dynamic, Amount: -1}, proto.RefusedAmountInvalid},
		{"a sale in a parimutuel pool", Command{Pool: plain, Shares: 1}, proto.RefusedPoolUnsold},
		{"no such outcome", Command{Pool: dynamic, Outcome: 2, Amount: 1}, proto.RefusedOutcomeUnknown},
		{"the house's shares", Command{Pool: dynamic, Shares: 1}, proto.RefusedSharesShort},
		{"no such pool", Command{Pool: dynamic + 9, Amount: 1}, proto.RefusedPoolUnknown},
	} {
		row.c.Kind, row.c.From, row.c.ID, row.c.Arrived, row.c.Account = Quote, session(1), 9, tb.now, ada
		if got := tb.verdict(row.c); got != row.want {
			t.Errorf("a quote of %s: %q, want %q", row.name, got.Code(), row.want.Code())
		}
	}
}

// Only the share ratio buys back, and too little is refused.
func TestTradesRefused(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 10_000)
	g := tb.game()
	for i, variant := range []string{"money_ratio", "losers_payoff", "losers_money"} {
		p := tb.pool(g, seeded(variant, 1000))
		bought := tb.accept(1, ada, proto.RequestID(10+i), p, 1, 100)
		if got := tb.verdict(tb.saleOf(1, ada, proto.RequestID(20+i), p, 1, bought.Shares)); got != proto.RefusedPoolUnsold {
			t.Errorf("a sale in a pool of %s: %q", variant, got.Code())
		}
		if on := tb.show(p).Odds[1]; on.Price == 0 || on.Probability == 0 || on.Multiplier == 0 {
			t.Errorf("%s shows %+v", variant, on)
		}
		tb.lock(p)
		outs := tb.settlePool(p, 1)
		if paid := payoutTo(outs, session(1)); len(paid) != 1 || paid[0] <= 100 {
			t.Errorf("%s paid %d for 100 on the winner", variant, paid)
		}
	}
	dear := seeded("", 1)
	dear.Seeds = []proto.Seed{{Money: 1_000_000, Shares: 1}, {Money: 1_000_000, Shares: 1}}
	p := tb.pool(g, dear)
	if got := tb.verdict(tb.stakeOf(1, ada, 30, p, 0, 1)); got != proto.RefusedTradeSmall {
		t.Errorf("a stake that buys nothing: %q", got.Code())
	}
	cheap := seeded("", 1)
	cheap.Seeds = []proto.Seed{{Money: 1, Shares: proto.SharesMax / 2}, {Money: 1, Shares: proto.SharesMax / 2}}
	p = tb.pool(g, cheap)
	if got := tb.verdict(tb.stakeOf(1, ada, 31, p, 0, 5000)); got != proto.RefusedPoolFull {
		t.Errorf("a stake that buys more shares than there are: %q", got.Code())
	}
	tb.accept(1, ada, 32, p, 0, 1)
	if got := tb.verdict(tb.saleOf(1, ada, 33, p, 0, 1)); got != proto.RefusedTradeSmall {
		t.Errorf("a sale that brings nothing: %q", got.Code())
	}
	if got := tb.verdict(Command{Kind: WithdrawOutcome, From: desk, Pool: p, Args: &proto.OutcomeWithdrawal{Outcome: 1}}); got != proto.RefusedPoolDynamic {
		t.Errorf("an outcome withdrawn: %q", got.Code())
	}
	for name, rules := range map[string]proto.Rules{
		"dividends": {Payout: proto.PayoutDividend, Unit: 100},
		"carrying":  {NoWinner: proto.NoWinnerCarry},
		"one side":  {OneSidedRefund: true},
	} {
		o := seeded("", 10)
		o.Question, o.Rules = "?", rules
		if got := tb.verdict(Command{Kind: OpenPool, From: desk, Game: g, Args: &o}); got != proto.RefusedPoolDynamic {
			t.Errorf("a dynamic pool with %s: %q", name, got.Code())
		}
	}
	for name, o := range map[string]proto.PoolOpening{
		"a kind that is none":         {Kind: "lmsr"},
		"seeds in a parimutuel pool":  {Seeds: []proto.Seed{{Money: 1}, {Money: 1}}},
		"a variant without its kind":  {Variant: "share_ratio"},
		"no seeds":                    {Kind: "dpm"},
		"a seed too few":              {Kind: "dpm", Seeds: []proto.Seed{{Money: 1}}},
		"a seed of nothing":           {Kind: "dpm", Seeds: []proto.Seed{{Money: 1}, {Shares: 1}}},
		"a variant that is none":      {Kind: "dpm", Variant: "x", Seeds: []proto.Seed{{Money: 1}, {Money: 1}}},
		"three where two must be":     {Kind: "dpm", Variant: "losers_payoff", Labels: []string{"a", "b", "c"}, Seeds: []proto.Seed{{Money: 1}, {Money: 1}, {Money: 1}}},
		"more money than there is":    {Kind: "dpm", Seeds: []proto.Seed{{Money: proto.AmountMax, Shares: 1}, {Money: 1}}},
		"money that is no share":      {Kind: "dpm", Seeds: []proto.Seed{{Money: proto.AmountMax / 2}, {Money: 1}}},
		"more shares than there are":  {Kind: "dpm", Seeds: []proto.Seed{{Money: 1, Shares: proto.SharesMax + 1}, {Money: 1}}},
		"shares below zero":           {Kind: "dpm", Seeds: []proto.Seed{{Money: 1, Shares: -1}, {Money: 1}}},
		"money below zero":            {Kind: "dpm", Seeds: []proto.Seed{{Money: -1, Shares: 1}, {Money: 1}}},
		"money that would wrap round": {Kind: "dpm", Seeds: []proto.Seed{{Money: math.MaxInt64, Shares: 1}, {Money: 1}}},
	} {
		if o.Question = "?"; o.Labels == nil {
			o.Labels = []string{"yes", "no"}
		}
		if got := tb.verdict(Command{Kind: OpenPool, From: desk, Game: g, Args: &o}); got != proto.RefusedSeeds {
			t.Errorf("%s: %q", name, got.Code())
		}
	}
}

// A void pool gives back what the shares cost; where a seller has left less than that, what there is in proportion.
func TestVoidDynamicPool(t *testing.T) {
	tb := newTable(t, 2)
	ada, bob, eve := tb.player(1, 100_000), tb.player(2, 100_000), tb.player(3, 100_000)
	g := tb.game()
	solvent, short := tb.pool(g, seeded("", 1000)), tb.pool(g, seeded("", 100))
	void := func(p proto.PoolID) {
		tb.answer(Command{Kind: VoidPool, Pool: p, Args: &proto.Voiding{Reason: "rain"}})
	}

	tb.accept(1, ada, 1, solvent, 0, 500)
	shares := tb.accept(2, bob, 1, solvent, 1, 700).Shares
	bobSold := tb.sold(2, bob, 2, solvent, 1, shares/2).Amount
	void(solvent)
	if got := tb.balance(1, ada); got != 100_000 {
		t.Errorf("ada has %d after the void pool, want her 500 back", got)
	}
	if got := tb.balance(2, bob); got != 100_000-700+bobSold+350 {
		t.Errorf("bob has %d, want what his sale brought and the 350 of the other half", got)
	}

	tb.accept(3, eve, 3, short, 1, 10_000)
	shares = tb.accept(1, ada, 3, short, 0, 1000).Shares
	tb.accept(2, bob, 3, short, 0, 50_000)
	sold := tb.sold(1, ada, 4, short, 0, shares).Amount
	left := 200 + 61_000 - sold
	if left >= 60_000 {
		t.Fatalf("ada's sale for %d leaves %d: not the case that this tests", sold, left)
	}
	void(short)
	refunds := all[*proto.Refund](tb.said)
	if len(refunds) != 2 || refunds[0].Amount+refunds[1].Amount != left {
		t.Fatalf("refunds %+v, want all of the %d that is left", refunds, left)
	}
	more, less := max(refunds[0].Amount, refunds[1].Amount), min(refunds[0].Amount, refunds[1].Amount)
	if more/5 != less && more/5 != less-1 {
		t.Errorf("refunds of %d and %d, want 5 to 1", more, less)
	}
	if r := tb.replay(); r.house != -200+350-bobSold {
		t.Errorf("the house has %d, want %d: the seeds of one pool, and what bob gained in the other", r.house, -200+350-bobSold)
	}
}

// A lock that lies in the past takes purchases back that arrived after it, at no loss of the pool's; what was sold stays sold.
func TestLatePurchasesAreTakenBack(t *testing.T) {
	for _, variant := range []string{"share_ratio", "losers_money"} {
		tb := newTable(t, 2)
		ada, bob := tb.player(1, 10_000), tb.player(2, 10_000)
		p := tb.pool(tb.game(), seeded(variant, 1000))
		tb.accept(1, ada, 1, p, 0, 500)
		before := tb.show(p).Odds
		tb.after(proto.Second)
		at := tb.now
		tb.after(proto.Second)
		tb.accept(2, bob, 2, p, 1, 700)
		tb.accept(1, ada, 3, p, 1, 300)
		tb.answer(Command{Kind: LockPool, Pool: p, Args: &proto.Locking{At: at}})
		refunds := all[*proto.Refund](tb.said)
		if len(refunds) != 2 || refunds[0].Reason != proto.RefundLate {
			t.Fatalf("%s: refunds %+v", variant, refunds)
		}
		var back proto.Amount
		for _, r := range refunds {
			back += r.Amount
		}
		if back < 999 || back > 1000 || variant != "share_ratio" && back != 1000 {
			t.Errorf("%s: %d of 1000 are returned", variant, back)
		}
		for i, odd := range tb.show(p).Odds {
			if odd.Staked != before[i].Staked || odd.Backers != before[i].Backers || max(odd.Price-before[i].Price, before[i].Price-odd.Price) > 1000 {
				t.Errorf("%s: outcome %d shows %+v, before the late stakes %+v", variant, i, odd, before[i])
			}
		}
		tb.settlePool(p, 1) // the house alone has shares of it
		if got := tb.balance(1, ada) + tb.balance(2, bob); got != 20_000-1500+back {
			t.Errorf("%s: both have %d, want %d", variant, got, 20_000-1500+back)
		}
	}

	// With a sale in between the late shares are worth less than they cost, and the pool pays no more than that.
	tb := newTable(t, 1)
	ada, bob := tb.player(1, 100_000), tb.player(2, 100_000)
	p := tb.pool(tb.game(), seeded("", 10))
	shares := tb.accept(1, ada, 1, p, 0, 1000).Shares
	at := tb.now
	tb.after(proto.Second)
	tb.accept(2, bob, 1, p, 0, 50_000)
	gained := tb.sold(1, ada, 2, p, 0, shares).Amount - 1000
	tb.answer(Command{Kind: LockPool, Pool: p, Args: &proto.Locking{At: at}})
	if back := only[*proto.Refund](t, tb.said).Amount; gained <= 0 || back > 50_000 || back+gained > 50_020 {
		t.Errorf("ada gained %d, bob gets %d of 50000 back", gained, back)
	}
	tb.settlePool(p, 1)
}

// Two winners of a dynamic pool divide the net pool evenly, each among its shares.
func TestDynamicDeadHeat(t *testing.T) {
	tb := newTable(t, 2)
	ada, bob := tb.player(1, 10_000), tb.player(2, 10_000)
	o := seeded("", 1000)
	o.Labels, o.Seeds, o.Takeout = append(o.Labels, "neither"), append(o.Seeds, proto.Seed{Money: 1000}), 1000
	p := tb.pool(tb.game(), o)
	one := tb.accept(1, ada, 1, p, 0, 1000).Shares
	two := tb.accept(2, bob, 1, p, 1, 3000).Shares
	tb.lock(p)
	tb.answer(Command{Kind: SettlePool, Pool: p, Args: &proto.Settlement{Winners: []proto.Outcome{1, 0}}})
	settled := only[*proto.Settled](t, tb.said)
	prize := (proto.Amount(7000) - 700) / 2
	want := []proto.Amount{portion(prize, one, 1000*dpm.Share+one), portion(prize, two, 1000*dpm.Share+two)}
	if first, second := payoutTo(tb.said, session(1)), payoutTo(tb.said, session(2)); len(first) != 1 || first[0] != want[0] || len(second) != 1 || second[0] != want[1] {
		t.Errorf("paid %d and %d, want %d", first, second, want)
	}
	if settled.Takeout != 700 || settled.Paid != want[0]+want[1] || settled.Breakage != 6300-settled.Paid || len(settled.Dividends) != 2 ||
		settled.Dividends[0].PerShare >= settled.Dividends[1].PerShare {
		t.Errorf("settled %+v", settled)
	}
}

// A template opens dynamic pools: each outcome has its seed, one of the shortlist the seed of all.
func TestTemplatesOpenDynamicPools(t *testing.T) {
	tb := newTable(t, 2)
	template := proto.Template{Name: "scorer", Question: "Who scores first?", Opens: "event.kind == 'kickoff'", Kind: proto.KindDynamic, Variant: "money_ratio",
		Outcomes: []proto.TemplateOutcome{
			{Label: "{player}", Each: "shortlist", Wins: "event.kind == 'goal' && event.player == player", Seed: &proto.Seed{Money: 100}},
			{Label: "nobody", Wins: "event.kind == 'end'", Seed: &proto.Seed{Money: 300, Shares: 200 * dpm.Share}},
		}}
	ada := tb.player(1, 1000)
	g := tb.game(template)
	p := tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "kickoff"}}).Opened[0]
	if shown := tb.show(p); shown.Kind != "dpm" || shown.Variant != "money_ratio" || len(shown.Odds) != 3 || shown.Odds[0].Price != shown.Odds[1].Price {
		t.Errorf("opened %+v", shown)
	}
	tb.accept(1, ada, 1, p, 1, 100)
	tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "goal", Player: "Kylian Mbappé"}})
	if paid := payoutTo(tb.said, session(1)); len(paid) != 1 || paid[0] <= 100 {
		t.Errorf("paid %d for 100 on the scorer", paid)
	}

	for name, change := range map[string]func(*proto.Template){
		"a seed too few":        func(t *proto.Template) { t.Outcomes[1].Seed = nil },
		"seeds without a kind":  func(t *proto.Template) { t.Kind = "" },
		"a kind that is none":   func(t *proto.Template) { t.Kind = "lmsr" },
		"a dividend":            func(t *proto.Template) { t.Payout, t.Unit = proto.PayoutDividend, 100 },
		"two outcomes of three": func(t *proto.Template) { t.Variant = "losers_money" },
	} {
		wrong := template
		wrong.Outcomes = slices.Clone(template.Outcomes)
		change(&wrong)
		opening := &proto.GameOpening{Name: "bad", Shortlist: []string{"A", "B"}, Templates: []proto.Template{wrong}}
		if got := tb.verdict(Command{Kind: OpenGame, From: desk, Game: tb.m.NextGame(), Args: opening}); got != proto.RefusedTemplate {
			t.Errorf("a template with %s: %q", name, got.Code())
		}
	}
}

// What friends see of a dynamic pool is what is left.
func TestFriendsInADynamicPool(t *testing.T) {
	tb := newTable(t, 2)
	ada, bob := tb.player(1, 10_000), tb.player(2, 10_000)
	p := tb.pool(tb.game(), seeded("", 1000))
	tb.do(Command{Kind: Follow, From: session(2), ID: 5, Account: bob, Other: ada})
	shares := tb.accept(1, ada, 1, p, 0, 500).Shares
	tb.sold(1, ada, 2, p, 0, shares/2)
	friends := only[*proto.Friends](t, tb.do(Command{Kind: ShowFriends, From: session(2), ID: 6, Account: bob, Pool: p})).Predictions
	if len(friends) != 1 || friends[0].Shares != shares-shares/2 || friends[0].Amount != 250 && friends[0].Amount != 249 {
		t.Errorf("friends' predictions %+v, half of %d shares are left", friends, shares)
	}
}

// A player's sales and their holdings are forgotten after so many, and not before.
func TestSalesAreRemembered(t *testing.T) {
	tb := newTable(t, 1)
	ada := tb.player(1, 100_000)
	p := tb.pool(tb.game(), seeded("", 1000))
	var first *proto.Sold
	for i := range proto.RequestID(closedMax + 3) {
		shares := tb.accept(1, ada, 100+i, p, 0, 100).Shares
		sold := tb.sold(1, ada, 200+i, p, 0, shares)
		if i == 3 {
			first = sold
		}
	}
	again := only[*proto.Sold](t, tb.do(tb.saleOf(1, ada, 203, p, 0, first.Shares)))
	if again.Sale != first.Sale || again.Amount != first.Amount {
		t.Errorf("the oldest sale that is remembered: %+v, before %+v", again, first)
	}
	a := tb.m.shardOfAccount(ada).accounts[ada]
	if len(a.trades.sales) != salesMax || len(a.trades.holdings) != closedMax {
		t.Errorf("%d sales and %d holdings are kept, want %d and %d", len(a.trades.sales), len(a.trades.holdings), salesMax, closedMax)
	}
}

// Broken records of trades do not apply.
func TestBrokenTrades(t *testing.T) {
	tb := newTable(t, 1)
	ada := tb.player(1, 1000)
	g := tb.game()
	plain, p := tb.pool(g, proto.PoolOpening{}), tb.pool(g, seeded("", 1000))
	shares := tb.accept(1, ada, 1, p, 0, 100).Shares
	next := uint64(len(tb.journal.records)) + 1
	for name, r := range map[string]record{
		"shares of a parimutuel pool":   {kind: recordBought, pool: plain, amount: 1, shares: 1},
		"a stake in a dynamic pool":     {kind: recordStaked, pool: p, amount: 1},
		"a purchase of nothing":         {kind: recordBought, pool: p, amount: 1},
		"more than she can pay":         {kind: recordBought, pool: p, amount: 901, shares: 1},
		"a sale of more than she has":   {kind: recordSold, pool: p, amount: 1, shares: shares + 1},
		"a sale of another outcome":     {kind: recordSold, pool: p, outcome: 1, amount: 1, shares: 1},
		"a sale of nothing":             {kind: recordSold, pool: p, amount: 1},
		"a sale for more than there is": {kind: recordSold, pool: p, amount: 2101, shares: 1},
	} {
		r.id = uint64(ada)
		if err := tb.replay().Apply(next, r.append(nil)[4:]); err == nil {
			t.Errorf("%s applies", name)
		}
	}
	sound := (&record{kind: recordSold, id: uint64(ada), pool: p, amount: 1, shares: 1}).append(nil)[4:]
	if err := tb.replay().Apply(next, sound); err != nil {
		t.Error(err)
	}
	if err := tb.replay().Apply(next, sound[:len(sound)-1]); err == nil {
		t.Error("a sale without its last byte applies")
	}
}

// A purchase and a sale of one share, each from its request to its receipt.
func BenchmarkTrade(b *testing.B) {
	receipts := 0
	m, err := New(Config{Shards: 1, Journal: &discard{}, Now: func() proto.Time { return start },
		Deliver: func(batch *Batch) { receipts += len(batch.Outs) }}, NewReplica())
	if err != nil {
		b.Fatal(err)
	}
	m.Durable(1 << 60)
	turns := func() {
		for again := true; again; again = !m.settled() {
			m.shards[0].turn(start)
		}
	}
	const players = 1000
	game := m.NextGame()
	o := seeded("", 1_000_000)
	o.Question = "?"
	m.Submit(&Command{Kind: OpenGame, Game: game, Args: &proto.GameOpening{Name: "g"}})
	m.Submit(&Command{Kind: OpenPool, Game: game, Args: &o})
	for i := range players {
		m.Submit(&Command{Kind: OpenAccount, From: session(i), Account: m.NextAccount(), Attach: true, Args: &proto.AccountOpening{Name: "p", Deposit: 1 << 50}})
	}
	turns()
	receipts = 0
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c := Command{From: session(i % players), Account: proto.AccountID(1 + i%players), ID: proto.RequestID(2*i + 1),
			Pool: proto.NewPoolID(game, 1), Outcome: proto.Outcome(i / players % 2), Kind: Stake, Amount: 3}
		m.Submit(&c)
		c.ID, c.Kind, c.Amount, c.Shares = c.ID+1, Sell, 0, dpm.Share
		m.Submit(&c)
		if i%64 == 63 {
			turns()
		}
	}
	turns()
	if receipts < 2*b.N {
		b.Fatalf("%d receipts for %d purchases and as many sales", receipts, b.N)
	}
}
