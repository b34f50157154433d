package market

import (
	"cmp"
	"slices"

	"tote/server/proto"
)

// ticket is an open prediction on its owner's side; its pool has the stake.
type ticket struct {
	seq     proto.Seq
	request proto.RequestID
	on      place
	amount  proto.Amount
}

// closedTicket is a prediction that has ended.
type closedTicket struct {
	ticket
	end uint64 // payout << 3 | state
}

// place is a pool and an outcome of it.
//
//	63  59 58       6 5         0
//	┌─────┬──────────┬───────────┐
//	│ 0   │ pool 53  │ outcome 6 │
//	└─────┴──────────┴───────────┘
type place uint64

const stateBits = 3

func newPlace(p proto.PoolID, o proto.Outcome) place {
	return place(uint64(p)<<outcomeBits | uint64(o))
}

func (p place) pool() proto.PoolID     { return proto.PoolID(p >> outcomeBits) }
func (p place) outcome() proto.Outcome { return proto.Outcome(p & outcomeMask) }

func (t *closedTicket) payout() proto.Amount { return proto.Amount(t.end >> stateBits) }
func (t *closedTicket) state() proto.PredictionState {
	return proto.PredictionState(t.end & (1<<stateBits - 1))
}

func (t *ticket) close(state proto.PredictionState, payout proto.Amount) closedTicket {
	return closedTicket{*t, uint64(payout)<<stateBits | uint64(state)}
}

// closedMax is how many ended predictions an account remembers, to list them and to recognise a
// repeated request.
const closedMax = 32

// pay turns an accepted stake into a ticket. Acceptances of two shards may come out of order; the
// tickets are kept in the journal's.
func (a *account) pay(t ticket) {
	assert(a.balance >= t.amount, "a stake is covered")
	a.balance -= t.amount
	i := len(a.tickets)
	for i > 0 && a.tickets[i-1].seq > t.seq {
		i--
	}
	a.tickets = insert(a.tickets, i, t)
}

// insert is slices.Insert with little room to spare.
func insert[T any](list []T, i int, v T) []T {
	if len(list) == cap(list) {
		list = append(make([]T, 0, roomFor(len(list))), list...)
	}
	list = list[:len(list)+1]
	copy(list[i+1:], list[i:])
	list[i] = v
	return list
}

// ticketOf finds an open ticket.
func (a *account) ticketOf(seq proto.Seq) (int, bool) {
	return slices.BinarySearchFunc(a.tickets, seq, func(t ticket, seq proto.Seq) int { return cmp.Compare(t.seq, seq) })
}

// requested finds the prediction that a request made.
func (a *account) requested(id proto.RequestID) *ticket {
	for i := len(a.tickets) - 1; i >= 0; i-- {
		if a.tickets[i].request == id {
			return &a.tickets[i]
		}
	}
	for i := len(a.closed) - 1; i >= 0; i-- {
		if a.closed[i].request == id {
			return &a.closed[i].ticket
		}
	}
	return nil
}

// position is what the account has at stake in a pool, and which outcomes it backs, a bit each. With it the pool
// tells a new backer from an old one, and keeps the account's cap, without a list of accounts of its own. It is exact because an
// account's stakes in one pool are decided one after another.
func (a *account) position(in proto.PoolID) (staked proto.Amount, backs uint64) {
	for i := range a.tickets {
		if t := &a.tickets[i]; t.on.pool() == in {
			staked += a.cost(t)
			backs |= 1 << t.on.outcome()
		}
	}
	return staked, backs
}

// end closes a ticket and returns it; ok is false where the account has none such. Of the closed ones the last closedMax by sequence
// number are kept, in whatever order they closed.
func (a *account) end(r result) (t closedTicket, ok bool) {
	i, ok := a.ticketOf(r.seq)
	if !ok {
		return t, false
	}
	t = a.tickets[i].close(r.state, r.payout+a.brought(r.seq))
	a.balance += r.payout
	if a.tickets = slices.Delete(a.tickets, i, i+1); len(a.tickets) == 0 {
		a.tickets = nil
	}
	at, _ := slices.BinarySearchFunc(a.closed, t.seq, func(t closedTicket, seq proto.Seq) int { return cmp.Compare(t.seq, seq) })
	if a.closed = insert(a.closed, at, t); len(a.closed) > closedMax {
		a.forget(a.closed[0].seq)
		a.closed = slices.Delete(a.closed, 0, 1)
	}
	return t, true
}

// predictions lists all tickets by sequence number.
func (a *account) predictions() []proto.Prediction {
	list := make([]proto.Prediction, 0, len(a.tickets)+len(a.closed))
	for i := range a.closed {
		t := &a.closed[i]
		list = append(list, a.show(&t.ticket, t.state(), t.payout()))
	}
	for i := range a.tickets {
		list = append(list, a.show(&a.tickets[i], proto.PredictionOpen, a.brought(a.tickets[i].seq)))
	}
	slices.SortFunc(list, func(x, y proto.Prediction) int { return cmp.Compare(x.Prediction, y.Prediction) })
	return list
}

func (a *account) show(t *ticket, state proto.PredictionState, payout proto.Amount) proto.Prediction {
	return proto.Prediction{Prediction: t.seq, ID: t.request, Pool: t.on.pool(), Outcome: t.on.outcome(), Amount: t.amount,
		State: state, Payout: payout, Shares: a.sharesOf(t)}
}
