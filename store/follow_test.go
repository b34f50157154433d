package store

import "testing"

// A commit that ends while the follower's transaction is open is not in what that shows. The follower must stop
// at what was synced when the transaction began, and finds the rest in the next one.
func TestFollowerReadsWhatItsTransactionShows(t *testing.T) {
	var live, late ledger
	s, a := startStore(t, t.TempDir(), Options{}, &live)
	s.Append(appendCall(nil, 1, 1, 1, 20), 1)
	a.waitFor(1)
	synced := s.counters.synced.Load()
	tx, err := s.db.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	s.Append(appendCall(nil, 1, 2, 1, 20), 1)
	a.waitFor(2)
	f := &follower{store: s, copy: &late, views: &Views{}}
	if err := f.applySome(tx, synced); err != nil || late.seq != 1 {
		t.Errorf("up to record %d in a transaction that shows 1: %v", late.seq, err)
	}
	if err := f.applySome(tx, s.counters.synced.Load()); err == nil {
		t.Error("a block that the transaction does not show was found")
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := f.catchUp(); err != nil || late.seq != 2 {
		t.Errorf("up to record %d in the next transaction: %v", late.seq, err)
	}
	mustClose(t, s)
}
