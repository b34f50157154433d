package market

import (
	"cmp"
	"iter"
	"slices"

	"tote/server/proto"
)

// ranking is a ladder at one moment: who is first, and for everybody on it, how many are ahead. Only profits are sorted, so that
// a million players take 0.4 s instead of 2.
type ranking struct {
	counts  proto.Seq  // all records up to here are in it, and perhaps more
	until   proto.Time // it is good enough
	rows    []rung     // by account
	profits []proto.Amount
	first   []rung // the first hundred, in their order
}

// rung is a player's place in it.
type rung struct {
	account     proto.AccountID
	profit      proto.Amount
	predictions uint64
}

// newRanking takes the scores of those who have won or lost anything.
func newRanking(scores iter.Seq2[proto.AccountID, *score]) *ranking {
	var rows []rung
	for id, s := range scores {
		if n, profit := s.ended.Load(), proto.Amount(s.profit.Load()); n > 0 || profit != 0 {
			rows = append(rows, rung{id, profit, n})
		}
	}
	return rank(rows)
}

func rank(rows []rung) *ranking {
	if byAccount := func(a, b rung) int { return cmp.Compare(a.account, b.account) }; !slices.IsSortedFunc(rows, byAccount) {
		slices.SortFunc(rows, byAccount) // of all players they come so
	}
	r := &ranking{rows: rows, profits: make([]proto.Amount, len(rows))}
	for i, row := range rows {
		r.profits[i] = row.profit
	}
	slices.Sort(r.profits)
	least, level := r.least()
	for _, row := range rows {
		if row.profit > least || row.profit == least && level > 0 {
			r.first = append(r.first, row)
			if row.profit == least {
				level--
			}
		}
	}
	slices.SortStableFunc(r.first, func(a, b rung) int { return cmp.Compare(b.profit, a.profit) })
	return r
}

// least is the profit of the last of the first hundred, and how many of those who have it are among them.
func (r *ranking) least() (least proto.Amount, level int) {
	n := min(len(r.profits), proto.PageMax)
	if n == 0 {
		return 0, 0
	}
	least = r.profits[len(r.profits)-n]
	return least, n - (r.rank(least) - 1)
}

// rank counts from 1; equal profits share one.
func (r *ranking) rank(profit proto.Amount) int {
	i, _ := slices.BinarySearch(r.profits, profit+1)
	return 1 + len(r.profits) - i
}

func (r *ranking) leader(row rung) proto.Leader {
	return proto.Leader{Rank: r.rank(row.profit), Account: row.account, Profit: row.profit, Predictions: row.predictions}
}

// leaders are the first hundred.
func (r *ranking) leaders() []proto.Leader {
	list := make([]proto.Leader, len(r.first))
	for i, row := range r.first {
		list[i] = r.leader(row)
	}
	return list
}

func (r *ranking) find(account proto.AccountID) (rung, bool) {
	i, ok := slices.BinarySearchFunc(r.rows, account, func(row rung, id proto.AccountID) int { return cmp.Compare(row.account, id) })
	if !ok {
		return rung{}, false
	}
	return r.rows[i], true
}

// among is the ladder of some accounts alone.
func (r *ranking) among(members []proto.Friend) *ranking {
	var rows []rung
	for _, m := range members {
		if row, ok := r.find(m.Account); ok {
			rows = append(rows, row)
		}
	}
	some := rank(rows)
	some.counts = r.counts
	return some
}
