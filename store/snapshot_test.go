package store

import (
	"testing"
	"time"
)

// A snapshot and the rest of the journal are worth the whole journal: stopped
// at every commit there is, among them each step of snapshotting and trimming,
// the store recovers the state as of what was acknowledged.
func TestACrashAtAnyStepOfASnapshot(t *testing.T) {
	for _, mode := range []struct {
		name     string
		interval time.Duration
	}{{"always", 0}, {"interval", time.Hour}} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			const padding = errandsMax*chunkBytes*3/2 + 100 // more than one transaction takes
			const calls, n = 45, 3
			var sums [calls*n + 1]uint64 // by full replay, with no store at all
			var naive ledger
			var records [calls][]byte
			for call := range records {
				records[call] = appendCall(nil, 2, uint64(call*n+1), n, 300)
				for rest := records[call]; len(rest) > 0; {
					var record []byte
					record, rest = nextRecord(rest)
					if err := naive.Apply(naive.seq+1, record); err != nil {
						t.Fatal(err)
					}
					sums[naive.seq] = naive.sum
				}
			}

			dir := t.TempDir()
			o := Options{Interval: mode.interval, SnapshotEvery: calls * n / 3}
			follower := &ledger{padding: padding}
			s, _ := recoverStore(t, dir, o, follower)
			var unfinished, untrimmed, trimmed int
			crash := func(seq uint64) { // on the committer goroutine: nothing is being written
				image := crashCopy(t, s)
				report, err := Check(image, func(uint64, []byte) error { return nil })
				if err != nil {
					t.Errorf("at record %d: %v", seq, err)
					return
				}
				switch {
				case report.UselessBlocks > 0:
					untrimmed++
				case report.UselessChunks > 0:
					unfinished++
				case report.SnapshotSeq > 0:
					trimmed++
				}
				after := &ledger{padding: padding}
				again, err := Open(image, quiet(t, o))
				if err != nil {
					t.Error(err)
					return
				}
				defer again.Close()
				r, err := again.Recover(after.load, after.Apply)
				if err != nil || after.seq != seq || after.sum != sums[seq] || after.left != 0 {
					t.Errorf("acknowledged %d, recovered %d (%s; %v)", seq, after.seq, r, err)
				}
				again.Close()
				report, err = Check(image, func(uint64, []byte) error { return nil })
				if err != nil || report.UselessBlocks > 0 || report.UselessChunks > 0 {
					t.Errorf("at record %d: Recover left %+v, %v", seq, report, err)
				}
			}
			a := newAcks()
			s.Start(follower, func(seq uint64) {
				crash(seq)
				a.durable(seq)
			}, nil)
			for call := range calls {
				s.Append(records[call], n)
				a.waitFor(uint64((call + 1) * n))
			}
			mustClose(t, s)
			if unfinished == 0 || untrimmed == 0 || trimmed == 0 {
				t.Errorf("crashes seen: %d in a snapshot, %d before its trim, %d after; want some of each",
					unfinished, untrimmed, trimmed)
			}
		})
	}
}

func TestASnapshotIsTakenAndTheJournalTrimmed(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"by records", Options{SnapshotEvery: 500}},
		{"by bytes", Options{SnapshotBytes: 500 * 80}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			var before ledger
			s, a := startStore(t, dir, c.o, &before)
			for call := range uint64(1000) {
				s.Append(appendCall(nil, 1, call*2+1, 2, 60), 2)
				if call%100 == 99 {
					a.waitFor((call + 1) * 2)
				}
			}
			a.wait(func() bool { return s.Stats().Snapshot > 1000 }) // each trim is a commit, and heard
			mustClose(t, s)
			st := s.Stats()
			if st.Snapshot != 2000 || st.JournalBytes != 0 || st.Applied != 2000 || st.Records != 2000 {
				t.Errorf("after Close: %+v", st)
			}
			var after ledger
			_, r := recoverStore(t, dir, c.o, &after)
			if after != before || r.Replayed != 0 {
				t.Errorf("recovered %+v, want %+v (%s)", after, before, r)
			}
		})
	}
}

// A file of which every part is trimmed soon enough does not grow with the
// number of records that went through it.
func TestTheFileDoesNotGrowForEver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var l ledger
	s, a := startStore(t, dir, Options{SnapshotEvery: 2000}, &l)
	var early uint64
	for call := range uint64(600) {
		s.Append(appendCall(nil, 1, call*100+1, 100, 200), 100)
		seq := (call + 1) * 100
		a.waitFor(seq)
		// The next call waits for the follower, or the journal is as long as it lags.
		a.wait(func() bool { return s.Stats().Snapshot+4000 > seq })
		if call == 200 {
			early = s.Stats().FileBytes
		}
	}
	if late := s.Stats().FileBytes; late > early {
		t.Errorf("the file grew from %d to %d bytes", early, late)
	}
	mustClose(t, s)
}
