package store

import (
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// follower reads what was committed back from bbolt and applies it. It reads
// the file and not a second queue, so that falling behind costs no memory.
//
// Owner of every field: the goroutine in runFollower.
type follower struct {
	store   *Store
	copy    Follower
	views   *Views // that the copy tells
	applied uint64 // last record applied, always the last of a block
	bytes   uint64 // of blocks applied since the current snapshot
}

// followBlocks bounds one read transaction: a page freed meanwhile cannot be
// used again before it ends.
const followBlocks = 64

// errCommitterDead tells the follower to stop; the failure itself is told by
// the committer.
var errCommitterDead = errors.New("the committer has stopped")

// runFollower ends when Close was called and all is applied and in a snapshot,
// or when the committer has failed. It closes errands to end the committer.
func (s *Store) runFollower(c Follower) {
	defer close(s.followerDone)
	f := &follower{store: s, copy: c, views: s.views, applied: s.counters.applied.Load(), bytes: uint64(s.counters.journal.Load())}
	if err := f.run(); err == nil {
		close(s.errands)
	} else if !errors.Is(err, errCommitterDead) {
		// Let the committer fail over it, who alone knows what was acknowledged.
		s.ask(errand{write: func(*bolt.Tx) error { return fmt.Errorf("follower: %w", err) }})
	}
}

func (f *follower) run() error {
	s := f.store
	closing := s.closing
	later := time.NewTimer(viewsEvery)
	defer later.Stop()
	for {
		if err := f.catchUp(); err != nil {
			return err
		}
		ending := closing == nil && f.applied == s.lastAppended()
		if f.snapshotDue() || ending && f.applied > s.counters.snapshot.Load() {
			if err := f.takeSnapshot(); err != nil {
				return err
			}
			continue
		}
		if ending {
			return nil
		}
		if wait, _ := f.views.due(); wait > 0 {
			later.Reset(wait)
		}
		select {
		case <-s.committed:
		case <-later.C:
		case <-closing:
			closing = nil
		case <-s.dead:
			return errCommitterDead
		}
	}
}

// catchUp applies all that is synced, up to the next snapshot.
func (f *follower) catchUp() error {
	for !f.snapshotDue() {
		// Read before the transaction begins: what is synced later may be in blocks that it does not show.
		synced := f.store.counters.synced.Load()
		if f.applied == synced {
			return f.view()
		}
		err := f.store.db.View(func(tx *bolt.Tx) error { return f.applySome(tx, synced) })
		if err != nil {
			return err
		}
		f.store.counters.applied.Store(f.applied)
		if err := f.view(); err != nil {
			return err
		}
	}
	return nil
}

// view commits what the copy has told of the past, if that is due.
func (f *follower) view() error {
	if _, due := f.views.due(); due {
		return f.views.commit(false)
	}
	return nil
}

// applySome applies the next blocks. The transaction shows all up to synced, and
// perhaps a commit whose sync is still under way; what is not synced is not
// applied.
func (f *follower) applySome(tx *bolt.Tx, synced uint64) error {
	c := tx.Bucket(bucketJournal).Cursor()
	k, v := c.Seek(journalKey(f.applied + 1))
	for n := 0; n < followBlocks && f.applied < synced; n++ {
		blk, err := journalBlock(k, v, f.applied+1)
		if err != nil {
			return err
		}
		err = blk.each(func(seq uint64, record []byte) error {
			f.views.begin(seq)
			if err := f.copy.Apply(seq, record); err != nil {
				return fmt.Errorf("apply record %d: %w", seq, err)
			}
			f.views.end(seq)
			return nil
		})
		if err != nil {
			return err
		}
		f.applied = blk.last()
		f.bytes += uint64(len(v))
		k, v = c.Next()
	}
	return nil
}

func (f *follower) snapshotDue() bool {
	o := &f.store.opts
	return f.applied-f.store.counters.snapshot.Load() >= o.SnapshotEvery || f.bytes >= o.SnapshotBytes
}

// ask hands an errand to the committer and does not wait for it, unless as many
// as one transaction takes are already waiting.
func (s *Store) ask(e errand) error {
	select {
	case s.errands <- e:
		return nil
	case <-s.dead:
		return errCommitterDead
	}
}

// askAndWait hands over one step and returns when it is committed.
func (s *Store) askAndWait(step func(tx *bolt.Tx) error) error {
	done := make(chan struct{})
	if err := s.ask(errand{write: step, done: func() { close(done) }}); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-s.dead:
		return errCommitterDead
	}
}

// journalBlock reads the block under key k, which must start at record want.
func journalBlock(k, v []byte, want uint64) (block, error) {
	if k == nil || len(k) != 8 || keySeq(k) != want {
		return block{}, damaged("journal: block %d is missing", want)
	}
	blk, rest, err := readBlock(v)
	switch {
	case err != nil:
		return block{}, damaged("journal: value of block %d: %v", want, err)
	case blk.first != want:
		return block{}, damaged("journal: block %d holds block %d", want, blk.first)
	case len(rest) != 0:
		return block{}, damaged("journal: block %d has %d bytes too many", want, len(rest))
	}
	return blk, nil
}
