package baseline

import (
	"math/rand/v2"
	"time"

	"tote/server/bench/peer"
	"tote/server/proto"
)

// stake places a prediction: books, receipt, cache, distribution, in this order.
func (p *Process) stake(c *conn, r *proto.Request, arrived proto.Time) error {
	ch := c.State.games[r.Pool.Game()]
	if ch == nil {
		c.Refuse(r.ID, proto.RefusedGameNotJoined)
		return nil
	}
	made, err := p.books.stake(p.ctx, c.Account, r, arrived)
	if err != nil {
		return err
	}
	if made.refusal != proto.Accepted {
		refused := proto.Refused{ID: r.ID, T: peer.Now(), N: made.n, Reason: made.refusal, Arrived: arrived}
		c.State.lane.say(c, made.n, refused.AppendJSON(nil))
		return nil
	}
	receipt := proto.Receipt{ID: r.ID, T: peer.Now(), N: made.n, Prediction: made.prediction, Pool: r.Pool, Outcome: r.Outcome, Amount: r.Amount,
		Balance: made.balance, Arrived: arrived, Durability: p.site.durability()}
	c.State.lane.say(c, made.n, receipt.AppendJSON(nil))
	if made.repeated {
		return nil
	}
	// The receipt is out: what fails from here on is for the log.
	if err := p.cache.count(p.ctx, r, c.Account, made.prediction); err != nil {
		p.log.Error("the odds lack a prediction", "prediction", made.prediction, "error", err)
		return nil
	}
	p.changed(ch, r.Pool)
	return nil
}

// changed broadcasts a pool's distribution, now or with the first prediction after the interval since the last one. Should there be none, a timer does it, so
// that no prediction stays unseen; it comes later by chance, since processes that woke at the same moment would race more often than predictions do.
func (p *Process) changed(ch *channel, pool proto.PoolID) {
	wait, err := p.distribute(ch, pool)
	if err != nil {
		p.log.Error("a distribution was lost", "pool", pool, "error", err)
		return
	}
	if wait == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due[pool] {
		return // whoever waits already will count this one too
	}
	p.due[pool] = true
	wait += time.Duration(rand.Int64N(int64(ch.interval)/timerShare)) * time.Microsecond
	time.AfterFunc(wait+time.Millisecond, func() { // the wall clock, which is compared, may lag behind the timer's
		p.mu.Lock()
		delete(p.due, pool)
		p.mu.Unlock()
		if p.ctx.Err() != nil {
			return
		}
		// Where the time has moved meanwhile, another process has broadcast what was counted here.
		if _, err := p.distribute(ch, pool); err != nil {
			p.log.Error("a distribution was lost", "pool", pool, "error", err)
		}
	})
}

// timerShare of an interval is how late the timer comes at most.
const timerShare = 10

// distribute broadcasts a pool's distribution if that is due, or says how long it is until then. Every process does so for itself:
//
//	process 1   read last ── set last ── read the odds ── publish
//	process 2      read last ── set last ── read the odds ── publish
func (p *Process) distribute(ch *channel, id proto.PoolID) (wait time.Duration, err error) {
	last, err := p.cache.last(p.ctx, id)
	if err != nil {
		return 0, err
	}
	now := peer.Now()
	if due := last + ch.interval; now < due {
		return time.Duration(due-now) * time.Microsecond, nil
	}
	if err := p.cache.setLast(p.ctx, id, now); err != nil {
		return 0, err
	}
	pool, counts, err := p.cache.pool(p.ctx, id)
	if err != nil || pool == nil || pool.State != proto.PoolOpen {
		return 0, err // its lock has brought its last odds
	}
	odds := &proto.Odds{T: peer.Now(), Game: id.Game(), Pool: id, Counts: counts, Odds: pool.Odds}
	if err := p.cache.publish(p.ctx, id.Game(), odds); err != nil {
		return 0, err
	}
	return 0, p.cache.note(p.ctx, id, now, ch.interval)
}
