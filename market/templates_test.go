package market

import (
	"slices"
	"strings"
	"testing"

	"tote/server/proto"
)

// scorer asks after each event of a kind who scores next, and settles by another.
func scorer(name, opens, wins string) proto.Template {
	return proto.Template{Name: name, Question: name + "?", Opens: `event.kind == "` + opens + `"`,
		Outcomes: []proto.TemplateOutcome{
			{Label: "{team1}", Wins: `event.kind == "` + wins + `" && event.team == 1`},
			{Label: "{team2}", Wins: `event.kind == "` + wins + `" && event.team == 2`},
		}}
}

func (tb *table) post(g proto.GameID, kind string, team uint8) proto.Answer {
	tb.t.Helper()
	return tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: kind, Team: team}})
}

func (tb *table) setTemplates(g proto.GameID, templates ...proto.Template) {
	tb.t.Helper()
	tb.answer(Command{Kind: SetTemplates, Game: g, Args: &proto.TemplateSet{Templates: templates}})
}

// A pool keeps the rules under which people have staked in it; new pools come from the new templates.
func TestPoolsKeepTheirRules(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 1000)
	g := tb.game(scorer("first", "kickoff", "goal"), scorer("second", "corner", "goal"))
	goal := tb.post(g, "kickoff", 0).Opened[0]
	tb.accept(1, ada, 1, goal, 0, 100)

	tb.setTemplates(g, scorer("third", "kickoff", "throw"))
	thrown := tb.post(g, "kickoff", 0).Opened
	if len(thrown) != 1 {
		t.Fatalf("a kick-off opens %v under the new templates, want one pool", thrown)
	}
	if opened := tb.post(g, "corner", 0).Opened; opened != nil {
		t.Fatalf("a corner opens %v: its template was replaced", opened)
	}
	tb.setTemplates(g, scorer("fourth", "corner", "card")) // two old ones are kept now, for two open pools
	carded := tb.post(g, "corner", 0).Opened
	for _, row := range []struct {
		kind string
		pool proto.PoolID
	}{{"throw", thrown[0]}, {"goal", goal}, {"card", carded[0]}} {
		if settled := tb.post(g, row.kind, 1).Settled; !slices.Equal(settled, []proto.PoolID{row.pool}) {
			t.Errorf("a %s settles %v, want %d", row.kind, settled, row.pool)
		}
	}
	if got := tb.balance(1, ada); got != 1000 {
		t.Errorf("who alone backed the winner has %d, want 1000", got)
	}

	// What no open pool needs is dropped.
	tb.setTemplates(g, scorer("fifth", "kickoff", "goal"))
	if n := len(tb.m.shardOfGame(g).games[g].programs); n != 1 {
		t.Errorf("the game carries %d templates, want 1", n)
	}
}

// A set with one broken template changes nothing.
func TestTemplatesAreSetWhole(t *testing.T) {
	tb := newTable(t, 1)
	g := tb.game(scorer("first", "kickoff", "goal"))
	records := len(tb.journal.records)
	broken := scorer("broken", "kickoff", "goal")
	broken.Opens = "event.knd"
	for _, row := range []struct {
		name string
		game proto.GameID
		set  []proto.Template
		want proto.Refusal
	}{
		{"a broken one", g, []proto.Template{scorer("new", "corner", "goal"), broken}, proto.RefusedTemplate},
		{"too many", g, slices.Repeat([]proto.Template{scorer("new", "corner", "goal")}, templatesMax+1), proto.RefusedTemplate},
		{"no such game", g + 1, nil, proto.RefusedGameUnknown},
	} {
		if got := tb.verdict(Command{Kind: SetTemplates, From: desk, Game: row.game, Args: &proto.TemplateSet{Templates: row.set}}); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got.Code(), row.want.Code())
		}
	}
	if len(tb.journal.records) != records {
		t.Error("a refusal is in the journal")
	}
	if opened := tb.post(g, "kickoff", 0).Opened; len(opened) != 1 {
		t.Errorf("a kick-off opens %v, want one pool of the old template", opened)
	}
	tb.post(g, "end", 0)
	if got := tb.verdict(Command{Kind: SetTemplates, From: desk, Game: g, Args: &proto.TemplateSet{}}); got != proto.RefusedGameEnded {
		t.Errorf("after the end: %s", got.Code())
	}
}

// A snapshot keeps which templates open pools and which are kept.
func TestTemplatesSurviveASnapshot(t *testing.T) {
	tb := newTable(t, 1)
	g := tb.game(scorer("first", "kickoff", "goal"))
	goal := tb.post(g, "kickoff", 0).Opened[0]
	tb.setTemplates(g, scorer("second", "kickoff", "throw"))
	var snapshot strings.Builder
	before := tb.replay()
	if err := before.Snapshot(&snapshot); err != nil {
		t.Fatal(err)
	}
	after := NewReplica()
	if err := after.Load(strings.NewReader(snapshot.String())); err != nil {
		t.Fatal(err)
	}
	if after.Digest() != before.Digest() {
		t.Fatal("the snapshot is another market")
	}
	m, err := New(Config{Shards: 1, Now: func() proto.Time { return start }, Journal: tb.journal, Deliver: func(*Batch) {}}, after)
	if err != nil {
		t.Fatal(err)
	}
	live := m.shardOfGame(g).games[g]
	var scored, kickedOff plan
	m.shardOfGame(g).resolve(&scored, live, &proto.Event{Kind: "goal", Team: 1})
	if len(scored.steps) != 3 || scored.steps[2].kind != recordSettled || scored.steps[2].id != uint64(goal) {
		t.Errorf("a goal means %+v, want that pool %d is settled", scored.steps, goal)
	}
	if m.shardOfGame(g).resolve(&kickedOff, live, &proto.Event{Kind: "kickoff"}); len(kickedOff.steps) != 2 {
		t.Errorf("a kick-off means %+v, want one new pool", kickedOff.steps)
	}
}

// A rehearsal keeps appointments on its way: a pool locks in time though nobody says so.
func TestRehearsal(t *testing.T) {
	r := NewRehearsal(start)
	answer, _, err := r.Do(start, Command{Kind: OpenGame, Game: r.Market().NextGame(), Args: &proto.GameOpening{Name: "Cup"}})
	if err != nil {
		t.Fatal(err)
	}
	opened, _, err := r.Do(start, Command{Kind: OpenPool, Game: answer.Game, Args: &proto.PoolOpening{Question: "Rain?", Labels: []string{"yes", "no"},
		LocksAt: start + proto.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	_, said, err := r.Do(start+2*proto.Hour, Command{Kind: SettlePool, Pool: opened.Pool, Args: &proto.Settlement{Winners: []proto.Outcome{1}}})
	if err != nil {
		t.Fatal(err)
	}
	if locked := only[*proto.Locked](t, said); locked.At != start+proto.Hour {
		t.Errorf("locked at %d, want %d", locked.At-start, proto.Hour)
	}
	if _, _, err := r.Do(start+2*proto.Hour, Command{Kind: SettlePool, Pool: opened.Pool, Args: &proto.Settlement{Winners: []proto.Outcome{1}}}); err == nil {
		t.Error("a settled pool was settled")
	}
}
