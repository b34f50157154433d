package rules

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"tote/server/proto"
)

var final = Game{Teams: [2]string{"Argentina", "France"}, Shortlist: []string{"Lionel Messi", "Kylian Mbappé"}}

// nextGoal is a template that everything in it can be changed of.
func nextGoal() proto.Template {
	return proto.Template{
		Name:     "next goal",
		Question: "Minute {minute}: who scores next, {team1} or {team2}?",
		Opens:    `event.kind == "kickoff" || event.kind == "goal"`,
		Locks:    `event.kind == "shootout"`,
		Voids:    `event.kind == "abandoned"`,
		Outcomes: []proto.TemplateOutcome{
			{Label: "{player}", Each: "shortlist", Wins: `event.kind == "goal" && event.player == player`},
			{Label: "{team1}, another player", Wins: `event.kind == "goal" && event.team == 1`},
			{Label: "{team2}, another player", Wins: `event.kind == "goal" && event.team == 2`},
			{Label: "Nobody", Wins: `event.kind == "end"`},
		},
	}
}

func compile(t *testing.T, template proto.Template) *Program {
	t.Helper()
	p, err := Compile(template, final)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLifeOfAPool(t *testing.T) {
	p := compile(t, nextGoal())
	kickoff := &proto.Event{Kind: "kickoff"}
	messi := &proto.Event{Kind: "goal", Minute: 23, Team: 1, Player: "Lionel Messi", Score: [2]uint16{1, 0}, Penalty: true}
	pool := State{Minute: 1}

	question, labels, ok := p.Opens(kickoff, pool)
	if want := "Minute 1: who scores next, Argentina or France?"; !ok || question != want {
		t.Fatalf("kick-off opens %q, %v, want %q", question, ok, want)
	}
	if want := []string{"Lionel Messi", "Kylian Mbappé", "Argentina, another player", "France, another player", "Nobody"}; !slices.Equal(labels, want) {
		t.Fatalf("labels are %q, want %q", labels, want)
	}
	if question, labels, ok := p.Opens(&proto.Event{Kind: "minute"}, pool); ok || question != "" || labels != nil {
		t.Fatal("a minute opens a pool")
	}

	for _, row := range []struct {
		event  proto.Event
		winner proto.Outcome
		locks  bool
		voids  bool
	}{
		{event: proto.Event{Kind: "minute", Minute: 22}, winner: proto.OutcomeNone},
		{event: *messi, winner: 0},
		{event: proto.Event{Kind: "goal", Team: 2, Player: "Kylian Mbappé"}, winner: 1},
		{event: proto.Event{Kind: "goal", Team: 1, Player: "Ángel Di María"}, winner: 2},
		{event: proto.Event{Kind: "goal", Team: 2}, winner: 3},
		{event: proto.Event{Kind: "end"}, winner: 4},
		{event: proto.Event{Kind: "shootout"}, winner: proto.OutcomeNone, locks: true},
		{event: proto.Event{Kind: "abandoned"}, winner: proto.OutcomeNone, voids: true},
	} {
		winner, ok := p.Winner(&row.event, State{}, pool)
		if winner != row.winner || ok != (row.winner != proto.OutcomeNone) {
			t.Errorf("%+v: outcome %d wins, %v; want %d", row.event, winner, ok, row.winner)
		}
		if locks := p.Locks(&row.event, State{}, pool); locks != row.locks {
			t.Errorf("%+v: locks %v", row.event, locks)
		}
		if voids := p.Voids(&row.event, State{}, pool); voids != row.voids {
			t.Errorf("%+v: voids %v", row.event, voids)
		}
	}
}

// Each expression is asked about one goal: 80', Mbappé's penalty, 2–1, in a pool opened at 36' when it stood 2–0.
func TestExpressions(t *testing.T) {
	goal := proto.Event{Kind: "goal", Minute: 80, Team: 2, Player: "Kylian Mbappé", Score: [2]uint16{2, 1}, Penalty: true}
	game, pool := State{Minute: 80, Score: [2]uint16{2, 1}}, State{Minute: 36, Score: [2]uint16{2, 0}}
	for _, row := range []struct {
		rule  string
		holds bool
	}{
		{`true`, true},
		{`event.kind == "goal"`, true},
		{`event.kind in ["goal", "penalty"]`, true},
		{`event.minute == 80 && game.minute == 80 && pool.minute == 36`, true},
		{`event.score1 == 2 && event.score2 == 1 && game.score1 == 2 && game.score2 == 1`, true},
		{`pool.score1 == 2 && pool.score2 == 0`, true},
		{`game.score1 + game.score2 - pool.score1 - pool.score2 == 1`, true},
		{`game.score1 > game.score2 ? event.team == 2 : false`, true},
		{`event.penalty && !event.own_goal`, true},
		{`event.player == "Kylian Mbappé"`, true},
		{`event.player.startsWith("Kylian") && event.player.endsWith("é") && event.player.contains(" ")`, true},
		{`size(event.player) == 13`, true}, // letters, not bytes
		{`game.team1 == "Argentina" && game.team2 == "France"`, true},
		{"event.kind ==\n  \"goal\" // over two lines", true},

		{`event.team == 1`, false},
		{`event.minute / (game.score1 - 2) == 0`, false},        // divides by zero: does not hold
		{`!(event.minute / (game.score1 - 2) == 0)`, false},     // and neither does its contrary
		{`event.minute % 0 == 1 || event.kind == "goal"`, true}, // but || does not need it
		{`event.minute * 9223372036854775807 > 0`, false},       // overflows
		{`event.own_goal == true`, false},
	} {
		template := nextGoal()
		template.Locks = row.rule
		if got := compile(t, template).Locks(&goal, game, pool); got != row.holds {
			t.Errorf("%s: %v, want %v", row.rule, got, row.holds)
		}
	}
}

// What is put into a text is not read as a placeholder again.
func TestNamesAreNotPlaceholders(t *testing.T) {
	template := nextGoal()
	p, err := Compile(template, Game{Teams: [2]string{"{team2}", "{nobody"}, Shortlist: []string{"{minute}"}})
	if err != nil {
		t.Fatal(err)
	}
	question, labels, _ := p.Opens(&proto.Event{Kind: "kickoff"}, State{Minute: 7})
	if want := "Minute 7: who scores next, {team2} or {nobody?"; question != want || labels[0] != "{minute}" {
		t.Fatalf("%q, %q, want %q", question, labels[0], want)
	}
}

func TestErrorsPointAtThePlace(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*proto.Template)
		want   string
	}{
		{"misspelled member", func(t *proto.Template) { t.Opens = `event.knd == "goal"` },
			`template "next goal": opens 1:1: there is no event.knd; expected one of event.kind, event.minute, event.team, event.player, event.score1, event.score2, event.penalty, event.own_goal`},
		{"on the second line", func(t *proto.Template) { t.Locks = "event.minute == 30 ||\n  game.minutes == 30" },
			`template "next goal": locks 2:3: there is no game.minutes; expected one of game.minute, game.score1`},
		{"after letters of several bytes", func(t *proto.Template) { t.Voids = `event.player == "Mbappé" && pool.score == 1` },
			`voids 1:29: there is no pool.score; expected one of pool.minute, pool.score1, pool.score2`},
		{"an object as a value", func(t *proto.Template) { t.Voids = `event == game` }, `voids 1:1: there is no event; expected one of event.kind`},
		{"no pool yet", func(t *proto.Template) { t.Opens = `pool.minute == 1` }, `opens 1:1: there is no pool yet`},
		{"player of no shortlist", func(t *proto.Template) { t.Outcomes[1].Wins = `event.player == player` },
			`outcome 2 "{team1}, another player" wins 1:17: player is a name of the shortlist`},
		{"unknown variable", func(t *proto.Template) { t.Opens = `evnt.kind == "goal"` }, `opens 1:1: undeclared reference to 'evnt'; expected event, game, pool`},
		{"number for text", func(t *proto.Template) { t.Opens = `event.kind == 1` }, `opens 1:12: found no matching overload for '_==_' applied to '(string, int)'`},
		{"mixed list", func(t *proto.Template) { t.Opens = `event.kind in ["goal", 1]` }, `opens 1:24: expected type 'string' but found 'int'`},
		{"not boolean", func(t *proto.Template) { t.Opens = `event.minute` }, `opens 1:1: the rule yields int, expected true or false`},
		{"syntax", func(t *proto.Template) { t.Outcomes[3].Wins = `event.kind = "end"` }, `outcome 4 "Nobody" wins 1:12: Syntax error`},
		{"empty rule", func(t *proto.Template) { t.Outcomes[3].Wins = " " }, `outcome 4 "Nobody" wins: the rule is empty`},
		{"no opening rule", func(t *proto.Template) { t.Opens = "" }, `opens: the rule is empty`},
		{"long rule", func(t *proto.Template) { t.Opens = strings.Repeat("true || ", 300) + "true" }, `opens: the rule has 2404 bytes, expected at most 2048`},
		{"deep rule", func(t *proto.Template) { t.Opens = strings.Repeat("(", 500) + "true" + strings.Repeat(")", 500) }, `opens 1:1: expression recursion limit exceeded`},
		{"not UTF-8", func(t *proto.Template) { t.Opens = "event.kind == '\xff'" }, `opens: the rule is not UTF-8`},

		// Nothing that a replay could see otherwise.
		{"map", func(t *proto.Template) { t.Opens = `event.kind in {"goal": 1}` }, `opens 1:15: maps and objects have no fixed order`},
		{"clock zone", func(t *proto.Template) { t.Opens = `timestamp("2022-12-18T15:00:00Z").getHours("Asia/Qatar") == 18` }, `opens 1:10: undeclared reference to 'timestamp'`},
		{"loop", func(t *proto.Template) { t.Opens = `[1, 2].exists(m, m == event.minute)` }, `undeclared reference to`},
		{"regular expression", func(t *proto.Template) { t.Opens = `event.kind.matches("g.*")` }, `opens 1:19: undeclared reference to 'matches'`},
		{"without type", func(t *proto.Template) { t.Opens = `dyn(event.kind) == 1` }, `opens 1:4: undeclared reference to 'dyn'`},

		{"unknown placeholder", func(t *proto.Template) { t.Question = "Who, {tema1}?" }, `question 1:6: there is no {tema1}, expected {team1}, {team2}, {minute} or {player}`},
		{"open placeholder", func(t *proto.Template) { t.Question = "é {team1} {team2" }, `question 1:11: { is not closed`},
		{"player in a question", func(t *proto.Template) { t.Question = "Will {player} score?" }, `question 1:6: {player} is known only to labels`},
		{"empty question", func(t *proto.Template) { t.Question = " " }, `question: the text is empty`},
		{"long question", func(t *proto.Template) { t.Question = strings.Repeat("{team1}", 23) }, `question: the text can reach 207 bytes`},
		{"label not UTF-8", func(t *proto.Template) { t.Outcomes[3].Label = "\xff" }, `outcome 4 "\xff" label: the text is not UTF-8`},
		{"labels alike", func(t *proto.Template) { t.Outcomes[3].Label = "Argentina, another player" }, `outcomes: the labels of 3 and 5 are both "Argentina, another player"`},
		{"same player twice", func(t *proto.Template) { t.Outcomes = append(t.Outcomes, t.Outcomes[0]) }, `outcomes: the labels of 1 and 6 are both "Lionel Messi"`},
		{"each of what", func(t *proto.Template) { t.Outcomes[0].Each = "squad" }, `outcome 1 "{player}" each: "squad" is unknown, expected "shortlist" or nothing`},
		{"one outcome", func(t *proto.Template) { t.Outcomes = t.Outcomes[3:] }, `outcomes: there are 1 with 2 names on the shortlist, expected 2 to 64`},
		{"65 outcomes", func(t *proto.Template) { t.Outcomes = slices.Repeat(t.Outcomes[:1], 33) }, `outcomes: there are 66 with 2 names`},
		{"no name", func(t *proto.Template) { t.Name = "" }, `template "": name is empty`},
		{"takeout", func(t *proto.Template) { t.Takeout = 5001 }, `takeout: 5001, expected 0 to 5000`},
		{"minimum above maximum", func(t *proto.Template) { t.StakeMin, t.StakeMax = 100, 50 }, `stake_min: 100, expected at most stake_max, 50`},
		{"dividends without a unit", func(t *proto.Template) { t.Payout = proto.PayoutDividend }, `unit: expected one to pay dividends on`},
		{"an heir by number", func(t *proto.Template) { t.NoWinner, t.CarryTo = proto.NoWinnerCarry, 7 }, `carry_to: expected none`},
		{"a late cap", func(t *proto.Template) { t.LateSpan, t.LateMax = 5, 5 }, `late_span: expected none`},
		{"negative stake", func(t *proto.Template) { t.StakeMin = -1 }, `stake_min: expected 0 (no limit) to 9007199254740991`},
	} {
		t.Run(row.name, func(t *testing.T) {
			template := nextGoal()
			row.change(&template)
			_, err := Compile(template, final)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("%v\nwant … %s", err, row.want)
			}
		})
	}
}

// All mistakes of a template are told at once.
func TestEveryMistakeIsTold(t *testing.T) {
	template := nextGoal()
	template.Opens, template.Voids, template.Question = "event.knd", "1", "{who}"
	_, err := Compile(template, final)
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Fatalf("want three lines, got %v", err)
	}
}

// A rule that an event makes too expensive does not hold.
func TestCostIsBounded(t *testing.T) {
	template := nextGoal()
	template.Locks = `size(event.player + event.player + "x") > 0`
	p := compile(t, template)
	if !p.Locks(&proto.Event{Player: "Messi"}, State{}, State{}) {
		t.Fatal("a usual name costs too much")
	}
	if p.Locks(&proto.Event{Player: strings.Repeat("M", 1<<20)}, State{}, State{}) {
		t.Fatal("a name of a mebibyte was evaluated")
	}
}

// The program keeps its own copy of the template and of the shortlist.
func TestProgramIsImmutable(t *testing.T) {
	template, game := nextGoal(), final
	game.Shortlist = slices.Clone(final.Shortlist)
	p, err := Compile(template, game)
	if err != nil {
		t.Fatal(err)
	}
	template.Outcomes[0].Label, game.Shortlist[0] = "changed", "changed"
	if _, labels, _ := p.Opens(&proto.Event{Kind: "kickoff"}, State{}); labels[0] != "Lionel Messi" || p.Template().Outcomes[0].Label != "{player}" {
		t.Fatalf("a change came through: %q, %q", labels[0], p.Template().Outcomes[0].Label)
	}
}

// Games share programs between shards; the race detector watches.
func TestSharedBetweenGoroutines(t *testing.T) {
	p := compile(t, nextGoal())
	var shards sync.WaitGroup
	for shard := range 4 {
		shards.Go(func() {
			for minute := range uint16(100) {
				e := proto.Event{Kind: "goal", Minute: minute, Team: uint8(1 + shard%2)}
				if o, ok := p.Winner(&e, State{}, State{}); !ok || int(o) != 2+shard%2 {
					t.Errorf("team %d scores, outcome %d wins", e.Team, o)
				}
			}
		})
	}
	shards.Wait()
}

// Compile takes anything from an operator, and what it took can be evaluated.
func FuzzCompile(f *testing.F) {
	for _, rule := range []string{`event.kind == "goal"`, `{"a": 1}`, `[1, 2][0] == 1`, `google.protobuf.Any{}`, `event.`, "\"\\x", `-9223372036854775808 < 1`, `b"é" == b""`, `1u + 2u > event.minute`, `type(1) == int`} {
		f.Add(rule, "{team1} at {minute}", "Ada", uint16(9))
	}
	f.Fuzz(func(t *testing.T, rule, text, player string, minute uint16) {
		template := nextGoal()
		template.Name, template.Opens, template.Locks, template.Question = text, rule, rule, text
		template.Outcomes[0].Wins, template.Outcomes[0].Label = rule, text
		p, err := Compile(template, Game{Teams: [2]string{text, player}, Shortlist: []string{player, player + "."}})
		if err != nil {
			if p != nil || !strings.HasPrefix(err.Error(), "template ") {
				t.Fatalf("%v with %v", p, err)
			}
			return
		}
		e := proto.Event{Kind: "goal", Minute: minute, Player: player}
		game := State{Minute: minute}
		if question, labels, ok := p.Opens(&e, game); ok {
			for _, s := range append(labels, question) {
				if len(s) > textMax || s == "" {
					t.Fatalf("a text of %d bytes", len(s))
				}
			}
		}
		p.Locks(&e, game, State{})
		first, _ := p.Winner(&e, game, State{})
		if again, _ := p.Winner(&e, game, State{}); first != again {
			t.Fatalf("outcome %d, then %d", first, again)
		}
	})
}
