package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Views are what the follower's copy tells of the past while it applies records: pairs of bytes in numbered
// buckets, in a file of their own beside the journal. They are never trimmed, and whoever reads them holds up
// neither the committer nor the follower.
//
//	record ─▶ Follower.Apply ─Put▶ pending ─commit▶ views.db ─▶ Read, Range
//	                                        with the position: all records up to it are in
//
// The file lags behind the journal, never the other way: only records that are synced are applied, and a
// snapshot is taken only when all that it covers is in the views. So after a crash, Recover
// applies from the snapshot on, and what it Puts for records after the position is what the file lacks.
//
// Every commit is synced. Without, a power cut could tear the file, and what lies before the last
// snapshot cannot be told again. So that syncs do not compete with the journal's, the first commit after a quiet time is
// made at once, and later ones at most once per viewsEvery.
//
// Owner of every field but db, log and reached: whoever applies records, Recover or the follower.
type Views struct {
	db  *bolt.DB
	log *slog.Logger

	pending []byte // told and not committed: bucket u8 │ key length u8 │ value length u32 │ key │ value
	told    int    // pairs in pending
	applied uint64 // last record whose Puts are in pending or in the file
	skip    bool   // of the record in hand, the file has all
	last    time.Time
	viewed  func(seq uint64) // told of reached; nil: not started

	reached  atomic.Uint64 // all pairs of records up to here can be read
	position uint64        // what the file says
	pairs    atomic.Uint64 // put since Open
}

const (
	viewsName = "views.db"

	// Twice as long as a player may notice, and no more than ten syncs a second beside the journal's.
	viewsEvery = 100 * time.Millisecond

	// Pairs of a settlement among a million: more are not kept in memory for viewsEvery.
	viewsPending = 4 << 20

	pairHead = 6
)

var (
	viewMeta    = []byte("meta")
	keyPosition = []byte("position") // u64 BE
	keyStore    = []byte("store")    // whose views these are: the same bytes as among the store's secrets
)

// openViews opens the file and makes it if there is none. Free pages are few, since most keys only grow, so they
// are written with each commit: finding them again would read a file that grows for ever.
func openViews(dir string, readOnly bool) (v *Views, err error) {
	path := filepath.Join(dir, viewsName)
	defer func() {
		if p := recover(); p != nil {
			v, err = nil, viewsDamaged("%v", p)
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: lockTimeout, ReadOnly: readOnly, FreelistType: bolt.FreelistMapType, InitialMmapSize: mmapBytes, NoStatistics: true,
	})
	if err != nil {
		return nil, viewsDamaged("open it: %v", err)
	}
	v = &Views{db: db, log: slog.Default()}
	err = db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(viewMeta)
		if meta == nil {
			return nil // new
		}
		if format := meta.Get(keyFormat); len(format) != 4 || binary.BigEndian.Uint32(format) != FormatVersion {
			return errors.New(viewsName + " is of another version of the server")
		}
		at := meta.Get(keyPosition)
		if len(at) != 8 {
			return viewsDamaged("it has no position")
		}
		v.position = binary.BigEndian.Uint64(at)
		return nil
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	v.applied = v.position
	v.reached.Store(v.position)
	return v, nil
}

// viewsDamaged says what can be done: the journal before its last snapshot is gone, and with it the past.
func viewsDamaged(format string, args ...any) error {
	return fmt.Errorf(viewsName+" is damaged or not of this store ("+format+"): the history of before the last snapshot is nowhere else; "+
		"restore the directory from a backup, or move "+viewsName+" away and start once with --forget-history", args...)
}

// belong sees to it that the views are this store's, and reach as far as its snapshot.
func (v *Views) belong(identity []byte, snapshot, end uint64, forget bool) error {
	var kept []byte
	err := v.db.View(func(tx *bolt.Tx) error {
		if meta := tx.Bucket(viewMeta); meta != nil {
			kept = bytes.Clone(meta.Get(keyStore))
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case kept == nil && snapshot > 0 && !forget:
		return viewsDamaged("it is not there")
	case kept != nil && !bytes.Equal(kept, identity):
		return viewsDamaged("it was written beside another store")
	case v.position > end:
		return viewsDamaged("it tells of record %d, the journal ends at %d", v.position, end)
	case v.position < snapshot && !forget:
		return viewsDamaged("it ends at record %d, the snapshot stands at %d", v.position, snapshot)
	case kept != nil && v.position >= snapshot:
		return nil
	}
	v.position = max(v.position, snapshot)
	v.applied = v.position
	err = v.db.Update(func(tx *bolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(viewMeta)
		if err != nil {
			return err
		}
		return errors.Join(meta.Put(keyFormat, binary.BigEndian.AppendUint32(nil, FormatVersion)), meta.Put(keyStore, identity),
			meta.Put(keyPosition, journalKey(v.position)))
	})
	if err != nil {
		return fmt.Errorf("make %s: %w", viewsName, err)
	}
	v.reached.Store(v.position)
	return nil
}

// begin is called before record seq is applied.
func (v *Views) begin(seq uint64) { v.skip = seq <= v.position }

// end is called when record seq has been applied.
func (v *Views) end(seq uint64) { v.applied = max(v.applied, seq) }

// Put keeps a value under a key of up to 255 bytes, from within Follower.Apply, and from nowhere else. Both are copied. The
// same record must always put the same pairs.
func (v *Views) Put(bucket uint8, key, value []byte) {
	if v.skip {
		return
	}
	v.pending = append(v.pending, bucket, byte(len(key)))
	v.pending = binary.LittleEndian.AppendUint32(v.pending, uint32(len(value)))
	v.pending = append(v.pending, key...)
	v.pending = append(v.pending, value...)
	v.told++
}

// due reports whether what is pending is to be committed now; else it says how long it may wait.
func (v *Views) due() (wait time.Duration, due bool) {
	if v.told == 0 || len(v.pending) >= viewsPending {
		return 0, v.reached.Load() < v.applied
	}
	wait = viewsEvery - time.Since(v.last)
	return wait, wait <= 0
}

// commit makes all that is pending durable, and readable. Before a snapshot the position must be in the file too,
// whether or not anything was told.
func (v *Views) commit(snapshot bool) error {
	if v.told > 0 || snapshot && v.position < v.applied {
		if err := v.db.Update(v.write); err != nil {
			return fmt.Errorf("write %s up to record %d: %w", viewsName, v.applied, err)
		}
		v.pairs.Add(uint64(v.told))
		v.pending, v.told, v.position = reuse(v.pending), 0, v.applied
		v.last = time.Now()
	}
	if v.reached.Swap(v.applied) < v.applied && v.viewed != nil {
		v.viewed(v.applied)
	}
	return nil
}

func (v *Views) write(tx *bolt.Tx) error {
	var buckets [256]*bolt.Bucket
	for rest := v.pending; len(rest) > 0; {
		number, keySize, size := rest[0], int(rest[1]), int(binary.LittleEndian.Uint32(rest[2:]))
		key, value := rest[pairHead:pairHead+keySize], rest[pairHead+keySize:pairHead+keySize+size]
		rest = rest[pairHead+keySize+size:]
		b := buckets[number]
		if b == nil {
			var err error
			if b, err = tx.CreateBucketIfNotExists([]byte{number}); err != nil {
				return err
			}
			b.FillPercent = 1 // keys grow, but for few
			buckets[number] = b
		}
		if err := b.Put(key, value); err != nil {
			return err
		}
	}
	return tx.Bucket(viewMeta).Put(keyPosition, journalKey(v.applied))
}

// Reached returns the record up to which the views are complete. It only grows.
func (v *Views) Reached() uint64 { return v.reached.Load() }

// Read calls each with the value under key, then with the one under the key that each returned, and so on, all as of one
// moment. It ends where each returns nil, or nothing is under the key. The value is bbolt's memory: each must not
// keep it.
func (v *Views) Read(bucket uint8, key []byte, each func(value []byte) (next []byte)) error {
	return v.view(bucket, func(b *bolt.Bucket) {
		for key != nil {
			value := b.Get(key)
			if value == nil {
				return
			}
			key = each(value)
		}
	})
}

// Range calls each with the pairs whose keys begin with prefix, from the last one below before downwards, nil
// being above all, until it returns false. Both are bbolt's memory.
func (v *Views) Range(bucket uint8, prefix, before []byte, each func(key, value []byte) bool) error {
	return v.view(bucket, func(b *bolt.Bucket) {
		c := b.Cursor()
		var key, value []byte
		if end := beyond(prefix); before == nil && end == nil {
			key, value = c.Last()
		} else {
			if before == nil || end != nil && bytes.Compare(end, before) < 0 {
				before = end
			}
			if key, _ = c.Seek(before); key == nil {
				key, value = c.Last()
			} else {
				key, value = c.Prev()
			}
		}
		for key != nil && bytes.HasPrefix(key, prefix) && each(key, value) {
			key, value = c.Prev()
		}
	})
}

// beyond is the least key above all that begin with prefix; nil: there is none.
func beyond(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			end := bytes.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

// view reads a bucket. Damage to bbolt's pages, over which it panics, is an error.
func (v *Views) view(bucket uint8, read func(*bolt.Bucket)) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = viewsDamaged("%v", p)
			v.log.Error("the past cannot be read", "error", err)
		}
	}()
	return v.db.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket([]byte{bucket}); b != nil {
			read(b)
		}
		return nil
	})
}

// checkViews reads the file from end to end and returns its position.
func checkViews(dir string) (position uint64, err error) {
	if _, err := os.Stat(filepath.Join(dir, viewsName)); errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	v, err := openViews(dir, true)
	if err != nil {
		return 0, err
	}
	defer v.db.Close()
	err = v.db.View(func(tx *bolt.Tx) error {
		if err := walkTree(tx); err != nil {
			return viewsDamaged("%v", err)
		}
		if err := checkPages(tx); err != nil {
			return viewsDamaged("%v", err)
		}
		return nil
	})
	return v.position, err
}
