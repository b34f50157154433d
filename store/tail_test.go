package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tailImage returns a crashed store whose bbolt ends at record synced and whose
// tail has the calls after it, with the length of the tail after each.
func tailImage(t *testing.T, synced, calls, n int) (image string, lengths []int) {
	t.Helper()
	dir := t.TempDir()
	var l ledger
	if synced > 0 {
		s, _ := startStore(t, dir, Options{}, &l)
		s.Append(appendCall(nil, 1, 1, synced, 0), synced)
		mustClose(t, s)
	}
	s, a := startStore(t, dir, Options{Interval: time.Hour}, &l)
	for call := range calls {
		count := synced + call*n
		s.Append(appendCall(nil, 1, uint64(count+1), n, 2), n)
		a.waitFor(uint64(count + n))
		info, err := os.Stat(filepath.Join(dir, tailName))
		if err != nil {
			t.Fatal(err)
		}
		lengths = append(lengths, int(info.Size()))
	}
	return crashCopy(t, s), lengths
}

func setTail(t *testing.T, dir string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, tailName), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Wherever a write to the tail was cut, the calls before it are recovered, the
// torn one is ignored as a whole and said so, and the store goes on after them.
func TestTheTailTornAtEveryByte(t *testing.T) {
	t.Parallel()
	const synced, calls, n = 2, 3, 2
	image, lengths := tailImage(t, synced, calls, n)
	whole, err := os.ReadFile(filepath.Join(image, tailName))
	if err != nil {
		t.Fatal(err)
	}
	journal, err := os.ReadFile(filepath.Join(image, dbName))
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) + 1 {
		complete, size := 0, 0
		for _, length := range lengths {
			if length <= cut {
				complete, size = complete+1, length
			}
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, dbName), journal, 0o600); err != nil {
			t.Fatal(err)
		}
		viewTo(t, image, dir, synced)
		setTail(t, dir, whole[:cut])
		var l ledger
		s, r := recoverStore(t, dir, Options{Interval: time.Hour}, &l)
		if r.TailRecords != uint64(complete*n) || r.TailTorn != cut-size || l.seq != uint64(synced+complete*n) {
			t.Fatalf("cut at %d of %d, after %d calls: %s", cut, len(whole), complete, r)
		}
		if info, err := os.Stat(filepath.Join(dir, tailName)); err != nil || info.Size() != 0 {
			t.Fatalf("cut at %d: Recover left something in the tail (%v)", cut, err)
		}
		s.Start(&l, func(uint64) {}, nil)
		if first := s.Append(appendCall(nil, 1, l.seq+1, 1, 0), 1); first != uint64(synced+complete*n+1) {
			t.Fatalf("cut at %d: the store goes on at %d", cut, first)
		}
		mustClose(t, s)
	}
}

func TestWhatTheTailHoldsAtRecovery(t *testing.T) {
	const synced, calls, n = 3, 3, 2
	image, lengths := tailImage(t, synced, calls, n)
	whole, err := os.ReadFile(filepath.Join(image, tailName))
	if err != nil {
		t.Fatal(err)
	}
	first, second, third := whole[:lengths[0]], whole[lengths[0]:lengths[1]], whole[lengths[1]:]
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	flipped := join(whole)
	flipped[lengths[1]-1] ^= 1
	for _, c := range []struct {
		name    string
		tail    []byte
		records uint64
		torn    int
		refused string
	}{
		{"nothing", nil, 0, 0, ""},
		{"three calls", whole, 6, 0, ""},
		{"calls that bbolt has, before the new ones", join(pack(1, "a", "b"), pack(3, "c"), first), 2, 0, ""},
		{"only calls that bbolt has", pack(1, "a", "b", "c"), 0, 0, ""},
		{"a damaged call hides what follows it", flipped, 2, len(second) + len(third), ""},
		{"zeros, as after a power cut", join(first, make([]byte, 500)), 2, 500, ""},
		{"a gap", join(first, third), 0, 0, "goes on at record 8 but store.db ends at 5"},
		{"the tail of another moment", second, 0, 0, "goes on at record 6 but store.db ends at 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := copyFile(filepath.Join(image, dbName), filepath.Join(dir, dbName), 1<<30); err != nil {
				t.Fatal(err)
			}
			viewTo(t, image, dir, synced)
			setTail(t, dir, c.tail)
			if c.refused != "" {
				s, err := Open(dir, quiet(t, Options{}))
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				_, err = s.Recover(new(ledger).load, new(ledger).Apply)
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("got %v, want it to say %q", err, c.refused)
				}
				return
			}
			report, err := Check(dir, func(uint64, []byte) error { return nil })
			if err != nil || report.TailRecords != c.records || report.TailTorn != c.torn {
				t.Errorf("Check: %+v, %v", report, err)
			}
			var l ledger
			s, r := recoverStore(t, dir, Options{}, &l)
			if r.TailRecords != c.records || r.TailTorn != c.torn || l.seq != synced+c.records {
				t.Errorf("recovered %s", r)
			}
			mustClose(t, s)
			if _, err := os.Stat(filepath.Join(dir, tailName)); err == nil {
				t.Error("a store that syncs each record still has a tail")
			}
		})
	}
}
