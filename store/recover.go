package store

import (
	"fmt"
	"io"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Recovery says what Recover found and did.
type Recovery struct {
	SnapshotSeq   uint64 // 0: there was no snapshot
	SnapshotBytes uint64
	SnapshotTime  time.Duration

	Replayed      uint64 // records after the snapshot
	ReplayedBytes uint64 // of their blocks
	ReplayTime    time.Duration

	LastSeq     uint64 // Append goes on at the next
	TailRecords uint64 // of those replayed, found in tail.log and brought in
	TailTorn    int    // bytes of an unfinished write at its end, ignored
}

// String is the line for the log.
func (r Recovery) String() string {
	text := "no snapshot"
	if r.SnapshotSeq > 0 {
		text = fmt.Sprintf("snapshot at record %d (%d bytes, %s)",
			r.SnapshotSeq, r.SnapshotBytes, r.SnapshotTime.Round(time.Millisecond))
	}
	text += fmt.Sprintf(", replayed %d records (%d bytes, %s) up to record %d",
		r.Replayed, r.ReplayedBytes, r.ReplayTime.Round(time.Millisecond), r.LastSeq)
	if r.TailRecords > 0 {
		text += fmt.Sprintf(", %d of them from %s", r.TailRecords, tailName)
	}
	if r.TailTorn > 0 {
		text += fmt.Sprintf(", ignored %d bytes of an unfinished write at its end", r.TailTorn)
	}
	return text
}

// Recover rebuilds the state: load gets the snapshot if there is one, then apply
// gets each later record in order. Both read bbolt's memory and must not keep
// it. Call it once, before Start, also on a new store.
func (s *Store) Recover(load func(r io.Reader) error, apply func(seq uint64, record []byte) error) (Recovery, error) {
	s.assertPhase(opened)
	r, err := s.recover(load, apply)
	if err != nil {
		return r, fmt.Errorf("recover %s: %w", s.dir, err)
	}
	s.setPhase(recovered)
	return r, nil
}

func (s *Store) recover(load func(r io.Reader) error, apply func(seq uint64, record []byte) error) (r Recovery, err error) {
	var m mark
	var end uint64
	err = s.db.View(func(tx *bolt.Tx) (err error) {
		if m, err = currentMark(tx); err != nil {
			return err
		}
		end, err = journalEnd(tx, m)
		return err
	})
	if err != nil {
		return r, err
	}
	s.counters.synced.Store(end)
	if err := s.recoverTail(&r); err != nil {
		return r, err
	}
	identity, err := s.Secret("views", 16)
	if err != nil {
		return r, err
	}
	if err := s.views.belong(identity, m.seq, s.counters.synced.Load(), s.opts.ForgetHistory); err != nil {
		return r, err
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		if m.seq > 0 {
			began := time.Now()
			if err := loadSnapshot(tx, m, load); err != nil {
				return err
			}
			r.SnapshotSeq, r.SnapshotBytes, r.SnapshotTime = m.seq, m.bytes, time.Since(began)
		}
		began := time.Now()
		last, bytes, err := walkJournal(tx, m.seq, func(seq uint64, record []byte) error {
			s.views.begin(seq)
			if err := apply(seq, record); err != nil {
				return fmt.Errorf("replay record %d: %w", seq, err)
			}
			s.views.end(seq)
			if len(s.views.pending) < viewsPending {
				return nil
			}
			return s.views.commit(false)
		})
		r.Replayed, r.ReplayedBytes, r.ReplayTime, r.LastSeq = last-m.seq, bytes, time.Since(began), last
		return err
	})
	if err != nil {
		return r, err
	}
	if r.LastSeq != s.counters.synced.Load() {
		return r, noBlockAfter(m)
	}
	if err := s.views.commit(false); err != nil {
		return r, err
	}
	// Only now: what a crash left may be of use to whoever must repair a store
	// that does not load.
	for more := true; more; {
		err := s.db.Update(func(tx *bolt.Tx) (err error) {
			more, err = s.trim(tx, m)
			return err
		})
		if err != nil {
			return r, err
		}
	}
	c := &s.counters
	c.durable.Store(r.LastSeq)
	c.applied.Store(r.LastSeq)
	c.snapshot.Store(m.seq)
	c.journal.Store(int64(r.ReplayedBytes))
	s.taken = r.LastSeq
	s.mu.Lock()
	s.appended = r.LastSeq
	s.mu.Unlock()
	return r, nil
}

// journalEnd returns the sequence number of the last record in bbolt.
func journalEnd(tx *bolt.Tx, m mark) (uint64, error) {
	k, v := tx.Bucket(bucketJournal).Cursor().Last()
	if k == nil {
		return m.seq, nil
	}
	blk, err := journalBlock(k, v, keySeq(k))
	if err != nil {
		return 0, err
	}
	if blk.last() < m.seq {
		return 0, damaged("journal ends at record %d, before the snapshot at %d", blk.last(), m.seq)
	}
	return blk.last(), nil
}

// noBlockAfter is the error when the journal goes on past the snapshot, but no
// block starts where it ends.
func noBlockAfter(m mark) error {
	return damaged("journal: no block starts after the snapshot at record %d", m.seq)
}

// loadSnapshot hands the snapshot to load, and checks also what load leaves.
func loadSnapshot(tx *bolt.Tx, m mark, load func(r io.Reader) error) error {
	r := newSnapshotReader(tx, m)
	if err := load(r); err != nil {
		return fmt.Errorf("load snapshot at record %d: %w", m.seq, err)
	}
	_, err := io.Copy(io.Discard, r)
	return err
}

// walkJournal calls each with every record after the one given, checks that
// there is no gap, and returns the last sequence number and the blocks' bytes.
func walkJournal(tx *bolt.Tx, after uint64, each func(seq uint64, record []byte) error) (last, bytes uint64, err error) {
	last = after
	c := tx.Bucket(bucketJournal).Cursor()
	for k, v := c.Seek(journalKey(after + 1)); k != nil; k, v = c.Next() {
		blk, err := journalBlock(k, v, last+1)
		if err != nil {
			return last, bytes, err
		}
		if err := blk.each(each); err != nil {
			return last, bytes, err
		}
		last = blk.last()
		bytes += uint64(len(v))
	}
	return last, bytes, nil
}
