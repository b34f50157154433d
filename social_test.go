package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tote/server/bench"
	"tote/server/proto"
)

// heard waits for a message of a kind that fits; what comes before is passed over, so wait for what one shard says only.
func heard[M proto.Message](t *testing.T, c *bench.Client, fits func(M) bool) M {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; { // heartbeats come for ever
		m, ok := must(c.Receive())(t).(M)
		if ok && fits(m) {
			return m
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %T came", m)
		}
	}
}

func inState(p proto.PoolID, state proto.PoolState) func(*proto.PoolChanged) bool {
	return func(m *proto.PoolChanged) bool { return m.Pool.Pool == p && m.Pool.State == state }
}

// corner is a question of which its asker names the winner.
func corner(g proto.GameID, locksIn time.Duration) proto.Request {
	return proto.Request{Type: proto.RequestAsk, Game: g, Ask: &proto.Question{Question: "Who takes the next corner?",
		Labels: []string{"Argentina", "France"}, LocksAt: now() + proto.Time(locksIn.Microseconds())}}
}

// A moderated question from its asker to an operator: asked, approved, staked on, locked, claimed, challenged, settled.
func TestQuestionIsDisputed(t *testing.T) {
	s := start(t, t.TempDir(), "--moderate")
	ada, account := s.dial("Ada", 1000)
	bob, _ := s.dial("Bob", 1000)
	eve, evil := s.dial("Eve", 1000)
	g, _ := s.game(0)
	for _, c := range []*bench.Client{ada, bob, eve} {
		ask[*proto.Joined](t, c, proto.Request{Type: proto.RequestJoin, Game: g})
	}
	asked := ask[*proto.QuestionState](t, ada, corner(g, 3*time.Second))
	if asked.State != proto.PoolProposed {
		t.Fatalf("asked: %+v", asked)
	}
	p := asked.Pool
	if r := ask[*proto.Refused](t, bob, proto.Request{Type: proto.RequestStake, ID: 1000, Pool: p, Amount: 10}); r.Reason != proto.RefusedPoolProposed {
		t.Errorf("a stake before the approval: %s", r.Reason.Code())
	}
	out, ok := shell(t, s.desk.Base, "question", "list")
	if !ok || !strings.Contains(out, `"state": "proposed"`) || !strings.Contains(out, `"name": "Ada"`) {
		t.Errorf("ctl question list: %s", out)
	}
	if out, ok := shell(t, s.desk.Base, "question", "approve", fmt.Sprint(p)); !ok {
		t.Fatalf("ctl question approve: %s", out)
	}
	opened := heard(t, bob, func(m *proto.Opened) bool { return m.Pool.Pool == p })
	if opened.Pool.Asked.Account != account.Account || opened.Pool.Asked.Name != "Ada" {
		t.Errorf("opened: %+v", opened)
	}
	if told := heard(t, ada, func(m *proto.QuestionState) bool { return m.ID == 0 }); told.State != proto.PoolOpen || told.N == 0 {
		t.Errorf("the asker was told %+v", told)
	}
	if r := ask[*proto.Refused](t, ada, proto.Request{Type: proto.RequestStake, ID: 1000, Pool: p, Amount: 10}); r.Reason != proto.RefusedStakeByAsker {
		t.Errorf("a stake of the asker's: %s", r.Reason.Code())
	}
	ask[*proto.Receipt](t, bob, proto.Request{Type: proto.RequestStake, ID: 1001, Pool: p, Outcome: 0, Amount: 100})
	ask[*proto.Receipt](t, eve, proto.Request{Type: proto.RequestStake, ID: 1001, Pool: p, Outcome: 1, Amount: 100})
	heard(t, ada, func(m *proto.Locked) bool { return m.Pool == p })
	if r := ask[*proto.QuestionState](t, ada, proto.Request{Type: proto.RequestResolve, Pool: p, Winners: 1 << 1}); r.State != proto.PoolClaimed {
		t.Errorf("resolved: %+v", r)
	}
	claim := heard(t, bob, inState(p, proto.PoolClaimed)).Pool.Asked
	if len(claim.Claim) != 1 || claim.Claim[0] != 1 || claim.Until == 0 {
		t.Errorf("the claim: %+v", claim)
	}
	ask[*proto.QuestionState](t, bob, proto.Request{Type: proto.RequestChallenge, Pool: p})

	// It survives the host: the server is killed, and the question still waits for the operator.
	if err := s.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.gone()
	s = start(t, s.data, "--moderate")
	eve = s.hello(evil.Token)
	image := ask[*proto.Joined](t, eve, proto.Request{Type: proto.RequestJoin, Game: g})
	if len(image.Pools) != 1 || image.Pools[0].State != proto.PoolClaimed || image.Pools[0].Asked.Until != 0 {
		t.Errorf("after the crash: %+v", image.Pools)
	}
	must(s.desk.Settle(t.Context(), p, 0))(t)
	heard(t, eve, func(m *proto.Settled) bool { return m.Pool == p && m.Winners[0] == 0 })
	if a := ask[*proto.Account](t, eve, proto.Request{Type: proto.RequestAccount}); a.Balance != 900 {
		t.Errorf("Eve has %d", a.Balance)
	}
	s.stop()
	s.audited()
}

// A claim that nobody challenges settles itself.
func TestQuestionSettlesItself(t *testing.T) {
	s := start(t, t.TempDir(), "--challenge-for", "1s")
	ada, _ := s.dial("Ada", 1000)
	bob, _ := s.dial("Bob", 1000)
	g, _ := s.game(0)
	for _, c := range []*bench.Client{ada, bob} {
		ask[*proto.Joined](t, c, proto.Request{Type: proto.RequestJoin, Game: g})
	}
	asked := ask[*proto.QuestionState](t, ada, corner(g, 2*time.Second))
	if asked.State != proto.PoolOpen {
		t.Fatalf("asked: %+v", asked)
	}
	ask[*proto.Receipt](t, bob, proto.Request{Type: proto.RequestStake, ID: 1000, Pool: asked.Pool, Amount: 100})
	heard(t, ada, func(m *proto.Locked) bool { return m.Pool == asked.Pool })
	ask[*proto.QuestionState](t, ada, proto.Request{Type: proto.RequestResolve, Pool: asked.Pool, Winners: 1})
	heard(t, ada, func(m *proto.Settled) bool { return m.Pool == asked.Pool })
	if pay := heard(t, bob, func(*proto.Payout) bool { return true }); pay.Payout != 100 {
		t.Errorf("paid %+v", pay)
	}
	wrong := corner(g, 0)
	wrong.Ask.Settle, wrong.Ask.LocksAt, wrong.Ask.Wins = proto.SettledByRules, 0, []string{"true", "event.knd == 1"}
	if r := ask[*proto.Refused](t, bob, wrong); r.Reason != proto.RefusedTemplate || !strings.Contains(r.Detail, "wins 1:1: there is no event.knd") {
		t.Errorf("wrong rules: %+v", r)
	}
	s.stop()
	s.audited()
}

// A circle plays in its own room of a game: strangers see nothing of it, and whom its owner removes hears no more.
func TestCircleFromOutside(t *testing.T) {
	s := start(t, t.TempDir())
	ada, _ := s.dial("Ada", 1000)
	bob, second := s.dial("Bob", 1000)
	eve, _ := s.dial("Eve", 1000)
	g, _ := s.game(0)
	circle := ask[*proto.Circle](t, ada, proto.Request{Type: proto.RequestCircleCreate, Name: "Row 12"})
	if r := ask[*proto.Refused](t, eve, proto.Request{Type: proto.RequestCircleJoin, Circle: circle.Circle, Code: circle.Code ^ 1}); r.Reason != proto.RefusedCircleCode {
		t.Errorf("with a wrong code: %s", r.Reason.Code())
	}
	ask[*proto.Circle](t, bob, proto.Request{Type: proto.RequestCircleJoin, Circle: circle.Circle, Code: circle.Code})
	room := ask[*proto.CircleGame](t, bob, proto.Request{Type: proto.RequestCircleGame, Circle: circle.Circle, Game: g}).Game
	join := proto.Request{Type: proto.RequestJoin, Game: room}
	ask[*proto.Joined](t, ada, join)
	ask[*proto.Joined](t, bob, join)
	if r := ask[*proto.Refused](t, eve, join); r.Reason != proto.RefusedCircleForeign {
		t.Errorf("a stranger joins: %s", r.Reason.Code())
	}
	if r := ask[*proto.Refused](t, eve, proto.Request{Type: proto.RequestPresence, Game: room}); r.Reason != proto.RefusedGameNotJoined {
		t.Errorf("a stranger asks who is there: %s", r.Reason.Code())
	}
	if games := ask[*proto.Games](t, bob, proto.Request{Type: proto.RequestGames}).Games; len(games) != 1 || games[0].Game != g {
		t.Errorf("the list of games is %+v", games)
	}
	next := proto.Request{Type: proto.RequestAsk, Game: room, Ask: &proto.Question{Question: "Another goal?", Labels: []string{"Yes", "No"},
		Settle: proto.SettledByRules, Wins: []string{`event.kind == "goal"`, `event.kind == "end"`}}}
	p := ask[*proto.QuestionState](t, ada, next).Pool
	ask[*proto.Receipt](t, bob, proto.Request{Type: proto.RequestStake, ID: 1000, Pool: p, Amount: 100})
	must(s.desk.PostEvent(t.Context(), g, proto.Event{Kind: "goal", Minute: 23, Team: 1, Score: [2]uint16{1, 0}}))(t)
	heard(t, bob, func(m *proto.Happened) bool { return m.Game == room && m.Minute == 23 })
	heard(t, bob, func(m *proto.Settled) bool { return m.Pool == p })

	ask[*proto.Circle](t, ada, proto.Request{Type: proto.RequestCircleRemove, Circle: circle.Circle, Account: second.Account})
	heard(t, bob, func(m *proto.CircleLeft) bool { return m.ID == 0 && m.Circle == circle.Circle })
	must(s.desk.PostEvent(t.Context(), g, proto.Event{Kind: "goal", Minute: 36, Team: 1, Score: [2]uint16{2, 0}}))(t)
	heard(t, ada, func(m *proto.Happened) bool { return m.Game == room && m.Minute == 36 })
	if r := ask[*proto.Refused](t, bob, proto.Request{Type: proto.RequestLeave, Game: room}); r.Reason != proto.RefusedGameNotJoined {
		t.Errorf("the removed member is still in the room: %s", r.Reason.Code())
	}
	s.stop()
	s.audited()
}
