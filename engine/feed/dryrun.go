package feed

import (
	"fmt"
	"time"

	"tote/server/market"
	"tote/server/proto"
)

// Question is a pool of a match that was played without a server: when it opened, locked and ended, and how.
type Question struct {
	Pool     proto.PoolID `json:"pool"`
	Question string       `json:"question"`
	Labels   []string     `json:"labels"`
	State    string       `json:"state"` // in the end
	Opened   Moment       `json:"opened"`
	Locked   *Moment      `json:"locked,omitempty"`
	Ended    *Moment      `json:"ended,omitempty"`   // settled or voided
	Winners  []string     `json:"winners,omitempty"` // labels
	Reason   string       `json:"reason,omitempty"`  // why it was voided
}

// Moment is a point of a match.
type Moment struct {
	Event  string    `json:"event"` // that brought it; "time": none, an hour came
	Minute uint16    `json:"minute"`
	Score  [2]uint16 `json:"score"`
	After  float64   `json:"after"` // seconds since the match began
}

// String is the moment as people tell it: "goal 23' 1-0".
func (m *Moment) String() string {
	if m == nil {
		return ""
	}
	return fmt.Sprintf("%s %d' %d-%d", m.Event, m.Minute, m.Score[0], m.Score[1])
}

func (m Moment) copy() *Moment { return &m }

// Done reports whether the question has ended.
func (q *Question) Done() bool { return q.Ended != nil }

// dryRunBegins is when a match begins that nobody sees: any time will do.
const dryRunBegins = proto.Time(1e6 * 86400 * 365)

// DryRun plays a match without a server, at once, and returns its questions in the order in which they opened. What opens,
// locks and settles them is the market itself, in memory.
func DryRun(m Match) ([]*Question, error) {
	rehearsal := market.NewRehearsal(dryRunBegins)
	opening := m.Opening
	answer, _, err := rehearsal.Do(dryRunBegins, market.Command{Kind: market.OpenGame, Game: rehearsal.Market().NextGame(), Args: &opening})
	if err != nil {
		return nil, fmt.Errorf("play %s: %w", m.Name, err)
	}
	told := chronicle{pools: map[proto.PoolID]*Question{}}
	for _, step := range m.Steps {
		e := step.Event
		_, said, err := rehearsal.Do(dryRunBegins+proto.Time(step.At.Microseconds()), market.Command{Kind: market.PostEvent, Game: answer.Game, Args: &e})
		if err != nil {
			return nil, fmt.Errorf("play %s: %s in minute %d: %w", m.Name, e.Kind, e.Minute, err)
		}
		told.hear(said, step.At)
	}
	return told.questions, nil
}

// chronicle is what is told to everybody, pool by pool.
type chronicle struct {
	questions []*Question
	pools     map[proto.PoolID]*Question
	game      Moment // of the last event
}

// hear takes what was said up to an event and because of it. What was said before the event is the clock's doing.
func (c *chronicle) hear(said []market.Out, at time.Duration) {
	now := c.game
	now.Event = "time"
	for i := range said {
		switch m := said[i].Message.(type) {
		case *proto.Happened:
			now = Moment{Event: m.Kind, Minute: m.Minute, Score: m.Score, After: at.Seconds()}
			c.game = now
		case *proto.Opened:
			q := &Question{Pool: m.Pool.Pool, Question: m.Pool.Question, Labels: m.Pool.Labels, State: proto.PoolOpen.String(), Opened: now}
			c.questions = append(c.questions, q)
			c.pools[q.Pool] = q
		case *proto.Locked:
			q := c.pools[m.Pool]
			q.State, q.Locked = proto.PoolLocked.String(), now.copy()
		case *proto.Settled:
			q := c.pools[m.Pool]
			q.State, q.Ended = proto.PoolSettled.String(), now.copy()
			for _, winner := range m.Winners {
				q.Winners = append(q.Winners, q.Labels[winner])
			}
		case *proto.Voided:
			q := c.pools[m.Pool]
			q.State, q.Ended, q.Reason = proto.PoolVoided.String(), now.copy(), m.Reason
		}
	}
}
