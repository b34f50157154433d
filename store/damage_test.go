package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// journalImage returns a crashed store with n records of 100 bytes in its
// journal, after a snapshot of some chunks at record 10.
func journalImage(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	l := &ledger{padding: 3 * chunkBytes}
	s, _ := startStore(t, dir, Options{}, l)
	s.Append(appendCall(nil, 1, 1, 10, 0), 10)
	mustClose(t, s)
	s, a := startStore(t, dir, Options{}, l)
	s.Append(appendCall(nil, 1, 11, n, 100-recordHead), n)
	a.waitFor(uint64(10 + n))
	return crashCopy(t, s)
}

// flipIn flips one bit in the file, offset bytes into the only place where it
// holds text.
func flipIn(text []byte, offset int) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(b, text); n != 1 {
			t.Fatalf("the file holds %x %d times", text, n)
		}
		b[bytes.Index(b, text)+offset] ^= 4
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func change(f func(tx *bolt.Tx) error) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		db, err := openBolt(path, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(f), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// viewTo copies the views and lets them tell of all up to seq.
func viewTo(t *testing.T, from, to string, seq uint64) {
	t.Helper()
	if from != to {
		if err := copyFile(filepath.Join(from, viewsName), filepath.Join(to, viewsName), 1<<30); err != nil {
			t.Fatal(err)
		}
	}
	change(func(tx *bolt.Tx) error {
		return tx.Bucket(viewMeta).Put(keyPosition, journalKey(seq))
	})(t, filepath.Join(to, viewsName))
}

// Damage is found before it is applied, and the error names the place and what
// to do, in Recover as in Check.
func TestDamageIsFound(t *testing.T) {
	image := journalImage(t, 200)
	record80 := appendRecord(nil, 1, 80, 130, 100-recordHead)[4:]
	blockHead := func(first uint64, n uint32) []byte {
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(nil, first), n)
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, path string)
		want   string
	}{
		{"a record", flipIn(record80, 50), "checksum of record 80 in block 75 does not match"},
		{"the number of a block", flipIn(blockHead(75, 64), 0), "value of block 75: checksum of block 79 does not match"},
		{"the count of a block", flipIn(blockHead(75, 64), 8), "value of block 75: checksum of block 75 does not match"},
		{"the count of a block, beyond its end", flipIn(blockHead(75, 64), 11), "value of block 75: index of block 75 is cut off"},
		{"the index of a block", flipIn(blockHead(75, 64), 40), "value of block 75: checksum of block 75 does not match"},
		{"a block lost", change(func(tx *bolt.Tx) error {
			return tx.Bucket(bucketJournal).Delete(journalKey(75))
		}), "block 75 is missing"},
		{"the first block lost", change(func(tx *bolt.Tx) error {
			return tx.Bucket(bucketJournal).Delete(journalKey(11))
		}), "block 11 is missing"},
		{"a block in another's place", change(func(tx *bolt.Tx) error {
			journal := tx.Bucket(bucketJournal)
			return journal.Put(journalKey(75), bytes.Clone(journal.Get(journalKey(139))))
		}), "block 75 holds block 139"},
		{"a block too long", change(func(tx *bolt.Tx) error {
			journal := tx.Bucket(bucketJournal)
			return journal.Put(journalKey(75), append(bytes.Clone(journal.Get(journalKey(75))), 0))
		}), "block 75 has 1 bytes too many"},
		{"a chunk", change(func(tx *bolt.Tx) error {
			snapshots := tx.Bucket(bucketSnapshots)
			chunk := bytes.Clone(snapshots.Get(chunkKey(10, 1)))
			chunk[1000] ^= 1
			return snapshots.Put(chunkKey(10, 1), chunk)
		}), "snapshot at record 10: checksum of chunk 1 of 4 does not match"},
		{"a chunk lost", change(func(tx *bolt.Tx) error {
			return tx.Bucket(bucketSnapshots).Delete(chunkKey(10, 2))
		}), "snapshot at record 10: chunk 2 of 4 is missing"},
		{"the mark", change(func(tx *bolt.Tx) error {
			m, err := currentMark(tx)
			v := m.encode()
			v[7] ^= 1
			return errors.Join(err, tx.Bucket(bucketMeta).Put(keySnapshot, v))
		}), "mark of the current snapshot"},
		{"a mark of fewer chunks", change(func(tx *bolt.Tx) error {
			m, err := currentMark(tx)
			m.chunks--
			return errors.Join(err, tx.Bucket(bucketMeta).Put(keySnapshot, m.encode()))
		}), "length or checksum does not match"},
		{"the journal ends before the snapshot", change(func(tx *bolt.Tx) error {
			m, err := currentMark(tx)
			m.seq = 500
			return errors.Join(err, tx.Bucket(bucketMeta).Put(keySnapshot, m.encode()))
		}), "journal ends at record 210, before the snapshot at 500"},
		{"a mark within the last block", change(func(tx *bolt.Tx) error {
			m := mark{seq: 205, crc: seqSum(205)}
			return tx.Bucket(bucketMeta).Put(keySnapshot, m.encode())
		}), "no block starts after the snapshot at record 205"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, dbName)
			if err := copyFile(filepath.Join(image, dbName), path, 1<<30); err != nil {
				t.Fatal(err)
			}
			viewTo(t, image, dir, 210)
			c.damage(t, path)
			said := func(who string, err error) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "restore it from a backup") {
					t.Errorf("%s: %v\nwant it to say %q", who, err, c.want)
				}
			}
			_, err := Check(dir, func(uint64, []byte) error { return nil })
			said("Check", err)

			s, err := Open(dir, quiet(t, Options{}))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			// These two would notice nothing themselves.
			load := func(io.Reader) error { return nil }
			apply := func(uint64, []byte) error { return nil }
			_, err = s.Recover(load, apply)
			said("Recover", err)
		})
	}
}

// Blocks that a snapshot covers and no trim has reached: Recover needs them no
// more, but Check still reads them.
func TestCheckReadsWhatIsNotTrimmedYet(t *testing.T) {
	dir := journalImage(t, 200)
	path := filepath.Join(dir, dbName)
	change(func(tx *bolt.Tx) error {
		m := mark{seq: 74, crc: seqSum(74)}
		return tx.Bucket(bucketMeta).Put(keySnapshot, m.encode())
	})(t, path)
	viewTo(t, dir, dir, 74)
	seqs := []uint64{}
	each := func(seq uint64, _ []byte) error {
		seqs = append(seqs, seq)
		return nil
	}
	want := CheckReport{SnapshotSeq: 74, LastSeq: 210, Records: 136, Viewed: 74, UselessBlocks: 1, UselessChunks: 4}
	if got, err := Check(dir, each); got != want || err != nil {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	if len(seqs) != 136 || seqs[0] != 75 || seqs[135] != 210 {
		t.Errorf("Check gave records %v", seqs)
	}
	flipIn(appendRecord(nil, 1, 20, 190, 100-recordHead)[4:], 50)(t, path)
	if _, err := Check(dir, each); err == nil || !strings.Contains(err.Error(), "checksum of record 20 in block 11") {
		t.Errorf("Check: %v", err)
	}
	s, err := Open(dir, quiet(t, Options{}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if r, err := s.Recover(func(io.Reader) error { return nil }, each); err != nil || r.Replayed != 136 {
		t.Errorf("Recover: %s, %v", r, err)
	}
}

// A page that bbolt cannot read: no stack trace, but the same advice.
func TestADamagedTreeIsFound(t *testing.T) {
	for _, c := range []struct {
		name string
		at   int64  // in the page of the journal's root, see bbolt's page.go
		with []byte // nil: the 8 bytes one element further
	}{
		{"a page zeroed", 0, make([]byte, 16)},
		{"a page of no kind", 8, []byte{0xff, 0xff}},
		{"a way to a page beyond the file", 16 + 8, []byte{0, 0, 0x30, 0, 0, 0, 0, 0}},
		{"a way to a page beyond the mapping", 16 + 8, []byte{0, 0, 0, 0, 1, 0, 0, 0}},
		{"a way to a page of another kind", 16 + 8, make([]byte, 8)},
		{"two ways to one page", 16 + 8, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := journalImage(t, 2000)
			path := filepath.Join(dir, dbName)
			db, err := openBolt(path, true)
			if err != nil {
				t.Fatal(err)
			}
			var root int64
			err = db.View(func(tx *bolt.Tx) error {
				root = int64(tx.Bucket(bucketJournal).Root()) * int64(db.Info().PageSize)
				return nil
			})
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if c.with == nil {
				c.with = make([]byte, 8)
				if _, err := f.ReadAt(c.with, root+c.at+16); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := f.WriteAt(c.with, root+c.at); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			const want = "restore it from a backup"
			if _, err := Check(dir, func(uint64, []byte) error { return nil }); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Check: %v", err)
			}
			if _, err := Open(dir, quiet(t, Options{})); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Open: %v", err)
			}
		})
	}
}

// The follower may be the first to read damage back.
func TestDamageUnderARunningStoreIsFatal(t *testing.T) {
	fatal := make(chan error, 1)
	s, _ := recoverStore(t, t.TempDir(), Options{Fatal: func(err error) { fatal <- err }}, &ledger{})
	a := newAcks()
	entered, goOn := make(chan struct{}, 1), make(chan struct{})
	slow := &slowFollower{entered: entered, goOn: goOn}
	s.Start(slow, a.durable, nil)
	s.Append(appendCall(nil, 1, 1, 1, 0), 1)
	<-entered // the follower is at record 1 while record 2 is written and spoilt
	s.Append(appendRecord(nil, 1, 2, 0, 99), 1)
	a.waitFor(2)
	path := filepath.Join(s.dir, dbName)
	spoilt := appendRecord(nil, 1, 2, 0, 99)[4:]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := int64(bytes.Index(b, spoilt)) + 20
	write := func(c byte) {
		if _, err := f.WriteAt([]byte{c}, at); err != nil {
			t.Fatal(err)
		}
	}
	write(b[at] ^ 1)
	close(goOn)
	if err := <-fatal; !strings.Contains(err.Error(), "checksum of record 2 in block 2") {
		t.Errorf("fatal: %v", err)
	}
	s.Close()
	write(b[at]) // for the check at the end
}

type slowFollower struct {
	ledger
	entered, goOn chan struct{}
}

func (f *slowFollower) Apply(seq uint64, record []byte) error {
	if seq == 1 {
		f.entered <- struct{}{}
		<-f.goOn
	}
	return f.ledger.Apply(seq, record)
}
