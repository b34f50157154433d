package store

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

const benchRecord = 80 // bytes, the size of a stake

// counter is a follower that costs nothing.
type counter struct{ seq uint64 }

func (c *counter) Apply(seq uint64, _ []byte) error { c.seq = seq; return nil }
func (c *counter) Snapshot(w io.Writer) error       { _, err := w.Write(make([]byte, 1<<20)); return err }
func (c *counter) load(r io.Reader) error           { _, err := io.Copy(io.Discard, r); return err }

func openBench(b *testing.B, dir string, o Options) (*Store, Recovery, *counter) {
	b.Helper()
	c := &counter{}
	s, err := Open(dir, quiet(b, o))
	if err != nil {
		b.Fatal(err)
	}
	r, err := s.Recover(c.load, c.Apply)
	if err != nil {
		b.Fatal(err)
	}
	return s, r, c
}

// BenchmarkCommit measures records made durable while four producers each offer
// a batch, wait until it is durable, and offer the next; and, right after, the
// limit: a plain file appended and synced with as many records as one of our
// commits had on average. An operation is one record.
func BenchmarkCommit(b *testing.B) {
	const producers = 4
	for _, batch := range []int{64, 1024, 4096} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			s, _, c := openBench(b, b.TempDir(), Options{})
			a := newAcks()
			s.Start(c, a.durable, nil)
			records := appendCall(nil, 1, 1, batch, benchRecord-recordHead)
			rounds := max(1, b.N/(producers*batch))

			b.ResetTimer()
			var all sync.WaitGroup
			for range producers {
				all.Go(func() {
					for range rounds {
						a.waitFor(s.Append(records, batch) + uint64(batch) - 1)
					}
				})
			}
			all.Wait()
			took := b.Elapsed()
			b.StopTimer()

			total := float64(rounds * producers * batch)
			st := s.Stats()
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			perCommit := max(1, int(total/float64(st.Commits)))
			raw := rawRate(b, perCommit, int(total)/perCommit)
			rate := total / took.Seconds()
			b.ReportMetric(rate, "records/s")
			b.ReportMetric(float64(perCommit), "records/commit")
			b.ReportMetric(st.CommitMean.Seconds()*1e6, "µs/commit")
			b.ReportMetric(raw, "raw-records/s")
			b.ReportMetric(rate/raw, "of-raw")
		})
	}
}

// rawRate appends and syncs n times the given number of records.
func rawRate(b *testing.B, records, n int) float64 {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, records*(benchRecord+indexEntry))
	began := time.Now()
	for range max(1, n) {
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	return float64(max(1, n)*records) / time.Since(began).Seconds()
}

// BenchmarkRecover measures a start with a warm page cache: Open and Recover of
// a journal of a million records and no snapshot.
func BenchmarkRecover(b *testing.B) {
	const records, batch = 1 << 20, 4096
	dir := b.TempDir()
	s, _, c := openBench(b, dir, Options{SnapshotEvery: 2 * records})
	a := newAcks()
	s.Start(c, a.durable, nil)
	call := appendCall(nil, 1, 1, batch, benchRecord-recordHead)
	for range records / batch {
		a.waitFor(s.Append(call, batch))
	}
	a.waitFor(records)
	image := crashCopy(b, s)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	var replay time.Duration
	for b.Loop() {
		s, r, _ := openBench(b, image, Options{})
		if r.Replayed != records {
			b.Fatal(r)
		}
		replay += r.ReplayTime
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*records)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(b.N*records)/replay.Seconds(), "replayed-records/s")
}

// BenchmarkAppend measures the caller's part alone.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, _, _ := openBench(b, b.TempDir(), Options{})
			s.setPhase(running) // no committer: nobody competes
			call := appendCall(nil, 1, 1, n, benchRecord-recordHead)
			b.ReportAllocs()
			for b.Loop() {
				s.Append(call, n)
				if len(s.pending) > retainBytes/2 {
					s.take()
					s.batch = s.batch[:0]
				}
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
