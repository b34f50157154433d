package market

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tote/server/market/rules"
	"tote/server/proto"
)

// configured is a table whose market is configured otherwise.
func configured(t testing.TB, shards int, change func(*Config)) *table {
	tb := newTable(t, shards)
	for _, s := range tb.m.shards {
		change(&s.config)
	}
	return tb
}

func moderated(c *Config) { c.Moderate = true }

// corner is a question that its asker settles; it locks in a minute.
func (tb *table) corner() proto.Question {
	return proto.Question{Question: "Who takes the next corner?", Labels: []string{"Argentina", "France"}, LocksAt: tb.now + proto.Minute}
}

// ruled is a question that events settle.
func (tb *table) ruled() proto.Question {
	return proto.Question{Question: "Another goal?", Labels: []string{"Yes", "No"}, Settle: proto.SettledByRules,
		Wins: []string{`event.kind == "goal"`, `event.kind == "end"`}, Locks: `event.kind == "halftime"`, Voids: `event.kind == "fog"`}
}

func (tb *table) askOf(n int, a proto.AccountID, g proto.GameID, q proto.Question) Command {
	return Command{Kind: Ask, From: session(n), ID: 50, Account: a, Game: g, Args: &q, Arrived: tb.now}
}

// on makes a player's command on a pool.
func (tb *table) on(kind CommandKind, n int, a proto.AccountID, p proto.PoolID) Command {
	return Command{Kind: kind, From: session(n), ID: 51, Account: a, Pool: p, Arrived: tb.now}
}

func (tb *table) resolveOf(n int, a proto.AccountID, p proto.PoolID, winners ...proto.Outcome) Command {
	c := tb.on(Resolve, n, a, p)
	c.Args = &proto.Settlement{Winners: winners}
	return c
}

// asks must succeed; the next question of the account may follow.
func (tb *table) asks(n int, a proto.AccountID, g proto.GameID, q proto.Question) (proto.PoolID, proto.PoolState) {
	tb.t.Helper()
	tb.after(askEvery)
	outs := tb.do(tb.askOf(n, a, g, q))
	for _, m := range all[*proto.QuestionState](outs) {
		if m.ID == 50 {
			return m.Pool, m.State
		}
	}
	tb.t.Fatalf("the question was answered %+v", outs)
	return 0, 0
}

// is fails unless the pool is in the state, to whoever asks its game's shard.
func (tb *table) is(p proto.PoolID, want proto.PoolState) {
	tb.t.Helper()
	if got := tb.m.shardOfGame(p.Game()).pool(p).state; got != want {
		tb.t.Fatalf("pool %d is %s, want %s", p, got, want)
	}
}

// asked is a question with two stakes of 100 each, by players 2 and 3; player 1 asked it.
func (tb *table) asked() (g proto.GameID, p proto.PoolID, players [4]proto.AccountID) {
	tb.t.Helper()
	for n := 1; n < len(players); n++ {
		players[n] = tb.player(n, 1000)
	}
	g = tb.game()
	p, _ = tb.asks(1, players[1], g, tb.corner())
	tb.accept(2, players[2], 1, p, 0, 100)
	tb.accept(3, players[3], 1, p, 1, 100)
	return g, p, players
}

// states are what the asker was told privately.
func states(outs []Out) (told []proto.PoolState) {
	for _, m := range all[*proto.QuestionState](outs) {
		if m.ID == 0 {
			told = append(told, m.State)
		}
	}
	return told
}

// A claim that nobody challenges settles by itself, at the end of the window, and not before.
func TestUnchallengedClaimSettles(t *testing.T) {
	tb := newTable(t, 3)
	_, p, players := tb.asked()
	tb.is(p, proto.PoolOpen)
	if told := states(tb.after(proto.Minute)); !slices.Equal(told, []proto.PoolState{proto.PoolLocked}) {
		t.Errorf("at the lock the asker was told %v", told)
	}
	outs := tb.do(tb.resolveOf(1, players[1], p, 1))
	changed := only[*proto.PoolChanged](t, outs).Pool
	want := proto.Asked{Account: players[1], Name: "player 1", Claim: []proto.Outcome{1}, Until: tb.now + challengesDefault}
	if changed.State != proto.PoolClaimed || !reflect.DeepEqual(changed.Asked, want) {
		t.Errorf("the claim is told as %+v", changed)
	}
	tb.after(challengesDefault - 1)
	tb.is(p, proto.PoolClaimed)
	outs = tb.after(1)
	if m := only[*proto.Settled](t, outs); m.Paid != 200 || m.Winners[0] != 1 {
		t.Errorf("settled %+v", m)
	}
	if m := only[*proto.Payout](t, outs); m.Payout != 200 {
		t.Errorf("paid %+v", m)
	}
	if tb.balance(1, players[1]) != 1000 || tb.balance(3, players[3]) != 1100 {
		t.Errorf("balances are %d and %d: the asker has no share", tb.balance(1, players[1]), tb.balance(3, players[3]))
	}
}

// Whoever has staked may challenge; then an operator decides, and where he does not, all stakes return.
func TestChallengedClaim(t *testing.T) {
	for _, row := range []struct {
		name string
		ends func(*table, proto.PoolID)
		want [2]proto.Amount // of players 2 and 3
	}{
		{"settled by an operator", func(tb *table, p proto.PoolID) { tb.settlePool(p, 0) }, [2]proto.Amount{1100, 900}},
		{"voided by an operator", func(tb *table, p proto.PoolID) {
			tb.answer(Command{Kind: VoidPool, Pool: p, Args: &proto.Voiding{Reason: "nobody knows"}})
		}, [2]proto.Amount{1000, 1000}},
		{"forgotten", func(tb *table, p proto.PoolID) {
			tb.after(challengesDefault + voidAfter - 1)
			tb.is(p, proto.PoolClaimed)
			tb.after(1)
			tb.is(p, proto.PoolVoided)
		}, [2]proto.Amount{1000, 1000}},
	} {
		t.Run(row.name, func(t *testing.T) {
			tb := newTable(t, 2)
			_, p, players := tb.asked()
			tb.after(proto.Minute)
			tb.do(tb.resolveOf(1, players[1], p, 1))
			outs := tb.do(tb.on(Challenge, 2, players[2], p))
			if m := only[*proto.PoolChanged](t, outs).Pool; m.State != proto.PoolClaimed || m.Asked.Until != 0 {
				t.Errorf("the challenge is told as %+v", m)
			}
			if again := tb.do(tb.on(Challenge, 3, players[3], p)); len(all[*proto.PoolChanged](again)) != 0 {
				t.Error("a second challenge changes something")
			}
			row.ends(tb, p)
			if got := [2]proto.Amount{tb.balance(2, players[2]), tb.balance(3, players[3])}; got != row.want {
				t.Errorf("balances are %v, want %v", got, row.want)
			}
		})
	}
}

// Who asked and never names a winner: the pool voids itself.
func TestAskerNeverResolves(t *testing.T) {
	tb := newTable(t, 2)
	_, p, players := tb.asked()
	tb.after(proto.Minute)
	tb.after(voidAfter)
	tb.is(p, proto.PoolVoided)
	if b := tb.balance(2, players[2]); b != 1000 {
		t.Errorf("player 2 has %d back", b)
	}
}

// A proposed question is nobody's but its asker's until an operator approves.
func TestModeration(t *testing.T) {
	tb := configured(t, 3, moderated)
	ada, bob := tb.player(1, 1000), tb.player(2, 1000)
	g := tb.game()
	tb.after(askEvery)
	outs := tb.do(tb.askOf(1, ada, g, tb.corner()))
	p := only[*proto.QuestionState](t, outs).Pool
	if len(all[*proto.Opened](outs)) != 0 {
		t.Error("a proposed question is shown to all")
	}
	image := Command{Kind: Join, From: session(2), ID: 3, Account: bob, Game: g}
	if m := only[*proto.Joined](t, tb.do(image)); len(m.Pools) != 0 {
		t.Errorf("a proposed question is in the image: %+v", m)
	}
	if got := tb.verdict(tb.stakeOf(2, bob, 1, p, 0, 10)); got != proto.RefusedPoolProposed {
		t.Errorf("a stake: %q", got.Code())
	}
	if got := tb.verdict(tb.on(Report, 2, bob, p)); got != proto.RefusedPoolUnknown {
		t.Errorf("a report: %q", got.Code())
	}
	if got := tb.verdict(tb.on(ShowFriends, 2, bob, p)); got != proto.RefusedPoolUnknown {
		t.Errorf("friends: %q", got.Code())
	}
	listed := only[*proto.Questions](t, tb.do(Command{Kind: ShowInquiries, From: desk, Game: g})).Questions
	if len(listed) != 1 || listed[0].Pool.State != proto.PoolProposed || listed[0].Pool.Asked.Name != "player 1" {
		t.Errorf("the operator sees %+v", listed)
	}
	outs = tb.do(Command{Kind: ApprovePool, From: desk, Pool: p})
	if m := only[*proto.Opened](t, outs); m.Pool.Pool != p || m.Pool.State != proto.PoolOpen {
		t.Errorf("approved, it is told as %+v", m)
	}
	if told := states(outs); !slices.Equal(told, []proto.PoolState{proto.PoolOpen}) {
		t.Errorf("the asker was told %v", told)
	}
	tb.accept(2, bob, 2, p, 0, 10)

	rejected, state := tb.asks(1, ada, g, tb.corner())
	if state != proto.PoolProposed {
		t.Errorf("the second is %s", state)
	}
	outs = tb.do(Command{Kind: VoidPool, From: desk, Pool: rejected, Args: &proto.Voiding{Reason: "be nice"}})
	if len(all[*proto.Voided](outs)) != 0 || !slices.Equal(states(outs), []proto.PoolState{proto.PoolVoided}) {
		t.Errorf("a rejection is told as %+v", outs)
	}
	own := only[*proto.Questions](t, tb.do(Command{Kind: ShowQuestions, From: session(1), ID: 1, Account: ada, Game: g})).Questions
	if len(own) != 2 || own[1].Reason != "be nice" || own[1].Pool.State != proto.PoolVoided {
		t.Errorf("the asker's questions are %+v", own)
	}
	if past := only[*proto.Archive](t, tb.past(Command{Kind: ShowArchive, From: session(2), Account: bob, Game: g})); len(past.Pools) != 0 {
		t.Errorf("a rejected question is in the archive: %+v", past.Pools)
	}
	if others := only[*proto.Questions](t, tb.do(Command{Kind: ShowQuestions, From: session(2), ID: 1, Account: bob, Game: g})).Questions; len(others) != 0 {
		t.Errorf("another's questions are %+v", others)
	}
	if m := only[*proto.Joined](t, tb.do(image)); len(m.Pools) != 1 || m.Pools[0].Pool != p {
		t.Errorf("a rejected question is in the image: %+v", m)
	}

	late, _ := tb.asks(1, ada, g, tb.corner())
	tb.after(proto.Minute)
	tb.is(late, proto.PoolVoided) // nobody approved it in time
	known, _ := tb.asks(1, ada, g, tb.ruled())
	tb.event(g, proto.Event{Kind: "goal"})
	tb.is(known, proto.PoolVoided) // its answer came before
}

func (tb *table) event(g proto.GameID, e proto.Event) proto.Answer {
	tb.t.Helper()
	return tb.answer(Command{Kind: PostEvent, Game: g, Args: &e})
}

// So many different players who report a question suspend it; an operator lets it go on, and then reports count no more.
func TestReports(t *testing.T) {
	tb := newTable(t, 3)
	g, p, players := tb.asked()
	eve, joe := tb.player(4, 1000), tb.player(5, 1000)
	for n, a := range map[int]proto.AccountID{2: players[2], 3: players[3]} {
		if got := tb.verdict(tb.on(Report, n, a, p)); got != proto.Accepted {
			t.Fatalf("report: %q", got.Code())
		}
	}
	if got := tb.verdict(tb.on(Report, 2, players[2], p)); got != proto.RefusedReportAgain {
		t.Errorf("the same player again: %q", got.Code())
	}
	tb.is(p, proto.PoolOpen)
	outs := tb.do(tb.on(Report, 4, eve, p))
	if m := only[*proto.PoolChanged](t, outs).Pool; m.State != proto.PoolSuspended || !m.Asked.Suspended {
		t.Errorf("the third report is told as %+v", m)
	}
	if got := tb.verdict(tb.stakeOf(4, eve, 1, p, 0, 10)); got != proto.RefusedPoolSuspended {
		t.Errorf("a stake: %q", got.Code())
	}
	if got := tb.verdict(tb.on(Report, 5, joe, p)); got != proto.RefusedPoolSuspended {
		t.Errorf("a report too late: %q", got.Code())
	}
	tb.answer(Command{Kind: ApprovePool, Pool: p})
	tb.is(p, proto.PoolOpen)
	tb.accept(4, eve, 2, p, 0, 10)
	if tb.do(tb.on(Report, 5, joe, p)); true {
		tb.is(p, proto.PoolOpen)
	}

	// Its lock comes while it is suspended: it locks, and its asker cannot name the winner.
	second, _ := tb.asks(1, players[1], g, tb.corner())
	tb.accept(2, players[2], 9, second, 0, 10)
	tb.do(tb.on(Report, 2, players[2], second), tb.on(Report, 3, players[3], second), tb.on(Report, 4, eve, second))
	tb.after(proto.Minute)
	tb.is(second, proto.PoolLocked)
	if got := tb.verdict(tb.resolveOf(1, players[1], second, 0)); got != proto.RefusedPoolSuspended {
		t.Errorf("a claim on a suspended question: %q", got.Code())
	}
	tb.answer(Command{Kind: ApprovePool, Pool: second})
	tb.is(second, proto.PoolLocked)
	if got := tb.verdict(tb.resolveOf(1, players[1], second, 0)); got != proto.Accepted {
		t.Errorf("a claim after it was cleared: %q", got.Code())
	}
}

// Rules settle a question as they settle a template's; the end of the game locks what nothing else has.
func TestRuledQuestion(t *testing.T) {
	for _, row := range []struct {
		kind string
		want proto.PoolState
	}{{"goal", proto.PoolSettled}, {"end", proto.PoolSettled}, {"halftime", proto.PoolLocked}, {"fog", proto.PoolVoided}, {"minute", proto.PoolOpen}} {
		t.Run(row.kind, func(t *testing.T) {
			tb := newTable(t, 2)
			ada, bob := tb.player(1, 1000), tb.player(2, 1000)
			g := tb.game()
			p, _ := tb.asks(1, ada, g, tb.ruled())
			tb.accept(1, ada, 1, p, 1, 100) // he does not decide, so he may
			tb.accept(2, bob, 1, p, 0, 100)
			tb.event(g, proto.Event{Kind: row.kind})
			tb.is(p, row.want)
			if got := tb.verdict(tb.resolveOf(1, ada, p, 0)); got != proto.RefusedSettledOtherwise && row.want != proto.PoolOpen {
				t.Errorf("the asker names a winner: %q", got.Code())
			}
		})
	}
	tb := newTable(t, 1)
	ada := tb.player(1, 1000)
	g := tb.game()
	p, _ := tb.asks(1, ada, g, tb.corner())
	tb.event(g, proto.Event{Kind: "end"})
	tb.is(p, proto.PoolLocked)
}

// Everything that a player may not do with questions, with its refusal.
func TestQuestionRefusals(t *testing.T) {
	tb := newTable(t, 3)
	g, p, players := tb.asked()
	ada, bob := players[1], players[2]
	idle := tb.player(4, 1000)
	operators := tb.pool(g, proto.PoolOpening{})
	ended := tb.game()
	tb.event(ended, proto.Event{Kind: "end"})
	byAdmin := tb.corner()
	byAdmin.Settle = proto.SettledByAdmin
	admins, _ := tb.asks(2, bob, g, byAdmin)
	with := func(change func(*proto.Question)) Command {
		q := tb.corner()
		change(&q)
		return tb.askOf(4, idle, g, q)
	}
	for _, row := range []struct {
		name    string
		command Command
		want    proto.Refusal
	}{
		{"no such game", tb.askOf(4, idle, 999, tb.corner()), proto.RefusedGameUnknown},
		{"the game is over", tb.askOf(4, idle, ended, tb.corner()), proto.RefusedGameEnded},
		{"no question", with(func(q *proto.Question) { q.Question = "" }), proto.RefusedTextInvalid},
		{"a long label", with(func(q *proto.Question) { q.Labels[0] = strings.Repeat("x", textMax+1) }), proto.RefusedTextInvalid},
		{"one label", with(func(q *proto.Question) { q.Labels = q.Labels[:1] }), proto.RefusedOutcomesCount},
		{"equal labels", with(func(q *proto.Question) { q.Labels[0] = q.Labels[1] }), proto.RefusedLabelsAlike},
		{"no lock", with(func(q *proto.Question) { q.LocksAt = 0 }), proto.RefusedLockMissing},
		{"a lock in the past", with(func(q *proto.Question) { q.LocksAt = tb.now }), proto.RefusedLockPast},
		{"a lock too far", with(func(q *proto.Question) { q.LocksAt = tb.now + inquiryLockMax + proto.Minute }), proto.RefusedLockFar},
		{"rules that do not compile", with(func(q *proto.Question) { *q = tb.ruled(); q.Wins[1] = `event.sort == "goal"` }), proto.RefusedTemplate},
		{"too few rules", with(func(q *proto.Question) { *q = tb.ruled(); q.Wins = q.Wins[:1] }), proto.RefusedTemplate},
		{"a long rule", with(func(q *proto.Question) { *q = tb.ruled(); q.Locks = strings.Repeat(" ", inquiryRuleMax) + "true" }), proto.RefusedTemplate},
		{"rules that nobody asks", with(func(q *proto.Question) { q.Locks = "true" }), proto.RefusedTemplate},

		{"stake by the asker", tb.stakeOf(1, ada, 70, p, 0, 10), proto.RefusedStakeByAsker},
		{"resolve before the lock", tb.resolveOf(1, ada, p, 0), proto.RefusedPoolOpen},
		{"resolve another's", tb.resolveOf(2, bob, p, 0), proto.RefusedQuestionForeign},
		{"resolve what an operator settles", tb.resolveOf(2, bob, admins, 0), proto.RefusedSettledOtherwise},
		{"resolve the house's", tb.resolveOf(2, bob, operators, 0), proto.RefusedPoolUnasked},
		{"resolve nothing", tb.resolveOf(2, bob, proto.NewPoolID(g, 999), 0), proto.RefusedPoolUnknown},
		{"resolve in no game", tb.resolveOf(2, bob, proto.NewPoolID(999, 1), 0), proto.RefusedPoolUnknown},
		{"challenge an open one", tb.on(Challenge, 2, bob, p), proto.RefusedClaimMissing},
		{"challenge without a stake", tb.on(Challenge, 4, idle, p), proto.RefusedBackersOnly},
		{"report one's own", tb.on(Report, 1, ada, p), proto.RefusedReportOwn},
		{"report the house's", tb.on(Report, 1, ada, operators), proto.RefusedPoolUnasked},
		{"approve what is open", Command{Kind: ApprovePool, From: desk, Pool: p}, proto.RefusedApproval},
		{"approve the house's", Command{Kind: ApprovePool, From: desk, Pool: operators}, proto.RefusedPoolUnasked},
		{"settle by an operator before the lock", Command{Kind: SettlePool, From: desk, Pool: p, Args: &proto.Settlement{Winners: []proto.Outcome{0}}}, proto.RefusedPoolOpen},
	} {
		tb.after(askEvery)
		before := len(tb.journal.records)
		if got := tb.verdictOrDetail(row.command); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got.Code(), row.want.Code())
		}
		if len(tb.journal.records) != before {
			t.Errorf("%s left a record", row.name)
		}
	}

	tb.after(askEvery)
	bad := tb.ruled()
	bad.Wins[1] = "true &&\n event.sort"
	refused := only[*proto.Refused](t, tb.do(tb.askOf(4, idle, g, bad)))
	if !strings.Contains(refused.Detail, "wins 2:2: there is no event.sort") {
		t.Errorf("the place is %q", refused.Detail)
	}
	if got := tb.verdict(tb.askOf(4, idle, g, tb.corner())); got != proto.RefusedQuestionsFast {
		t.Errorf("at once again: %q", got.Code())
	}
	for range askerOpenMax - 1 {
		tb.asks(1, ada, g, tb.corner())
	}
	tb.after(askEvery)
	if got := tb.verdict(tb.askOf(1, ada, g, tb.corner())); got != proto.RefusedQuestionsMany {
		t.Errorf("one too many: %q", got.Code())
	}

	tb.after(proto.Minute)
	if got := tb.verdict(tb.on(Report, 2, bob, p)); got != proto.RefusedPoolLocked {
		t.Errorf("report when it is locked: %q", got.Code())
	}
	for _, winners := range [][]proto.Outcome{{}, {2}} {
		if got := tb.verdict(tb.resolveOf(1, ada, p, winners...)); got != proto.RefusedWinners {
			t.Errorf("the winners %v: %q", winners, got.Code())
		}
	}
	tb.do(tb.resolveOf(1, ada, p, 0))
	if got := tb.verdict(tb.resolveOf(1, ada, p, 1)); got != proto.RefusedClaimAgain {
		t.Errorf("a second claim: %q", got.Code())
	}
	if got := tb.verdict(tb.stakeOf(2, bob, 71, p, 0, 10)); got != proto.RefusedPoolLocked {
		t.Errorf("a stake on a claimed question: %q", got.Code())
	}
	late := tb.on(Challenge, 2, bob, p)
	late.Arrived = tb.now + challengesDefault + 1
	if got := tb.verdict(late); got != proto.RefusedClaimMissing {
		t.Errorf("a challenge that arrived late: %q", got.Code())
	}
	tb.after(challengesDefault)
	if got := tb.verdict(tb.resolveOf(1, ada, p, 0)); got != proto.RefusedPoolSettled {
		t.Errorf("resolve what is settled: %q", got.Code())
	}
	if got := tb.verdict(Command{Kind: ApprovePool, From: desk, Pool: p}); got != proto.RefusedPoolSettled {
		t.Errorf("approve what is settled: %q", got.Code())
	}
}

// verdictOrDetail is verdict, for refusals that come with a detail too.
func (tb *table) verdictOrDetail(c Command) proto.Refusal {
	tb.t.Helper()
	got := tb.verdict(c)
	for _, m := range all[*proto.Refused](tb.said) {
		return m.Reason
	}
	return got
}

func TestGameIsFullOfQuestions(t *testing.T) {
	tb := newTable(t, 2)
	g := tb.game()
	q := tb.corner()
	q.LocksAt = tb.now + proto.Hour
	for n := range inquiriesOpenMax + 1 {
		want := proto.Accepted
		if n == inquiriesOpenMax {
			want = proto.RefusedQuestionsFull
		}
		if got := tb.verdict(tb.askOf(n+1, tb.player(n+1, 0), g, q)); got != want {
			t.Fatalf("question %d: %q", n+1, got.Code())
		}
	}
}

// A restart at any record goes on where the market was: every question comes to its end, and the money is where it must be.
func TestQuestionsSurviveRestarts(t *testing.T) {
	tb := configured(t, 3, moderated)
	var players [6]proto.AccountID
	for n := 1; n < len(players); n++ {
		players[n] = tb.player(n, 1000)
	}
	g := tb.game()
	ask := func(n int, q proto.Question) proto.PoolID {
		p, _ := tb.asks(n, players[n], g, q)
		return p
	}
	opened := func(n int, q proto.Question) proto.PoolID {
		p := ask(n, q)
		tb.answer(Command{Kind: ApprovePool, Pool: p})
		return p
	}
	ask(1, tb.corner())
	unchallenged, disputed, suspended, ruled := opened(1, tb.corner()), opened(2, tb.corner()), opened(3, tb.corner()), opened(4, tb.ruled())
	for n := 1; n < len(players); n++ {
		for i, p := range []proto.PoolID{unchallenged, disputed, suspended, ruled} {
			tb.do(tb.stakeOf(n, players[n], proto.RequestID(100+i), p, proto.Outcome(n%2), 10))
		}
	}
	tb.do(tb.on(Report, 1, players[1], suspended), tb.on(Report, 2, players[2], suspended), tb.on(Report, 5, players[5], suspended))
	tb.after(proto.Minute)
	tb.do(tb.resolveOf(1, players[1], unchallenged, 0), tb.resolveOf(2, players[2], disputed, 1))
	tb.do(tb.on(Challenge, 5, players[5], disputed))
	tb.event(g, proto.Event{Kind: "goal"})
	tb.is(ruled, proto.PoolSettled)
	tb.is(disputed, proto.PoolClaimed)
	tb.is(suspended, proto.PoolLocked)

	for n := range len(tb.journal.records) + 1 {
		half := NewReplica()
		for i, record := range tb.journal.records[:n] {
			if err := half.Apply(uint64(i+1), record); err != nil {
				t.Fatal(err)
			}
		}
		again := reopen(t, 1+n%3, reloaded(t, half), slices.Clone(tb.journal.records[:n]))
		again.now = tb.now
		again.settle()
		for range 4 { // the lock, the claim, the challenge and the void each set the next date
			again.after(voidAfter)
		}
		for _, s := range again.m.shards {
			for _, g := range s.games {
				for _, p := range g.pools {
					if !p.done() && (p.opening.LocksAt != 0 || p.state == proto.PoolLocked) {
						t.Errorf("after record %d, pool %d stays %s", n, p.id, p.state)
					}
				}
			}
		}
	}
}

// reloaded is what a snapshot makes of a replica.
func reloaded(t *testing.T, r *Replica) *Replica {
	t.Helper()
	var snapshot strings.Builder
	if err := r.Snapshot(&snapshot); err != nil {
		t.Fatal(err)
	}
	again := NewReplica()
	if err := again.Load(strings.NewReader(snapshot.String())); err != nil {
		t.Fatal(err)
	}
	if again.Digest() != r.Digest() {
		t.Fatalf("after record %d, the snapshot is another market", r.seq)
	}
	return again
}

// Whatever players and operators do, in whatever order: the audit at the end of the test finds no unit and no member too many, and a
// restart in the middle changes nothing.
func FuzzSocial(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint8(seed), uint8(150))
	}
	f.Fuzz(func(t *testing.T, seed uint64, shards, steps uint8) {
		r := rand.New(rand.NewPCG(seed, 9))
		tb := configured(t, 1+int(shards)%3, func(c *Config) { c.Moderate = seed%2 == 0; c.Reports = 2 })
		var players []proto.AccountID
		for n := range 4 {
			players = append(players, tb.player(n+1, 10_000))
		}
		games := []proto.GameID{tb.game(), tb.game()}
		var circles []proto.CircleID
		codes := map[proto.CircleID]uint64{}
		for i := range int(steps) {
			n := r.IntN(len(players))
			g := games[r.IntN(len(games))]
			p := proto.NewPoolID(g, uint32(1+r.IntN(6)))
			c := Command{From: session(n + 1), ID: proto.RequestID(1000 + i), Account: players[n], Arrived: tb.now}
			if len(circles) > 0 {
				c.Circle = circles[r.IntN(len(circles))]
			}
			code := &proto.CircleOpening{Name: "c", Code: codes[c.Circle]}
			switch k := r.IntN(17); k {
			case 0, 1:
				q := tb.corner()
				if k == 1 {
					q = tb.ruled()
				}
				c.Kind, c.Game, c.Args = Ask, g, &q
			case 2, 3, 4:
				c.Kind, c.Pool, c.Outcome, c.Amount = Stake, p, proto.Outcome(r.IntN(2)), proto.Amount(1+r.IntN(50))
			case 5:
				c.Kind, c.Pool, c.Args = Resolve, p, &proto.Settlement{Winners: []proto.Outcome{proto.Outcome(r.IntN(2))}}
			case 6:
				c.Kind, c.Pool = Challenge, p
			case 7:
				c.Kind, c.Pool = Report, p
			case 8:
				c.Kind, c.Circle = CreateCircle, tb.m.NextCircle()
				c.Args = &proto.CircleOpening{Name: fmt.Sprint("circle ", i), Code: uint64(i) + 1}
				circles, codes[c.Circle] = append(circles, c.Circle), uint64(i)+1
			case 9, 10:
				c.Kind, c.Args = JoinCircle, code
			case 11:
				c.Kind = LeaveCircle
			case 12:
				c.Kind, c.Other, c.Args = RemoveMember, players[r.IntN(len(players))], &proto.CircleOpening{Code: codes[c.Circle]}
			case 13:
				c.Kind, c.Game = EnterRoom, games[r.IntN(2)]
			case 14:
				c = Command{Kind: ApprovePool, From: desk, Pool: p}
			case 15:
				c = Command{Kind: PostEvent, From: desk, Game: games[r.IntN(2)], Args: &proto.Event{Kind: []string{"goal", "minute", "halftime"}[r.IntN(3)]}}
			case 16:
				tb.after(proto.Time(r.IntN(3)) * 40 * proto.Second)
				continue
			}
			if r.IntN(3) == 0 { // what is on its way may cross
				if !tb.m.Submit(&c) {
					t.Fatal("the inbox is full")
				}
				tb.m.shards[r.IntN(len(tb.m.shards))].turn(tb.now)
				continue
			}
			for _, m := range all[*proto.CircleGame](tb.do(c)) {
				if !slices.Contains(games, m.Game) {
					games = append(games, m.Game)
				}
			}
		}
		tb.settle()
		replayed := tb.replay()
		again := reopen(t, 2, replayed, slices.Clone(tb.journal.records))
		again.now = tb.now
		again.after(challengesDefault + proto.Minute)
	})
}

// What a question costs the shard that compiles its rules, and then at each event.
func BenchmarkRuledQuestion(b *testing.B) {
	g := &game{opening: proto.GameOpening{Teams: [2]string{"Argentina", "France"}}}
	q := inquiry{Settle: proto.SettledByRules}
	for i := range ruledOutcomesMax {
		q.Wins = append(q.Wins, fmt.Sprintf(`event.kind == "goal" && event.team == 1 && game.score1 > pool.score1 && game.minute %% 8 == %d`, i))
	}
	b.Run("ask", func(b *testing.B) {
		for b.Loop() {
			if _, err := q.compile(g, len(q.Wins)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("event", func(b *testing.B) {
		p := &pool{inquiry: &q}
		q.program, _ = q.compile(g, len(q.Wins))
		e := &proto.Event{Kind: "goal", Team: 2}
		for b.Loop() {
			g.resolvePool(&plan{}, p, e, rules.State{Minute: 7}, nil)
		}
	})
}
