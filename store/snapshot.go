package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	bolt "go.etcd.io/bbolt"
)

// mark says which snapshot is the current one. It lies in meta, and replacing
// it is the one step that makes a new snapshot count:
//
//  1. chunks of the new snapshot, a few per transaction
//  2. the mark: one transaction
//  3. trim: old chunks and the blocks that the snapshot covers, some per transaction
//
// A crash before 2 leaves the old snapshot with its journal and some useless
// chunks; after 2, the new one and some useless chunks and blocks. Recover
// trims either before anything else is written.
//
// A snapshot always stands at the end of a block, so that a block is either
// needed whole or not at all.
//
// Each chunk begins with the running checksum up to its own end, started from
// seq: a damaged or misplaced chunk is found before it is handed out.
//
//	key    seq: u64 BE │ number: u32 BE
//	value  crc: u32 LE │ up to chunkBytes of the snapshot
type mark struct {
	seq    uint64 // last record in it; 0: there is no snapshot
	bytes  uint64
	chunks uint32
	crc    uint32 // of seq and all bytes
}

const (
	chunkSum = 4

	// 64 KiB less what bbolt adds, so that two chunks, which is what it puts in
	// a leaf, fill 32 pages and do not spill into one more.
	chunkBytes = 64<<10 - 64

	// Chunks that the follower may have on their way: one transaction's worth
	// being written, another being filled.
	chunksInFlight = 2 * errandsMax

	// Keys deleted in one step of a trim: a few milliseconds.
	trimBlocks = 1024
	trimChunks = 64

	markBytes = 28
)

// takeSnapshot writes the follower's state, makes it the current snapshot, and
// trims what it covers.
func (f *follower) takeSnapshot() error {
	s := f.store
	began := time.Now()
	// What the snapshot covers cannot be told again.
	if err := f.views.commit(true); err != nil {
		return err
	}
	w := newChunkWriter(s, f.applied)
	if err := f.copy.Snapshot(w); err != nil {
		return fmt.Errorf("snapshot at record %d: %w", f.applied, err)
	}
	m, err := w.finish()
	if err != nil {
		return err
	}
	err = s.askAndWait(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keySnapshot, m.encode())
	})
	if err != nil {
		return err
	}
	s.counters.snapshot.Store(m.seq)
	f.bytes = 0
	for more := true; more; {
		err := s.askAndWait(func(tx *bolt.Tx) (err error) {
			more, err = s.trim(tx, m)
			return err
		})
		if err != nil {
			return err
		}
	}
	if s.opts.Snapshotted != nil {
		s.opts.Snapshotted(m.seq, m.bytes, began)
	}
	s.opts.Log.Info("snapshot taken", "seq", m.seq, "bytes", m.bytes, "took", time.Since(began))
	return nil
}

// chunkWriter cuts what is written into chunks and hands each to the committer.
// It waits when chunksInFlight are on their way.
type chunkWriter struct {
	store *Store
	mark  mark        // of what was handed over so far
	chunk []byte      // being filled; the committer owns it from flush until it comes back by free
	free  chan []byte // chunks that may be filled
}

func newChunkWriter(s *Store, seq uint64) *chunkWriter {
	w := &chunkWriter{store: s, mark: mark{seq: seq, crc: seqSum(seq)}, free: make(chan []byte, chunksInFlight)}
	for range chunksInFlight - 1 {
		w.free <- nil // made when first needed: most snapshots of small games need few
	}
	w.chunk = make([]byte, chunkSum, chunkSum+chunkBytes)
	return w
}

func (w *chunkWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if len(w.chunk) == chunkSum+chunkBytes {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
		room := min(chunkSum+chunkBytes-len(w.chunk), len(p)-n)
		w.chunk = append(w.chunk, p[n:n+room]...)
		n += room
	}
	return n, nil
}

// flush hands the chunk over and gets an empty one.
func (w *chunkWriter) flush() error {
	chunk, m := w.chunk, &w.mark
	content := chunk[chunkSum:]
	m.crc = crc32.Update(m.crc, castagnoli, content)
	m.bytes += uint64(len(content))
	binary.LittleEndian.PutUint32(chunk, m.crc)
	key := chunkKey(m.seq, m.chunks)
	m.chunks++
	err := w.store.ask(errand{
		write: func(tx *bolt.Tx) error {
			snapshots := tx.Bucket(bucketSnapshots)
			snapshots.FillPercent = 1
			return snapshots.Put(key, chunk)
		},
		done: func() { w.free <- chunk },
	})
	if err != nil {
		return err
	}
	select {
	case c := <-w.free:
		if c == nil {
			c = make([]byte, chunkSum, chunkSum+chunkBytes)
		}
		w.chunk = c[:chunkSum]
		return nil
	case <-w.store.dead:
		return errCommitterDead
	}
}

// finish hands over the last chunk and returns the mark of the whole.
func (w *chunkWriter) finish() (mark, error) {
	if len(w.chunk) > chunkSum {
		if err := w.flush(); err != nil {
			return mark{}, err
		}
	}
	return w.mark, nil
}

// trim deletes some of what snapshot m makes useless: the chunks of all others,
// and the blocks that it covers. It returns true when there may be more.
func (s *Store) trim(tx *bolt.Tx, m mark) (more bool, err error) {
	keys, _ := otherChunks(tx, m, trimChunks)
	more = len(keys) == trimChunks
	for _, k := range keys {
		if err := tx.Bucket(bucketSnapshots).Delete(k); err != nil {
			return false, fmt.Errorf("trim snapshots: %w", err)
		}
	}
	keys, bytes := coveredBlocks(tx, m, trimBlocks)
	more = more || len(keys) == trimBlocks
	for _, k := range keys {
		if err := tx.Bucket(bucketJournal).Delete(k); err != nil {
			return false, fmt.Errorf("trim journal: %w", err)
		}
	}
	s.counters.journal.Add(-int64(bytes))
	return more, nil
}

// otherChunks returns up to limit keys of chunks that are not m's. Keys are
// copied: bbolt's are gone with the first delete.
func otherChunks(tx *bolt.Tx, m mark, limit int) (keys [][]byte, bytes int) {
	c := tx.Bucket(bucketSnapshots).Cursor()
	for k, v := c.First(); k != nil && len(keys) < limit; {
		if keySeq(k) == m.seq {
			k, v = c.Seek(chunkKey(m.seq+1, 0))
			continue
		}
		keys, bytes = append(keys, append([]byte(nil), k...)), bytes+len(v)
		k, v = c.Next()
	}
	return keys, bytes
}

// coveredBlocks returns up to limit keys of blocks that m covers, from the
// front, so that what is left has no hole.
func coveredBlocks(tx *bolt.Tx, m mark, limit int) (keys [][]byte, bytes int) {
	c := tx.Bucket(bucketJournal).Cursor()
	for k, v := c.First(); k != nil && keySeq(k) <= m.seq && len(keys) < limit; k, v = c.Next() {
		keys, bytes = append(keys, append([]byte(nil), k...)), bytes+len(v)
	}
	return keys, bytes
}

// currentMark returns the mark of the current snapshot, the zero mark if there
// is none.
func currentMark(tx *bolt.Tx) (mark, error) {
	v := tx.Bucket(bucketMeta).Get(keySnapshot)
	if v == nil {
		return mark{}, nil
	}
	return decodeMark(v)
}

// snapshotReader reads the snapshot that m marks. It never returns a byte whose
// checksum it has not seen to be right.
type snapshotReader struct {
	snapshots *bolt.Bucket
	want      mark
	have      mark // of what was read so far
	rest      []byte
}

func newSnapshotReader(tx *bolt.Tx, m mark) *snapshotReader {
	return &snapshotReader{
		snapshots: tx.Bucket(bucketSnapshots),
		want:      m,
		have:      mark{seq: m.seq, crc: seqSum(m.seq)},
	}
}

func (r *snapshotReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.have.chunks == r.want.chunks {
			if r.have != r.want {
				return 0, damaged("snapshot at record %d: length or checksum does not match", r.want.seq)
			}
			return 0, io.EOF
		}
		if err := r.nextChunk(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *snapshotReader) nextChunk() error {
	h := &r.have
	v := r.snapshots.Get(chunkKey(h.seq, h.chunks))
	if len(v) < chunkSum {
		return damaged("snapshot at record %d: chunk %d of %d is missing", h.seq, h.chunks, r.want.chunks)
	}
	content := v[chunkSum:]
	h.crc = crc32.Update(h.crc, castagnoli, content)
	if h.crc != binary.LittleEndian.Uint32(v) {
		return damaged("snapshot at record %d: checksum of chunk %d of %d does not match", h.seq, h.chunks, r.want.chunks)
	}
	h.chunks++
	h.bytes += uint64(len(content))
	r.rest = content
	return nil
}

func chunkKey(seq uint64, number uint32) []byte {
	return binary.BigEndian.AppendUint32(journalKey(seq), number)
}

// encode lays the mark out as seq, bytes, chunks, crc, and a checksum of these,
// big-endian.
func (m mark) encode() []byte {
	b := make([]byte, 0, markBytes)
	b = binary.BigEndian.AppendUint64(b, m.seq)
	b = binary.BigEndian.AppendUint64(b, m.bytes)
	b = binary.BigEndian.AppendUint32(b, m.chunks)
	b = binary.BigEndian.AppendUint32(b, m.crc)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeMark(b []byte) (mark, error) {
	const body = markBytes - 4
	if len(b) != markBytes || binary.BigEndian.Uint32(b[body:]) != crc32.Checksum(b[:body], castagnoli) {
		return mark{}, damaged("the mark of the current snapshot does not match its checksum")
	}
	return mark{
		seq:    binary.BigEndian.Uint64(b),
		bytes:  binary.BigEndian.Uint64(b[8:]),
		chunks: binary.BigEndian.Uint32(b[16:]),
		crc:    binary.BigEndian.Uint32(b[20:]),
	}, nil
}
