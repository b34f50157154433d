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

// errorf notes a problem; where names the rule or text.
func (c *compiler) errorf(where, format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Errorf("template %.60q: %s%s", c.template, where, fmt.Sprintf(format, args...)))
}

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
		c.errorf("", "name is empty; give it one, unique in its game")
	case len(t.Name) > textMax || !utf8.ValidString(t.Name):
		c.errorf("", "name must be UTF-8 of at most %d bytes", textMax)
	}
	if t.Takeout > takeoutMax {
		c.errorf("takeout", " is %d, expected 0 to %d basis points", t.Takeout, takeoutMax)
	}
	if t.StakeMin < 0 || t.StakeMin > proto.AmountMax || t.StakeMax < 0 || t.StakeMax > proto.AmountMax {
		c.errorf("stake_min, stake_max", ": expected 0 (no limit) to %d", proto.AmountMax)
	}
	if t.StakeMax != 0 && t.StakeMin > t.StakeMax {
		c.errorf("stake_min", " is %d, expected at most stake_max, %d", t.StakeMin, t.StakeMax)
	}
}

// rule compiles one rule. On an error it returns nil and has noted the first problem.
func (c *compiler) rule(where, rule string, l *language) cel.Program {
	switch {
	case strings.TrimSpace(rule) == "":
		c.errorf(where, ": the rule is empty, expected an expression that yields true or false")
		return nil
	case len(rule) > ruleMax:
		c.errorf(where, ": the rule has %d bytes, expected at most %d", len(rule), ruleMax)
		return nil
	case !utf8.ValidString(rule):
		c.errorf(where, ": the rule is not UTF-8")
		return nil
	}
	checked, issues := l.env().Compile(rule)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		c.errorf(where, " %s: %s", position(first.Location), l.explain(rule, first))
		return nil
	}
	if kind := checked.OutputType(); !kind.IsExactType(cel.BoolType) {
		c.errorf(where, " 1:1: the rule yields %s, expected true or false", kind)
		return nil
	}
	if at, what := forbidden(checked.NativeRep()); what != "" {
		c.errorf(where, " %s: %s", position(at), what)
		return nil
	}
	program, err := l.env().Program(checked, cel.CostLimit(costMax), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		c.errorf(where, " 1:1: %v", err)
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

// position is line:column, both from 1. What concerns the rule as a whole has no location.
func position(at common.Location) string {
	if at.Line() < 1 {
		return "1:1"
	}
	return fmt.Sprintf("%d:%d", at.Line(), at.Column()+1)
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
		c.errorf("outcomes", ": there are %d with %d names on the shortlist, expected %d to %d", n, len(g.Shortlist), proto.OutcomesMin, proto.OutcomesMax)
		return nil
	}
	expanded := make([]outcome, 0, n)
	for i, t := range ts {
		where := fmt.Sprintf("outcome %d %.40q ", i+1, t.Label)
		switch t.Each {
		case "":
			wins := c.rule(where+"wins", t.Wins, envPool)
			label := c.text(where+"label", t.Label, g.Teams, nil)
			expanded = append(expanded, outcome{label: label, wins: wins})
		case "shortlist":
			wins := c.rule(where+"wins", t.Wins, envPlayers)
			for _, player := range g.Shortlist {
				label := c.text(where+"label", t.Label, g.Teams, &player)
				expanded = append(expanded, outcome{label: label, wins: wins, player: player})
				if label == nil {
					break // the others are most likely as wrong
				}
			}
		default:
			c.errorf(where+"each", ": %.40q is unknown, expected \"shortlist\" or nothing", t.Each)
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
			c.errorf("outcomes", ": the labels of %d and %d are both %q, expected distinct ones", j+1, i+1, label)
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
