package market

import (
	"iter"

	"tote/server/proto"
)

// stake is a prediction on its pool's side. A pool may hold millions, so it is packed to the last bit; sequence
// number and arrival count from the pool's opening.
//
//	     63      59 58       53 52                              0
//	    ┌──────────┬───────────┬────────────────────────────────┐
//	who │ arrival  │ outcome 6 │ account 53                     │
//	    │ 43–47    │           │                                │
//	    ├──────────┴───────────┼────────────────────────────────┤
//	sum │ arrival 32–42        │ amount 53                      │
//	    ├──────────────────────┴──┬─────────────────────────────┤
//	nth │ sequence number 32      │ arrival 0–31                │
//	    └─────────────────────────┴─────────────────────────────┘
type stake struct{ who, sum, nth uint64 }

const (
	idBits      = 53
	idMask      = 1<<idBits - 1
	outcomeBits = 6
	outcomeMask = 1<<outcomeBits - 1
	arrivalMax  = 1<<48 - 1 // microseconds: nine years

	arrivalInWho = 43 // the first of its bits there
	arrivalInSum = 32

	_ = uint(outcomeMask + 1 - proto.OutcomesMax) // what is packed fits
	_ = uint(idMask - proto.AmountMax)

	stakeSeqMax = 1 << 31 // a pool takes stakes up to so many records after its opening: half of what fits, since others append meanwhile
	stakeChunk  = 4096    // stakes: 96 KiB, a whole number of pages
	stakeFirst  = 8       // room of a fresh pool
)

// newStake packs a stake. after is the number of records since the pool's opening, and arrival the time since then: one that
// arrived before the opening counts as arrived with it.
func newStake(account proto.AccountID, outcome proto.Outcome, amount proto.Amount, after uint32, arrival proto.Time) stake {
	at := uint64(min(max(arrival, 0), arrivalMax))
	return stake{
		who: uint64(account) | uint64(outcome)<<idBits | at>>arrivalInWho<<(idBits+outcomeBits),
		sum: uint64(amount) | at>>arrivalInSum<<idBits,
		nth: uint64(after)<<32 | at&(1<<32-1),
	}
}

func (s stake) account() proto.AccountID { return proto.AccountID(s.who & idMask) }
func (s stake) outcome() proto.Outcome   { return proto.Outcome(s.who >> idBits & outcomeMask) }
func (s stake) amount() proto.Amount     { return proto.Amount(s.sum & idMask) }
func (s stake) after() uint32            { return uint32(s.nth >> 32) }
func (s stake) arrival() proto.Time {
	return proto.Time(s.who>>(idBits+outcomeBits)<<arrivalInWho | s.sum>>idBits&(1<<(arrivalInWho-arrivalInSum)-1)<<arrivalInSum |
		s.nth&(1<<32-1))
}

// seq is the sequence number of a stake's record, which names the prediction.
func (p *pool) seq(s stake) proto.Seq { return p.first + proto.Seq(s.after()) }

// arrived is when the stake's request reached the host, and not before the pool's opening.
func (p *pool) arrived(s stake) proto.Time { return p.opened + s.arrival() }

// stakes are a pool's, in the order of acceptance. Chunks spare a great pool the copying of all that it holds
// whenever it grows; only the first one grows step by step, for most pools are small.
type stakes struct {
	chunks [][]stake // all but the last are full
}

func (l *stakes) add(s stake) {
	last := len(l.chunks) - 1
	switch {
	case last < 0:
		l.chunks, last = append(l.chunks, make([]stake, 0, stakeFirst)), 0
	case len(l.chunks[last]) == stakeChunk:
		l.chunks, last = append(l.chunks, make([]stake, 0, stakeChunk)), last+1
	case len(l.chunks[last]) == cap(l.chunks[last]):
		l.chunks[last] = append(make([]stake, 0, min(roomFor(cap(l.chunks[last])), stakeChunk)), l.chunks[last]...)
	}
	l.chunks[last] = append(l.chunks[last], s)
}

// roomFor is how large a full list of n grows: by a quarter, since there are millions of them. What is copied is five
// times what is kept.
func roomFor(n int) int { return n + n/4 + 1 }

func (l *stakes) len() int {
	if len(l.chunks) == 0 {
		return 0
	}
	return (len(l.chunks)-1)*stakeChunk + len(l.chunks[len(l.chunks)-1])
}

func (l *stakes) at(i int) stake { return l.chunks[i/stakeChunk][i%stakeChunk] }

// all walks over the stakes from the first one.
func (l *stakes) all() iter.Seq[stake] {
	return func(yield func(stake) bool) {
		for _, chunk := range l.chunks {
			for _, s := range chunk {
				if !yield(s) {
					return
				}
			}
		}
	}
}
