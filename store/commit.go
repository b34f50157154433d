package store

import (
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// A buffer that one burst made larger is given to the collector.
	retainBytes = 16 << 20

	// In interval mode, the batch is committed before its interval is over when
	// it holds this much: acknowledgements wait for the commit, measured at 8 ms
	// with 1 MiB and at 50 ms with 8 MiB.
	batchBytes = 1 << 20

	_ = uint(retainBytes - batchBytes) // a batch of ordinary size is always reused

	// Errands taken into one transaction: 1 MiB of snapshot chunks, which adds
	// a few milliseconds to the commit that carries them.
	errandsMax = 16
)

// Append takes n records, given as n × [u32 LE length][payload], and returns
// the sequence number of the first; numbers start at 1 and have no gaps. The
// bytes are copied. The order of calls is the total order, and the records of
// one call land in one transaction: after a crash all of them are there or none.
//
// Append does not wait for the disk: a caller that must not outrun it looks at
// Durable, or at Stats.
func (s *Store) Append(records []byte, n int) (first uint64) {
	assert(n > 0 && wellFormed(records, n), "store: Append: records are not n times a length and a payload")
	s.mu.Lock()
	assert(s.phase == running || s.phase == failed, "store: Append before Start or after Close")
	first = s.appended + 1
	s.appended += uint64(n)
	wake := false
	if s.phase == running {
		wake = len(s.pending) == 0
		s.pending = append(s.pending, records...)
	}
	s.mu.Unlock()
	if wake {
		poke(s.wake)
	}
	return first
}

// An errand is what the follower has the committer do within a transaction, so
// that snapshots and trims ride along with records instead of competing for
// bbolt's one writer.
type errand struct {
	write func(tx *bolt.Tx) error // a bounded step; an error fails the store
	done  func()                  // called after the commit
}

// runCommitter turns what has arrived into one transaction, over and over. It
// ends when the follower has ended and closed errands, or when a write failed.
func (s *Store) runCommitter() {
	defer close(s.committerDone)
	var tick <-chan time.Time
	if s.tail != nil {
		ticker := time.NewTicker(s.opts.Interval)
		defer ticker.Stop()
		tick = ticker.C
	}
	closing := s.closing
	errands := make([]errand, 0, errandsMax)
	for {
		due := s.tail == nil
		errands = errands[:0]
		select {
		case <-s.wake:
		case <-tick:
			due = true
		case <-closing:
			closing, due = nil, true
		case e, ok := <-s.errands:
			if !ok {
				assert(len(s.batch) == 0, "store: the follower ended before the last commit")
				return
			}
			errands = append(errands, e)
		}
		if err := s.turn(s.gather(errands), due); err != nil {
			s.fail(err)
			return
		}
	}
}

// gather adds the errands that are waiting, up to errandsMax.
func (s *Store) gather(errands []errand) []errand {
	for len(errands) < errandsMax {
		select {
		case e, ok := <-s.errands:
			if !ok {
				return errands
			}
			errands = append(errands, e)
		default:
			return errands
		}
	}
	return errands
}

// turn takes what has arrived and makes it durable. It commits if that is due,
// if there are errands, or if the batch has grown large.
func (s *Store) turn(errands []errand, due bool) error {
	arrived := s.take()
	if s.tail != nil && len(arrived) > 0 {
		if err := s.tail.append(s.counters.durable.Load()+1, s.taken, arrived); err != nil {
			return err
		}
		s.acknowledge()
	}
	due = due && len(s.batch) > 0
	if !due && len(errands) == 0 && len(s.batch) < batchBytes {
		return nil
	}
	if err := s.commit(errands); err != nil {
		return err
	}
	s.acknowledge()
	for _, e := range errands {
		e.done()
	}
	poke(s.committed)
	return nil
}

// take moves pending to the end of the batch, and returns what is new in it. An
// empty batch, as it always is but in interval mode, costs only a swap.
func (s *Store) take() (arrived []byte) {
	held := len(s.batch)
	s.mu.Lock()
	if held == 0 {
		s.pending, s.batch = s.batch, s.pending
	} else {
		s.batch = append(s.batch, s.pending...)
		s.pending = reuse(s.pending)
	}
	s.taken = s.appended
	s.mu.Unlock()
	return s.batch[held:]
}

// commit writes the batch and the errands as one transaction. When it returns
// nil they are on the disk.
func (s *Store) commit(errands []errand) error {
	began := time.Now()
	err := s.db.Update(func(tx *bolt.Tx) error {
		if err := s.putBatch(tx.Bucket(bucketJournal)); err != nil {
			return err
		}
		for _, e := range errands {
			if err := e.write(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("commit up to record %d: %w", s.taken, err)
	}
	if s.tail != nil && len(s.batch) > 0 {
		if err := s.tail.truncate(); err != nil {
			return err
		}
	}
	took := time.Since(began)
	c := &s.counters
	c.commits.Add(1)
	records := s.taken - c.synced.Load()
	c.records.Add(records)
	c.journal.Add(int64(len(s.blocks)))
	c.lastCommit.Store(int64(took))
	c.allCommits.Add(int64(took))
	c.synced.Store(s.taken)
	if s.opts.Committed != nil {
		s.opts.Committed(took, records)
	}
	s.batch = reuse(s.batch)
	s.blocks = reuse(s.blocks)
	return nil
}

// putBatch packs the batch into blocks. bbolt keeps the values and does not
// copy them; s.blocks may move while it grows, the values then keep the old one.
func (s *Store) putBatch(journal *bolt.Bucket) error {
	journal.FillPercent = 1 // keys only grow: no room is needed between them
	first := s.counters.synced.Load() + 1
	for rest := s.batch; len(rest) > 0; {
		n, start := cut(rest), len(s.blocks)
		s.blocks, rest = appendBlock(s.blocks, first, rest, n)
		if err := journal.Put(journalKey(first), s.blocks[start:]); err != nil {
			return fmt.Errorf("put block %d: %w", first, err)
		}
		first += uint64(n)
	}
	assert(first == s.taken+1, "store: the batch does not end at the last record taken")
	return nil
}

// acknowledge tells the market that all that was taken is durable.
func (s *Store) acknowledge() {
	s.counters.durable.Store(s.taken)
	s.durable(s.taken)
}

// fail ends acknowledging for good: the committer, who calls it, returns next.
func (s *Store) fail(err error) {
	s.failure = err
	s.mu.Lock()
	s.phase = failed
	s.pending = nil
	s.mu.Unlock()
	close(s.dead)
	s.opts.Fatal(err)
}

// poke leaves a wake-up, unless one is already waiting.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// reuse empties b, or drops it if it has grown past what is worth keeping.
func reuse(b []byte) []byte {
	if cap(b) > retainBytes {
		return nil
	}
	return b[:0]
}
