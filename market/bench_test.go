package market

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tote/server/proto"
)

// discard is a journal that only counts, so that a benchmark measures the market.
type discard struct{ seq uint64 }

func (j *discard) Append(_ []byte, n int) uint64 {
	first := j.seq + 1
	j.seq += uint64(n)
	return first
}

// The way of a stake through the market, with every guardrail on: two shards' turns, a record, a receipt. Time per stake.
func BenchmarkStake(b *testing.B) {
	for _, shards := range []int{1, 2} {
		b.Run(map[int]string{1: "one shard", 2: "two shards"}[shards], func(b *testing.B) {
			journal := &discard{}
			receipts := 0
			m, err := New(Config{Shards: shards, StakesPerSecond: 10, Journal: journal, Now: func() proto.Time { return start },
				Deliver: func(batch *Batch) { receipts += len(batch.Outs) }}, NewReplica())
			if err != nil {
				b.Fatal(err)
			}
			m.Durable(1 << 60)
			const players = 1000
			turns := func() {
				for again := true; again; again = !m.settled() {
					for _, s := range m.shards {
						s.turn(start)
					}
				}
			}
			game := m.NextGame()
			m.Submit(&Command{Kind: OpenGame, Game: game, Args: &proto.GameOpening{Name: "g"}})
			turns()
			for i := range players {
				m.Submit(&Command{Kind: OpenAccount, From: session(i), Account: m.NextAccount(), Attach: true, Args: &proto.AccountOpening{Name: "p", Deposit: 1 << 50}})
			}
			turns()
			fresh := func(round int) proto.PoolID {
				const end = start + 24*365*proto.Hour // no pool locks here, and all of its time is its last
				m.Submit(&Command{Kind: OpenPool, Game: game, Args: &proto.PoolOpening{Question: "?", Labels: []string{"a", "b"}, LocksAt: end,
					StakeMin: 1, StakeMax: 1 << 40, Rules: proto.Rules{AccountMax: 1 << 50, LateSpan: end - start, LateMax: 1 << 50}}})
				turns()
				return proto.NewPoolID(game, uint32(round))
			}
			b.ReportAllocs()
			b.ResetTimer()
			var pool proto.PoolID
			request := proto.RequestID(0)
			for i := 0; b.Loop(); i++ {
				if i%(players*100) == 0 { // no account gathers more than 100 open tickets
					b.StopTimer()
					if pool != 0 {
						m.Submit(&Command{Kind: VoidPool, Pool: pool, Args: &proto.Voiding{Reason: "next round"}})
					}
					pool = fresh(i/(players*100) + 1)
					b.StartTimer()
				}
				request++
				m.Submit(&Command{Kind: Stake, From: session(i % players), Account: proto.AccountID(1 + i%players), ID: request, Pool: pool, Outcome: proto.Outcome(i % 2), Amount: 5,
					Arrived: start + proto.Time(i)*proto.Millisecond})
				if i%64 == 63 {
					turns()
				}
			}
			turns()
			if receipts < b.N {
				b.Fatalf("%d receipts for %d stakes", receipts, b.N)
			}
		})
	}
}

// What a million accounts, and a million open tickets of them, weigh in the live market: both sides, slack and map entries
// included. Not included is what an account gets with its first session (live).
func BenchmarkState(b *testing.B) {
	for _, perAccount := range []int{1, 10} {
		b.Run(map[int]string{1: "a ticket each", 10: "ten tickets each"}[perAccount], func(b *testing.B) {
			for b.Loop() {
				const tickets = 1_000_000
				accounts := tickets / perAccount
				m, err := New(Config{Shards: 2, Journal: &discard{}, Now: func() proto.Time { return start }, Deliver: func(*Batch) {}}, NewReplica())
				if err != nil {
					b.Fatal(err)
				}
				m.Durable(1 << 60)
				turns := func() {
					for again := true; again; again = !m.settled() {
						for _, s := range m.shards {
							s.turn(start)
						}
					}
				}
				game := m.NextGame()
				m.Submit(&Command{Kind: OpenGame, Game: game, Args: &proto.GameOpening{Name: "g"}})
				for range 20 {
					m.Submit(&Command{Kind: OpenPool, Game: game, Args: &proto.PoolOpening{Question: "?", Labels: []string{"a", "b"}}})
				}
				turns()
				empty := heap()
				for i := range accounts {
					m.Submit(&Command{Kind: OpenAccount, Account: m.NextAccount(), Args: &proto.AccountOpening{Name: "player", Deposit: 1000}})
					if i%512 == 511 {
						turns()
					}
				}
				turns()
				opened := heap()
				for i := range tickets {
					account := proto.AccountID(1 + i%accounts)
					pool := proto.NewPoolID(game, uint32(1+i%20))
					m.Submit(&Command{Kind: Stake, Account: account, ID: proto.RequestID(i + 1), Pool: pool, Outcome: proto.Outcome(i % 2), Amount: 5, Arrived: start})
					if i%512 == 511 {
						turns()
					}
				}
				turns()
				staked := heap()
				if got := m.shardOfGame(game).games[game].pools[0].stakes.len(); got != tickets/20 {
					b.Fatalf("the first pool has %d stakes", got)
				}
				b.ReportMetric(float64(opened-empty)/float64(accounts), "B/account")
				b.ReportMetric(float64(staked-opened)/tickets, "B/ticket")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A pool of a million tickets settles while another pool of the same shard takes stakes. What the slowest turn takes is what
// everybody else may have to wait. CPU time of the shard's thread, since the machine may be busy with others.
func BenchmarkSettle(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		const tickets, accounts = 1_000_000, 100_000
		m, err := New(Config{Shards: 1, Journal: &discard{}, Now: func() proto.Time { return start }, Deliver: func(*Batch) {}}, NewReplica())
		if err != nil {
			b.Fatal(err)
		}
		m.Durable(1 << 60)
		turns := func() {
			for again := true; again; again = !m.settled() {
				m.shards[0].turn(start)
			}
		}
		game := m.NextGame()
		m.Submit(&Command{Kind: OpenGame, Game: game, Args: &proto.GameOpening{Name: "g"}})
		for range 2 {
			m.Submit(&Command{Kind: OpenPool, Game: game, Args: &proto.PoolOpening{Question: "?", Labels: []string{"a", "b"}, Takeout: 1500}})
		}
		for i := range accounts {
			m.Submit(&Command{Kind: OpenAccount, From: session(i), Attach: true, Account: m.NextAccount(), Args: &proto.AccountOpening{Name: "player", Deposit: 1 << 40}})
			if i%512 == 511 {
				turns()
			}
		}
		turns()
		request := proto.RequestID(0)
		stake := func(pool uint32) {
			request++
			m.Submit(&Command{Kind: Stake, From: session(int(request) % accounts), Account: proto.AccountID(1 + int(request)%accounts), ID: request,
				Pool: proto.NewPoolID(game, pool), Outcome: proto.Outcome(request / 3 % 2), Amount: proto.Amount(1 + request*7919%1000), Arrived: start})
		}
		for i := range tickets {
			if stake(1); i%512 == 511 {
				turns()
			}
		}
		turns()
		m.Submit(&Command{Kind: LockPool, Pool: proto.NewPoolID(game, 1), Args: &proto.Locking{}})
		turns()
		m.Submit(&Command{Kind: SettlePool, Pool: proto.NewPoolID(game, 1), Args: &proto.Settlement{Winners: []proto.Outcome{0}}})
		var all, longest time.Duration
		n := 0
		for again := true; again; again = !m.settled() {
			stake(2)
			began := threadTime(b)
			m.shards[0].turn(start)
			took := threadTime(b) - began
			all, longest, n = all+took, max(longest, took), n+1
		}
		b.ReportMetric(float64(longest.Microseconds())/1000, "ms/longest")
		b.ReportMetric(float64(all.Microseconds())/1000, "ms/all")
		b.ReportMetric(float64(n), "turns")
	}
	b.ReportMetric(0, "ns/op")
}

func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
