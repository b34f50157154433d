package rules

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/env"
	"github.com/google/cel-go/common/operators"

	"tote/server/proto"
)

// compiler collects what is wrong with one template.
type compiler struct {
	template string
	wrong    []error
}

// Mistake is one thing that is wrong with a template, and where: whoever has the template's file can point at it.
type Mistake struct {
	Template     string
	Outcome      int    // that it is in, from 1; 0: in none
	Member       string // of the template or of the outcome, as in "locks"; empty: the template as a whole
	Line, Column int    // in the text of the member, from 1; 0: the member as a whole
	What         string // is wrong there, and what is expected

	label string // of the outcome
}

// Error is the mistake with its place, in one line.
func (m *Mistake) Error() string {
	where := m.Member
	if m.Outcome > 0 {
		where = fmt.Sprintf("outcome %d %.40q %s", m.Outcome, m.label, m.Member)
	}
	switch {
	case m.Line > 0:
		where = fmt.Sprintf("%s %d:%d: ", where, m.Line, m.Column)
	case where != "":
		where += ": "
	}
	return fmt.Sprintf("template %.60q: %s%s", m.Template, where, m.What)
}

// place is where the compiler is.
type place struct {
	outcome int // from 1
	label   string
	member  string
}

// within is a place in an outcome.
func (p place) within(member string) place {
	p.member = member
	return p
}

// wrongAt notes a mistake at a line and column of a member's text, from 1.
func (c *compiler) wrongAt(p place, line, column int, format string, args ...any) {
	c.wrong = append(c.wrong, &Mistake{Template: c.template, Outcome: p.outcome, label: p.label, Member: p.member,
		Line: line, Column: column, What: fmt.Sprintf(format, args...)})
}

// wrongIn notes a mistake of a member as a whole.
func (c *compiler) wrongIn(p place, format string, args ...any) { c.wrongAt(p, 0, 0, format, args...) }

// scope is one object of the variables with its members, in the order in which they are listed to whoever
// misspelled one. Each member is a variable of its own, as in "event.kind": CEL then finds a misspelled one when
// it compiles.
type scope struct {
	object  string
	members []member
}

type member struct {
	name string
	kind *cel.Type
}

var (
	scopeEvent = scope{"event", []member{
		{"kind", cel.StringType}, {"minute", cel.IntType}, {"team", cel.IntType}, {"player", cel.StringType},
		{"score1", cel.IntType}, {"score2", cel.IntType}, {"penalty", cel.BoolType}, {"own_goal", cel.BoolType},
	}}
	scopeGame = scope{"game", []member{
		{"minute", cel.IntType}, {"score1", cel.IntType}, {"score2", cel.IntType},
		{"team1", cel.StringType}, {"team2", cel.StringType},
	}}
	scopePool = scope{"pool", []member{
		{"minute", cel.IntType}, {"score1", cel.IntType}, {"score2", cel.IntType},
	}}
)

// functions are all that a rule may call.
var functions = []string{
	operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Conditional,
	operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals,
	operators.In, operators.Add, operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo, operators.Negate,
	"size", "contains", "startsWith", "endsWith",
}

// language is the set of variables that a kind of rule knows. It is made once, on first use, and never changes.
type language struct {
	scopes []scope
	player bool // of the shortlist
	env    func() *cel.Env
}

var (
	envOpens   = newLanguage(false, scopeEvent, scopeGame) // no pool is open yet
	envPool    = newLanguage(false, scopeEvent, scopeGame, scopePool)
	envPlayers = newLanguage(true, scopeEvent, scopeGame, scopePool)
)

func newLanguage(player bool, scopes ...scope) *language {
	l := &language{scopes: scopes, player: player}
	l.env = sync.OnceValue(l.make)
	return l
}

func (l *language) make() *cel.Env {
	library := env.NewLibrarySubset().SetDisableMacros(true)
	for _, name := range functions {
		library.AddIncludedFunctions(env.NewFunction(name))
	}
	options := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(library)),
		cel.ASTValidators(cel.ValidateHomogeneousAggregateLiterals()),
		cel.ParserExpressionSizeLimit(ruleMax),
		cel.ParserRecursionLimit(64),
	}
	for _, s := range l.scopes {
		for _, m := range s.members {
			options = append(options, cel.Variable(s.object+"."+m.name, m.kind))
		}
	}
	if l.player {
		options = append(options, cel.Variable("player", cel.StringType))
	}
	e, err := cel.NewCustomEnv(options...)
	assert(err == nil, "the language of rules is constant")
	return e
}

// limits checks the numbers of the template; the market would refuse such a pool each time.
func (c *compiler) limits(t *proto.Template) {
	switch {
	case t.Name == "":
		c.wrongIn(place{}, "name is empty; give it one, unique in its game")
	case len(t.Name) > textMax || !utf8.ValidString(t.Name):
		c.wrongIn(place{}, "name must be UTF-8 of at most %d bytes", textMax)
	}
	if t.Takeout > takeoutMax {
		c.wrongIn(place{member: "takeout"}, "%d, expected 0 to %d basis points", t.Takeout, takeoutMax)
	}
	if t.StakeMin < 0 || t.StakeMin > proto.AmountMax || t.StakeMax < 0 || t.StakeMax > proto.AmountMax {
		c.wrongIn(place{member: "stake_min"}, "expected 0 (no limit) to %d", proto.AmountMax)
	}
	if t.StakeMax != 0 && t.StakeMin > t.StakeMax {
		c.wrongIn(place{member: "stake_min"}, "%d, expected at most stake_max, %d", t.StakeMin, t.StakeMax)
	}
	if member, want := Wrong(&t.Rules); member != "" {
		c.wrongIn(place{member: member}, "expected %s", want)
	}
	if t.CarryTo != 0 {
		c.wrongIn(place{member: "carry_to"}, "expected none: a template's pool is carried to the next of its name")
	}
	if t.LateSpan != 0 {
		c.wrongIn(place{member: "late_span"}, "expected none: what an event locks has no lock time")
	}
}

// rule compiles one rule. On an error it returns nil and has noted the first problem.
func (c *compiler) rule(p place, rule string, l *language) cel.Program {
	switch {
	case strings.TrimSpace(rule) == "":
		c.wrongIn(p, "the rule is empty, expected an expression that yields true or false")
		return nil
	case len(rule) > ruleMax:
		c.wrongIn(p, "the rule has %d bytes, expected at most %d", len(rule), ruleMax)
		return nil
	case !utf8.ValidString(rule):
		c.wrongIn(p, "the rule is not UTF-8")
		return nil
	}
	checked, issues := l.env().Compile(rule)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		line, column := position(first.Location)
		c.wrongAt(p, line, column, "%s", l.explain(rule, first))
		return nil
	}
	if kind := checked.OutputType(); !kind.IsExactType(cel.BoolType) {
		c.wrongAt(p, 1, 1, "the rule yields %s, expected true or false", kind)
		return nil
	}
	if at, what := forbidden(checked.NativeRep()); what != "" {
		line, column := position(at)
		c.wrongAt(p, line, column, "%s", what)
		return nil
	}
	program, err := l.env().Program(checked, cel.CostLimit(costMax), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		c.wrongAt(p, 1, 1, "%v", err)
		return nil
	}
	return program
}

// forbidden finds what the grammar allows but a replay does not.
func forbidden(checked *ast.AST) (at common.Location, what string) {
	ast.PostOrderVisit(checked.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if k := e.Kind(); what == "" && (k == ast.MapKind || k == ast.StructKind) {
			at, what = checked.SourceInfo().GetStartLocation(e.ID()), "maps and objects have no fixed order here; expected a list or a value"
		}
	}))
	return at, what
}

// position counts lines and columns from 1. What concerns the rule as a whole has no location.
func position(at common.Location) (line, column int) {
	if at.Line() < 1 {
		return 1, 1
	}
	return at.Line(), at.Column() + 1
}

var variable = regexp.MustCompile(`^(event|game|pool|player)\b(?:\s*\.\s*(\w+))?`)

// explain says what is expected where a variable is unknown. CEL knows no more than its name.
func (l *language) explain(rule string, e *common.Error) string {
	message := strings.TrimSuffix(e.Message, " (in container '')")
	if !strings.HasPrefix(message, "undeclared reference") {
		return message
	}
	found := variable.FindStringSubmatch(from(rule, e.Location))
	if found == nil {
		return message + "; expected event, game, pool or a function of package rules"
	}
	object, name := found[1], found[2]
	for _, s := range l.scopes {
		if s.object != object {
			continue
		}
		var names []string
		for _, m := range s.members {
			names = append(names, object+"."+m.name)
		}
		return fmt.Sprintf("there is no %s; expected one of %s", strings.TrimSuffix(object+"."+name, "."), strings.Join(names, ", "))
	}
	if object == "pool" {
		return "there is no pool yet when a rule opens one; expected event or game"
	}
	return `player is a name of the shortlist and known only to outcomes with each = "shortlist"; perhaps event.player is meant`
}

// from is the rest of the rule at a location.
func from(rule string, at common.Location) string {
	lines := strings.Split(rule, "\n")
	if at.Line() < 1 || at.Line() > len(lines) {
		return ""
	}
	line := []rune(lines[at.Line()-1])
	return string(line[min(max(at.Column(), 0), len(line)):])
}

// outcomes compiles the outcomes and expands the shortlist.
func (c *compiler) outcomes(ts []proto.TemplateOutcome, g Game) []outcome {
	n := 0
	for _, t := range ts {
		if n++; t.Each == "shortlist" {
			n += len(g.Shortlist) - 1
		}
	}
	if n < proto.OutcomesMin || n > proto.OutcomesMax {
		c.wrongIn(place{member: "outcomes"}, "there are %d with %d names on the shortlist, expected %d to %d", n, len(g.Shortlist), proto.OutcomesMin, proto.OutcomesMax)
		return nil
	}
	expanded := make([]outcome, 0, n)
	for i, t := range ts {
		at := place{outcome: i + 1, label: t.Label}
		switch t.Each {
		case "":
			wins := c.rule(at.within("wins"), t.Wins, envPool)
			label := c.text(at.within("label"), t.Label, g.Teams, nil)
			expanded = append(expanded, outcome{label: label, wins: wins, seed: t.Seed})
		case "shortlist":
			wins := c.rule(at.within("wins"), t.Wins, envPlayers)
			for _, player := range g.Shortlist {
				label := c.text(at.within("label"), t.Label, g.Teams, &player)
				expanded = append(expanded, outcome{label: label, wins: wins, player: player, seed: t.Seed})
				if label == nil {
					break // the others are most likely as wrong
				}
			}
		default:
			c.wrongIn(at.within("each"), "%.40q is unknown, expected \"shortlist\" or nothing", t.Each)
		}
	}
	c.distinct(expanded)
	return expanded
}

// distinct refuses labels that nobody could tell apart.
func (c *compiler) distinct(outcomes []outcome) {
	first := map[string]int{}
	for i, o := range outcomes {
		if o.label == nil {
			continue
		}
		label := o.label.at(0)
		if j, again := first[label]; again {
			c.wrongIn(place{member: "outcomes"}, "the labels of %d and %d are both %q, expected distinct ones", j+1, i+1, label)
			return
		}
		first[label] = i
	}
}

func assert(ok bool, what string) {
	if !ok {
		panic("rules: " + what)
	}
}
