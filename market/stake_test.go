package market

import (
	"slices"
	"testing"

	"tote/server/proto"
)

// What is packed comes out again, whatever else is packed beside it.
func FuzzStakePacks(f *testing.F) {
	f.Add(uint64(1), uint8(0), uint64(1), uint32(1), int64(0))
	f.Add(uint64(idMask), uint8(63), uint64(proto.AmountMax), uint32(1<<32-1), int64(arrivalMax))
	f.Add(uint64(1)<<52, uint8(1), uint64(1)<<52, uint32(1)<<31, int64(1)<<47)
	f.Add(uint64(7), uint8(5), uint64(3), uint32(9), int64(1)<<42|1<<43|1<<32|1<<31)
	f.Fuzz(func(t *testing.T, account uint64, outcome uint8, amount uint64, after uint32, arrival int64) {
		account, outcome, amount = account&idMask, outcome&outcomeMask, amount&idMask
		s := newStake(proto.AccountID(account), proto.Outcome(outcome), proto.Amount(amount), after, proto.Time(arrival))
		at := min(max(arrival, 0), arrivalMax)
		if s.account() != proto.AccountID(account) || s.outcome() != proto.Outcome(outcome) || s.amount() != proto.Amount(amount) ||
			s.after() != after || s.arrival() != proto.Time(at) {
			t.Errorf("account %d outcome %d amount %d after %d arrival %d came out as %d %d %d %d %d", account, outcome, amount, after, at,
				s.account(), s.outcome(), s.amount(), s.after(), s.arrival())
		}
		p := newPlace(proto.PoolID(account), proto.Outcome(outcome))
		if p.pool() != proto.PoolID(account) || p.outcome() != proto.Outcome(outcome) {
			t.Errorf("pool %d outcome %d came out as %d %d", account, outcome, p.pool(), p.outcome())
		}
		closed := (&ticket{}).close(proto.PredictionRefunded, proto.Amount(amount))
		if closed.payout() != proto.Amount(amount) || closed.state() != proto.PredictionRefunded {
			t.Errorf("payout %d came out as %d, %s", amount, closed.payout(), closed.state())
		}
	})
}

// The chunks hold what a plain slice would.
func TestStakesInChunks(t *testing.T) {
	var chunks stakes
	var plain []stake
	for n := range 3*stakeChunk + 2 {
		if n < 50 || n%stakeChunk < 2 {
			if got := slices.Collect(chunks.all()); chunks.len() != n || !slices.Equal(got, plain) {
				t.Fatalf("after %d stakes there are %d", n, chunks.len())
			}
		}
		s := newStake(proto.AccountID(n+1), 1, 5, uint32(n), 9)
		chunks.add(s)
		plain = append(plain, s)
		if chunks.at(n) != s {
			t.Fatalf("stake %d is %v", n, chunks.at(n))
		}
	}
}

// An account's stakes in one pool are decided one after another, so its backing is counted once, however many shards and
// however many at once; a waiting one is decided whatever became of the one before it.
func TestBackersAreExact(t *testing.T) {
	for _, shards := range []int{1, 2, 5} {
		tb := newTable(t, shards)
		ada, bob := tb.player(1, 1000), tb.player(2, 1000)
		g := tb.game()
		p, q := tb.pool(g, proto.PoolOpening{StakeMin: 10}), tb.pool(g, proto.PoolOpening{})
		outs := tb.do(
			tb.stakeOf(1, ada, 1, p, 0, 10), tb.stakeOf(1, ada, 2, p, 0, 20), tb.stakeOf(1, ada, 3, p, 1, 9), // too small
			tb.stakeOf(1, ada, 4, q, 0, 1), tb.stakeOf(2, bob, 1, p, 0, 30), tb.stakeOf(1, ada, 5, p, 1, 40), tb.stakeOf(1, ada, 6, p, 0, 50),
			tb.stakeOf(1, ada, 6, p, 0, 50)) // again, while it waits
		var ids []proto.RequestID
		for _, o := range outs {
			if o.Kind == OutReceipt && o.Receipt.Pool == p && o.To == session(1) {
				ids = append(ids, o.Receipt.ID)
			}
			if o.Kind == OutRefused && (o.Refused.ID != 3 || o.Refused.Reason != proto.RefusedStakeSmall) {
				t.Errorf("%d shards: refused %+v", shards, o.Refused)
			}
		}
		if want := []proto.RequestID{1, 2, 5, 6, 6}; !slices.Equal(ids, want) {
			t.Errorf("%d shards: receipts of %v, want %v", shards, ids, want)
		}
		pools := only[*proto.Pools](t, tb.do(Command{Kind: ShowPools, From: session(1), ID: 9, Game: g})).Pools
		for i, want := range []proto.Odd{{Staked: 110, Backers: 2}, {Staked: 40, Backers: 1}} {
			if got := pools[0].Odds[i]; got.Staked != want.Staked || got.Backers != want.Backers {
				t.Errorf("%d shards: outcome %d stands at %+v, want %+v", shards, i, got, want)
			}
		}
	}
}

// An account to which nobody has attached keeps nothing but what is in the journal.
func TestNobodyAttachedKeepsNoLane(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 100)
	p := tb.pool(tb.game(), proto.PoolOpening{})
	tb.accept(1, ada, 1, p, 0, 10)
	restarted := reopen(t, 2, tb.replay(), tb.journal.records)
	restarted.lock(p)
	restarted.do(restarted.stakeOf(1, ada, 2, p+1, 0, 10)) // refused
	restarted.settlePool(p, 0)
	a := restarted.m.shardOfAccount(ada).accounts[ada]
	if a.live != nil && a.live.n != 0 {
		t.Errorf("%d private messages for nobody", a.live.n)
	}
	if welcome := only[*proto.Welcome](t, restarted.do(Command{Kind: Attach, From: session(1), ID: 1, Account: ada})); welcome.N != 0 || welcome.Balance != 100 {
		t.Errorf("welcome %+v", welcome)
	}
}

// An account has so many connections and no more, whichever loops they are on; whoever leaves makes room, and one that says hello again is
// still one.
func TestConnectionsOfAnAccount(t *testing.T) {
	tb := newTable(t, 2)
	for _, s := range tb.m.shards {
		s.config.Connections = 3
	}
	ada, bob := tb.player(1, 100), tb.player(2, 100) // attached already
	attach := func(loop, n int, a proto.AccountID) Command {
		return Command{Kind: Attach, From: NewSession(loop, 1, uint32(n)), ID: 1, Account: a}
	}
	for _, row := range []struct {
		name string
		c    Command
		want proto.Refusal
	}{
		{"a second", attach(0, 11, ada), proto.Accepted},
		{"a third, on another loop", attach(1, 11, ada), proto.Accepted},
		{"a fourth", attach(0, 12, ada), proto.RefusedConnectionsMany},
		{"the third again", attach(1, 11, ada), proto.Accepted},
		{"somebody else's", attach(0, 13, bob), proto.Accepted},
	} {
		if got := tb.verdict(row.c); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got.Code(), row.want.Code())
		}
	}
	tb.do(Command{Kind: Detach, From: NewSession(0, 1, 12), Account: ada}) // who was refused leaves no room
	if got := tb.verdict(attach(0, 14, ada)); got != proto.RefusedConnectionsMany {
		t.Errorf("after one left that was never in: %q", got.Code())
	}
	tb.do(Command{Kind: Detach, From: NewSession(0, 1, 11), Account: ada})
	if got := tb.verdict(attach(0, 14, ada)); got != proto.Accepted {
		t.Errorf("after one left: %q", got.Code())
	}
}
