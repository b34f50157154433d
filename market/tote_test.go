package market

import (
	"reflect"
	"slices"
	"testing"

	"tote/server/proto"
)

// Rules that cannot be run are refused when the pool opens, and in a template when the game does.
func TestRulesRefused(t *testing.T) {
	tb := newTable(t, 2)
	g := tb.game()
	tb.pool(g, proto.PoolOpening{}) // the next one is the game's second
	dividend := proto.Rules{Payout: proto.PayoutDividend, Unit: 100, Break: 10, DividendMin: 105, MinusMax: 1000}
	locks := tb.now + proto.Minute
	for _, row := range []struct {
		name    string
		opening proto.PoolOpening
		change  func(*proto.Rules)
		want    proto.Refusal
	}{
		{"dividends without a unit", proto.PoolOpening{}, func(r *proto.Rules) { r.Unit = 0 }, proto.RefusedRules},
		{"a break above the unit", proto.PoolOpening{}, func(r *proto.Rules) { r.Break = 101 }, proto.RefusedRules},
		{"a negative break", proto.PoolOpening{}, func(r *proto.Rules) { r.Break = -1 }, proto.RefusedRules},
		{"a least dividend below the unit", proto.PoolOpening{}, func(r *proto.Rules) { r.DividendMin = 99 }, proto.RefusedRules},
		{"a least dividend above twice the unit", proto.PoolOpening{}, func(r *proto.Rules) { r.DividendMin = 201 }, proto.RefusedRules},
		{"a cap on nothing", proto.PoolOpening{}, func(r *proto.Rules) { r.DividendMin = 0 }, proto.RefusedRules},
		{"units under the exact rule", proto.PoolOpening{}, func(r *proto.Rules) { *r = proto.Rules{Unit: 100} }, proto.RefusedRules},
		{"a payout rule that is not there", proto.PoolOpening{}, func(r *proto.Rules) { r.Payout = 2 }, proto.RefusedRules},
		{"a rule for no winner that is not there", proto.PoolOpening{}, func(r *proto.Rules) { r.NoWinner = 2 }, proto.RefusedRules},
		{"an heir without carrying", proto.PoolOpening{}, func(r *proto.Rules) { r.CarryTo = proto.NewPoolID(g, 5) }, proto.RefusedRules},
		{"itself as heir", proto.PoolOpening{}, func(r *proto.Rules) { r.NoWinner, r.CarryTo = proto.NoWinnerCarry, proto.NewPoolID(g, 2) }, proto.RefusedRules},
		{"an earlier pool as heir", proto.PoolOpening{}, func(r *proto.Rules) { r.NoWinner, r.CarryTo = proto.NoWinnerCarry, proto.NewPoolID(g, 1) }, proto.RefusedRules},
		{"another game's pool as heir", proto.PoolOpening{}, func(r *proto.Rules) { r.NoWinner, r.CarryTo = proto.NoWinnerCarry, proto.NewPoolID(g+1, 9) }, proto.RefusedRules},
		{"a late cap without a lock time", proto.PoolOpening{}, func(r *proto.Rules) { r.LateSpan, r.LateMax = proto.Second, 5 }, proto.RefusedRules},
		{"a late cap of nothing", proto.PoolOpening{LocksAt: locks}, func(r *proto.Rules) { r.LateSpan = proto.Second }, proto.RefusedRules},
		{"a late cap for no time", proto.PoolOpening{LocksAt: locks}, func(r *proto.Rules) { r.LateMax = 5 }, proto.RefusedRules},
		{"a negative cap", proto.PoolOpening{}, func(r *proto.Rules) { r.AccountMax = -1 }, proto.RefusedRules},
		{"all that there is", proto.PoolOpening{LocksAt: locks}, func(r *proto.Rules) {
			r.NoWinner, r.CarryTo, r.OneSidedRefund, r.AccountMax = proto.NoWinnerCarry, proto.NewPoolID(g, 3), true, 500
			r.LateSpan, r.LateMax = proto.Second, 100
		}, proto.Accepted},
	} {
		row.opening.Question, row.opening.Labels, row.opening.Rules = "?", []string{"a", "b"}, dividend
		row.change(&row.opening.Rules)
		records := len(tb.journal.records)
		if got := tb.verdict(Command{Kind: OpenPool, From: desk, Game: g, Args: &row.opening}); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got.Code(), row.want.Code())
		}
		if row.want != proto.Accepted && len(tb.journal.records) != records {
			t.Errorf("%s: the journal changed", row.name)
		}
	}
	for name, rules := range map[string]proto.Rules{
		"rules that do not fit":    {Unit: 100},
		"an heir in a template":    {NoWinner: proto.NoWinnerCarry, CarryTo: proto.NewPoolID(1, 9)},
		"a late cap in a template": {LateSpan: proto.Second, LateMax: 5},
	} {
		template := proto.Template{Name: "t", Question: "?", Opens: "true", Outcomes: []proto.TemplateOutcome{{Label: "a", Wins: "true"}, {Label: "b", Wins: "false"}}, Rules: rules}
		if got := tb.verdict(Command{Kind: OpenGame, From: desk, Game: 50, Args: &proto.GameOpening{Name: "g", Templates: []proto.Template{template}}}); got != proto.RefusedTemplate {
			t.Errorf("%s: %q", name, got.Code())
		}
	}
}

// What a pool's rules let in.
func TestStakesRefusedByRules(t *testing.T) {
	tb := newTable(t, 3)
	ada, bob := tb.player(1, 10000), tb.player(2, 10000)
	g := tb.game()
	units := tb.pool(g, proto.PoolOpening{Rules: proto.Rules{Payout: proto.PayoutDividend, Unit: 100}})
	capped := tb.pool(g, proto.PoolOpening{LocksAt: tb.now + proto.Minute, Rules: proto.Rules{AccountMax: 500, LateSpan: 10 * proto.Second, LateMax: 50}})
	id := proto.RequestID(1)
	at := func(after proto.Time, n int, a proto.AccountID, p proto.PoolID, amount proto.Amount, want proto.Refusal) {
		t.Helper()
		id++
		stake := tb.stakeOf(n, a, id, p, 0, amount)
		stake.Arrived = start + after
		if got := tb.verdict(stake); got != want {
			t.Errorf("a stake of %d after %d µs: %q, want %q", amount, after, got.Code(), want.Code())
		}
	}
	at(0, 1, ada, units, 150, proto.RefusedStakeUnits)
	at(0, 1, ada, units, 300, proto.Accepted)
	at(0, 1, ada, capped, 501, proto.RefusedAccountFull)
	at(0, 1, ada, capped, 300, proto.Accepted)
	at(0, 1, ada, capped, 201, proto.RefusedAccountFull)
	at(0, 1, ada, capped, 200, proto.Accepted)
	at(0, 1, ada, capped, 1, proto.RefusedAccountFull)
	at(0, 2, bob, capped, 500, proto.Accepted) // everybody has his own
	eve := tb.player(3, 10000)
	at(50*proto.Second, 3, eve, capped, 60, proto.Accepted) // not yet
	at(50*proto.Second+1, 3, eve, capped, 1, proto.RefusedLateFull)
	zoe := tb.player(4, 10000)
	at(55*proto.Second, 4, zoe, capped, 51, proto.RefusedLateFull)
	at(55*proto.Second, 4, zoe, capped, 30, proto.Accepted)
	at(55*proto.Second, 4, zoe, capped, 21, proto.RefusedLateFull)
	at(60*proto.Second, 4, zoe, capped, 20, proto.Accepted)

	// Several at once are capped together.
	max := tb.player(5, 10000)
	accepted := 0
	var stakes []Command
	for range 8 {
		id++
		stakes = append(stakes, tb.stakeOf(5, max, id, capped, 1, 120))
	}
	for _, o := range tb.do(stakes...) {
		if o.Kind == OutReceipt {
			accepted++
		}
	}
	if accepted != 4 {
		t.Errorf("%d stakes of 120 came in under a cap of 500", accepted)
	}
}

// An account stakes at its rate by the arrival of its requests, may save up two seconds' worth, and sends again what was too fast.
func TestStakesPerSecond(t *testing.T) {
	tb := newTable(t, 2)
	for _, s := range tb.m.shards {
		s.config.StakesPerSecond = 10
	}
	ada, bob := tb.player(1, 10000), tb.player(2, 10000)
	p := tb.pool(tb.game(), proto.PoolOpening{})
	id := proto.RequestID(0)
	burst := func(n int, a proto.AccountID, count int, arrived proto.Time) (accepted int) {
		for range count {
			id++
			stake := tb.stakeOf(n, a, id, p, 0, 1)
			stake.Arrived = arrived
			switch got := tb.verdict(stake); got {
			case proto.Accepted:
				accepted++
			case proto.RefusedStakesFast:
			default:
				t.Fatalf("stake %d: %q", id, got.Code())
			}
		}
		return accepted
	}
	for i, row := range []struct {
		after proto.Time
		n     int
		count int
		want  int
	}{{0, 1, 30, 20}, {0, 2, 5, 5}, {99 * proto.Millisecond, 1, 1, 0}, {100 * proto.Millisecond, 1, 2, 1}, {proto.Second, 1, 30, 9}, {proto.Minute, 1, 30, 20}} {
		if got := burst(row.n, []proto.AccountID{0, ada, bob}[row.n], row.count, start+row.after); got != row.want {
			t.Errorf("row %d: %d of %d accepted, want %d", i, got, row.count, row.want)
		}
	}
	stake := tb.stakeOf(1, ada, id, p, 0, 1) // refused a moment ago
	stake.Arrived = start + 2*proto.Minute
	if got := tb.verdict(stake); got != proto.Accepted {
		t.Errorf("sent again: %q", got.Code())
	}
	stake.ID++
	for range 50 { // operators have no rate
		stake.From, stake.ID = desk, stake.ID+1
		tb.do(stake)
	}
	if got := tb.balance(1, ada); got != 10000-20-1-9-20-1-50 {
		t.Errorf("balance %d", got)
	}
}

// A withdrawn outcome's stakes return with the reason; it can neither be staked on nor win; what is left goes on, over a restart too.
func TestWithdrawOutcome(t *testing.T) {
	for _, shards := range []int{1, 3} {
		tb := newTable(t, shards)
		ada, bob, eve := tb.player(1, 1000), tb.player(2, 1000), tb.player(3, 1000)
		g := tb.game()
		p := tb.pool(g, proto.PoolOpening{Rules: proto.Rules{AccountMax: 400}})
		tb.accept(1, ada, 1, p, 0, 300)
		tb.accept(1, ada, 2, p, 2, 100)
		tb.accept(2, bob, 1, p, 1, 200)
		withdraw := func(on proto.PoolID, o proto.Outcome) Command {
			return Command{Kind: WithdrawOutcome, From: desk, Pool: on, Args: &proto.OutcomeWithdrawal{Outcome: o}}
		}
		if got := tb.verdict(withdraw(p, 3)); got != proto.RefusedOutcomeUnknown {
			t.Errorf("an outcome that is not there: %q", got.Code())
		}
		outs := tb.do(withdraw(p, 0))
		if refund := only[*proto.Refund](t, outs); refund.Reason != proto.RefundWithdrawn || refund.Amount != 300 || refund.Balance != 900 {
			t.Errorf("refund %+v", refund)
		}
		shown := only[*proto.PoolChanged](t, outs).Pool
		if !slices.Equal(shown.Withdrawn, []proto.Outcome{0}) || shown.Odds[0] != (proto.Odd{}) || shown.Odds[1].Multiplier != 1500 {
			t.Errorf("shown %+v", shown)
		}
		for name, row := range map[string]struct {
			command Command
			want    proto.Refusal
		}{
			"withdrawn twice":    {withdraw(p, 0), proto.RefusedOutcomeWithdrawn},
			"staked on":          {tb.stakeOf(2, bob, 9, p, 0, 10), proto.RefusedOutcomeWithdrawn},
			"settled while open": {Command{Kind: SettlePool, From: desk, Pool: p, Args: &proto.Settlement{Winners: []proto.Outcome{1}}}, proto.RefusedPoolOpen},
		} {
			if got := tb.verdict(row.command); got != row.want {
				t.Errorf("%s: %q, want %q", name, got.Code(), row.want.Code())
			}
		}
		tb.accept(1, ada, 3, p, 1, 300) // what was returned does not count to the cap
		tb.accept(3, eve, 1, p, 2, 50)

		tb = reopen(t, shards, tb.replay(), tb.journal.records)
		for n, a := range []proto.AccountID{ada, bob, eve} {
			tb.do(Command{Kind: Attach, From: session(n + 1), ID: 1, Account: a})
		}
		tb.lock(p)
		settle := Command{Kind: SettlePool, From: desk, Pool: p, Args: &proto.Settlement{Winners: []proto.Outcome{0, 1}}}
		if got := tb.verdict(settle); got != proto.RefusedOutcomeWithdrawn {
			t.Errorf("settled for what was withdrawn: %q", got.Code())
		}
		tb.settlePool(p, 1)
		if settled := only[*proto.Settled](t, tb.said); settled.Gross != 650 || settled.Paid != 650 {
			t.Errorf("settled %+v", settled)
		}
		for n, want := range []proto.Amount{600 + 390, 800 + 260, 950} {
			if got := tb.balance(n+1, []proto.AccountID{ada, bob, eve}[n]); got != want {
				t.Errorf("%d shards: player %d has %d, want %d", shards, n+1, got, want)
			}
		}
		if got := tb.verdict(withdraw(p, 1)); got != proto.RefusedPoolSettled {
			t.Errorf("withdrawn when settled: %q", got.Code())
		}

		// The last but one outcome: no question is left.
		q := tb.pool(g, proto.PoolOpening{Labels: []string{"yes", "no"}})
		tb.accept(1, ada, 20, q, 0, 10)
		tb.accept(2, bob, 20, q, 1, 20)
		outs = tb.do(withdraw(q, 1))
		only[*proto.Voided](t, outs)
		reasons := map[proto.Amount]proto.RefundReason{}
		for _, refund := range all[*proto.Refund](outs) {
			reasons[refund.Amount] = refund.Reason
		}
		if want := map[proto.Amount]proto.RefundReason{10: proto.RefundVoid, 20: proto.RefundWithdrawn}; !reflect.DeepEqual(reasons, want) {
			t.Errorf("refunds %v, want %v", reasons, want)
		}
	}
}

// A lock that turns out to have been earlier refunds what arrived after it, and counts backers anew.
func TestLateStakesReturn(t *testing.T) {
	for _, shards := range []int{1, 3} {
		tb := newTable(t, shards)
		ada, bob := tb.player(1, 1000), tb.player(2, 1000)
		g := tb.game()
		p := tb.pool(g, proto.PoolOpening{})
		tb.accept(1, ada, 1, p, 0, 10)
		early := tb.now
		tb.now += proto.Second
		tb.accept(1, ada, 2, p, 0, 20) // late, and Ada backs it all the same
		tb.accept(2, bob, 1, p, 0, 40) // late
		tb.accept(2, bob, 2, p, 1, 80) // late
		tb.answer(Command{Kind: LockPool, Pool: p, Args: &proto.Locking{At: early}})
		locked := only[*proto.Locked](t, tb.said)
		if want := []proto.Odd{{Staked: 10, Backers: 1, Multiplier: 1000}, {}, {}}; locked.At != early || !slices.Equal(locked.Odds, want) {
			t.Errorf("locked %+v", locked)
		}
		refunds := all[*proto.Refund](tb.said)
		sum := proto.Amount(0)
		for _, r := range refunds {
			if sum += r.Amount; r.Reason != proto.RefundLate {
				t.Errorf("refund %+v", r)
			}
		}
		if len(refunds) != 3 || sum != 140 {
			t.Errorf("%d refunds of %d, want 3 of 140", len(refunds), sum)
		}
		tb = reopen(t, shards, tb.replay(), tb.journal.records)
		tb.answer(Command{Kind: VoidPool, Pool: p, Args: &proto.Voiding{Reason: "rain"}})
		if a, b := tb.balance(1, ada), tb.balance(2, bob); a != 1000 || b != 1000 {
			t.Errorf("%d shards: balances %d and %d", shards, a, b)
		}
	}
}

// What nobody has won goes to the next pool of the same template, which the very event may open, and is told there.
func TestCarriedToTheNextOfTheTemplate(t *testing.T) {
	tb := newTable(t, 2)
	ada, bob := tb.player(1, 1000), tb.player(2, 1000)
	g := tb.game(proto.Template{
		Name: "next", Question: "Who scores next?", Opens: "event.kind == 'kickoff' || event.kind == 'goal'", Takeout: 1000,
		Rules: proto.Rules{NoWinner: proto.NoWinnerCarry},
		Outcomes: []proto.TemplateOutcome{
			{Label: "{team1}", Wins: "event.kind == 'goal' && event.team == 1"},
			{Label: "{team2}", Wins: "event.kind == 'goal' && event.team == 2"},
			{Label: "nobody", Wins: "event.kind == 'end'"},
		},
	}, proto.Template{Name: "other", Question: "Rain?", Opens: "event.kind == 'kickoff'", Outcomes: []proto.TemplateOutcome{
		{Label: "yes", Wins: "false"}, {Label: "no", Wins: "event.kind == 'rain'"}}})
	first := tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "kickoff"}}).Opened[0]
	tb.accept(1, ada, 1, first, 0, 100)
	tb.after(10 * proto.Second)
	goal := tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "goal", Team: 2, Score: [2]uint16{0, 1}}})
	second := goal.Opened[0]
	if m := only[*proto.Settled](t, tb.said); m.CarriedOn != 90 || m.CarriedTo != second || m.Takeout != 10 || m.Refunded || m.Paid != 0 {
		t.Errorf("settled %+v", m)
	}
	if odds := only[*proto.Odds](t, tb.said); odds.Pool != second || odds.Carried != 90 {
		t.Errorf("odds %+v", odds)
	}
	now := tb.now
	tb = reopen(t, 2, tb.replay(), tb.journal.records)
	tb.now = now
	tb.do(Command{Kind: Attach, From: session(2), ID: 1, Account: bob})
	tb.accept(2, bob, 1, second, 0, 50)
	joined := only[*proto.Joined](t, tb.do(Command{Kind: Join, From: session(2), ID: 2, Game: g}))
	if shown := joined.Pools[2]; shown.Carried != 90 || shown.Odds[0].Multiplier != 2700 || joined.Pools[0].CarriedTo != second {
		t.Errorf("joined %+v", joined.Pools)
	}
	tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "goal", Team: 1, Score: [2]uint16{1, 1}}})
	if pay := only[*proto.Payout](t, tb.said); pay.Payout != 50-5+90 {
		t.Errorf("payout %+v", pay)
	}
	tb.accept(2, bob, 3, tb.m.shardOfGame(g).games[g].pools[3].id, 0, 40)
	tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "end"}})
	if m := only[*proto.Settled](t, tb.said); !m.Refunded || m.Reason != proto.RefundNoWinner || m.CarriedTo != 0 {
		t.Errorf("no pool comes after the last one: %+v", m)
	}
}

// The pool that the rules name gets the money, whichever comes between; one that is over gets none.
func TestCarriedToTheNamedPool(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 1000)
	g := tb.game()
	named := proto.NewPoolID(g, 4)
	carry := proto.PoolOpening{Rules: proto.Rules{NoWinner: proto.NoWinnerCarry, CarryTo: named}}
	p, q := tb.pool(g, carry), tb.pool(g, carry)
	tb.pool(g, proto.PoolOpening{})
	if got := tb.pool(g, proto.PoolOpening{}); got != named {
		t.Fatalf("opened %d, want %d", got, named)
	}
	lose := func(on proto.PoolID, id proto.RequestID) *proto.Settled {
		tb.accept(1, ada, id, on, 0, 100)
		tb.lock(on)
		tb.settlePool(on, 1)
		return only[*proto.Settled](t, tb.said)
	}
	if m := lose(p, 1); m.CarriedOn != 100 || m.CarriedTo != named {
		t.Errorf("settled %+v", m)
	}
	tb.answer(Command{Kind: VoidPool, Pool: named, Args: &proto.Voiding{Reason: "rain"}}) // what it had been carried is the house's
	if m := lose(q, 2); m.CarriedOn != 0 || m.Reason != proto.RefundNoWinner {
		t.Errorf("settled %+v", m)
	}
	if got, house := tb.balance(1, ada), tb.replay().house; got != 900 || house != 100 {
		t.Errorf("Ada has %d and the house %d", got, house)
	}
}

// A winner that was withdrawn cannot be settled for; rules void the pool.
func TestRulesNameAWithdrawnWinner(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 1000)
	g := tb.game(proto.Template{Name: "t", Question: "?", Opens: "event.kind == 'kickoff'", Outcomes: []proto.TemplateOutcome{
		{Label: "a", Wins: "event.kind == 'goal'"}, {Label: "b", Wins: "event.kind == 'end'"}, {Label: "c", Wins: "false"}}})
	p := tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "kickoff"}}).Opened[0]
	tb.accept(1, ada, 1, p, 1, 100)
	tb.answer(Command{Kind: WithdrawOutcome, Pool: p, Args: &proto.OutcomeWithdrawal{Outcome: 0}})
	if goal := tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "goal", Team: 1}}); len(goal.Voided) != 1 {
		t.Errorf("goal: %+v", goal)
	}
	if got := tb.balance(1, ada); got != 1000 {
		t.Errorf("balance %d", got)
	}
}
