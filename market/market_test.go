package market

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"tote/server/proto"
)

// Every refusal of a stake, and nothing changes.
func TestStakesRefused(t *testing.T) {
	for _, shards := range []int{1, 3} {
		tb := newTable(t, shards)
		ada := tb.player(1, 1000)
		g := tb.game()
		open := tb.pool(g, proto.PoolOpening{StakeMin: 10, StakeMax: 500})
		free := tb.pool(g, proto.PoolOpening{})
		locked := tb.pool(g, proto.PoolOpening{})
		tb.lock(locked)
		settled := tb.pool(g, proto.PoolOpening{})
		tb.lock(settled)
		tb.settlePool(settled, 0)
		voided := tb.pool(g, proto.PoolOpening{})
		tb.answer(Command{Kind: VoidPool, Pool: voided, Args: &proto.Voiding{Reason: "rain"}})
		timed := tb.pool(g, proto.PoolOpening{LocksAt: tb.now + proto.Second})
		tb.accept(1, ada, 7, open, 0, 100)

		late := tb.stakeOf(1, ada, 30, timed, 0, 10)
		late.Arrived = tb.now + proto.Second + 1
		sell := tb.saleOf(1, ada, 31, open, 0, 10)
		sellNowhere := tb.saleOf(1, ada, 32, open+99, 0, 10)
		stranger := tb.stakeOf(1, 999, 33, open, 0, 10)
		records := len(tb.journal.records)
		for _, row := range []struct {
			name  string
			stake Command
			want  proto.Refusal
		}{
			{"nothing", tb.stakeOf(1, ada, 10, open, 0, 0), proto.RefusedAmountInvalid},
			{"a refused id with another stake", tb.stakeOf(1, ada, 10, open, 0, 100), proto.RefusedRequestReused},
			{"less than nothing", tb.stakeOf(1, ada, 11, open, 0, -1), proto.RefusedAmountInvalid},
			{"more than there is", tb.stakeOf(1, ada, 12, open, 0, math.MaxInt64), proto.RefusedAmountInvalid},
			{"more than one has", tb.stakeOf(1, ada, 13, free, 0, 901), proto.RefusedFundsShort},
			{"below the minimum", tb.stakeOf(1, ada, 14, open, 0, 9), proto.RefusedStakeSmall},
			{"above the maximum", tb.stakeOf(1, ada, 15, open, 0, 501), proto.RefusedStakeLarge},
			{"no such outcome", tb.stakeOf(1, ada, 16, open, 3, 10), proto.RefusedOutcomeUnknown},
			{"no outcome", tb.stakeOf(1, ada, 17, open, proto.OutcomeNone, 10), proto.RefusedOutcomeUnknown},
			{"no such pool", tb.stakeOf(1, ada, 18, open+99, 0, 10), proto.RefusedPoolUnknown},
			{"no pool", tb.stakeOf(1, ada, 19, 0, 0, 10), proto.RefusedPoolUnknown},
			{"a game's pool 0", tb.stakeOf(1, ada, 20, proto.NewPoolID(g, 0), 0, 10), proto.RefusedPoolUnknown},
			{"locked", tb.stakeOf(1, ada, 21, locked, 0, 10), proto.RefusedPoolLocked},
			{"settled", tb.stakeOf(1, ada, 22, settled, 0, 10), proto.RefusedPoolSettled},
			{"voided", tb.stakeOf(1, ada, 23, voided, 0, 10), proto.RefusedPoolVoided},
			{"arrived after the lock", late, proto.RefusedPoolLocked},
			{"a used id", tb.stakeOf(1, ada, 7, open, 0, 101), proto.RefusedRequestReused},
			{"selling in a parimutuel pool", sell, proto.RefusedPoolUnsold},
			{"selling nothing", tb.saleOf(1, ada, 34, open, 0, 0), proto.RefusedSharesInvalid},
			{"selling nowhere", sellNowhere, proto.RefusedPoolUnknown},
			{"nobody's account", stranger, proto.RefusedAccountUnknown},
		} {
			if got := tb.verdict(row.stake); got != row.want {
				t.Errorf("%d shards: %s: %s, want %s", shards, row.name, got.Code(), row.want.Code())
			}
			if got := tb.verdict(row.stake); got != row.want && row.want != proto.RefusedRequestReused {
				t.Errorf("%d shards: %s, again: %s, want the first answer, %s", shards, row.name, got.Code(), row.want.Code())
			}
		}
		if got := tb.balance(1, ada); got != 900 {
			t.Errorf("balance %d after refusals, want 900", got)
		}
		if len(tb.journal.records) != records {
			t.Errorf("refusals left %d records in the journal", len(tb.journal.records)-records)
		}
	}
}

// A table of what operators may not do.
func TestOperatorsRefused(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 1000)
	g := tb.game()
	open := tb.pool(g, proto.PoolOpening{})
	locked := tb.pool(g, proto.PoolOpening{})
	tb.lock(locked)
	over := tb.pool(g, proto.PoolOpening{})
	tb.answer(Command{Kind: VoidPool, Pool: over, Args: &proto.Voiding{Reason: "rain"}})
	two := []string{"yes", "no"}
	pool := func(o proto.PoolOpening) Command { return Command{Kind: OpenPool, Game: g, Args: &o} }
	for _, row := range []struct {
		name    string
		command Command
		want    proto.Refusal
	}{
		{"settle what is open", Command{Kind: SettlePool, Pool: open, Args: &proto.Settlement{Winners: []proto.Outcome{0}}}, proto.RefusedPoolOpen},
		{"settle without a winner", Command{Kind: SettlePool, Pool: locked, Args: &proto.Settlement{}}, proto.RefusedWinners},
		{"settle for an outcome that is not there", Command{Kind: SettlePool, Pool: locked, Args: &proto.Settlement{Winners: []proto.Outcome{3}}}, proto.RefusedWinners},
		{"settle what was voided", Command{Kind: SettlePool, Pool: over, Args: &proto.Settlement{Winners: []proto.Outcome{0}}}, proto.RefusedPoolVoided},
		{"lock twice", Command{Kind: LockPool, Pool: locked, Args: &proto.Locking{}}, proto.RefusedPoolLocked},
		{"void twice", Command{Kind: VoidPool, Pool: over, Args: &proto.Voiding{Reason: "rain"}}, proto.RefusedPoolVoided},
		{"void without a reason", Command{Kind: VoidPool, Pool: open, Args: &proto.Voiding{}}, proto.RefusedTextInvalid},
		{"a pool of nothing", Command{Kind: LockPool, Pool: open + 77, Args: &proto.Locking{}}, proto.RefusedPoolUnknown},
		{"a pool of no game", Command{Kind: LockPool, Pool: proto.NewPoolID(99, 1), Args: &proto.Locking{}}, proto.RefusedPoolUnknown},
		{"an event of no game", Command{Kind: PostEvent, Game: 99, Args: &proto.Event{Kind: "goal"}}, proto.RefusedGameUnknown},
		{"an event without a kind", Command{Kind: PostEvent, Game: g, Args: &proto.Event{}}, proto.RefusedEventInvalid},
		{"a third team", Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "goal", Team: 3}}, proto.RefusedEventInvalid},
		{"a game again", Command{Kind: OpenGame, Game: g, Args: &proto.GameOpening{Name: "again"}}, proto.RefusedGameExists},
		{"a game without a name", Command{Kind: OpenGame, Game: 50, Args: &proto.GameOpening{}}, proto.RefusedTextInvalid},
		{"a game too fast", Command{Kind: OpenGame, Game: 50, Args: &proto.GameOpening{Name: "fast", Interval: 99}}, proto.RefusedIntervalShort},
		{"a template that does not compile", Command{Kind: OpenGame, Game: 50, Args: &proto.GameOpening{Name: "bad", Templates: []proto.Template{{
			Name: "t", Question: "?", Opens: "event.kinb == 'goal'"}}}}, proto.RefusedTemplate},
		{"one outcome", pool(proto.PoolOpening{Question: "?", Labels: []string{"yes"}}), proto.RefusedOutcomesCount},
		{"no question", pool(proto.PoolOpening{Labels: two}), proto.RefusedTextInvalid},
		{"a takeout of all", pool(proto.PoolOpening{Question: "?", Labels: two, Takeout: 10000}), proto.RefusedRules},
		{"a minimum above the maximum", pool(proto.PoolOpening{Question: "?", Labels: two, StakeMin: 2, StakeMax: 1}), proto.RefusedRules},
		{"a lock in the past", pool(proto.PoolOpening{Question: "?", Labels: two, LocksAt: tb.now}), proto.RefusedLockPast},
		{"a withdrawal of too much", Command{Kind: Withdraw, Account: ada, Amount: 1001}, proto.RefusedFundsShort},
		{"a deposit of nothing", Command{Kind: Deposit, Account: ada}, proto.RefusedAmountInvalid},
		{"a deposit beyond the balance", Command{Kind: Deposit, Account: ada, Amount: proto.AmountMax}, proto.RefusedBalanceFull},
		{"a deposit to nobody", Command{Kind: Deposit, Account: 99, Amount: 1}, proto.RefusedAccountUnknown},
		{"an account again", Command{Kind: OpenAccount, Account: ada, Args: &proto.AccountOpening{Name: "again"}}, proto.RefusedAccountExists},
		{"an account without a name", Command{Kind: OpenAccount, Account: 99, Args: &proto.AccountOpening{}}, proto.RefusedTextInvalid},
	} {
		records := len(tb.journal.records)
		row.command.From = desk
		if got := tb.verdict(row.command); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got.Code(), row.want.Code())
		}
		if len(tb.journal.records) != records {
			t.Errorf("%s: the journal changed", row.name)
		}
	}
}

// The golden row of the exact split: 300 of 2001 are taken out, A wins.
func TestSettleExactly(t *testing.T) {
	tb := newTable(t, 2)
	g := tb.game()
	p := tb.pool(g, proto.PoolOpening{Takeout: 1500})
	var players []proto.AccountID
	for i, amount := range []proto.Amount{333, 333, 334, 1001} {
		a := tb.player(i, 2000)
		players = append(players, a)
		tb.accept(i, a, 1, p, proto.Outcome(i/3), amount)
	}
	tb.lock(p)
	outs := tb.settlePool(p, 0)
	settled := only[*proto.Settled](t, outs)
	if settled.Gross != 2001 || settled.Takeout != 300 || settled.Paid != 1701 || settled.Multiplier != 1701 || settled.Refunded {
		t.Errorf("settled %+v", settled)
	}
	for i, want := range []proto.Amount{567, 566, 568, 0} {
		var got proto.Amount
		for _, o := range outs {
			if pay, ok := o.Message.(*proto.Payout); ok && o.To == session(i) {
				got = pay.Payout
			}
		}
		if got != want {
			t.Errorf("player %d was paid %d, want %d", i, got, want)
		}
	}
	if got := tb.balance(3, players[3]); got != 999 {
		t.Errorf("the loser has %d, want 999", got)
	}
	if r := tb.replay(); r.house != 300 {
		t.Errorf("the house has %d, want 300", r.house)
	}
}

func TestNobodyBackedTheWinner(t *testing.T) {
	tb := newTable(t, 2)
	ada, bob := tb.player(1, 100), tb.player(2, 100)
	p := tb.pool(tb.game(), proto.PoolOpening{Takeout: 1500})
	tb.accept(1, ada, 1, p, 0, 60)
	tb.accept(2, bob, 1, p, 1, 40)
	tb.lock(p)
	outs := tb.settlePool(p, 2)
	if settled := only[*proto.Settled](t, outs); !settled.Refunded || settled.Paid != 0 || settled.Takeout != 0 {
		t.Errorf("settled %+v", settled)
	}
	if refunds := all[*proto.Refund](outs); len(refunds) != 2 {
		t.Errorf("%d refunds, want 2", len(refunds))
	}
	if a, b := tb.balance(1, ada), tb.balance(2, bob); a != 100 || b != 100 {
		t.Errorf("balances %d and %d, want 100 each", a, b)
	}
}

func TestVoidReturnsStakes(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 100)
	p := tb.pool(tb.game(), proto.PoolOpening{})
	tb.accept(1, ada, 1, p, 0, 60)
	tb.answer(Command{Kind: VoidPool, Pool: p, Args: &proto.Voiding{Reason: "floodlight failure"}})
	if voided := only[*proto.Voided](t, tb.said); voided.Reason != "floodlight failure" {
		t.Errorf("voided %+v", voided)
	}
	if got := tb.balance(1, ada); got != 100 {
		t.Errorf("balance %d, want 100", got)
	}
}

// A pool that nobody settles voids itself 24 h after its lock, also over a restart.
func TestUnsettledPoolVoidsItself(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 100)
	p := tb.pool(tb.game(), proto.PoolOpening{LocksAt: tb.now + proto.Minute})
	tb.accept(1, ada, 1, p, 0, 60)
	if locked := only[*proto.Locked](t, tb.after(proto.Minute)); locked.At != start+proto.Minute {
		t.Errorf("locked at %d", locked.At)
	}
	again := reopen(t, 3, tb.replay(), tb.journal.records)
	again.after(23 * proto.Hour)
	if early := all[*proto.Voided](again.said); len(early) > 0 {
		t.Errorf("voided too early: %+v", early)
	}
	only[*proto.Voided](t, again.after(proto.Hour+proto.Minute))
	if got := again.balance(1, ada); got != 100 {
		t.Errorf("balance %d, want 100", got)
	}
}

// The same request again gets the first answer and costs nothing: after the answer, before it, over a
// restart, and after the pool has ended.
func TestRepeatedRequest(t *testing.T) {
	tb := newTable(t, 3)
	ada := tb.player(1, 1000)
	p := tb.pool(tb.game(), proto.PoolOpening{})
	first := tb.accept(1, ada, 5, p, 1, 100)
	again := tb.accept(1, ada, 5, p, 1, 100)
	if again.Prediction != first.Prediction || again.Balance != 900 {
		t.Errorf("again %+v, first %+v", again, first)
	}

	twice := tb.stakeOf(1, ada, 6, p, 1, 50)
	receipts := receiptsTo(tb.do(twice, twice, twice), session(1))
	if len(receipts) != 3 || receipts[0].Prediction != receipts[2].Prediction {
		t.Errorf("three requests in one turn: %+v", receipts)
	}
	if got := tb.balance(1, ada); got != 850 {
		t.Errorf("balance %d, want 850", got)
	}

	restarted := reopen(t, 2, tb.replay(), tb.journal.records)
	restarted.do(Command{Kind: Attach, From: session(1), ID: 1, Account: ada})
	if got := restarted.accept(1, ada, 5, p, 1, 100); got.Prediction != first.Prediction {
		t.Errorf("after a restart: %+v", got)
	}
	restarted.lock(p)
	restarted.settlePool(p, 1)
	if got := restarted.accept(1, ada, 5, p, 1, 100); got.Prediction != first.Prediction || got.Balance != 1000 {
		t.Errorf("after the settlement: %+v", got)
	}
}

func receiptsTo(outs []Out, to Session) (receipts []proto.Receipt) {
	for _, o := range outs {
		if o.Kind == OutReceipt && o.To == to {
			receipts = append(receipts, o.Receipt)
		}
	}
	return receipts
}

// Money that is being staked cannot be staked again, wherever the pools live.
func TestHoldsCoverEveryStakeInDecision(t *testing.T) {
	tb := newTable(t, 4)
	ada := tb.player(1, 100)
	var stakes []Command
	for i := range 8 {
		p := tb.pool(tb.game(), proto.PoolOpening{})
		stakes = append(stakes, tb.stakeOf(1, ada, proto.RequestID(i+1), p, 0, 30))
	}
	accepted, short := 0, 0
	for _, o := range tb.do(stakes...) {
		switch {
		case o.Kind == OutReceipt:
			accepted++
		case o.Kind == OutRefused && o.Refused.Reason == proto.RefusedFundsShort:
			short++
		}
	}
	if accepted != 3 || short != 5 {
		t.Errorf("%d accepted and %d refused, want 3 and 5", accepted, short)
	}
}

// Nothing is said before it is durable: neither the receipt nor the odds.
func TestDurableBeforeTold(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 100)
	p := tb.pool(tb.game(), proto.PoolOpening{})
	tb.after(4 * proto.Second)
	tb.said = nil
	stake := tb.stakeOf(1, ada, 1, p, 0, 10)
	tb.m.Submit(&stake)
	tb.turns()
	if len(tb.said) != 0 {
		t.Fatalf("said before durable: %+v", tb.said)
	}
	tb.settle()
	if len(receiptsTo(tb.said, session(1))) != 1 || len(all[*proto.Odds](tb.said)) != 1 {
		t.Errorf("said when durable: %+v", tb.said)
	}
}

// Progress grows with every beat, but not of a shard that has seen what the journal does not make durable.
func TestProgress(t *testing.T) {
	tb := newTable(t, 2)
	before := tb.m.Progress()
	tb.after(2 * beat)
	now := tb.m.Progress()
	for i := range now {
		if now[i] <= before[i] {
			t.Errorf("shard %d has delivered %d batches after two beats, %d before", i, now[i], before[i])
		}
	}
	tb.m.Submit(&Command{Kind: OpenGame, Game: tb.m.NextGame(), Args: &proto.GameOpening{Name: "a game"}})
	tb.turns()
	before = tb.m.Progress()
	for range 5 {
		tb.now += 2 * beat
		tb.turns()
	}
	stand := 0
	for i, n := range tb.m.Progress() {
		if n == before[i] {
			stand++
		}
	}
	if stand != 1 {
		t.Errorf("%d shards stand, but the journal stands still for one", stand)
	}
	tb.settle()
	if now := tb.m.Progress(); now[0] == before[0] || now[1] == before[1] {
		t.Errorf("the journal goes on, and progress is %v after %v", now, before)
	}
}

// Odds: the first change after a quiet interval at once, the rest when the interval has passed, and then
// nothing until something changes. Each says what it counts.
func TestDistributionsComeInBatches(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 10000)
	g := tb.game()
	p, q := tb.pool(g, proto.PoolOpening{}), tb.pool(g, proto.PoolOpening{})
	tb.after(10 * proto.Second)

	id := proto.RequestID(0)
	staked := func(on proto.PoolID) []*proto.Odds {
		id++
		return all[*proto.Odds](tb.do(tb.stakeOf(1, ada, id, on, 0, 10)))
	}
	if odds := staked(p); len(odds) != 1 || odds[0].Odds[0].Staked != 10 || odds[0].T != tb.now {
		t.Fatalf("the leading edge: %+v", odds)
	}
	for range 5 {
		tb.after(proto.Second / 2)
		if odds := staked(p); len(odds) != 0 {
			t.Fatalf("within the interval: %+v", odds)
		}
	}
	staked(q)
	odds := all[*proto.Odds](tb.after(proto.Second / 2))
	if len(odds) != 2 || odds[0].Pool != p || odds[0].Odds[0].Staked != 60 || odds[1].Pool != q || odds[1].Seq != odds[0].Seq+1 {
		t.Fatalf("the batch: %+v", odds)
	}
	if last := proto.Seq(len(tb.journal.records)); odds[0].Counts != last {
		t.Errorf("counts %d, the journal ends at %d", odds[0].Counts, last)
	}
	if quiet := all[*proto.Odds](tb.after(10 * proto.Second)); len(quiet) != 0 {
		t.Errorf("nothing changed, and yet %+v", quiet)
	}
	if odds := staked(p); len(odds) != 1 {
		t.Errorf("the next leading edge: %+v", odds)
	}
}

// A host that cannot carry a game's distributions stretches its interval, tells so, and lets go again.
func TestPace(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 10000)
	g := tb.game()
	p := tb.pool(g, proto.PoolOpening{})
	tb.after(10 * proto.Second)
	records := len(tb.journal.records)
	pace := func(every proto.Time) []*proto.GameChanged {
		return all[*proto.GameChanged](tb.do(Command{Kind: Pace, Game: g, Every: every}))
	}
	if changed := pace(9 * proto.Second); len(changed) != 1 || changed[0].Game.Interval != 9*proto.Second {
		t.Errorf("stretched: %+v", changed)
	}
	if changed := pace(9 * proto.Second); len(changed) != 0 {
		t.Errorf("stretched as before: %+v", changed)
	}
	if len(tb.journal.records) != records {
		t.Error("the pace is in the journal")
	}
	tb.accept(1, ada, 1, p, 0, 10) // the leading edge
	tb.accept(1, ada, 2, p, 0, 10)
	if early := all[*proto.Odds](tb.after(8 * proto.Second)); len(early) != 0 {
		t.Errorf("within the stretched interval: %+v", early)
	}
	if odds := all[*proto.Odds](tb.after(proto.Second)); len(odds) != 1 {
		t.Errorf("after the stretched interval: %+v", odds)
	}
	if changed := pace(0); len(changed) != 1 || changed[0].Game.Interval != 3*proto.Second {
		t.Errorf("let go: %+v", changed)
	}
	if changed := pace(proto.Second); len(changed) != 0 {
		t.Errorf("a pace above the game's own: %+v", changed)
	}
	tb.do(Command{Kind: Pace, Game: 99, Every: proto.Minute})
}

// Broadcasts of a game are numbered without a gap, whatever they are.
func TestBroadcastsAreNumbered(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 1000)
	g := tb.game()
	joined := only[*proto.Joined](t, tb.do(Command{Kind: Join, From: session(1), ID: 9, Game: g}))
	var said []Out
	collect := func(outs []Out) { said = append(said, outs...) }
	p := tb.pool(g, proto.PoolOpening{})
	collect(tb.said)
	tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "kickoff"}})
	collect(tb.said)
	collect(tb.do(tb.stakeOf(1, ada, 1, p, 0, 10)))
	collect(tb.after(4 * proto.Second))
	tb.lock(p)
	collect(tb.said)
	collect(tb.settlePool(p, 0))
	seq := joined.Seq
	for _, o := range said {
		if o.To != 0 {
			continue
		}
		if got := seqOf(t, o.Message); got != seq+1 || o.Seq != got {
			t.Errorf("%s has seq %d (%d) after %d", o.Message.Type(), got, o.Seq, seq)
		}
		seq++
	}
	if seq < joined.Seq+6 {
		t.Errorf("only %d broadcasts", seq-joined.Seq)
	}
}

func seqOf(t *testing.T, m proto.Message) uint64 {
	head, ok := proto.ReadHead(m.AppendJSON(nil))
	if !ok {
		t.Fatalf("%s does not read", m.Type())
	}
	return head.Seq
}

// A feed that is not sure posts an event again; the number tells.
func TestNumberedEventsHappenOnce(t *testing.T) {
	tb := newTable(t, 1)
	g := tb.game()
	goal := Command{Kind: PostEvent, From: desk, Game: g, Args: &proto.Event{Kind: "goal", Number: 7}}
	if got := tb.verdict(goal); got != proto.Accepted {
		t.Errorf("the event: %s", got.Code())
	}
	restarted := reopen(t, 1, tb.replay(), tb.journal.records)
	if got := restarted.verdict(goal); got != proto.RefusedEventRepeated {
		t.Errorf("the event again, after a restart: %q", got.Code())
	}
	goal.Args = &proto.Event{Kind: "end", Number: 8}
	if got := restarted.verdict(goal); got != proto.Accepted {
		t.Errorf("the next event: %s", got.Code())
	}
	if got := restarted.verdict(goal); got != proto.RefusedEventRepeated {
		t.Errorf("the end again: %q", got.Code())
	}
}

// An event locks, settles and opens what the templates say, as one.
func TestEventsResolvePools(t *testing.T) {
	tb := newTable(t, 3)
	ada, bob := tb.player(1, 1000), tb.player(2, 1000)
	g := tb.game(proto.Template{
		Name: "next", Question: "Who scores after {minute}'?", Opens: "event.kind == 'kickoff' || event.kind == 'goal'",
		Outcomes: []proto.TemplateOutcome{
			{Label: "{team1}", Wins: "event.kind == 'goal' && event.team == 1"},
			{Label: "{team2}", Wins: "event.kind == 'goal' && event.team == 2"},
			{Label: "nobody", Wins: "event.kind == 'end'"},
		},
	}, proto.Template{
		Name: "goals", Question: "Goals?", Opens: "event.kind == 'kickoff'", Locks: "event.kind == 'minute' && event.minute >= 30",
		Voids: "event.kind == 'abandoned'",
		Outcomes: []proto.TemplateOutcome{
			{Label: "none", Wins: "event.kind == 'end' && game.score1 + game.score2 == pool.score1 + pool.score2"},
			{Label: "some", Wins: "event.kind == 'end'"},
		},
	})
	kick := tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "kickoff"}})
	if len(kick.Opened) != 2 {
		t.Fatalf("kick-off: %+v", kick)
	}
	next, goals := kick.Opened[0], kick.Opened[1]
	if opened := all[*proto.Opened](tb.said); opened[0].Pool.Question != "Who scores after 0'?" || opened[0].Pool.Labels[0] != "Argentina" {
		t.Errorf("opened %+v", opened[0].Pool)
	}
	tb.accept(1, ada, 1, next, 0, 100)
	tb.accept(2, bob, 1, next, 1, 50)
	tb.accept(1, ada, 2, goals, 1, 100)

	minute := tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "minute", Minute: 30}})
	if len(minute.Locked) != 1 || minute.Locked[0] != goals {
		t.Errorf("minute 30: %+v", minute)
	}
	goal := tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "goal", Team: 1, Minute: 36, Score: [2]uint16{1, 0}}})
	if len(goal.Settled) != 1 || goal.Settled[0] != next || len(goal.Opened) != 1 {
		t.Errorf("goal: %+v", goal)
	}
	if pay := only[*proto.Payout](t, tb.said); pay.Payout != 150 || pay.Balance != 950 {
		t.Errorf("payout %+v", pay)
	}
	end := tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "end", Minute: 90, Score: [2]uint16{1, 0}}})
	if len(end.Settled) != 2 {
		t.Errorf("end: %+v", end)
	}
	last := tb.said[0]
	for _, o := range tb.said {
		if o.To == 0 {
			last = o
		}
	}
	if m, ok := last.Message.(*proto.GameChanged); !ok || m.Game.State != proto.GameEnded {
		t.Errorf("the last word of a game is %+v", last.Message)
	}
	if got := tb.balance(1, ada); got != 1050 {
		t.Errorf("Ada has %d, want 1050", got)
	}
	if got := tb.verdict(Command{Kind: PostEvent, From: desk, Game: g, Args: &proto.Event{Kind: "goal"}}); got != proto.RefusedGameEnded {
		t.Errorf("a goal after the end: %s", got.Code())
	}
	tb.after(11 * proto.Minute)
	if got := tb.verdict(Command{Kind: Join, From: session(1), ID: 2, Game: g}); got != proto.RefusedGameUnknown {
		t.Errorf("the archived game can be joined: %s", got.Code())
	}
}

func TestFriends(t *testing.T) {
	tb := newTable(t, 3)
	ada, bob, eve := tb.player(1, 1000), tb.player(2, 1000), tb.player(3, 1000)
	p := tb.pool(tb.game(), proto.PoolOpening{})
	tb.accept(2, bob, 1, p, 0, 10)
	tb.accept(3, eve, 1, p, 1, 20)
	tb.accept(2, bob, 2, p, 1, 30)
	asked := Command{Kind: ShowFriends, From: session(1), ID: 3, Account: ada, Pool: p}
	if m := only[*proto.Friends](t, tb.do(asked)); len(m.Predictions) != 0 {
		t.Errorf("no friends yet: %+v", m)
	}
	if m := only[*proto.Followed](t, tb.do(Command{Kind: Follow, From: session(1), ID: 4, Account: ada, Other: bob})); m.Name != "player 2" {
		t.Errorf("followed %+v", m)
	}
	m := only[*proto.Friends](t, tb.do(asked))
	if len(m.Predictions) != 2 || m.Predictions[0].Amount != 10 || m.Predictions[1].Amount != 30 || m.Predictions[1].Outcome != 1 {
		t.Errorf("Bob's predictions: %+v", m)
	}
	for _, row := range []struct {
		name    string
		command Command
		want    proto.Refusal
	}{
		{"oneself", Command{Kind: Follow, Account: ada, Other: ada}, proto.RefusedFollowSelf},
		{"nobody", Command{Kind: Follow, Account: ada, Other: 99}, proto.RefusedAccountUnknown},
		{"friends in no pool", Command{Kind: ShowFriends, Account: ada, Pool: p + 9}, proto.RefusedPoolUnknown},
	} {
		row.command.From, row.command.ID = session(1), 5
		if got := tb.verdict(row.command); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got.Code(), row.want.Code())
		}
	}
	tb.do(Command{Kind: Unfollow, From: session(1), ID: 6, Account: ada, Other: bob})
	if m := only[*proto.Friends](t, tb.do(asked)); len(m.Predictions) != 0 {
		t.Errorf("unfollowed: %+v", m)
	}
}

// Every session of an account has its private lane, numbered without a gap.
func TestPrivateLane(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 1000)
	tb.do(Command{Kind: Attach, From: session(2), ID: 1, Account: ada})
	p := tb.pool(tb.game(), proto.PoolOpening{})
	var outs []Out
	outs = append(outs, tb.do(tb.stakeOf(1, ada, 1, p, 0, 10))...)
	outs = append(outs, tb.do(tb.stakeOf(2, ada, 2, p, 9, 10))...)
	outs = append(outs, tb.do(Command{Kind: Deposit, From: desk, Account: ada, Amount: 5})...)
	tb.lock(p)
	outs = append(outs, tb.settlePool(p, 0)...)
	for n := 1; n <= 2; n++ {
		var last uint64
		for _, o := range outs {
			if o.To != session(n) {
				continue
			}
			number := o.Receipt.N + o.Refused.N
			if o.Kind == OutMessage {
				head, _ := proto.ReadHead(o.Message.AppendJSON(nil))
				number = head.N
			}
			if number != last+1 {
				t.Errorf("session %d: private number %d after %d", n, number, last)
			}
			last = number
		}
		if last != 4 {
			t.Errorf("session %d: %d private messages, want 4", n, last)
		}
	}
	tb.do(Command{Kind: Detach, From: session(2), Account: ada})
	for _, o := range tb.do(tb.stakeOf(1, ada, 8, p, 0, 10)) {
		if o.To == session(2) {
			t.Errorf("a detached session got %+v", o)
		}
	}
}

// A client that was away gets what it missed, if it was not away for too long or in another life of the server.
func TestResume(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 1_000_000)
	p := tb.pool(tb.game(), proto.PoolOpening{})
	tb.do(Command{Kind: Detach, From: session(1), Account: ada})
	for n := 1; n <= laneMax+5; n++ {
		if n%3 == 0 {
			tb.answer(Command{Kind: Deposit, Account: ada, Amount: proto.Amount(n)})
		} else {
			tb.do(tb.stakeOf(1, ada, proto.RequestID(n), p, proto.Outcome(n%4), 10))
		}
		for _, row := range []struct {
			name  string
			epoch uint64
			has   uint64
			want  bool
		}{
			{"nothing missed", 1, uint64(n), true},
			{"one missed", 1, uint64(n - 1), true},
			{"as many missed as are kept", 1, uint64(max(n-laneMax, 0)), true},
			{"one more", 1, uint64(n - laneMax - 1), false}, // while n is small this is more than were said
			{"more than were said", 1, uint64(n + 1), false},
			{"another life", 2, uint64(n), false},
			{"no life", 0, 0, false},
		} {
			outs := tb.do(Command{Kind: Attach, From: session(2), ID: 1, Account: ada, Epoch: row.epoch, N: row.has})
			welcome := only[*proto.Welcome](t, outs)
			if welcome.Resumed != row.want || welcome.N != uint64(n) {
				t.Fatalf("%s, after %d messages: %+v", row.name, n, welcome)
			}
			next := row.has
			for _, o := range outs[1:] {
				next++
				number := o.Receipt.N + o.Refused.N
				if o.Kind == OutMessage {
					number = o.Message.(*proto.Balance).N
				}
				if o.To != session(2) || number != next {
					t.Fatalf("%s, after %d messages: %+v instead of message %d", row.name, n, o, next)
				}
			}
			if row.want && next != uint64(n) || !row.want && len(outs) > 1 {
				t.Fatalf("%s: messages up to %d of %d", row.name, next, n)
			}
			tb.do(Command{Kind: Detach, From: session(2), Account: ada})
		}
	}
}

// A resumed message says what it said the first time.
func TestResumedMessagesAreTheSame(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 1000)
	p := tb.pool(tb.game(), proto.PoolOpening{})
	var first []Out
	hear := func(outs []Out) {
		for _, o := range outs {
			if o.To == session(1) {
				o.To = 0
				first = append(first, o)
			}
		}
	}
	hear(tb.do(tb.stakeOf(1, ada, 1, p, 0, 10)))
	hear(tb.do(tb.stakeOf(1, ada, 2, p, 1, 5000)))
	hear(tb.do(Command{Kind: Withdraw, From: desk, Account: ada, Amount: 7}))
	tb.lock(p)
	hear(tb.settlePool(p, 0))
	tb.now += proto.Minute
	var again []Out
	for _, o := range tb.do(Command{Kind: Attach, From: session(2), ID: 1, Account: ada, Epoch: 1})[1:] {
		if !o.Again {
			t.Errorf("it is not said that this was said before: %+v", o)
		}
		o.To, o.Again = 0, false
		again = append(again, o)
	}
	if len(first) != 4 || !reflect.DeepEqual(again, first) {
		t.Errorf("first %+v\nagain %+v", first, again)
	}
}

// A shard that has nothing to say says so, but not while the journal stands still.
func TestSilentShardsBeat(t *testing.T) {
	tb := newTable(t, 3)
	var beats [3]proto.Time
	for _, s := range tb.m.shards {
		s.config.Deliver = func(b *Batch) { beats[b.Shard] = b.Now }
	}
	tb.after(2 * beat)
	for i, at := range beats {
		if at != tb.now {
			t.Errorf("shard %d was heard of at %d, now is %d", i, at, tb.now)
		}
	}
	before := beats
	open := Command{Kind: OpenAccount, From: desk, Account: 7, Args: &proto.AccountOpening{Name: "Ada"}}
	tb.m.Submit(&open)
	tb.turns() // appended, and not durable
	tb.now += 2 * beat
	tb.turns()
	if own := spread(7, 3); beats[own] != before[own] {
		t.Error("a shard speaks over a journal that stands still")
	}
}

// play runs a random but reproducible conversation of many players over several games.
func play(t testing.TB, shards int, seed uint64, steps int) *table {
	tb := newTable(t, shards)
	r := rand.New(rand.NewPCG(seed, 1))
	var players []proto.AccountID
	for i := range 12 {
		players = append(players, tb.player(i, proto.Amount(1+r.IntN(5000))))
	}
	var games []proto.GameID
	var pools []proto.PoolID
	for range 4 {
		games = append(games, tb.game())
		pools = append(pools, tb.pool(games[len(games)-1], proto.PoolOpening{Takeout: uint16(r.IntN(3000)), StakeMax: 900, Rules: someRules(r)}))
		pools = append(pools, tb.pool(games[len(games)-1], randomDynamic(r)))
	}
	request := proto.RequestID(100)
	for range steps {
		p := pools[r.IntN(len(pools))]
		switch r.IntN(13) {
		case 12:
			pools = append(pools, tb.pool(games[r.IntN(len(games))], randomDynamic(r)))
		case 0:
			pools = append(pools, tb.pool(games[r.IntN(len(games))], proto.PoolOpening{Takeout: uint16(r.IntN(3000)), LocksAt: tb.now + proto.Time(1+r.IntN(9_000_000)), Rules: someRules(r)}))
		case 1:
			tb.do(Command{Kind: LockPool, From: desk, Pool: p, Args: &proto.Locking{At: tb.now - proto.Time(r.IntN(2)*r.IntN(8_000_000))}})
		case 2:
			tb.do(Command{Kind: SettlePool, From: desk, Pool: p, Args: &proto.Settlement{Winners: []proto.Outcome{proto.Outcome(r.IntN(4)), proto.Outcome(r.IntN(3))}[:1+r.IntN(2)]}})
			if r.IntN(3) == 0 {
				tb.do(Command{Kind: WithdrawOutcome, From: desk, Pool: p, Args: &proto.OutcomeWithdrawal{Outcome: proto.Outcome(r.IntN(4))}})
			}
		case 3:
			tb.do(Command{Kind: VoidPool, From: desk, Pool: p, Args: &proto.Voiding{Reason: "chance"}})
		case 4:
			kind := []CommandKind{Deposit, Withdraw}[r.IntN(2)]
			tb.do(Command{Kind: kind, From: desk, Account: players[r.IntN(len(players))], Amount: proto.Amount(r.IntN(800))})
		case 5:
			tb.after(proto.Time(r.IntN(5_000_000)))
		default:
			var stakes []Command
			for range 1 + r.IntN(6) {
				n := r.IntN(len(players))
				request++
				stakes = append(stakes, tb.stakeOf(n, players[n], request-proto.RequestID(r.IntN(3)), pools[r.IntN(len(pools))],
					proto.Outcome(r.IntN(4)), proto.Amount(r.IntN(700))))
				if c := &stakes[len(stakes)-1]; r.IntN(3) == 0 {
					c.Kind, c.Amount, c.Shares = Sell, 0, proto.Shares(r.IntN(1<<r.IntN(30)))
				}
				if r.IntN(4) == 0 {
					stakes[len(stakes)-1].Limit = r.Int64N(3000)
				}
			}
			tb.do(stakes...)
		}
	}
	return tb
}

// The same commands in the same turns give the same bytes.
func TestJournalIsDeterministic(t *testing.T) {
	a, b := play(t, 3, 7, 400), play(t, 3, 7, 400)
	if !bytes.Equal(a.journal.bytes, b.journal.bytes) {
		t.Error("two runs of the same commands differ")
	}
	if a.replay().Digest() != b.replay().Digest() {
		t.Error("two runs of the same commands have different digests")
	}
	if len(a.journal.bytes) < 10_000 {
		t.Errorf("only %d bytes were journaled: the run decides too little", len(a.journal.bytes))
	}
}

// Whatever happens, no money is made or lost: the audit at each test's end holds after every record.
func FuzzMoneyIsConserved(f *testing.F) {
	f.Add(uint64(1), uint8(1))
	f.Add(uint64(2), uint8(2))
	f.Add(uint64(3), uint8(5))
	f.Fuzz(func(t *testing.T, seed uint64, shards uint8) {
		play(t, 1+int(shards%6), seed, 120)
	})
}

// After a crash at any record the market goes on from there, with any number of shards, and a snapshot
// at that point is as good as the records.
func TestEveryPrefixIsAState(t *testing.T) {
	tb := play(t, 3, 11, 150)
	r := NewReplica()
	for i, record := range tb.journal.records {
		if err := r.Apply(uint64(i+1), record); err != nil {
			t.Fatal(err)
		}
		if i%7 != 0 {
			continue
		}
		if err := r.Check(); err != nil {
			t.Fatalf("after record %d: %v", i+1, err)
		}
		var snapshot bytes.Buffer
		if err := r.Snapshot(&snapshot); err != nil {
			t.Fatal(err)
		}
		loaded := NewReplica()
		if err := loaded.Load(&snapshot); err != nil {
			t.Fatalf("after record %d: %v", i+1, err)
		}
		if loaded.Digest() != r.Digest() || loaded.Seq() != r.Seq() || loaded.Totals() != r.Totals() {
			t.Fatalf("after record %d: the snapshot differs", i+1)
		}
		m, err := New(Config{Shards: 1 + i%4, Journal: tb.journal, Now: func() proto.Time { return tb.now }, Deliver: func(*Batch) {}}, loaded)
		if err != nil || m.Digest() != r.Digest() {
			t.Fatalf("after record %d: the market that starts from it differs (%v)", i+1, err)
		}
	}
}

// Whoever looks at the totals while records are applied sees those of one record: they always balance.
func TestTotalsAreOfOneRecord(t *testing.T) {
	tb := newTable(t, 1)
	ada := tb.player(1, 1000)
	deposits := make([]Command, 20_000)
	for i := range deposits {
		deposits[i] = Command{Kind: Deposit, From: desk, Account: ada, Amount: 1}
	}
	tb.do(deposits...)
	r := NewReplica()
	over := make(chan error)
	go func() {
		for i, record := range tb.journal.records {
			if err := r.Apply(uint64(i+1), record); err != nil {
				over <- err
				return
			}
		}
		close(over)
	}()
	for {
		if sums := r.Totals(); sums.Accounts+sums.Pools+sums.House != sums.Deposits-sums.Withdrawals {
			t.Fatalf("%+v", sums)
		}
		select {
		case err := <-over:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

// A broken snapshot is refused, wherever it ends.
func TestBrokenSnapshot(t *testing.T) {
	tb := play(t, 2, 5, 40)
	var snapshot bytes.Buffer
	if err := tb.replay().Snapshot(&snapshot); err != nil {
		t.Fatal(err)
	}
	whole := snapshot.Bytes()
	for end := range whole {
		if err := NewReplica().Load(bytes.NewReader(whole[:end])); err == nil {
			t.Fatalf("a snapshot cut at %d of %d loads", end, len(whole))
		}
	}
}

// A record that does not fit is an error, not a guess: a gap, an unknown kind, a stake without money.
func TestBrokenRecords(t *testing.T) {
	tb := newTable(t, 1)
	tb.player(1, 100)
	for _, row := range []struct {
		name string
		seq  uint64
		r    record
	}{
		{"a gap", 3, record{kind: recordDeposited, id: 1, amount: 1}},
		{"an unknown kind", 2, record{kind: 99}},
		{"a stake in no pool", 2, record{kind: recordStaked, id: 1, pool: 65537, amount: 1}},
		{"a deposit to nobody", 2, record{kind: recordDeposited, id: 9, amount: 1}},
		{"an account again", 2, rare(recordAccountOpened, 1, 1, &proto.AccountOpening{Name: "x"})},
	} {
		if err := tb.replay().Apply(row.seq, row.r.append(nil)[4:]); err == nil {
			t.Errorf("%s applies", row.name)
		}
	}
	if err := tb.replay().Apply(2, []byte{1, 2, 3}); err == nil {
		t.Error("three bytes apply")
	}
}

// A full inbox refuses commands, but never a Detach.
func TestFullInbox(t *testing.T) {
	tb := newTable(t, 1)
	c := Command{Kind: ShowAccount, Account: 1}
	for i := range inboxMax {
		if !tb.m.Submit(&c) {
			t.Fatalf("command %d was refused", i)
		}
	}
	if tb.m.Submit(&c) {
		t.Error("a command over the limit was taken")
	}
	if c.Kind = Detach; !tb.m.Submit(&c) {
		t.Error("a Detach was refused")
	}
}
