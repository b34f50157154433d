package market

import (
	"fmt"
	"slices"
	"testing"

	"tote/server/proto"
)

const someCode = 4503599627370497

func (tb *table) circleOf(kind CommandKind, n int, a proto.AccountID, c proto.CircleID) Command {
	return Command{Kind: kind, From: session(n), ID: 60, Account: a, Circle: c, Arrived: tb.now, Args: &proto.CircleOpening{Name: "Row 12", Code: someCode}}
}

func (tb *table) join(n int, a proto.AccountID, c proto.CircleID) *proto.Circle {
	tb.t.Helper()
	return only[*proto.Circle](tb.t, tb.do(tb.circleOf(JoinCircle, n, a, c)))
}

// circle is one of players 1 and 2, who each have 1000; player 3 is a stranger.
func (tb *table) circle() (c proto.CircleID, players [4]proto.AccountID) {
	tb.t.Helper()
	for n := 1; n < len(players); n++ {
		players[n] = tb.player(n, 1000)
	}
	c = tb.m.NextCircle()
	tb.do(tb.circleOf(CreateCircle, 1, players[1], c))
	tb.join(2, players[2], c)
	return c, players
}

func (tb *table) roomOf(n int, a proto.AccountID, c proto.CircleID, g proto.GameID) Command {
	return Command{Kind: EnterRoom, From: session(n), ID: 61, Account: a, Circle: c, Game: g}
}

func (tb *table) room(n int, a proto.AccountID, c proto.CircleID, g proto.GameID) proto.GameID {
	tb.t.Helper()
	return only[*proto.CircleGame](tb.t, tb.do(tb.roomOf(n, a, c, g))).Game
}

func names(m *proto.Circle) (list []string) {
	for _, f := range m.Members {
		list = append(list, f.Name)
	}
	return list
}

// A circle from its first member to its last.
func TestCircle(t *testing.T) {
	tb := newTable(t, 3)
	c, players := tb.circle()
	outs := tb.do(tb.circleOf(ShowCircle, 1, players[1], c))
	if m := only[*proto.Circle](t, outs); m.Code != someCode || m.Owner != players[1] || m.Name != "Row 12" || !slices.Equal(names(m), []string{"player 1", "player 2"}) {
		t.Errorf("the owner sees %+v", m)
	}
	if m := only[*proto.Circle](t, tb.do(tb.circleOf(ShowCircle, 2, players[2], c))); m.Code != 0 {
		t.Errorf("a member sees %+v", m)
	}
	if m := tb.join(2, players[2], c); len(m.Members) != 2 {
		t.Errorf("joined twice: %+v", m)
	}
	mine := only[*proto.Circles](t, tb.do(tb.circleOf(ShowCircles, 2, players[2], 0))).Circles
	if !slices.Equal(mine, []proto.CircleName{{Circle: c, Name: "Row 12"}}) {
		t.Errorf("player 2 is in %+v", mine)
	}
	tb.join(3, players[3], c)

	// Whom the owner removes is told, and has to get the new code.
	remove := tb.circleOf(RemoveMember, 1, players[1], c)
	remove.Other, remove.Args = players[2], &proto.CircleOpening{Code: 77}
	outs = tb.do(remove)
	if m := only[*proto.Circle](t, outs); m.Code != 77 || !slices.Equal(names(m), []string{"player 1", "player 3"}) {
		t.Errorf("after the removal, the owner sees %+v", m)
	}
	if left := only[*proto.CircleLeft](t, outs); left.ID != 0 || left.Circle != c {
		t.Errorf("the removed member is told %+v", left)
	}
	if got := tb.verdict(tb.circleOf(JoinCircle, 2, players[2], c)); got != proto.RefusedCircleCode {
		t.Errorf("back with the old code: %q", got.Code())
	}
	if got := tb.verdict(tb.circleOf(ShowCircle, 2, players[2], c)); got != proto.RefusedCircleForeign {
		t.Errorf("looked at from outside: %q", got.Code())
	}

	// The owner leaves: the oldest member owns it. The last one leaves: it is gone.
	if left := only[*proto.CircleLeft](t, tb.do(tb.circleOf(LeaveCircle, 1, players[1], c))); left.ID != 60 {
		t.Errorf("leaving is answered %+v", left)
	}
	if m := only[*proto.Circle](t, tb.do(tb.circleOf(ShowCircle, 3, players[3], c))); m.Owner != players[3] || m.Code != 77 {
		t.Errorf("the heir sees %+v", m)
	}
	tb.do(tb.circleOf(LeaveCircle, 3, players[3], c))
	back := tb.circleOf(JoinCircle, 1, players[1], c)
	back.Args = &proto.CircleOpening{Code: 77}
	if got := tb.verdict(back); got != proto.RefusedCircleCode {
		t.Errorf("joining what is gone: %q", got.Code())
	}
	if len(tb.m.shardOfCircle(c).circles) != 0 {
		t.Error("it is still there")
	}
}

// What a circle refuses leaves no record, and no place held.
func TestCircleRefusals(t *testing.T) {
	tb := newTable(t, 3)
	c, players := tb.circle()
	g := tb.game()
	room := tb.room(1, players[1], c, g)
	ended := tb.game()
	tb.event(ended, proto.Event{Kind: "end"})
	remove := func(n int, who proto.AccountID) Command {
		c := tb.circleOf(RemoveMember, n, players[n], c)
		c.Other = who
		return c
	}
	nameless := tb.circleOf(CreateCircle, 3, players[3], tb.m.NextCircle())
	nameless.Args = &proto.CircleOpening{Code: 1}
	for _, row := range []struct {
		name    string
		command Command
		want    proto.Refusal
	}{
		{"no name", nameless, proto.RefusedTextInvalid},
		{"no such circle", tb.circleOf(JoinCircle, 3, players[3], 999), proto.RefusedCircleCode},
		{"leave another's", tb.circleOf(LeaveCircle, 3, players[3], c), proto.RefusedCircleForeign},
		{"remove as a member", remove(2, players[1]), proto.RefusedCircleOwner},
		{"remove oneself", remove(1, players[1]), proto.RefusedCircleOwner},
		{"remove a stranger", remove(1, players[3]), proto.RefusedMemberUnknown},
		{"a room of another's circle", tb.roomOf(3, players[3], c, g), proto.RefusedCircleForeign},
		{"a room in no game", tb.roomOf(1, players[1], c, 999), proto.RefusedGameUnknown},
		{"a room in an ended game", tb.roomOf(1, players[1], c, ended), proto.RefusedGameEnded},
		{"an event in a room", Command{Kind: PostEvent, From: desk, Game: room, Args: &proto.Event{Kind: "goal"}}, proto.RefusedRoomEvent},
	} {
		before := len(tb.journal.records)
		if got := tb.verdict(row.command); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got.Code(), row.want.Code())
		}
		if len(tb.journal.records) != before {
			t.Errorf("%s left a record", row.name)
		}
	}

	for range circlesMax {
		tb.do(tb.circleOf(CreateCircle, 3, players[3], tb.m.NextCircle()))
	}
	if got := tb.verdict(tb.circleOf(JoinCircle, 3, players[3], c)); got != proto.RefusedCirclesMany {
		t.Errorf("one circle too many: %q", got.Code())
	}
	for n := 10; n < 10+membersMax-2; n++ {
		tb.join(n, tb.player(n, 0), c)
	}
	if got := tb.verdict(tb.circleOf(JoinCircle, 4, tb.player(4, 0), c)); got != proto.RefusedCircleFull {
		t.Errorf("one member too many: %q", got.Code())
	}
}

// Both asked at once, on the way to two shards: the limit of circles holds.
func TestCirclesHeldWhileTheyDecide(t *testing.T) {
	tb := newTable(t, 3)
	ada := tb.player(1, 0)
	var commands []Command
	for range circlesMax + 3 {
		commands = append(commands, tb.circleOf(CreateCircle, 1, ada, tb.m.NextCircle()))
	}
	outs := tb.do(commands...)
	if got := len(all[*proto.Circle](outs)); got != circlesMax {
		t.Errorf("%d circles were opened at once", got)
	}
}

// A room is a game of its own, for members only, in which the events of its game are heard.
func TestRoom(t *testing.T) {
	tb := newTable(t, 3)
	c, players := tb.circle()
	g := tb.game()
	tb.event(g, proto.Event{Kind: "kickoff", Minute: 1})
	room := tb.room(1, players[1], c, g)
	if again := tb.room(2, players[2], c, g); again != room || room.Main() != g || room == g {
		t.Errorf("the room is %d, then %d", room, again)
	}
	join := func(n int) Command {
		return Command{Kind: Join, From: session(n), ID: 3, Account: players[n], Game: room}
	}
	image := only[*proto.Joined](t, tb.do(join(2))).Game
	if image.Circle != c || image.Parent != g || image.Name != "Row 12" || image.State != proto.GameLive || image.Minute != 1 {
		t.Errorf("the room is shown as %+v", image)
	}
	p, state := tb.asks(1, players[1], room, tb.ruled())
	if state != proto.PoolOpen {
		t.Errorf("a question in a circle is %s", state)
	}
	tb.accept(2, players[2], 1, p, 0, 100)
	tb.do(Command{Kind: Follow, From: session(3), ID: 1, Account: players[3], Other: players[2]})
	for name, command := range map[string]Command{
		"join": join(3), "look": {Kind: ShowPools, From: session(3), ID: 3, Account: players[3], Game: room},
		"stake": tb.stakeOf(3, players[3], 1, p, 0, 10), "report": tb.on(Report, 3, players[3], p),
		"ask": tb.askOf(3, players[3], room, tb.corner()), "friends": tb.on(ShowFriends, 3, players[3], p),
		"questions": {Kind: ShowQuestions, From: session(3), ID: 3, Account: players[3], Game: room},
	} {
		if got := tb.verdict(command); got != proto.RefusedCircleForeign {
			t.Errorf("a stranger wants to %s: %q", name, got.Code())
		}
	}
	tb.do(Command{Kind: Follow, From: session(1), ID: 1, Account: players[1], Other: players[2]})
	if m := only[*proto.Friends](t, tb.do(tb.on(ShowFriends, 1, players[1], p))); len(m.Predictions) != 1 {
		t.Errorf("a member sees his friend's predictions as %+v", m)
	}

	outs := tb.do(Command{Kind: PostEvent, From: desk, Game: g, Args: &proto.Event{Kind: "goal", Minute: 23, Team: 1, Score: [2]uint16{1, 0}}})
	if heard := all[*proto.Happened](outs); len(heard) != 2 || heard[1].Game != room || heard[1].Minute != 23 {
		t.Errorf("the goal is heard as %+v", heard)
	}
	if m := only[*proto.Settled](t, outs); m.Game != room || m.Paid != 100 {
		t.Errorf("the goal settles %+v", m)
	}
	// The whole event is one append, so that no crash can come between the game and its rooms.
	left, _ := tb.asks(2, players[2], room, tb.corner())
	tb.event(g, proto.Event{Kind: "end"})
	tb.is(left, proto.PoolLocked)
	tb.after(archiveAfter)
	if tb.m.shardOfGame(g).games[g] == nil {
		t.Error("the game is gone while its room has an open question")
	}
	tb.after(voidAfter)
	tb.after(archiveAfter)
	tb.after(archiveAfter)
	if n := len(tb.m.shardOfGame(g).games); n != 0 {
		t.Errorf("%d games are left", n)
	}
}

// Who was removed stakes no more; what he has at stake is settled.
func TestRemovedMember(t *testing.T) {
	tb := newTable(t, 3)
	c, players := tb.circle()
	room := tb.room(1, players[1], c, tb.game())
	p, _ := tb.asks(1, players[1], room, tb.corner())
	tb.accept(2, players[2], 1, p, 0, 100)
	remove := tb.circleOf(RemoveMember, 1, players[1], c)
	remove.Other = players[2]
	tb.do(remove)
	if got := tb.verdict(tb.stakeOf(2, players[2], 2, p, 0, 10)); got != proto.RefusedCircleForeign {
		t.Errorf("a stake afterwards: %q", got.Code())
	}
	tb.after(proto.Minute)
	tb.do(tb.resolveOf(1, players[1], p, 0))
	tb.after(challengesDefault)
	if b := tb.balance(2, players[2]); b != 1000 {
		t.Errorf("he has %d", b)
	}
}

// Circles and rooms are there again after a restart, with any number of shards, and new ids are new.
func TestCirclesSurviveRestarts(t *testing.T) {
	tb := newTable(t, 3)
	c, players := tb.circle()
	gone := tb.m.NextCircle()
	tb.do(tb.circleOf(CreateCircle, 3, players[3], gone))
	tb.do(tb.circleOf(LeaveCircle, 3, players[3], gone))
	g := tb.game()
	room := tb.room(1, players[1], c, g)
	p, _ := tb.asks(1, players[1], room, tb.ruled())
	for shards := range 4 {
		t.Run(fmt.Sprint(shards+1), func(t *testing.T) {
			again := reopen(t, shards+1, reloaded(t, tb.replay()), slices.Clone(tb.journal.records))
			if next := again.m.NextCircle(); next != gone+1 {
				t.Errorf("the next circle is %d", next)
			}
			if m := only[*proto.Circle](t, again.do(again.circleOf(ShowCircle, 1, players[1], c))); m.Code != someCode || len(m.Members) != 2 {
				t.Errorf("the circle is %+v", m)
			}
			if same := again.room(2, players[2], c, g); same != room {
				t.Errorf("the room is %d, was %d", same, room)
			}
			again.do(again.stakeOf(2, players[2], 7, p, 0, 100))
			again.event(g, proto.Event{Kind: "goal"})
			again.is(p, proto.PoolSettled)
		})
	}
}

// Who is removed while the room's image is on its way to him gets it, and is taken out of the room after it.
func TestRemovedWhileJoining(t *testing.T) {
	tb := newTable(t, 3)
	c, players := tb.circle()
	own := tb.m.shardOfAccount(players[2])
	g := tb.game()
	for tb.m.shardOfGame(g) == own {
		g = tb.game()
	}
	room := tb.room(1, players[1], c, g)
	tb.said = nil
	tb.m.Submit(&Command{Kind: Join, From: session(2), ID: 3, Account: players[2], Game: room})
	tb.m.shardOfGame(g).turn(tb.now) // asks the account's shard
	own.turn(tb.now)                 // which says that he is a member
	remove := tb.circleOf(RemoveMember, 1, players[1], c)
	remove.Other = players[2]
	tb.m.Submit(&remove)
	for range 3 { // the removal gets to the account's shard
		for _, s := range tb.m.shards {
			if s != tb.m.shardOfGame(g) {
				s.turn(tb.now)
			}
		}
		if tb.m.shardOfAccount(players[1]) == tb.m.shardOfGame(g) || tb.m.shardOfCircle(c) == tb.m.shardOfGame(g) {
			tb.m.shardOfGame(g).turn(tb.now)
		}
	}
	tb.settle()
	joined, evicted := -1, -1
	for i, o := range tb.said {
		if _, is := o.Message.(*proto.Joined); is && o.To == session(2) {
			joined = i
		}
		if o.Kind == OutEvicted && o.To == session(2) && o.Circle == c {
			evicted = i
		}
	}
	if joined < 0 || evicted < joined {
		t.Errorf("joined at %d, and taken out at %d of %+v", joined, evicted, tb.said)
	}
}
