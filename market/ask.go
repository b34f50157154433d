package market

import (
	"fmt"
	"slices"

	"tote/server/market/rules"
	"tote/server/proto"
)

// A player's question is a pool with an inquiry. The account's shard knows who asks, what he has staked and which circles he is
// in; the game's shard decides:
//
//	engine ──Ask, Resolve, …──▶ account's shard ──errand──▶ game's shard ──append──▶ record
//	engine ◀──────────────── question ─────────────────────────┘
//
// Stakes lie in the pool from first to last. Who asked holds nothing and gets nothing, so he can be wrong or gone without
// anybody losing: what nobody settles voids itself.

// Limits of questions.
const (
	askEvery          = 2 * proto.Second // of one account: rules are compiled on the game's shard, about 0.1 ms each
	askerOpenMax      = 3                // unsettled questions of one account in one game
	inquiriesOpenMax  = 128              // … of all players in one game: each event asks the rules of all
	inquiryLockMax    = 24 * proto.Hour  // from now to the lock
	ruledOutcomesMax  = 8
	inquiryRuleMax    = 512 // bytes
	reportsDefault    = 3
	challengesDefault = 10 * proto.Minute
)

// inquiry is what a pool has that a player asked. It is kept as JSON in its record and in snapshots.
type inquiry struct {
	By         proto.AccountID   `json:"by"`
	Name       string            `json:"name"`
	Settle     proto.Settling    `json:"settle"`
	Wins       []string          `json:"wins,omitempty"`
	Locks      string            `json:"locks,omitempty"`
	Voids      string            `json:"voids,omitempty"`
	Shown      bool              `json:"shown"` // has been open: others know of it
	Reporters  []proto.AccountID `json:"reporters,omitempty"`
	Suspended  bool              `json:"suspended,omitempty"`
	Cleared    bool              `json:"cleared,omitempty"` // an operator has looked at it: reports suspend it no more
	Claim      []proto.Outcome   `json:"claim,omitempty"`
	Until      proto.Time        `json:"until,omitempty"` // of the claim
	Challenged bool              `json:"challenged,omitempty"`
	Challenger proto.AccountID   `json:"challenger,omitempty"` // 0: the claim could not be settled
	Reason     string            `json:"reason,omitempty"`     // why it was voided

	program *rules.Program // where it is settled by rules
}

// Bodies of the records.
type (
	askedOpening struct {
		poolOpening
		Inquiry inquiry `json:"inquiry"`
	}
	// approval lets a question go on. One that opens with it begins here: its rules compare with the game as it is now.
	approval struct {
		Opens  bool      `json:"opens"`
		Minute uint16    `json:"minute"`
		Score  [2]uint16 `json:"score"`
	}
	reported struct {
		Account  proto.AccountID `json:"account"`
		Suspends bool            `json:"suspends"`
	}
	claimed struct {
		Winners []proto.Outcome `json:"winners"`
		Until   proto.Time      `json:"until"`
	}
	challenged struct {
		Account proto.AccountID `json:"account"`
	}
)

// errand is what a player asks of another shard than his account's, with what only that one knows. Whoever holds the
// letter owns it, but for circles, which are never changed.
type errand struct {
	command Command
	name    string // of the account
	circles *[]proto.CircleName
	circle  string // name of the command's circle

	sessions []Session // that leave it
}

// inquire passes on what a player does about questions.
func (s *Shard) inquire(c *Command, a *account) {
	switch c.Kind {
	case Ask:
		live := s.lives(a)
		if s.now < live.asked+askEvery {
			s.refuse(c, proto.RefusedQuestionsFast)
			return
		}
		live.asked = s.now
	case Challenge:
		if !a.backs(c.Pool) {
			s.refuse(c, proto.RefusedBackersOnly)
			return
		}
	}
	s.sendErrand(s.market.shardOfGame(c.game()), c, a)
}

func (s *Shard) sendErrand(to *Shard, c *Command, a *account) {
	s.write(to, &letter{kind: letterErrand, errand: &errand{command: *c, name: a.name, circles: a.circles()}})
}

// backs reports whether the account has an open prediction in the pool.
func (a *account) backs(p proto.PoolID) bool {
	return slices.ContainsFunc(a.tickets, func(t ticket) bool { return t.on.pool() == p })
}

// openErrand is the side of the shard that decides.
func (s *Shard) openErrand(e *errand) {
	switch e.command.Kind {
	case CreateCircle, JoinCircle, LeaveCircle, RemoveMember, ShowCircle:
		s.circleErrand(e)
	default:
		s.inquired(e)
	}
}

// inquired is the game's side.
func (s *Shard) inquired(e *errand) {
	c := &e.command
	g := s.games[c.game()]
	switch {
	case g == nil:
		s.refuse(c, c.unknown())
		return
	case !g.admits(e.circles):
		s.refuse(c, proto.RefusedCircleForeign)
		return
	}
	switch c.Kind {
	case Join, ShowPools:
		s.showImage(c, g)
	case EnterRoom:
		s.enterRoom(e, g)
	case Ask:
		s.askIn(g, e)
	case ShowQuestions:
		s.showQuestions(c, g)
	default:
		s.inquiredOf(c, g)
	}
}

// inquiredOf is what a player does to a question that there is.
func (s *Shard) inquiredOf(c *Command, g *game) {
	p := s.pool(c.Pool)
	if p == nil || p.hidden() && p.inquiry.By != c.Account {
		s.refuse(c, proto.RefusedPoolUnknown)
		return
	}
	if p.inquiry == nil {
		s.refuse(c, proto.RefusedPoolUnasked)
		return
	}
	var plan plan
	var refusal proto.Refusal
	switch c.Kind {
	case Resolve:
		refusal = s.planClaim(&plan, p, c)
	case Challenge:
		refusal = s.planChallenge(&plan, p, c)
	case Report:
		refusal = s.planReport(&plan, p, c)
	default:
		assert(false, "what is done to a question is known")
	}
	if refusal != proto.Accepted {
		s.refuse(c, refusal)
		return
	}
	if len(plan.steps) > 0 {
		s.carryOut(&plan)
	}
	s.reply(c, &proto.QuestionState{ID: c.ID, T: s.now, Pool: p.id, State: p.state})
}

// askIn opens a question, or proposes it.
func (s *Shard) askIn(g *game, e *errand) {
	c := &e.command
	q := c.Args.(*proto.Question)
	opening := askedOpening{
		poolOpening: poolOpening{PoolOpening: proto.PoolOpening{Question: q.Question, Labels: q.Labels, LocksAt: q.LocksAt},
			Template: -1, Minute: g.minute, Score: g.score},
		Inquiry: inquiry{By: c.Account, Name: e.name, Settle: q.Settle, Wins: q.Wins, Locks: q.Locks, Voids: q.Voids,
			Shown: !s.config.Moderate || g.circle != 0},
	}
	refusal := s.openingRefusal(g, &opening.PoolOpening)
	if refusal == proto.Accepted {
		refusal = s.askRefusal(g, c.Account, q)
	}
	if refusal != proto.Accepted {
		s.refuse(c, refusal)
		return
	}
	if _, err := opening.Inquiry.compile(g, len(q.Labels)); err != nil {
		s.reply(c, &proto.Refused{ID: c.ID, T: s.now, Reason: proto.RefusedTemplate, Detail: err.Error()})
		return
	}
	var plan plan
	id := plan.ask(g, &opening)
	s.carryOut(&plan)
	s.reply(c, &proto.QuestionState{ID: c.ID, T: s.now, Pool: id, State: s.pool(id).state})
}

// askRefusal is what a player may not ask though an operator might.
func (s *Shard) askRefusal(g *game, asker proto.AccountID, q *proto.Question) proto.Refusal {
	all, own := 0, 0
	for _, p := range g.pools {
		if p.inquiry == nil || p.done() {
			continue
		}
		if all++; p.inquiry.By == asker {
			own++
		}
	}
	labels := slices.Sorted(slices.Values(q.Labels))
	switch {
	case own >= askerOpenMax:
		return proto.RefusedQuestionsMany
	case all >= inquiriesOpenMax:
		return proto.RefusedQuestionsFull
	case len(slices.Compact(labels)) < len(q.Labels):
		return proto.RefusedLabelsAlike
	case q.LocksAt == 0 && q.Settle != proto.SettledByRules:
		return proto.RefusedLockMissing
	case q.LocksAt > s.now+inquiryLockMax:
		return proto.RefusedLockFar
	}
	return proto.Accepted
}

// compile makes the rules ready, where the question has any. They are a template's, but for the texts: what a player writes
// is shown as it is, without placeholders. The error names the place.
func (q *inquiry) compile(g *game, labels int) (*rules.Program, error) {
	if q.Settle != proto.SettledByRules {
		if len(q.Wins) > 0 || q.Locks != "" || q.Voids != "" {
			return nil, fmt.Errorf("there are rules, but settle is %q", q.Settle)
		}
		return nil, nil
	}
	if labels > ruledOutcomesMax || len(q.Wins) != labels {
		return nil, fmt.Errorf("wins: there are %d rules for %d labels, expected one for each of at most %d", len(q.Wins), labels, ruledOutcomesMax)
	}
	t := proto.Template{Name: "question", Question: "?", Opens: "false", Locks: q.Locks, Voids: q.Voids}
	for i, wins := range q.Wins {
		t.Outcomes = append(t.Outcomes, proto.TemplateOutcome{Label: fmt.Sprint(i), Wins: wins})
	}
	if len(slices.MaxFunc(append(q.Wins, q.Locks, q.Voids), func(a, b string) int { return len(a) - len(b) })) > inquiryRuleMax {
		return nil, fmt.Errorf("a rule is longer than %d bytes", inquiryRuleMax)
	}
	return rules.Compile(t, rules.Game{Teams: g.opening.Teams})
}

// ask plans a question and returns the id of its pool.
func (p *plan) ask(g *game, o *askedOpening) proto.PoolID {
	p.fresh++
	id := proto.NewPoolID(g.id, uint32(len(g.pools))+p.fresh)
	p.steps = append(p.steps, step{recordAsked, uint64(id), o})
	return id
}

func (s *Shard) planClaim(to *plan, p *pool, c *Command) proto.Refusal {
	q, claim := p.inquiry, c.Args.(*proto.Settlement)
	switch {
	case q.By != c.Account:
		return proto.RefusedQuestionForeign
	case q.Settle != proto.SettledByAsker:
		return proto.RefusedSettledOtherwise
	case p.state == proto.PoolClaimed:
		return proto.RefusedClaimAgain
	case q.Suspended:
		return proto.RefusedPoolSuspended
	}
	var settlement plan // which could be carried out now
	if refusal := planSettle(&settlement, p, claim); refusal != proto.Accepted {
		return refusal
	}
	to.steps = append(to.steps, step{recordClaimed, uint64(p.id), &claimed{Winners: claim.Winners, Until: s.now + s.config.ChallengeFor}})
	return proto.Accepted
}

// planChallenge takes a challenge that arrived in time. Of several, the first counts.
func (s *Shard) planChallenge(to *plan, p *pool, c *Command) proto.Refusal {
	switch {
	case p.state != proto.PoolClaimed, !p.inquiry.Challenged && c.Arrived > p.inquiry.Until:
		return proto.RefusedClaimMissing
	case !p.inquiry.Challenged:
		to.challenge(p, c.Account)
	}
	return proto.Accepted
}

func (p *plan) challenge(on *pool, by proto.AccountID) {
	p.steps = append(p.steps, step{recordChallenged, uint64(on.id), &challenged{Account: by}})
}

func (s *Shard) planReport(to *plan, p *pool, c *Command) proto.Refusal {
	q := p.inquiry
	switch {
	case q.By == c.Account:
		return proto.RefusedReportOwn
	case slices.Contains(q.Reporters, c.Account):
		return proto.RefusedReportAgain
	case p.state == proto.PoolSuspended:
		return proto.RefusedPoolSuspended
	case p.done():
		return p.over()
	case p.state != proto.PoolOpen:
		return proto.RefusedPoolLocked
	}
	to.steps = append(to.steps, step{recordReported, uint64(p.id), &reported{Account: c.Account,
		Suspends: !q.Cleared && len(q.Reporters)+1 >= s.config.Reports}})
	return proto.Accepted
}

// planApprove lets a question open, or go on after it was suspended. An operator rejects it by voiding the pool.
func planApprove(to *plan, g *game, p *pool) proto.Refusal {
	q := p.inquiry
	if q == nil {
		return proto.RefusedPoolUnasked
	}
	if refusal := p.over(); refusal != proto.Accepted {
		return refusal
	}
	if p.state != proto.PoolProposed && !q.Suspended {
		return proto.RefusedApproval
	}
	to.steps = append(to.steps, step{recordApproved, uint64(p.id), &approval{Opens: p.state == proto.PoolProposed, Minute: g.minute, Score: g.score}})
	return proto.Accepted
}

// settleClaim settles what nobody has challenged in time. A claim that cannot be settled any more goes to an operator.
func (s *Shard) settleClaim(id proto.PoolID) {
	p := s.pool(id)
	if p == nil || p.state != proto.PoolClaimed || p.inquiry.Challenged || p.inquiry.Until > s.now {
		return
	}
	var plan plan
	if planSettle(&plan, p, &proto.Settlement{Winners: p.inquiry.Claim}) != proto.Accepted {
		plan.challenge(p, 0)
	}
	s.carryOut(&plan)
}

// applyInquiry applies a record about a question that there is.
func (p *pool) applyInquiry(seq proto.Seq, r *record) error {
	q := p.inquiry
	if q == nil {
		return fmt.Errorf("apply record %d: nobody has asked the question of pool %d", seq, p.id)
	}
	switch r.kind {
	case recordApproved:
		var body approval
		if err := r.read(&body); err != nil {
			return err
		}
		q.Suspended, q.Cleared = false, q.Cleared || !body.Opens
		if body.Opens {
			p.opening.Minute, p.opening.Score, q.Shown = body.Minute, body.Score, true
		}
		if p.state == proto.PoolProposed || p.state == proto.PoolSuspended {
			p.state = proto.PoolOpen
		}
	case recordReported:
		var body reported
		if err := r.read(&body); err != nil {
			return err
		}
		q.Reporters = append(q.Reporters, body.Account)
		if body.Suspends {
			p.state, q.Suspended = proto.PoolSuspended, true
		}
	case recordClaimed:
		var body claimed
		if err := r.read(&body); err != nil {
			return err
		}
		p.state, q.Claim, q.Until = proto.PoolClaimed, body.Winners, body.Until
	case recordChallenged:
		var body challenged
		if err := r.read(&body); err != nil {
			return err
		}
		q.Challenged, q.Challenger = true, body.Account
	}
	return nil
}

// closedTo is what keeps an account out of a pool because of who asked it, and where.
func (p *pool) closedTo(l *letter) proto.Refusal {
	if p.circle != 0 && !in(l.circles, p.circle) {
		return proto.RefusedCircleForeign
	}
	switch q := p.inquiry; {
	case q == nil:
	case p.state == proto.PoolProposed:
		return proto.RefusedPoolProposed
	case p.state == proto.PoolSuspended:
		return proto.RefusedPoolSuspended
	case p.state == proto.PoolClaimed:
		return proto.RefusedPoolLocked
	case q.By == l.account && q.Settle == proto.SettledByAsker:
		return proto.RefusedStakeByAsker
	}
	return proto.Accepted
}

// hidden reports whether only the asker and operators know of the pool.
func (p *pool) hidden() bool { return p.inquiry != nil && !p.inquiry.Shown }

// unlocked reports whether the pool's lock is still to come.
func (p *pool) unlocked() bool { return p.state == proto.PoolOpen || p.state == proto.PoolSuspended }

// undecided reports whether somebody has yet to name a winner of the locked pool.
func (p *pool) undecided() bool {
	return p.state == proto.PoolLocked || p.state == proto.PoolClaimed && p.inquiry.Challenged
}

// voidAt is when a locked pool that nobody has settled voids itself. A challenge gives the operator as long as a lock.
func (p *pool) voidAt(after proto.Time) proto.Time {
	if p.state == proto.PoolClaimed {
		return p.inquiry.Until + after
	}
	return p.locked + after
}

// showAsked is what all see of an inquiry.
func (p *pool) showAsked() proto.Asked {
	q := p.inquiry
	if q == nil {
		return proto.Asked{}
	}
	asked := proto.Asked{Account: q.By, Name: q.Name, Settle: q.Settle, Suspended: q.Suspended, Claim: slices.Clone(q.Claim)}
	if p.state == proto.PoolClaimed && !q.Challenged {
		asked.Until = q.Until
	}
	return asked
}

// showQuestions shows the game's questions, to a player only his own.
func (s *Shard) showQuestions(c *Command, g *game) {
	m := &proto.Questions{ID: c.ID, T: s.now, Game: g.id, Questions: []proto.Inquiry{}}
	for _, p := range g.pools {
		q := p.inquiry
		if q == nil || c.Kind == ShowQuestions && q.By != c.Account {
			continue
		}
		m.Questions = append(m.Questions, proto.Inquiry{Pool: p.show(), Reports: len(q.Reporters), Challenger: q.Challenger, Reason: q.Reason})
	}
	s.reply(c, m)
}

// tellInquiry tells of a record about a question.
func (s *Shard) tellInquiry(g *game, p *pool, body any, answer *proto.Answer) {
	opens := false
	switch body := body.(type) {
	case *askedOpening:
		opens = body.Inquiry.Shown
		if at := p.opening.LocksAt; at != 0 {
			s.agenda.add(appointment{at: at, kind: lockPool, pool: p.id})
		}
	case *approval:
		opens = body.Opens
	case *reported:
		if !body.Suspends {
			return
		}
	case *claimed:
		s.agenda.add(appointment{at: body.Until, kind: settleClaim, pool: p.id})
	case *challenged:
		s.agenda.add(appointment{at: p.voidAt(s.config.VoidAfter), kind: voidPool, pool: p.id})
	}
	switch {
	case opens:
		answer.Opened = append(answer.Opened, p.id)
		s.broadcast(g, &proto.Opened{T: s.now, Game: g.id, Seq: g.board.next(), Pool: p.show()})
	case !p.hidden():
		s.broadcast(g, &proto.PoolChanged{T: s.now, Game: g.id, Seq: g.board.next(), Pool: p.show()})
	}
}

// tellAsker writes to whoever asked the question how it stands after a record; asking is answered, and one report more changes nothing.
func (s *Shard) tellAsker(p *pool, body any) {
	switch body := body.(type) {
	case *askedOpening:
		return
	case *reported:
		if !body.Suspends {
			return
		}
	}
	if p.inquiry != nil {
		s.write(s.market.shardOfAccount(p.inquiry.By), &letter{kind: letterQuestion, account: p.inquiry.By, pool: p.id, stands: p.state})
	}
}

// questionStands is the account's side.
func (s *Shard) questionStands(l *letter) {
	s.tell(s.accounts[l.account], private{kind: privateQuestion, pool: l.pool, value: int64(l.stands)})
}
