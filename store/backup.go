package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	bolt "go.etcd.io/bbolt"
)

// moment is two files as of a time when they fit together, held by a read transaction on each: what is trimmed meanwhile stays in them,
// and what is appended does not show.
type moment struct {
	journal, views *bolt.Tx
	last           uint64 // record that the journal ends at
}

// momentTries is how often the files are looked at: they fit but for a snapshot taken between the two looks.
const momentTries = 10

// Backup copies the store as it is while everything goes on: a directory with these files is one that Open takes. file is called for each of
// them with its size, and what it returns gets the bytes; an error of either ends the backup. All that was synced before
// the call is in it, up to the record that is returned.
//
// Until it ends, pages that are trimmed cannot be used again: the files grow by what is written meanwhile. Close waits for it.
func (s *Store) Backup(file func(name string, size int64) (io.Writer, error)) (last uint64, err error) {
	m, err := s.moment()
	if err != nil {
		return 0, fmt.Errorf("back up %s: %w", s.dir, err)
	}
	defer m.end()
	for _, part := range []struct {
		name string
		tx   *bolt.Tx
	}{{viewsName, m.views}, {dbName, m.journal}} { // without store.db it is no store: what is torn is not taken for a whole
		to, err := file(part.name, part.tx.Size())
		if err == nil {
			_, err = part.tx.WriteTo(to)
		}
		if err != nil {
			return 0, fmt.Errorf("back up %s: %w", part.name, err)
		}
	}
	s.counters.backup.Store(m.last)
	s.counters.backupAt.Store(time.Now().UnixMicro())
	return m.last, nil
}

// moment opens the views first: they never tell of more than is synced. They must reach as far as the snapshot.
func (s *Store) moment() (*moment, error) {
	for range momentTries {
		m := new(moment)
		var err error
		if m.views, err = s.views.db.Begin(false); err != nil {
			return nil, err
		}
		if m.journal, err = s.db.Begin(false); err != nil {
			return nil, errors.Join(err, m.end())
		}
		fits, err := m.fits()
		if fits {
			return m, nil
		}
		if err = errors.Join(err, m.end()); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("snapshots follow one another too fast")
}

func (m *moment) fits() (bool, error) {
	snapshot, err := currentMark(m.journal)
	if err != nil {
		return false, err
	}
	if m.last, err = journalEnd(m.journal, snapshot); err != nil {
		return false, err
	}
	reached := bytes.Clone(m.views.Bucket(viewMeta).Get(keyPosition))
	if len(reached) != 8 {
		return false, viewsDamaged("it has no position")
	}
	return binary.BigEndian.Uint64(reached) >= snapshot.seq, nil
}

func (m *moment) end() error {
	err := m.views.Rollback()
	if m.journal != nil {
		err = errors.Join(err, m.journal.Rollback())
	}
	return err
}
