package market

import (
	"sync"
	"testing"

	"tote/server/proto"
)

// crowd stakes n times, 600 stakes a player, and returns the players; every third stake is on outcome 1.
func (tb *table) crowd(p proto.PoolID, n int) (players []proto.AccountID) {
	tb.t.Helper()
	const each = 600
	for i := 0; i < n; {
		a := tb.player(len(players), 1_000_000)
		var stakes []Command
		for k := 0; k < each && i < n; k, i = k+1, i+1 {
			stakes = append(stakes, tb.stakeOf(len(players), a, proto.RequestID(i+10), p, proto.Outcome(i%3%2), proto.Amount(1+i*7919%997)))
		}
		players = append(players, a)
		if got := len(receiptsTo(tb.do(stakes...), session(len(players)-1))); got != len(stakes) {
			tb.t.Fatalf("%d of %d stakes were accepted", got, len(stakes))
		}
	}
	return players
}

// A great settlement is paid in slices: every turn pays some, what arrives meanwhile is served, a game is not archived before
// its last payout, and a crash in the middle pays everybody exactly once.
func TestPayingInSlices(t *testing.T) {
	for _, shards := range []int{1, 3} {
		tb := newTable(t, shards)
		g := tb.game()
		p, other := tb.pool(g, proto.PoolOpening{Takeout: 1500}), tb.pool(g, proto.PoolOpening{})
		const n = 7000
		players := tb.crowd(p, n)
		tb.lock(p)
		tb.answer(Command{Kind: VoidPool, Pool: other, Args: &proto.Voiding{Reason: "rain"}})
		other = tb.pool(tb.game(), proto.PoolOpening{})

		settle := Command{Kind: SettlePool, From: desk, Pool: p, Args: &proto.Settlement{Winners: []proto.Outcome{0}}}
		end := Command{Kind: PostEvent, From: desk, Game: g, Args: &proto.Event{Kind: "end"}}
		tb.m.Submit(&settle)
		tb.m.Submit(&end)
		tb.m.Durable(1 << 60)
		tb.said = nil
		paid, most, served := 0, 0, 0
		for turn := 0; turn == 0 || !tb.m.settled(); turn++ {
			stake := tb.stakeOf(0, players[0], proto.RequestID(n+100+turn), other, 0, 1)
			tb.m.Submit(&stake)
			if turn == 1 {
				tb.now += 11 * proto.Minute // time to archive
			}
			for _, s := range tb.m.shards {
				tb.said = nil
				s.turn(tb.now)
				payouts := len(all[*proto.Payout](tb.said))
				paid, most, served = paid+payouts, max(most, payouts), served+len(receiptsTo(tb.said, session(0)))
			}
			if turn == 2 && paid < n*2/3 && tb.m.shardOfGame(g).games[g] == nil {
				t.Errorf("%d shards: archived after %d payouts", shards, paid)
			}
		}
		if won := (n + 2) / 3 * 2; paid < won-2 || paid > won {
			t.Errorf("%d shards: %d payouts, want about %d", shards, paid, won)
		}
		if limit := shards * turnCost / payCost; most > limit || most == 0 {
			t.Errorf("%d shards: %d payouts in one turn, want at most %d", shards, most, limit)
		}
		if served < 3 {
			t.Errorf("%d shards: %d stakes were served meanwhile", shards, served)
		}
		again := reopen(t, 2, tb.replay(), tb.journal.records)
		for i, a := range players[1:] {
			if was, is := tb.balance(i+1, a), again.balance(i+1, a); was != is || is == 0 {
				t.Errorf("%d shards: player %d has %d, after a crash in the middle %d", shards, i+1, was, is)
			}
		}
	}
}

// Stop returns when all is paid and told.
func TestStopPaysFirst(t *testing.T) {
	tb := newTable(t, 2)
	p := tb.pool(tb.game(), proto.PoolOpening{})
	const n = 6000
	tb.crowd(p, n)
	tb.lock(p)
	journal := &shared{memory: memory{records: tb.journal.records}}
	var mu sync.Mutex
	refunds := 0
	m, err := New(Config{Shards: 2, Journal: journal, Now: func() proto.Time { return start }, Deliver: func(b *Batch) {
		mu.Lock()
		refunds += len(all[*proto.Refund](b.Outs))
		mu.Unlock()
	}}, tb.replay())
	if err != nil {
		t.Fatal(err)
	}
	journal.market = m
	for i := range n/600 + 1 {
		m.Submit(&Command{Kind: Attach, From: session(i), Account: proto.AccountID(i + 1)})
	}
	m.Start()
	for {
		mu.Lock()
		ready := m.Depths()[0]+m.Depths()[1] == 0
		mu.Unlock()
		if ready {
			break
		}
	}
	m.Submit(&Command{Kind: VoidPool, From: desk, Pool: p, Args: &proto.Voiding{Reason: "rain"}})
	m.Stop()
	if refunds != n {
		t.Errorf("%d refunds were told, want %d", refunds, n)
	}
	r := NewReplica()
	for i, record := range journal.records {
		if err := r.Apply(uint64(i+1), record); err != nil {
			t.Fatal(err)
		}
	}
	if m.Digest() != r.Digest() {
		t.Error("the market that stopped differs from its journal")
	}
}

// shared is a journal for shards that run, and what is appended is durable at once.
type shared struct {
	mu sync.Mutex
	memory
}

func (j *shared) Append(records []byte, n int) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := j.memory.Append(records, n)
	j.market.Durable(first + uint64(n) - 1)
	return first
}
