// Package store is bytes kept safely: a journal of opaque records with group
// commit, snapshots and recovery.
//
// The server runs one Store in its one process; nothing else may open the
// directory meanwhile. A Store never looks into a record, never changes its
// order, and never calls it durable while a crash could still lose it. bbolt
// stays inside: no type of it is seen from here.
//
// One record's way, and the goroutine that walks each part of it:
//
//	 callers of Append          committer              follower
//	───────────────────      ──────────────      ────────────────────
//	records ─▶ pending ─swap▶ blocks ─fsync▶ store.db ─read▶ Apply
//	            (mutex)         │   ▲                          │
//	                  durable ◀─╯   ╰──── chunks, trims ──── Snapshot
//
// Read block.go for how records lie in the file, commit.go for the way in,
// follow.go and snapshot.go for what keeps the file small, recover.go for the
// way back, tail.go for the mode that does not wait for the disk, views.go for
// what is kept of the past, backup.go for copies taken meanwhile.
package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Options say when a record counts as durable, and when a snapshot is due.
// They are checked by Open and do not change afterwards.
type Options struct {
	// Interval 0: durable means fsynced. Above 0: durable means written to the
	// kernel, and fsynced at least this often; a killed process loses nothing,
	// a power cut loses up to Interval and corrupts nothing.
	Interval time.Duration

	SnapshotEvery uint64 // records between snapshots; 0 means 1<<20, which replay in about a second
	SnapshotBytes uint64 // or journal bytes between them, whichever comes first; 0 means 256 MiB

	// ForgetHistory starts though the views do not reach as far as the snapshot: the history between is lost.
	ForgetHistory bool

	// Lock is the directory's lock, from Store.Lock of the process that has closed it for us; it is the store's from now on. Nil means
	// that Open takes it.
	Lock *os.File

	Log *slog.Logger // nil means slog.Default()

	// Committed is called after each transaction, on the committer goroutine: how long it took, its sync included, and how many
	// records were in it. Nil means nobody wants to know.
	Committed func(took time.Duration, records uint64)

	// Snapshotted is called after each snapshot, on the follower's goroutine: the record at which it stands, its size, and when it was begun,
	// after which what it covers was trimmed too. Nil means nobody wants to know.
	Snapshotted func(seq, bytes uint64, began time.Time)

	// Fatal is called once, on the committer goroutine, when a write or a sync
	// or the follower failed: memory is now ahead of the disk, and nothing is
	// acknowledged any more. It must not call Close. Nil means log and panic.
	Fatal func(error)
}

// Store is an open directory. Its life: Open, Recover, Start, Append…, Close.
type Store struct {
	dir  string
	opts Options
	db   *bolt.DB
	lock *os.File // of the directory

	views *Views // Put is the follower's, reading is everybody's

	// Owner: any goroutine, under mu.
	mu       sync.Mutex
	phase    phase
	pending  []byte // n × [u32 LE length][payload], not yet taken by the committer
	appended uint64 // sequence number of the last record ever appended

	// Owner: the committer (before Start: Recover).
	batch   []byte // taken and not yet in bbolt, same layout as pending; empty between turns but in interval mode
	taken   uint64 // sequence number of the last record in batch; synced and durable <= taken <= appended
	blocks  []byte // the batch encoded; bbolt reads it until the transaction ends
	tail    *tail  // nil when durable means fsynced
	durable func(seq uint64)
	failure error // set before dead is closed, read after

	// Hand-overs. A channel of struct{} is a wake-up and has room for one.
	wake      chan struct{} // Append to committer: pending is no longer empty
	errands   chan errand   // follower to committer, which owns what is sent; closed by the follower when it ends
	committed chan struct{} // committer to follower: there is more to read
	closing   chan struct{} // closed by Close: no Append follows
	dead      chan struct{} // closed by the committer when it failed

	committerDone, followerDone chan struct{} // nil before Start
	closeOnce                   sync.Once
	closeErr                    error

	counters counters
}

// phase is where in its life a Store stands.
type phase int

const (
	opened phase = iota
	recovered
	running
	closed
	failed // Append still counts and keeps nothing: nobody will take it
)

// The files and buckets of a store directory.
const (
	dbName   = "store.db"
	tailName = "tail.log"
)

var (
	bucketMeta      = []byte("meta")
	bucketJournal   = []byte("journal")   // first sequence number, u64 BE -> block
	bucketSnapshots = []byte("snapshots") // sequence number, u64 BE | chunk number, u32 BE -> chunk
	bucketSecrets   = []byte("secrets")   // name -> random bytes

	keyFormat   = []byte("format")   // in meta: u32 BE, FormatVersion
	keySnapshot = []byte("snapshot") // in meta: mark of the current snapshot
)

// FormatVersion is the format of a store's files: a server reads its own and no other.
const FormatVersion = 1

const (
	// A server that is just stopping gives the lock up within its last
	// snapshot; a person at a terminal should not wait much longer than this.
	lockTimeout = time.Second

	// Growing past the mapping makes bbolt remap, which waits for every reader
	// and makes every reader wait. Addresses cost nothing until touched on the
	// 64-bit hosts we are for, so map more than a trimmed journal ever needs.
	mmapBytes = 16 << 30

	// Past this, reading the file ahead costs more time than it saves.
	preReadMax = 4 << 30

	snapshotEveryDefault = 1 << 20
	snapshotBytesDefault = 256 << 20
)

// Open opens the store in dir and makes it if there is none. It fails when
// another process holds the directory or the file is not one of ours.
func Open(dir string, o Options) (*Store, error) {
	if o.Interval < 0 {
		return nil, fmt.Errorf("open store: interval %s is negative", o.Interval)
	}
	if o.SnapshotEvery == 0 {
		o.SnapshotEvery = snapshotEveryDefault
	}
	if o.SnapshotBytes == 0 {
		o.SnapshotBytes = snapshotBytesDefault
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) {
			o.Log.Error("store failed; memory is ahead of the disk", "error", err)
			panic(err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store directory: %w", err)
	}
	lock, err := takeLock(dir, o.Lock)
	if err != nil {
		return nil, err
	}
	s, err := open(dir, o)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.lock = lock
	return s, nil
}

// open opens what the lock is for.
func open(dir string, o Options) (*Store, error) {
	path := filepath.Join(dir, dbName)
	preRead(path)
	db, err := openDB(path)
	if err != nil {
		return nil, err
	}
	s := &Store{
		dir:       dir,
		opts:      o,
		db:        db,
		wake:      make(chan struct{}, 1),
		errands:   make(chan errand, errandsMax),
		committed: make(chan struct{}, 1),
		closing:   make(chan struct{}),
		dead:      make(chan struct{}),
	}
	if err := s.prepare(); err != nil {
		db.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if s.views, err = openViews(dir, false); err != nil {
		db.Close()
		return nil, err
	}
	s.views.log = o.Log
	return s, nil
}

// preRead reads the file from front to back, for nothing but to have it in the
// page cache. bbolt maps it with MADV_RANDOM, so that a cold start would fault
// in single pages: 6 s instead of 1 s for 900 MiB. Errors are for Open to find.
func preRead(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for n, total := 0, 0; err == nil && total < preReadMax; total += n {
		n, err = f.Read(buf)
	}
}

// openDB opens bbolt for reading and writing. Damage to its pages, over which it
// panics while it opens, is an error.
func openDB(path string) (db *bolt.DB, err error) {
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		db, err := openBolt(path, true)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(db.View(walkTree), db.Close()); err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
	}
	defer func() { // for what walkTree does not see: two ways to one page
		if p := recover(); p != nil {
			err = fmt.Errorf("open %s: %w", path, damaged("pages: %v", p))
		}
	}()
	return openBolt(path, false)
}

// openBolt opens bbolt the way that measured best: free pages are found by
// walking the tree at open instead of being written with each commit (0.2 ms
// against 4.7 ms per commit once a journal was trimmed).
func openBolt(path string, readOnly bool) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:         lockTimeout,
		ReadOnly:        readOnly,
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mmapBytes,
		NoStatistics:    true,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: another server holds this directory; stop it or choose another directory", path)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

// walkTree visits every page of the tree, but not the values: 10 ms for 10
// million records. bbolt does the same on a goroutine of its own, whose panic
// over a damaged page nobody could turn into an error.
func walkTree(tx *bolt.Tx) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a wild page number points outside the file
	defer func() {
		if p := recover(); p != nil {
			err = damaged("pages: %v", p)
		}
	}()
	return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
		return b.ForEach(func(_, _ []byte) error { return nil })
	})
}

// prepare makes the buckets of a new file and refuses a file of another format.
func (s *Store) prepare() error {
	isNew := false
	err := s.db.View(func(tx *bolt.Tx) error {
		if k, _ := tx.Cursor().First(); k == nil {
			isNew = true
			return nil
		}
		return checkFormat(tx)
	})
	if err != nil || !isNew {
		return err
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketJournal, bucketSnapshots, bucketSecrets} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keyFormat, binary.BigEndian.AppendUint32(nil, FormatVersion))
	})
	if err != nil {
		return fmt.Errorf("make buckets: %w", err)
	}
	// bbolt syncs the file, not the directory that leads to it: a power cut
	// could leave all our commits in a file without a name.
	for _, dir := range []string{s.dir, filepath.Dir(filepath.Clean(s.dir))} {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func checkFormat(tx *bolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil || len(meta.Get(keyFormat)) != 4 {
		return errors.New("this is not a store of ours")
	}
	if v := binary.BigEndian.Uint32(meta.Get(keyFormat)); v != FormatVersion {
		return fmt.Errorf("the store has format %d; this server reads format %d", v, FormatVersion)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// Secret returns the n random bytes kept under name, which it makes and syncs
// at first use. Call it between Open and Start.
func (s *Store) Secret(name string, n int) ([]byte, error) {
	s.assertPhase(opened, recovered)
	var secret []byte
	err := s.db.Update(func(tx *bolt.Tx) error {
		secrets := tx.Bucket(bucketSecrets)
		if kept := secrets.Get([]byte(name)); kept != nil {
			secret = append(secret, kept...)
			return nil
		}
		secret = make([]byte, n)
		rand.Read(secret)
		return secrets.Put([]byte(name), secret)
	})
	if err != nil {
		return nil, fmt.Errorf("keep secret %q: %w", name, err)
	}
	if len(secret) != n {
		return nil, fmt.Errorf("secret %q has %d bytes, %d wanted", name, len(secret), n)
	}
	return secret, nil
}

// A Follower is a second copy of the state, kept by the code that recovery
// uses, from which snapshots are taken while the first copy goes on. The store
// calls it from one goroutine. Its errors are fatal: a record that the follower
// cannot apply is one that the next start could not apply either.
type Follower interface {
	// Apply gets every record appended after Start, in order, exactly once, when
	// it is synced. The record is bbolt's memory: do not write to it or keep it.
	Apply(seq uint64, record []byte) error

	// Snapshot writes the state as of the last applied record. w keeps nothing
	// of what it is given, and slows the writer down to the disk's pace.
	Snapshot(w io.Writer) error
}

// Start starts the committer and the follower; both end in Close, or when a
// write fails. f must hold the state that Recover delivered. durable is called
// on the committer goroutine after every commit, with the sequence number up
// to which records are durable; every commit waits for it to return. viewed is
// called on the follower's, with the one up to which the views are complete.
func (s *Store) Start(f Follower, durable, viewed func(seq uint64)) {
	s.assertPhase(recovered)
	s.durable, s.views.viewed = durable, viewed
	s.committerDone = make(chan struct{})
	s.followerDone = make(chan struct{})
	s.setPhase(running)
	go s.runCommitter()
	go s.runFollower(f)
}

// Views are what the follower's copy has told of the past.
func (s *Store) Views() *Views { return s.views }

// Durable returns the sequence number up to which records are durable, in the
// sense of Options.Interval. It only grows.
func (s *Store) Durable() uint64 { return s.counters.durable.Load() }

// Close commits what is pending, lets the follower catch up, takes a last
// snapshot if there is anything new to put in it, and closes the files. Append
// must not be called any more. Later calls return what the first returned: nil,
// or the failure that Fatal was told of.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		if s.phase != failed {
			s.phase = closed
		}
		s.mu.Unlock()
		close(s.closing)
		if s.committerDone != nil {
			<-s.followerDone
			<-s.committerDone
		}
		s.closeErr = s.failure
		if s.tail != nil {
			s.closeErr = errors.Join(s.closeErr, s.tail.file.Close())
		}
		if err := s.db.Close(); err != nil {
			s.closeErr = errors.Join(s.closeErr, fmt.Errorf("close %s: %w", dbName, err))
		}
		if err := s.views.db.Close(); err != nil {
			s.closeErr = errors.Join(s.closeErr, fmt.Errorf("close %s: %w", viewsName, err))
		}
		if err := s.lock.Close(); err != nil {
			s.closeErr = errors.Join(s.closeErr, fmt.Errorf("close %s: %w", lockName, err))
		}
	})
	return s.closeErr
}

// counters have one writer each: the committer, or the follower where said.
type counters struct {
	durable, synced atomic.Uint64 // sequence numbers; synced is what bbolt has
	applied         atomic.Uint64 // the follower's
	snapshot        atomic.Uint64 // sequence number of the current snapshot; the follower's

	commits, records       atomic.Uint64
	journal                atomic.Int64 // bytes of blocks not yet trimmed
	lastCommit, allCommits atomic.Int64 // nanoseconds

	backup   atomic.Uint64 // last record of the last backup; whoever took it
	backupAt atomic.Int64  // when that was done, µs since 1970
}

// Stats are counters by value, each right at some moment of the call. Counts
// and durations are since Open, sequence numbers since ever.
type Stats struct {
	Appended uint64 // last sequence number handed out
	Durable  uint64 // last one acknowledged
	Synced   uint64 // last one in bbolt; below Durable only in interval mode
	Applied  uint64 // last one the follower has applied
	Viewed   uint64 // the one up to which the views are complete
	Snapshot uint64 // the one the current snapshot stands at; 0 if there is none

	Commits      uint64 // bbolt transactions, those of snapshots and trims included
	Records      uint64 // records in them
	PendingBytes uint64 // appended, and not yet taken by the committer
	JournalBytes uint64 // in the journal, and not yet trimmed
	FileBytes    uint64 // size of store.db, free pages included; it never shrinks
	ViewPairs    uint64 // put into the views
	ViewBytes    uint64 // size of views.db

	CommitLast, CommitMean time.Duration // of the transactions, syncs included

	Backup   uint64 // last record of the last backup since Open; 0: none
	BackupAt int64  // when it was done, µs since 1970
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	st := Stats{Appended: s.appended, PendingBytes: uint64(len(s.pending))}
	s.mu.Unlock()
	c := &s.counters
	st.Durable = c.durable.Load()
	st.Synced = c.synced.Load()
	st.Applied = c.applied.Load()
	st.Snapshot = c.snapshot.Load()
	st.Backup, st.BackupAt = c.backup.Load(), c.backupAt.Load()
	st.Commits = c.commits.Load()
	st.Records = c.records.Load()
	st.JournalBytes = uint64(c.journal.Load())
	st.CommitLast = time.Duration(c.lastCommit.Load())
	if st.Commits > 0 {
		st.CommitMean = time.Duration(uint64(c.allCommits.Load()) / st.Commits)
	}
	if info, err := os.Stat(filepath.Join(s.dir, dbName)); err == nil {
		st.FileBytes = uint64(info.Size())
	}
	st.Viewed, st.ViewPairs = s.views.reached.Load(), s.views.pairs.Load()
	if info, err := os.Stat(filepath.Join(s.dir, viewsName)); err == nil {
		st.ViewBytes = uint64(info.Size())
	}
	return st
}

// lastAppended returns the last sequence number handed out.
func (s *Store) lastAppended() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.appended
}

func (s *Store) setPhase(p phase) {
	s.mu.Lock()
	s.phase = p
	s.mu.Unlock()
}

func (s *Store) assertPhase(allowed ...phase) {
	s.mu.Lock()
	p := s.phase
	s.mu.Unlock()
	for _, a := range allowed {
		if p == a {
			return
		}
	}
	assert(false, "store: called out of order: Open, Secret, Recover, Start, Append, Close")
}

// damaged is the error for bytes that are not what we wrote. It says what to do
// because the person who reads it has a server that does not start.
func damaged(format string, args ...any) error {
	return fmt.Errorf(format+"; the store is damaged: keep a copy of the directory and restore it from a backup", args...)
}

// assert stops the process over our own mistakes.
func assert(ok bool, text string) {
	if !ok {
		panic(text)
	}
}
