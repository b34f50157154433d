package market

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"tote/server/proto"
)

// Views keeps pairs of bytes for later, in numbered buckets: what the replica tells of the past as it applies records, and
// what the archive answers from. Put is for the replica alone, the rest may be called from any goroutine.
type Views interface {
	// Put keeps a copy of the value under a copy of the key, with the record in hand.
	Put(bucket uint8, key, value []byte)
	// Read calls each with the value under key, then with the one under the key that each returned, and so on, until that is nil
	// or nothing is there. The value must not be kept.
	Read(bucket uint8, key []byte, each func(value []byte) (next []byte)) error
	// Range calls each with the pairs whose keys begin with prefix, from the last one below before (nil: of all) downwards,
	// until it returns false. Neither must be kept.
	Range(bucket uint8, prefix, before []byte, each func(key, value []byte) bool) error
	// Reached is the record up to which all pairs can be read.
	Reached() uint64
}

// The buckets. Keys are identifiers, big-endian, so that they stand in their order. The numbers are in files: never change one.
const (
	viewEntries uint8 = 1 // entry -> entry
	viewNames   uint8 = 2 // account -> its name
	viewSeals   uint8 = 3 // record -> pool u64, head
	viewPools   uint8 = 4 // pool -> proto.PastPool in JSON
	viewGames   uint8 = 5 // game -> proto.PastGame in JSON
	viewLeaders uint8 = 6 // game -> proto.Leaders in JSON, as the game left memory
	viewRooms   uint8 = 7 // game that is a room -> circle u64
)

// past is the replica's memory of the past: where each account's chain of entries ends, who has won and lost how much, and
// the head of the hash chain. What it tells besides is in the views.
//
// An account's entries are a chain: each names the one before it. So entries are written one after the other in
// one file, however many accounts there are, and read from the newest backwards.
//
//	entry  1         2         3         4         5 …
//	       account 1 account 2 account 1 account 1 account 2
//	       └──────◀──────────────┘◀────────┘         ledger of 1: last = 4
//	                 └────────────◀──────────────────┘  of 2: last = 5
//
// Owner: the replica's; ledgers and ladders may be read by all.
type past struct {
	views   Views  // nil: nothing is told, only counted
	entries uint64 // told so far
	head    [sha256.Size]byte
	seals   []seal   // since they were last taken
	ledgers ledgers  // by account
	ladders sync.Map // proto.GameID -> *ladder; written by the owner
	key     [8]byte
	value   []byte
}

// ledger is an account's: 24 bytes.
type ledger struct {
	last atomic.Uint64 // entry; 0: none
	score
}

// score is what ended predictions came to.
type score struct {
	profit atomic.Int64
	ended  atomic.Uint64 // predictions that were won, lost or sold
}

func (s *score) add(profit proto.Amount, ended uint64) {
	s.profit.Add(int64(profit))
	s.ended.Add(ended)
}

// ledgers are dense, since account ids count up from 1. They never move, so that others may read while they grow.
type ledgers struct {
	chunks atomic.Pointer[[]*[ledgerChunk]ledger]
}

const ledgerChunk = 4096

// at returns an account's ledger, or nil where none was made.
func (l *ledgers) at(id proto.AccountID) *ledger {
	chunks := l.chunks.Load()
	if n := uint64(id) / ledgerChunk; chunks != nil && n < uint64(len(*chunks)) && (*chunks)[n] != nil {
		return &(*chunks)[n][uint64(id)%ledgerChunk]
	}
	return nil
}

// of makes the ledger where there is none; only for the owner.
func (l *ledgers) of(id proto.AccountID) *ledger {
	if found := l.at(id); found != nil {
		return found
	}
	var chunks []*[ledgerChunk]ledger
	if old := l.chunks.Load(); old != nil {
		chunks = *old
	}
	n := int(uint64(id) / ledgerChunk)
	chunks = append(slices.Clone(chunks), make([]*[ledgerChunk]ledger, max(0, n+1-len(chunks)))...)
	chunks[n] = new([ledgerChunk]ledger)
	l.chunks.Store(&chunks)
	return l.at(id)
}

func (l *ledgers) all() iter.Seq2[proto.AccountID, *score] {
	return func(yield func(proto.AccountID, *score) bool) {
		chunks := l.chunks.Load()
		if chunks == nil {
			return
		}
		for n, chunk := range *chunks {
			for i := range chunk {
				if !yield(proto.AccountID(n*ledgerChunk+i), &chunk[i].score) {
					return
				}
			}
		}
	}
}

// ladder is who has won and lost how much in one game.
type ladder struct {
	places map[proto.AccountID]int // in rows; of the owner
	rows   atomic.Pointer[[]*row]  // appended to by the owner
}

// row is a player's place on a ladder, in the order of the first prediction that ended.
type row struct {
	account proto.AccountID
	score
}

func (s *ladder) of(id proto.AccountID) *score {
	var rows []*row
	if old := s.rows.Load(); old != nil {
		rows = *old
	}
	i, ok := s.places[id]
	if !ok {
		i = len(rows)
		s.places[id] = i
		rows = append(rows, &row{account: id}) // readers of the old slice do not look beyond its end
		s.rows.Store(&rows)
	}
	return &rows[i].score
}

func (s *ladder) all() iter.Seq2[proto.AccountID, *score] {
	return func(yield func(proto.AccountID, *score) bool) {
		rows := s.rows.Load()
		for i := range s.len() {
			if !yield((*rows)[i].account, &(*rows)[i].score) {
				return
			}
		}
	}
}

func (s *ladder) len() int {
	if rows := s.rows.Load(); rows != nil {
		return len(*rows)
	}
	return 0
}

// ladder returns a game's, or nil where there is none.
func (p *past) ladder(id proto.GameID) *ladder {
	if found, ok := p.ladders.Load(id); ok {
		return found.(*ladder)
	}
	return nil
}

// ladderOf makes one where there is none; only for the owner.
func (p *past) ladderOf(id proto.GameID) *ladder {
	l := p.ladder(id)
	if l == nil {
		l = &ladder{places: map[proto.AccountID]int{}}
		p.ladders.Store(id, l)
	}
	return l
}

// chain adds a record to the hash chain.
func (p *past) chain(b []byte) {
	h := sha256.New()
	h.Write(p.head[:])
	h.Write(b)
	h.Sum(p.head[:0])
}

func (p *past) put(bucket uint8, key uint64, value []byte) {
	if p.views == nil {
		return
	}
	binary.BigEndian.PutUint64(p.key[:], key)
	p.views.Put(bucket, p.key[:], value)
}

func (p *past) putJSON(bucket uint8, key uint64, value any) {
	b, err := json.Marshal(value)
	assert(err == nil, "what is told of the past always encodes")
	p.put(bucket, key, b)
}

// entry is one change of an account's balance, or a loss.
//
//	kind and state u8 │ account, back, seq, time, change, balance │ only of predictions: seq − prediction, place, amount, request,
//	time − arrived, shares │ reason
//
// All integers are varints.
type entry struct {
	number     uint64
	kind       proto.EntryKind
	account    proto.AccountID
	before     uint64 // the account's entry before this one; 0: none
	seq        proto.Seq
	time       proto.Time
	change     proto.Amount
	balance    proto.Amount
	prediction proto.Seq // 0: none, nor are all that follow
	state      proto.PredictionState
	on         place
	amount     proto.Amount
	payout     proto.Amount
	request    proto.RequestID
	arrived    proto.Time   // of a stake
	shares     proto.Shares // in a dynamic pool: bought, sold, or held to the end
	reason     string       // of a refund
}

// tell numbers an entry, hangs it to its account's chain and keeps it.
func (p *past) tell(e entry) {
	p.entries++
	l := p.ledgers.of(e.account)
	e.number, e.before = p.entries, l.last.Load()
	l.last.Store(e.number)
	p.value = e.append(p.value[:0])
	p.put(viewEntries, e.number, p.value)
}

// ended counts predictions that were won, lost or sold, and what they came to. What is sold of a prediction counts at once.
func (p *past) ended(account proto.AccountID, game proto.GameID, profit proto.Amount, predictions uint64) {
	p.ledgers.of(account).add(profit, predictions)
	p.ladderOf(game).of(account).add(profit, predictions)
}

func (e *entry) append(b []byte) []byte {
	b = append(b, byte(e.kind)|byte(e.state)<<4)
	b = binary.AppendUvarint(b, uint64(e.account))
	b = binary.AppendUvarint(b, e.back())
	b = binary.AppendUvarint(b, uint64(e.seq))
	b = binary.AppendUvarint(b, uint64(e.time))
	b = binary.AppendVarint(b, int64(e.change))
	b = binary.AppendUvarint(b, uint64(e.balance))
	if e.prediction == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(e.seq-e.prediction))
	b = binary.AppendUvarint(b, uint64(e.on))
	b = binary.AppendUvarint(b, uint64(e.amount))
	b = binary.AppendUvarint(b, uint64(e.request))
	b = binary.AppendVarint(b, int64(e.time-e.arrived))
	b = binary.AppendUvarint(b, uint64(e.shares))
	return append(b, e.reason...)
}

// back is how many entries before this one the account's last one was told; 0: there is none.
func (e *entry) back() uint64 {
	if e.before == 0 {
		return 0
	}
	return e.number - e.before
}

// decode reads what append wrote of entry number.
func (e *entry) decode(number uint64, b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("read entry %d: it is empty", number)
	}
	d := decoder{b: b[1:]}
	*e = entry{number: number, kind: proto.EntryKind(b[0] & 15), state: proto.PredictionState(b[0] >> 4)}
	e.account = proto.AccountID(d.uint())
	if back := d.uint(); back != 0 {
		e.before = number - back
	}
	e.seq, e.time, e.change, e.balance = proto.Seq(d.uint()), proto.Time(d.uint()), d.money(), proto.Amount(d.uint())
	if len(d.b) > 0 {
		e.prediction, e.on, e.amount = e.seq-proto.Seq(d.uint()), place(d.uint()), proto.Amount(d.uint())
		e.request, e.arrived, e.shares = proto.RequestID(d.uint()), e.time-proto.Time(d.money()), proto.Shares(d.uint())
		e.reason = string(d.b)
		if e.kind.Ends() {
			e.payout = e.change
		}
	}
	if d.err != nil {
		return fmt.Errorf("read entry %d: it ends too early", number)
	}
	return nil
}

// show is the entry as its owner sees it.
func (e *entry) show() proto.Entry {
	shown := proto.Entry{Entry: e.number, Seq: e.seq, T: e.time, Kind: e.kind, Change: e.change, Balance: e.balance, Reason: e.reason}
	if e.prediction != 0 {
		shown.Prediction = proto.Prediction{Prediction: e.prediction, ID: e.request, Pool: e.on.pool(), Outcome: e.on.outcome(),
			Amount: e.amount, State: e.state, Payout: e.payout, Shares: e.shares}
	}
	return shown
}

// seal is the head of the hash chain at the record that ended a pool.
type seal struct {
	pool proto.PoolID
	seq  proto.Seq
	head [sha256.Size]byte
}

func (p *past) seal(pool proto.PoolID, seq proto.Seq) {
	s := seal{pool, seq, p.head}
	p.value = binary.BigEndian.AppendUint64(p.value[:0], uint64(pool))
	p.put(viewSeals, uint64(seq), append(p.value, s.head[:]...))
	if p.views != nil {
		p.seals = append(p.seals, s)
	}
}

// takeSeals returns the seals since it was last called.
func (p *past) takeSeals() []seal {
	taken := p.seals
	p.seals = nil
	return taken
}

// endPool keeps a pool that has just ended; a question that was never approved is nobody's business.
func (p *past) endPool(seq proto.Seq, at proto.Time, of *pool) {
	if of.hidden() {
		return
	}
	p.seal(of.id, seq)
	p.putJSON(viewPools, uint64(of.id), &proto.PastPool{Pool: of.show(), Opened: of.opened, Locked: of.locked, Ended: at,
		Gross: of.gross, Paid: of.paid, Record: seq, Head: hex.EncodeToString(p.head[:]),
		Takeout: of.ended.Takeout, Breakage: of.ended.Breakage, Minus: of.ended.Minus, CarriedOn: of.ended.CarriedOn, Dividends: of.ended.Dividends})
}

// tellRoom keeps whose room a game is.
func (p *past) tellRoom(id proto.GameID, of proto.CircleID) {
	p.put(viewRooms, uint64(id), binary.BigEndian.AppendUint64(nil, uint64(of)))
}

// leave keeps a game that leaves memory, and the first hundred of its ladder.
func (p *past) leave(g *game) {
	ranked := newRanking(p.ladderOf(g.id).all())
	gone := proto.PastGame{Game: g.show(), Ended: g.ended, Pools: len(g.pools), Players: len(ranked.rows)}
	for _, pool := range g.pools {
		gone.Gross += pool.gross
	}
	p.putJSON(viewGames, uint64(g.id), &gone)
	p.putJSON(viewLeaders, uint64(g.id), &proto.Leaders{Game: g.id, Players: len(ranked.rows), Leaders: ranked.leaders()})
	p.ladders.Delete(g.id)
}

// noViews is where nothing is kept, as of a market that is only measured.
type noViews struct{}

func (noViews) Put(uint8, []byte, []byte)                                 {}
func (noViews) Read(uint8, []byte, func([]byte) []byte) error             { return nil }
func (noViews) Range(uint8, []byte, []byte, func(_, _ []byte) bool) error { return nil }
func (noViews) Reached() uint64                                           { return math.MaxInt64 }
