// Package market is the tote: accounts, games, pools, stakes, settlements.
//
// It is a state machine. Time, I/O and randomness enter as fields of commands or as the time of a turn; the
// same commands in the same turns give the same bytes in the journal, on any machine. It never reads a
// clock, a file or a socket, and knows neither engine nor store. What loops say has passed (Config.Passed) is part of a turn, like
// its time.
//
// Accounts and games are spread over shards by their ids; a shard is one goroutine and owns what it
// holds, so nothing in a turn locks. A stake crosses two owners:
//
//	engine ──Stake──▶ account's shard          pool's shard            journal
//	                  repeat? funds? hold ──decide──▶ open? in time?
//	                                                  limits? ──append──▶ record seq
//	                  hold → debit, ticket ◀─verdict── pool takes it        │
//	engine ◀─receipt── waits until seq is durable ◀───────────────────────┘
//
// and its pool's end goes back the same way: the pool's shard appends the settlement and sends each
// stake's result to its account's shard, which pays and tells.
//
// Everything a shard says waits until all records it has seen are durable. So no reply, no odds and no
// payout tells of what a crash could take back. Letters between shards are sent after the records they
// tell of were appended, so the journal's order respects cause and effect, and a prefix of it is
// always a state that the market was in.
//
// What an event decides is decided by when stakes reached the host: hearing.go.
//
// Reading order: command.go (what comes in and goes out), shard.go (a turn), account.go and decide.go (the two
// sides of a stake), lane.go (what a player is told), resolve.go (events), board.go (distributions), book.go (what records
// add up to), ending.go, reckon.go and paying.go (how money comes back), record.go; past.go (what the replica tells of the past) and
// archive.go (who asks for it).
// Dynamic pools are beside: dynamic.go (the pool's side), holding.go (the account's), quote.go.
// So are players' questions and circles: ask.go, circle.go.
package market

import (
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tote/server/proto"
)

// Journal keeps records. Append takes n of them, each behind its length (32 bits, little-endian), and
// returns the sequence number of the first; what one call appends is durable as a whole or not at all.
type Journal interface {
	Append(records []byte, n int) (first uint64)
}

// Config is how a market runs. The fields from Interval on have defaults.
type Config struct {
	Shards          int
	Epoch           uint64            // names this life of the server to clients
	Durability      string            // told in receipts
	Now             func() proto.Time // stamps turns
	Journal         Journal
	Deliver         func(*Batch)             // takes what a shard says; called on the shard's goroutine, borrows the batch
	Passed          func(at proto.Time) bool // reports whether all that reached the host by then has been submitted; nil: it always has
	StakesPerSecond int                      // that an account may send, and twice as many at once; 0: no limit
	Connections     int                      // of an account at once; 0: 32
	Interval        proto.Time               // default batching interval of odds; 0: 3 s
	VoidAfter       proto.Time               // a pool unsettled for so long after its lock voids itself; 0: 24 h
	ArchiveAfter    proto.Time               // an ended game leaves memory after so long; 0: 10 min
	Moderate        bool                     // questions to everyone in a game wait for an operator's approval
	Reports         int                      // of players suspend a question; 0: 3
	ChallengeFor    proto.Time               // so long may be challenged whom the asker of a question names; 0: 10 min
	Views           Views                    // what the replica that New gets tells of the past; nil: nothing is known of it
	Answered        func(Answered)           // told of each answer about the past, on the archive's goroutine; nil: nobody wants to know
}

// Limits of the market.
const (
	intervalDefault = 3 * proto.Second
	intervalMin     = 100 * proto.Millisecond
	intervalMax     = 60 * proto.Second
	voidAfter       = 24 * proto.Hour
	archiveAfter    = 10 * proto.Minute

	connectionsDefault = 32 // every device of a player, and those that have just lost their network

	textMax        = 200          // bytes of a name, question, label or reason
	kindMax        = 32           // bytes of an event's kind
	templatesMax   = 64           // per game
	shortlistMax   = 32           // players per game
	takeoutMax     = 5000         // basis points
	ticketsOpenMax = 1024         // open predictions and stakes in decision per account
	followsMax     = 128          // a list that is asked for whole
	beat           = proto.Second // a shard speaks at least so often
	inboxMax       = 1 << 16      // commands that may wait for a shard; more are told "busy"
)

// Market is the running market.
type Market struct {
	config   Config
	shards   []*Shard
	archive  *archive
	durable  atomic.Uint64 // the journal's word: all records up to here are safe
	accounts atomic.Uint64 // the last account id given out
	games    atomic.Uint64 // the last game id given out
	circles  atomic.Uint64 // the last circle id given out
	overdue  atomic.Uint64 // hearings that ended without all that should be heard
	running  sync.WaitGroup
	stop     chan struct{}
}

// New builds a market that goes on where the replica stands. The replica is copied, and stays its owner's.
func New(c Config, from *Replica) (*Market, error) {
	assert(c.Shards > 0 && c.Now != nil && c.Journal != nil && c.Deliver != nil, "a market's config is complete")
	if c.Interval == 0 {
		c.Interval = intervalDefault
	}
	if c.VoidAfter == 0 {
		c.VoidAfter = voidAfter
	}
	if c.Connections == 0 {
		c.Connections = connectionsDefault
	}
	if c.ArchiveAfter == 0 {
		c.ArchiveAfter = archiveAfter
	}
	if c.Reports == 0 {
		c.Reports = reportsDefault
	}
	if c.ChallengeFor == 0 {
		c.ChallengeFor = challengesDefault
	}
	if c.Views == nil {
		c.Views = noViews{}
	}
	m := &Market{config: c, stop: make(chan struct{})}
	m.durable.Store(uint64(from.seq))
	for i := range c.Shards {
		m.shards = append(m.shards, newShard(c, m, i, from.seq))
	}
	from.takeSeals() // of what was recovered: nobody was there to be told
	m.archive = newArchive(m, from)
	if err := m.share(from); err != nil {
		return nil, fmt.Errorf("start the market: %w", err)
	}
	return m, nil
}

// share copies a whole book into the shards' books.
func (m *Market) share(from *Replica) error {
	var e encoder
	for id, a := range from.accounts {
		e.b = e.b[:0]
		e.account(a)
		copied, err := (&decoder{b: e.b}).account()
		if err != nil {
			return err
		}
		m.shardOfAccount(id).accounts[id] = copied
		m.accounts.Store(max(m.accounts.Load(), uint64(id)))
	}
	for _, id := range sortedKeys(from.games) { // a game before its rooms
		e.b = e.b[:0]
		e.game(from.games[id])
		copied, err := (&decoder{b: e.b}).game()
		if err != nil {
			return err
		}
		if err := m.shardOfGame(id).addGame(copied); err != nil {
			return err
		}
	}
	for id, on := range from.circles {
		copied := *on
		copied.members = slices.Clone(on.members)
		m.shardOfCircle(id).circles[id] = &copied
	}
	m.games.Store(uint64(from.lastGame))
	m.circles.Store(uint64(from.lastCircle))
	// Money that has left accounts and pools belongs to no shard; the first keeps the count.
	m.shards[0].house, m.shards[0].deposits, m.shards[0].withdrawals = from.house, from.deposits, from.withdrawals
	return nil
}

// spread maps an id to one of n shards. Ids count up from 1; a multiplicative hash (Knuth, TAOCP 6.4)
// keeps neighbours apart.
func spread(id uint64, n int) int {
	high, _ := bits.Mul64(id*0x9E3779B97F4A7C15, uint64(n))
	return int(high)
}

func (m *Market) shardOfAccount(id proto.AccountID) *Shard {
	return m.shards[spread(uint64(id), len(m.shards))]
}

// shardOfGame is the shard of a game and all of its rooms.
func (m *Market) shardOfGame(id proto.GameID) *Shard {
	return m.shards[spread(uint64(id.Main()), len(m.shards))]
}

func (m *Market) shardOfCircle(id proto.CircleID) *Shard {
	return m.shards[spread(uint64(id), len(m.shards))]
}

// NextAccount gives out an account id that was never given out before in this life of the server, and
// that no account has.
func (m *Market) NextAccount() proto.AccountID { return proto.AccountID(m.accounts.Add(1)) }

// NextGame is NextAccount for games.
func (m *Market) NextGame() proto.GameID { return proto.GameID(m.games.Add(1)) }

// NextCircle is NextAccount for circles.
func (m *Market) NextCircle() proto.CircleID { return proto.CircleID(m.circles.Add(1)) }

// Submit puts a copy of the command into its shard's inbox. It returns false where the inbox is full;
// Detach is always taken, for there are never more of them than connections.
func (m *Market) Submit(c *Command) bool {
	var s *Shard
	switch {
	case c.Kind > gameCommands && c.Circle != 0:
		s = m.shardOfCircle(c.Circle)
	case c.Kind > gameCommands && c.Game != c.Game.Main():
		s = m.shardOfAccount(c.Account)
	case c.Kind > gameCommands:
		return m.archive.inbox.submit(c)
	case c.Kind < accountCommands:
		s = m.shardOfAccount(c.Account)
	case c.Game != 0:
		s = m.shardOfGame(c.Game)
	default:
		s = m.shardOfGame(c.Pool.Game())
	}
	return s.inbox.submit(c)
}

// Durable tells the market that all records up to seq are safe. The journal calls it, from any
// goroutine, with seq never falling.
func (m *Market) Durable(seq uint64) {
	m.durable.Store(seq)
	for _, s := range m.shards {
		s.inbox.rouse()
	}
}

// Start runs a goroutine per shard and one for the archive, until Stop.
func (m *Market) Start() {
	m.running.Go(m.archive.run)
	for _, s := range m.shards {
		s.announce()
		s.turn(s.config.Now()) // says so: when Start returns, everybody knows which games there are
		m.running.Go(s.run)
	}
}

// Stop ends the shards, then does what is left in their inboxes. Nobody may submit any more, and the
// journal must go on until Stop returns, so that what they say last is released.
func (m *Market) Stop() {
	close(m.stop)
	m.running.Wait()
	for _, s := range m.shards {
		for !m.settled() || len(s.unsaid) > 0 {
			for _, s := range m.shards {
				s.turn(s.config.Now())
			}
			if m.settled() && len(s.unsaid) > 0 {
				<-s.inbox.wake // the journal moves
			}
		}
	}
}

// settled reports whether all inboxes are empty, all that is due is paid, and nothing waits for its hearing; only for a market
// that does not run.
func (m *Market) settled() bool {
	for _, s := range m.shards {
		if len(s.hearings) > 0 || len(s.fences) > 0 {
			return false
		}
	}
	return m.idle()
}

// idle reports whether nothing can be done before somebody submits something, or time passes.
func (m *Market) idle() bool {
	for _, s := range m.shards {
		if !s.inbox.empty() || len(s.payings.queue) > 0 || s.payings.owed > 0 {
			return false
		}
	}
	return true
}

// run turns the shard whenever there is something to do. The timer only decides when to look; what a
// turn sees is the time that Now gives it.
func (s *Shard) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		began := s.config.Now()
		next := s.turn(began)
		ended := s.config.Now()
		s.meters.Turns.AddTime(int64(ended - began))
		if next <= s.now { // at once, after what has arrived meanwhile
			s.inbox.rouse()
		}
		timer.Reset(time.Duration(max(next-ended, 0)) * time.Microsecond) // until the next appointment
		select {
		case <-s.inbox.wake:
		case <-timer.C:
		case <-s.market.stop:
			return
		}
	}
}

// Digest is the sum of all shards' digests, for the standing comparison with a replica's. Only for a
// market that does not run.
func (m *Market) Digest() uint64 {
	var sum uint64
	for _, s := range m.shards {
		sum += s.book.digest()
	}
	return sum
}

// Depths are the numbers of commands that wait for each shard.
func (m *Market) Depths() []int {
	depths := make([]int, len(m.shards))
	for i, s := range m.shards {
		depths[i] = s.inbox.depth()
	}
	return depths
}

// Progress counts the batches that each shard has delivered. A count that does not grow for some beats tells of a shard
// that does not turn, or of a journal that does not make durable what the shard has seen.
func (m *Market) Progress() []uint64 {
	counts := make([]uint64, len(m.shards))
	for i, s := range m.shards {
		counts[i] = s.delivered.Load()
	}
	return counts
}
