package comparator

import (
	"context"
	"slices"
	"sync"
	"time"

	"tote/server/bench/peer"
	"tote/server/proto"
)

// game is a game with its pools and those who have joined it. One lock for all of it: a stake, a join and a distribution each take it for a moment.
type game struct {
	id       proto.GameID
	interval time.Duration

	mu       sync.Mutex
	quiet    sync.Cond // the last stake under way in some pool is told
	image    proto.Game
	pools    []*pool
	seq      uint64 // of the last broadcast
	spoken   time.Time
	audience map[*conn]struct{}
}

// pool is a question. Its game's lock is on all of it.
type pool struct {
	Image    proto.Pool   `json:"image"` // Odds without multipliers
	StakeMin proto.Amount `json:"stake_min,omitempty"`
	StakeMax proto.Amount `json:"stake_max,omitempty"`

	tickets []ticket
	backed  map[proto.AccountID]uint64 // outcomes, a bit each
	counts  proto.Seq                  // the last prediction in Odds
	pending int                        // stakes that are accepted and not told yet
	changed bool                       // since the last distribution
	busy    bool                       // an operator is locking or ending it
}

// ticket is a prediction in its pool.
type ticket struct {
	account    *account
	holder     proto.AccountID // while the file is read
	prediction proto.Seq
	amount     proto.Amount
	outcome    proto.Outcome
}

// heartbeatEvery is how long a game is silent at most.
const heartbeatEvery = 5 * time.Second

func newGame(image *proto.Game) *game {
	g := &game{id: image.Game, interval: time.Duration(image.Interval) * time.Microsecond, image: *image, audience: map[*conn]struct{}{}}
	g.quiet.L = &g.mu
	return g
}

func newPool(image proto.Pool, stakeMin, stakeMax proto.Amount) *pool {
	image.Odds = make([]proto.Odd, len(image.Labels))
	return &pool{Image: image, StakeMin: stakeMin, StakeMax: stakeMax, backed: map[proto.AccountID]uint64{}}
}

func (p *pool) over() bool {
	return p.Image.State == proto.PoolSettled || p.Image.State == proto.PoolVoided
}

// run distributes what has changed, once in an interval, until the game has ended or ctx has.
func (g *game) run(ctx context.Context) {
	every := time.NewTicker(g.interval)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		g.mu.Lock()
		for _, p := range g.pools {
			if p.changed && p.Image.State == proto.PoolOpen {
				g.broadcast(&proto.Odds{T: peer.Now(), Game: g.id, Seq: g.next(), Pool: p.Image.Pool, Counts: p.counts, Odds: p.odds()})
			}
			p.changed = false
		}
		if time.Since(g.spoken) >= heartbeatEvery {
			g.send(&proto.Heartbeat{T: peer.Now(), Game: g.id, Seq: g.seq, Interval: g.image.Interval})
		}
		ended := g.image.State == proto.GameEnded
		g.mu.Unlock()
		if ended {
			return
		}
	}
}

// next numbers a broadcast.
func (g *game) next() uint64 {
	g.seq++
	return g.seq
}

// broadcast sends what next has numbered.
func (g *game) broadcast(m proto.Message) {
	g.spoken = time.Now()
	g.send(m)
}

// send encodes a message once for all.
func (g *game) send(m proto.Message) {
	frame, err := peer.NewFrame(m.AppendJSON(nil))
	if err != nil {
		panic("comparator: a text is a frame: " + err.Error())
	}
	for c := range g.audience {
		c.SendFrame(frame)
	}
}

// odds are the pool's with their multipliers.
func (p *pool) odds() []proto.Odd {
	odds := slices.Clone(p.Image.Odds)
	gross := proto.Amount(0)
	for _, o := range odds {
		gross += o.Staked
	}
	net := gross - takeout(gross, p.Image.Takeout)
	for i := range odds {
		odds[i].Multiplier = proto.NewMultiplier(net, odds[i].Staked)
	}
	return odds
}

// shown is the pool as its game's image has it.
func (p *pool) shown() proto.Pool {
	shown := p.Image
	shown.Odds = p.odds()
	return shown
}

func (g *game) shown() proto.Game {
	shown := g.image
	shown.Present = len(g.audience)
	return shown
}

func (g *game) showPools() []proto.Pool {
	all := make([]proto.Pool, 0, len(g.pools))
	for _, p := range g.pools {
		all = append(all, p.shown())
	}
	return all
}

// pool finds a pool; nil: there is none.
func (g *game) pool(id proto.PoolID) *pool {
	if n := id.Number(); n > 0 && n <= len(g.pools) {
		return g.pools[n-1]
	}
	return nil
}

// closed are the refusals of a stake, by the pool's state.
var closed = map[proto.PoolState]proto.Refusal{
	proto.PoolOpen: proto.Accepted, proto.PoolLocked: proto.RefusedPoolLocked, proto.PoolSettled: proto.RefusedPoolSettled, proto.PoolVoided: proto.RefusedPoolVoided,
}

// enter accepts a stake: from now on the pool waits for it before it is locked.
func (g *game) enter(id proto.PoolID, outcome proto.Outcome, amount proto.Amount) (*pool, proto.Refusal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.pool(id)
	switch {
	case p == nil:
		return nil, proto.RefusedPoolUnknown
	case p.Image.State != proto.PoolOpen:
		return nil, closed[p.Image.State]
	case int(outcome) >= len(p.Image.Labels):
		return nil, proto.RefusedOutcomeUnknown
	case amount < p.StakeMin:
		return nil, proto.RefusedStakeSmall
	case p.StakeMax > 0 && amount > p.StakeMax:
		return nil, proto.RefusedStakeLarge
	}
	p.pending++
	return p, proto.Accepted
}

// count takes a stake that is durable into the odds.
func (p *pool) count(t *ticket) {
	odd := &p.Image.Odds[t.outcome]
	odd.Staked += t.amount
	if bit := uint64(1) << t.outcome; p.backed[t.account.id]&bit == 0 {
		p.backed[t.account.id] |= bit
		odd.Backers++
	}
	p.tickets = append(p.tickets, *t)
	p.counts, p.changed = max(p.counts, t.prediction), true
}

// leave says that an accepted stake has been told.
func (g *game) leave(p *pool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.pending--; p.pending == 0 {
		g.quiet.Broadcast()
	}
}

// close keeps stakes out of a pool, and waits for those under way.
func (g *game) close(p *pool) {
	p.Image.State = proto.PoolLocked
	for p.pending > 0 {
		g.quiet.Wait()
	}
}
