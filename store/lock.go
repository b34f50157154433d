package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The lock of a directory is on a file of its own, beside those of bbolt: flock(2) holds it for as long as any descriptor of that opening
// is open, in whichever process. So a server can hand it to its successor, who opens the store after the first has closed it, and
// there is no moment in which a third one could come between. bbolt's own locks, which its Close gives up, cannot be handed over.
const lockName = "lock"

// lockWait is between two attempts: flock waits for ever or not at all.
const lockWait = 10 * time.Millisecond

// takeLock locks the directory, or takes the lock that was handed over.
func takeLock(dir string, handed *os.File) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	if handed != nil {
		return handed, errors.Join(isLock(handed, path), lockNow(handed))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	if err := lockSoon(f, dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// holdLock locks a directory for somebody who only reads. A copy that no server has opened has no lock, and nobody to lock out.
func holdLock(dir string) (release func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return func() error { return nil }, nil
	case err != nil:
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	if err := lockSoon(f, dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

func isLock(f *os.File, path string) error {
	handed, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at the lock that was handed over: %w", err)
	}
	if own, err := os.Stat(path); err != nil || !os.SameFile(handed, own) {
		return fmt.Errorf("the lock that was handed over is not that of %s", path)
	}
	return nil
}

// lockSoon waits for a server that is just stopping.
func lockSoon(f *os.File, dir string) error {
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(lockWait) {
		err := lockNow(f)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("open %s: another server holds this directory; stop it or choose another directory", dir)
		}
	}
}

func lockNow(f *os.File) error {
	raw, err := f.SyscallConn()
	if err == nil {
		failed := raw.Control(func(fd uintptr) { err = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
		err = errors.Join(failed, err)
	}
	return os.NewSyscallError("flock", err)
}

// Lock returns one more descriptor of the lock, the caller's: for as long as it is open, here or in a process that it was passed to, nobody
// else can open the directory, also after Close. See Options.Lock.
func (s *Store) Lock() (*os.File, error) {
	raw, err := s.lock.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("pass the lock on: %w", err)
	}
	var again int
	failed := raw.Control(func(fd uintptr) { again, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(failed, err); err != nil {
		return nil, fmt.Errorf("pass the lock on: %w", err)
	}
	return os.NewFile(uintptr(again), lockName), nil
}
