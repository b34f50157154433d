// Package rules is the small print of a question that asks itself: which event opens its
// pool, locks it, voids it, and which outcome wins.
//
// The market runs it: a game compiles its templates when it is opened and asks them about every
// event. It reads no clock, no file and no random number, so the same events give the same
// answers on any machine; it keeps no state between two events; and it never changes a pool.
//
// Rules are CEL expressions (github.com/google/cel-spec) that yield true or false, over the
// variables that proto.Template lists. The language is cut down to what can be replayed:
//
//	logic       && || ! ?:
//	comparison  == != < <= > >= in
//	integers    + - * / %
//	text        + size contains startsWith endsWith
//	lists       [1, 2], ["goal", "penalty"]
//
// Left out are maps, whose order differs from run to run; times, whose zones are read from
// files; and loops and regular expressions, whose cost an event could drive up.
package rules

import (
	"errors"
	"slices"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"

	"tote/server/proto"
)

// Limits of a template.
const (
	ruleMax = 2048 // bytes of one rule: bounds what compiling costs
	textMax = 200  // bytes of a question or a label, placeholders replaced: what a pool may have

	takeoutMax = 5000 // basis points; half of the pool

	// costMax bounds one evaluation, in CEL's units: about one for each operator, one for each
	// ten bytes of text. A rule of ruleMax bytes on usual names stays far below.
	costMax = 10_000
)

// Program is one template, compiled for one game. It is immutable: games and goroutines may share it.
type Program struct {
	template proto.Template
	game     Game

	opens    cel.Program
	locks    cel.Program // nil: by no event
	voids    cel.Program // nil: by no event
	question text
	outcomes []outcome // 2 to 64, in the order in which they are asked; their index is proto.Outcome
}

// outcome is one outcome of the pool, after the shortlist was expanded.
type outcome struct {
	label  text
	wins   cel.Program
	player string // of the shortlist, or empty
	seed   *proto.Seed
}

// Game is what stays the same for the life of a game.
type Game struct {
	Teams     [2]string
	Shortlist []string
}

// State is where a game stands: after an event, or when a pool opened.
type State struct {
	Minute uint16
	Score  [2]uint16
}

// Compile checks the template and makes it ready for the game. Its error joins a *Mistake for every rule and text
// that is wrong, one a line: the template, the rule, line:column within the rule, and what is expected there.
func Compile(t proto.Template, g Game) (*Program, error) {
	t.Outcomes = slices.Clone(t.Outcomes)
	g.Shortlist = slices.Clone(g.Shortlist)
	p := &Program{template: t, game: g}
	c := compiler{template: t.Name}

	c.limits(&t)
	p.opens = c.rule(place{member: "opens"}, t.Opens, envOpens)
	if t.Locks != "" {
		p.locks = c.rule(place{member: "locks"}, t.Locks, envPool)
	}
	if t.Voids != "" {
		p.voids = c.rule(place{member: "voids"}, t.Voids, envPool)
	}
	p.question = c.text(place{member: "question"}, t.Question, g.Teams, nil)
	if p.outcomes = c.outcomes(t.Outcomes, g); p.outcomes != nil {
		pool := p.Pool(t.Question, make([]string, len(p.outcomes)))
		if member, want := WrongKind(&pool); member != "" {
			c.wrongIn(place{member: member}, "expected %s", want)
		}
	}
	if err := errors.Join(c.wrong...); err != nil {
		return nil, err
	}
	return p, nil
}

// Template is the template as it was given to Compile; not to be changed.
func (p *Program) Template() *proto.Template { return &p.template }

// Pool is what the template says of its pools, for the question and labels that Opens has returned.
func (p *Program) Pool(question string, labels []string) proto.PoolOpening {
	t := &p.template
	o := proto.PoolOpening{Question: question, Labels: labels, Takeout: t.Takeout, StakeMin: t.StakeMin, StakeMax: t.StakeMax,
		Kind: t.Kind, Variant: t.Variant, Rules: t.Rules}
	for i := range p.outcomes {
		if seed := p.outcomes[i].seed; seed != nil {
			o.Seeds = append(o.Seeds, *seed)
		}
	}
	return o
}

// Opens reports whether the event opens a pool, and the pool's question and labels. game is the game after the event.
func (p *Program) Opens(e *proto.Event, game State) (question string, labels []string, ok bool) {
	if !holds(p.opens, &facts{event: e, teams: &p.game.Teams, game: game}) {
		return "", nil, false
	}
	labels = make([]string, len(p.outcomes))
	for i := range p.outcomes {
		labels[i] = p.outcomes[i].label.at(game.Minute)
	}
	return p.question.at(game.Minute), labels, true
}

// Locks reports whether the event locks an open pool. game is the game after the event, pool the game as it was
// after the event that opened the pool.
func (p *Program) Locks(e *proto.Event, game, pool State) bool {
	return p.locks != nil && holds(p.locks, &facts{event: e, teams: &p.game.Teams, game: game, pool: pool})
}

// Voids reports whether the event voids the pool.
func (p *Program) Voids(e *proto.Event, game, pool State) bool {
	return p.voids != nil && holds(p.voids, &facts{event: e, teams: &p.game.Teams, game: game, pool: pool})
}

// Winner is the first outcome whose rule holds; ok is false while none does.
func (p *Program) Winner(e *proto.Event, game, pool State) (o proto.Outcome, ok bool) {
	f := facts{event: e, teams: &p.game.Teams, game: game, pool: pool}
	for i := range p.outcomes {
		f.player = p.outcomes[i].player
		if holds(p.outcomes[i].wins, &f) {
			return proto.Outcome(i), true
		}
	}
	return proto.OutcomeNone, false
}

// holds evaluates one rule. What cannot be evaluated, such as a division by zero or a rule that costs too
// much, does not hold: the event leaves the pool alone.
func holds(rule cel.Program, f *facts) bool {
	value, _, err := rule.Eval(f)
	return err == nil && value == types.True
}

// facts are the variables of one evaluation.
type facts struct {
	event      *proto.Event
	teams      *[2]string
	game, pool State
	player     string
}

// ResolveName returns the value of a variable; scope has their types.
func (f *facts) ResolveName(name string) (any, bool) {
	switch name {
	case "event.kind":
		return f.event.Kind, true
	case "event.minute":
		return int64(f.event.Minute), true
	case "event.team":
		return int64(f.event.Team), true
	case "event.player":
		return f.event.Player, true
	case "event.score1":
		return int64(f.event.Score[0]), true
	case "event.score2":
		return int64(f.event.Score[1]), true
	case "event.penalty":
		return f.event.Penalty, true
	case "event.own_goal":
		return f.event.OwnGoal, true
	case "game.minute":
		return int64(f.game.Minute), true
	case "game.score1":
		return int64(f.game.Score[0]), true
	case "game.score2":
		return int64(f.game.Score[1]), true
	case "game.team1":
		return f.teams[0], true
	case "game.team2":
		return f.teams[1], true
	case "pool.minute":
		return int64(f.pool.Minute), true
	case "pool.score1":
		return int64(f.pool.Score[0]), true
	case "pool.score2":
		return int64(f.pool.Score[1]), true
	case "player":
		return f.player, true
	}
	return nil, false
}

// Parent is none: facts are all there is.
func (f *facts) Parent() cel.Activation { return nil }
