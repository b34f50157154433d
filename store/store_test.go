package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// ledger is the least that can follow a journal: it knows who wrote which
// record as the how-manieth, and refuses what is missing, doubled, out of order
// or torn out of its call.
//
//	record  producer: u32 │ count: u64 │ left: u16 in this call │ filling
type ledger struct {
	seq    uint64
	sum    uint64 // of all records and their numbers
	counts [8]uint64
	left   uint16
	owner  uint32 // of the call that left is about

	padding int // bytes that a snapshot carries besides, to give it chunks
}

const recordHead = 14

func appendRecord(b []byte, producer uint32, count uint64, left uint16, filling int) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(recordHead+filling))
	b = binary.LittleEndian.AppendUint32(b, producer)
	b = binary.LittleEndian.AppendUint64(b, count)
	b = binary.LittleEndian.AppendUint16(b, left)
	for i := range filling {
		b = append(b, byte(count)+byte(i))
	}
	return b
}

// appendCall appends the records of one call, which start at count.
func appendCall(b []byte, producer uint32, count uint64, n, filling int) []byte {
	for i := range n {
		b = appendRecord(b, producer, count+uint64(i), uint16(n-1-i), filling)
	}
	return b
}

func (l *ledger) Apply(seq uint64, record []byte) error {
	if seq != l.seq+1 {
		return fmt.Errorf("record %d follows %d", seq, l.seq)
	}
	if len(record) < recordHead {
		return fmt.Errorf("record %d has %d bytes", seq, len(record))
	}
	producer := binary.LittleEndian.Uint32(record)
	count := binary.LittleEndian.Uint64(record[4:])
	left := binary.LittleEndian.Uint16(record[12:])
	if l.counts[producer]+1 != count {
		return fmt.Errorf("producer %d: %d follows %d", producer, count, l.counts[producer])
	}
	if l.left > 0 && (producer != l.owner || left != l.left-1) {
		return fmt.Errorf("record %d breaks into a call of producer %d", seq, l.owner)
	}
	l.seq, l.counts[producer], l.left, l.owner = seq, count, left, producer
	for _, c := range record {
		l.sum = l.sum*1099511628211 + uint64(c) + seq
	}
	return nil
}

func (l *ledger) Snapshot(w io.Writer) error {
	if err := binary.Write(w, binary.LittleEndian, [4]uint64{l.seq, l.sum, uint64(l.left), uint64(l.owner)}); err != nil {
		return err
	}
	if err := binary.Write(w, binary.LittleEndian, l.counts); err != nil {
		return err
	}
	_, err := w.Write(bytes.Repeat([]byte{byte(l.seq)}, l.padding))
	return err
}

func (l *ledger) load(r io.Reader) error {
	var head [4]uint64
	if err := binary.Read(r, binary.LittleEndian, &head); err != nil {
		return err
	}
	l.seq, l.sum, l.left, l.owner = head[0], head[1], uint16(head[2]), uint32(head[3])
	if err := binary.Read(r, binary.LittleEndian, &l.counts); err != nil {
		return err
	}
	padding, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if !bytes.Equal(padding, bytes.Repeat([]byte{byte(l.seq)}, l.padding)) {
		return errors.New("padding is not what was written")
	}
	return nil
}

// acks hears what is durable.
type acks struct {
	mu      sync.Mutex
	changed *sync.Cond
	seq     uint64
	calls   int
	fell    bool // it once got less than before
}

func newAcks() *acks {
	a := &acks{}
	a.changed = sync.NewCond(&a.mu)
	return a
}

func (a *acks) durable(seq uint64) {
	a.mu.Lock()
	a.fell = a.fell || seq < a.seq
	a.seq = seq
	a.calls++
	a.mu.Unlock()
	a.changed.Broadcast()
}

// wait returns when done is true of what was heard.
func (a *acks) wait(done func() bool) {
	a.mu.Lock()
	for !done() {
		a.changed.Wait()
	}
	a.mu.Unlock()
}

func (a *acks) waitFor(seq uint64) { a.wait(func() bool { return a.seq >= seq }) }

// checkAtEnd registers the check that every test of a store ends with. What is
// registered later, like Close, runs before it.
func checkAtEnd(t testing.TB, dir string) {
	t.Helper()
	t.Cleanup(func() {
		if _, err := Check(dir, func(uint64, []byte) error { return nil }); err != nil {
			t.Errorf("the store is not consistent: %v", err)
		}
	})
}

func quiet(t testing.TB, o Options) Options {
	o.Log = slog.New(slog.DiscardHandler)
	if o.Fatal == nil {
		o.Fatal = func(err error) { t.Errorf("fatal: %v", err) }
	}
	return o
}

// recoverStore opens dir and recovers l from it.
func recoverStore(t testing.TB, dir string, o Options, l *ledger) (*Store, Recovery) {
	t.Helper()
	s, err := Open(dir, quiet(t, o))
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, dir)
	t.Cleanup(func() { s.Close() })
	r, err := s.Recover(l.load, l.Apply)
	if err != nil {
		t.Fatal(err)
	}
	if l.left != 0 {
		t.Fatalf("%d records of the last call are missing", l.left)
	}
	return s, r
}

// startStore is recoverStore and Start.
func startStore(t testing.TB, dir string, o Options, l *ledger) (*Store, *acks) {
	t.Helper()
	s, _ := recoverStore(t, dir, o, l)
	a := newAcks()
	s.Start(l, a.durable, nil)
	return s, a
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// crashCopy returns a copy of the directory as a kill at this moment would leave
// it, but for free pages at the end of the file. No commit may be under way.
func crashCopy(t testing.TB, s *Store) string {
	t.Helper()
	image := t.TempDir()
	err := s.db.View(func(tx *bolt.Tx) error {
		return copyFile(filepath.Join(s.dir, dbName), filepath.Join(image, dbName), tx.Size())
	})
	if err == nil {
		kept := errors.New("kept out of the file while it is copied")
		got := s.views.db.Update(func(tx *bolt.Tx) error {
			err = copyFile(filepath.Join(s.dir, viewsName), filepath.Join(image, viewsName), 1<<40)
			return kept
		})
		if got != kept {
			err = errors.Join(err, got)
		}
	}
	if err == nil && s.tail != nil {
		err = copyFile(filepath.Join(s.dir, tailName), filepath.Join(image, tailName), 1<<30)
	}
	if err != nil {
		t.Errorf("copy the store: %v", err) // not Fatal: the committer goroutine comes here too
	}
	return image
}

func copyFile(from, to string, limit int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, limit))
	return errors.Join(err, out.Close())
}

var modes = []struct {
	name string
	o    Options
}{
	{"always", Options{}},
	{"interval", Options{Interval: time.Hour}},
	{"short interval", Options{Interval: time.Millisecond}},
}

func TestWhatWasClosedIsRecovered(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data", "deep")
			var before ledger
			s, _ := startStore(t, dir, mode.o, &before)
			for call := range uint64(100) {
				first := s.Append(appendCall(nil, 1, call*3+1, 3, 20), 3)
				if want := call*3 + 1; first != want {
					t.Fatalf("call %d got %d as its first, want %d", call, first, want)
				}
			}
			mustClose(t, s)
			mustClose(t, s)
			if before.seq != 300 {
				t.Fatalf("Close let the follower catch up to %d of 300", before.seq)
			}

			var after ledger
			s, r := recoverStore(t, dir, mode.o, &after)
			if after != before {
				t.Fatalf("recovered %+v, want %+v", after, before)
			}
			if r.SnapshotSeq != 300 || r.Replayed != 0 || r.LastSeq != 300 {
				t.Fatalf("Close did not leave all in a snapshot: %s", r)
			}
			s.Start(&after, func(uint64) {}, nil)
			if first := s.Append(appendCall(nil, 1, 301, 1, 0), 1); first != 301 {
				t.Fatalf("Append went on at %d, want 301", first)
			}
			mustClose(t, s)
			if after.seq != 301 {
				t.Fatalf("the follower ended at %d, want 301", after.seq)
			}
		})
	}
}

func TestAnEmptyStoreOpensAgain(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		var l ledger
		s, a := startStore(t, dir, Options{}, &l)
		mustClose(t, s)
		if l.seq != 0 || a.calls != 0 {
			t.Fatalf("an empty store gave record %d and %d acknowledgements", l.seq, a.calls)
		}
	}
}

// witness is a ledger that remembers which record it saw under which number.
type witness struct {
	ledger
	saw map[uint64]string
}

func (w *witness) Apply(seq uint64, record []byte) error {
	w.saw[seq] = string(record)
	return w.ledger.Apply(seq, record)
}

// Many callers, one order: each record stands where Append said it would, the
// records of a call stand together (the ledger sees to it), and what is
// acknowledged only grows.
func TestConcurrentCallersHaveOneOrder(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			w := &witness{saw: map[uint64]string{}}
			s, _ := recoverStore(t, t.TempDir(), mode.o, &w.ledger)
			a := newAcks()
			s.Start(w, a.durable, nil)

			const producers, calls = 6, 300
			var appended [producers]map[uint64]string
			var callers sync.WaitGroup
			for p := range producers {
				appended[p] = map[uint64]string{}
				callers.Go(func() {
					count := uint64(1)
					for call := range calls {
						n := 1 + (p+call)%5
						records := appendCall(nil, uint32(p), count, n, p)
						first := s.Append(records, n)
						for seq := first; len(records) > 0; seq++ {
							var record []byte
							record, records = nextRecord(records)
							appended[p][seq] = string(record)
						}
						count += uint64(n)
					}
				})
			}
			callers.Wait()
			last := s.Stats().Appended
			a.waitFor(last)
			mustClose(t, s)
			if a.fell {
				t.Error("durable went back")
			}
			if s.Durable() != last || a.seq != last {
				t.Errorf("%d were appended, Durable is %d, %d were acknowledged", last, s.Durable(), a.seq)
			}
			if w.seq != last {
				t.Errorf("the follower applied %d of %d", w.seq, last)
			}
			for p := range producers {
				for seq, record := range appended[p] {
					if w.saw[seq] != record {
						t.Fatalf("record %d is %q, producer %d appended %q", seq, w.saw[seq], p, record)
					}
				}
			}
		})
	}
}

func TestIntervalAcknowledgesFirstAndSyncsSoonAfter(t *testing.T) {
	for _, c := range []struct {
		name     string
		interval time.Duration
		records  int
		filling  int
		synced   bool
	}{
		{"before the interval is over", time.Hour, 1, 0, false},
		{"when it is over", time.Millisecond, 1, 0, true},
		{"when the batch is large", time.Hour, 1000, batchBytes / 1000, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			var l ledger
			s, a := startStore(t, dir, Options{Interval: c.interval}, &l)
			s.Append(appendCall(nil, 1, 1, c.records, c.filling), c.records)
			a.waitFor(uint64(c.records))
			if c.synced {
				a.wait(func() bool { return s.Stats().Synced == uint64(c.records) })
				if info, err := os.Stat(filepath.Join(dir, tailName)); err != nil || info.Size() != 0 {
					t.Errorf("a tail that is synced is not empty (%v)", err)
				}
			} else if st := s.Stats(); st.Synced != 0 || st.Durable != 1 {
				t.Fatalf("synced %d, durable %d; want 0 and 1", st.Synced, st.Durable)
			}
			var after ledger
			_, r := recoverStore(t, crashCopy(t, s), Options{}, &after)
			if after.seq != uint64(c.records) || (r.TailRecords > 0) == c.synced {
				t.Fatalf("after a crash: %s", r)
			}
		})
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	var l ledger
	s, _ := recoverStore(t, t.TempDir(), Options{}, &l)
	s.durable = func(uint64) {}
	s.setPhase(running) // without goroutines: this one is also the committer
	const runs = 1000
	call := appendCall(nil, 1, 1, 4, 60)
	for range 2 { // both buffers reach their size
		for range runs {
			s.Append(call, 4)
		}
		if err := s.turn(nil, true); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(runs/2, func() { s.Append(call, 4) }); n != 0 {
		t.Errorf("Append allocates %v times", n)
	}
	if err := s.turn(nil, true); err != nil {
		t.Fatal(err)
	}
}

func TestABurstIsNotRetained(t *testing.T) {
	var l ledger
	s, _ := recoverStore(t, t.TempDir(), Options{}, &l)
	s.durable = func(uint64) {}
	s.setPhase(running)
	call := appendCall(nil, 1, 1, 4, 1<<20)
	for range 2 * retainBytes / len(call) {
		s.Append(call, 4)
	}
	for range 2 {
		if err := s.turn(nil, true); err != nil {
			t.Fatal(err)
		}
	}
	if kept := cap(s.pending) + cap(s.batch) + cap(s.blocks); kept > retainBytes {
		t.Errorf("%d bytes are kept after a burst", kept)
	}
}

func TestAppendStopsOverMistakesOfOurs(t *testing.T) {
	var l ledger
	s, _ := startStore(t, t.TempDir(), Options{}, &l)
	for _, c := range []struct {
		name    string
		records []byte
		n       int
	}{
		{"no record", nil, 0},
		{"fewer than said", appendCall(nil, 1, 1, 1, 0), 2},
		{"more than said", appendCall(nil, 1, 1, 2, 0), 1},
		{"cut off", []byte{8, 0, 0, 0, 1}, 1},
		{"half a length", []byte{8, 0}, 1},
		{"larger than any record", []byte{1, 0, 0, 1}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("Append took it")
				}
			}()
			s.Append(c.records, c.n)
		})
	}
	if st := s.Stats(); st.Appended != 0 {
		t.Errorf("%d records were appended", st.Appended)
	}
}

func TestSecretIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	s, _ := recoverStore(t, dir, Options{}, &ledger{})
	tokens, err := s.Secret("tokens", 32)
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Secret("other", 32)
	if err != nil {
		t.Fatal(err)
	}
	if len(tokens) != 32 || bytes.Equal(tokens, other) || bytes.Equal(tokens, make([]byte, 32)) {
		t.Fatalf("secrets %x and %x", tokens, other)
	}
	mustClose(t, s)

	s, _ = recoverStore(t, dir, Options{}, &ledger{})
	again, err := s.Secret("tokens", 32)
	if err != nil || !bytes.Equal(again, tokens) {
		t.Fatalf("the secret became %x (%v), was %x", again, err, tokens)
	}
	if _, err := s.Secret("tokens", 16); err == nil {
		t.Error("a secret of 32 bytes was given as one of 16")
	}
}

func TestOpenRefuses(t *testing.T) {
	foreign := func(t *testing.T, dir string, fill func(tx *bolt.Tx) error) {
		db, err := bolt.Open(filepath.Join(dir, dbName), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(fill), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		o       Options
		want    string
	}{
		{"a directory that another server holds", func(t *testing.T, dir string) {
			startStore(t, dir, Options{}, &ledger{})
		}, Options{}, "another server holds this directory"},
		{"a bbolt file that is not ours", func(t *testing.T, dir string) {
			foreign(t, dir, func(tx *bolt.Tx) error {
				_, err := tx.CreateBucket([]byte("photos"))
				return err
			})
		}, Options{}, "not a store of ours"},
		{"a store of a later format", func(t *testing.T, dir string) {
			foreign(t, dir, func(tx *bolt.Tx) error {
				meta, err := tx.CreateBucket(bucketMeta)
				return errors.Join(err, meta.Put(keyFormat, []byte{0, 0, 0, 9}))
			})
		}, Options{}, "format 9"},
		{"a file that is no database", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, dbName), bytes.Repeat([]byte("x"), 1<<15), 0o600); err != nil {
				t.Fatal(err)
			}
		}, Options{}, "invalid database"},
		{"a negative interval", func(*testing.T, string) {}, Options{Interval: -1}, "negative"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.prepare(t, dir)
			_, err := Open(dir, c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to say %q", err, c.want)
			}
		})
	}
}

// lame is a follower that gives up.
type lame struct{ at uint64 }

func (l lame) Apply(seq uint64, _ []byte) error {
	if seq == l.at {
		return errors.New("lame")
	}
	return nil
}

func (l lame) Snapshot(io.Writer) error { return errors.New("lame pen") }

func TestAFollowerThatFailsIsFatal(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"at a record", Options{}, "apply record 3: lame"},
		{"at a snapshot", Options{SnapshotEvery: 2}, "snapshot at record 2: lame pen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fatal := make(chan error, 2)
			c.o.Fatal = func(err error) { fatal <- err }
			s, _ := recoverStore(t, t.TempDir(), c.o, &ledger{})
			a := newAcks()
			s.Start(lame{at: 3}, a.durable, nil)
			for count := range uint64(3) {
				s.Append(appendCall(nil, 1, count+1, 1, 0), 1)
				if count == 1 {
					a.waitFor(2)
				}
			}
			err := <-fatal
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("fatal: %v, want it to say %q", err, c.want)
			}
			was := s.Durable()
			s.Append(appendCall(nil, 1, 4, 1, 0), 1)
			if err := s.Close(); err == nil {
				t.Error("Close does not say that the store failed")
			}
			if s.Durable() != was || len(fatal) != 0 {
				t.Errorf("after the failure: durable went from %d to %d, fatal %d times more", was, s.Durable(), len(fatal))
			}
		})
	}
}
