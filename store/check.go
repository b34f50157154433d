package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// CheckReport says what a consistent store holds.
type CheckReport struct {
	SnapshotSeq   uint64 // 0: there is no snapshot
	SnapshotBytes uint64
	LastSeq       uint64
	Records       uint64 // after the snapshot, those in the tail included
	TailRecords   uint64
	TailTorn      int    // bytes of an unfinished write at the end of tail.log; no fault
	Viewed        uint64 // record up to which views.db is complete; the next Recover tells the rest again

	// What a crash left for the next Recover to trim; no fault either.
	UselessBlocks, UselessChunks int
}

// pageFaultsMax bounds what is reported: one bad page makes thousands of others
// unreachable.
const pageFaultsMax = 10

// Check reads a closed store from end to end and changes nothing: bbolt's own
// check of its pages, the checksum of every block, record and chunk, and that
// sequence numbers go from the snapshot, or 1, to the end without a gap. each
// gets what Recover would replay. The error says all that is wrong.
func Check(dir string, each func(seq uint64, record []byte) error) (CheckReport, error) {
	var r CheckReport
	path := filepath.Join(dir, dbName)
	if _, err := os.Stat(path); err != nil {
		return r, fmt.Errorf("check: %w", err)
	}
	release, err := holdLock(dir)
	if err != nil {
		return r, fmt.Errorf("check: %w", err)
	}
	defer release()
	db, err := openBolt(path, true)
	if err != nil {
		return r, fmt.Errorf("check: %w", err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		if err := walkTree(tx); err != nil {
			return err
		}
		if err := checkPages(tx); err != nil {
			return err
		}
		return r.check(tx, dir, each)
	})
	if err == nil {
		r.Viewed, err = checkViews(dir)
	}
	if err == nil && (r.Viewed < r.SnapshotSeq || r.Viewed > r.LastSeq) {
		err = viewsDamaged("it ends at record %d, the snapshot stands at %d, the journal ends at %d", r.Viewed, r.SnapshotSeq, r.LastSeq)
	}
	if err != nil {
		return r, fmt.Errorf("check %s: %w", dir, err)
	}
	return r, nil
}

// checkPages reads bbolt's list of faults to its end, or its goroutine stays.
func checkPages(tx *bolt.Tx) error {
	var faults []error
	for fault := range tx.Check() {
		if len(faults) < pageFaultsMax {
			faults = append(faults, fault)
		}
	}
	if len(faults) > 0 {
		return damaged("pages: %v", errors.Join(faults...))
	}
	return nil
}

func (r *CheckReport) check(tx *bolt.Tx, dir string, each func(seq uint64, record []byte) error) error {
	if err := checkFormat(tx); err != nil {
		return err
	}
	m, err := currentMark(tx)
	if err != nil {
		return err
	}
	end, err := journalEnd(tx, m)
	if err != nil {
		return err
	}
	r.SnapshotSeq, r.SnapshotBytes = m.seq, m.bytes
	if m.seq > 0 {
		if _, err := io.Copy(io.Discard, newSnapshotReader(tx, m)); err != nil {
			return err
		}
	}
	blocks, _ := coveredBlocks(tx, m, 1<<30)
	chunks, _ := otherChunks(tx, m, 1<<30)
	r.UselessBlocks, r.UselessChunks = len(blocks), len(chunks)

	if len(blocks) > 0 {
		nothing := func(uint64, []byte) error { return nil }
		if _, _, err := walkJournal(tx, keySeq(blocks[0])-1, nothing); err != nil {
			return err
		}
	}
	counted := func(seq uint64, record []byte) error {
		r.Records++
		return each(seq, record)
	}
	last, _, err := walkJournal(tx, m.seq, counted)
	if err != nil {
		return err
	}
	if last != end {
		return noBlockAfter(m)
	}
	tail, err := readTail(dir, last)
	if err != nil {
		return err
	}
	for seq, rest := last+1, tail.records; len(rest) > 0; seq++ {
		var record []byte
		record, rest = nextRecord(rest)
		if err := counted(seq, record); err != nil {
			return err
		}
	}
	r.LastSeq, r.TailRecords, r.TailTorn = tail.last, tail.last-last, tail.torn
	return nil
}
