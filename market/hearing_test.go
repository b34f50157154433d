package market

import (
	"fmt"
	"slices"
	"testing"

	"tote/server/proto"
)

// atMoments runs a test on tables of one and of several shards.
func atMoments(t *testing.T, f func(t *testing.T, tb *table)) {
	for _, shards := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(shards, " shards"), func(t *testing.T) { f(t, newTable(t, shards)) })
	}
}

// arriving is a stake with an arrival of its own.
func (tb *table) arriving(at proto.Time, n int, a proto.AccountID, id proto.RequestID, p proto.PoolID, amount proto.Amount) Command {
	c := tb.stakeOf(n, a, id, p, 0, amount)
	c.Arrived = at
	return c
}

// verdicts are the answers to stakes, by request.
func verdicts(outs []Out) map[proto.RequestID]proto.Refusal {
	said := map[proto.RequestID]proto.Refusal{}
	for _, o := range outs {
		switch o.Kind {
		case OutReceipt:
			said[o.Receipt.ID] = proto.Accepted
		case OutRefused:
			said[o.Refused.ID] = o.Refused.Reason
		}
	}
	return said
}

// Arrival decides, not the order in which anybody gets to it: a stake that reached the host before the event is accepted though
// a busy loop submits it after the event; one that reached it afterwards is refused though it is submitted at the same time; and
// the event waits for nothing more than that the loops have passed its moment.
func TestArrivalDecides(t *testing.T) {
	for _, row := range []struct {
		name string
		post func(tb *table, g proto.GameID, p proto.PoolID, at proto.Time) Command
	}{
		{"event", func(tb *table, g proto.GameID, p proto.PoolID, at proto.Time) Command {
			return Command{Kind: PostEvent, From: desk, Game: g, Args: &proto.Event{Kind: "goal", Team: 1, Score: [2]uint16{1, 0}, At: at}}
		}},
		{"lock by hand", func(tb *table, g proto.GameID, p proto.PoolID, at proto.Time) Command {
			return Command{Kind: LockPool, From: desk, Pool: p, Args: &proto.Locking{At: at}}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			atMoments(t, func(t *testing.T, tb *table) {
				g := tb.game(proto.Template{Name: "goal", Question: "Who scores next?", Opens: `event.kind == "kickoff"`, Locks: `event.kind == "goal"`,
					Outcomes: []proto.TemplateOutcome{{Label: "A", Wins: "false"}, {Label: "B", Wins: "false"}}})
				p := tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "kickoff"}}).Opened[0]
				other := tb.pool(tb.game(), proto.PoolOpening{})
				var players [8]proto.AccountID
				for n := 1; n < len(players); n++ {
					players[n] = tb.player(n, 1000)
				}
				tb.now += 10
				at := tb.now
				tb.mark = at - 1
				tb.now += 5

				outs := tb.do(row.post(tb, g, p, at))
				if len(all[*proto.Locked](outs)) > 0 {
					t.Fatal("locked before all that arrived in time is here")
				}
				outs = tb.do(tb.arriving(at+1, 1, players[1], 11, p, 10), tb.arriving(at, 2, players[2], 12, p, 20), tb.arriving(at-3, 3, players[3], 13, p, 30),
					tb.arriving(at+2, 4, players[4], 14, other, 40))
				if got := verdicts(outs); len(got) != 3 || got[12] != proto.Accepted || got[13] != proto.Accepted || got[14] != proto.Accepted {
					t.Fatalf("before the lock takes effect the verdicts are %v", got)
				}
				tb.mark = at
				outs = tb.after(0)
				locked := only[*proto.Locked](t, outs)
				if locked.At != at || locked.Odds[0].Staked != 50 {
					t.Errorf("locked %+v, at %d", locked, at)
				}
				refused := outs[slices.IndexFunc(outs, func(o Out) bool { return o.Kind == OutRefused })].Refused
				if got := verdicts(outs); len(got) != 1 || refused.ID != 11 || refused.Reason != proto.RefusedPoolLocked || refused.Arrived != at+1 || refused.Locked != at {
					t.Errorf("after the lock has taken effect the verdicts are %v; %+v", got, refused)
				}
				tb.mark = 0
				if got := tb.verdict(tb.arriving(at-1, 5, players[5], 15, p, 50)); got != proto.RefusedPoolLocked {
					t.Errorf("after the hearing a stake is %q", got.Code())
				}
				if tb.m.Overdue() != 0 {
					t.Error("the hearing is overdue")
				}
			})
		})
	}
}

// A game's rooms are heard with it: an event settles what is asked there too, so early stakes count and later ones wait.
func TestArrivalDecidesInRooms(t *testing.T) {
	tb := newTable(t, 3)
	c, players := tb.circle()
	g := tb.game()
	tb.event(g, proto.Event{Kind: "kickoff", Minute: 1})
	room := tb.room(1, players[1], c, g)
	tb.do(Command{Kind: Join, From: session(2), ID: 3, Account: players[2], Game: room})
	question := tb.ruled()
	question.Locks, question.Voids = `event.kind == "goal"`, ""
	p, _ := tb.asks(1, players[1], room, question)
	tb.now += 10
	at := tb.now
	tb.mark = at - 1
	tb.now += 5
	tb.do(Command{Kind: PostEvent, From: desk, Game: g, Args: &proto.Event{Kind: "goal", Team: 1, Score: [2]uint16{1, 0}, At: at}})
	got := verdicts(tb.do(tb.arriving(at+1, 1, players[1], 11, p, 10), tb.arriving(at, 2, players[2], 12, p, 20)))
	if len(got) != 1 || got[12] != proto.Accepted {
		t.Errorf("before the event takes effect the verdicts are %v", got)
	}
	tb.mark = 0
	if got := verdicts(tb.after(0)); len(got) != 1 || got[11] == proto.Accepted {
		t.Errorf("afterwards the verdicts are %v", got)
	}
}

// A lock time decides in the same way, when it comes.
func TestArrivalDecidesInTime(t *testing.T) {
	atMoments(t, func(t *testing.T, tb *table) {
		p := tb.pool(tb.game(), proto.PoolOpening{LocksAt: tb.now + 100})
		at := tb.now + 100
		first, second := tb.player(1, 1000), tb.player(2, 1000)
		tb.mark = at - 1
		tb.after(150)
		got := verdicts(tb.do(tb.arriving(at, 1, first, 11, p, 10), tb.arriving(at+1, 2, second, 12, p, 20)))
		if got[11] != proto.Accepted || len(got) == 2 && got[12] != proto.RefusedPoolLocked {
			t.Fatalf("the verdicts are %v", got)
		}
		tb.mark = at
		tb.said = nil
		outs := tb.after(0)
		if locked := only[*proto.Locked](t, outs); locked.At != at || locked.Odds[0].Staked != 10 {
			t.Errorf("locked %+v", locked)
		}
		got = verdicts(append(outs, tb.do(tb.arriving(at+1, 2, second, 12, p, 20))...))
		if got[12] != proto.RefusedPoolLocked {
			t.Errorf("the verdicts are %v", got)
		}
	})
}

// An account's second stake in a pool waits for the first one's verdict. Where both arrived in time both count, however
// many letters that takes.
func TestHearingWaitsForQueues(t *testing.T) {
	atMoments(t, func(t *testing.T, tb *table) {
		g := tb.game()
		p := tb.pool(g, proto.PoolOpening{})
		var commands []Command
		for n := 1; n <= 6; n++ {
			a := tb.player(n, 1000)
			for k := range 4 {
				commands = append(commands, tb.arriving(tb.now, n, a, proto.RequestID(10*n+k), p, 10))
			}
		}
		tb.now += 10
		for _, s := range tb.m.shards { // the event gets to its shard before any of them
			if s == tb.m.shardOfGame(g) {
				lock := Command{Kind: LockPool, From: desk, Pool: p, Args: &proto.Locking{At: tb.now - 5}}
				s.inbox.submit(&lock)
				for i := range commands {
					tb.m.Submit(&commands[i])
				}
				s.turn(tb.now)
			}
		}
		tb.said = nil
		tb.settle()
		for id, verdict := range verdicts(tb.said) {
			if verdict != proto.Accepted {
				t.Errorf("stake %d is %q", id, verdict.Code())
			}
		}
		if locked := only[*proto.Locked](t, tb.said); locked.Odds[0].Staked != 6*4*10 || locked.Odds[0].Backers != 6 {
			t.Errorf("locked %+v", locked)
		}
	})
}

// A feed is late itself: it names a moment that is past. What was accepted though it had arrived after that moment is returned as late,
// before the winners are paid.
func TestEventInThePast(t *testing.T) {
	atMoments(t, func(t *testing.T, tb *table) {
		g := tb.game(proto.Template{Name: "goal", Question: "Who scores next?", Opens: `event.kind == "kickoff"`,
			Outcomes: []proto.TemplateOutcome{{Label: "A", Wins: `event.kind == "goal"`}, {Label: "B", Wins: "false"}}})
		p := tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "kickoff"}}).Opened[0]
		early, posting, loser := tb.player(1, 1000), tb.player(2, 1000), tb.player(3, 1000)
		tb.now += 1000
		at := tb.now
		tb.accept(1, early, 11, p, 0, 100)
		tb.accept(3, loser, 13, p, 1, 100)
		tb.now += 1000
		tb.accept(2, posting, 12, p, 0, 500) // he has seen it
		tb.now += 1000
		tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "goal", Team: 1, At: at}})
		refund := only[*proto.Refund](t, tb.said)
		if refund.Amount != 500 || refund.Reason != proto.RefundLate {
			t.Errorf("refunded %+v", refund)
		}
		if locked := only[*proto.Locked](t, tb.said); locked.At != at || locked.Odds[0].Staked != 100 {
			t.Errorf("locked %+v", locked)
		}
		for n, want := range map[int]proto.Amount{1: 1100, 2: 1000, 3: 900} {
			if got := tb.balance(n, []proto.AccountID{1: early, 2: posting, 3: loser}[n]); got != want {
				t.Errorf("player %d has %d, want %d", n, got, want)
			}
		}
	})
}

// What a loop submits before it says that a moment has passed is heard, though the shard has taken its inbox already.
func TestHearingTakesTheInbox(t *testing.T) {
	atMoments(t, func(t *testing.T, tb *table) {
		p := tb.pool(tb.game(), proto.PoolOpening{})
		a := tb.player(1, 1000)
		tb.passing = func() {
			stake := tb.arriving(tb.now, 1, a, 11, p, 10)
			tb.m.Submit(&stake)
			tb.passing = nil
		}
		outs := tb.do(Command{Kind: LockPool, From: desk, Pool: p, Args: &proto.Locking{}})
		if got := verdicts(outs); got[11] != proto.Accepted || len(got) != 1 {
			t.Errorf("the verdicts are %v", got)
		}
	})
}

// An early stake behind a later one of the same account, which came by another connection, does not hold up the game.
func TestHearingDoesNotWaitForItself(t *testing.T) {
	atMoments(t, func(t *testing.T, tb *table) {
		p := tb.pool(tb.game(), proto.PoolOpening{})
		for n := 1; n <= 6; n++ {
			tb.player(n, 1000)
		}
		tb.mark = tb.now - 1
		tb.do(Command{Kind: LockPool, From: desk, Pool: p, Args: &proto.Locking{}})
		for n := 1; n <= 6; n++ {
			a := proto.AccountID(n)
			tb.do(tb.arriving(tb.now+1, n, a, 11, p, 10), tb.arriving(tb.now, n, a, 12, p, 10))
		}
		tb.mark = 0
		only[*proto.Locked](t, tb.after(0))
		if tb.m.Overdue() != 0 {
			t.Error("the hearing is overdue")
		}
	})
}

// What operators do to a game while it hears something is done afterwards, in the order in which it came; stakes between two
// moments are judged between them.
func TestMattersKeepTheirOrder(t *testing.T) {
	atMoments(t, func(t *testing.T, tb *table) {
		g := tb.game()
		one, two := tb.pool(g, proto.PoolOpening{}), tb.pool(g, proto.PoolOpening{})
		a, b := tb.player(1, 1000), tb.player(2, 1000)
		first := tb.now + 10
		second := first + 10
		tb.now = second + 10
		tb.mark = first - 1
		tb.do(Command{Kind: LockPool, From: desk, Pool: one, Args: &proto.Locking{At: first}},
			Command{Kind: LockPool, From: desk, Pool: two, Args: &proto.Locking{At: second}},
			Command{Kind: SettlePool, From: desk, Pool: one, Args: &proto.Settlement{Winners: []proto.Outcome{0}}})
		tb.do(tb.arriving(first+5, 1, a, 11, one, 10), tb.arriving(first+6, 2, b, 12, two, 20))
		if len(all[*proto.Locked](tb.said)) > 0 || len(verdicts(tb.said)) > 0 {
			t.Fatalf("before the first moment has passed: %+v", tb.said)
		}
		tb.mark = first
		tb.after(0)
		if got := verdicts(tb.said); len(got) != 2 || got[11] != proto.RefusedPoolLocked || got[12] != proto.Accepted {
			t.Fatalf("after the first moment the verdicts are %v", got)
		}
		if locked := only[*proto.Locked](t, tb.said); locked.Pool != one {
			t.Errorf("locked %+v", locked)
		}
		tb.mark = second
		tb.after(0)
		if locked := only[*proto.Locked](t, tb.said); locked.Pool != two || locked.Odds[0].Staked != 20 {
			t.Errorf("locked %+v", locked)
		}
		if settled := only[*proto.Settled](t, tb.said); settled.Pool != one {
			t.Errorf("settled %+v", settled)
		}
		if n := len(slices.DeleteFunc(tb.said, func(o Out) bool { return o.Kind != OutAnswer })); n != 2 {
			t.Errorf("%d operators are answered", n)
		}
	})
}

// A loop that says nothing does not hold up a game for longer than a second, and that is counted.
func TestHearingIsBounded(t *testing.T) {
	atMoments(t, func(t *testing.T, tb *table) {
		g := tb.game()
		p := tb.pool(g, proto.PoolOpening{})
		a := tb.player(1, 1000)
		tb.mark = tb.now - 1
		tb.do(Command{Kind: LockPool, From: desk, Pool: p, Args: &proto.Locking{}}, tb.arriving(tb.now+1, 1, a, 11, p, 10))
		if outs := tb.after(hearingMax - 1); len(all[*proto.Locked](outs)) > 0 {
			t.Fatal("locked too soon")
		}
		outs := tb.after(1)
		only[*proto.Locked](t, outs)
		if got := verdicts(outs); got[11] != proto.RefusedPoolLocked {
			t.Errorf("the verdicts are %v", got)
		}
		if tb.m.Overdue() != 1 {
			t.Errorf("%d hearings are overdue", tb.m.Overdue())
		}
	})
}

// A market that stops ends its hearings.
func TestHearingAtTheEnd(t *testing.T) {
	tb := newTable(t, 2)
	p := tb.pool(tb.game(), proto.PoolOpening{})
	tb.mark = tb.now - 1
	tb.do(Command{Kind: LockPool, From: desk, Pool: p, Args: &proto.Locking{}})
	if tb.m.settled() {
		t.Fatal("nothing is being heard")
	}
	tb.mark = 0 // the loops have ended
	tb.turns()
	if !tb.m.settled() {
		t.Error("a hearing is left")
	}
}

// A receipt says when the request arrived and when the pool locks, if it is to lock at a time.
func TestReceiptsNameTheLock(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 1000)
	g := tb.game()
	timed, untimed := tb.pool(g, proto.PoolOpening{LocksAt: tb.now + proto.Minute}), tb.pool(g, proto.PoolOpening{})
	if r := tb.accept(1, ada, 2, timed, 0, 10); r.Arrived != tb.now || r.LocksAt != tb.now+proto.Minute {
		t.Errorf("arrived %d, locks at %d; want %d and a minute later", r.Arrived, r.LocksAt, tb.now)
	}
	if r := tb.accept(1, ada, 3, untimed, 0, 10); r.LocksAt != 0 {
		t.Errorf("a pool that an event locks has the lock time %d", r.LocksAt)
	}
}
