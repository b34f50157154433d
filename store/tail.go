package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// tail is the file that makes interval mode safe against a killed process: each
// turn's records are written to it as one block before they are acknowledged,
// and it is emptied when a commit has synced them in bbolt. It is not synced
// itself. One block per write makes the records of one Append whole or absent,
// wherever a write was cut.
//
//	store.db  ─ … 4711 │           synced
//	tail.log           │ 4712 … 4790 │ 4791 │ 4792 … 48      torn: ignored
//
// bbolt without syncs would need no tail, but a power cut could then leave a
// tree that nobody can read.
type tail struct {
	file  *os.File
	block []byte // reused for each write
}

func openTail(dir string) (*tail, error) {
	file, err := os.OpenFile(filepath.Join(dir, tailName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open tail: %w", err)
	}
	return &tail{file: file}, nil
}

// append writes the records first to last as one block.
func (t *tail) append(first, last uint64, records []byte) error {
	t.block, _ = appendBlock(reuse(t.block), first, records, int(last-first+1))
	if _, err := t.file.Write(t.block); err != nil {
		return fmt.Errorf("write records %d to %d: %w", first, last, err)
	}
	return nil
}

// truncate empties the file after a commit. It need not be synced: whatever a
// power cut brings back has sequence numbers that bbolt already has.
func (t *tail) truncate() error {
	if err := t.file.Truncate(0); err != nil {
		return fmt.Errorf("empty tail: %w", err)
	}
	return nil
}

// tailContent is what a tail.log holds beyond the journal.
type tailContent struct {
	records []byte // n × [u32 LE length][payload]
	last    uint64 // sequence number of the last one; that of the journal if there is none
	torn    int    // bytes at the end that are no whole block
}

// readTail reads the records of tail.log that continue a journal which ends at
// synced. A missing file is an empty one.
func readTail(dir string, synced uint64) (tailContent, error) {
	c := tailContent{last: synced}
	b, err := os.ReadFile(filepath.Join(dir, tailName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("read tail: %w", err)
	}
	for len(b) > 0 {
		blk, rest, err := readBlock(b)
		if err != nil || !blk.whole() {
			c.torn = len(b)
			return c, nil
		}
		switch {
		case blk.last() <= c.last: // a crash came between the commit and truncate
		case blk.first == c.last+1:
			c.records = blk.appendRecords(c.records)
			c.last = blk.last()
		default:
			return c, fmt.Errorf("%s goes on at record %d but %s ends at %d: they are of different moments; "+
				"restore both from one backup, or remove %s to go on without its records",
				tailName, blk.first, dbName, c.last, tailName)
		}
		b = rest
	}
	return c, nil
}

// recoverTail brings the records of tail.log into bbolt, and leaves an empty
// file in interval mode and none in the other. Either is synced, this once:
// behind the torn end may lie a block that a power cut would bring back later,
// to follow records it never knew.
func (s *Store) recoverTail(r *Recovery) error {
	synced := s.counters.synced.Load()
	c, err := readTail(s.dir, synced)
	if err != nil {
		return err
	}
	if c.last > synced {
		s.batch, s.taken = c.records, c.last
		if err := s.commit(nil); err != nil {
			return fmt.Errorf("bring in tail: %w", err)
		}
	}
	r.TailRecords, r.TailTorn = c.last-synced, c.torn
	if s.opts.Interval == 0 {
		err := os.Remove(filepath.Join(s.dir, tailName))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("remove tail: %w", err)
		}
		return syncDir(s.dir)
	}
	if s.tail, err = openTail(s.dir); err != nil {
		return err
	}
	if err := s.tail.truncate(); err != nil {
		return err
	}
	if err := s.tail.file.Sync(); err != nil {
		return fmt.Errorf("sync tail: %w", err)
	}
	return syncDir(s.dir)
}

// whole says whether the checksum of every record is right.
func (b block) whole() bool {
	return b.each(func(uint64, []byte) error { return nil }) == nil
}

// appendRecords appends the block's records as [u32 LE length][payload] to dst.
func (b block) appendRecords(dst []byte) []byte {
	payloads := b.payloads
	for i := range len(b.index) / indexEntry {
		dst = append(dst, b.index[i*indexEntry:][:4]...)
		dst = append(dst, payloads[:b.size(i)]...)
		payloads = payloads[b.size(i):]
	}
	return dst
}
