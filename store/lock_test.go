package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A store that is handed over is never free for a third one, neither while the first has it nor between the two.
func TestLockIsHandedOver(t *testing.T) {
	dir := t.TempDir()
	held := func(when string) {
		t.Helper()
		if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "another server holds this directory") {
			t.Errorf("%s: a third one opens it: %v", when, err)
		}
		if _, err := Check(dir, func(uint64, []byte) error { return nil }); err == nil || !strings.Contains(err.Error(), "another server") {
			t.Errorf("%s: a third one checks it: %v", when, err)
		}
	}
	open := func(lock *os.File) *Store {
		t.Helper()
		s, err := Open(dir, Options{Lock: lock})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recover(nil, nil); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := open(nil)
	lock, err := first.Lock()
	if err != nil {
		t.Fatal(err)
	}
	held("the first has it")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	held("the first has closed it")
	second := open(lock)
	held("the second has it")
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := open(nil).Close(); err != nil {
		t.Error(err)
	}

	other, err := os.OpenFile(filepath.Join(t.TempDir(), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := Open(dir, Options{Lock: other}); err == nil || !strings.Contains(err.Error(), "is not that of") {
		t.Errorf("the lock of another directory is taken: %v", err)
	}
}
