package market

import (
	"math"

	"tote/server/proto"
)

// private is one message of an account's private lane, as small as it can be kept for a client that resumes.
type private struct {
	kind       privateKind
	refusal    proto.Refusal
	outcome    proto.Outcome
	reason     proto.RefundReason
	lag        int32 // of a receipt or refusal: microseconds since its request reached the host
	t          proto.Time
	id         proto.RequestID // of a receipt or refusal
	prediction proto.Seq       // or the record of a change of the balance
	pool       proto.PoolID
	amount     proto.Amount // staked, or the change of the balance
	balance    proto.Amount // afterwards, free to stake
	value      int64        // shares of a receipt, the lock time of a refusal, what a payout brings, or a question's state
	locks      proto.Time   // of a receipt: when its pool does, or did
	since      proto.Seq    // nothing told later is about records up to here
}

type privateKind uint8

const (
	privateReceipt privateKind = iota
	privateRefused
	privatePayout
	privateRefund
	privateBalance
	privateQuestion
	privateSold
)

// lag is how long before now a request has arrived. A shard is never half an hour behind; nor a request ahead of it.
func lag(now, arrived proto.Time) int32 {
	return int32(min(max(now-arrived, math.MinInt32), math.MaxInt32))
}

// laneMax is how many private messages are kept for an account, while the server lives. A client that was away
// for longer asks for its account and predictions.
const laneMax = 32

// tell numbers a private message, keeps it, and sends it to all sessions of the account. Where no session has been in this life
// of the server, nobody can resume, and nothing is kept.
func (s *Shard) tell(a *account, p private) {
	if p.kind == privateReceipt || p.kind == privateSold || p.kind == privateRefused {
		s.meters.Decided.AddTime(int64(p.lag))
	}
	live := a.live
	if live == nil || !live.attached {
		return
	}
	p.t, p.balance, p.since = s.now, a.free(), s.through
	live.n++
	live.keep(p)
	for _, session := range live.sessions {
		s.say(session, live.n, &p)
	}
}

// keep puts message n, the newest, into the ring; message i lies at (i-1) modulo laneMax, also while it grows.
func (l *live) keep(p private) {
	if len(l.lane) < laneMax {
		l.lane = append(l.lane, p)
		return
	}
	l.lane[(l.n-1)%laneMax] = p
}

// resume sends a session what it has missed after message n.
func (s *Shard) resume(to Session, l *live, n uint64) {
	for n++; n <= l.n; n++ {
		s.say(to, n, &l.lane[(n-1)%laneMax])
		s.batch.Outs[len(s.batch.Outs)-1].Again = true
	}
}

// keeps reports whether all messages after n are kept.
func (l *live) keeps(n uint64) bool { return n <= l.n && l.n-n <= uint64(len(l.lane)) }

// say sends one private message to one session.
func (s *Shard) say(to Session, n uint64, p *private) {
	o := Out{Kind: OutMessage, To: to}
	switch p.kind {
	case privateReceipt:
		o.Kind = OutReceipt
		o.Receipt = proto.Receipt{ID: p.id, T: p.t, N: n, Prediction: p.prediction, Pool: p.pool, Outcome: p.outcome, Amount: p.amount,
			Shares: proto.Shares(p.value), Balance: p.balance, Since: p.since, Arrived: p.t - proto.Time(p.lag), LocksAt: p.locks, Durability: s.config.Durability}
	case privateSold:
		o.Message = &proto.Sold{ID: p.id, T: p.t, N: n, Sale: p.prediction, Pool: p.pool, Outcome: p.outcome, Shares: proto.Shares(p.value),
			Amount: p.amount, Balance: p.balance, Since: p.since, Arrived: p.t - proto.Time(p.lag), Durability: s.config.Durability}
	case privateRefused:
		o.Kind = OutRefused
		o.Refused = proto.Refused{ID: p.id, T: p.t, N: n, Reason: p.refusal, Arrived: p.t - proto.Time(p.lag), Locked: proto.Time(p.value)}
	case privatePayout:
		o.Message = &proto.Payout{T: p.t, N: n, Prediction: p.prediction, Pool: p.pool, Outcome: p.outcome, Amount: p.amount,
			Payout: proto.Amount(p.value), Balance: p.balance, Since: p.since}
	case privateRefund:
		o.Message = &proto.Refund{T: p.t, N: n, Prediction: p.prediction, Pool: p.pool, Outcome: p.outcome, Amount: p.amount, Balance: p.balance,
			Reason: p.reason, Since: p.since}
	case privateQuestion:
		o.Message = &proto.QuestionState{T: p.t, N: n, Pool: p.pool, State: proto.PoolState(p.value)}
	case privateBalance:
		o.Message = &proto.Balance{T: p.t, N: n, Seq: p.prediction, Change: p.amount, Balance: p.balance, Since: p.since}
	}
	s.batch.Outs = append(s.batch.Outs, o)
}

// tellMissed sends a session what its account was told while it was away.
func (s *Shard) tellMissed(m *missed) {
	for _, page := range m.pages {
		s.batch.Outs = append(s.batch.Outs, Out{Kind: OutMessage, To: m.to, Message: page})
	}
}
