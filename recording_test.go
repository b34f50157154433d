package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tote/server/bench"
	"tote/server/market/sports"
	"tote/server/proto"
)

// A match with players is recorded over a kill of its server, exported, and played again in another server a thousand times as fast:
// it comes to the same, to the last unit of the last player.
func TestReplayComesToTheSame(t *testing.T) {
	a := start(t, t.TempDir(), "--record")
	teams, shortlist := [2]string{"Argentina", "France"}, []string{"Lionel Messi"}
	g := must(a.desk.OpenGame(t.Context(), proto.GameOpening{Name: "Argentina v France", Teams: teams, Shortlist: shortlist, Templates: sports.Football()}))(t).Game
	const players = 7
	var tokens []string
	var clients []*bench.Client
	for n := range players {
		c, account := a.dial(fmt.Sprint("player ", n), 100_000)
		clients, tokens = append(clients, c), append(tokens, account.Token)
	}
	id := proto.RequestID(0)
	stakes := func(pools []proto.PoolID, rounds int) {
		t.Helper()
		for i := range rounds {
			for n, c := range clients {
				id++
				pool := pools[(i+n)%len(pools)]
				ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, ID: id, Pool: pool, Outcome: proto.Outcome((i * n) % 2), Amount: proto.Amount(1 + 37*i + n*n)})
			}
		}
	}
	event := func(e proto.Event) *proto.Answer {
		t.Helper()
		return must(a.desk.PostEvent(t.Context(), g, e))(t)
	}
	opened := event(proto.Event{Kind: "kickoff", Number: 1}).Opened
	rain := must(a.desk.OpenPool(t.Context(), g, proto.PoolOpening{Question: "Rain?", Labels: []string{"yes", "no"}, Takeout: 250}))(t).Pool
	soon := must(a.desk.OpenPool(t.Context(), g, proto.PoolOpening{Question: "Soon?", Labels: []string{"yes", "no"},
		LocksAt: proto.Time(time.Now().Add(700 * time.Millisecond).UnixMicro())}))(t).Pool
	tide := must(a.desk.OpenPool(t.Context(), g, proto.PoolOpening{Question: "Tide?", Labels: []string{"in", "out"}, Kind: "dpm",
		Seeds: []proto.Seed{{Money: 1000}, {Money: 1000}}}))(t).Pool
	sea := must(a.desk.OpenPool(t.Context(), g, proto.PoolOpening{Question: "Sea?", Labels: []string{"calm", "rough", "frozen"},
		Rules: proto.Rules{Payout: proto.PayoutDividend, Unit: 1, Break: 1}}))(t).Pool
	ask[*proto.Joined](t, clients[0], proto.Request{Type: proto.RequestJoin, ID: 1, Game: g})
	asked := ask[*proto.QuestionState](t, clients[0], corner(g, time.Hour)).Pool
	stakes(append(opened, rain, soon, tide, sea, asked), 8)
	sold := 0
	for n, c := range clients { // those who have so many shares sell some, the others are refused
		id++
		if _, ok := must(c.Ask(proto.Request{Type: proto.RequestSell, ID: id, Pool: tide, Outcome: proto.Outcome(n % 2), Shares: proto.Shares(1_000_000 + n)}))(t).(*proto.Sold); ok {
			sold++
		}
	}
	if sold == 0 {
		t.Error("nobody has sold anything")
	}
	must(a.desk.WithdrawOutcome(t.Context(), sea, 1))(t)
	opened = append(opened, event(proto.Event{Kind: "goal", Number: 2, Minute: 23, Team: 1, Player: "Lionel Messi", Score: [2]uint16{1, 0}}).Opened...)

	a.process.Process.Kill()
	a.gone()
	a = start(t, a.data, "--record")
	for n := range clients {
		clients[n] = a.hello(tokens[n])
	}
	stakes([]proto.PoolID{opened[len(opened)-1], opened[len(opened)-2], rain}, 5)
	for soonLocked := false; !soonLocked; time.Sleep(5 * time.Millisecond) { // by its time
		for _, p := range must(a.desk.Pools(t.Context(), g))(t).Pools {
			soonLocked = soonLocked || p.Pool == soon && p.State == proto.PoolLocked
		}
	}
	must(a.desk.Settle(t.Context(), soon, 0))(t)
	for _, p := range []proto.PoolID{tide, sea, asked} {
		must(a.desk.Lock(t.Context(), p, 0))(t)
	}
	must(a.desk.Settle(t.Context(), tide, 0))(t)
	must(a.desk.Settle(t.Context(), sea, 0, 2))(t) // a dead heat
	must(a.desk.Settle(t.Context(), asked, 1))(t)
	must(a.desk.Lock(t.Context(), rain, 0))(t)
	must(a.desk.Settle(t.Context(), rain, 1))(t)
	event(proto.Event{Kind: "halftime", Number: 3, Minute: 45, Score: [2]uint16{1, 0}})
	event(proto.Event{Kind: "fulltime", Number: 4, Minute: 90, Score: [2]uint16{1, 0}})
	event(proto.Event{Kind: "end", Number: 5, Minute: 90, Team: 1, Score: [2]uint16{1, 0}})

	file := filepath.Join(t.TempDir(), "final.rec")
	out, ok := shell(t, a.desk.Base, "record", "export", fmt.Sprint(g), file)
	var exported struct {
		Records, Questions, Players int
		Digest                      string
	}
	if err := json.Unmarshal([]byte(out), &exported); err != nil || !ok || exported.Players != players || exported.Questions < 11 {
		t.Fatalf("export: %v, %v\n%s", ok, err, out)
	}
	if out, ok := shell(t, a.desk.Base, "record", "export", fmt.Sprint(g), file); ok {
		t.Errorf("a file was overwritten: %s", out)
	}

	b := start(t, t.TempDir(), "--record")
	b.dial("somebody", 5) // so that accounts and games have other ids
	b.game(1)
	for _, args := range [][]string{{file}, {file, "--speed", "1000", "--loop", "2"}} {
		out, ok = shell(t, b.desk.Base, append([]string{"replay", "--check"}, args...)...)
		if got := strings.Count(out, `"replayed": "`+exported.Digest+`"`); !ok || got < 1 {
			t.Errorf("replay %v: %v\n%s", args, ok, out)
		}
	}
	// From the server that recorded it, into a game that was opened by hand; and one that somebody else stakes in comes to something else.
	into := must(a.desk.OpenGame(t.Context(), proto.GameOpening{Name: "Again", Teams: teams, Shortlist: shortlist}))(t).Game
	if out, ok := shell(t, a.desk.Base, "replay", "--check", fmt.Sprint(g), "--into", fmt.Sprint(into)); !ok {
		t.Errorf("replay into game %d: %s", into, out)
	}
	if out, ok := shell(t, a.desk.Base, "replay", fmt.Sprint(g), "--into", fmt.Sprint(into)); ok || !strings.Contains(out, "pools already") {
		t.Errorf("a game was played over: %s", out)
	}
	disturbed := must(a.desk.OpenGame(t.Context(), proto.GameOpening{Name: "Disturbed", Teams: teams, Shortlist: shortlist}))(t).Game
	guest, _ := a.dial("guest", 1000)
	ask[*proto.Joined](t, guest, proto.Request{Type: proto.RequestJoin, ID: 1, Game: disturbed})
	result := make(chan string, 1)
	go func() {
		out, ok := shell(t, a.desk.Base, "replay", "--check", fmt.Sprint(g), "--into", fmt.Sprint(disturbed), "--speed", "1")
		result <- fmt.Sprint(ok, " ", out)
	}()
	for staked := false; !staked && len(result) == 0; {
		if m, ok := must(guest.Receive())(t).(*proto.Opened); ok {
			ask[*proto.Receipt](t, guest, proto.Request{Type: proto.RequestStake, ID: 2, Pool: m.Pool.Pool, Amount: 10})
			staked = true
		}
	}
	if out := <-result; !strings.HasPrefix(out, "false") || !strings.Contains(out, "came to something else") {
		t.Errorf("with a stake more: %s", out)
	}
	if out, ok := shell(t, b.desk.Base, "record", "export", "9999", file+"2"); ok || !strings.Contains(out, "nothing is recorded") {
		t.Errorf("a game that nobody opened: %s", out)
	}
	_, pools := b.game(1)
	for name, batch := range map[string][]proto.AccountStake{
		"another game":        {{Account: 1, ID: 1, Pool: pools[0], Amount: 5}},
		"more than are taken": make([]proto.AccountStake, proto.StakeBatchMax+1),
	} {
		if _, err := b.desk.Stake(t.Context(), 1, proto.StakeBatch{Stakes: batch}); err == nil || !strings.Contains(err.Error(), "400 malformed") {
			t.Errorf("a batch with %s: %v", name, err)
		}
	}
	verdicts := must(b.desk.Stake(t.Context(), pools[0].Game(), proto.StakeBatch{Stakes: []proto.AccountStake{
		{Account: 1, ID: 1001, Pool: pools[0], Amount: 3}, {Account: 1, ID: 1002, Pool: pools[0], Amount: 3}, {Account: 9999, ID: 1, Pool: pools[0], Amount: 3}}}))(t).Verdicts
	if verdicts[0].Prediction == 0 || verdicts[1].Code != "funds_short" || verdicts[2].Code != "account_unknown" {
		t.Errorf("verdicts %+v", verdicts)
	}
	for _, s := range []*running{a, b} {
		s.stop()
		s.audited()
	}
}

// A server that does not record says so; one that has not for a while gives no recording of what was played meanwhile.
func TestNothingIsRecordedUnasked(t *testing.T) {
	s := start(t, t.TempDir())
	g, _ := s.game(1)
	if out, ok := shell(t, s.desk.Base, "record", "export", fmt.Sprint(g), filepath.Join(t.TempDir(), "x.rec")); ok || !strings.Contains(out, "start it with --record") {
		t.Errorf("exported %s", out)
	}
	s.stop()
	s = start(t, s.data, "--record")
	must(s.desk.PostEvent(t.Context(), g, proto.Event{Kind: "kickoff"}))(t)
	if out, ok := shell(t, s.desk.Base, "record", "export", fmt.Sprint(g), filepath.Join(t.TempDir(), "x.rec")); ok || !strings.Contains(out, "did not record then") {
		t.Errorf("exported %s", out)
	}
}
