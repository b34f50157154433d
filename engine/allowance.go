package engine

import (
	"hash/maphash"
	"sync/atomic"

	"tote/server/proto"
)

// allowances bound what comes within a second, over all connections and loops.
type allowances struct {
	accountHellos                 *allowance
	accountRequests, accountBytes *allowance
	addressRequests, addressBytes *allowance
	allRequests, allBytes         *allowance
	loopbackRequests              bool // loopback is limited like other addresses
	loopbackBytes                 bool
}

func newAllowances(l Limits) (m allowances) {
	m.loopbackRequests, m.loopbackBytes = l.AddressRequests > 0, l.AddressBytes > 0
	for _, row := range []struct {
		to              **allowance
		value, standard int
	}{
		{&m.accountHellos, l.AccountHellos, defaults.AccountHellos},
		{&m.accountRequests, l.AccountRequests, defaults.AccountRequests}, {&m.accountBytes, l.AccountBytes, defaults.AccountBytes},
		{&m.addressRequests, l.AddressRequests, defaults.AddressRequests}, {&m.addressBytes, l.AddressBytes, defaults.AddressBytes},
		{&m.allRequests, l.AllRequests, 0}, {&m.allBytes, l.AllBytes, 0},
	} {
		if row.value == 0 {
			row.value = row.standard
		}
		if row.value > 0 {
			*row.to = newAllowance(row.value)
		}
	}
	return m
}

// request counts one.
func (m *allowances) request(s *session, now proto.Time) proto.Refusal {
	switch {
	case s.account != 0 && !m.accountRequests.take(uint64(s.account), 1, now),
		s.address != 0 && (m.loopbackRequests || !s.address.isLoopback()) && !m.addressRequests.take(uint64(s.address), 1, now):
		return proto.RefusedRequestsFast
	case !m.allRequests.take(0, 1, now):
		return proto.RefusedBusy
	}
	return proto.Accepted
}

// bytes counts what was read, which cannot be refused any more; it returns why the connection must end, or 0.
func (m *allowances) bytes(s *session, n int, now proto.Time) proto.CloseCode {
	switch {
	case s.account != 0 && !m.accountBytes.take(uint64(s.account), n, now),
		s.address != 0 && (m.loopbackBytes || !s.address.isLoopback()) && !m.addressBytes.take(uint64(s.address), n, now):
		return proto.ClosePolicy
	case !m.allBytes.take(0, n, now):
		return proto.CloseTryLater
	}
	return 0
}

// allowance is how much everybody has taken, in as many cells as there are, not as many as there are people (a count-min
// sketch). A key has a cell in each row, and the lesser counts: so an allowance lets no more through, but for one of each loop that looks in the same moment, and less only where
// somebody busy sits in both cells. Where that is, nobody outside knows. A cell is the time at which its key is even with its
// allowance (the generic cell rate algorithm), so nothing is ever cleared.
type allowance struct {
	seed  maphash.Seed
	limit int64 // in a second, and at once
	rows  [2][]atomic.Int64
}

// allowanceCells are enough: with 100,000 requests per second in all, the others' part of a cell is 3.
const allowanceCells = 1 << 15

func newAllowance(limit int) *allowance {
	return &allowance{seed: maphash.MakeSeed(), limit: int64(limit), rows: [2][]atomic.Int64{make([]atomic.Int64, allowanceCells), make([]atomic.Int64, allowanceCells)}}
}

// take takes n of what the key may have, or nothing where it has had it. No allowance is no limit.
func (m *allowance) take(key uint64, n int, now proto.Time) bool {
	if m == nil {
		return true
	}
	const second = int64(1e9) // of a cell's time, ns
	h := maphash.Comparable(m.seed, key)
	a, b := &m.rows[0][h%allowanceCells], &m.rows[1][h>>32%allowanceCells]
	at := int64(now) * 1000
	if min(a.Load(), b.Load())-at >= second {
		return false
	}
	cost := (int64(n)*second + m.limit - 1) / m.limit
	for _, cell := range []*atomic.Int64{a, b} {
		for even := cell.Load(); !cell.CompareAndSwap(even, max(even, at)+cost); {
			even = cell.Load()
		}
	}
	return true
}
