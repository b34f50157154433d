package sports

import (
	"strings"
	"testing"

	"tote/server/proto"
)

func TestShipped(t *testing.T) {
	for _, sport := range Names() {
		ts, err := Templates(sport)
		if err != nil || len(ts) < 4 {
			t.Errorf("%s has %d templates, %v", sport, len(ts), err)
		}
	}
	if _, err := Templates("../sports/football"); err == nil {
		t.Error("a path is no sport")
	}
}

func TestTemplatesAreTheCallers(t *testing.T) {
	ts := Football()
	ts[0].Name, ts[0].Outcomes[0].Label = "changed", "changed"
	if again := Football(); again[0].Name != "next team" || again[0].Outcomes[0].Label != "{team1}" {
		t.Fatalf("a change stays: %+v", again[0])
	}
}

// good is a file in which each row changes one thing. Its outcomes are a list; those of the second template are tables.
const good = `# derby
[[template]]
name = "next"
question = "Who é {team1} next?"
opens = 'event.kind == "kickoff"'
locks = '''
event.kind == "end" ||
  event.minute > 80'''
outcomes = [
  { label = "{team1}", wins = 'event.team == 1' },
  { label = "{team2}", wins = "event.team == 2" },
]

[[template]]
name = "last"
question = """
Who {team2} last?"""
opens = 'true'
takeout = 100
[[template.outcomes]]
label = "{player}"
each = "shortlist"
wins = 'event.player == player'
[[template.outcomes]]
label = "nobody"
wins = 'event.kind == "end"'
`

func TestMistakesPointAtThePlace(t *testing.T) {
	if ts, err := Read("derby.toml", []byte(good)); err != nil || len(ts) != 2 || len(ts[1].Outcomes) != 2 {
		t.Fatalf("%+v, %v", ts, err)
	}
	for _, row := range []struct{ name, old, new, want string }{
		{"in a text of one line", `'event.kind == "kickoff"'`, `'true && event.knd == "kickoff"'`, `derby.toml:5:18: template "next": opens: there is no event.knd; expected one of event.kind`},
		{"in the second line of a text", `event.minute > 80`, `event.minutes > 80`, `derby.toml:8:3: template "next": locks: there is no event.minutes`},
		{"in the first line after quotes", "'''\nevent.kind", "'''\nevnt.kind", `derby.toml:7:1: template "next": locks: undeclared reference`},
		{"in a list", `"event.team == 2"`, `"event.team == '2'"`, `derby.toml:11:43: template "next": outcome 2 wins: found no matching overload`},
		{"in a table", `'event.player == player'`, `'event.player == playr'`, `derby.toml:23:25: template "last": outcome 1 wins: undeclared reference`},
		{"in a question", `é {team1}`, `é {tema1}`, `derby.toml:4:19: template "next": question: there is no {tema1}`},
		{"in a question of several lines", `Who {team2}`, `Who {who}`, `derby.toml:17:5: template "last": question: there is no {who}`},
		{"a member that is missing", "opens = 'true'\n", "", `derby.toml:14:3: template "last": opens: the rule is empty`},
		{"one of an outcome", `, wins = 'event.team == 1'`, "", `derby.toml:9:1: template "next": outcome 1 wins: the rule is empty`},
		{"one of an outcome's table", "wins = 'event.kind == \"end\"'\n", "", `derby.toml:24:3: template "last": outcome 2 wins: the rule is empty`},
		{"a number", `takeout = 100`, `takeout = 5001`, `derby.toml:19:1: template "last": takeout: 5001, expected`},
		{"labels alike", `label = "{team2}"`, `label = "{team1}"`, `derby.toml:9:1: template "next": outcomes: the labels of 1 and 2 are both`},
		{"a name again", `name = "last"`, `name = "next"`, `derby.toml:15:9: template "next": name: template 1 has the same`},
		{"no name", `name = "last"`, `name = ""`, `derby.toml:15:9: template "": name is empty`},
		{"a member that is none", `takeout = 100`, `takeuot = 100`, `derby.toml:19:1: there is no member template.takeuot`},
		{"no TOML", `name = "next"`, `name = next`, `derby.toml:3:8: `},
		{"not a text", `name = "next"`, `name = 3`, `derby.toml:3:8: `},
		{"no template", good, "# none\n", `derby.toml: there is no [[template]]`},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := strings.Replace(good, row.old, row.new, 1)
			if text == good {
				t.Fatalf("%q is not in the file", row.old)
			}
			_, err := Read("derby.toml", []byte(text))
			if err == nil || !strings.HasPrefix(err.Error(), row.want) {
				t.Errorf("%v\nwant %s…", err, row.want)
			}
		})
	}
}

// Every mistake of a file is told, each in a line.
func TestEveryMistakeIsTold(t *testing.T) {
	text := strings.NewReplacer("event.team", "event.taem", "{player}", "{plyer}").Replace(good)
	_, err := Read("derby.toml", []byte(text))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three lines, got %v", err)
	}
}

// Read takes any file, and points into it.
func FuzzRead(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("[[template]]\nname='x'\noutcomes=[[]]"))
	f.Add([]byte("template=[{name='x',outcomes=[{label='a'}]}]"))
	f.Add([]byte("[[template]]\n'outcomes'=[{'label'='a'}]\n[[template.outcomes]]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if ts, err := Read("f", text); err == nil && len(ts) == 0 {
			t.Error("no templates and no error")
		}
	})
}

// A pool's rules stand in the file as they do in an opening.
func TestRulesOfPools(t *testing.T) {
	const text = `[[template]]
name = "next"
question = "Who scores next?"
opens = "event.kind == 'kickoff'"
takeout = 1500
payout = "dividend"
unit = 100
break = 10
dividend_min = 105
minus_max = 1000
no_winner = "carry"
one_sided_refund = true
account_max = 500
outcomes = [{label = "a", wins = "event.team == 1"}, {label = "b", wins = "event.team == 2"}]
`
	templates, err := Read("rules.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := proto.Rules{Payout: proto.PayoutDividend, Unit: 100, Break: 10, DividendMin: 105, MinusMax: 1000, NoWinner: proto.NoWinnerCarry,
		OneSidedRefund: true, AccountMax: 500}
	if got := templates[0].Rules; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for change, mistake := range map[string]string{
		`payout = "dividends"`: `rules.toml:6:10: "dividends" is none of`,
		`payout = "exact"`:     `rules.toml:6:11: template "next": payout: expected dividend`,
	} {
		_, err := Read("rules.toml", []byte(strings.Replace(text, `payout = "dividend"`, change, 1)))
		if err == nil || !strings.Contains(err.Error(), mistake) {
			t.Errorf("%s: %v, want %s", change, err, mistake)
		}
	}
}
