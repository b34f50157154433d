package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// teller is a ledger that tells of each record, and of each tenth in a second bucket.
type teller struct {
	ledger
	views *Views
}

func (t *teller) Apply(seq uint64, record []byte) error {
	if err := t.ledger.Apply(seq, record); err != nil {
		return err
	}
	t.views.Put(1, journalKey(seq), record)
	if seq%10 == 0 {
		t.views.Put(2, fmt.Appendf(nil, "%d/%d", seq%3, seq), journalKey(seq))
	}
	return nil
}

// startTeller opens dir and lets a teller follow its journal.
func startTeller(t testing.TB, dir string, o Options, viewed func(uint64)) (*Store, *teller, *acks) {
	t.Helper()
	s, err := Open(dir, quiet(t, o))
	if err != nil {
		t.Fatal(err)
	}
	checkAtEnd(t, dir)
	t.Cleanup(func() { s.Close() })
	l := &teller{views: s.Views()}
	if _, err := s.Recover(l.load, l.Apply); err != nil {
		t.Fatal(err)
	}
	a := newAcks()
	s.Start(l, a.durable, viewed)
	return s, l, a
}

// tells fails where the views do not tell of exactly the records up to seq.
func (t *teller) tells(tb testing.TB, seq uint64, records map[uint64][]byte) {
	tb.Helper()
	if got := t.views.Reached(); got != seq {
		tb.Errorf("the views reach record %d, want %d", got, seq)
	}
	last := seq + 1
	err := t.views.Range(1, nil, nil, func(key, value []byte) bool {
		last--
		if keySeq(key) != last || !bytes.Equal(value, records[last]) {
			tb.Errorf("under %d stands %q, want record %d, %q", keySeq(key), value, last, records[last])
		}
		return true
	})
	if err != nil || last != 1 {
		tb.Errorf("the views tell of the records from %d on, %v", last, err)
	}
}

// Stopped at any commit, with snapshots on the way, the views tell after recovery what they told before, and the rest, once.
func TestViewsSurviveACrash(t *testing.T) {
	const calls, n = 60, 4
	records := map[uint64][]byte{}
	dir := t.TempDir()
	o := Options{SnapshotEvery: 50}
	s, live, a := startTeller(t, dir, o, nil)
	var lagging int
	for call := range calls {
		b := appendCall(nil, 2, uint64(call*n+1), n, 30)
		first := s.Append(b, n)
		for seq := first; len(b) > 0; seq++ {
			records[seq], b = nextRecord(b)
		}
		a.waitFor(first + n - 1)
		if call%7 != 3 {
			continue
		}
		image := crashCopy(t, s)
		report, err := Check(image, func(uint64, []byte) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if report.Viewed < report.LastSeq {
			lagging++
		}
		again, after, _ := startTeller(t, image, o, nil)
		after.tells(t, first+n-1, records)
		mustClose(t, again)
	}
	if lagging == 0 {
		t.Error("the views never lagged behind: nothing was told again")
	}
	mustClose(t, s)
	if live.seq != calls*n {
		t.Fatalf("followed to %d", live.seq)
	}
	last, l, _ := startTeller(t, dir, o, nil)
	l.tells(t, calls*n, records)
	mustClose(t, last)
}

// Whoever waits for a record is told when the views have it, whether or not it told of anything.
func TestViewsSayHowFarTheyReach(t *testing.T) {
	viewed := make(chan uint64, 1000)
	s, _, _ := startTeller(t, t.TempDir(), Options{}, func(seq uint64) { viewed <- seq })
	for call := range uint64(5) {
		first := s.Append(appendCall(nil, 1, call*3+1, 3, 5), 3)
		for reached := uint64(0); reached < first+2; {
			was := reached
			if reached = <-viewed; reached <= was || reached > first+2 {
				t.Fatalf("reached %d after %d, appended %d", reached, was, first+2)
			}
			value := []byte(nil)
			if err := s.Views().Read(1, journalKey(reached), func(v []byte) []byte { value = bytes.Clone(v); return nil }); err != nil || value == nil {
				t.Fatalf("record %d is reached and not told of (%v)", reached, err)
			}
		}
	}
	mustClose(t, s)
}

// Range and Read against their naive twins, over keys that are prefixes of one another.
func TestViewsAreReadAsTheyStand(t *testing.T) {
	s, l, a := startTeller(t, t.TempDir(), Options{}, nil)
	const n = 200
	s.Append(appendCall(nil, 1, 1, n, 5), n)
	a.waitFor(n)
	defer mustClose(t, s)
	for l.views.Reached() < n {
		time.Sleep(time.Millisecond)
	}
	want := map[string]bool{}
	for seq := uint64(10); seq <= n; seq += 10 {
		want[fmt.Sprintf("%d/%d", seq%3, seq)] = true
	}
	keys := slices.Sorted(maps.Keys(want))
	slices.Reverse(keys)
	befores := [][]byte{nil, {}, []byte("0/"), []byte("1/"), []byte("1/100"), []byte("1/1000"), []byte("2/80"), []byte("2/99"), []byte("9"), {0xff}}
	for _, prefix := range []string{"", "0/", "1/", "1/1", "2/20", "3", "\xff", "\xff\xff"} {
		for _, before := range befores {
			var naive, got []string
			for _, key := range keys {
				if strings.HasPrefix(key, prefix) && (before == nil || key < string(before)) {
					naive = append(naive, key)
				}
			}
			if err := l.views.Range(2, []byte(prefix), before, func(k, _ []byte) bool {
				got = append(got, string(k))
				return true
			}); err != nil || !slices.Equal(got, naive) {
				t.Errorf("prefix %q before %q: %q, %v; want %q", prefix, before, got, err, naive)
			}
		}
	}
	var chain []uint64
	err := l.views.Read(1, journalKey(n), func(v []byte) []byte {
		chain = append(chain, uint64(len(chain)))
		return journalKey(uint64(n - 7*len(chain)))
	})
	if err != nil || len(chain) != n/7+1 { // 200, 193, … 4; -3 is nothing
		t.Errorf("%d links, %v", len(chain), err)
	}
	if err := l.views.Range(77, nil, nil, func(_, _ []byte) bool { t.Error("a pair in an empty bucket"); return false }); err != nil {
		t.Error(err)
	}
}

// What is wrong with the views is said, with what to do; and with ForgetHistory the store goes on.
func TestWrongViews(t *testing.T) {
	prepare := func(t *testing.T, n int) string {
		dir := t.TempDir()
		s, _, a := startTeller(t, dir, Options{}, nil)
		s.Append(appendCall(nil, 1, 1, n, 5), n)
		a.waitFor(uint64(n))
		mustClose(t, s)
		return dir
	}
	for _, c := range []struct {
		name, want string
		damage     func(t *testing.T, path string)
		forget     bool
	}{
		{"gone", "it is not there", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"of another store", "beside another store", func(t *testing.T, path string) {
			if err := copyFile(filepath.Join(prepare(t, 20), viewsName), path, 1<<30); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"of another moment", "it ends at record 5, the snapshot stands at 20", func(t *testing.T, path string) {
			viewTo(t, filepath.Dir(path), filepath.Dir(path), 5)
		}, true},
		{"of a time to come", "it tells of record 25, the journal ends at 20", func(t *testing.T, path string) {
			viewTo(t, filepath.Dir(path), filepath.Dir(path), 25)
		}, false},
		{"no file of bbolt's", "open it", func(t *testing.T, path string) {
			if err := os.WriteFile(path, bytes.Repeat([]byte("junk"), 5000), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"without a position", "it has no position", change(func(tx *bolt.Tx) error {
			return tx.Bucket(viewMeta).Delete(keyPosition)
		}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := prepare(t, 20)
			c.damage(t, filepath.Join(dir, viewsName))
			for _, forget := range []bool{false, true} {
				if forget && !c.forget { // as advised
					if err := os.Rename(filepath.Join(dir, viewsName), filepath.Join(dir, "away")); err != nil {
						t.Fatal(err)
					}
				}
				s, err := Open(dir, quiet(t, Options{ForgetHistory: forget}))
				if err == nil {
					_, err = s.Recover(new(ledger).load, new(ledger).Apply)
					if err == nil && s.Views().Reached() != 20 {
						t.Errorf("the views reach record %d", s.Views().Reached())
					}
					err = errors.Join(err, s.Close())
				}
				if forget {
					if err != nil {
						t.Error(err)
					}
				} else if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "--forget-history") {
					t.Errorf("%v\nwant it to say %q", err, c.want)
				}
			}
		})
	}
}

// BenchmarkViews measures what telling of the past adds to applying a record: recovery of a journal, with a
// copy that tells nothing, one pair of 8 and 45 bytes per record, or the same spread over the keys of 100,000 accounts, which is what
// a chain per account in the entries saves. An operation is one record.
func BenchmarkViews(b *testing.B) {
	const records, batch = 1 << 19, 4096
	dir := b.TempDir()
	s, _, c := openBench(b, dir, Options{SnapshotEvery: 2 * records})
	a := newAcks()
	s.Start(c, a.durable, nil)
	call := appendCall(nil, 1, 1, batch, benchRecord-recordHead)
	for range records / batch {
		a.waitFor(s.Append(call, batch) + batch - 1)
	}
	image := crashCopy(b, s)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 45)
	for _, row := range []struct {
		name string
		key  func(seq uint64) []byte
	}{
		{"none", nil},
		{"in order", journalKey},
		{"by account", func(seq uint64) []byte { return append(journalKey(seq*2654435761%100_000), journalKey(seq)...) }},
	} {
		b.Run(row.name, func(b *testing.B) {
			var took time.Duration
			var bytes uint64
			rounds := max(1, b.N/records)
			for range rounds {
				b.StopTimer()
				into := b.TempDir()
				for _, name := range []string{dbName, viewsName} {
					if err := copyFile(filepath.Join(image, name), filepath.Join(into, name), 1<<40); err != nil {
						b.Fatal(err)
					}
				}
				s, err := Open(into, quiet(b, Options{}))
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				r, err := s.Recover(func(io.Reader) error { return nil }, func(seq uint64, _ []byte) error {
					if row.key != nil {
						s.Views().Put(1, row.key(seq), value)
					}
					return nil
				})
				b.StopTimer()
				if err != nil || r.Replayed != records {
					b.Fatal(r, err)
				}
				took += r.ReplayTime
				bytes = s.Stats().ViewBytes
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(rounds*records), "ns/record")
			b.ReportMetric(float64(bytes)/records, "B/record")
		})
	}
}
