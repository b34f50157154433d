package market

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tote/server/proto"
)

// shelf is views in memory.
type shelf struct {
	pairs   map[uint8]map[string][]byte
	reached uint64
}

func newShelf() *shelf { return &shelf{pairs: map[uint8]map[string][]byte{}} }

func (s *shelf) Put(bucket uint8, key, value []byte) {
	if s.pairs[bucket] == nil {
		s.pairs[bucket] = map[string][]byte{}
	}
	s.pairs[bucket][string(key)] = bytes.Clone(value)
}

func (s *shelf) Read(bucket uint8, key []byte, each func([]byte) []byte) error {
	for key != nil {
		value, ok := s.pairs[bucket][string(key)]
		if !ok {
			break
		}
		key = each(value)
	}
	return nil
}

func (s *shelf) Range(bucket uint8, prefix, before []byte, each func(key, value []byte) bool) error {
	keys := sortedKeys(s.pairs[bucket])
	slices.Reverse(keys)
	for _, key := range keys {
		if strings.HasPrefix(key, string(prefix)) && (before == nil || key < string(before)) && !each([]byte(key), s.pairs[bucket][key]) {
			break
		}
	}
	return nil
}

func (s *shelf) Reached() uint64 { return s.reached }

// follow lets the replica catch up with the journal, and says what follows from it.
func (tb *table) follow() []Out {
	tb.t.Helper()
	tb.said = nil
	tb.settle()
	for n := int(tb.replica.seq); n < len(tb.journal.records); n++ {
		if err := tb.replica.Apply(uint64(n+1), tb.journal.records[n]); err != nil {
			tb.t.Fatal(err)
		}
	}
	tb.shelf.reached = uint64(tb.replica.seq)
	tb.m.Viewed(tb.shelf.reached)
	tb.m.archive.turn(tb.now)
	tb.settle()
	return tb.said
}

// past asks the archive.
func (tb *table) past(c Command) []Out {
	tb.t.Helper()
	if c.Args == nil && c.Kind != ShowLeaders {
		c.Args = &proto.Page{}
	}
	c.ID = 99
	if !tb.m.Submit(&c) {
		tb.t.Fatalf("%+v: the archive's inbox is full", c)
	}
	return tb.follow()
}

// statement reads an account's whole statement, some entries at a time, from the oldest.
func (tb *table) statement(a proto.AccountID, limit int) (all []proto.Entry) {
	tb.t.Helper()
	for before, more := uint64(0), true; more; {
		page := only[*proto.Statement](tb.t, tb.past(Command{Kind: ShowStatement, From: session(7), Account: a, Args: &proto.Page{Before: before, Limit: limit}}))
		if len(page.Entries) > limit {
			tb.t.Fatalf("%d entries where %d were asked for", len(page.Entries), limit)
		}
		all, more, before = append(all, page.Entries...), page.More, page.Next
	}
	slices.Reverse(all)
	return all
}

// auditPast checks what was told of the past: of each account, a chain that begins with its opening, in the journal's order,
// whose changes sum up to its balance; and scores that are those of the chains.
func auditPast(r *Replica, kept *shelf) (wrong []string) {
	profits := map[proto.AccountID]proto.Amount{}
	entries := uint64(0)
	for id, a := range r.accounts {
		at := r.ledgers.at(id).lastEntry()
		var chain []entry
		for at != 0 {
			var e entry
			if err := e.decode(at, kept.pairs[viewEntries][string(binary.BigEndian.AppendUint64(nil, at))]); err != nil {
				return append(wrong, err.Error())
			}
			chain, at = append(chain, e), e.before
		}
		slices.Reverse(chain)
		entries += uint64(len(chain))
		var balance proto.Amount
		for i, e := range chain {
			balance += e.change
			switch {
			case e.account != id || e.balance != balance || (i == 0) != (e.kind == proto.EntryOpened),
				i > 0 && (e.seq < chain[i-1].seq || e.number <= chain[i-1].number):
				wrong = append(wrong, "a wrong entry in a statement")
			case e.prediction != 0:
				profits[id] += e.change
			}
		}
		for i := range a.tickets { // what is at stake is neither won nor lost
			profits[id] += a.cost(&a.tickets[i])
		}
		if balance != a.balance {
			wrong = append(wrong, "a statement does not sum up to the balance")
		}
		if got := proto.Amount(r.ledgers.at(id).profit.Load()); got != profits[id] {
			wrong = append(wrong, "a profit is not that of the statement")
		}
	}
	if entries != r.entries {
		wrong = append(wrong, "there are entries of nobody")
	}
	return wrong
}

// Every change of a balance is in the statement with its cause, page by page in the same order, and nobody reads another's.
func TestStatement(t *testing.T) {
	for _, shards := range []int{1, 3} {
		tb := newTable(t, shards)
		ada, bob := tb.player(1, 1000), tb.player(2, 500)
		g := tb.game()
		won, lost, void := tb.pool(g, proto.PoolOpening{}), tb.pool(g, proto.PoolOpening{}), tb.pool(g, proto.PoolOpening{})
		tb.answer(Command{Kind: Deposit, Account: ada, Amount: 50})
		tb.answer(Command{Kind: Withdraw, Account: ada, Amount: 20})
		first := tb.accept(1, ada, 11, won, 0, 100)
		tb.accept(1, ada, 12, lost, 1, 30)
		tb.accept(1, ada, 13, void, 2, 7)
		tb.accept(2, bob, 11, won, 1, 200)
		tb.accept(2, bob, 12, lost, 0, 10)
		for p, winner := range map[proto.PoolID]proto.Outcome{won: 0, lost: 0} {
			tb.lock(p)
			tb.settlePool(p, winner)
		}
		tb.answer(Command{Kind: VoidPool, Pool: void, Args: &proto.Voiding{Reason: "rain"}})
		whole := tb.statement(ada, 100)
		var got []string
		var balance proto.Amount
		for _, e := range whole {
			got = append(got, e.Kind.String())
			if balance += e.Change; e.Balance != balance {
				t.Errorf("%d shards: %+v, but the changes before it sum up to %d", shards, e, balance)
			}
		}
		slices.Sort(got[6:8]) // the two pools were settled in any order
		if want := []string{"opened", "deposit", "withdrawal", "stake", "stake", "stake", "loss", "payout", "refund"}; !slices.Equal(got, want) {
			t.Errorf("%d shards: the statement is %v, want %v", shards, got, want)
		}
		if is := tb.balance(1, ada); is != balance || is != 1000+50-20-30+200 {
			t.Errorf("%d shards: the statement ends at %d, the balance is %d", shards, balance, is)
		}
		stake := whole[3]
		if stake.Seq != first.Prediction || stake.Prediction.ID != 11 || stake.Prediction.Pool != won || stake.Prediction.Amount != 100 || stake.Change != -100 {
			t.Errorf("%d shards: receipt %+v is in the statement as %+v", shards, first, stake)
		}
		for _, limit := range []int{1, 2, 4, 9} {
			if paged := tb.statement(ada, limit); !reflect.DeepEqual(paged, whole) {
				t.Errorf("%d shards: by pages of %d it is %v", shards, limit, paged)
			}
		}
		newer := only[*proto.Statement](t, tb.past(Command{Kind: ShowStatement, From: session(1), Account: ada, Args: &proto.Page{After: whole[6].Entry}}))
		if len(newer.Entries) != 2 || newer.Entries[1].Entry != whole[7].Entry || newer.More {
			t.Errorf("%d shards: after entry %d there are %+v", shards, whole[6].Entry, newer)
		}
		history := only[*proto.History](t, tb.past(Command{Kind: ShowHistory, From: session(1), Account: ada}))
		if len(history.Entries) != 3 || history.Entries[0].Kind != proto.EntryRefund || history.More {
			t.Errorf("%d shards: ended predictions %+v", shards, history)
		}
		for _, row := range []struct {
			name   string
			kind   CommandKind
			a      proto.AccountID
			before uint64
			want   proto.Refusal
		}{
			{"an entry of another account", ShowStatement, bob, stake.Entry, proto.RefusedPage},
			{"another's among ended ones", ShowHistory, bob, whole[8].Entry, proto.RefusedPage},
			{"no entry at all", ShowStatement, ada, 1 << 40, proto.RefusedPage},
			{"nobody", ShowStatement, 4711, 0, proto.RefusedAccountUnknown},
		} {
			outs := tb.past(Command{Kind: row.kind, From: session(2), Account: row.a, Args: &proto.Page{Before: row.before}})
			if len(outs) != 1 || outs[0].Kind != OutRefused || outs[0].Refused.Reason != row.want || outs[0].Refused.ID != 99 {
				t.Errorf("%d shards: %s was answered %+v", shards, row.name, outs)
			}
		}
	}
}

// An audit finds a statement that does not end at the balance.
func TestCheckPast(t *testing.T) {
	tb := play(t, 2, 9, 100)
	r := tb.replay()
	if err := r.CheckPast(); err != nil {
		t.Error(err)
	}
	var last entry
	at := r.ledgers.at(3).lastEntry()
	key := string(binary.BigEndian.AppendUint64(nil, at))
	kept := r.views.(*shelf).pairs[viewEntries]
	if err := last.decode(at, kept[key]); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []func(*entry){func(e *entry) { e.balance++ }, func(e *entry) { e.account++ }} {
		changed := last
		wrong(&changed)
		kept[key] = changed.append(nil)
		if err := r.CheckPast(); err == nil || !strings.Contains(err.Error(), "account 3") {
			t.Errorf("%+v instead of %+v: %v", changed, last, err)
		}
	}
	kept[key] = last.append(nil)
}

// A reply waits for what its asker may know, but not for ever; then it says how far the views are.
func TestTheArchiveWaitsForTheViews(t *testing.T) {
	tb := newTable(t, 1)
	ada := tb.player(1, 1000)
	tb.follow()
	reached := tb.replica.seq
	tb.answer(Command{Kind: Deposit, Account: ada, Amount: 50})
	ask := func() {
		tb.said = nil
		tb.m.Submit(&Command{Kind: ShowStatement, From: session(1), Account: ada, ID: 5, Args: &proto.Page{}})
		tb.m.archive.turn(tb.now)
	}
	if ask(); len(tb.said) != 0 {
		t.Fatalf("before the views have the deposit: %+v", tb.said)
	}
	if m := only[*proto.Statement](t, tb.follow()); len(m.Entries) != 2 || m.Counts != reached+1 {
		t.Errorf("when they have it: %+v", m)
	}
	tb.answer(Command{Kind: Deposit, Account: ada, Amount: 50})
	ask()
	next := tb.m.archive.turn(tb.now)
	if len(tb.said) != 0 || next != tb.now+archiveWait {
		t.Errorf("waits until %d, now is %d: %+v", next, tb.now, tb.said)
	}
	tb.m.archive.turn(next)
	if m := only[*proto.Statement](t, tb.said); len(m.Entries) != 2 || m.Counts != reached+1 {
		t.Errorf("when it has waited enough: %+v", m)
	}
	// The ledger may be ahead of the views: its last entry is told and not readable yet.
	tb.follow()
	key := string(binary.BigEndian.AppendUint64(nil, tb.replica.entries))
	hidden := tb.shelf.pairs[viewEntries][key]
	delete(tb.shelf.pairs[viewEntries], key)
	if ask(); len(tb.said) != 0 {
		t.Errorf("without the last entry: %+v", tb.said)
	}
	tb.shelf.pairs[viewEntries][key] = hidden
	tb.answer(Command{Kind: Deposit, Account: ada, Amount: 50})
	if m := only[*proto.Statement](t, tb.follow()); len(m.Entries) != 3 {
		t.Errorf("with it: %+v", m)
	}
	// A full inbox says busy.
	tb.m.archive.inbox.max = 1
	tb.m.Submit(&Command{Kind: ShowArchive, From: session(1), ID: 5, Args: &proto.Page{}})
	if tb.m.Submit(&Command{Kind: ShowArchive, From: session(1), ID: 6, Args: &proto.Page{}}) {
		t.Error("a full inbox took a question")
	}
}

// A server that has forgotten its history says that there is none, and what comes later is there.
func TestForgottenPast(t *testing.T) {
	tb := newTable(t, 1)
	ada := tb.player(1, 1000)
	tb.follow()
	clear(tb.shelf.pairs)
	ask := func(want ...proto.EntryKind) {
		t.Helper()
		outs := tb.past(Command{Kind: ShowStatement, From: session(1), Account: ada})
		if len(outs) == 0 {
			tb.now += archiveWait
			outs = tb.follow()
		}
		var got []proto.EntryKind
		for _, e := range only[*proto.Statement](t, outs).Entries {
			got = append(got, e.Kind)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the statement is %v, want %v", got, want)
		}
	}
	ask()
	tb.do(Command{Kind: Attach, From: session(2), Account: ada, ID: 1, Since: 1})
	tb.follow()
	tb.now += archiveWait
	if m := only[*proto.Missed](t, tb.follow()); !m.Last || len(m.Entries) != 0 || m.Since != 0 {
		t.Errorf("missed %+v", m)
	}
	tb.answer(Command{Kind: Deposit, Account: ada, Amount: 5})
	ask(proto.EntryDeposit)
}

// What is looked at for one page is bounded: pages of a history may be empty, and the next one goes on.
func TestHistoryOfManyOpenPredictions(t *testing.T) {
	tb := newTable(t, 1)
	g := tb.game()
	p, q := tb.pool(g, proto.PoolOpening{}), tb.pool(g, proto.PoolOpening{})
	ada := tb.player(1, 1000)
	tb.accept(1, ada, 5, p, 0, 1)
	tb.lock(p)
	tb.settlePool(p, 0)
	for i := range scanMax + 50 {
		tb.accept(1, ada, proto.RequestID(100+i), q, 0, 1)
	}
	first := only[*proto.History](t, tb.past(Command{Kind: ShowHistory, From: session(1), Account: ada}))
	if len(first.Entries) != 0 || !first.More {
		t.Errorf("first page: %+v", first)
	}
	second := only[*proto.History](t, tb.past(Command{Kind: ShowHistory, From: session(1), Account: ada, Args: &proto.Page{Before: first.Next}}))
	if len(second.Entries) != 1 || second.More || second.Entries[0].Prediction.Pool != p {
		t.Errorf("second page: %+v", second)
	}
}

// unreadable is views whose file is damaged.
type unreadable struct{ *shelf }

var errUnreadable = errors.New("a page is gone")

func (unreadable) Read(uint8, []byte, func([]byte) []byte) error { return errUnreadable }
func (unreadable) Range(uint8, []byte, []byte, func(_, _ []byte) bool) error {
	return errUnreadable
}

// Whoever asks for what cannot be read is told so, and not that there is nothing.
func TestUnreadablePast(t *testing.T) {
	tb := newTable(t, 1)
	ada := tb.player(1, 1000)
	tb.follow()
	tb.m.config.Views = unreadable{tb.shelf}
	for _, kind := range []CommandKind{ShowStatement, ShowHistory, ShowArchive} {
		outs := tb.past(Command{Kind: kind, From: session(1), Account: ada})
		if len(outs) != 1 || outs[0].Kind != OutRefused || outs[0].Refused.Reason != proto.RefusedPast {
			t.Errorf("%d was answered %+v", kind, outs)
		}
	}
}

// Games and pools that ended can be looked up; what is still on is not among them.
func TestArchiveOfGames(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 1000)
	var games []proto.GameID
	for range 3 {
		g := tb.game()
		games = append(games, g)
		for k := range 3 {
			p := tb.pool(g, proto.PoolOpening{Takeout: 1000})
			tb.accept(1, ada, proto.RequestID(uint64(p)), p, 0, 10)
			if k < 2 {
				tb.lock(p)
				tb.settlePool(p, proto.Outcome(k))
			}
		}
	}
	for _, g := range games[:2] {
		tb.answer(Command{Kind: VoidPool, Pool: proto.NewPoolID(g, 3), Args: &proto.Voiding{Reason: "the end"}})
		tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "end", Minute: 90, Score: [2]uint16{1, 2}}})
	}
	tb.after(11 * proto.Minute)
	list := only[*proto.Archive](t, tb.past(Command{Kind: ShowArchive, From: session(1), Args: &proto.Page{Limit: 1}}))
	if len(list.Games) != 1 || !list.More || list.Games[0].Game.Game != games[1] || list.Games[0].Pools != 3 || list.Games[0].Players != 1 ||
		list.Games[0].Gross != 30 || list.Games[0].Game.Score != [2]uint16{1, 2} || len(list.Pools) != 0 {
		t.Errorf("the last game: %+v", list)
	}
	list = only[*proto.Archive](t, tb.past(Command{Kind: ShowArchive, From: session(1), Args: &proto.Page{Limit: 1, Before: list.Next}}))
	if len(list.Games) != 1 || list.More || list.Next != 0 || list.Games[0].Game.Game != games[0] {
		t.Errorf("the one before: %+v", list)
	}
	one := only[*proto.Archive](t, tb.past(Command{Kind: ShowArchive, From: session(1), Game: games[0]}))
	if len(one.Games) != 1 || len(one.Pools) != 3 || one.More {
		t.Fatalf("game %d: %+v", games[0], one)
	}
	void, lost, won := one.Pools[0], one.Pools[1], one.Pools[2]
	if void.Pool.State != proto.PoolVoided || void.Paid != 0 || lost.Pool.State != proto.PoolSettled || lost.Paid != 0 ||
		won.Paid != 9 || won.Gross != 10 || !slices.Equal(won.Pool.Winners, []proto.Outcome{0}) || won.Opened != start || won.Locked == 0 || won.Ended == 0 {
		t.Errorf("pools of game %d: %+v", games[0], one.Pools)
	}
	live := only[*proto.Archive](t, tb.past(Command{Kind: ShowArchive, From: session(1), Game: games[2], Args: &proto.Page{Limit: 1}}))
	if len(live.Games) != 0 || len(live.Pools) != 1 || !live.More || live.Pools[0].Pool.Pool != proto.NewPoolID(games[2], 2) {
		t.Errorf("a game that is on: %+v", live)
	}
	none := only[*proto.Archive](t, tb.past(Command{Kind: ShowArchive, From: session(1), Game: 4711}))
	if len(none.Games)+len(none.Pools) != 0 || none.More {
		t.Errorf("no game: %+v", none)
	}
}

// Ladders rank by net profit, per game, over all and among friends; a game that is over keeps its first hundred.
func TestLeaders(t *testing.T) {
	tb := newTable(t, 2)
	var players []proto.AccountID
	for i := range 5 {
		players = append(players, tb.player(i, 1000))
	}
	games := []proto.GameID{tb.game(), tb.game()}
	request := proto.RequestID(100)
	play := func(g proto.GameID, stakes map[int]proto.Outcome, amount proto.Amount) {
		p := tb.pool(g, proto.PoolOpening{})
		for _, i := range sortedKeys(stakes) {
			request++
			tb.accept(i, players[i], request, p, stakes[i], amount)
		}
		tb.lock(p)
		tb.settlePool(p, 0)
	}
	play(games[0], map[int]proto.Outcome{0: 0, 1: 1, 2: 1, 3: 0}, 100) // +100, -100, -100, +100
	play(games[1], map[int]proto.Outcome{0: 1, 1: 0, 2: 1}, 60)        // -60, +120, -60
	play(games[1], map[int]proto.Outcome{4: 1}, 60)                    // refunded: not on any ladder
	show := func(g proto.GameID, of int, circle ...proto.CircleID) *proto.Leaders {
		t.Helper()
		c := Command{Kind: ShowLeaders, From: session(of), Account: players[of], Game: g}
		if circle != nil {
			c.Circle = circle[0]
		}
		return only[*proto.Leaders](t, tb.past(c))
	}
	leader := func(rank, i int, profit proto.Amount, n uint64) proto.Leader {
		return proto.Leader{Rank: rank, Account: players[i], Name: "player " + string(rune('0'+i)), Profit: profit, Predictions: n}
	}
	first := []proto.Leader{leader(1, 0, 100, 1), leader(1, 3, 100, 1), leader(3, 1, -100, 1), leader(3, 2, -100, 1)}
	if m := show(games[0], 2); !reflect.DeepEqual(m.Leaders, first) || m.Own != first[3] || m.Players != 4 || m.Counts != tb.replica.seq {
		t.Errorf("game 1: %+v", m)
	}
	if m := show(games[1], 3); len(m.Leaders) != 3 || m.Leaders[0] != leader(1, 1, 120, 1) || m.Own != (proto.Leader{}) {
		t.Errorf("game 2: %+v", m)
	}
	if m := show(0, 1); !reflect.DeepEqual(m.Leaders, []proto.Leader{leader(1, 3, 100, 1), leader(2, 0, 40, 2), leader(3, 1, 20, 2), leader(4, 2, -160, 2)}) ||
		m.Own != leader(3, 1, 20, 2) {
		t.Errorf("over all: %+v", m)
	}
	circle := tb.m.NextCircle()
	tb.do(tb.circleOf(CreateCircle, 0, players[0], circle))
	tb.join(1, players[1], circle)
	tb.join(4, players[4], circle)
	if m := show(0, 1, circle); !reflect.DeepEqual(m.Leaders, []proto.Leader{leader(1, 0, 40, 2), leader(2, 1, 20, 2)}) || m.Players != 2 {
		t.Errorf("among friends: %+v", m)
	}
	for _, c := range []Command{{Account: players[2], Circle: circle}, {Account: players[0], Circle: 4711}} {
		c.Kind, c.From = ShowLeaders, session(2)
		if outs := tb.past(c); len(outs) != 1 || outs[0].Kind != OutRefused || outs[0].Refused.Reason != proto.RefusedCircleForeign {
			t.Errorf("a circle of others: %+v", outs)
		}
	}
	tb.after(2 * proto.Second)
	show(0, 0)
	// A ladder in its order is good for a second.
	before := show(0, 0).Counts
	play(games[1], map[int]proto.Outcome{0: 0, 1: 1}, 10)
	if m := show(0, 0); m.Counts != before || m.Own.Profit != 40 {
		t.Errorf("at once after: %+v", m)
	}
	tb.after(2 * proto.Second)
	if m := show(0, 0); m.Own.Profit != 50 {
		t.Errorf("a while after: %+v", m)
	}
	tb.answer(Command{Kind: PostEvent, Game: games[0], Args: &proto.Event{Kind: "end"}})
	tb.after(11 * proto.Minute)
	tb.follow()
	if tb.replica.ladder(games[0]) != nil {
		t.Error("the ladder of a game that is over is still in memory")
	}
	if m := show(games[0], 2); !reflect.DeepEqual(m.Leaders, first) || m.Own != first[3] || m.Players != 4 {
		t.Errorf("game 1 when it is over: %+v", m)
	}
	if m := show(4711, 2); len(m.Leaders) != 0 || m.Players != 0 {
		t.Errorf("no game: %+v", m)
	}
}

// What was asked in a circle's room is for its members, then and later; lists of games have no rooms.
func TestThePastOfRooms(t *testing.T) {
	tb := newTable(t, 3)
	circle, players := tb.circle()
	g := tb.game()
	room := tb.room(1, players[1], circle, g)
	p := tb.pool(room, proto.PoolOpening{})
	tb.accept(1, players[1], 100, p, 0, 10)
	tb.accept(2, players[2], 100, p, 1, 30)
	tb.lock(p)
	tb.settlePool(p, 0)
	for _, over := range []bool{false, true} {
		if over {
			tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "end"}})
			tb.after(21 * proto.Minute)
		}
		m := only[*proto.Archive](t, tb.past(Command{Kind: ShowArchive, From: session(2), Account: players[2], Game: room}))
		if len(m.Pools) != 1 || m.Pools[0].Pool.Pool != p || len(m.Games) == 1 != over {
			t.Errorf("over %v: a member sees %+v", over, m)
		}
		l := only[*proto.Leaders](t, tb.past(Command{Kind: ShowLeaders, From: session(2), Account: players[2], Game: room}))
		if len(l.Leaders) != 2 || l.Own.Profit != -30 || l.Leaders[0].Profit != 30 {
			t.Errorf("over %v: a member sees %+v", over, l)
		}
		for _, kind := range []CommandKind{ShowArchive, ShowLeaders} {
			outs := tb.past(Command{Kind: kind, From: session(3), Account: players[3], Game: room})
			if len(outs) != 1 || outs[0].Kind != OutRefused || outs[0].Refused.Reason != proto.RefusedCircleForeign {
				t.Errorf("over %v: a stranger sees %+v", over, outs)
			}
		}
		list := only[*proto.Archive](t, tb.past(Command{Kind: ShowArchive, From: session(3), Account: players[3]}))
		if len(list.Games) == 1 != over || over && list.Games[0].Game.Game != g {
			t.Errorf("over %v: ended games %+v", over, list.Games)
		}
	}
}

// A ladder against its naive twin, with many who are level at the hundredth place.
func TestRanking(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 2, 99, 100, 101, 1000} {
		for _, spread := range []int{1, 3, 50, 10_000} {
			var rows []rung
			for i := range n {
				rows = append(rows, rung{account: proto.AccountID(1 + i), profit: proto.Amount(r.IntN(2*spread) - spread), predictions: uint64(i)})
			}
			twin := slices.Clone(rows)
			slices.SortStableFunc(twin, func(a, b rung) int { return cmp.Compare(b.profit, a.profit) })
			r.Shuffle(n, func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
			got := rank(rows)
			for i, want := range twin {
				place := 1 + slices.IndexFunc(twin, func(row rung) bool { return row.profit == want.profit })
				if i < proto.PageMax && got.first[i] != want || got.rank(want.profit) != place {
					t.Fatalf("%d players, %d: %+v is at %d, want %+v at %d", n, i, got.first[min(i, len(got.first)-1)], got.rank(want.profit), want, place)
				}
				if row, ok := got.find(want.account); !ok || row != want {
					t.Fatalf("%d players: account %d is %+v", n, want.account, row)
				}
			}
			if _, ok := got.find(4711); ok || len(got.first) != min(n, proto.PageMax) {
				t.Fatalf("%d players: %d are first", n, len(got.first))
			}
		}
	}
}

// The chain of heads is SHA-256 over all records; a pool's end is sealed with it, told to the game and kept.
func TestSeals(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 100)
	g := tb.game()
	p := tb.pool(g, proto.PoolOpening{})
	tb.accept(1, ada, 5, p, 0, 10)
	tb.lock(p)
	tb.settlePool(p, 0)
	sealed := only[*proto.Sealed](t, tb.follow())
	var head [sha256.Size]byte
	for n, record := range tb.journal.records {
		head = sha256.Sum256(append(head[:], record...))
		if proto.Seq(n+1) == sealed.Record && hex.EncodeToString(head[:]) != sealed.Head {
			t.Errorf("record %d is sealed as %s, want %x", n+1, sealed.Head, head)
		}
	}
	if sealed.Pool != p || sealed.Game != g || int(sealed.Record) != len(tb.journal.records) || tb.replica.Head() != hex.EncodeToString(head[:]) {
		t.Errorf("%+v after %d records, the head is %s", sealed, len(tb.journal.records), tb.replica.Head())
	}
	one := only[*proto.Archive](t, tb.past(Command{Kind: ShowArchive, From: session(1), Game: g}))
	if one.Pools[0].Head != sealed.Head || one.Pools[0].Record != sealed.Record {
		t.Errorf("kept as %+v, told as %+v", one.Pools[0], sealed)
	}
	if again := all[*proto.Sealed](tb.follow()); len(again) != 0 {
		t.Errorf("told again: %+v", again[0])
	}
}

// A snapshot has all of the past that is in memory: a replica that goes on from one tells the same as one that saw everything.
func TestThePastSurvivesASnapshot(t *testing.T) {
	tb := play(t, 2, 5, 600)
	whole, half := newShelf(), newShelf()
	straight, first := NewReplica(), NewReplica()
	straight.Tell(whole)
	first.Tell(half)
	middle := len(tb.journal.records) / 2
	for n, record := range tb.journal.records {
		if n == middle {
			var snapshot bytes.Buffer
			if err := first.Snapshot(&snapshot); err != nil {
				t.Fatal(err)
			}
			first = NewReplica()
			first.Tell(half)
			if err := first.Load(&snapshot); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range []*Replica{straight, first} {
			if err := r.Apply(uint64(n+1), record); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !reflect.DeepEqual(whole.pairs, half.pairs) || straight.head != first.head || straight.entries != first.entries || straight.entries < 100 {
		t.Errorf("after %d records: %d and %d entries, heads %x and %x", len(tb.journal.records), straight.entries, first.entries, straight.head, first.head)
	}
	for _, g := range sortedKeys(straight.games) {
		if a, b := straight.ladder(g), first.ladder(g); a != nil && !slices.Equal(newRanking(a.all()).rows, newRanking(b.all()).rows) {
			t.Errorf("the ladders of game %d differ", g)
		}
	}
}

// FuzzEntry reads back what was written of an entry, and nothing of what is cut off.
func FuzzEntry(f *testing.F) {
	f.Add(uint64(9), uint64(4), uint64(100), uint64(77), int64(-5), uint64(3), uint64(6), "late")
	f.Fuzz(func(t *testing.T, number, before, seq, at uint64, change int64, stake, place53 uint64, reason string) {
		number, seq = 1+number%(1<<53), 1+seq%(1<<53)
		e := entry{number: number, kind: proto.EntryKind(1 + stake%8), state: proto.PredictionState(stake % 5), account: proto.AccountID(1 + before%1000), before: before % number,
			seq: proto.Seq(seq), time: proto.Time(at % (1 << 53)), change: proto.Amount(change % (1 << 53)), balance: proto.Amount(stake % (1 << 53))}
		if e.kind == proto.EntryStake || e.kind.Ends() {
			e.prediction, e.on, e.amount, e.request = proto.Seq(1+stake%seq), place(place53), e.balance, proto.RequestID(at%(1<<53))
			e.arrived, e.reason, e.shares = e.time-proto.Time(change%1000), reason, proto.Shares(before%(1<<53))
			if e.kind.Ends() {
				e.payout = e.change
			}
		}
		if e.prediction == 0 {
			e.state = 0
		}
		b := e.append(nil)
		var again entry
		if err := again.decode(number, b); err != nil || again != e {
			t.Fatalf("%+v is read as %+v (%v)", e, again, err)
		}
		for cut := range len(b) - len(e.reason) {
			if err := again.decode(number, b[:cut]); err == nil && again == e {
				t.Fatalf("%d of %d bytes are read as the whole entry", cut, len(b))
			}
		}
	})
}

// BenchmarkApply measures the follower's part of a stake: what telling of the past and chaining hashes add to it. An operation
// is one record.
func BenchmarkApply(b *testing.B) {
	const players, stakes = 1000, 100_000
	tb := newTable(b, 1)
	g := tb.game()
	p := tb.pool(g, proto.PoolOpening{})
	for range players {
		tb.do(Command{Kind: OpenAccount, From: desk, Account: tb.m.NextAccount(), Args: &proto.AccountOpening{Name: "p", Deposit: 1 << 40}})
	}
	for i := 0; i < stakes; i += players {
		batch := make([]Command, players)
		for k := range batch {
			batch[k] = tb.stakeOf(k, proto.AccountID(1+k), proto.RequestID(100+i), p, proto.Outcome(k%3), 5)
		}
		tb.do(batch...)
	}
	tb.lock(p)
	tb.settlePool(p, 0)
	for _, row := range []struct {
		name  string
		views Views
	}{{"untold", nil}, {"told", &tally{}}} {
		b.Run(row.name, func(b *testing.B) {
			for range max(1, b.N/len(tb.journal.records)) {
				r := NewReplica()
				r.Tell(row.views)
				for n, record := range tb.journal.records {
					if err := r.Apply(uint64(n+1), record); err != nil {
						b.Fatal(err)
					}
				}
			}
			rounds := max(1, b.N/len(tb.journal.records))
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rounds*len(tb.journal.records)), "ns/record")
			if t, ok := row.views.(*tally); ok {
				b.ReportMetric(float64(t.bytes)/float64(t.pairs), "B/pair")
			}
		})
	}
	b.Run("chain", func(b *testing.B) {
		var p past
		record := tb.journal.records[len(tb.journal.records)/2]
		b.ReportAllocs()
		for b.Loop() {
			p.chain(record)
		}
	})
}

// tally is views that only count.
type tally struct {
	noViews
	pairs, bytes int
}

func (t *tally) Put(_ uint8, key, value []byte) {
	t.pairs++
	t.bytes += len(key) + len(value)
}

// Whoever is welcomed learns since when he will have missed something, also the first one of a new market, where no shard has told of anything.
func TestTheFirstLearnsSince(t *testing.T) {
	tb := newTable(t, 3)
	account := tb.m.NextAccount()
	outs := tb.do(Command{Kind: OpenAccount, From: session(1), Account: account, Attach: true, Args: &proto.AccountOpening{Name: "Ada", Deposit: 1000}})
	since := only[*proto.Welcome](t, outs).Since
	if since == 0 {
		t.Fatal("the first one was not told since when")
	}
	tb.do(Command{Kind: Detach, From: session(1), Account: account})
	tb.answer(Command{Kind: Deposit, Account: account, Amount: 5})
	tb.do(Command{Kind: Attach, From: session(2), Account: account, ID: 1, Since: since})
	if m := only[*proto.Missed](t, tb.follow()); len(m.Entries) != 1 || m.Entries[0].Kind != proto.EntryDeposit || m.Entries[0].Change != 5 {
		t.Errorf("what was missed came as %+v", m)
	}
}

// Whatever an account has heard last, all that its statement has up to the record named by since, it has heard too: while
// a great settlement is paid in slices, and stakes go on in other pools and other shards.
func TestSinceIsAPromise(t *testing.T) {
	for _, shards := range []int{1, 3} {
		tb := newTable(t, shards)
		g, other := tb.game(), tb.game()
		great, small := tb.pool(g, proto.PoolOpening{}), tb.pool(other, proto.PoolOpening{})
		players := tb.crowd(great, 7000)
		tb.lock(great)
		type hearing struct {
			told []proto.Seq                     // since, of each message
			had  []map[proto.Seq]proto.EntryKind // what was heard until then, by prediction
		}
		lanes := make([]hearing, len(players))
		hear := func(n int, since, prediction proto.Seq, kind proto.EntryKind) {
			h := &lanes[n]
			had := map[proto.Seq]proto.EntryKind{}
			if len(h.had) > 0 {
				had = maps.Clone(h.had[len(h.had)-1])
			}
			had[prediction] = kind
			h.told, h.had = append(h.told, since), append(h.had, had)
		}
		tb.m.Submit(&Command{Kind: SettlePool, From: desk, Pool: great, Args: &proto.Settlement{Winners: []proto.Outcome{0}}})
		for turn, left := 0, 4; left > 0; turn++ {
			if tb.m.settled() {
				left--
			}
			for n, a := range players {
				c := tb.stakeOf(n, a, proto.RequestID(10_000+turn), small, 0, 1)
				tb.m.Submit(&c)
			}
			tb.said = nil
			for _, s := range tb.m.shards {
				s.turn(tb.now)
				tb.m.durable.Store(uint64(len(tb.journal.records)))
			}
			for _, o := range tb.said {
				n := int(o.To.Slot())
				switch m := o.Message.(type) {
				case *proto.Payout:
					hear(n, m.Since, m.Prediction, proto.EntryPayout)
				default:
					if o.Kind == OutReceipt {
						hear(n, o.Receipt.Since, o.Receipt.Prediction, proto.EntryStake)
					}
				}
			}
		}
		advanced := false
		for n, a := range players {
			whole := tb.statement(a, 100)
			begin := whole[len(whole)-1].Seq
			for _, e := range whole {
				if e.Kind == proto.EntryPayout {
					begin = min(begin, e.Seq)
				}
			}
			for i, since := range lanes[n].told {
				advanced = advanced || since >= begin
				for _, e := range whole {
					kind := lanes[n].had[i][e.Prediction.Prediction]
					if e.Seq < begin || e.Seq > since || e.Kind == proto.EntryLoss || kind == e.Kind || kind == proto.EntryPayout {
						continue
					}
					t.Fatalf("%d shards: message %d of player %d says since %d, but %+v was not told", shards, i, n, since, e)
				}
			}
			if len(lanes[n].told) < 200 {
				t.Errorf("%d shards: player %d heard %d messages", shards, n, len(lanes[n].told))
			}
		}
		if !advanced {
			t.Errorf("%d shards: since never came to the settlement: it promises nothing", shards)
		}
	}
}

// BenchmarkRank measures a ladder of a million players put in its order, which the archive does at most once per second and never
// for more than a tenth of its time.
func BenchmarkRank(b *testing.B) {
	const players = 1_000_000
	var l ledgers
	for i := range uint64(players) {
		l.of(proto.AccountID(i+1)).add(proto.Amount(i*2654435761%1_000_003)-500_000, 1)
	}
	for b.Loop() {
		newRanking(l.all())
	}
}

// guarded is a shelf that a follower fills while an archive reads.
type guarded struct {
	mu sync.Mutex
	shelf
}

func (g *guarded) Put(bucket uint8, key, value []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shelf.Put(bucket, key, value)
}

func (g *guarded) Read(bucket uint8, key []byte, each func([]byte) []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shelf.Read(bucket, key, each)
}

func (g *guarded) Range(bucket uint8, prefix, before []byte, each func(key, value []byte) bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shelf.Range(bucket, prefix, before, each)
}

func (g *guarded) Reached() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reached
}

// The archive answers while the follower applies and the shards decide, each on its goroutine: for the race detector, and that
// each question gets one answer.
func TestTheArchiveRunsBesideAll(t *testing.T) {
	const players, rounds = 8, 30
	views := &guarded{shelf: *newShelf()}
	replica := NewReplica()
	replica.Tell(views)
	journal := &shared{}
	var now atomic.Int64
	now.Store(int64(start))
	answers := make(chan bool, 1<<16)
	m, err := New(Config{Shards: 2, Epoch: 1, Journal: journal, Views: views, Now: func() proto.Time { return proto.Time(now.Add(1000)) },
		Deliver: func(b *Batch) {
			for _, o := range b.Outs {
				switch message := o.Message.(type) {
				case *proto.Statement, *proto.History, *proto.Leaders, *proto.Archive:
					answers <- true
				case *proto.Missed:
					if message.Last {
						answers <- true
					}
				default: // an account may be too young for its first questions
					if o.Kind == OutRefused && o.Refused.ID == 9 {
						answers <- true
					}
				}
			}
		}}, replica)
	if err != nil {
		t.Fatal(err)
	}
	journal.market = m
	m.Start()
	stop := make(chan struct{})
	var following sync.WaitGroup
	following.Go(func() {
		for applied := 0; ; {
			journal.mu.Lock()
			records := journal.records[applied:]
			journal.mu.Unlock()
			for _, record := range records {
				applied++
				if err := replica.Apply(uint64(applied), record); err != nil {
					t.Error(err)
				}
			}
			views.mu.Lock()
			views.reached = uint64(applied)
			views.mu.Unlock()
			m.Viewed(uint64(applied))
			select {
			case <-stop:
				return
			default:
				runtime.Gosched()
			}
		}
	})
	game := m.NextGame()
	submit := func(c Command) {
		for !m.Submit(&c) {
			runtime.Gosched()
		}
	}
	submit(Command{Kind: OpenGame, From: desk, Game: game, Args: &proto.GameOpening{Name: "g"}})
	for i := range players {
		submit(Command{Kind: OpenAccount, From: session(i), Account: m.NextAccount(), Attach: true, Args: &proto.AccountOpening{Name: "p", Deposit: 10_000}})
	}
	asked := 0
	for round := range rounds {
		pool := proto.NewPoolID(game, uint32(1+round))
		submit(Command{Kind: OpenPool, From: desk, Game: game, Args: &proto.PoolOpening{Question: "?", Labels: []string{"a", "b"}}})
		for i := range players {
			a := proto.AccountID(1 + i)
			submit(Command{Kind: Stake, From: session(i), Account: a, ID: proto.RequestID(10 + round), Pool: pool, Outcome: proto.Outcome(i % 2), Amount: 5, Arrived: start})
			for _, kind := range []CommandKind{ShowStatement, ShowHistory, ShowLeaders, ShowArchive} {
				c := Command{Kind: kind, From: session(i), ID: 9, Account: a, Args: &proto.Page{Limit: 5}}
				if kind == ShowLeaders {
					c.Game, c.Args = proto.GameID(round%2)*game, nil
				}
				submit(c)
				asked++
			}
			if round%10 == 9 {
				submit(Command{Kind: Attach, From: session(100 + i), Account: a, ID: 3, Since: 1})
				asked++
			}
		}
		submit(Command{Kind: LockPool, From: desk, Pool: pool, Args: &proto.Locking{}})
		submit(Command{Kind: SettlePool, From: desk, Pool: pool, Args: &proto.Settlement{Winners: []proto.Outcome{0}}})
	}
	for n := range asked {
		select {
		case <-answers:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d of %d questions were answered", n, asked)
		}
	}
	m.Stop()
	close(stop)
	following.Wait()
}
