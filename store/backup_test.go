package store

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// backUp copies the store into a new directory. turn is called with every piece that is written.
func backUp(t testing.TB, s *Store, turn func()) (dir string, last uint64) {
	t.Helper()
	dir = t.TempDir()
	last, err := s.Backup(func(name string, size int64) (io.Writer, error) {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		t.Cleanup(func() { f.Close() })
		return &sized{t: t, file: f, turn: turn, name: name, left: size}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir, last
}

// sized is a file of which the size was told.
type sized struct {
	t    testing.TB
	file *os.File
	turn func()
	name string
	left int64
}

func (w *sized) Write(p []byte) (int, error) {
	w.turn()
	if w.left -= int64(len(p)); w.left < 0 {
		w.t.Errorf("%s is larger than was told", w.name)
	}
	return w.file.Write(p)
}

// A backup is a whole store of one moment, whatever is appended, snapshotted and trimmed before, between and behind its files: all that was
// durable before is in it, and what its follower comes to is what the first copy came to.
func TestBackupWhileRunning(t *testing.T) {
	dir := t.TempDir()
	l := &ledger{padding: 3 * chunkBytes}
	s, a := startStore(t, dir, Options{SnapshotEvery: 20}, l)
	var mu sync.Mutex
	count := uint64(0)
	add := func() {
		mu.Lock()
		s.Append(appendCall(nil, 1, count+1, 5, 100), 5)
		count += 5
		mu.Unlock()
	}
	done, ended := make(chan struct{}), make(chan struct{})
	defer func() { close(done); <-ended }()
	go func() { // ends with done
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				add()
				a.waitFor(count - min(count, 50))
			}
		}
	}()
	for range 8 {
		a.waitFor(s.Durable() + 20)
		before := s.Durable()
		turns := 0
		copied, last := backUp(t, s, func() {
			if turns++; turns%3 == 0 { // the store goes on between any two pieces: snapshots and trims fall into the copy
				a.waitFor(s.Durable() + 60)
			}
		})
		if last < before {
			t.Errorf("the copy ends at record %d, %d were durable before", last, before)
		}
		report, err := Check(copied, func(uint64, []byte) error { return nil })
		if err != nil || report.LastSeq != last || turns < 3 {
			t.Fatalf("%+v, %v, in %d turns", report, err, turns)
		}
		twin := &ledger{padding: l.padding}
		restored, recovery := recoverStore(t, copied, Options{}, twin)
		if recovery.LastSeq != last || twin.seq != last || twin.counts[1] != last {
			t.Errorf("recovered %v, the copy's end is %d; %+v", recovery, last, twin)
		}
		mustClose(t, restored)
	}
	if st := s.Stats(); st.Backup == 0 || st.BackupAt == 0 || st.Snapshot < 60 {
		t.Errorf("%+v", st)
	}
}

// Who cannot write ends a backup, and nothing of it stays: the store closes.
func TestBackupThatFails(t *testing.T) {
	s, a := startStore(t, t.TempDir(), Options{}, &ledger{})
	s.Append(appendCall(nil, 1, 1, 5, 100), 5)
	a.waitFor(5)
	full := errors.New("no room")
	for _, name := range []string{viewsName, dbName} {
		_, err := s.Backup(func(now string, _ int64) (io.Writer, error) {
			if now == name {
				return nil, full
			}
			return io.Discard, nil
		})
		if !errors.Is(err, full) {
			t.Errorf("a backup that could not write %s: %v", name, err)
		}
	}
	if st := s.Stats(); st.Backup != 0 {
		t.Errorf("%+v", st)
	}
	mustClose(t, s)
	if _, err := s.Backup(func(string, int64) (io.Writer, error) { return io.Discard, nil }); err == nil {
		t.Error("a closed store was backed up")
	}
}
