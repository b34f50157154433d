package market

import (
	"cmp"
	"slices"

	"tote/server/proto"
)

// trades are an account's shares in dynamic pools, and what it has sold. Most accounts have none.
type trades struct {
	holdings []holding // of its tickets there, open and closed, by sequence number
	sales    []sale    // the last salesMax, by sequence number
}

// holding is beside a ticket of a dynamic pool.
type holding struct {
	seq    proto.Seq    // the ticket's
	bought proto.Shares // as its receipt says
	lot                 // what is left
	cash   proto.Amount // what the others have brought
}

// sale is remembered for a repeated request.
type sale struct {
	seq     proto.Seq
	request proto.RequestID
	on      place
	shares  proto.Shares
	cash    proto.Amount
}

// salesMax is how many sales an account remembers; a request that is repeated after more of them is new again.
const salesMax = 32

func (t *trades) find(seq proto.Seq) (int, bool) {
	return slices.BinarySearchFunc(t.holdings, seq, func(h holding, seq proto.Seq) int { return cmp.Compare(h.seq, seq) })
}

// holding is what is beside a ticket, nil where it is of a parimutuel pool.
func (a *account) holding(seq proto.Seq) *holding {
	if a.trades == nil {
		return nil
	}
	if i, ok := a.trades.find(seq); ok {
		return &a.trades.holdings[i]
	}
	return nil
}

// cost is what the account has at stake with a ticket.
func (a *account) cost(t *ticket) proto.Amount {
	if h := a.holding(t.seq); h != nil {
		return h.cost
	}
	return t.amount
}

// sharesOf is how many shares a ticket has left; none in a parimutuel pool.
func (a *account) sharesOf(t *ticket) proto.Shares {
	if h := a.holding(t.seq); h != nil {
		return h.shares
	}
	return 0
}

// buy turns an accepted stake in a dynamic pool into a ticket and a holding.
func (a *account) buy(t ticket, shares proto.Shares) {
	a.pay(t)
	if a.trades == nil {
		a.trades = &trades{}
	}
	i, _ := a.trades.find(t.seq)
	a.trades.holdings = insert(a.trades.holdings, i, holding{seq: t.seq, bought: shares, lot: lot{shares: shares, cost: t.amount}})
}

// offer finds which of the account's stakes on an outcome a sale would take from: the oldest first.
func (a *account) offer(on place, shares proto.Shares) *selling {
	offer := &selling{}
	for i := range a.tickets {
		t := &a.tickets[i]
		if t.on != on {
			continue
		}
		h := a.holding(t.seq)
		if h == nil {
			continue
		}
		offer.held += h.shares
		if take := min(shares, h.shares); take > 0 {
			offer.parts = append(offer.parts, part{seq: t.seq, shares: take})
			shares -= take
		}
	}
	return offer
}

// sell carries out an accepted sale. Its cash goes to the holdings it took from, in proportion; tickets that have no share
// left are closed.
func (a *account) sell(s sale, parts []part) {
	a.balance += s.cash
	cash, left := s.cash, s.shares
	for _, part := range parts {
		h := a.holding(part.seq)
		got := portion(cash, part.shares, left)
		cash, left = cash-got, left-part.shares
		h.cash += got
		if h.sell(part.shares); h.shares == 0 {
			_, ended := a.end(result{seq: part.seq, state: proto.PredictionSold})
			assert(ended, "what is sold was open")
		}
	}
	i, _ := slices.BinarySearchFunc(a.trades.sales, s.seq, func(s sale, seq proto.Seq) int { return cmp.Compare(s.seq, seq) })
	if a.trades.sales = insert(a.trades.sales, i, s); len(a.trades.sales) > salesMax {
		a.trades.sales = slices.Delete(a.trades.sales, 0, 1)
	}
}

// brought is what a ticket's sold shares have brought.
func (a *account) brought(seq proto.Seq) proto.Amount {
	if h := a.holding(seq); h != nil {
		return h.cash
	}
	return 0
}

// forget drops the holding of a ticket that the account remembers no longer.
func (a *account) forget(seq proto.Seq) {
	if a.trades == nil {
		return
	}
	if i, ok := a.trades.find(seq); ok {
		a.trades.holdings = slices.Delete(a.trades.holdings, i, i+1)
	}
}

// sold finds the sale that a request made.
func (a *account) sold(id proto.RequestID) *sale {
	if a.trades == nil {
		return nil
	}
	for i := range a.trades.sales {
		if a.trades.sales[i].request == id {
			return &a.trades.sales[i]
		}
	}
	return nil
}

// costOf is what the account has at stake with the holdings that a sale takes from.
func (a *account) costOf(parts []part) (cost proto.Amount) {
	for _, part := range parts {
		if h := a.holding(part.seq); h != nil { // a ticket that is closed may be forgotten
			cost += h.cost
		}
	}
	return cost
}
