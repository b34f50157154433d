package market

import (
	"fmt"

	"tote/server/proto"
)

// Rehearsal is a whole market of one shard with a journal in memory, turned by hand: what a match would do to its questions is
// found out without a server, by the code that a server runs. Time is what its caller says.
//
// Owner: whoever calls it, one goroutine at a time.
type Rehearsal struct {
	market *Market
	shard  *Shard
	now    proto.Time
	next   proto.Time // when the shard wants to be turned at the latest
	seq    uint64     // records so far: all are durable at once
	said   []Out
}

// rehearsalSession is who speaks in a rehearsal.
var rehearsalSession = NewSession(DeskLoop, 1, 0)

// NewRehearsal is an empty market at a time.
func NewRehearsal(at proto.Time) *Rehearsal {
	r := &Rehearsal{now: at}
	m, err := New(Config{Shards: 1, Epoch: 1, Durability: "never", Journal: r,
		Now:     func() proto.Time { return r.now },
		Deliver: func(b *Batch) { r.said = append(r.said, b.Outs...) },
	}, NewReplica())
	assert(err == nil, "an empty market opens")
	r.market, r.shard = m, m.shards[0]
	r.shard.announce()
	return r
}

// Append is the journal's.
func (r *Rehearsal) Append(_ []byte, n int) (first uint64) {
	first = r.seq + 1
	r.seq += uint64(n)
	r.market.durable.Store(r.seq)
	return first
}

// Market is what the rehearsal turns, for its ids.
func (r *Rehearsal) Market() *Market { return r.market }

// Do lets time pass until at, does an operator's command there, and returns its answer and what was said to everybody since the
// last one. A refusal is an error.
func (r *Rehearsal) Do(at proto.Time, c Command) (*proto.Answer, []Out, error) {
	r.said = nil
	r.pass(at)
	c.From, c.Arrived = rehearsalSession, at
	if !r.market.Submit(&c) {
		return nil, nil, fmt.Errorf("rehearse: the inbox is full")
	}
	for {
		r.next = r.shard.turn(r.now)
		for i := range r.said {
			switch o := &r.said[i]; {
			case o.To != rehearsalSession:
			case o.Kind == OutAnswer && o.Answer.Refusal == proto.Accepted:
				return o.Answer, r.said, nil
			case o.Kind == OutAnswer:
				return nil, nil, fmt.Errorf("rehearse: %s: %s", o.Answer.Refusal.Reason(), o.Answer.Detail)
			case o.Kind == OutRefused:
				return nil, nil, fmt.Errorf("rehearse: %s", o.Refused.Reason.Reason())
			}
		}
		assert(!r.shard.inbox.empty() || r.next < at+proto.Hour, "an operator is answered")
		r.now = max(r.now, r.next)
	}
}

// pass turns the shard at each of its appointments until a time.
func (r *Rehearsal) pass(until proto.Time) {
	for r.next <= until && r.now < until {
		r.now = max(r.now, r.next)
		r.next = r.shard.turn(r.now)
	}
	r.now = max(r.now, until)
}
